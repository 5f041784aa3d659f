"""What a user sets of a run, whatever the method: what is written when, where, and how the batch is computed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch


@dataclass(frozen=True)
class RunConfig:
    """Options of a run that are the same for every method.

    Args:
        output_dir: Everything is written here: model, checkpoints/, samples/, metrics.jsonl, logs/.
        seed: Seed of weights, latents, augmentations and data order.
        precision: Type of the convolutions at the four highest resolutions; parameters and regularisers stay float32.
        accumulation_steps: Micro-batches that each process splits its part of the batch into, to save memory.
        low_vram: At most 4 images at a time, and float16 on accelerators: for GPUs with little memory.
        mirror: Also show the photographs flipped left to right, if a mirrored product is a possible product.
        log_every_kimg: Interval of statistics.
        sample_every_kimg: Interval of sample sheets; 0 for the first and last only.
        checkpoint_every_kimg: Interval of checkpoints; 0 for the last only.
        checkpoints_total_limit: Checkpoints to keep.
        resume_from_checkpoint: "latest", or the path of a checkpoint, to go on from. With "latest" and none yet, the
            run starts afresh.
        report_to: Tracker.

    Raises:
        ValueError: a number is out of its range.
    """

    output_dir: Path
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulation_steps: int = 1
    low_vram: bool = False
    mirror: bool = False
    log_every_kimg: float = 1.0
    sample_every_kimg: float = 10.0
    checkpoint_every_kimg: float = 20.0
    checkpoints_total_limit: int | None = 2
    resume_from_checkpoint: str | None = None
    report_to: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    def __post_init__(self) -> None:
        for name in ("accumulation_steps", "log_every_kimg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}.")
        for name in ("sample_every_kimg", "checkpoint_every_kimg"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, but is {getattr(self, name)}.")
        if self.checkpoints_total_limit is not None and self.checkpoints_total_limit < 1:
            raise ValueError(f"`checkpoints_total_limit` must be at least 1, but is {self.checkpoints_total_limit}.")

    @property
    def low_precision_dtype(self) -> torch.dtype | None:
        return None if self.precision == "float32" else getattr(torch, self.precision)


def check_batch(batch_size: int, num_processes: int, accumulation_steps: int) -> None:
    """Raise ValueError if the batch cannot be shared among so many processes and micro-batches."""
    if batch_size % (num_processes * accumulation_steps):
        raise ValueError(
            f"`batch_size` {batch_size} cannot be shared among {num_processes} processes with {accumulation_steps} "
            "accumulation steps each; choose a multiple of their product."
        )
