"""The only training loop. It knows phases, averages and checkpoints, and nothing of any method.

`Trainer` reads from top to bottom: the loop, a step and its phases, stopping, logs, scores and sheets, checkpoints.
"""

from __future__ import annotations

import math
import os
import signal
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psutil
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor, nn
from tqdm.auto import tqdm

from ..files import BEST_FOLDER, make_folder
from ..processes import ProcessGroup
from ..sheets import save_sheet
from .checkpointing import (
    BestModel,
    CheckpointError,
    ScoreConfig,
    Scorer,
    all_finite,
    changed_settings,
    collect_tensors,
    find_checkpoint,
    flatten,
    list_checkpoints,
    remove_partial,
    restore_random_state,
    restore_tensors,
    write_checkpoint,
)
from .graphs import PhaseGraphs, RunPhase, why_not_captured
from .task import (
    PATIENCE,
    Batch,
    BatchStream,
    MetricsLog,
    NonFiniteLossError,
    Phase,
    RunningStatistics,
    Task,
    TrainingWarning,
    examine,
)

GIB = 2**30

GRADIENT_LIMIT = 1e5
"""Infinite gradients become this large, as in StyleGAN2-ADA."""

STOP_CHECK_STEPS = 8
"""Several processes agree on stopping this often, since asking makes the host wait for the device."""


@dataclass(frozen=True)
class RunConfig:
    """Options of a run that are the same for every method.

    Args:
        output_dir: Everything is written here: model, checkpoints/, samples/, metrics.jsonl, logs/.
        seed: Seed of weights, latents, augmentations and data order.
        precision: Type of the convolutions at the four highest resolutions; parameters stay float32, and so do
            regularisers under float16, unless the GPU is fast in bfloat16, which they then run in.
        accumulation_steps: Micro-batches that each process splits its part of the batch into, to save memory.
        low_vram: At most 4 images at a time, and float16 on accelerators: for GPUs with little memory.
        cuda_graphs: On a GPU, capture each phase once and replay it from then on, which spares the host's time.
            Where that cannot be done, phases run as they are.
        mirror: Also show the photographs flipped left to right, if a mirrored product is a possible product.
        log_every_kimg: Interval of statistics.
        sample_every_kimg: Interval of sample sheets; 0 for the first and last only.
        checkpoint_every_kimg: Interval of checkpoints; 0 for the last only.
        checkpoints_total_limit: Checkpoints to keep.
        resume_from_checkpoint: "latest", or the path of a checkpoint, to resume from. With "latest" and none yet, the
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
    cuda_graphs: bool = False
    mirror: bool = False
    log_every_kimg: float = 1.0
    sample_every_kimg: float = 10.0
    checkpoint_every_kimg: float = 20.0
    checkpoints_total_limit: int | None = 2
    resume_from_checkpoint: str | None = None
    report_to: Literal["tensorboard", "wandb", "none"] = "tensorboard"

    def __post_init__(self) -> None:
        for name in ("accumulation_steps", "log_every_kimg"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be positive and finite, but is {getattr(self, name)}.")
        for name in ("sample_every_kimg", "checkpoint_every_kimg"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"`{name}` must be a finite number from 0 on, but is {getattr(self, name)}.")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must be from 0 to {2**32 - 1}, but is {self.seed}.")
        if self.checkpoints_total_limit is not None and self.checkpoints_total_limit < 1:
            raise ValueError(f"`checkpoints_total_limit` must be at least 1, but is {self.checkpoints_total_limit}.")

    @property
    def low_precision_dtype(self) -> torch.dtype | None:
        """`precision` as torch has it; None for float32."""
        return None if self.precision == "float32" else getattr(torch, self.precision)


def check_batch(batch_size: int, num_processes: int, accumulation_steps: int) -> None:
    """Raise ValueError if the batch cannot be shared among so many processes and micro-batches."""
    if min(batch_size, accumulation_steps) < 1 or batch_size % (num_processes * accumulation_steps):
        raise ValueError(
            f"`batch_size` {batch_size} cannot be shared among {num_processes} processes with {accumulation_steps} "
            "accumulation steps each; choose a multiple of their product."
        )


class Stopwatch:
    """Time the phases of a run's first steps.

    Args:
        run_phase: runs a phase.
        device: is waited for, so that a phase's time is its own.
        runs: the last of so many runs of a phase counts: on a GPU, earlier ones also compile and capture.
    """

    def __init__(self, run_phase: RunPhase, device: torch.device, runs: int) -> None:
        self.run_phase = run_phase
        self.device = device
        self.runs = runs
        self._seconds: dict[str, list[float]] = {}

    def __call__(self, phase: Phase, batch: Batch) -> None:
        start = time.perf_counter()
        self.run_phase(phase, batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self._seconds.setdefault(phase.name, []).append(time.perf_counter() - start)

    def seconds_per_step(self, phases: Sequence[Phase]) -> float | None:
        """Return a step's mean time, with each phase as often as it is due; None before each has run, or two steps."""
        times = [self._seconds.get(phase.name, []) for phase in phases]
        if min(map(len, times)) < self.runs or max(map(len, times)) < 2:
            return None
        return sum(seconds[-1] / phase.interval for seconds, phase in zip(times, phases, strict=True))


