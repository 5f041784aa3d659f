"""What diffusers asks of every model class (its ModelTesterMixin, which is not installed with it), of each of ours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from diffusers import ModelMixin
from diffusers.training_utils import EMAModel
from diffusers.utils import BaseOutput
from torch import Tensor

from dfmgan_hf import DFMGANGenerator, StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.models.cyclegan import CycleGANGenerator, PatchDiscriminator
from dfmgan_hf.models.defect_gan import DefectGANDiscriminator, DefectGANGenerator, control_map
from dfmgan_hf.models.discriminator import PatchHeadDiscriminator
from dfmgan_hf.models.projected import ProjectedDiscriminator

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
HALF = {torch.float16: 0.02, torch.bfloat16: 0.1}
"""Types, and how far from float32 an output may be, of its largest magnitude."""


class ModelMixinChecks:
    """The checks; a subclass says what model and which inputs.

    Args:
        model_class: what is tested.
        config: its configuration, not all of it defaults.
        output_shape: of the first output.
        float32_outputs: outputs are float32 whatever the type of the parameters.
        tolerance: what a sum may differ by with its terms' alignment in memory.
    """

    model_class: type[ModelMixin]
    config: ClassVar[dict[str, Any]]
    output_shape: tuple[int, ...]
    float32_outputs = False
    tolerance = 1e-6

    def inputs(self, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
        raise NotImplementedError

    def randn(self, *shape: int, seed: int = 1) -> Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    @pytest.fixture
    def model(self) -> ModelMixin:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = self.model_class(**self.config)
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    if parameter.ndim == 0 or name.endswith("strength"):
                        parameter.fill_(0.3)
        return model.eval()

    def call(self, model: ModelMixin, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return model(**self.inputs(dtype), return_dict=False)

    def assert_same(self, model: ModelMixin, other: ModelMixin, dtype: torch.dtype = torch.float32) -> None:
        """The same tensors, and the same outputs but for what their alignment in memory changes in a sum."""
        expected, actual = model.state_dict(), other.state_dict()
        assert list(actual) == list(expected)
        for name, tensor in actual.items():
            assert tensor.device.type == "cpu", name
            assert torch.equal(tensor, expected[name]), name
        for a, b in zip(self.call(model, dtype), self.call(other, dtype), strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=self.tolerance)

    # Calls

    def test_output(self, model):
        output = model(**self.inputs())
        assert isinstance(output, BaseOutput)
        first = output.to_tuple()[0]
        assert first is output[0]
        assert first.shape == self.output_shape
        assert first.dtype == torch.float32

    def test_return_dict(self, model):
        with torch.no_grad():
            output = model(**self.inputs())
        as_tuple = self.call(model)
        assert type(as_tuple) is tuple
        assert len(as_tuple) == len(output.to_tuple())
        for a, b in zip(as_tuple, output.to_tuple(), strict=True):
            assert torch.equal(a, b)
            assert torch.isfinite(a).all()

    def test_determinism(self, model):
        for a, b in zip(self.call(model), self.call(model), strict=True):
            assert torch.equal(a, b)

    @pytest.mark.parametrize("dtype", HALF)
    def test_half_precision(self, model, dtype):
        exact = self.call(model)[0]
        half = self.call(model.to(dtype), dtype)[0]
        assert half.dtype == (torch.float32 if self.float32_outputs else dtype)
        assert (half.float() - exact).abs().max() < HALF[dtype] * exact.abs().max()

    # Configuration

    def test_config_round_trip(self, model, tmp_path):
        again = self.model_class.from_config(model.config)
        again.load_state_dict(model.state_dict())
        self.assert_same(model, again.eval())
        model.save_config(tmp_path)
        loaded = self.model_class.load_config(tmp_path)
        assert loaded["_class_name"] == self.model_class.__name__
        assert {name: loaded[name] for name in self.config} == self.config
        assert loaded.keys() - {"_class_name", "_diffusers_version"} == {
            name for name in model.config if not name.startswith("_")
        }

    # Files

    def test_save_and_load(self, model, tmp_path):
        model.save_pretrained(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == [CONFIG_FILE, WEIGHTS_FILE]
        loaded = self.model_class.from_pretrained(tmp_path)
        assert not loaded.training
        self.assert_same(model, loaded)

    def test_variant(self, model, tmp_path):
        model.save_pretrained(tmp_path, variant="fp16")
        assert (tmp_path / "diffusion_pytorch_model.fp16.safetensors").is_file()
        self.assert_same(model, self.model_class.from_pretrained(tmp_path, variant="fp16"))
        with pytest.raises(OSError, match=WEIGHTS_FILE):
            self.model_class.from_pretrained(tmp_path)

    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    @pytest.mark.parametrize("low_cpu_mem_usage", [True, False])
    def test_dtype(self, model, tmp_path, dtype, low_cpu_mem_usage):
        model.to(dtype).save_pretrained(tmp_path)
        loaded = self.model_class.from_pretrained(tmp_path, dtype=dtype, low_cpu_mem_usage=low_cpu_mem_usage)
        assert loaded.dtype == dtype
        self.assert_same(model, loaded, dtype)

    @pytest.mark.parametrize("variant", [None, "fp16"])
    def test_sharded(self, model, tmp_path, variant):
        size = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())
        model.save_pretrained(tmp_path, max_shard_size=f"{size * 3 // 4 // 1000}KB", variant=variant)
        (index,) = tmp_path.glob("*.index*.json")
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        assert len(names) > 1
        assert {path.name for path in tmp_path.glob("*.safetensors")} == names
        self.assert_same(model, self.model_class.from_pretrained(tmp_path, variant=variant))
        model.save_pretrained(tmp_path, variant=variant)  # whole, where it was in shards
        assert not list(tmp_path.glob("*.index*.json"))
        self.assert_same(model, self.model_class.from_pretrained(tmp_path, variant=variant))

    def test_pickles_are_not_written(self, model, tmp_path):
        with pytest.raises(ValueError, match="`safe_serialization` must be True"):
            model.save_pretrained(tmp_path / "model", safe_serialization=False)
        assert not (tmp_path / "model").exists()

    @pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}], ids=["name", "dict"])
    def test_device_map(self, model, tmp_path, device_map):
        model.save_pretrained(tmp_path, max_shard_size="20KB")
        self.assert_same(model, self.model_class.from_pretrained(tmp_path, device_map=device_map))

    def test_networks_are_not_split_over_devices(self, model, tmp_path):
        """The largest fits any accelerator."""
        model.save_pretrained(tmp_path)
        with pytest.raises(ValueError, match="does not support `device_map='auto'`"):
            self.model_class.from_pretrained(tmp_path, device_map="auto")

    # Training

    def test_training_and_averaged_weights(self, model, tmp_path: Path):
        """A step, and diffusers' moving average of it, which is saved as a model and loaded again."""
        model.train()
        average = EMAModel(model.parameters(), decay=0.5, model_cls=self.model_class, model_config=model.config)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        output = model(**self.inputs())
        loss = sum((tensor - self.randn(*tensor.shape)).square().mean() for tensor in output.to_tuple())
        loss.backward()
        without = [n for n, p in model.named_parameters() if p.grad is None or not torch.isfinite(p.grad).all()]
        assert without == self.untrained_parameters(model)
        torch.optim.SGD(model.parameters(), lr=0.1).step()
        average.step(model.parameters())
        average.step(model.parameters())
        average.save_pretrained(tmp_path)
        assert EMAModel.from_pretrained(tmp_path, self.model_class).decay == 0.5
        loaded = self.model_class.from_pretrained(tmp_path)
        averaged = dict(zip(before, average.shadow_params, strict=True))
        moved = 0
        for name, parameter in loaded.named_parameters():
            assert torch.equal(parameter, averaged[name]), name
            moved += not torch.equal(parameter, before[name])
        assert moved > len(before) / 2

    def untrained_parameters(self, model: ModelMixin) -> list[str]:
        """Names of the parameters that this call gives no gradient."""
        return []

    def test_gradient_checkpointing_is_refused(self, model):
        assert not model._supports_gradient_checkpointing
        with pytest.raises(ValueError, match="does not support gradient checkpointing"):
            model.enable_gradient_checkpointing()


