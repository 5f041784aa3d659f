"""What a stranger's model can hold: all that is not a whole model is refused in words, and nothing is drawn or run."""

from __future__ import annotations

import json
import time

import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline, ProjectedDiscriminator, StyleGAN2Discriminator
from dfmgan_hf.cli import main
from dfmgan_hf.methods.method import load_backbone
from dfmgan_hf.models.base import DamagedModelError

WEIGHT = "synthesis.blocks.8.conv0.weight"


@pytest.fixture
def folder(make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path)
    return tmp_path


def load_pipeline(folder):
    DFMGANPipeline.from_pretrained(folder)


def load_with_diffusers(folder):
    DiffusionPipeline.from_pretrained(str(folder))


def load_generator(folder):
    DFMGANGenerator.from_pretrained(folder, subfolder="generator")


LOADERS = [load_pipeline, load_with_diffusers, load_generator]


def change_weights(folder, change):
    file = folder / "diffusion_pytorch_model.safetensors"
    state = load_file(file)
    change(state)
    save_file(state, file)


def change_json(file, **values):
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, **values}), encoding="utf-8")


def put(name, value):
    return lambda state: state.__setitem__(name, value)


WEIGHTS = {
    "missing": (lambda state: state.pop(WEIGHT), f"missing: {WEIGHT}"),
    "unknown": (put("extra\x1b[2J", torch.ones(1)), r"unknown: extra\\x1b"),
    "shape": (put(WEIGHT, torch.ones(8, 8, 3, 1)), f"of another shape: {WEIGHT}"),
    "integers": (put(WEIGHT, torch.ones(8, 8, 3, 3, dtype=torch.int64)), "not of floating-point numbers"),
    "bytes": (put(WEIGHT, torch.ones(8, 8, 3, 3).to(torch.float8_e4m3fn)), "not of floating-point numbers"),
    "NaN": (lambda state: state[WEIGHT].view(-1)[7:8].fill_(torch.nan), f"NaN or infinity in {WEIGHT}"),
    "infinity": (lambda state: state["mapping.w_avg"][3:4].fill_(-torch.inf), "NaN or infinity in mapping.w_avg"),
}


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize("damage", WEIGHTS)
def test_weights_that_are_not_the_networks(folder, damage, load):
    change, message = WEIGHTS[damage]
    change_weights(folder / "generator", change)
    with pytest.raises(DamagedModelError, match=f"generator cannot be loaded: .*{message}"):
        load(folder)


def test_shards_are_looked_at_too(folder, make_generator):
    (folder / "generator" / "diffusion_pytorch_model.safetensors").unlink()
    make_generator().save_pretrained(folder / "generator", max_shard_size="20KB")
    (index,) = (folder / "generator").glob("*.index.json")
    load_pipeline(folder)
    shard = folder / "generator" / json.loads(index.read_text())["weight_map"][WEIGHT]
    state = load_file(shard)
    save_file({name: tensor for name, tensor in state.items() if name != WEIGHT}, shard)
    with pytest.raises(DamagedModelError, match=f"missing: {WEIGHT}"):
        load_pipeline(folder)
    change_json(index, weight_map=["a"])
    with pytest.raises(DamagedModelError, match="cannot be loaded"):
        load_pipeline(folder)


def test_damaged_header(folder):
    file = folder / "generator" / "diffusion_pytorch_model.safetensors"
    file.write_bytes(b"\xff" * 8 + file.read_bytes()[8:])
    for load in LOADERS:
        with pytest.raises(OSError, match=r"diffusion_pytorch_model\.safetensors"):
            load(folder)


def test_finite_weights_that_half_precision_cannot_hold(folder):
    change_weights(folder / "generator", lambda state: state[WEIGHT].view(-1)[:1].fill_(1e6))
    load_pipeline(folder)
    with pytest.raises(DamagedModelError, match=f"NaN or infinity in {WEIGHT}"):
        DFMGANPipeline.from_pretrained(folder, dtype=torch.float16)


@pytest.mark.parametrize("value", [1e30, -3e38])
def test_finite_weights_with_which_drawing_overflows(folder, value):
    change_weights(folder / "generator", lambda state: state[WEIGHT].fill_(value))
    for load in LOADERS:
        with pytest.raises(DamagedModelError, match=f"numbers beyond 1,000,000 in {WEIGHT}, with which .* overflow"):
            load(folder)


CONFIGS = [
    ("resolution", 2**20),
    ("resolution", 4096),
    ("resolution", -32),
    ("resolution", "32"),
    ("resolution", True),
    ("image_channels", -3),
    ("channel_max", -8),
    ("channel_max", 10**9),
    ("channel_base", 2**40),
    ("z_dim", 10**9),
    ("z_dim", 0),
    ("w_dim", 10**300),
    ("w_dim", 16.5),
    ("mapping_layers", 10**9),
    ("conv_clamp", "256"),
    ("conv_clamp", 0),
    ("conv_clamp", float("nan")),
    ("residual_resolution", 2**20),
    ("quantization_config", {"quant_method": "bitsandbytes"}),
    ("_use_default_values", 3),
]


@pytest.mark.parametrize("load", LOADERS)
@pytest.mark.parametrize(("name", "value"), CONFIGS)
def test_sizes_that_no_network_has(folder, name, value, load):
    change_json(folder / "generator" / "config.json", **{name: value})
    start = time.monotonic()
    with pytest.raises(DamagedModelError, match="generator cannot be loaded"):
        load(folder)
    assert time.monotonic() - start < 5


