"""What every training script does around the trainer: options, processes, seeds, tracker, record of settings."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass, is_dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from ..data import ImageMaskDataset
from .batches import BatchStream
from .processes import ProcessGroup
from .schedule import Schedule
from .task import Task
from .trainer import Trainer

CONFIG_FILE = "training_config.json"


@dataclass(frozen=True)
class RunConfig:
    """Options of a run that are the same for every method.

    Args:
        output_dir: Everything is written here: model, checkpoints/, samples/, metrics.jsonl, logs/.
        seed: Seed of weights, latents, augmentations and data order.
        precision: Type of the convolutions at the four highest resolutions; parameters and regularisers stay float32.
        accumulation_steps: Micro-batches that each process splits its part of the batch into, to save memory.
        mirror: Also show the photographs flipped left to right, if a mirrored product is a possible product.
        log_every_kimg: Interval of statistics.
        sample_every_kimg: Interval of sample sheets; 0 for the first and last only.
        checkpoint_every_kimg: Interval of checkpoints; 0 for the last only.
        checkpoints_total_limit: Checkpoints to keep.
        resume_from_checkpoint: "latest", or the path of a checkpoint, to go on from. With "latest" and none yet, the
            run starts afresh.
        report_to: Tracker.
    """

    output_dir: Path
    seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    accumulation_steps: int = 1
    mirror: bool = False
    log_every_kimg: float = 1.0
    sample_every_kimg: float = 10.0
    checkpoint_every_kimg: float = 20.0
    checkpoints_total_limit: int | None = 2
    resume_from_checkpoint: str | None = None
    report_to: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    @property
    def low_precision_dtype(self) -> torch.dtype | None:
        return None if self.precision == "float32" else getattr(torch, self.precision)


def start_accelerator(run: RunConfig) -> Accelerator:
    """Processes, device and tracker of a run; seeds every process differently.

    Raises:
        ImportError: the tracker is not installed.
    """
    log_with = None if run.report_to == "none" else run.report_to
    if run.report_to == "tensorboard":
        try:
            import tensorboard  # noqa: F401
        except ImportError as error:
            raise ImportError(
                "The tensorboard tracker is not installed: `pip install dfmgan-hf[train]`, or use --report_to none."
            ) from error
    accelerator = Accelerator(log_with=log_with, project_dir=str(run.output_dir / "logs"))
    set_seed((run.seed * 1_000_003 + accelerator.process_index) % 2**32)
    return accelerator


def mean_over_processes(accelerator: Accelerator) -> Callable[[Tensor], Tensor]:
    """A function that averages a tensor over all processes; the identity with one process."""
    return ProcessGroup(accelerator).mean


def train(
    task: Task,
    dataset: ImageMaskDataset,
    run: RunConfig,
    accelerator: Accelerator,
    total_kimg: float,
    batch_size: int,
    record: dict[str, Any],
) -> None:
    """Train a task on a data set and export it to `run.output_dir`.

    Args:
        task: networks on the accelerator's device.
        dataset: real images, in memory.
        run: options.
        accelerator: of `start_accelerator`.
        total_kimg: length in thousands of images.
        batch_size: images a step over all processes.
        record: every setting of the run, written beside the results.

    Raises:
        see `Trainer.train`.
    """
    schedule = Schedule(
        total_kimg=total_kimg,
        batch_size=batch_size,
        accumulation_steps=run.accumulation_steps,
        log_every_kimg=run.log_every_kimg,
        sample_every_kimg=run.sample_every_kimg,
        checkpoint_every_kimg=run.checkpoint_every_kimg,
        checkpoints_total_limit=run.checkpoints_total_limit,
    )
    stream = BatchStream(
        dataset,
        batch_size=batch_size,
        seed=run.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        mirror=run.mirror,
    )
    settings = what_decides(to_json({**record, "images": len(dataset), "seed": run.seed, "mirror": run.mirror}))
    record = to_json({**record, "images": len(dataset), "environment": environment(accelerator)})
    if accelerator.is_main_process:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        (run.output_dir / CONFIG_FILE).write_text(json.dumps(record, indent=2) + "\n")
    accelerator.init_trackers("dfmgan")
    trainer = Trainer(task, stream, schedule, accelerator, run.output_dir, settings=settings)
    try:
        trainer.train(run.resume_from_checkpoint)
        if accelerator.is_main_process:
            task.export(run.output_dir)
            record["result"] = {
                "images_seen": trainer.images_seen,
                "training_seconds": round(trainer.progress.seconds, 1),
            }
            (run.output_dir / CONFIG_FILE).write_text(json.dumps(record, indent=2) + "\n")
        accelerator.wait_for_everyone()
    finally:
        accelerator.end_training()


def what_decides(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record without what may change when it goes on: lengths, intervals, places."""
    config = {k: v for k, v in record.get("config", {}).items() if k not in ("run", "recipe")}
    recipe = {k: v for k, v in record.get("recipe", {}).items() if k != "total_kimg"}
    return {**record, "config": config, "recipe": recipe}


def to_json(value: Any) -> Any:
    """Dataclasses, paths and types as what JSON can hold."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, dict):
        return {str(k): to_json(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return str(value)


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Versions and the machine, for the record."""
    names = ("dfmgan-hf", "torch", "diffusers", "accelerate", "datasets")
    versions: dict[str, str | None] = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    device = accelerator.device
    return {
        "versions": versions,
        "python": platform.python_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_processes": accelerator.num_processes,
        "cpu_threads": torch.get_num_threads(),
    }
