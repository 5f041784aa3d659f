"""The only training loop. It knows phases, averages and checkpoints, and nothing of any method."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn
from tqdm.auto import tqdm

from .batches import Batch, BatchStream
from .checkpointing import (
    CheckpointError,
    find_checkpoint,
    flatten_optimizer,
    random_state,
    restore_optimizer,
    restore_random_state,
    write_checkpoint,
)
from .monitoring import MetricsLog, RunningStatistics
from .phase import Phase
from .task import Task

GRADIENT_LIMIT = 1e5


class NonFiniteLossError(RuntimeError):
    """Training has diverged; the last good checkpoint is kept."""


@dataclass(frozen=True)
class Schedule:
    """How long to train and what to write when. Lengths count real images shown, in thousands (kimg).

    Args:
        total_kimg: length of the run.
        batch_size: images a step, over all processes.
        accumulation_steps: micro-batches that a process splits its part into.
        log_every_kimg: statistics to the log and the tracker.
        sample_every_kimg: sample sheets; 0 for none but the last.
        checkpoint_every_kimg: checkpoints; 0 for none but the last.
        checkpoints_total_limit: how many checkpoints stay; None for all.
    """

    total_kimg: float
    batch_size: int
    accumulation_steps: int = 1
    log_every_kimg: float = 1.0
    sample_every_kimg: float = 10.0
    checkpoint_every_kimg: float = 20.0
    checkpoints_total_limit: int | None = 2


class Trainer:
    """Runs a task: phases, gradient averaging over processes, moving averages, logs, sheets and checkpoints.

    The networks stay unwrapped; gradients are averaged as one flat tensor for each optimiser step, so that second
    derivatives and conditionally unused parameters need no special care.

    Args:
        task: what is trained.
        stream: real images.
        schedule: lengths and intervals.
        accelerator: device and processes.
        output_dir: checkpoints/, samples/ and metrics.jsonl are written here.
        show_progress: draw a progress bar on the main process.
    """

    def __init__(
        self,
        task: Task,
        stream: BatchStream,
        schedule: Schedule,
        accelerator: Accelerator,
        output_dir: Path,
        *,
        show_progress: bool = True,
    ) -> None:
        per_process = schedule.batch_size // accelerator.num_processes
        if schedule.batch_size % accelerator.num_processes or per_process % schedule.accumulation_steps:
            raise ValueError(
                f"`batch_size` {schedule.batch_size} cannot be shared among {accelerator.num_processes} processes "
                f"with {schedule.accumulation_steps} accumulation steps each; choose a multiple of their product."
            )
        self.task = task
        self.stream = stream
        self.schedule = schedule
        self.accelerator = accelerator
        self.output_dir = output_dir
        self.show_progress = show_progress
        self.step = 0
        self.images_seen = 0
        self.seconds = 0.0
        self.statistics = RunningStatistics(self._sum_over_processes if accelerator.num_processes > 1 else None)
        self.log = MetricsLog(output_dir / "metrics.jsonl")
        self._stop_signal: int | None = None

    @property
    def checkpoints_dir(self) -> Path:
        return self.output_dir / "checkpoints"

    def train(self, resume_from: str | None = None) -> None:
        """Train to the end of the schedule.

        Args:
            resume_from: "latest" or a checkpoint's path; None to start afresh.

        Raises:
            NonFiniteLossError: a loss is NaN or infinite.
            CheckpointError: nothing to resume from.
            KeyboardInterrupt, SystemExit: on SIGINT or SIGTERM, after a checkpoint has been written.
        """
        if resume_from is not None:
            self.restore(resume_from)
        else:
            self._broadcast_networks()
        self.output_dir.mkdir(parents=True, exist_ok=True)
        if self.accelerator.is_main_process:
            self.log.rewind(self.images_seen)
        previous = self._install_signal_handlers()
        try:
            self._loop()
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def _loop(self) -> None:
        total = math.ceil(self.schedule.total_kimg * 1000)
        bar = tqdm(
            total=total,
            initial=self.images_seen,
            unit_scale=True,
            disable=not (self.show_progress and self.accelerator.is_main_process),
            bar_format="{l_bar}{bar}| {n_fmt}/{total_fmt} images [{elapsed}<{remaining}{postfix}]",
            smoothing=0.05,
        )
        batches = self.stream.iterate(self.images_seen)
        interval_start, interval_images = time.perf_counter(), self.images_seen
        if self.images_seen == 0:
            self._write_sheet()
        while self.images_seen < total:
            before = self.images_seen
            self._train_step(next(batches))
            bar.update(min(self.schedule.batch_size, total - before))
            done = self.images_seen >= total or self._stop_requested()
            if done or self._crossed(before, self.schedule.log_every_kimg):
                now = time.perf_counter()
                elapsed, images = now - interval_start, self.images_seen - interval_images
                self.seconds += elapsed
                interval_start, interval_images = now, self.images_seen
                self._log_statistics(bar, elapsed / images * 1000)
            if done or self._crossed(before, self.schedule.sample_every_kimg):
                self._write_sheet()
            if done or self._crossed(before, self.schedule.checkpoint_every_kimg):
                self.save()
            if done and self.images_seen < total:
                bar.close()
                self._leave()
        bar.close()

    def _crossed(self, before: int, every_kimg: float) -> bool:
        return every_kimg > 0 and before // (every_kimg * 1000) != self.images_seen // (every_kimg * 1000)

    def _train_step(self, batch: Batch) -> None:
        for phase in self.task.phases:
            if phase.is_due(self.step):
                self._run_phase(phase, batch)
        self.step += 1
        self.images_seen += self.schedule.batch_size
        for average in self.task.ema:
            average.update(self.schedule.batch_size, self.images_seen)
        self.task.after_step(self.step, self.statistics)

    def _run_phase(self, phase: Phase, batch: Batch) -> None:
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        scale = phase.interval / self.schedule.accumulation_steps
        for part in batch.split(self.schedule.accumulation_steps):
            loss = phase.loss(part, self.statistics)
            self.statistics.report(f"loss/{phase.name}", loss)
            (loss * scale).backward()
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
        self._step_optimizer(phase)
        if phase.finish is not None:
            phase.finish()

    def _step_optimizer(self, phase: Phase) -> None:
        gradients = [p.grad for p in phase.parameters if p.grad is not None]
        if self.accelerator.num_processes > 1:
            self._average_over_processes(gradients)
        norm = torch.stack(torch._foreach_norm(gradients)).norm()
        self.statistics.report(f"gradient_norm/{phase.name}", norm)
        self.statistics.report("non_finite_gradients", (~norm.isfinite()).to(torch.float32))
        for gradient in gradients:
            torch.nan_to_num_(gradient, nan=0.0, posinf=GRADIENT_LIMIT, neginf=-GRADIENT_LIMIT)
        phase.optimizer.step()
        phase.optimizer.zero_grad(set_to_none=True)

    # --- processes ---

    def _average_over_processes(self, gradients: list[Tensor]) -> None:
        """One reduction for all gradients of a step, in place."""
        flat = self.accelerator.reduce(torch.cat([g.reshape(-1) for g in gradients]), reduction="mean")
        parts = flat.split([g.numel() for g in gradients])  # type: ignore[union-attr]
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

    def _sum_over_processes(self, tensor: Tensor) -> Tensor:
        return self.accelerator.reduce(tensor.to(self.accelerator.device), reduction="sum").cpu()  # type: ignore[union-attr]

    @torch.no_grad()
    def _broadcast_networks(self) -> None:
        """Give every process the main one's parameters and buffers."""
        if self.accelerator.num_processes == 1:
            return
        for network in self.task.networks.values():
            for tensor in [*network.parameters(), *network.buffers()]:
                torch.distributed.broadcast(tensor.data, src=0)

    # --- logs and sheets ---

    def _log_statistics(self, bar: Any, seconds_per_kimg: float) -> None:
        means = self.statistics.collect()
        means["seconds_per_kimg"] = seconds_per_kimg
        if self.accelerator.device.type == "cuda":
            means["peak_memory_gib"] = torch.cuda.max_memory_allocated(self.accelerator.device) / 2**30
        bar.set_postfix_str(f"{seconds_per_kimg:.1f} s/kimg")
        self.accelerator.log(means, step=self.images_seen)
        if self.accelerator.is_main_process:
            self.log.write({"images_seen": self.images_seen, "step": self.step, **means})
        bad = [name for name, value in means.items() if name.startswith("loss/") and not math.isfinite(value)]
        if bad:
            raise NonFiniteLossError(
                f"At {self.images_seen / 1000:.2f} kimg {', '.join(bad)} is not finite. The last good checkpoint in "
                f"{self.checkpoints_dir} is kept; go on from it with a smaller learning rate or in float32."
            )

    def _write_sheet(self) -> None:
        if not self.accelerator.is_main_process:
            return
        sheet = self.task.sample_sheet()
        folder = self.output_dir / "samples"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.images_seen:010d}.png"
        partial = path.with_suffix(".partial")
        sheet.save(partial, format="PNG")
        partial.replace(path)
        for tracker in self.accelerator.trackers:
            if hasattr(tracker, "log_images"):
                pixels = torch.frombuffer(bytearray(sheet.convert("RGB").tobytes()), dtype=torch.uint8)
                tracker.log_images(
                    {"samples": pixels.reshape(1, sheet.height, sheet.width, 3).numpy()},
                    step=self.images_seen,
                    dataformats="NHWC",
                )

    # --- checkpoints ---

    def save(self) -> None:
        """Write a checkpoint of all processes."""
        states = gather_object([random_state()]) if self.accelerator.num_processes > 1 else [random_state()]
        if self.accelerator.is_main_process:
            groups: dict[str, dict[str, Tensor]] = {
                f"network_{name}": network.state_dict() for name, network in self.task.networks.items()
            }
            for name, optimizer in self.task.optimizers.items():
                groups[f"optimizer_{name}"] = flatten_optimizer(optimizer)
            groups["task"] = self.task.state_dict()
            for rank, state in enumerate(states):
                groups[f"random_{rank}"] = state
            state = {"step": self.step, "seconds": self.seconds, "num_processes": self.accelerator.num_processes}
            write_checkpoint(
                self.checkpoints_dir, self.images_seen, groups, state, self.schedule.checkpoints_total_limit
            )
        self.accelerator.wait_for_everyone()

    def restore(self, which: str) -> None:
        """Go on from a checkpoint: "latest" or its path.

        Raises:
            CheckpointError: there is none, it is damaged, or its tensors do not fit this run's networks.
        """
        path, groups, state = find_checkpoint(self.checkpoints_dir, which)
        try:
            for name, network in self.task.networks.items():
                network.load_state_dict(groups[f"network_{name}"], strict=True)
            for name, optimizer in self.task.optimizers.items():
                restore_optimizer(optimizer, groups[f"optimizer_{name}"])
            self.task.load_state_dict(groups["task"])
        except (KeyError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"Checkpoint {path} does not fit this run; use the settings that it was trained with. {error}"
            ) from error
        self.step, self.images_seen, self.seconds = state["step"], state["images_seen"], state["seconds"]
        rank = self.accelerator.process_index
        if f"random_{rank}" in groups and state["num_processes"] == self.accelerator.num_processes:
            restore_random_state(groups[f"random_{rank}"])
        else:
            # Another number of processes cannot repeat the old run; let it at least not repeat itself.
            torch.manual_seed(state["images_seen"] * 1009 + rank)

    # --- signals ---

    def _install_signal_handlers(self) -> dict[int, Callable[[int, FrameType | None], Any] | int | None]:
        def remember(number: int, _frame: FrameType | None) -> None:
            self._stop_signal = number

        try:
            return {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread: the caller handles signals
            return {}

    def _stop_requested(self) -> bool:
        """Whether any process was told to stop; all processes agree, so that they leave together."""
        told = self._stop_signal is not None
        if self.accelerator.num_processes == 1:
            return told
        return bool(self._sum_over_processes(torch.tensor([float(told)])).item())

    def _leave(self) -> None:
        message = (
            f"Stopped at {self.images_seen / 1000:.2f} kimg with a checkpoint in {self.checkpoints_dir}; "
            "go on with --resume_from_checkpoint latest."
        )
        if self.accelerator.is_main_process:
            tqdm.write(message)
        if self._stop_signal == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        raise KeyboardInterrupt(message)


def count_parameters(networks: dict[str, nn.Module]) -> dict[str, int]:
    """Number of parameters of each network."""
    return {name: sum(p.numel() for p in network.parameters()) for name, network in networks.items()}
