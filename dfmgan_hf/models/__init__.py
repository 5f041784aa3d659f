"""Networks only: no losses, no files, no devices."""

from .defect import soft_mask
from .discriminator import StyleGAN2Discriminator
from .generator import (
    DFMGANGenerator,
    DFMGANGeneratorOutput,
    StyleGAN2Generator,
    StyleGAN2GeneratorOutput,
)
from .layers import NOISE_MODES, NoiseInput, NoiseMode

__all__ = [
    "NOISE_MODES",
    "DFMGANGenerator",
    "DFMGANGeneratorOutput",
    "NoiseInput",
    "NoiseMode",
    "StyleGAN2Discriminator",
    "StyleGAN2Generator",
    "StyleGAN2GeneratorOutput",
    "soft_mask",
]
