"""Putting a task together: networks on a device, augmentation, settings."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

from ..models import DFMGANGenerator, StyleGAN2Discriminator, StyleGAN2Generator
from .augmentations import AugmentationConfig, build_augmentation
from .match_discriminator import build_joint_discriminator, build_match_discriminator
from .presets import Recipe
from .stage1 import Stage1Settings, Stage1Task
from .stage2 import Stage2Settings, Stage2Task

Network = TypeVar("Network", bound=StyleGAN2Generator | StyleGAN2Discriminator)
ADA_KIMG = {"stage1": 500.0, "stage2": 100.0}


@dataclass(frozen=True)
class Target:
    """Where and how a task computes.

    Args:
        device: of the networks. On "meta" they have shapes but no memory, to look at their sizes.
        low_precision_dtype: of the four highest resolutions; None for float32 everywhere.
        mean_over_processes: averages a tensor over all processes.
    """

    device: torch.device
    low_precision_dtype: torch.dtype | None = None
    mean_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor

    @property
    def is_meta(self) -> bool:
        return self.device.type == "meta"

    def construct(self) -> AbstractContextManager[object]:
        """Weights are drawn on the CPU, so that a seed gives the same ones on every device."""
        return torch.device("meta") if self.is_meta else nullcontext()

    def place(self, network: Network) -> Network:
        network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-arg]
        network.set_mixed_precision(self.low_precision_dtype)
        return network


@dataclass(frozen=True)
class Stage2Options:
    """What stage 2 lets choose: the published method by default, and the paper's ablations.

    Args:
        residual_resolution: Resolution of the first residual block; None: 64, or a quarter of a smaller
            backbone's.
        match_discriminator: Size of the matching discriminator; none for the ablation without it; joint for the one
            with a single discriminator, which sees image and mask together, without augmentation.
        match_weight: Weight of its term in the generator's loss.
        mode_seeking_weight: Weight lambda of the mode-seeking loss; 0 for none.
        mode_seeking_on: Distances between masks (published) or images.
        mode_seeking_latents: Distances between latents w (published) or z.
        outside_weight: Weight of what the defect changes outside its mask; 0 as published. The gate acts on the mask
            of each resolution, and a spot that is gone from the final mask can still be in the image.
    """

    residual_resolution: int | None = None
    match_discriminator: Literal["small", "medium", "large", "none", "joint"] = "small"
    match_weight: float = 1.0
    mode_seeking_weight: float = 0.1
    mode_seeking_on: Literal["mask", "image"] = "mask"
    mode_seeking_latents: Literal["w", "z"] = "w"
    outside_weight: float = 0.0


def build_stage1(recipe: Recipe, augmentation: AugmentationConfig, target: Target) -> Stage1Task:
    """A new stage-1 task; its weights are drawn from the global random generator."""
    with target.construct():
        generator = StyleGAN2Generator(**recipe.network_config())
        discriminator = StyleGAN2Discriminator(**recipe.discriminator_config())
    augment, ada = build_augmentation(augmentation, recipe.batch_size, ADA_KIMG["stage1"], target.device)
    return Stage1Task(
        target.place(generator),
        target.place(discriminator),
        Stage1Settings(**recipe.training_settings()),
        augment=augment,
        ada=ada,
        mean_over_processes=target.mean_over_processes,
    )


def build_stage2(
    backbone: StyleGAN2Generator,
    discriminator: StyleGAN2Discriminator,
    recipe: Recipe,
    options: Stage2Options,
    augmentation: AugmentationConfig,
    target: Target,
) -> Stage2Task:
    """A stage-2 task on copies of stage 1's networks; the new weights are drawn from the global random generator.

    Args:
        backbone: stage 1's averaged generator, on the CPU; it stays as it is.
        discriminator: stage 1's, on the CPU; it stays as it is.
        recipe: sizes are the backbone's.
        options: of the method.
        augmentation: what the discriminator sees.
        target: where it computes.
    """
    discriminator = copy.deepcopy(discriminator)
    if target.is_meta:
        backbone = copy.deepcopy(backbone).to(device="meta")  # type: ignore[call-arg]
        discriminator = discriminator.to(device="meta")  # type: ignore[call-arg]
    match = None
    with target.construct():
        generator = DFMGANGenerator.from_backbone(backbone, options.residual_resolution)
        if options.match_discriminator == "joint":
            discriminator = build_joint_discriminator(discriminator)
            # Augmentations of the image alone would tear image and mask apart.
            augmentation = replace(augmentation, augmentation="none")
        elif options.match_discriminator != "none":
            match = build_match_discriminator(discriminator, options.match_discriminator)
    augment, ada = build_augmentation(augmentation, recipe.batch_size, ADA_KIMG["stage2"], target.device)
    return Stage2Task(
        target.place(generator),
        target.place(discriminator),
        None if match is None else target.place(match),
        Stage2Settings(
            **recipe.training_settings(),
            match_weight=options.match_weight,
            mode_seeking_weight=options.mode_seeking_weight,
            mode_seeking_on=options.mode_seeking_on,
            mode_seeking_latents=options.mode_seeking_latents,
            outside_weight=options.outside_weight,
        ),
        augment=augment,
        ada=ada,
        mean_over_processes=target.mean_over_processes,
    )
