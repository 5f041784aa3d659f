"""What every training does around the trainer: options, processes, seeds, tracker, record of settings."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import warnings
from collections.abc import Callable
from dataclasses import asdict, is_dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from ..data.training_set import ImageMaskDataset
from ..files import write_json
from .checkpointing import BEST_FOLDER, BestRule, ScoreConfig, Scorer, flatten
from .report import write_report
from .task import BatchStream, Task
from .trainer import RunConfig, Trainer, check_batch, out_of_memory, tracker_options

CONFIG_FILE = "training_config.json"
LOW_VRAM_IMAGES = 4


def start_accelerator(run: RunConfig) -> Accelerator:
    """ProcessGroup, device and tracker of a run; seeds every process differently.

    Raises:
        ImportError: the tracker is not installed.
    """
    log_with = None if run.report_to == "none" else run.report_to
    if log_with is not None:
        try:
            importlib.import_module(log_with)
        except ImportError as error:
            extra = "dfmgan-hf[train]" if log_with == "tensorboard" else log_with
            raise ImportError(
                f"The {log_with} tracker is not installed: `pip install {extra}`, or use --report_to none."
            ) from error
    accelerator = Accelerator(log_with=log_with, project_dir=str(run.output_dir / "logs"))
    set_seed((run.seed * 1_000_003 + accelerator.process_index) % 2**32)
    return accelerator


def fit_run(run: RunConfig, batch_size: int, accelerator: Accelerator) -> RunConfig:
    """`run` with what --low_vram stands for.

    Raises:
        ValueError: the batch cannot be shared among the processes.
    """
    per_process = batch_size // accelerator.num_processes
    if run.low_vram:
        steps = next(
            k for k in range(1, per_process + 1) if per_process % k == 0 and per_process // k <= LOW_VRAM_IMAGES
        )
        on_cpu = accelerator.device.type == "cpu"
        precision = "float16" if run.precision == "float32" and not on_cpu else run.precision
        run = replace(run, accumulation_steps=max(steps, run.accumulation_steps), precision=precision)
    check_batch(batch_size, accelerator.num_processes, run.accumulation_steps)
    return run


def train(
    build_task: Callable[[torch.device], Task],
    dataset: ImageMaskDataset,
    run: RunConfig,
    accelerator: Accelerator,
    total_kimg: float,
    batch_size: int,
    record: dict[str, Any],
    *,
    score: ScoreConfig | None = None,
    make_scorer: Callable[[Task], Scorer] | None = None,
) -> None:
    """Train a task on a data set and export it to `run.output_dir`.

    Args:
        build_task: puts the task together on a device.
        dataset: real images, in memory.
        run: options, of `fit_run`.
        accelerator: of `start_accelerator`.
        total_kimg: length in thousands of images.
        batch_size: images a step over all processes.
        record: every setting of the run, written beside the results.
        score: when to score and which score is better; None for no scores.
        make_scorer: measures a task's averaged generator; None for no scores.

    Raises:
        torch.OutOfMemoryError: with advice.
        see `Trainer.train`.
    """
    score = score or ScoreConfig()
    images = batch_size // accelerator.num_processes // run.accumulation_steps
    try:
        _train(build_task, dataset, run, accelerator, total_kimg, batch_size, record, score, make_scorer)
    except torch.OutOfMemoryError as error:
        raise out_of_memory(error, images, run.precision) from error


def _train(
    build_task: Callable[[torch.device], Task],
    dataset: ImageMaskDataset,
    run: RunConfig,
    accelerator: Accelerator,
    total_kimg: float,
    batch_size: int,
    record: dict[str, Any],
    score: ScoreConfig,
    make_scorer: Callable[[Task], Scorer] | None,
) -> None:
    task = build_task(accelerator.device)
    split = task.check_split(batch_size // accelerator.num_processes // run.accumulation_steps)
    if split is not None and accelerator.is_main_process:
        warnings.warn(split, stacklevel=3)
    stream = BatchStream(
        dataset,
        batch_size=batch_size,
        seed=run.seed,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        device=accelerator.device,
        mirror=run.mirror,
    )
    rule = BestRule(score.best_by)
    record = {**record, "settings": task.settings}
    settings = what_decides(to_json({**record, "images": len(dataset), "seed": run.seed, "mirror": run.mirror}))
    record = to_json(
        {
            **record,
            "run": run,
            "panels": task.panels,
            "images": len(dataset),
            "environment": environment(accelerator),
            "training_file_names": dataset.file_names,
        }
    )
    scorer = None if make_scorer is None else make_scorer(task)
    if scorer is not None:
        record["checkpoint_rule"] = rule.describe(score.eval_every_kimg, score.eval_images)

    def start_trackers(images_seen: int) -> None:
        logs, config = run.output_dir / "logs", None
        if run.report_to == "wandb":  # TensorBoard would show settings as one more run for each start
            config = flatten(settings)
            logs.mkdir(exist_ok=True)
        options = tracker_options(str(logs), run.output_dir.name, images_seen)
        accelerator.init_trackers("dfmgan", config=config, init_kwargs=options)

    trainer = Trainer(
        task,
        stream,
        run,
        accelerator,
        total_kimg,
        score=score,
        scorer=scorer,
        settings=settings,
        start_trackers=start_trackers,
    )
    # Before anything is written: this may be another run's folder.
    trainer.check_output_dir(run.resume_from_checkpoint)
    if accelerator.is_main_process:
        run.output_dir.mkdir(parents=True, exist_ok=True)
        write_record(run.output_dir, record)
    try:
        trainer.train(run.resume_from_checkpoint)
        if accelerator.is_main_process:
            task.export(run.output_dir)
            record["result"] = {
                "images_seen": trainer.images_seen,
                "training_seconds": round(trainer.progress.seconds, 1),
            }
            if trainer.best.score is not None:
                record["best"] = {**trainer.best.state_dict(), "summary": trainer.best.summary()}
                if (run.output_dir / BEST_FOLDER).is_dir():
                    write_record(run.output_dir / BEST_FOLDER, record)
            write_record(run.output_dir, record)
        accelerator.wait_for_everyone()
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()
        accelerator.trackers.clear()
        if accelerator.is_main_process:
            try_report(run.output_dir)


def try_report(run_dir: Path) -> None:
    """Write the run's page; a run does not fail for lack of it."""
    try:
        page = write_report(run_dir)
    except (ImportError, OSError) as error:
        warnings.warn(f"No report was written: {error}", stacklevel=2)
    else:
        print(f"Report: {page}", flush=True)


def write_record(run_dir: Path, record: dict[str, Any]) -> None:
    """Write training_config.json, whole or not at all."""
    write_json(run_dir / CONFIG_FILE, record)


def what_decides(record: dict[str, Any]) -> dict[str, Any]:
    """A run's record without what may change when it goes on: lengths, intervals, places."""
    config = {k: v for k, v in record.get("config", {}).items() if k not in ("run", "recipe", "hub")}
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
