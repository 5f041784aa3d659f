"""What the processes of one run do together; with a single process nothing happens."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch import Tensor, nn

T = TypeVar("T")


class ProcessGroup:
    """Reductions over the processes of an accelerate launch. Every process must make the same calls.

    Networks stay unwrapped: their gradients are averaged as one flat tensor for each optimiser step, so that second
    derivatives and conditionally unused parameters need no special care.

    Args:
        accelerator: knows the processes and this one's device.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.count = accelerator.num_processes
        self.rank = accelerator.process_index
        self.is_main = accelerator.is_main_process
        self.device = accelerator.device

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum over the processes, on `tensor`'s device."""
        return self._reduce(tensor, "sum")

    def mean(self, tensor: Tensor) -> Tensor:
        """Mean over the processes, on `tensor`'s device."""
        return self._reduce(tensor, "mean")

    def _reduce(self, tensor: Tensor, reduction: str) -> Tensor:
        if self.count == 1:
            return tensor
        return self.accelerator.reduce(tensor.to(self.device), reduction=reduction).to(tensor.device)  # type: ignore[union-attr]

    def any(self, flag: bool) -> bool:
        """Whether `flag` is true in any process. Waits for the device."""
        return flag if self.count == 1 else bool(self.sum(torch.tensor(float(flag))).item())

    def gather(self, value: T) -> list[T]:
        """Every process's value, by rank."""
        return [value] if self.count == 1 else gather_object([value])

    def wait(self) -> None:
        """Wait for all processes."""
        self.accelerator.wait_for_everyone()

    def average_gradients_(self, gradients: list[Tensor]) -> None:
        """Put the mean over the processes into `gradients`, with one reduction for all of them."""
        if self.count == 1:
            return
        parts = self.mean(torch.cat([g.reshape(-1) for g in gradients])).split([g.numel() for g in gradients])
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view_as(gradient))

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
