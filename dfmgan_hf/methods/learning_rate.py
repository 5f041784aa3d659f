"""Hyperparameters of the methods that translate images, and learning rates that fall with the length of a run."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from torch.optim import Optimizer

Decay = Literal["linear", "cosine", "exponential", "constant"]


@dataclass(frozen=True)
class TranslationSettings:
    """Hyperparameters of a run of SDGAN or Defect-GAN.

    Args:
        options: of the method.
        batch_size: images a step over all processes.
        lr: Adam's learning rate before it falls.
        total_kimg: length that the learning rate falls over.
        sheet_samples: pictures on a sample sheet.
        sheet_seed: of the good images that they are drawn on, and of their noise.
    """

    options: Any
    batch_size: int
    lr: float
    total_kimg: float
    sheet_samples: int = 16
    sheet_seed: int = 0


def decayed_lr(
    progress: float, lr: float, *, decay: Decay = "linear", constant_until: float = 0.0, final_lr: float = 0.0
) -> float:
    """The learning rate at a part of the run: `lr` at first, then down to `final_lr` at the end.

    The shapes are those of torch's LinearLR, CosineAnnealingLR and ExponentialLR, in closed form: a run that goes on
    after a stop, or with another length, needs nothing but its image count.

    Args:
        progress: done part of the run, from 0; what goes beyond 1 stays at the end's rate.
        lr: at first.
        decay: shape of the fall; "constant" for none.
        constant_until: part of the run from which on it falls, in [0, 1).
        final_lr: at the end; without meaning for "constant".

    Raises:
        ValueError: `constant_until` is not in [0, 1), or the fall is exponential and to 0, where it never arrives.
    """
    if not 0 <= constant_until < 1:
        raise ValueError(
            f"The learning rate can fall from a part of the run in [0, 1) on, but not from {constant_until}; for one "
            "that does not fall choose --lr_decay constant."
        )
    if decay == "exponential" and final_lr <= 0:
        raise ValueError(f"An exponential fall ends above 0, but `final_lr` is {final_lr}: give one such as 1e-6.")
    falling = min(max((progress - constant_until) / (1 - constant_until), 0.0), 1.0)
    if decay == "constant":
        return lr
    if decay == "exponential":
        return lr * (final_lr / lr) ** falling
    if decay == "cosine":
        falling = (1 - math.cos(math.pi * falling)) / 2
    return lr + (final_lr - lr) * falling


def set_lr(optimizers: Iterable[Optimizer], lr: float) -> None:
    """Give all parameters of these optimisers one learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
