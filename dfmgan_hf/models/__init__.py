"""Networks only: no losses, no files, no devices."""

from __future__ import annotations

from .cyclegan import CycleGANGenerator, PatchDiscriminator
from .defect_gan import DefectGANDiscriminator, DefectGANGenerator, compose, control_map
from .dfmgan import DFMGANGenerator, DFMGANGeneratorOutput, soft_mask
from .discriminator import StyleGAN2Discriminator, StyleGAN2DiscriminatorOutput
from .stylegan2 import NOISE_MODES, NoiseInput, NoiseMode, StyleGAN2Generator, StyleGAN2GeneratorOutput

__all__ = [
    "NOISE_MODES",
    "CycleGANGenerator",
    "DFMGANGenerator",
    "DFMGANGeneratorOutput",
    "DefectGANDiscriminator",
    "DefectGANGenerator",
    "NoiseInput",
    "NoiseMode",
    "PatchDiscriminator",
    "StyleGAN2Discriminator",
    "StyleGAN2DiscriminatorOutput",
    "StyleGAN2Generator",
    "StyleGAN2GeneratorOutput",
    "compose",
    "control_map",
    "soft_mask",
]
