"""Convolutions whose second derivatives are convolutions too.

The three products of a convolution (output, gradient of the input, gradient of the weight) are each other's
derivatives. Automatic differentiation knows this for the first derivative only: for the second it makes a convolution
whose kernel is as large as the image. R1 and the path-length penalty need the second.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx


class _Geometry(NamedTuple):
    stride: int
    padding: int
    transposed: bool
    output_padding: tuple[int, int] = (0, 0)

    def adjoint(self, x: Tensor, weight: Tensor) -> _Geometry:
        """Of the convolution that carries the gradient back to `x`."""
        if self.transposed:
            return self._replace(transposed=False, output_padding=(0, 0))
        height, width = ((size + 2 * self.padding - weight.shape[-1]) % self.stride for size in x.shape[2:])
        return self._replace(transposed=True, output_padding=(height, width))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, g: _Geometry) -> Tensor:
    if g.transposed:
        return F.conv_transpose2d(x, weight, bias, g.stride, g.padding, g.output_padding)
    return F.conv2d(x, weight, bias, g.stride, g.padding)


def _is_wanted(ctx: FunctionCtx, index: int) -> bool:
    """Whether the running backward pass goes on from an input.

    `needs_input_grad` says that an input has a gradient, not that this pass was asked for it: the first pass of R1
    asks for the image's and not for the weights'.
    """
    if not ctx.needs_input_grad[index]:  # type: ignore[attr-defined]
        return False
    node = ctx.next_functions[index][0]  # type: ignore[attr-defined]
    # Leaves cannot be asked about, and the question is no public one.
    if hasattr(node, "variable") or not hasattr(torch._C, "_will_engine_execute_node"):
        return True
    return torch._C._will_engine_execute_node(node)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry  # type: ignore[attr-defined]
        return _convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: FunctionCtx, gradient: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        geometry: _Geometry = ctx.geometry  # type: ignore[attr-defined]
        wants_x, wants_weight, wants_bias = (_is_wanted(ctx, i) for i in range(3))
        x_gradient = weight_gradient = bias_gradient = None
        if wants_x:
            x_gradient = _Convolution.apply(gradient, weight, None, geometry.adjoint(x, weight))
        if wants_weight:
            weight_gradient = _WeightGradient.apply(x, gradient, weight.shape, geometry)
        if wants_bias:
            bias_gradient = gradient.sum(dim=(0, 2, 3))
        return x_gradient, weight_gradient, bias_gradient, None


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gradient: Tensor, shape: torch.Size, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.geometry = geometry  # type: ignore[attr-defined]
        _, weight_gradient, _ = torch.ops.aten.convolution_backward(
            gradient,
            x,
            x.new_empty(shape),
            None,
            [geometry.stride] * 2,
            [geometry.padding] * 2,
            [1, 1],
            geometry.transposed,
            list(geometry.output_padding),
            1,
            [False, True, False],
        )
        return weight_gradient

    @staticmethod
    def backward(  # type: ignore[override]
        ctx: FunctionCtx, direction: Tensor
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        x, gradient = ctx.saved_tensors  # type: ignore[attr-defined]
        geometry: _Geometry = ctx.geometry  # type: ignore[attr-defined]
        x_gradient = gradient_gradient = None
        if _is_wanted(ctx, 0):
            x_gradient = _Convolution.apply(gradient, direction, None, geometry.adjoint(x, direction))
        if _is_wanted(ctx, 1):
            gradient_gradient = _Convolution.apply(x, direction, None, geometry)
        return x_gradient, gradient_gradient, None, None


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """`F.conv2d` on square kernels, differentiable any number of times at a convolution's cost."""
    return _Convolution.apply(x, weight, bias, _Geometry(stride, padding, transposed=False))


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int) -> Tensor:
    """`F.conv_transpose2d` without padding, likewise; `weight` is (in_channels, out_channels, k, k)."""
    return _Convolution.apply(x, weight, None, _Geometry(stride, 0, transposed=True))
