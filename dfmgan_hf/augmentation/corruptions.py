"""Image-space filtering, noise and cutout.

Source: StyleGAN2-ADA (arXiv 2006.06676), appendix B, "image-space filtering" and "image-space corruptions".
"""

from __future__ import annotations

import torch

from .draws import Draws
from .resampling import octave_matrices
from .settings import AugmentSettings

# Share of a natural image's power in the four octave bands, after its 1/f spectrum: the paper's (10, 1, 1, 1)/13.
_BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)


def draw_band_gains(settings: AugmentSettings, draws: Draws) -> torch.Tensor:
    """Draws the gain of each octave band, lowest first: (batch_size, 4)."""
    total = torch.ones(draws.batch_size, 4, device=draws.device)
    for band, power in enumerate(_BAND_POWER):
        (gain,) = draws.gate(settings.imgfilter, draws.log_normal(settings.imgfilter_std), neutral=1.0)
        gains = torch.stack([gain if i == band else torch.ones_like(gain) for i in range(4)], dim=1)
        # What the band gains all bands lose, so that the expected power stays 1.
        expected_power = 1 + power * (gain.square() - 1)
        total = total * gains * expected_power.rsqrt()[:, None]
    return total


def filter_bands(images: torch.Tensor, gains: torch.Tensor) -> torch.Tensor:
    """Amplifies the octave bands of (N, C, H, W) images along both axes by gains (N, 4)."""
    gains = gains.to(images.device, images.dtype, non_blocking=True)
    rows, columns = (
        torch.tensordot(gains, octave_matrices(size, images.dtype, images.device), dims=1)[:, None]
        for size in images.shape[-2:]
    )
    return rows @ (images @ columns.mT)


def add_noise(images: torch.Tensor, settings: AugmentSettings, draws: Draws) -> torch.Tensor:
    """Adds Gaussian noise of a standard deviation drawn per image to (N, C, H, W) images."""
    (std,) = draws.gate(settings.noise, draws.half_normal(settings.noise_std), neutral=0.0)
    # Without a generator the noise is drawn where the images are: a whole batch of it is slow to copy.
    source = images.device if draws.generator is None else draws.generator.device
    noise = torch.randn(images.shape, dtype=images.dtype, device=source, generator=draws.generator)
    std = std.to(images.device, images.dtype, non_blocking=True)
    return images + noise.to(images.device, non_blocking=True) * std[:, None, None, None]


def cut_out(images: torch.Tensor, settings: AugmentSettings, draws: Draws) -> torch.Tensor:
    """Sets a rectangle, its centre uniform over the image, to 0 in (N, C, H, W) images."""
    (size,) = draws.gate(settings.cutout, torch.full_like(draws.unit(), settings.cutout_size), neutral=0.0)
    centre_x, centre_y = draws.unit(), draws.unit()
    height, width = images.shape[-2:]
    half, centre_x, centre_y = (
        value.to(images.device, images.dtype, non_blocking=True)[:, None] for value in (size / 2, centre_x, centre_y)
    )
    x = (torch.arange(width, device=images.device) + 0.5) / width
    y = (torch.arange(height, device=images.device) + 0.5) / height
    inside_x, inside_y = (x - centre_x).abs() < half, (y - centre_y).abs() < half
    return images.masked_fill(inside_y[:, None, :, None] & inside_x[:, None, None, :], 0.0)