def test_sizes_that_are_each_possible_but_too_much_together(folder):
    sizes = {"resolution": 1024, "channel_base": 2**20, "z_dim": 8192, "w_dim": 8192, "mapping_layers": 64}
    change_json(folder / "generator" / "config.json", **sizes)
    with pytest.raises(DamagedModelError, match=r"its sizes make [0-9,]+ parameters; at most"):
        load_generator(folder)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "not valid JSON"),
        (b'{"resolution": ' + b"9" * 10_000 + b"}", "not valid JSON"),
        (b"\xff\xfe", "not valid JSON"),
        (b" " * 2**21, "no configuration has"),
        (b"[]", "does not say of which class"),
        (b"{}", "does not say of which class"),
        (b'{"_class_name": ["evil", "Evil"]}', "does not say of which class"),
    ],
)
@pytest.mark.parametrize("name", ["model_index.json", "generator/config.json"])
def test_files_that_are_no_configuration(folder, name, content, message):
    (folder / name).write_bytes(content)
    with pytest.raises(DamagedModelError, match=message):
        load_pipeline(folder)


@pytest.mark.parametrize("load", LOADERS[:2])
@pytest.mark.parametrize(
    "generator",
    [
        ["dfmgan_hf", "StyleGAN2Discriminator"],
        ["diffusers", "UNet2DModel"],
        ["transformers", "CLIPTextModel"],
        ["evil", "Evil"],
        [None, None],
        "DFMGANGenerator",
        7,
    ],
)
def test_a_foreign_generator(folder, generator, load):
    change_json(folder / "model_index.json", generator=generator)
    with pytest.raises(ValueError if load is load_with_diffusers else DamagedModelError, match="names the networks"):
        load(folder)


def test_a_network_beside_the_generator(folder):
    change_json(folder / "model_index.json", safety_checker=["transformers", "CLIPModel"])
    with pytest.raises(DamagedModelError, match="names the networks"):
        load_pipeline(folder)


def test_another_class_under_the_generators_name(folder):
    StyleGAN2Discriminator(resolution=32, channel_base=128, channel_max=4).save_pretrained(folder / "generator")
    with pytest.raises(
        DamagedModelError, match=r"makes no DFMGANGenerator: it is that of a 'StyleGAN2Discriminator'\."
    ):
        load_pipeline(folder)


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path_factory):
    ran = tmp_path_factory.mktemp("code") / "ran"
    for file in ("evil.py", "pipeline.py", "generator/evil.py", "generator/dfmgan_hf.py"):
        (folder / file).write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    for options in ({"custom_pipeline": "evil"}, {"custom_pipeline": str(folder)}, {"trust_remote_code": True}):
        with pytest.raises(ValueError, match="no code of models is run"):
            DFMGANPipeline.from_pretrained(folder, **options)
    with pytest.raises(ValueError, match="code"):
        load_pipeline(folder)
    (folder / "generator" / "dfmgan_hf.py").unlink()
    change_json(folder / "model_index.json", _class_name=["evil", "Evil"])
    with pytest.raises(DamagedModelError):
        load_pipeline(folder)
    change_json(folder / "model_index.json", _class_name="DFMGANPipeline", generator=["evil", "Evil"])
    with pytest.raises(DamagedModelError):
        load_pipeline(folder)
    assert not ran.exists()


def test_feature_networks_are_not_fetched_from_elsewhere(tmp_path):
    ProjectedDiscriminator(resolution=32).save_pretrained(tmp_path)
    for name in ("hf-hub:someone/model", "local-dir:/tmp", "no_such_network"):
        change_json(tmp_path / "config.json", feature_network=name)
        with pytest.raises(DamagedModelError, match="makes no ProjectedDiscriminator"):
            ProjectedDiscriminator.from_pretrained(tmp_path)


@pytest.mark.parametrize("part", ["generator", "discriminator"])
def test_stage_2_does_not_start_from_a_damaged_stage_1(make_backbone, part, tmp_path):
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path)
    StyleGAN2Discriminator(resolution=32, channel_base=128, channel_max=4).save_pretrained(tmp_path / "discriminator")
    load_backbone(str(tmp_path))
    name = next(name for name in load_file(tmp_path / part / "diffusion_pytorch_model.safetensors") if "bias" in name)
    change_weights(tmp_path / part, lambda state: state[name].fill_(torch.nan))
    with pytest.raises(DamagedModelError, match=f"{part} cannot be loaded: NaN or infinity in {name}"):
        load_backbone(str(tmp_path))
    (tmp_path / part / "config.json").write_text("{}")
    with pytest.raises(DamagedModelError, match="does not say of which class"):
        load_backbone(str(tmp_path))


def test_drawing_ends_with_the_reason(folder, tmp_path_factory, capsys):
    change_weights(folder / "generator", WEIGHTS["NaN"][0])
    output = tmp_path_factory.mktemp("drawn") / "out"
    with pytest.raises(SystemExit) as raised:
        main(["draw", "--model", str(folder), "--output_dir", str(output)])
    assert raised.value.code == 2
    error = capsys.readouterr().err
    assert "NaN or infinity" in error
    assert "Traceback" not in error
    assert not output.exists()
