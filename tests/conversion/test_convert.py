"""Official snapshots become folders that `from_pretrained` loads, with the same numbers coming out."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dfmgan_hf.conversion import SnapshotError, convert_official_snapshot, read_official_snapshot
from dfmgan_hf.conversion.official import infer_channels
from dfmgan_hf.models.base import block_resolutions, channels_at
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.stylegan2 import StyleGAN2Generator
from dfmgan_hf.pipeline import DFMGANPipeline
from tests.conversion.snapshots import GOLDEN_SNAPSHOT, Persistent, official_network, write_snapshot
from tests.models.golden import (
    assert_close_to_golden,
    golden_discriminator,
    golden_generator,
    golden_match_discriminator,
    load_numbers,
)

EXAMPLE = Path(__file__).parents[2] / "examples" / "convert_official_snapshot.py"


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    return convert_official_snapshot(GOLDEN_SNAPSHOT, tmp_path_factory.mktemp("golden") / "converted")


@pytest.fixture
def networks():
    """The golden snapshot's networks, to be changed by a test."""
    return copy.deepcopy(read_official_snapshot(GOLDEN_SNAPSHOT).networks)


def stage1(networks):
    """The same networks as stage 1 leaves them: no defect branch, no D_match."""
    for name in ("G", "G_ema"):
        for entries in (networks[name].tensors, networks[name].attributes):
            for key in list(entries):
                if key.startswith(("synthesis.res_b", "defect_mapping.")):
                    del entries[key]
    del networks["D_match"]
    return networks


def assert_same_state(model, expected):
    state = expected.state_dict()
    assert model.state_dict().keys() == state.keys()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


class TestGolden:
    def test_configuration_is_found(self, converted):
        sizes = {"resolution": 64, "aspect": [1, 1], "channel_base": 1024, "channel_max": 32, "conv_clamp": 256.0}
        generator = {**sizes, "image_channels": 3, "z_dim": 64, "w_dim": 64, "mapping_layers": 2}
        assert converted.stage == 2
        assert converted.configs["generator"] == {
            **generator,
            "residual_resolution": 32,
            "window": None,
            "defect_names": None,
            "object_noise": False,
            "soft_gate": False,
        }
        assert converted.configs["generator_raw"] == converted.configs["generator"]
        judges = {**sizes, "mbstd_group_size": 4, "num_kinds": 0}
        assert converted.configs["discriminator"] == {**judges, "image_channels": 3}
        match = {**judges, "channel_base": 512, "channel_max": 16, "image_channels": 4}
        assert converted.configs["match_discriminator"] == match

    def test_networks_load_bit_for_bit(self, converted):
        folder = converted.output_dir
        assert_same_state(DFMGANGenerator.from_pretrained(folder, subfolder="generator"), golden_generator())
        assert_same_state(DFMGANGenerator.from_pretrained(folder, subfolder="generator_raw"), golden_generator())
        discriminator = StyleGAN2Discriminator.from_pretrained(folder, subfolder="discriminator")
        assert_same_state(discriminator, golden_discriminator())
        match = StyleGAN2Discriminator.from_pretrained(folder, subfolder="match_discriminator")
        assert_same_state(match, golden_match_discriminator())

    @torch.no_grad()
    def test_outputs_are_the_golden_ones(self, converted):
        numbers = load_numbers()
        generator = DFMGANPipeline.from_pretrained(converted.output_dir).generator
        output = generator(numbers["z_object"], numbers["z_defect"], noise_mode="const", return_defect_free=True)
        assert_close_to_golden(output.images, numbers["image_const"])
        assert_close_to_golden(output.mask_logits, numbers["mask_logits_const"])
        assert_close_to_golden(output.defect_free_images, numbers["defect_free_const"])
        discriminator = StyleGAN2Discriminator.from_pretrained(converted.output_dir, subfolder="discriminator")
        assert_close_to_golden(discriminator(numbers["real_image"]).logits, numbers["logits_real"])
        match = StyleGAN2Discriminator.from_pretrained(converted.output_dir, subfolder="match_discriminator")
        pair = torch.cat([numbers["real_image"], numbers["real_mask"]], dim=1)
        assert_close_to_golden(match(pair).logits, numbers["match_logits_real"])

    def test_pipeline_draws_triplets(self, converted):
        output = DFMGANPipeline.from_pretrained(converted.output_dir)(seeds=[1, 2], output_type="pt")
        assert output.images.shape == (2, 3, 64, 64)
        assert output.masks.shape == (2, 1, 64, 64)

    def test_only_safetensors_and_json_are_written(self, converted):
        suffixes = {path.suffix for path in converted.output_dir.rglob("*") if path.is_file()}
        assert suffixes == {".json", ".safetensors"}
        assert {path.name for path in converted.output_dir.parent.iterdir()} == {"converted"}


