"""Whose a parameter of a network is, and strengths of noise, which are 0 at first."""

from __future__ import annotations

from torch import nn

from dfmgan_hf import DFMGANGenerator
from dfmgan_hf.models.dfmgan import DEFECT_PREFIXES


def backbone_parameters(generator: DFMGANGenerator) -> list[nn.Parameter]:
    """Those that stage 2 leaves alone."""
    return [p for name, p in generator.named_parameters() if not name.startswith(DEFECT_PREFIXES)]


def defect_parameters(generator: DFMGANGenerator) -> list[nn.Parameter]:
    """Those that stage 2 trains: defect mapping, residual blocks and ToMask."""
    return [p for name, p in generator.named_parameters() if name.startswith(DEFECT_PREFIXES)]


def set_noise_strength(network: nn.Module, strength: float) -> None:
    for name, parameter in network.named_parameters():
        if name.endswith("strength"):
            nn.init.constant_(parameter, strength)
