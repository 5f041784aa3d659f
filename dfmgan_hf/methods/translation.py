"""What the image-to-image methods share: good photographs to draw on, and falling learning rates."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch
from torch import Tensor
from torch.optim import Optimizer

from ..pipeline import DFMGANPipeline

# --- The defect-free images that SDGAN and Defect-GAN draw defects on.


class Photographs:
    """Photographs as the networks see them.

    Args:
        pixels: uint8 (N, C, R, R).
        device: where they are wanted.
    """

    def __init__(self, pixels: Tensor, device: torch.device) -> None:
        self.pixels = pixels
        self.device = device

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The photographs of these numbers: (n, C, R, R) in [-1, 1]."""
        index = torch.as_tensor(indices, device=self.pixels.device)
        return self.pixels[index].to(self.device).to(torch.float32) / 127.5 - 1.0

    def draw(self, n: int) -> Tensor:
        """Random ones, with replacement, by torch's global generator."""
        return self.at(torch.randint(len(self), (n,)))


class GoodImages(Protocol):
    """Defect-free images by number."""

    def pick(self, indices: Sequence[int], seed: int) -> Tensor:
        """Images (n, C, R, R) in [-1, 1], on the CPU or where they are used; image i depends on seed and i alone."""
        ...


class ShuffledPhotographs:
    """Photographs in an order that the seed decides, all of them before any comes again."""

    def __init__(self, photographs: Photographs) -> None:
        self.photographs = photographs

    def pick(self, indices: Sequence[int], seed: int) -> Tensor:
        order = torch.randperm(len(self.photographs), generator=torch.Generator().manual_seed(seed))
        return self.photographs.at([int(order[i % len(order)]) for i in indices])


class GeneratedGoodImages:
    """What a backbone of stage 1 draws with the seeds `seed + i`, so that no two are the same.

    Args:
        pipe: of stage 1.
        resolution, image_channels: what is expected of it.

    Raises:
        ValueError: it draws something else.
    """

    def __init__(self, pipe: DFMGANPipeline, resolution: int, image_channels: int) -> None:
        config = pipe.generator.config
        if (config["resolution"], config["image_channels"]) != (resolution, image_channels):
            raise ValueError(
                f"`good_model` draws {config['image_channels']} channels of {config['resolution']}x"
                f"{config['resolution']} pixels, but the model to draw defects with takes {image_channels} of "
                f"{resolution}x{resolution}; train stage 1 at that size."
            )
        self.pipe = pipe
        self.pipe.set_progress_bar_config(disable=True)

    def pick(self, indices: Sequence[int], seed: int) -> Tensor:
        pipe: Any = self.pipe  # its output's type depends on its arguments
        output = pipe(seeds=[seed + i for i in indices], batch_size=len(indices), output_type="pt")
        return output.defect_free_images * 2.0 - 1.0


# --- Hyperparameters of the methods that translate images, and learning rates that fall with the length of a run.

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
