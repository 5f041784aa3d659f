"""What diffusers asks of every pipeline (its PipelineTesterMixin, which is not installed with it), of ours."""

from __future__ import annotations

import json
from pathlib import Path

import diffusers
import pytest
import torch
from diffusers import DiffusionPipeline
from diffusers.pipelines.pipeline_loading_utils import LOADABLE_CLASSES

import dfmgan_hf
from dfmgan_hf import DFMGANGenerator, DFMGANPipeline, DFMGANPipelineOutput, StyleGAN2Discriminator, StyleGAN2Generator
from tests.test_architecture import run_python

SHIPPED = Path(__file__).parents[2] / "models" / "dfmgan-magnetic-tile"
FIELDS = ("images", "masks", "defect_free_images")


@pytest.fixture
def folder(pipe, tmp_path) -> str:
    pipe.save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


def draw(pipe: DFMGANPipeline, **arguments) -> DFMGANPipelineOutput:
    pipe.set_progress_bar_config(disable=True)
    return pipe(**{"seeds": [1, 2], "output_type": "pt", **arguments})


def same(a, b) -> bool:
    return all(torch.equal(a[name], b[name]) for name in FIELDS)


# Calls


def test_tuple_instead_of_dataclass(pipe):
    output, as_tuple = draw(pipe), draw(pipe, return_dict=False)
    assert type(as_tuple) is tuple
    assert all(torch.equal(a, b) for a, b in zip(as_tuple, output.to_tuple(), strict=True))
    assert tuple(output) == FIELDS


@pytest.mark.parametrize("num_images", [1, 3])
def test_number_of_images(pipe, num_images):
    output = draw(pipe, seeds=None, num_images=num_images)
    assert all(len(output[name]) == num_images for name in FIELDS)


def test_progress_bar_counts_images(pipe, capsys):
    pipe.set_progress_bar_config(desc="drawing")
    pipe(seeds=range(5))
    assert "drawing: 100%" in (shown := capsys.readouterr().err)
    assert "5/5" in shown
    pipe.set_progress_bar_config(disable=True)
    pipe(seeds=range(5))
    assert capsys.readouterr().err == ""


# Components, devices and types


def test_components(pipe):
    assert set(pipe.components) == {"generator"}
    assert same(draw(DFMGANPipeline(**pipe.components)), draw(pipe))


def test_no_component_is_optional(folder, make_backbone):
    assert DFMGANPipeline._optional_components == []
    assert not DFMGANPipeline.from_pretrained(folder, generator=make_backbone()).has_defects


def test_to_device(pipe):
    assert pipe.to("meta").device.type == "meta"
    assert pipe.generator.device.type == "meta"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_to_dtype(pipe, dtype):
    reference = draw(pipe).defect_free_images
    pipe.to(dtype)
    assert pipe.dtype == dtype
    assert {parameter.dtype for parameter in pipe.generator.parameters()} == {dtype}
    output = draw(pipe)
    assert output.images.dtype == torch.float32
    assert (output.defect_free_images - reference).abs().max() < {torch.float64: 1e-4}.get(dtype, 0.15)


@pytest.mark.parametrize("kind", ["whole", "backbone", "compiled"])
def test_from_pipe(pipe, backbone_pipe, kind):
    pipe = backbone_pipe if kind == "backbone" else pipe
    if kind == "compiled":
        pipe.generator = torch.compile(pipe.generator, backend="eager")
    again = DFMGANPipeline.from_pipe(pipe)
    assert again is not pipe
    assert again.generator is pipe.generator
    assert torch.equal(draw(again).images, draw(pipe).images)


def test_from_pipe_takes_another_generator(pipe, make_backbone):
    assert not DFMGANPipeline.from_pipe(pipe, generator=make_backbone()).has_defects


class UncallableParallel(torch.nn.DataParallel):
    def forward(self, *args, **kwargs):
        raise AssertionError("replicas cannot share a list of generators: the network inside must be called")


WRAPPERS = {
    "torch.compile": lambda network: torch.compile(network, backend="eager"),
    "DataParallel": UncallableParallel,
}


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_generator_draws_the_same(pipe, wrap, tmp_path):
    arguments = [{}, {"noise_mode": "random", "truncation_psi": 0.5}]
    network, expected = pipe.generator, [draw(pipe, **each) for each in arguments]
    pipe.generator = WRAPPERS[wrap](network)
    assert pipe.generator is not network
    assert pipe.unwrapped_generator is network
    assert pipe.has_defects
    assert (pipe.device, pipe.dtype) == (network.device, network.dtype)
    for each, before in zip(arguments, expected, strict=True):
        assert same(draw(pipe, **each), before)
    objects, defects = pipe.latents_from_seeds([1, 2])
    assert same(draw(pipe, seeds=None, object_latents=objects, defect_latents=defects), expected[0])
    with pytest.raises(
        ValueError, match=r"`defect_latents` must be a finite floating-point tensor of shape \(N, 5, 16\)"
    ):
        pipe(object_latents=objects, defect_latents=defects, defect_latent_space="w+")
    pipe.save_pretrained(tmp_path)
    assert same(draw(DFMGANPipeline.from_pretrained(tmp_path)), expected[0])


def test_a_compiled_generator_is_called_compiled(pipe):
    compiled = []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    pipe.generator = torch.compile(pipe.generator, backend=backend)
    pipe(seeds=[1])
    assert compiled


