"""Training phases as CUDA graphs: thousands of small kernels a phase, which a GPU does faster than Python asks."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from ..cuda_graphs import CaptureError, capture
from .task import Batch, Phase, TrainingWarning

if TYPE_CHECKING:
    from ..processes import ProcessGroup
    from .task import Task

RunPhase = Callable[[Phase, Batch], None]


def why_not_captured(task: Task, processes: ProcessGroup) -> str | None:
    """Return why phases of a run cannot be captured, or None if they can."""
    if processes.device.type != "cuda":
        return f"they need a CUDA device, and this one is {processes.device.type}"
    if processes.count > 1:
        return f"they are for one process, and there are {processes.count}"
    if not task.is_captured:
        return "this method decides anew in each step what a phase does"
    return None


class PhaseGraphs:
    """Run phases: the first time as they are, the second time captured, and from then on replayed.

    A graph holds a whole phase with its micro-batches, gradients, optimiser step and what follows from it. The first
    run makes what must be there before: the optimiser's state, statistics, constants. All graphs share their memory,
    because nothing that a phase leaves there is read after it. If a capture fails, all phases run as they are, and a
    warning says so.

    Args:
        run_phase: does a phase on a batch.
        device: a CUDA device.
    """

    def __init__(self, run_phase: RunPhase, device: torch.device) -> None:
        self.run_phase = run_phase
        self.captured: dict[str, Any] = {}
        self._known: set[str] = set()
        self._failed = False
        self._stream: Any = torch.cuda.Stream(device)
        self._pool: Any = torch.cuda.graph_pool_handle()
        self._given: Batch | None = None
        self._batch: Batch | None = None

    def __call__(self, phase: Phase, batch: Batch) -> None:
        """Run a phase. Batches are all of one size."""
        if self._failed:
            self.run_phase(phase, batch)
            return
        own = self._take(batch)
        if phase.name in self.captured:
            self.captured[phase.name].replay()
        elif phase.name not in self._known:
            self._known.add(phase.name)
            self._run_on_the_side(phase, own)
        elif self._capture(phase, own):
            self.captured[phase.name].replay()
        else:
            self.run_phase(phase, own)

    def _take(self, batch: Batch) -> Batch:
        """Return the batch that graphs read, with the values of `batch`."""
        if self._batch is None:
            self._batch = Batch(*(None if t is None else t.clone() for t in batch.tensors))  # type: ignore[arg-type]
        elif batch is not self._given:
            for own, new in zip(self._batch.tensors, batch.tensors, strict=True):
                if own is not None and new is not None:
                    own.copy_(new)
        self._given = batch
        return self._batch

    def _run_on_the_side(self, phase: Phase, batch: Batch) -> None:
        """Run a phase where it will be captured: what autograd and libraries set up belongs to a stream."""
        current = torch.cuda.current_stream(self._stream.device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            self.run_phase(phase, batch)
        current.wait_stream(self._stream)

    def _capture(self, phase: Phase, batch: Batch) -> bool:
        groups = phase.optimizer.param_groups
        try:
            for group in groups:
                # Fused Adam always is, but wants to be told; outside of a capture it would warn of it.
                group["capturable"] = True
            self.captured[phase.name] = capture(lambda: self.run_phase(phase, batch), self._stream, self._pool)
        except CaptureError as error:
            self._failed = True
            self.captured.clear()
            for parameter in phase.parameters:
                parameter.requires_grad_(False)
                parameter.grad = None
            torch.cuda.empty_cache()
            warnings.warn(
                f"The phase {phase.name} cannot be captured in a CUDA graph ({error}). Training goes on as without "
                "--cuda_graphs.",
                TrainingWarning,
                stacklevel=4,
            )
            return False
        finally:
            for group in groups:
                group["capturable"] = False
        return True
