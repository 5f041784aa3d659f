"""What SDGAN and Defect-GAN share: good photographs to draw defects on, and a learning rate that falls."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.base import channels_at
from ..training.task import RunningStatistics, Task, lazy_adam
from .method import TaskRequest

BETAS = (0.5, 0.999)
RECIPE_FIELDS = ("resolution", "image_channels", "channel_base", "batch_size", "lr", "total_kimg")


class Photographs:
    """Photographs as the networks see them.

    Args:
        pixels: uint8 (N, C, R, R).
        device: where they are wanted.
        mirror: flip half of those that are chosen, as defects are flipped: else being mirrored would mark a defect.
    """

    def __init__(self, pixels: Tensor, device: torch.device, mirror: bool = False) -> None:
        self.pixels = pixels
        self.device = device
        self.mirror = mirror

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, indices: Tensor | Sequence[int]) -> Tensor:
        """Return the photographs of these numbers, (n, C, R, R) in [-1, 1]."""
        index = torch.as_tensor(indices, device=self.pixels.device)
        return self.pixels[index].to(self.device).to(torch.float32) / 127.5 - 1.0

    def choose(self, n: int) -> Tensor:
        """Return random ones, with replacement, by torch's global generator."""
        chosen = self.at(torch.randint(len(self), (n,)))
        if not self.mirror:
            return chosen
        return torch.where(torch.rand(n, 1, 1, 1, device=chosen.device) < 0.5, chosen.flip(3), chosen)


def decayed_lr(progress: float, lr: float, *, constant_until: float = 0.0, final_lr: float = 0.0) -> float:
    """Return the learning rate at a part of the run: `lr` at first, then on a line down to `final_lr` at the end.

    In closed form: a run that is resumed, or has another length, needs nothing but its image count.

    Args:
        progress: done part of the run, from 0; what goes beyond 1 stays at the end's rate.
        lr: at first.
        constant_until: part of the run from which on it falls, in [0, 1).
        final_lr: at the end.
    """
    falling = min(max((progress - constant_until) / (1 - constant_until), 0.0), 1.0)
    return lr + (final_lr - lr) * falling


@dataclass(frozen=True)
class TranslationConfig:
    """Hyperparameters of a run of SDGAN or Defect-GAN.

    Args:
        options: of the method.
        batch_size: images a step over all processes.
        lr: Adam's learning rate before it falls.
        total_kimg: length that the learning rate falls over.
        sheet_samples: pictures on a sample sheet.
    """

    options: Any
    batch_size: int
    lr: float
    total_kimg: float
    sheet_samples: int = 16


class TranslationTask(Task):
    """A task whose generator changes good photographs, with Adam at a falling learning rate and no averaged network.

    Args:
        networks: on their device, one of them called "generator".
        trained: parameters of each optimiser.
        good: defect-free photographs.
        config: hyperparameters.
        low_precision_dtype: of the convolutions; None for float32.
    """

    def __init__(
        self,
        networks: dict[str, nn.Module],
        trained: dict[str, list[nn.Parameter]],
        good: Photographs,
        config: TranslationConfig,
        low_precision_dtype: torch.dtype | None,
    ) -> None:
        self.networks = networks
        for network in networks.values():
            network.train().requires_grad_(False)
        self.generator: Any = networks["generator"]
        self.generator_ema = self.generator
        self.ema = []
        self.good = good
        self.settings = config
        self.low_precision_dtype = low_precision_dtype
        self.optimizers = {name: lazy_adam(ps, lr=config.lr, betas=BETAS) for name, ps in trained.items()}
        self._step = 0
        self._set_lr()

    def autocast(self) -> AbstractContextManager[object]:
        """Run convolutions in low precision, if the task has one."""
        dtype = self.low_precision_dtype
        return nullcontext() if dtype is None else torch.autocast(self.good.device.type, dtype)

    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        self._step = step
        statistics.report("lr", self._set_lr())

    def _set_lr(self) -> float:
        config = self.settings
        lr = decayed_lr(
            self._step * config.batch_size / (config.total_kimg * 1000) if self._step else 0.0,
            config.lr,
            constant_until=getattr(config.options, "constant_part", 0.0),
            final_lr=config.options.final_lr,
        )
        for optimizer in self.optimizers.values():
            for group in optimizer.param_groups:
                group["lr"] = lr
        return lr

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": torch.tensor(self._step)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self._step = int(state["step"])
        self._set_lr()

    def export(self, folder: Path) -> None:
        for name, network in self.networks.items():
            network.save_pretrained(folder / name)  # type: ignore[operator]


def at_least_float32(tensor: Tensor) -> Tensor:
    """Return what low precision gave, in the precision that losses are computed in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def base_channels(request: TaskRequest) -> int:
    """Return the channels at full resolution: 64, or what the recipe leaves there."""
    recipe = request.recipe
    return min(64, channels_at(recipe.resolution, recipe.channel_base, recipe.channel_max))


def task_arguments(request: TaskRequest) -> tuple[Photographs, TranslationConfig, torch.dtype | None]:
    """Return the last three arguments of a `TranslationTask`."""
    recipe, target = request.recipe, request.target
    config = TranslationConfig(request.options, recipe.batch_size, recipe.lr, recipe.total_kimg)
    return Photographs(request.good.images, target.device, request.mirror), config, target.low_precision_dtype
