"""What augmentations share: random parameters, one independent draw per image, and what they ask of the images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor


class Draws:
    """Draws the parameters of one batch.

    Args:
        batch_size: number of images.
        p: probability that a transform is applied, a float or a 0-dim tensor in [0, 1].
        device: where the draws are returned.
        generator: source of randomness, on any device; None takes the default generator of `device`.
    """

    def __init__(
        self, batch_size: int, p: float | Tensor, device: torch.device, generator: torch.Generator | None = None
    ) -> None:
        self.batch_size = batch_size
        self.p = p
        self.device = device
        self.generator = generator
        self._source = device if generator is None else generator.device

    def unit(self) -> Tensor:
        """Uniform in [0, 1): (batch_size,)."""
        values = torch.rand(self.batch_size, device=self._source, generator=self.generator)
        return values.to(self.device, non_blocking=True)

    def symmetric(self, limit: float) -> Tensor:
        """Uniform in [-limit, limit): (batch_size,)."""
        return (2 * self.unit() - 1) * limit

    def integer(self, count: int) -> Tensor:
        """One of 0.0, 1.0, ..., count - 1, equally likely, as floating point: (batch_size,)."""
        return (self.unit() * count).floor()

    def normal(self, std: float) -> Tensor:
        """Normal with mean 0 and standard deviation `std`: (batch_size,)."""
        values = torch.randn(self.batch_size, device=self._source, generator=self.generator)
        return values.to(self.device, non_blocking=True) * std

    def half_normal(self, std: float) -> Tensor:
        """|N(0, std)|: (batch_size,)."""
        return self.normal(std).abs()

    def log_normal(self, std: float) -> Tensor:
        """2^N(0, std): (batch_size,)."""
        return self.normal(std).exp2()

    def happens(self, probability: float | Tensor) -> Tensor:
        """True with this probability: (batch_size,) bool."""
        return self.unit() < probability

    def gate(self, *values: Tensor, neutral: float) -> list[Tensor]:
        """Keep an image's values, all or none, with probability p, else put what changes nothing."""
        happens = self.happens(self.p)
        return [torch.where(happens, value, neutral) for value in values]


def matrices(rows: Sequence[Sequence[Tensor | float]], like: Tensor) -> Tensor:
    """Make one matrix per image, (batch_size, rows, columns), from (batch_size,) tensors and numbers."""
    # Filled where `like` lives: a tensor made from a Python list would stall an accelerator.
    entries = [[x if isinstance(x, Tensor) else torch.full_like(like, x) for x in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)


def check_images(images: Tensor) -> None:
    """Raise ValueError unless `images` is a floating-point (N, C, H, W) tensor, C = 1 or 3, sides of at least 2."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[-2:]) < 2:
        raise ValueError(
            "`images` must have the shape (N, C, H, W) with C = 1 or 3 and sides of at least 2, "
            f"not {tuple(images.shape)}."
        )
    if not images.is_floating_point():
        raise ValueError(f"`images` must be floating point in the range -1..1, not {images.dtype}.")


@contextmanager
def full_precision(images: Tensor) -> Iterator[Tensor]:
    """Yield the images in float32 or better, with autocast off: half precision would show as noise in the pixels."""
    kind = images.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        yield images.float() if images.dtype.itemsize < 4 else images
