"""The adversarial game with two discriminators (D2GAN, Nguyen et al. 2017, equation 1), and its least-squares twin.

D1 rewards real images and D2 rewards generated ones, so that the generator minimises a mixture of KL and reverse KL:
alone, the first covers all modes at the price of poor samples, and the second draws good samples of few modes.

All functions take the discriminators' raw outputs, of any shape, averaged over all positions, and return a scalar.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_FLOOR = 1e-6
"""Least argument of the logarithms."""


class DualDiscriminatorLoss(ABC):
    """A game of two discriminators against one generator.

    Args:
        alpha: weight of D1 on real images.
        beta: weight of D2 on generated images.
    """

    def __init__(self, alpha: float = 1.0, beta: float = 1.0) -> None:
        self.alpha = alpha
        self.beta = beta

    @abstractmethod
    def discriminators(self, real1: Tensor, fake1: Tensor, real2: Tensor, fake2: Tensor) -> Tensor:
        """Loss of both, from their outputs on real and generated images: of D1, then of D2."""

    @abstractmethod
    def generator(self, fake1: Tensor, fake2: Tensor) -> Tensor:
        """Loss of the generator, from both discriminators' outputs on its images."""


class D2GANLoss(DualDiscriminatorLoss):
    """D2GAN's own game, on D = softplus(output) > 0.

    With p the density of real and q of generated images, the best discriminators are D1 = alpha p / q and
    D2 = beta q / p (D2GAN, proposition 1), and the generator minimises alpha KL(p | q) + beta KL(q | p) (theorem 2).
    """

    def discriminators(self, real1: Tensor, fake1: Tensor, real2: Tensor, fake2: Tensor) -> Tensor:
        """-alpha log D1(x) + D1(G) + D2(x) - beta log D2(G)."""
        first = F.softplus(fake1).mean() - self.alpha * _log_softplus(real1).mean()
        second = F.softplus(real2).mean() - self.beta * _log_softplus(fake2).mean()
        return first + second

    def generator(self, fake1: Tensor, fake2: Tensor) -> Tensor:
        """-D1(G) + beta log D2(G)."""
        return self.beta * _log_softplus(fake2).mean() - F.softplus(fake1).mean()


class D2LSGANLoss(DualDiscriminatorLoss):
    """The same game with squared errors (LSGAN, Mao et al. 2017), which cannot grow without bound.

    The best discriminators are D1 = alpha p / (alpha p + q) and D2 = beta q / (p + beta q).
    """

    def discriminators(self, real1: Tensor, fake1: Tensor, real2: Tensor, fake2: Tensor) -> Tensor:
        """alpha (D1(x) - 1)^2 + D1(G)^2 + D2(x)^2 + beta (D2(G) - 1)^2."""
        first = self.alpha * (real1 - 1).square().mean() + fake1.square().mean()
        second = real2.square().mean() + self.beta * (fake2 - 1).square().mean()
        return first + second

    def generator(self, fake1: Tensor, fake2: Tensor) -> Tensor:
        """(D1(G) - 1)^2 + beta D2(G)^2."""
        return (fake1 - 1).square().mean() + self.beta * fake2.square().mean()


def _log_softplus(x: Tensor) -> Tensor:
    return torch.log(F.softplus(x).clamp_min(LOG_FLOOR))
