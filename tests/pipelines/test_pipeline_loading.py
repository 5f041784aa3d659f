"""Saving and loading as every diffusers pipeline does, with the private registration that this needs."""

import json
import subprocess
import sys

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import dfmgan_hf
from dfmgan_hf import DFMGANGenerator, DFMGANPipeline, StyleGAN2Discriminator, StyleGAN2Generator


@pytest.fixture
def folder(pipe, tmp_path) -> str:
    pipe.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def same(a, b) -> bool:
    return all(torch.equal(a[k], b[k]) for k in ("images", "masks", "defect_free_images"))


def test_registration():
    assert "ModelMixin" in LOADABLE_CLASSES["dfmgan_hf"]
    assert dfmgan_hf.ModelMixin is diffusers.ModelMixin
    assert diffusers.DFMGANPipeline is DFMGANPipeline


def test_model_index_names_the_package(folder):
    with open(f"{folder}/model_index.json") as file:
        index = json.load(file)
    assert index["_class_name"] == "DFMGANPipeline"
    assert index["generator"] == ["dfmgan_hf", "DFMGANGenerator"]


@pytest.mark.parametrize("loader", [DFMGANPipeline, DiffusionPipeline])
def test_round_trip(pipe, folder, loader):
    loaded = loader.from_pretrained(folder)
    assert type(loaded) is DFMGANPipeline
    assert type(loaded.generator) is DFMGANGenerator
    assert not loaded.generator.training
    loaded.set_progress_bar_config(disable=True)
    assert same(loaded(seeds=[1, 2], output_type="pt"), pipe(seeds=[1, 2], output_type="pt"))


def test_backbone_round_trip(backbone_pipe, tmp_path):
    backbone_pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(str(tmp_path))
    assert type(loaded.generator) is StyleGAN2Generator
    assert not loaded.has_defects
    assert torch.equal(loaded(seeds=[1], output_type="pt").images, backbone_pipe(seeds=[1], output_type="pt").images)


def test_fresh_process_finds_the_class(pipe, folder):
    """A process that has only imported the package, and one that goes through the component's own class."""
    script = f"""
import torch, dfmgan_hf
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({folder!r})
assert type(pipe).__name__ == "DFMGANPipeline", type(pipe)
model = dfmgan_hf.DFMGANGenerator.from_pretrained({folder!r}, subfolder="generator")
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), pipe.generator.state_dict().values()))
print(float(pipe(seeds=[1], output_type="pt").images.double().sum()))
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert float(run.stdout) == float(pipe(seeds=[1], output_type="pt").images.double().sum())


def test_half_precision_variant(pipe, folder):
    pipe.to(torch.float16)
    pipe.save_pretrained(folder, variant="fp16")
    half = DFMGANPipeline.from_pretrained(folder, variant="fp16", dtype=torch.float16)
    assert {t.dtype for t in half.generator.state_dict().values()} == {torch.float16}
    full = DFMGANPipeline.from_pretrained(folder)
    assert full.dtype == torch.float32
    twins = [p(seeds=[1], output_type="pt").defect_free_images for p in (full, half)]
    assert (twins[0] - twins[1]).abs().max() < 0.05


def test_dtype_when_loading(folder):
    loaded = DFMGANPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    assert {t.dtype for t in loaded.generator.state_dict().values()} == {torch.bfloat16}
    assert torch.isfinite(loaded(seeds=[1], output_type="pt").images).all()


def test_discriminators_beside_the_generator_are_left_alone(pipe, folder):
    """Training keeps its discriminators in the same folder; the pipeline neither loads nor loses them."""
    discriminator = StyleGAN2Discriminator(resolution=32, channel_base=128, channel_max=4)
    discriminator.save_pretrained(f"{folder}/discriminator")
    loaded = DFMGANPipeline.from_pretrained(folder)
    assert set(loaded.components) == {"generator"}
    again = StyleGAN2Discriminator.from_pretrained(folder, subfolder="discriminator")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), discriminator.parameters(), strict=True))


def test_another_generator_can_be_passed(folder, make_backbone):
    loaded = DFMGANPipeline.from_pretrained(folder, generator=make_backbone())
    assert not loaded.has_defects


def test_cpu_offload_hooks_see_the_whole_call(pipe):
    """Accelerate's hooks act on the component's forward, so the pipeline must not reach around it."""
    calls = []
    pipe.generator.register_forward_pre_hook(lambda *_: calls.append(1))
    pipe(seeds=[1, 2, 3])
    assert len(calls) == 3
