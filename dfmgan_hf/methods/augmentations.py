"""The discriminator's augmentation as an option: a set of ADA, DiffAugment, or none."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from ..augmentation import AUGMENTATION_SETS, AdaController, AugmentPipe, DiffAugment

ADA_KIMG = {"stage1": 500.0, "stage2": 100.0}
"""Thousands of images in which ADA's probability can go from 0 to 1: of the good product, and of few photographs."""


@dataclass(frozen=True)
class AugmentationConfig:
    """What the discriminator sees of an image.

    Args:
        augmentation: A set of adaptive augmentations (bgc, keep_orientation, ...), diffaugment, or none.
        ada_target: Mean sign of the discriminator on real images that ADA holds.
        ada_max: Highest probability of an augmentation.
        ada_kimg: Thousands of images in which the probability can go from 0 to 1. None: 500 in stage 1, 100 in
            stage 2.
    """

    augmentation: str = "bgc"
    ada_target: float = 0.6
    ada_max: float = 0.8
    ada_kimg: float | None = None


def build_augmentation(
    config: AugmentationConfig, batch_size: int, default_kimg: float, device: torch.device
) -> tuple[nn.Module | None, AdaController | None]:
    """The augmentation and what adapts its probability; either may be None.

    Raises:
        ValueError: an unknown augmentation; the message lists the names.
    """
    if config.augmentation == "none":
        return None, None
    if config.augmentation == "diffaugment":
        return DiffAugment(), None
    if config.augmentation not in AUGMENTATION_SETS:
        names = ", ".join([*AUGMENTATION_SETS, "diffaugment"])
        raise ValueError(f"`augmentation` must be one of {names}, but is {config.augmentation!r}.")
    controller = AdaController(
        batch_size,
        target=config.ada_target,
        ramp_kimg=default_kimg if config.ada_kimg is None else config.ada_kimg,
        p_max=config.ada_max,
        device=device,
    )
    return AugmentPipe.from_set(config.augmentation), controller
