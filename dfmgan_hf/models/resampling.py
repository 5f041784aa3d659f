"""Resampling with the FIR filter [1, 3, 3, 1] (StyleGAN2, appendix B), differentiable any number of times.

The three operations are linear and their filter is symmetric, so that the derivative of each is one of the three
again. Saying so spares what automatic differentiation would do: slow derivatives of depthwise convolutions and of
interpolation and, at the second derivative, gradients for a filter that is constant.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import FunctionCtx


def _filter(x: Tensor, padding: int, stride: int, gain: float) -> Tensor:
    channels = x.shape[1]
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype, device=x.device) / 8.0
    kernel = torch.outer(taps, taps * gain).expand(channels, 1, 4, 4)
    return F.conv2d(x, kernel, padding=padding, stride=stride, groups=channels)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, padding: int, gain: float) -> Tensor:
        ctx.padding, ctx.gain = padding, gain  # type: ignore[attr-defined]
        return _filter(x, padding, 1, gain)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Filter.apply(gradient, 3 - ctx.padding, ctx.gain), None, None  # type: ignore[attr-defined]


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: float) -> Tensor:
        ctx.gain = gain  # type: ignore[attr-defined]
        y = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear", align_corners=False)
        y = y[:, :, 2:-2, 2:-2]
        return y if gain == 4.0 else y * (gain / 4.0)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Downsample.apply(gradient, ctx.gain), None  # type: ignore[attr-defined]


class _Downsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, gain: float) -> Tensor:
        ctx.gain = gain  # type: ignore[attr-defined]
        return _filter(x, 1, 2, gain)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Upsample.apply(gradient, ctx.gain), None  # type: ignore[attr-defined]


def upsample2d(x: Tensor) -> Tensor:
    """Double height and width: zero insertion, FIR filter [1, 3, 3, 1] and gain 4.

    The polyphase form of that filter has the taps (1, 3) / 4 and (3, 1) / 4, which is bilinear interpolation of the
    zero-padded map: the padding makes the border fade as the FIR filter does instead of repeating the edge.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, C, 2 H, 2 W).
    """
    return _Upsample.apply(x, 4.0)


def downsample2d(x: Tensor) -> Tensor:
    """Halve height and width: FIR filter [1, 3, 3, 1], then every second sample. (N, C, H, W) -> (N, C, H/2, W/2)."""
    return _Downsample.apply(x, 1.0)


def fir_filter2d(x: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
    """Filter every channel with the outer product of [1, 3, 3, 1] / 8 with itself.

    Args:
        x: (N, C, H, W).
        padding: zeros added on every side, from 0 to 3.
        gain: factor on the filter, 4 after zero insertion by 2.

    Returns:
        (N, C, H + 2 padding - 3, W + 2 padding - 3).
    """
    return _Filter.apply(x, padding, gain)
