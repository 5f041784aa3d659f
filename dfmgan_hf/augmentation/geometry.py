"""Geometric augmentations: one affine map per image, resampled at twice the resolution.

Source: StyleGAN2-ADA (arXiv 2006.06676), appendix B, "pixel blitting" and "general geometric transformations".
"""

from __future__ import annotations

import math

import torch

from .draws import Draws, matrices
from .lookup import lookup_bilinear
from .resampling import SYM6_DELAY, doubling_matrix, halving_matrix
from .settings import AugmentSettings

# Doubled samples held at once. On a CPU they stay in the cache this way, which is up to twice as fast; elsewhere this
# only bounds the memory (1 GiB).
_CPU_SAMPLES_AT_ONCE = 2**20
_DEVICE_SAMPLES_AT_ONCE = 2**28


def _scaling(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return matrices([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], like=x)


def _rotation(cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    return matrices([[cos, -sin, 0.0], [sin, cos, 0.0], [0.0, 0.0, 1.0]], like=cos)


def _translation(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return matrices([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], like=x)


def draw_inverse_maps(settings: AugmentSettings, draws: Draws, height: int, width: int) -> torch.Tensor:
    """Draws where each output pixel comes from.

    Returns:
        (batch_size, 3, 3): maps a homogeneous (x, y), in pixels from the centre of the output, to the same of the
        input. The product of the steps' inverses, first step leftmost.
    """
    maps = torch.eye(3, device=draws.device).expand(draws.batch_size, 3, 3)

    if settings.xflip:
        (mirrored,) = draws.gate(settings.xflip, draws.integer(2), neutral=0.0)
        maps = maps @ _scaling(1 - 2 * mirrored, torch.ones_like(mirrored))
    if settings.rotate90:
        (quarters,) = draws.gate(settings.rotate90, draws.integer(4), neutral=0.0)
        angle = quarters * (math.pi / 2)
        maps = maps @ _rotation(angle.cos().round(), angle.sin().round())
    if settings.xint:
        x, y = (draws.symmetric(settings.xint_max) * size for size in (width, height))
        x, y = draws.gate(settings.xint, x.round(), y.round(), neutral=0.0)
        maps = maps @ _translation(-x, -y)

    if settings.scale:
        (scale,) = draws.gate(settings.scale, draws.log_normal(settings.scale_std), neutral=1.0)
        maps = maps @ _scaling(1 / scale, 1 / scale)
    if settings.rotate:
        maps = maps @ _draw_rotation(settings, draws)
    if settings.aniso:
        (scale,) = draws.gate(settings.aniso, draws.log_normal(settings.aniso_std), neutral=1.0)
        maps = maps @ _scaling(1 / scale, scale)
    if settings.rotate:
        maps = maps @ _draw_rotation(settings, draws)
    if settings.xfrac:
        x, y = (draws.normal(settings.xfrac_std) * size for size in (width, height))
        x, y = draws.gate(settings.xfrac, x, y, neutral=0.0)
        maps = maps @ _translation(-x, -y)

    return maps


def _draw_rotation(settings: AugmentSettings, draws: Draws) -> torch.Tensor:
    # Drawn twice, before and after `aniso`: each with 1 - sqrt(1 - p), so that at least one happens with p.
    probability = 1 - (1 - min(settings.rotate, 1.0) * draws.p) ** 0.5
    angle = draws.symmetric(settings.rotate_max * math.pi)
    angle = torch.where(draws.happens(probability), angle, 0.0)
    return _rotation(angle.cos(), angle.sin())


def warp(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Resamples images through affine maps: reflection, doubling, bilinear lookup, halving.

    The reflection never ends; the official implementation's ends in black two image sizes from the centre.

    Args:
        images: (N, C, H, W), float32 or float64, sides of at least 2.
        maps: (N, 3, 3) as of `draw_inverse_maps`. On the CPU, wherever the images are, those images are left alone
            whose map is the identity; on an accelerator its values are never read back.

    Returns:
        (N, C, H, W).
    """
    if maps.device.type != "cpu":
        return _warp_all(images, maps)
    moved = (maps != torch.eye(3)).flatten(1).any(1).nonzero()[:, 0]
    if len(moved) == 0:
        return images
    if len(moved) == len(images):
        return _warp_all(images, maps)
    chosen = moved.to(images.device, non_blocking=True)
    return images.index_copy(0, chosen, _warp_all(images.index_select(0, chosen), maps[moved]))


def _warp_all(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    limit = _CPU_SAMPLES_AT_ONCE if images.device.type == "cpu" else _DEVICE_SAMPLES_AT_ONCE
    count = max(1, limit // (16 * images.shape[1:].numel()))
    parts = [_warp_part(*part) for part in zip(images.split(count), maps.split(count), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _warp_part(images: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    double_columns, grid_x = _plan_axis(images, maps, axis=0)
    double_rows, grid_y = _plan_axis(images, maps, axis=1)
    doubled = double_rows @ (images @ double_columns.mT)
    looked_up = lookup_bilinear(doubled, torch.stack([grid_x, grid_y], dim=-1))
    halve_rows, halve_columns = (halving_matrix(n, images.dtype, images.device) for n in images.shape[-2:])
    return halve_rows @ (looked_up @ halve_columns.mT)


def _plan_axis(images: torch.Tensor, maps: torch.Tensor, axis: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The doubling matrix of an axis (0 is x), its rows limited to what is looked up, and where to look.

    Returns:
        (rows, size) or (N, 1, rows, size); and (N, h, w), -1 and 1 being the first and the last of the rows.
    """
    height, width = images.shape[-2:]
    size = (width, height)[axis]
    period = 4 * size - 4
    matrix = doubling_matrix(size, images.dtype, images.device)
    # Doubled index u is the pixel position u / 2; the centre of n pixels is at (n - 1) / 2, so at n - 1 here.
    centre = 2 * maps[:, axis, 2] + (size - 1)

    if maps.device.type == "cpu":
        reach = maps[:, axis, 0].abs() * (width + SYM6_DELAY) + maps[:, axis, 1].abs() * (height + SYM6_DELAY)
        first = (centre - reach).floor() - 1
        rows = int(2 * reach.max()) + 5  # the far end, the neighbour that interpolation reads, and rounding
        if rows < len(matrix):
            index = (first.long()[:, None] + torch.arange(rows)).remainder(period)
            matrix = matrix[index.to(images.device, non_blocking=True)][:, None]
            centre = centre - first

    maps = maps.to(images.device, images.dtype, non_blocking=True)
    centre = centre.to(images.device, images.dtype, non_blocking=True)
    column, row = (
        torch.arange(-SYM6_DELAY, 2 * n + SYM6_DELAY, device=images.device, dtype=images.dtype) - (n - 1)
        for n in (width, height)
    )
    along_row = maps[:, axis, 0, None] * column + centre[:, None]
    along_column = maps[:, axis, 1, None] * row
    source = along_column[:, :, None] + along_row[:, None, :]
    return matrix, source.remainder_(period).mul_(2 / (matrix.shape[-2] - 1)).sub_(1)