class TestStyleGAN2Generator(ModelMixinChecks):
    model_class = StyleGAN2Generator
    config: ClassVar = {
        "resolution": 32,
        "image_channels": 1,
        "z_dim": 16,
        "w_dim": 16,
        "channel_base": 256,
        "channel_max": 8,
    }
    output_shape = (2, 1, 32, 32)
    float32_outputs = True

    def inputs(self, dtype=torch.float32):
        noise = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        return {"object_latents": self.randn(2, 16).to(dtype), "generator": noise}


class TestDFMGANGenerator(ModelMixinChecks):
    model_class = DFMGANGenerator
    config: ClassVar = {**TestStyleGAN2Generator.config, "image_channels": 3, "residual_resolution": 16}
    output_shape = (2, 3, 32, 32)
    float32_outputs = True

    def inputs(self, dtype=torch.float32):
        latents = {
            "object_latents": self.randn(2, 16).to(dtype),
            "defect_latents": self.randn(2, 16, seed=2).to(dtype),
        }
        noise = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        # Half precision moves the edge of a mask by a pixel, where the picture jumps; without a defect it does not.
        return {**latents, "generator": noise, "mask_threshold": 256.0}

    def test_twins_are_the_third_of_the_tuple_if_asked_for(self, model):
        assert len(model(**self.inputs(), return_dict=False)) == 2
        output = model(**self.inputs(), return_defect_free=True)
        *_, twins = model(**self.inputs(), return_defect_free=True, return_dict=False)
        assert torch.equal(twins, output.defect_free_images)