@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_backbone_draws_no_defects(backbone_pipe, wrap):
    expected = draw(backbone_pipe)
    backbone_pipe.generator = WRAPPERS[wrap](backbone_pipe.generator)
    assert not backbone_pipe.has_defects
    output = draw(backbone_pipe)
    assert output.masks is None
    assert torch.equal(output.images, expected.images)


def test_offloading_hooks_see_the_whole_call(pipe):
    """Accelerate's hooks act on the component's forward, so the pipeline must not reach around it."""
    calls = []
    pipe.generator.register_forward_pre_hook(lambda *_: calls.append(1))
    pipe(seeds=[1, 2, 3])
    assert len(calls) == 3


def test_sequential_offloading_leaves_the_networks_whole(pipe):
    """They read parameters past their layers, which hooks of layers would not bring back."""
    expected = draw(pipe)
    pipe.enable_sequential_cpu_offload(device=torch.device("cpu"))
    assert torch.equal(draw(pipe).images, expected.images)


# Files


def test_registration():
    assert "ModelMixin" in LOADABLE_CLASSES["dfmgan_hf"]
    assert dfmgan_hf.ModelMixin is diffusers.ModelMixin
    assert diffusers.DFMGANPipeline is DFMGANPipeline


@pytest.mark.parametrize("loader", [DFMGANPipeline, DiffusionPipeline])
def test_save_and_load(pipe, folder, loader):
    index = json.loads(Path(folder, "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "DFMGANPipeline"
    assert index["generator"] == ["dfmgan_hf", "DFMGANGenerator"]
    loaded = loader.from_pretrained(folder)
    assert type(loaded) is DFMGANPipeline
    assert type(loaded.generator) is DFMGANGenerator
    assert not loaded.generator.training
    assert same(draw(loaded), draw(pipe))


def test_save_and_load_a_backbone(backbone_pipe, tmp_path):
    backbone_pipe.save_pretrained(tmp_path)
    loaded = DiffusionPipeline.from_pretrained(str(tmp_path))
    assert type(loaded.generator) is StyleGAN2Generator
    assert torch.equal(draw(loaded).images, draw(backbone_pipe).images)


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_variants(pipe, folder, variant):
    dtype = {"fp16": torch.float16, "bf16": torch.bfloat16}[variant]
    pipe.save_pretrained(folder, variant=variant)
    assert pipe.dtype == torch.float32
    half = DFMGANPipeline.from_pretrained(folder, variant=variant, dtype=dtype)
    assert {tensor.dtype for tensor in half.generator.state_dict().values()} == {dtype}
    full = DFMGANPipeline.from_pretrained(folder)
    assert full.dtype == torch.float32
    assert (draw(full).defect_free_images - draw(half).defect_free_images).abs().max() < 0.15
    with pytest.raises(ValueError, match="variant"):
        DFMGANPipeline.from_pretrained(folder, variant="int8")
    with pytest.raises(ValueError, match="`variant` must be one of fp16, bf16, but is 'int8'"):
        pipe.save_pretrained(folder, variant="int8")


def test_dtype_when_loading(folder):
    loaded = DFMGANPipeline.from_pretrained(folder, dtype=torch.bfloat16)
    assert {tensor.dtype for tensor in loaded.generator.state_dict().values()} == {torch.bfloat16}
    assert torch.isfinite(draw(loaded).images).all()


def test_shards(pipe, tmp_path):
    pipe.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list((tmp_path / "generator").glob("*.safetensors"))) > 1
    assert same(draw(DFMGANPipeline.from_pretrained(tmp_path)), draw(pipe))


def test_discriminators_beside_the_generator_are_left_alone(pipe, folder):
    """Training keeps its discriminators in the same folder; the pipeline neither loads nor loses them."""
    discriminator = StyleGAN2Discriminator(resolution=32, channel_base=128, channel_max=4)
    discriminator.save_pretrained(f"{folder}/discriminator")
    loaded = DFMGANPipeline.from_pretrained(folder)
    assert set(loaded.components) == {"generator"}
    again = StyleGAN2Discriminator.from_pretrained(folder, subfolder="discriminator")
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), discriminator.parameters(), strict=True))


# Processes


def test_fresh_process_finds_the_class(pipe, folder):
    """A process that has only imported the package, and one that goes through the component's own class."""
    printed = run_python(f"""
import torch, dfmgan_hf
from diffusers import DiffusionPipeline
pipe = DiffusionPipeline.from_pretrained({folder!r})
assert type(pipe).__name__ == "DFMGANPipeline", type(pipe)
model = dfmgan_hf.DFMGANGenerator.from_pretrained({folder!r}, subfolder="generator")
assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), pipe.generator.state_dict().values()))
print(float(pipe(seeds=[1], output_type="pt").images.double().sum()))
""")
    assert float(printed) == float(draw(pipe, seeds=[1]).images.double().sum())


def test_drawing_imports_networks_and_the_pipeline_only():
    """Nothing that trains, measures, exports or publishes."""
    printed = run_python(f"""
import sys
import dfmgan_hf
pipe = dfmgan_hf.DFMGANPipeline.from_pretrained({str(SHIPPED)!r})
assert len(pipe(seeds=[0]).images) == 1
print(" ".join(sorted({{name.split(".")[1] for name in sys.modules if name.startswith("dfmgan_hf.")}})))
""")
    assert printed.split() == ["arguments", "cuda_graphs", "hub_errors", "models", "pipeline"]
