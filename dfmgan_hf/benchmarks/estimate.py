"""How long a cell will take, from a few timed passes on this machine."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from ..data import ImageMaskDataset
from ..metrics import EvaluationConfig, Networks, Sampler, evaluate
from ..training import Batch, RunningStatistics, Task

SAMPLES = 32
"""Images that are drawn and measured for an estimate."""


@dataclass(frozen=True)
class Estimate:
    """Seconds that one cell takes.

    Args:
        training: of the model; 0 if there is nothing to train.
        measuring: drawing the images and measuring them.
    """

    training: float
    measuring: float

    @property
    def total(self) -> float:
        return self.training + self.measuring


def seconds_per_step(task: Task, batch: Batch) -> float:
    """Time of a training step on average over the phases' intervals; no weight is changed."""
    seconds = 0.0
    statistics = RunningStatistics()
    for phase in task.phases:
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        # The first pass chooses kernels and reserves memory.
        for is_timed in (False, True):
            _wait_for(batch)
            start = time.perf_counter()
            if phase.prepare is not None:
                phase.prepare([batch])
            phase.loss(batch, statistics).backward()
            _wait_for(batch)
            if is_timed:
                seconds += (time.perf_counter() - start) / phase.interval
        phase.optimizer.zero_grad(set_to_none=True)
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
    return seconds


def seconds_to_measure(
    sampler: Sampler, real: ImageMaskDataset, networks: Networks, config: EvaluationConfig
) -> float:
    """Time to draw and measure as many images as `config` says.

    Drawing and features grow with the number of images, LPIPS with the number of pairs.
    """
    few = EvaluationConfig(
        metrics=config.metrics,
        num_images=min(SAMPLES, config.num_images),
        num_lpips_images=min(SAMPLES, config.num_lpips_images),
        batch_size=config.batch_size,
        kid_num_subsets=1,
        num_bootstrap=1,
        inception_splits=1,
    )
    seconds = evaluate(sampler, real, networks, few, progress=False).seconds
    images = max(config.num_images, config.num_lpips_images) / max(few.num_images, few.num_lpips_images)
    pairs = ((config.num_lpips_images + len(real)) / (few.num_lpips_images + len(real))) ** 2
    return sum(value * (pairs if "LPIPS" in step else images) for step, value in seconds.items())


def format_seconds(seconds: float) -> str:
    """ "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _wait_for(batch: Batch) -> None:
    if batch.images.device.type == "cuda":
        torch.cuda.synchronize(batch.images.device)
