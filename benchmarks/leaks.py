"""Does what the discriminator is shown leak into what is drawn? Statistics that an augmentation moves, on both sides.

A generator that has learnt to rotate, to mirror or to invert draws images whose orientation, slant or grey level is
not distributed as in the photographs. The distance of photographs that are augmented on purpose says how far a full
leak would be, and the distance of other photographs how near is near.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfmgan_hf.augmentation import AugmentPipe

STATISTICS = ("brightness", "contrast", "orientation", "slant")
FLAT = 1e-4
"""Mean squared gradient, in grey levels of 0..1, below which an image has no orientation."""


def statistics(images: Tensor) -> dict[str, Tensor]:
    """What the augmentations would move, of each image.

    brightness and contrast: mean and standard deviation of the grey levels, 0..1. orientation: (Jxx - Jyy) / (Jxx +
    Jyy) of the structure tensor, from -1 (horizontal lines) to 1 (vertical lines), which rotations move. slant:
    2 Jxy / (Jxx + Jyy), from -1 to 1, whose sign mirroring turns.

    Args:
        images: uint8 (N, C, H, W).
    """
    grey = images.float().mean(dim=1) / 255
    dx, dy = grey[:, 1:-1, 2:] - grey[:, 1:-1, :-2], grey[:, 2:, 1:-1] - grey[:, :-2, 1:-1]
    xx, yy, xy = ((a * b).mean(dim=(1, 2)) for a, b in ((dx, dx), (dy, dy), (dx, dy)))
    total = (xx + yy).clamp_min(FLAT)
    return {
        "brightness": grey.mean(dim=(1, 2)),
        "contrast": grey.std(dim=(1, 2)),
        "orientation": (xx - yy) / total,
        "slant": 2 * xy / total,
    }


def distance(values: Tensor, real: Tensor) -> float:
    """Wasserstein-1 distance of two samples' distributions, in standard deviations of `real`.

    Args:
        values: (N,).
        real: (M,), M at least 2.
    """
    levels = torch.linspace(0.005, 0.995, 100)
    return ((values.quantile(levels) - real.quantile(levels)).abs().mean() / real.std().clamp_min(1e-6)).item()


def distances(images: Tensor, real: Tensor) -> dict[str, float]:
    """`distance` of each of the statistics of images uint8 (N, C, H, W) to those of photographs uint8 (M, C, H, W)."""
    ours, theirs = statistics(images), statistics(real)
    return {name: distance(ours[name], theirs[name]) for name in STATISTICS}


def augmented(images: Tensor, name: str, p: float, seed: int = 0) -> Tensor:
    """Photographs as a discriminator would see them: uint8 (N, C, H, W), by a set with probability p."""
    pipe, generator = AugmentPipe.from_set(name), torch.Generator().manual_seed(seed)
    changed = pipe(images.float() / 127.5 - 1, p, generator)
    return ((changed + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
