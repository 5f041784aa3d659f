"""What a run will need of memory, said before it starts, and what helps when it is too much."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psutil
import torch
from torch import Tensor

from .batches import Batch
from .monitoring import RunningStatistics
from .task import Task

GIB = 2**30
BACKWARD_BUFFERS = 2
"""Tensors as large as the largest activation that the backward pass holds at a time: the gradient that comes in and
the one that goes out."""


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a training step needs at its peak.

    Args:
        fixed: weights, averages, their gradients and the optimisers' state.
        activations: what the most demanding phase keeps for one micro-batch.
        phase: which phase that is.
        images: size of the micro-batch.
    """

    fixed: int
    activations: int
    phase: str
    images: int

    @property
    def total(self) -> int:
        return self.fixed + self.activations

    def describe(self) -> str:
        """One line for people."""
        return (
            f"about {self.total / GIB:.1f} GiB: {self.fixed / GIB:.1f} for weights, averages, gradients and "
            f"optimisers, {self.activations / GIB:.1f} for {self.images} images at a time ({self.phase})"
        )


def estimate_memory(task: Task, images: int, image_shape: tuple[int, int, int], with_masks: bool) -> MemoryNeed:
    """Run every phase's loss on the meta device, where tensors have shapes but no memory, and count what it keeps.

    What the device's libraries take for themselves (CUDA's context, workspaces of convolutions, fragmentation) is not
    counted; keep about a fifth and half a GiB free for it.

    Args:
        task: with its networks on the meta device.
        images: micro-batch of a process.
        image_shape: (C, R, R).
        with_masks: whether the training set has masks.
    """
    channels, height, width = image_shape
    meta = torch.device("meta")
    real = torch.zeros(images, channels, height, width, device=meta)
    masks = torch.zeros(images, 1, height, width, device=meta) if with_masks else None
    networks = [t for network in task.networks.values() for t in network.state_dict().values()]
    trained = {id(p): p for phase in task.phases for p in phase.parameters}
    # Adam keeps two tensors for each parameter; gradients live for one phase at a time.
    gradients = max(_bytes(phase.parameters) for phase in task.phases)
    fixed = _bytes(networks) + 2 * _bytes(trained.values()) + gradients

    worst, worst_phase = 0, ""
    with torch.random.fork_rng(devices=[]):
        # How far augmented images must be padded is drawn, too: up to a tenth of the estimate.
        torch.manual_seed(0)
        for phase in task.phases:
            for parameter in phase.parameters:
                parameter.requires_grad_(True)
            kept = KeptForBackward(networks)
            batch = Batch(real, masks)
            if phase.prepare is not None:
                phase.prepare([batch])
            with torch.autograd.graph.saved_tensors_hooks(kept.pack, kept.unpack):
                loss = phase.loss(batch, RunningStatistics())
            need = kept.peak + BACKWARD_BUFFERS * kept.largest
            del loss
            for parameter in phase.parameters:
                parameter.requires_grad_(False)
            if need > worst:
                worst, worst_phase = need, phase.name
    return MemoryNeed(fixed, worst, worst_phase, images)


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(t.numel() * t.element_size() for t in tensors)


class KeptForBackward:
    """Hooks for autograd that count the bytes it keeps, each storage once, until it lets them go.

    Args:
        not_counted: tensors that exist anyway.

    Attributes:
        peak: most bytes at a time.
        largest: bytes of the largest storage.
    """

    def __init__(self, not_counted: Iterable[Tensor]) -> None:
        self.peak = 0
        self.largest = 0
        self._current = 0
        self._references: dict[int, int] = {_storage(t): 1 for t in not_counted}

    def pack(self, tensor: Tensor) -> _Kept:
        return _Kept(self, tensor)

    @staticmethod
    def unpack(kept: _Kept) -> Tensor:
        return kept.tensor

    def take(self, tensor: Tensor) -> None:
        storage = _storage(tensor)
        self._references[storage] = self._references.get(storage, 0) + 1
        if self._references[storage] == 1:
            self._current += tensor.untyped_storage().nbytes()
            self.peak = max(self.peak, self._current)
            self.largest = max(self.largest, tensor.untyped_storage().nbytes())

    def release(self, tensor: Tensor) -> None:
        storage = _storage(tensor)
        self._references[storage] -= 1
        if self._references[storage] == 0:
            self._current -= tensor.untyped_storage().nbytes()
            del self._references[storage]


class _Kept:
    def __init__(self, owner: KeptForBackward, tensor: Tensor) -> None:
        self.owner, self.tensor = owner, tensor
        owner.take(tensor)

    def __del__(self) -> None:
        self.owner.release(self.tensor)


def _storage(tensor: Tensor) -> int:
    # On the meta device every data pointer is 0; this is the storage's own address.
    return tensor.untyped_storage()._cdata


def advice(images: int, precision: str) -> str:
    """What makes a run need less memory.

    Args:
        images: micro-batch of a process.
        precision: of the run.
    """
    options = []
    if images > 4:
        options.append(f"--low_vram (4 instead of {images} images at a time, half precision)")
        options.append("a larger --accumulation_steps")
    if precision == "float32":
        options.append("--precision float16")
    options += ["a smaller --resolution, --channel_base or --preset", "more GPUs"]
    return "What helps, in this order: " + "; ".join(options) + "."


def out_of_memory(error: torch.OutOfMemoryError, images: int, precision: str) -> torch.OutOfMemoryError:
    """The same error with advice."""
    return torch.OutOfMemoryError(
        f"{error}\n{advice(images, precision)} Checkpoints that were written are kept: "
        "--resume_from_checkpoint latest goes on from the last one, if the networks stay the same."
    )


def free_memory(device: torch.device) -> int | None:
    """Free bytes of a CUDA device; None elsewhere, where memory is shared with the system."""
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else None


def used_memory(device: torch.device) -> dict[str, float]:
    """GiB that this process has used: its memory now, and on CUDA the most that tensors have taken of the device."""
    used = {"resident_memory_gib": psutil.Process().memory_info().rss / GIB}
    if device.type == "cuda":
        used["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return used


def forecast(need: MemoryNeed, free: int | None, precision: str) -> tuple[str, bool]:
    """What to say before a run starts, and whether it looks too large for the device."""
    text = f"The run needs {need.describe()}."
    if free is None:
        return text, False
    text = f"{text} {free / GIB:.1f} GiB are free."
    if need.total * 1.2 + GIB / 2 <= free:
        return text, False
    return f"{text} That may not be enough. {advice(need.images, precision)}", True
