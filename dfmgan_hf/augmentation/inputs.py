"""What every augmentation asks of its input images."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch


def check_images(images: torch.Tensor) -> None:
    """Raises a ValueError unless `images` is a floating-point (N, C, H, W) tensor, C = 1 or 3, sides of at least 2."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[-2:]) < 2:
        raise ValueError(
            "`images` must have the shape (N, C, H, W) with C = 1 or 3 and sides of at least 2, "
            f"not {tuple(images.shape)}."
        )
    if not images.is_floating_point():
        raise ValueError(f"`images` must be floating point in the range -1..1, not {images.dtype}.")


@contextmanager
def full_precision(images: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the images in float32 or better, with autocast off: half precision would show as noise in the pixels."""
    kind = images.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        yield images.float() if images.dtype.itemsize < 4 else images
