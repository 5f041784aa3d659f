"""Every method of the registry: trained for two steps, saved, loaded, drawn from and measured."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods import METHODS, get_method, open_sampler
from dfmgan_hf.methods.dfmgan import Stage2Options
from dfmgan_hf.methods.method import RecipeConfig, SamplerRequest
from dfmgan_hf.methods.train import train as run_training
from dfmgan_hf.metrics import EvaluationConfig, Networks, evaluate
from dfmgan_hf.metrics.networks import LPIPS
from dfmgan_hf.metrics.sampler import draw
from tests.metrics.drawn import random_lpips, tiny_extractor
from tests.training import tiny

pytestmark = pytest.mark.usefixtures("no_report")

TRAINED = [name for name, method in METHODS.items() if method.is_trained]
TINY_SIZES = {**tiny.SIZES, "z_dim": tiny.Z_DIM, "w_dim": tiny.Z_DIM, "image_channels": 1}
# What makes the networks small of a method that has sizes of its own.
OPTIONS: dict[str, list[str]] = {}
WEIGHTS = "diffusion_pytorch_model.safetensors"
RUN = ["--log_every_kimg=0.008", "--sample_every_kimg=0", "--checkpoint_every_kimg=0.004", "--report_to=none"]


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """What stage 1 leaves behind."""
    folder = tmp_path_factory.mktemp("backbone")
    torch.manual_seed(0)
    generator, discriminator = tiny.make_networks(channels=1)
    DFMGANPipeline(generator).save_pretrained(folder)
    discriminator.save_pretrained(folder / "discriminator")
    return folder


@pytest.fixture(scope="module")
def lpips(tmp_path_factory) -> LPIPS:
    pytest.importorskip("torchvision", reason="the metrics extra is not installed")
    return random_lpips(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def train(category, backbone) -> Callable[..., None]:
    """Trains a method on drawn photographs: two steps of four images."""

    def train_for(name: str, output: Path, *more: str, total_kimg: float = 0.008) -> None:
        method = get_method(name)
        sizes = TINY_SIZES if method.init != "stage1" else {}
        sizes = {"batch_size": 4, **{key: value for key, value in sizes.items() if key in method.recipe_fields}}
        start = ["--pretrained_backbone", str(backbone)] if method.init == "stage1" else []
        where = ["--data_dir", str(category), "--defect", "dot", "--output_dir", str(output), *start]
        options = [f"--{key}={value}" for key, value in sizes.items()] + OPTIONS.get(name, []) + list(more)
        run_training([name, *where, *options, f"--total_kimg={total_kimg}", *RUN])

    return train_for


def sampler_of(name: str, category: Path, trained: Path | None):
    request = SamplerRequest(
        source=None if trained is None else str(trained),
        data=DataConfig(data_dir=category),
        defect="dot",
        resolution=32,
    )
    return open_sampler(request, None if get_method(name).is_trained else name)


@pytest.mark.parametrize("name", METHODS)
def test_train_save_load_sample_evaluate(name, train, category, lpips, tmp_path):
    method = METHODS[name]
    if method.is_trained:
        train(name, tmp_path)
        record = json.loads((tmp_path / "training_config.json").read_text())
        assert (record["method"], record["defect"], record["images"]) == (name, "dot", 4)
        assert record["reconstruction"] is method.is_reconstruction
        assert record["result"]["images_seen"] == 8
        pickles = [path for path in (tmp_path / "generator").iterdir() if path.suffix not in (".json", ".safetensors")]
        assert not pickles
    sampler = sampler_of(name, category, tmp_path if method.is_trained else None)

    images, masks = draw(sampler, range(3), seed=5)
    assert images.shape[2:] == (32, 32)
    assert (masks is not None) == method.has_masks
    alone, mask_alone = draw(sampler, [2], seed=5)
    assert torch.equal(alone[0], images[2]), "image 2 depends on more than its number and the seed"
    if masks is not None:
        assert torch.equal(mask_alone[0], masks[2])
        assert set(masks.unique().tolist()) <= {0, 255}
    again, _ = draw(sampler_of(name, category, tmp_path if method.is_trained else None), range(3), seed=5)
    assert torch.equal(again, images)
    assert not torch.equal(images[0], images[1])

    real = DataConfig(data_dir=category).load_defects("dot", resolution=32)
    config = EvaluationConfig(
        metrics=("kid", "clustered_lpips", "masks"), num_images=6, num_lpips_images=6, num_bootstrap=2
    )
    result = evaluate(sampler, real, Networks(tiny_extractor(), lpips), config, progress=False)
    assert torch.tensor(result.metrics["kid"]["kid"]).isfinite()
    assert result.metrics["clustered_lpips"]["clustered_lpips"] >= 0
    assert ("masks" in result.metrics) == method.has_masks


@pytest.mark.parametrize("name", TRAINED)
def test_one_shot(name, train, tmp_path):
    train(name, tmp_path, "--shots=1", total_kimg=0.004)
    record = json.loads((tmp_path / "training_config.json").read_text())
    assert record["images"] == 1
    assert record["result"]["images_seen"] == 4


@pytest.mark.parametrize("name", TRAINED)
def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(name, train, tmp_path):
    train(name, tmp_path / "whole", total_kimg=0.012)
    train(name, tmp_path / "stopped", total_kimg=0.004)
    train(name, tmp_path / "stopped", "--resume_from_checkpoint=latest", total_kimg=0.012)
    weights = [path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").rglob("diffusion*.safetensors")]
    assert any(path.parts[0] == "generator" for path in weights)
    for path in weights:
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "stopped" / path).read_bytes(), path


def test_options_of_cdc(train, tmp_path):
    train("cdc", tmp_path, "--num_anchors=2", "--augmentation=bgc", "--low_vram")
    assert (tmp_path / "generator" / "config.json").is_file()


def test_diffaug_starts_from_stage1_if_one_is_given(category, backbone, tmp_path):
    common = ["--data_dir", str(category), "--defect=dot", "--output_dir", str(tmp_path), "--total_kimg=0.008", *RUN]
    run_training(["diffaug", "--pretrained_backbone", str(backbone), "--lr=1e-9", *common])
    before, after = (DFMGANPipeline.from_pretrained(str(path)).generator.state_dict() for path in (backbone, tmp_path))
    for name, value in before.items():
        if name != "mapping.w_avg":
            assert torch.allclose(after[name], value, atol=1e-6), name


def test_stage1_starts_from_that_of_another_product(category, backbone, tmp_path):
    where = [f"--data_dir={category}", f"--output_dir={tmp_path}", "--total_kimg=0.008", "--lr=1e-9", *RUN]
    run_training(["stage1", f"--pretrained_backbone={backbone}", "--batch_size=4", *where])
    for name in ("generator", "discriminator"):
        before, after = (load_file(path / name / WEIGHTS) for path in (backbone, tmp_path))
        assert before.keys() == after.keys()
        for key in before.keys() - {"mapping.w_avg"}:
            assert torch.allclose(after[key], before[key], atol=1e-6), key
    record = json.loads((tmp_path / "training_config.json").read_text())
    assert "other_product" in record
    assert "backbone" not in record, "the photographs of another data set are not this one's"
    with pytest.raises(ValueError, match=r"`resolution` is 32 in the pretrained backbone and cannot be 64"):
        run_training(["stage1", f"--pretrained_backbone={backbone}", "--resolution=64", *where])


def test_mistakes_are_named(category, backbone, tmp_path):
    where = ["--data_dir", str(category), "--defect", "dot", "--output_dir", str(tmp_path), *RUN]
    with pytest.raises(ValueError, match="CDC starts from stage 1: give its folder with --pretrained_backbone"):
        run_training(["cdc", *where])
    with pytest.raises(ValueError, match="SDGAN starts from scratch: leave --pretrained_backbone out"):
        run_training(["sdgan", "--pretrained_backbone", str(backbone), *where])
    with pytest.raises(ValueError, match="`num_taps` must be from 1 to 1 at 32x32, but is 2"):
        run_training(["cdc", "--pretrained_backbone", str(backbone), "--num_taps=2", *where])
    with pytest.raises(OSError, match="There is no folder nowhere here"):
        run_training(["dfmgan", "--pretrained_backbone=nowhere", *where])
    with pytest.raises(OSError, match=r"holds no model: it has no generator/config\.json"):
        run_training(["stage2", "--pretrained_backbone", str(tmp_path), *where])
    with pytest.raises(ValueError, match=r"The method must be one of stage1, stage2, finetune, .*'nonesuch'"):
        run_training(["nonesuch", *where])
    with pytest.raises(ValueError, match=r"`method` must be one of finetune, .*'nonesuch'"):
        get_method("nonesuch")
    with pytest.raises(ValueError, match="Give either what was trained"):
        open_sampler(SamplerRequest())
    assert not list(tmp_path.iterdir())


def test_published_values_come_before_the_presets_and_overrides_before_both():
    diffaug = METHODS["diffaug"]
    paper = diffaug.resolve("auto", RecipeConfig(), None, 1)
    assert (paper.batch_size, paper.lr, paper.r1_gamma, paper.ema_kimg) == (8, 0.002, 10.0, 10.0)
    assert (paper.total_kimg, paper.channel_base) == (300.0, 32768)
    small = diffaug.resolve("small", RecipeConfig(batch_size=16), None, 1)
    assert (small.batch_size, small.lr, small.channel_base, small.resolution) == (16, 0.002, 1024, 64)
    assert small.r1_gamma == pytest.approx(10 / 16)
    assert small.total_kimg == pytest.approx(300 * 30 / 400)
    assert METHODS["finetune"].resolve("auto", RecipeConfig(), None, 1).total_kimg == 400
    assert METHODS["cdc"].resolve("auto", RecipeConfig(), None, 1).ema_kimg == 1.25


def test_facts_about_the_methods():
    for name, method in METHODS.items():
        assert name == method.name
        assert method.citation.rstrip(".")[-4:].isdigit() or "(AAAI 2023)" in method.citation
        assert method.is_trained == (method.generator is not None)
    assert METHODS["dfmgan"].options is Stage2Options
