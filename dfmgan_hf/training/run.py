"""What every training does around the trainer: processes, seeds, tracker, memory, record of settings, export."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed

from ..arguments import check_effect
from ..data.training_set import ImageMaskDataset
from ..files import TRAINING_FILE, lock_folder, to_json, versions, whole_folder, write_json
from .checkpointing import PREFIX, CheckpointError, ScoreConfig, Scorer, list_checkpoints, read_training_record
from .report import write_report
from .task import BatchStream, Task
from .trainer import RunConfig, Trainer, check_batch, stop_signals

LOW_VRAM_IMAGES = 4
NEW_MODEL_FOLDER = ".model"


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to start, with what `fit_run` and `start_accelerator` returned."""

    build: Callable[[torch.device], Task]
    """Puts the task together on a device."""
    dataset: ImageMaskDataset
    run: RunConfig
    accelerator: Accelerator
    total_kimg: float
    batch_size: int
    """Images a step over all processes."""
    record: dict[str, Any]
    """Every setting, written beside the results."""


def start_accelerator(run: RunConfig) -> Accelerator:
    """Start the processes, device and tracker of a run, and seed every process differently.

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
    ignored = ignored_settings(accelerator)
    if ignored and accelerator.is_main_process:
        warnings.warn(f"Settings of accelerate that have no effect here: {'; '.join(ignored)}.", stacklevel=2)
    return accelerator


def ignored_settings(accelerator: Accelerator) -> list[str]:
    """Return what a launch or `accelerate config` asks for and a run does not do, with the options that do it."""
    steps, kind = accelerator.gradient_accumulation_steps, accelerator.distributed_type.value
    wanted = {
        f"mixed_precision {accelerator.mixed_precision} (give --precision)": accelerator.mixed_precision != "no",
        f"gradient_accumulation_steps {steps} (give --accumulation_steps)": steps != 1,
        "dynamo_backend": accelerator.state.dynamo_plugin.backend.value != "NO",
        f"{kind} (every process holds whole networks)": kind in ("DEEPSPEED", "FSDP", "MEGATRON_LM", "TP"),
    }
    return [name for name, is_wanted in wanted.items() if is_wanted]


def check_finished(folder: str) -> None:
    """Warn if what lies in a training's folder is not its end.

    Raises:
        CheckpointError: its record is damaged; or there is no model yet, and the message says how to resume the
            training, or to end it.
    """
    path = Path(folder)
    record = read_training_record(path)
    present = list_checkpoints(path / "checkpoints")
    total = record.get("recipe", {}).get("total_kimg")
    has_model = (path / "model_index.json").is_file() or (path / "generator").is_dir()
    seen = int(present[-1].name.removeprefix(PREFIX)) if present else None
    seen = record.get("result", {}).get("images_seen", seen)
    length = "" if total is None else f" of {total:g}"
    resume = "To resume it, repeat its command with --resume_from_checkpoint latest"
    if has_model and total is not None and seen is not None and seen < 1000 * total:
        warnings.warn(f"{folder} is not finished: {seen / 1000:g}{length} kimg. {resume}.", stacklevel=3)
    elif not has_model and present:
        raise CheckpointError(
            f"{folder} holds no model yet: its training still runs, or was killed, after {seen / 1000:g}{length} "
            f"kimg. {resume}; with --total_kimg {seen / 1000:g} besides, that makes a model of what is learnt so far."
        )
    elif not has_model and record:
        raise CheckpointError(f"{folder} is a training that has not reached its first checkpoint. Start it again.")


def fit_run(run: RunConfig, batch_size: int, accelerator: Accelerator) -> RunConfig:
    """Return `run` with what --low_vram stands for.

    Raises:
        ValueError: the batch cannot be shared among the processes.
    """
    check_batch(batch_size, accelerator.num_processes, 1)
    share = batch_size // accelerator.num_processes
    if run.low_vram:
        # An even number where possible: the mode-seeking loss pairs images.
        fits = lambda images: images <= LOW_VRAM_IMAGES and (images % 2 == 0 or share % 2 == 1)  # noqa: E731
        steps = next(k for k in range(1, share + 1) if share % k == 0 and fits(share // k))
        on_cpu = accelerator.device.type == "cpu"
        precision = "float16" if run.precision == "float32" and not on_cpu else run.precision
        run = replace(run, accumulation_steps=max(steps, run.accumulation_steps), precision=precision)
    check_batch(batch_size, accelerator.num_processes, run.accumulation_steps)
    return run


def check_length(task: Task, batch_size: int, total_kimg: float) -> str | None:
    """Return what to say of phases that a run ends before, or None if all of them have their turn."""
    begins = {phase.name: phase.begins * batch_size / 1000 for phase in task.phases}
    late = [name for name, kimg in begins.items() if kimg >= total_kimg]
    if not late:
        return None
    return (
        f"The run ends at {total_kimg:g} kimg, and {', '.join(late)} would begin at {begins[late[0]]:g} only: until "
        "then, photographs are imitated, without a discriminator. Give a larger --total_kimg or a smaller "
        "--imitation_kimg."
    )


def check_r1(task: Task, record: dict[str, Any]) -> None:
    """Raise ValueError if a weight of R1 was chosen for a task without: projected discriminators have none."""
    recipe = getattr(record.get("config"), "recipe", None)
    if recipe is not None and all(phase.name != "r1" for phase in task.phases):
        check_effect(recipe, ["r1_gamma"], "`discriminator` stylegan2 or, in stage 2, a `match_discriminator`")


def fit(
    prepared: PreparedRun,
    score: ScoreConfig | None = None,
    make_scorer: Callable[[Task], Scorer] | None = None,
) -> None:
    """Train a task on a data set and export it to the run's output folder; without the last two, without scores.

    A run that a signal stops exports what is learnt so far; one that comes meanwhile waits for that.

    Raises:
        ValueError: scores are wanted of a single photograph, or R1 of a task that has none.
        BlockingIOError: another run writes to the folder.
        torch.OutOfMemoryError: with advice.
        see `Trainer.train`.
    """
    run, accelerator, dataset = prepared.run, prepared.accelerator, prepared.dataset
    if make_scorer is not None and len(dataset) < 2:
        raise ValueError(
            f"`eval_every_kimg` needs at least 2 photographs to compare with, but there is {len(dataset)}, and with "
            "it no KID, which says which model is the best. Give more photographs, or leave --eval_every_kimg out."
        )
    images = prepared.batch_size // accelerator.num_processes // run.accumulation_steps
    with advice_on_memory(images, run.precision):
        task = prepared.build(accelerator.device)
        check_r1(task, prepared.record)
        split = task.check_split(images)
        late = check_length(task, prepared.batch_size, prepared.total_kimg)
        for message in (split, late):
            if message is not None and accelerator.is_main_process:
                warnings.warn(message, stacklevel=3)
        stream = BatchStream(
            dataset,
            batch_size=prepared.batch_size,
            seed=run.seed,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
            device=accelerator.device,
            mirror=run.mirror,
            balanced=task.balances_kinds,
        )
        record = {**prepared.record, "settings": task.settings, "images": len(dataset)}
        settings = what_decides(to_json({**record, "seed": run.seed, "mirror": run.mirror}))
        record |= {
            "run": run,
            "panels": task.panels,
            "environment": environment(accelerator),
            "training_file_names": dataset.file_names,
        }
        scorer = None if make_scorer is None else make_scorer(task)
        trainer = Trainer(
            *(task, stream, run, accelerator, prepared.total_kimg),
            scorer=scorer,
            score=score,
            settings=settings,
            # Not before a checkpoint fits: this may be another run's folder.
            on_start=lambda: write_json(run.output_dir / TRAINING_FILE, to_json(record)),
        )
        if scorer is not None:
            record["checkpoint_rule"] = trainer.best.rule()
        stopped: SystemExit | None = None
        try:
            with lock_folder(run.output_dir) if accelerator.is_main_process else nullcontext():
                try:
                    trainer.train(run.resume_from_checkpoint)
                except SystemExit as stop:
                    stopped = stop
                with stop_signals() as signals:
                    if accelerator.is_main_process:
                        _export(trainer, record)
                    accelerator.wait_for_everyone()
            if stopped is None and trainer.processes.any(bool(signals)):
                # Of several models, the next one is not to be begun.
                stopped = SystemExit(128 + (signals[0] if signals else signal.SIGTERM))
            if stopped is not None:
                if accelerator.is_main_process:
                    print(f"What is learnt so far is a model: {run.output_dir}", flush=True)
                raise stopped
        finally:
            for tracker in accelerator.trackers:
                tracker.finish()
            accelerator.trackers.clear()
            if accelerator.is_main_process:
                try_report(run.output_dir)


def _export(trainer: Trainer, record: dict[str, Any]) -> None:
    """Write the model, and beside it and the best one what it came from."""
    folder, best = trainer.run.output_dir, trainer.best
    write_model(trainer.task, folder)
    seconds = round(trainer.progress.seconds, 1)
    record["result"] = {"images_seen": trainer.images_seen, "training_seconds": seconds}
    if best.score is not None:
        record["best"] = {**best.state_dict(), "summary": best.summary()}
        if best.folder.is_dir():
            write_json(best.folder / TRAINING_FILE, to_json(record))
    write_json(folder / TRAINING_FILE, to_json(record))


def write_model(task: Task, folder: Path) -> None:
    """Export a task into a folder that holds more than the model, and perhaps an earlier one.

    All is written before the first part takes its place: a run that is killed while it writes leaves the earlier
    model, and not one whose discriminator is older than its generator.
    """
    new = folder / NEW_MODEL_FOLDER
    with whole_folder(new, replace=True) as aside:
        task.export(aside)
    for part in list(new.iterdir()):
        place = folder / part.name
        if place.is_dir():
            os.replace(place, new / f"{part.name}.replaced")
        os.replace(part, place)
    shutil.rmtree(new)


def try_report(run_dir: Path) -> None:
    """Write the run's page, if there is anything to show; a run does not fail for lack of it."""
    if not (run_dir / "metrics.jsonl").is_file():
        return
    try:
        page = write_report(run_dir)
    except (ImportError, OSError, CheckpointError) as error:
        warnings.warn(f"No report was written: {error}", stacklevel=2)
    else:
        print(f"Report: {page}", flush=True)