@dataclass
class Progress:
    """How far a run has come: training steps, real images shown, seconds spent without starts and stops, and whether
    a score is due that a stop signal did not leave the time for."""

    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0
    score_due: bool = False


class Trainer:
    """Run a task: phases, gradients averaged over processes, moving averages, logs, sheets and checkpoints.

    Args:
        task: what is trained.
        stream: real images.
        run: where and when to write, and in how many parts to compute a batch.
        accelerator: device, processes and tracker.
        total_kimg: length in thousands of real images shown.
        scorer: measures the averaged generator; None for no scores.
        score: when to score; the model with the best score is kept in best/.
        settings: what decides the result, as JSON; checkpoints keep it, and a resumed run names what has changed.
        on_start: called on the main process once it is certain that the run can start in its folder.
        show_progress: draw a progress bar on the main process.

    Raises:
        ValueError: the batch cannot be shared among the processes, or the run has no length.

    Example:
        >>> stream = BatchStream(dataset, batch_size=16, seed=0)
        >>> Trainer(task, stream, RunConfig(output_dir=Path("runs/hazelnut")), Accelerator(), total_kimg=3000).train()
    """

    def __init__(
        self,
        task: Task,
        stream: BatchStream,
        run: RunConfig,
        accelerator: Accelerator,
        total_kimg: float,
        *,
        scorer: Scorer | None = None,
        score: ScoreConfig | None = None,
        settings: dict[str, Any] | None = None,
        on_start: Callable[[], None] = lambda: None,
        show_progress: bool = True,
    ) -> None:
        check_batch(stream.batch_size, accelerator.num_processes, run.accumulation_steps)
        if not 0 < total_kimg < math.inf:
            raise ValueError(f"`total_kimg` must be a positive, finite number, but is {total_kimg}.")
        self.task = task
        self.stream = stream
        self.run = run
        self.total_kimg = total_kimg
        self.accelerator = accelerator
        self.processes = ProcessGroup(accelerator)
        self.scorer = scorer
        self.score = score or ScoreConfig()
        self.settings = settings or {}
        self.on_start = on_start
        self.show_progress = show_progress
        self.checkpoints_dir = run.output_dir / "checkpoints"
        self.sheets_dir = run.output_dir / "samples"
        self.best = BestModel(run.output_dir / BEST_FOLDER, self.score)
        self.progress = Progress()
        self.statistics = RunningStatistics(self.processes.sum)
        self.log = MetricsLog(run.output_dir / "metrics.jsonl")
        self._rows: deque[dict[str, Any]] = deque(maxlen=PATIENCE)
        self._warned: set[str] = set()
        self._run_phase: RunPhase = self.run_phase
        self._stopwatch: Stopwatch | None = None
        self._timed: list[str] = []

    @property
    def images_seen(self) -> int:
        """Real images shown so far."""
        return self.progress.images_seen

    # --- the loop ---

    def train(self, resume_from: str | None = None) -> None:
        """Train until `total_kimg` are shown.

        Args:
            resume_from: "latest" or a checkpoint's path; None to start afresh. With "latest" and no checkpoint yet,
                the run starts afresh too, so that a command that is repeated until it succeeds can always carry it.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
            CheckpointError: the folder holds checkpoints but the run is to start afresh, or from the checkpoint of
                another folder; a checkpoint is damaged, belongs to another run, or cannot be written.
            SystemExit: on SIGINT (code 130) or SIGTERM (code 143), after a checkpoint has been written, unless all
                was done by then. A score that is due is measured when the run is resumed.
        """
        # A checkpoint that was about to be replaced when the run was killed is one to resume from.
        if self.processes.is_main:
            remove_partial(self.checkpoints_dir)
        self.processes.wait()
        self.check_output_dir(resume_from)
        if resume_from == "latest" and not list_checkpoints(self.checkpoints_dir):
            self._say(f"No checkpoint in {self.checkpoints_dir} yet: starting afresh.")
            resume_from = None
        if resume_from is not None:
            self.restore(resume_from)
        else:
            self.processes.broadcast_(self.task.networks.values())
        # Everyone has looked at the folder before the main process changes it.
        self.processes.wait()
        if self.processes.is_main:
            make_folder(self.run.output_dir)
            self.on_start()
            if resume_from is None:
                self.best.clear()
            rows = self.log.rewind(self.images_seen)
            for sheet in self.sheets_dir.glob("[0-9]*.png"):
                if sheet.stem.isdecimal() and int(sheet.stem) > self.images_seen:
                    sheet.unlink()
            self._rows.extend(row for row in rows if "warnings" in row)
        self._start_trackers()
        # After the optimisers' states have got their place in memory.
        self._run_phase = self._choose_how_phases_run()
        with stop_signals() as signals:
            self._loop(signals)

    def check_output_dir(self, resume_from: str | None) -> None:
        """Raise CheckpointError if the run would begin anew, or from another run's, among a run's checkpoints."""
        present = list_checkpoints(self.checkpoints_dir)
        path = None if resume_from is None else Path(os.path.abspath(resume_from))
        is_other = path is None or (path.is_dir() and path.parent.resolve() != self.checkpoints_dir.resolve())
        if present and resume_from != "latest" and is_other:
            raise CheckpointError(
                f"{self.checkpoints_dir} already holds {present[-1].name}. Go on from it with "
                "--resume_from_checkpoint latest, or choose another --output_dir."
            )

    def _loop(self, signals: StopSignals) -> None:
        total = math.ceil(self.total_kimg * 1000)
        bar = tqdm(
            total=total,
            initial=min(self.images_seen, total),
            unit_scale=1e-3,  # whole images inside: sums of fractions would end above the total
            disable=not (self.show_progress and self.processes.is_main),
            bar_format="{l_bar}{bar}| {n:.2f}/{total:g} kimg [{elapsed}<{remaining}{postfix}]",
            smoothing=0.05,
        )
        started = self.images_seen
        self._lap_start, self._lap_images = time.perf_counter(), started
        if started == 0:
            self._write_sheet()
        stop = False
        if started >= total and not self.progress.score_due:
            self._say(f"Nothing to train: {started / 1000:.2f} kimg are shown, and total_kimg is {self.total_kimg:g}.")
        if self.progress.score_due:
            self._evaluate(signals)
            stop = self.progress.score_due
            if not stop:
                self.save()
        while not stop and self.images_seen < total:
            before, phases = self.images_seen, self._timed
            self._tell_length(total - before)
            self._train_step(self.stream.at(before))
            if self._timed != phases:
                self._say(describe_use(self.processes.device))
            bar.update(min(self.stream.batch_size, total - before))
            stop, ended = self._stop_requested(signals), self.images_seen >= total
            if stop or ended or self._crossed(before, self.run.log_every_kimg):
                bar.set_postfix_str(f"{self._log_statistics():.1f} s/kimg")
            if stop or ended or self._crossed(before, self.run.sample_every_kimg):
                self._write_sheet()
            self.progress.score_due = self._has_scores and (ended or self._crossed(before, self.score.eval_every_kimg))
            # A process that is told to stop has no time for a score.
            if self.progress.score_due and not stop:
                self._evaluate(signals)
                stop = self._stop_requested(signals)
            if stop or ended or self._crossed(before, self.run.checkpoint_every_kimg):
                self.save()
        bar.close()
        if self.images_seen < total or self.progress.score_due:
            unscored = ", not yet scored" if self.progress.score_due else ""
            self._say(
                f"Stopped at {self.images_seen / 1000:.2f} kimg{unscored}, with a checkpoint in "
                f"{self.checkpoints_dir}; resume with --resume_from_checkpoint latest."
            )
            raise SystemExit(128 + (signals[0] if signals else signal.SIGTERM))

    @property
    def _has_scores(self) -> bool:
        return self.scorer is not None and self.score.eval_every_kimg > 0

    def _crossed(self, before: int, every_kimg: float) -> bool:
        return every_kimg > 0 and before // (every_kimg * 1000) != self.images_seen // (every_kimg * 1000)

    def _stop_requested(self, signals: list[int]) -> bool:
        """Return whether any process was told to stop; all processes agree, so that they leave together."""
        if self.processes.count > 1 and self.progress.step % STOP_CHECK_STEPS:
            return False
        return self.processes.any(bool(signals))

    # --- a step and its phases ---

    def _train_step(self, batch: Batch) -> None:
        for phase in self.task.phases:
            if phase.is_due(self.progress.step):
                (self._stopwatch or self._run_phase)(phase, batch)
        self.progress.step += 1
        self.progress.images_seen += self.stream.batch_size
        for average in self.task.ema:
            average.update(self.stream.batch_size, self.images_seen)
        self.task.after_step(self.progress.step, self.statistics)

    def _choose_how_phases_run(self) -> RunPhase:
        """Return `run_phase`, or what replays it."""
        if not self.run.cuda_graphs:
            return self.run_phase
        reason = why_not_captured(self.task, self.processes)
        if reason is not None:
            self._say(f"No CUDA graphs: {reason}.")
            return self.run_phase
        return PhaseGraphs(self.run_phase, self.processes.device)

    def _tell_length(self, images_left: int) -> None:
        """Say after a few steps how long all of their kind take, and again when others begin."""
        step, device = self.progress.step, self.processes.device
        phases = [p for p in self.task.phases if p.begins <= step and (p.ends is None or step < p.ends)]
        names = [phase.name for phase in phases]
        if names != self._timed:
            runs = 1 if device.type != "cuda" else 3 if self.run.cuda_graphs else 2
            self._timed, self._stopwatch = names, Stopwatch(self._run_phase, device, runs)
        elif self._stopwatch is not None:
            seconds = self._stopwatch.seconds_per_step(phases)
            if seconds is not None:
                self._stopwatch = None
                changes = [change - step for p in self.task.phases for change in (p.begins, p.ends or 0)]
                steps = min([images_left / self.stream.batch_size, *(change for change in changes if change > 0)])
                self._say(describe_length(steps * seconds, round(steps * self.stream.batch_size), device))

    def run_phase(self, phase: Phase, batch: Batch) -> None:
        """Compute a phase's gradients in micro-batches, and step its optimiser."""
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        scale = phase.interval / self.run.accumulation_steps
        parts = batch.split(self.run.accumulation_steps)
        if phase.prepare is not None:
            phase.prepare(parts)
        for part in parts:
            loss = phase.loss(part, self.statistics)
            self.statistics.report(f"loss/{phase.name}", loss)
            (loss * scale).backward()
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
        self._step_optimizer(phase)
        if phase.finish is not None:
            phase.finish()

    def _step_optimizer(self, phase: Phase) -> None:
        self.processes.average_gradients_(phase.parameters)
        gradients: list[Tensor] = [p.grad for p in phase.parameters if p.grad is not None]
        norm = nn.utils.get_total_norm(gradients)
        self.statistics.report(f"gradient_norm/{phase.name}", norm)
        self.statistics.report("non_finite_gradients", (~norm.isfinite()).to(torch.float32))
        for gradient in gradients:
            torch.nan_to_num_(gradient, nan=0.0, posinf=GRADIENT_LIMIT, neginf=-GRADIENT_LIMIT)
        phase.optimizer.step()
        phase.optimizer.zero_grad(set_to_none=True)

    # --- logs, scores and sheets ---

    def _start_trackers(self) -> None:
        logs, config = self.run.output_dir / "logs", None
        if self.run.report_to == "wandb":  # TensorBoard would show settings as one more run for each start
            config = flatten(self.settings)
            logs.mkdir(exist_ok=True)
        # TensorBoard drops what it has of more images: a run that resumes from a checkpoint trains those again.
        # A fresh run has nothing to be dropped, and TensorBoard's first step is this one.
        purge = {"purge_step": self.images_seen + 1} if self.images_seen else {}
        options = {"tensorboard": purge, "wandb": {"dir": str(logs), "name": self.run.output_dir.name}}
        self.accelerator.init_trackers("dfmgan", config=config, init_kwargs=options)

    def _log_statistics(self) -> float:
        """Log the means since the last call and warnings about them; return the seconds per kimg."""
        now = time.perf_counter()
        elapsed = now - self._lap_start
        seconds_per_kimg = elapsed / (self.images_seen - self._lap_images) * 1000
        self._lap_start, self._lap_images = now, self.images_seen
        self.progress.seconds += elapsed
        self.task.measure(self.statistics)
        diverged = self.statistics.non_finite("loss/")
        means = self.statistics.collect()
        means["seconds_per_kimg"] = seconds_per_kimg
        means.update(used_memory(self.processes.device))
        self._log_means(means)
        row = {"images_seen": self.images_seen, "step": self.progress.step, **means}
        self._rows.append(row)
        advice = examine(self.task.rules, self._rows)
        if self.processes.is_main:
            with self._monitoring():
                self.log.write({**row, "warnings": advice})
            for name in advice.keys() - self._warned:
                warnings.warn(f"At {self.images_seen / 1000:.2f} kimg: {advice[name]}", TrainingWarning, stacklevel=2)
        self._warned = set(advice)
        self._check_losses(diverged)
        return seconds_per_kimg

    def _log_means(self, means: dict[str, float]) -> None:
        """Give numbers to all trackers; those that are not finite are left out."""
        finite = {name: value for name, value in means.items() if math.isfinite(value)}
        self.accelerator.log(finite, step=self.images_seen)

    def _check_losses(self, bad: list[str]) -> None:
        if bad:
            raise NonFiniteLossError(self._diverged(f"the loss of {', '.join(bad)} is not finite"))

    def _diverged(self, what: str) -> str:
        present = list_checkpoints(self.checkpoints_dir)
        kept = f"The last good checkpoint, {present[-1]}, is kept" if present else "There is no checkpoint yet"
        stronger = ", or a larger --r1_gamma" if any(phase.name == "r1" for phase in self.task.phases) else ""
        return (
            f"At {self.images_seen / 1000:.2f} kimg {what}. {kept}. Resume with --resume_from_checkpoint latest and "
            f"--precision float32, or a smaller --lr{stronger}."
        )

    def _evaluate(self, signals: StopSignals) -> None:
        """Score the averaged generator, and keep it if none was better; a stop signal leaves the score due."""
        assert self.scorer is not None
        self._check_losses(self.statistics.non_finite("loss/"))
        start = time.perf_counter()
        devices = [self.processes.device] if self.processes.device.type == "cuda" else []
        try:
            # Several processes measure together: one cannot leave alone.
            with torch.random.fork_rng(devices=devices), signals.raised(self.processes.count == 1):
                score = self.scorer()
        except StopSignal:
            return
        self.progress.score_due = False
        numbers = {f"score/{name}": value for name, value in score.items() if isinstance(value, (int, float))}
        self._log_means(numbers)
        if self.processes.is_main:
            with self._monitoring():
                self.log.write({"images_seen": self.images_seen, "step": self.progress.step, **numbers})
                if self.best.offer(self.images_seen, score, self.task.export):
                    self._say(f"Best so far: {self.best.summary()}.")
        self.processes.wait()
        self._lap_start += time.perf_counter() - start  # not spent on training

    def _write_sheet(self) -> None:
        if self.processes.is_main:
            sheet = self.task.sample_sheet()
            log_sheet(self.accelerator, sheet, self.images_seen)
            with self._monitoring():
                save_sheet(sheet, self.sheets_dir / f"{self.images_seen:010d}.png")

    @contextmanager
    def _monitoring(self) -> Iterator[None]:
        """What only watches the run does not end it: a full disk is an error where checkpoints are written."""
        try:
            yield
        except (OSError, SafetensorError) as error:
            warnings.warn(
                f"At {self.images_seen / 1000:.2f} kimg something could not be written: {error}. Training continues; "
                f"make room in {self.run.output_dir}.",
                TrainingWarning,
                stacklevel=4,
            )

    def _say(self, message: str) -> None:
        if self.processes.is_main:
            tqdm.write(message)

    # --- checkpoints ---

    def save(self) -> None:
        """Write a checkpoint of all processes.

        Raises:
            NonFiniteLossError: a loss or a tensor is not finite; nothing is written.
            CheckpointError: it cannot be written.
        """
        self._check_losses(self.statistics.non_finite("loss/"))
        if not all_finite(self.task):
            raise NonFiniteLossError(self._diverged("a weight or an optimiser's state is not finite"))
        groups = collect_tensors(self.task, self.processes)
        if self.processes.is_main:
            state = {
                "step": self.progress.step,
                "seconds": self.progress.seconds,
                "score_due": self.progress.score_due,
                "num_processes": self.processes.count,
                "settings": self.settings,
                "best": self.best.state_dict(),
            }
            keep = self.run.checkpoints_total_limit
            write_checkpoint(self.checkpoints_dir, self.images_seen, groups, state, keep)
        self.processes.wait()

    def restore(self, which: str) -> None:
        """Resume from a checkpoint: "latest" or its path. Settings that have changed since are named in a warning.

        Raises:
            CheckpointError: there is none, it is damaged, or it belongs to other networks or another method.
        """
        path, groups, state = find_checkpoint(self.checkpoints_dir, which)
        changes = "; ".join(changed_settings(state["settings"], self.settings))
        try:
            restore_tensors(self.task, groups)
        except (KeyError, RuntimeError, ValueError) as error:
            differing = f" Settings that differ: {changes}." if changes else ""
            raise CheckpointError(
                f"Checkpoint {path} does not fit this run; use the settings that it was trained with.{differing} "
                f"{error}"
            ) from error
        restore_random_state(groups, state, self.processes)
        due = state["score_due"] and self._has_scores
        self.progress = Progress(state["step"], state["images_seen"], state["seconds"], due)
        if self.processes.is_main:
            self.best.load_state_dict(state["best"])
            if changes:
                warnings.warn(
                    f"The run resumes from {path} with other settings than it was trained with: {changes}.",
                    stacklevel=2,
                )
        self._say(f"Resuming from {path}, after {self.images_seen / 1000:.2f} kimg.")


