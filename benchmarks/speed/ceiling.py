"""The time that the convolutions of a computation need by themselves.

The computation is run once and its convolutions written down, forward and backward ones apart. The ceiling is the time
of as many plain `conv2d` calls of the same shapes, or of their derivatives, each in the memory layout in which it is
fastest. Depthwise filters do not count. A transposed convolution counts as the plain one with the same
multiplications, and so does whatever automatic differentiation makes of a convolution at the second derivative.
"""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.speed.timing import seconds_of

Kind = Literal["forward", "input_gradient", "weight_gradient"]


@dataclass(frozen=True)
class Conv:
    """One plain convolution, (n, c_in, h_in, w_in) -> (n, c_out, h_out, w_out), or one of its derivatives.

    Args:
        kind: which of the three products it is.
        n, c_in, c_out, kernel, stride, padding: as in `conv2d`.
        height, width: of the input.
        dtype: of all tensors.
    """

    kind: Kind
    n: int
    c_in: int
    c_out: int
    kernel: int
    stride: int
    padding: int
    height: int
    width: int
    dtype: torch.dtype

    @property
    def output_size(self) -> tuple[int, int]:
        height, width = ((s + 2 * self.padding - self.kernel) // self.stride + 1 for s in (self.height, self.width))
        return height, width

    @property
    def flop(self) -> int:
        return 2 * self.n * self.c_in * self.c_out * self.kernel**2 * math.prod(self.output_size)

    def call(self, device: torch.device, memory_format: torch.memory_format) -> Callable[[], object]:
        """The convolution on random tensors."""

        def make(*shape: int) -> Tensor:
            return torch.randn(shape, device=device).to(self.dtype).contiguous(memory_format=memory_format)

        x = make(self.n, self.c_in, self.height, self.width)
        weight = make(self.c_out, self.c_in, self.kernel, self.kernel)
        if self.kind == "forward":
            return lambda: torch.nn.functional.conv2d(x, weight, stride=self.stride, padding=self.padding)
        gradient = make(self.n, self.c_out, *self.output_size)
        wanted = [self.kind == "input_gradient", self.kind == "weight_gradient", False]
        geometry = ([self.stride] * 2, [self.padding] * 2, [1, 1], False, [0, 0], 1)
        return lambda: torch.ops.aten.convolution_backward(gradient, x, weight, None, *geometry, wanted)


class _Recorder(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.convs: Counter[Conv] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.convolution.default:
            x, weight, _, stride, padding, _, transposed, _, groups = args[:9]
            self._add("forward", x, weight, stride, padding, transposed, groups)
        elif func is torch.ops.aten.convolution_backward.default:
            _, x, weight, _, stride, padding, _, transposed, _, groups, wanted = args[:11]
            if wanted[0]:
                self._add("input_gradient", x, weight, stride, padding, transposed, groups)
            if wanted[1]:
                self._add("weight_gradient", x, weight, stride, padding, transposed, groups)
        return func(*args, **(kwargs or {}))

    def _add(
        self, kind: Kind, x: Tensor, weight: Tensor, stride: Any, padding: Any, transposed: bool, groups: int
    ) -> None:
        """Count the plain convolution with the multiplications of this one; depthwise ones do not count."""
        n, c_in, height, width = x.shape
        kernel = weight.shape[-1]
        if transposed:
            # Every input pixel is multiplied with the whole kernel, as in a plain convolution that keeps the size.
            geometry = weight.shape[1], kernel, 1, kernel // 2
        else:
            geometry = weight.shape[0], kernel, stride[0], padding[0]
        if groups == 1:
            self.convs[Conv(kind, n, c_in, *geometry, height, width, x.dtype)] += 1


def record(call: Callable[[], object]) -> Counter[Conv]:
    """The convolutions of one call."""
    with _Recorder() as recorder:
        call()
    return recorder.convs


def flop(convs: Counter[Conv]) -> int:
    return sum(conv.flop * count for conv, count in convs.items())


def ceiling_seconds(convs: Counter[Conv], device: torch.device) -> float:
    """Sum over all convolutions of the median time of one such call, in its best layout."""
    total = 0.0
    for conv, count in convs.items():
        best = math.inf
        for memory_format in (torch.channels_last, torch.contiguous_format):
            call = conv.call(device, memory_format)
            call()
            best = min(best, statistics.median(seconds_of(call) for _ in range(3)))
        total += count * best
    return total
