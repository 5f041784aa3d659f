"""The golden networks: small networks with the weights, inputs and outputs of tests/golden/networks_*.safetensors."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator

GOLDEN_DIR = Path(__file__).parents[1] / "golden"
SIZES = {"resolution": 64, "channel_base": 1024, "channel_max": 32}


def load_numbers() -> dict[str, Tensor]:
    return load_file(GOLDEN_DIR / "networks_io.safetensors")


def our_name(official: str) -> str:
    """Our name of an official parameter."""
    name = re.sub(r"\bfc(\d+)\.", r"layers.\1.", official) if "mapping" in official else official
    name = re.sub(r"^synthesis\.res_b\d+\.torgb\.", "to_mask.", name)
    name = re.sub(r"^synthesis\.res_b(\d+)\.", r"defect_blocks.\1.", name)
    name = re.sub(r"^synthesis\.b(\d+)\.", r"synthesis.blocks.\1.", name)
    name = re.sub(r"^b4\.", "head.", name)
    name = re.sub(r"^b(\d+)\.", r"blocks.\1.", name)
    return name.replace("torgb", "to_rgb").replace("fromrgb", "from_rgb")


def load_golden(model: torch.nn.Module, prefix: str) -> None:
    state = load_file(GOLDEN_DIR / "networks_state.safetensors")
    ours = {
        our_name(k.removeprefix(prefix)): v
        for k, v in state.items()
        if k.startswith(prefix) and not k.endswith("resample_filter")
    }
    model.load_state_dict(ours, strict=True)


def golden_generator() -> DFMGANGenerator:
    model = DFMGANGenerator(**SIZES, z_dim=64, w_dim=64, residual_resolution=32)
    load_golden(model, "G.")
    return model.eval()


def golden_discriminator() -> StyleGAN2Discriminator:
    model = StyleGAN2Discriminator(**SIZES)
    load_golden(model, "D.")
    return model


def golden_match_discriminator() -> StyleGAN2Discriminator:
    model = StyleGAN2Discriminator(resolution=64, image_channels=4, channel_base=512, channel_max=16)
    load_golden(model, "D_match.")
    return model


def assert_close_to_golden(actual: Tensor, expected: Tensor, tolerance: float = 1e-5) -> None:
    """Error below `tolerance` of the expected tensor's largest magnitude."""
    assert actual.reshape(-1).shape == expected.reshape(-1).shape
    error = (actual.detach().double().reshape(-1) - expected.double().reshape(-1)).abs().max()
    assert error <= tolerance * expected.abs().max(), f"error {error:.3g} against a peak of {expected.abs().max():.3g}"