@torch.no_grad()
def test_stage1_snapshot_becomes_a_backbone_pipeline(networks, tmp_path):
    path = write_snapshot(tmp_path / "snapshot.pkl", stage1(networks))
    result = convert_official_snapshot(path, tmp_path / "converted")
    assert result.stage == 1
    assert result.configs.keys() == {"generator", "generator_raw", "discriminator"}
    generator = DFMGANPipeline.from_pretrained(result.output_dir).generator
    assert type(generator) is StyleGAN2Generator
    numbers = load_numbers()
    images = generator(numbers["z_object"], noise_mode="const").images
    assert_close_to_golden(images, numbers["defect_free_const"])


def test_stage2_starts_from_a_converted_stage1(networks, tmp_path):
    path = write_snapshot(tmp_path / "snapshot.pkl", stage1(networks))
    folder = convert_official_snapshot(path, tmp_path / "converted").output_dir
    model = DFMGANGenerator.from_backbone(StyleGAN2Generator.from_pretrained(folder, subfolder="generator"))
    assert torch.equal(model.mapping.w_avg, networks["G_ema"].tensors["mapping.w_avg"])


def test_snapshot_with_g_ema_alone(networks, tmp_path):
    path = write_snapshot(tmp_path / "snapshot.pkl", {"G_ema": networks["G_ema"]})
    assert convert_official_snapshot(path, tmp_path / "converted").configs.keys() == {"generator"}


def test_augmentation_probability_is_reported(networks, tmp_path):
    pipe = Persistent("AugmentPipe", {"_buffers": {"p": torch.tensor(0.5)}})
    path = write_snapshot(tmp_path / "snapshot.pkl", networks, augment_pipe=pipe)
    assert convert_official_snapshot(path, tmp_path / "converted").augmentation_probability == 0.5


@pytest.mark.parametrize(
    ("resolution", "channels", "config"),
    [
        (32, 3, {}),
        (128, 1, {"mapping_layers": 8}),
        (256, 3, {"z_dim": 24, "conv_clamp": None}),
        (512, 3, {"residual_resolution": 64}),
        (1024, 3, {"w_dim": 12, "residual_resolution": 256}),
    ],
)
def test_sizes_are_inferred_from_the_tensors(resolution, channels, config, tmp_path):
    """No constructor arguments are stored in these snapshots."""
    sizes = {"resolution": resolution, "image_channels": channels, "channel_base": 2 * resolution, "channel_max": 8}
    config = {"z_dim": 16, "w_dim": 16, "conv_clamp": 256.0, **config}
    model_class = DFMGANGenerator if "residual_resolution" in config else StyleGAN2Generator
    generator = model_class(**sizes, **config)
    discriminator = StyleGAN2Discriminator(**sizes, conv_clamp=config["conv_clamp"])
    clamp = config["conv_clamp"]
    networks = {"G_ema": official_network(generator, clamp), "D": official_network(discriminator, clamp)}
    folder = convert_official_snapshot(write_snapshot(tmp_path / "s.pkl", networks), tmp_path / "out").output_dir
    loaded = DFMGANPipeline.from_pretrained(folder).generator
    assert type(loaded) is model_class
    assert_same_state(loaded, generator)
    for name, value in {**sizes, **config}.items():
        assert loaded.config[name] == value
    loaded_discriminator = StyleGAN2Discriminator.from_pretrained(folder, subfolder="discriminator")
    assert_same_state(loaded_discriminator, discriminator)


@pytest.mark.parametrize("base", [256, 1000, 1024, 4096, 16384, 20000, 32768])
@pytest.mark.parametrize("maximum", [4, 60, 512])
def test_inferred_channels_give_the_same_widths(base, maximum):
    widths = {r: channels_at(r, base, maximum) for r in block_resolutions(256)}
    inferred = infer_channels(widths)
    assert {r: channels_at(r, *inferred) for r in widths} == widths


def test_widths_that_no_channel_base_gives():
    with pytest.raises(SnapshotError, match="no channel_base and channel_max give"):
        infer_channels({4: 8, 8: 8, 16: 2, 32: 4})


def set_attribute(network, name, value):
    return lambda networks: networks[network].attributes.__setitem__(name, value)


def set_tensor(network, name, value):
    return lambda networks: networks[network].tensors.__setitem__(name, value)