@contextmanager
def advice_on_memory(images: int, precision: str) -> Iterator[None]:
    """Inside, running out of memory with micro-batches of so many images says what helps."""
    options = []
    if images > LOW_VRAM_IMAGES:
        options.append(f"--low_vram ({LOW_VRAM_IMAGES} instead of {images} images at a time, half precision)")
        options.append("a larger --accumulation_steps")
    if precision == "float32":
        options.append("--precision float16")
    options += ["a smaller --resolution, --channel_base or --preset", "more GPUs"]
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise torch.OutOfMemoryError(
            f"{error}\nWhat helps, in this order: {'; '.join(options)}. Checkpoints that were written are kept: "
            "--resume_from_checkpoint latest resumes from the last one, if the networks stay the same."
        ) from error


# --- the record ---


def what_decides(record: dict[str, Any]) -> dict[str, Any]:
    """Return a run's record without what may change when it is resumed: lengths, intervals, places."""
    config = {k: v for k, v in record.get("config", {}).items() if k not in ("run", "recipe", "hub")}
    recipe = {k: v for k, v in record.get("recipe", {}).items() if k != "total_kimg"}
    return {**record, "config": config, "recipe": recipe}


def environment(accelerator: Accelerator) -> dict[str, Any]:
    """Return versions and the machine, for the record."""
    device = accelerator.device
    return {
        "versions": versions("dfmgan-hf", "torch", "diffusers", "accelerate", "datasets"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "num_processes": accelerator.num_processes,
        "cpu_threads": torch.get_num_threads(),
    }