# --- signals, memory, trackers ---


class StopSignal(BaseException):
    """A stop signal has come where `StopSignals.raised` says that it may end what is running."""


class StopSignals(list[int]):
    """Numbers of the stop signals that have come."""

    _are_raised = False

    @contextmanager
    def raised(self, wanted: bool = True) -> Iterator[None]:
        """Inside, if `wanted`, a signal that has come or comes is raised as `StopSignal`."""
        self._are_raised = wanted
        try:
            self.check()
            yield
        finally:
            self._are_raised = False

    def check(self) -> None:
        if self and self._are_raised:
            raise StopSignal


SAME_REQUEST_SECONDS = 5.0


@contextmanager
def stop_signals() -> Iterator[StopSignals]:
    """Collect SIGINT or SIGTERM, which schedulers send before they end a job, so that a run can save before it leaves.

    One that comes `SAME_REQUEST_SECONDS` later is passed on to whoever handled it before: it stops at once. Sooner,
    it is the same request: a scheduler sends it to the whole group, and the launcher passes it on once more. Outside
    the main thread signals cannot be handled, and the list stays empty.
    """
    received = StopSignals()
    previous: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in previous.items():
            signal.signal(number, handler)
        previous.clear()

    asked_at = 0.0

    def remember(number: int, _frame: Any) -> None:
        nonlocal asked_at
        if not received:
            asked_at = time.monotonic()
            received.append(number)
            received.check()
        elif time.monotonic() - asked_at >= SAME_REQUEST_SECONDS:
            restore()
            signal.raise_signal(number)

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            previous[number] = signal.signal(number, remember)
    except ValueError:  # not the main thread
        previous.clear()
    try:
        yield received
    finally:
        restore()