def drop_tensor(network, name):
    return lambda networks: networks[network].tensors.pop(name)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (set_attribute("G_ema", "c_dim", 10), r"G_ema cannot be converted: class-conditional \(c_dim 10\)"),
        (set_tensor("G_ema", "mapping.embed.weight", torch.ones(4, 4)), "class-conditional"),
        (set_attribute("D", "c_dim", 10), "D cannot be converted: class-conditional"),
        (set_attribute("G_ema", "mapping.fc0.bias_gain", 1), "lr multiplier 1"),
        (
            set_attribute("G_ema", "defect_mapping.fc0.activation", "relu"),
            "defect_mapping network with the act",
        ),
        (set_attribute("G_ema", "mask_threshold", 0.5), "mask threshold 0.5"),
        (set_attribute("G_ema", "synthesis._init_kwargs", {"no_round": True}), "soft mask"),
        (set_attribute("G_ema", "synthesis.b8.conv0.conv_clamp", 128), "found 128, 256"),
        (set_attribute("D", "b4.mbstd.num_channels", 2), "2 channels"),
        (set_attribute("D", "b4.mbstd.group_size", None), "group size None"),
        (set_tensor("G_ema", "synthesis.b4.conv1.resample_filter", torch.eye(4)), r"not the filter \[1, 3, 3, 1\]"),
        (set_tensor("G_ema", "mapping.w_avg", torch.full((64,), torch.nan)), "NaN or infinity in mapping.w_avg"),
        (set_tensor("G_ema", "synthesis.b8.extra.weight", torch.ones(1)), "unknown: synthesis.blocks.8.extra.weight"),
        (set_tensor("G_ema", "mapping.w_avg", torch.ones(3)), "of another shape: mapping.w_avg"),
        (drop_tensor("G_ema", "synthesis.b8.conv0.noise_const"), "missing: synthesis.blocks.8.conv0.noise_const"),
        (drop_tensor("G_ema", "synthesis.b64.torgb.weight"), "no 'synthesis.b64.torgb.weight'"),
        (drop_tensor("G_ema", "synthesis.b16.conv1.weight"), "blocks at the resolutions"),
        (
            set_tensor("G_ema", "synthesis.b32.conv1.weight", torch.ones(5, 32, 3, 3)),
            r"channel widths \(4: 32, 8: 32, 16: 32, 32: 5, 64: 16\) that no channel_base",
        ),
    ],
)
def test_networks_that_ours_cannot_represent_are_explained(networks, tmp_path, change, expected):
    change(networks)
    path = write_snapshot(tmp_path / "snapshot.pkl", networks)
    with pytest.raises(SnapshotError, match=expected) as raised:
        convert_official_snapshot(path, tmp_path / "converted")
    assert str(path) in str(raised.value)
    assert list(tmp_path.iterdir()) == [path]


def test_other_resolution_is_refused(tmp_path):
    generator = official_network(StyleGAN2Generator(resolution=32, z_dim=8, w_dim=8, channel_base=64, channel_max=4))
    tensors = {name: t for name, t in generator.tensors.items() if not name.startswith("synthesis.b32.")}
    generator.tensors = tensors
    path = write_snapshot(tmp_path / "snapshot.pkl", {"G_ema": generator})
    with pytest.raises(SnapshotError, match="power of two from 32 to 1024, but is 16"):
        convert_official_snapshot(path, tmp_path / "converted")


class TestOutputFolder:
    def test_empty_folder_is_used(self, tmp_path):
        (tmp_path / "out").mkdir()
        assert (convert_official_snapshot(GOLDEN_SNAPSHOT, tmp_path / "out").output_dir / "model_index.json").is_file()

    def test_used_folder_is_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        for used in (tmp_path, tmp_path / "notes.txt"):
            # At once: the snapshot, which is not there, has not been looked for.
            with pytest.raises(FileExistsError, match="exists already; name a new folder"):
                convert_official_snapshot(tmp_path / "missing.pkl", used)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_failure_while_writing_leaves_nothing(self, tmp_path, monkeypatch):
        def fail(*args, **kwargs):
            raise OSError("no space left")

        monkeypatch.setattr(StyleGAN2Discriminator, "save_pretrained", fail)
        with pytest.raises(OSError, match="no space left"):
            convert_official_snapshot(GOLDEN_SNAPSHOT, tmp_path / "out")
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.skipif(os.name == "nt", reason="the size of files is limited as POSIX does it")
    def test_full_disk_is_told_in_words(self, tmp_path):
        code = (
            "import resource, sys\n"
            "from dfmgan_hf.cli import main\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
            "main(sys.argv[1:])\n"
        )
        options = ["convert", "--snapshot", str(GOLDEN_SNAPSHOT), "--output_dir", str(tmp_path / "out")]
        done = subprocess.run([sys.executable, "-c", code, *options], capture_output=True, text=True)
        assert done.returncode == 2
        assert "weights could not be written" in done.stderr
        assert "Traceback" not in done.stderr
        assert list(tmp_path.iterdir()) == []


def run_example(*arguments: object) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])}
    command = [sys.executable, str(EXAMPLE), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("spelling", ["--output_dir", "--output-dir"])
def test_example_prints_what_it_found(spelling, tmp_path):
    done = run_example("--snapshot", GOLDEN_SNAPSHOT, spelling, tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "stage 2" in done.stdout
    assert "64x64" in done.stdout
    assert "match_discriminator" in done.stdout
    DFMGANPipeline.from_pretrained(tmp_path / "out")


def test_example_explains_a_refusal_without_a_traceback(tmp_path):
    (tmp_path / "bad.pkl").write_bytes(b"cos\nsystem\n.")
    done = run_example("--snapshot", tmp_path / "bad.pkl", "--output_dir", tmp_path / "out")
    assert done.returncode != 0
    assert "os.system" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()