class TestStyleGAN2Discriminator(ModelMixinChecks):
    model_class = StyleGAN2Discriminator
    config: ClassVar = {
        "resolution": 32,
        "image_channels": 4,
        "channel_base": 256,
        "channel_max": 8,
        "mbstd_group_size": 2,
    }
    output_shape = (2, 1)

    def inputs(self, dtype=torch.float32):
        return {"images": self.randn(2, 4, 32, 32).to(dtype)}


class TestPatchHeadDiscriminator(TestStyleGAN2Discriminator):
    model_class = PatchHeadDiscriminator
    config: ClassVar = {**TestStyleGAN2Discriminator.config, "num_taps": 1}

    def untrained_parameters(self, model):
        # Patches are judged by `judge_patches`.
        return [name for name, _ in model.named_parameters() if name.startswith("patch_heads.")]


class TestProjectedDiscriminator(ModelMixinChecks):
    model_class = ProjectedDiscriminator
    config: ClassVar = {"resolution": 32, "image_channels": 1, "mbstd_group_size": 2}
    output_shape = (2, 5, 256)
    tolerance = 1e-5  # logits of a few units, after some twenty layers

    def inputs(self, dtype=torch.float32):
        return {"images": self.randn(2, 1, 32, 32).to(dtype)}


class TestCycleGANGenerator(ModelMixinChecks):
    model_class = CycleGANGenerator
    config: ClassVar = {"resolution": 32, "image_channels": 1, "base_channels": 4, "residual_blocks": 1}
    output_shape = (2, 1, 32, 32)

    def inputs(self, dtype=torch.float32):
        return {"images": self.randn(2, 1, 32, 32).clamp(-1, 1).to(dtype)}


class TestPatchDiscriminator(ModelMixinChecks):
    model_class = PatchDiscriminator
    config: ClassVar = {"image_channels": 1, "base_channels": 4}
    output_shape = (2, 1, 2, 2)

    def inputs(self, dtype=torch.float32):
        return {"images": self.randn(2, 1, 32, 32).clamp(-1, 1).to(dtype)}


class TestDefectGANGenerator(ModelMixinChecks):
    model_class = DefectGANGenerator
    config: ClassVar = {
        "resolution": 32,
        "num_classes": 3,
        "base_channels": 4,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
        "spade_channels": 8,
        "defect_names": ["crack", "scratch"],
    }
    output_shape = (2, 3, 32, 32)

    def inputs(self, dtype=torch.float32):
        noise = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
        images = self.randn(2, 3, 32, 32).clamp(-1, 1).to(dtype)
        return {"images": images, "control": control_map(torch.tensor([1, 2]), 3), "generator": noise}


class TestDefectGANDiscriminator(ModelMixinChecks):
    model_class = DefectGANDiscriminator
    config: ClassVar = {"resolution": 32, "num_classes": 3, "base_channels": 4}
    output_shape = (2, 1, 4, 4)

    def inputs(self, dtype=torch.float32):
        return {"images": self.randn(2, 3, 32, 32).clamp(-1, 1).to(dtype)}