def used_memory(device: torch.device) -> dict[str, float]:
    """Return the GiB that this process has used: its memory now, and on CUDA the most that tensors have taken."""
    used = {"resident_memory_gib": psutil.Process().memory_info().rss / GIB}
    if device.type == "cuda":
        used["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return used


def describe_use(device: torch.device) -> str:
    """Say in a line what the steps so far have taken."""
    used = used_memory(device)
    if device.type != "cuda":
        return f"Memory so far: {used['resident_memory_gib']:.1f} GiB."
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    return f"Memory so far: {used['peak_memory_gib']:.1f} GiB of the GPU's {total:.1f}; ADA can add to it."


def describe_length(seconds: float, images: int, device: torch.device) -> str:
    """Say in a line or two how long the next images will take, and what is shorter if that is days."""
    units = {"minutes": 60, "hours": 3600, "days": 86400}
    unit = next((name for name in reversed(units) if seconds >= 2 * units[name]), "minutes")
    long = f"about {seconds / units[unit]:.0f} {unit}" if seconds >= 120 else "less than 2 minutes"
    text = f"The next {images / 1000:g} kimg take {long}, besides scores."
    if unit == "days":
        no_gpu = "no GPU was found; " if device.type == "cpu" else ""
        text += f" If that is too long: {no_gpu}--preset quick (64x64, from stage 1 on) takes less than an hour."
    return text


def log_sheet(accelerator: Accelerator, sheet: Image.Image, images_seen: int) -> None:
    """Give a sample sheet to all trackers that show pictures."""
    pixels = np.asarray(sheet.convert("RGB"))
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_images"):
            options = {"dataformats": "NHWC"} if tracker.name == "tensorboard" else {}
            tracker.log_images({"samples": pixels[None]}, step=images_seen, **options)
