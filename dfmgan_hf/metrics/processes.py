"""Shares the measuring among the processes of an accelerate launch so that the numbers do not depend on how many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class Processes:
    """Which part of numbered work is this process's, and how the parts come together.

    Work is cut into pieces in the same way for any number of processes, piece k is done by process k mod count, and
    results are put into their places in a tensor of zeros that is summed over the processes. Zeros change no number,
    so the sum is bitwise what one process computes with as many threads (networks round differently with more).

    Args:
        accelerator: of an `accelerate launch`; None for a single process on the CPU.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator

    @property
    def count(self) -> int:
        """Number of processes."""
        return 1 if self.accelerator is None else self.accelerator.num_processes

    @property
    def rank(self) -> int:
        """Number of this process, from 0."""
        return 0 if self.accelerator is None else self.accelerator.process_index

    @property
    def is_main(self) -> bool:
        """Whether this process reports and writes files."""
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        """Where this process's networks run."""
        return torch.device("cpu") if self.accelerator is None else self.accelerator.device

    def mine(self, pieces: Sequence[T]) -> Sequence[T]:
        """The pieces that this process does."""
        return pieces[self.rank :: self.count]

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over all processes, on the CPU; every process must call it, with the same shape."""
        if self.accelerator is None or self.count == 1:
            return tensor.cpu()
        return self.accelerator.reduce(tensor.to(self.device), reduction="sum").cpu()


def batches(count: int, size: int) -> list[range]:
    """Cuts 0..count-1 into consecutive ranges of `size`, the last one shorter."""
    return [range(start, min(start + size, count)) for start in range(0, count, size)]
