"""Random parameters of augmentations: one independent draw per image."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch

# --- Random parameters of the augmentations: one independent draw per image.


class Draws:
    """Draws the parameters of one batch.

    Args:
        batch_size: number of images.
        p: probability that a transform of strength 1 is applied, a float or a 0-dim tensor in [0, 1].
        device: where the draws are returned.
        generator: source of randomness, on any device; None takes the default generator of `device`.
    """

    def __init__(
        self,
        batch_size: int,
        p: float | torch.Tensor,
        device: torch.device,
        generator: torch.Generator | None = None,
    ) -> None:
        self.batch_size = batch_size
        self.p = p
        self.device = device
        self.generator = generator
        self._source = device if generator is None else generator.device

    def unit(self) -> torch.Tensor:
        """Uniform in [0, 1): (batch_size,)."""
        values = torch.rand(self.batch_size, device=self._source, generator=self.generator)
        return values.to(self.device, non_blocking=True)

    def symmetric(self, limit: float) -> torch.Tensor:
        """Uniform in [-limit, limit): (batch_size,)."""
        return (2 * self.unit() - 1) * limit

    def integer(self, count: int) -> torch.Tensor:
        """One of 0.0, 1.0, ..., count - 1, equally likely, as floating point: (batch_size,)."""
        return (self.unit() * count).floor()

    def normal(self, std: float) -> torch.Tensor:
        """Normal with mean 0 and standard deviation `std`: (batch_size,)."""
        values = torch.randn(self.batch_size, device=self._source, generator=self.generator)
        return values.to(self.device, non_blocking=True) * std

    def half_normal(self, std: float) -> torch.Tensor:
        """|N(0, std)|: (batch_size,)."""
        return self.normal(std).abs()

    def log_normal(self, std: float) -> torch.Tensor:
        """2^N(0, std): (batch_size,)."""
        return self.normal(std).exp2()

    def happens(self, probability: float | torch.Tensor) -> torch.Tensor:
        """True with this probability: (batch_size,) bool."""
        return self.unit() < probability

    def gate(self, strength: float, *values: torch.Tensor, neutral: float) -> list[torch.Tensor]:
        """Keeps an image's values, all or none, with probability strength * p, else puts what changes nothing."""
        happens = self.happens(strength * self.p)
        return [torch.where(happens, value, neutral) for value in values]


def matrices(rows: Sequence[Sequence[torch.Tensor | float]], like: torch.Tensor) -> torch.Tensor:
    """One matrix per image from entries that are (batch_size,) tensors or numbers: (batch_size, rows, columns).

    Filled where `like` lives: a tensor made from a Python list would stall an accelerator.
    """
    entries = [[x if isinstance(x, torch.Tensor) else torch.full_like(like, x) for x in row] for row in rows]
    return torch.stack([torch.stack(row, dim=-1) for row in entries], dim=-2)


# --- What every augmentation asks of its input images.


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
