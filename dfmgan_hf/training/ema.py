"""Moving average of the generator (Karras et al. 2018, Progressive GAN, section 5), with StyleGAN2-ADA's ramp-up."""

from __future__ import annotations

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Network = TypeVar("Network", bound=nn.Module)


def ema_decay(batch_size: int, images_seen: int, half_life_kimg: float, rampup: float | None) -> float:
    """Decay of one step: 0.5^(batch / half-life in images).

    Args:
        batch_size: images a step over all processes.
        images_seen: images so far.
        half_life_kimg: thousands of images after which a weight counts half.
        rampup: the half-life is at most `rampup` * `images_seen`; None for no ramp-up.
    """
    half_life = half_life_kimg * 1000.0
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (batch_size / max(half_life, 1e-8))


class ExponentialMovingAverage(Generic[Network]):
    """Averages what is trained and copies the rest.

    Frozen parameters are not averaged, so a frozen backbone stays as it is, bit for bit. Buffers are copied.

    Args:
        model: the trained network.
        averaged: the network that holds the average; None for a copy of `model`.
        trained: names of the parameters to average; None for all.
        half_life_kimg: half-life in thousands of images.
        rampup: see `ema_decay`.
    """

    def __init__(
        self,
        model: Network,
        averaged: Network | None = None,
        *,
        trained: set[str] | None = None,
        half_life_kimg: float,
        rampup: float | None = None,
    ) -> None:
        self.model = model
        self.averaged = copy.deepcopy(model) if averaged is None else averaged
        self.averaged.eval().requires_grad_(False)
        self.half_life_kimg = half_life_kimg
        self.rampup = rampup
        sources = dict(model.named_parameters())
        self._pairs = [
            (parameter, sources[name])
            for name, parameter in self.averaged.named_parameters()
            if trained is None or name in trained
        ]
        self._buffers = list(zip(self.averaged.buffers(), model.buffers(), strict=True))

    @torch.no_grad()
    def update(self, batch_size: int, images_seen: int) -> None:
        """Take in the model after a step of `batch_size` images; `images_seen` counts up to it."""
        decay = ema_decay(batch_size, images_seen, self.half_life_kimg, self.rampup)
        averages: list[Tensor] = [average for average, _ in self._pairs]
        torch._foreach_lerp_(averages, [source.detach() for _, source in self._pairs], 1.0 - decay)
        for average, source in self._buffers:
            average.copy_(source)
