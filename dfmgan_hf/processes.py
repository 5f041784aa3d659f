"""What the processes of one accelerate launch do together; with a single process nothing happens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")


class ProcessGroup:
    """Share work, gradients and decisions among the processes of a launch. Every process must make the same calls.

    Networks stay unwrapped: their gradients are averaged as one flat tensor for each optimiser step, so that second
    derivatives and conditionally unused parameters need no special care.

    Args:
        accelerator: knows the processes and this one's device; None for a single process on the CPU.

    Example:
        >>> ProcessGroup().mine([0, 1, 2])
        [0, 1, 2]
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator
        self.count = 1 if accelerator is None else accelerator.num_processes
        self.rank = 0 if accelerator is None else accelerator.process_index
        self.is_main = self.rank == 0
        self.device = torch.device("cpu") if accelerator is None else accelerator.device

    def mine(self, pieces: Sequence[T]) -> Sequence[T]:
        """Return this process's share of numbered work: piece k is done by process k mod count."""
        return pieces[self.rank :: self.count]

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum over the processes, on `tensor`'s device."""
        return self._reduce(tensor, "sum")

    def mean(self, tensor: Tensor) -> Tensor:
        """Return the mean over the processes, on `tensor`'s device."""
        return self._reduce(tensor, "mean")

    def _reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        if self.accelerator is None or self.count == 1:
            return tensor
        reduced = self.accelerator.reduce(tensor.to(self.device), reduction=reduction)
        return reduced.to(tensor.device)  # type: ignore[union-attr]

    def any(self, flag: bool) -> bool:
        """Return whether `flag` is true in any process. Waits for the device."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(float(flag))).item())

    def gather(self, value: T) -> list[T]:
        """Return every process's value, by rank."""
        if self.count == 1:
            return [value]
        from accelerate.utils import gather_object

        return gather_object([value])

    def wait(self) -> None:
        """Wait for all processes."""
        if self.accelerator is not None:
            self.accelerator.wait_for_everyone()

    def average_gradients_(self, parameters: Sequence[nn.Parameter]) -> None:
        """Put the mean gradient over the processes into every parameter's `grad`, with one reduction for all of them.

        A gradient that is None in some processes counts as zero there, so that every process sends the same numbers;
        one that is None in all of them stays None.
        """
        if self.count == 1:
            return
        zeros = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        used = torch.tensor([float(p.grad is not None) for p in parameters], device=zeros[0].device)
        flat = self.mean(torch.cat([used.to(zeros[0].dtype), *(g.reshape(-1) for g in zeros)]))
        used, *means = flat.split([len(parameters), *(p.numel() for p in parameters)])
        for parameter, gradient, mean, is_used in zip(parameters, zeros, means, used.tolist(), strict=True):
            parameter.grad = gradient.copy_(mean.view_as(gradient)) if is_used else None

    @torch.no_grad()
    def broadcast_(self, networks: Iterable[nn.Module]) -> None:
        """Give every process the main one's parameters and buffers."""
        if self.count == 1:
            return
        for network in networks:
            for tensor in [*network.parameters(), *network.buffers()]:
                # Gloo and NCCL refuse tensors that are not contiguous, as convolutions in channels_last are.
                received = tensor.detach().contiguous()
                torch.distributed.broadcast(received, src=0)
                tensor.copy_(received)
