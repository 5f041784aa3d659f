"""Networks only: no losses, no files, no devices."""

from .cyclegan import CycleGANGenerator, PatchDiscriminator
from .defect import soft_mask
from .defect_gan import DefectGANDiscriminator, DefectGANGenerator, compose, control_map
from .discriminator import StyleGAN2Discriminator, StyleGAN2DiscriminatorOutput
from .generator import (
    DFMGANGenerator,
    DFMGANGeneratorOutput,
    StyleGAN2Generator,
    StyleGAN2GeneratorOutput,
)
from .noise import NOISE_MODES, NoiseInput, NoiseMode

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
