"""What augmentations share: random parameters, one independent draw per image, and what they ask of the images."""

from __future__ import annotations

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

    def uniform(self, count: int) -> Tensor:
        """Uniform in [0, 1): (batch_size, count)."""
        values = torch.rand(self.batch_size, count, device=self._source, generator=self.generator)
        return values.to(self.device, non_blocking=True)

    def normal(self, count: int) -> Tensor:
        """Normal with mean 0 and standard deviation 1: (batch_size, count)."""
        values = torch.randn(self.batch_size, count, device=self._source, generator=self.generator)
        return values.to(self.device, non_blocking=True)

    def happens(self, parts: Tensor) -> Tensor:
        """True with probability 1 - (1 - p)^(1 / k), so that of k such draws at least one is true with p.

        Args:
            parts: k of each column, (count,), 1 for p itself.

        Returns:
            (batch_size, count), bool.
        """
        return self.uniform(len(parts)).pow(parts) >= 1 - self.p

    def unit(self) -> Tensor:
        """Uniform in [0, 1): (batch_size,)."""
        return self.uniform(1)[:, 0]

    def integer(self, count: int) -> Tensor:
        """One of 0.0, 1.0, ..., count - 1, equally likely, as floating point: (batch_size,)."""
        return (self.unit() * count).floor()


def check_images(images: Tensor) -> None:
    """Raise ValueError unless `images` is a floating-point (N, C, H, W) tensor, C = 1 or 3, sides of at least 2."""
    if images.ndim != 4 or images.shape[1] not in (1, 3) or min(images.shape[-2:]) < 2:
        raise ValueError(
            "`images` must have the shape (N, C, H, W) with C = 1 or 3 and sides of at least 2, "
            f"not {tuple(images.shape)}."
        )
    if not images.is_floating_point():
        raise ValueError(f"`images` must be floating point in the range -1..1, not {images.dtype}.")
