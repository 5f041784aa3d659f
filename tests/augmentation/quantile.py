"""Augmentation without chance, to be compared with the official implementation's debug mode."""

from __future__ import annotations

import torch

from dfmgan_hf.augmentation.draws import Draws


class Quantile(Draws):
    """Every transform, each random number its distribution's value at one quantile, as in the official debug mode."""

    def __init__(self, batch_size: int, quantile: float) -> None:
        super().__init__(batch_size, 1.0, torch.device("cpu"))
        self.quantile = torch.tensor(quantile)

    def uniform(self, count: int) -> torch.Tensor:
        return self.quantile.expand(self.batch_size, count)

    def normal(self, count: int) -> torch.Tensor:
        # The official one leaves out the factor sqrt(2).
        return (2 * self.uniform(count) - 1).erfinv()

    def happens(self, parts: torch.Tensor) -> torch.Tensor:
        """Everything does, but of two rotations the second is left out."""
        halves = (parts == 2).cumsum(0)
        return ((parts == 1) | (halves == 1)).expand(self.batch_size, -1)
