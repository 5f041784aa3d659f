"""Augmentation without chance, to be compared with the official implementation's debug mode."""

from __future__ import annotations

import torch

from dfmgan_hf.augmentation.draws import Draws


class Quantile(Draws):
    """Every transform, each random number its distribution's value at one quantile, as in the official debug mode."""

    def __init__(self, batch_size: int, quantile: float) -> None:
        super().__init__(batch_size, 1.0, torch.device("cpu"))
        self.quantile = torch.full((batch_size,), quantile)
        self.rotated = False

    def unit(self) -> torch.Tensor:
        return self.quantile

    def normal(self, std: float) -> torch.Tensor:
        return (2 * self.quantile - 1).erfinv() * std  # the official one leaves out the factor sqrt(2)

    def half_normal(self, std: float) -> torch.Tensor:
        return self.quantile.erfinv() * std

    def gate(self, *values: torch.Tensor, neutral: float) -> list[torch.Tensor]:
        return list(values)

    def happens(self, probability: float | torch.Tensor) -> torch.Tensor:
        """Asked for rotations alone; the second one is left out."""
        first, self.rotated = not self.rotated, True
        return torch.full_like(self.quantile, first, dtype=torch.bool)
