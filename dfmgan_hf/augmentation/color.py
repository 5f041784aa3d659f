"""Colour augmentations: one affine map of the colours per image.

Source: StyleGAN2-ADA (arXiv 2006.06676), appendix B, "color transformations".
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from .draws import Draws
from .settings import AugmentSettings


class ColorMap(NamedTuple):
    """The five colour transforms of each image as one map; every field is (batch_size,).

    With the grey axis v = (1, 1, 1)/sqrt(3), brightness b, contrast c, luma flip i, hue angle t and saturation s, the
    paper's product of 4x4 matrices is x -> L (x + b) with
    L = c (1 - 2i) v v^T + c s (cos t (I - v v^T) + sin t [v]_x), as each step is a polynomial in v v^T and [v]_x.
    """

    brightness: torch.Tensor
    luma: torch.Tensor
    chroma_cos: torch.Tensor
    chroma_sin: torch.Tensor


def draw_color_map(settings: AugmentSettings, draws: Draws) -> ColorMap:
    """Draws the colour transforms that are switched on."""
    brightness = torch.zeros(draws.batch_size, device=draws.device)
    contrast = saturation = torch.ones_like(brightness)
    flipped = angle = torch.zeros_like(brightness)
    if settings.brightness:
        (brightness,) = draws.gate(settings.brightness, draws.normal(settings.brightness_std), neutral=0.0)
    if settings.contrast:
        (contrast,) = draws.gate(settings.contrast, draws.log_normal(settings.contrast_std), neutral=1.0)
    if settings.lumaflip:
        (flipped,) = draws.gate(settings.lumaflip, draws.integer(2), neutral=0.0)
    if settings.hue:
        (angle,) = draws.gate(settings.hue, draws.symmetric(settings.hue_max * math.pi), neutral=0.0)
    if settings.saturation:
        (saturation,) = draws.gate(settings.saturation, draws.log_normal(settings.saturation_std), neutral=1.0)
    chroma = contrast * saturation
    return ColorMap(brightness, contrast * (1 - 2 * flipped), chroma * angle.cos(), chroma * angle.sin())


def apply_color_map(images: torch.Tensor, color_map: ColorMap) -> torch.Tensor:
    """Maps the colours of (N, C, H, W) images, C = 3 or 1.

    A grey image is mapped as the colour image of three equal channels: it has no chroma, so that hue and saturation
    leave it alone, and the luma flip inverts it.
    """
    brightness, luma, chroma_cos, chroma_sin = (
        value.to(images.device, images.dtype, non_blocking=True)[:, None, None] for value in color_map
    )
    if images.shape[1] == 1:
        return ((images[:, 0] + brightness) * luma)[:, None]
    identity = torch.eye(3, dtype=images.dtype, device=images.device)
    grey = torch.full_like(identity, 1 / 3)
    cross = (identity.roll(1, dims=0) - identity.roll(-1, dims=0)) / math.sqrt(3)
    linear = luma * grey + chroma_cos * (identity - grey) + chroma_sin * cross
    return torch.baddbmm(luma * brightness, linear, images.flatten(2)).unflatten(2, images.shape[2:])
