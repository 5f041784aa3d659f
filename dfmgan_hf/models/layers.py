"""Equalised layers and the activation of the StyleGAN2 networks.

Plain PyTorch throughout: every operation here can be differentiated twice (R1 and the path-length penalty need it) and
runs on CPU, CUDA and MPS.

Leaky ReLU is positively homogeneous, so its gain sqrt(2) is folded into the (small) weights, biases and demodulation
factors instead of multiplying the (large) feature map.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from .convolution import conv2d
from .resampling import downsample2d, fir_filter2d

ACTIVATION_GAIN = math.sqrt(2.0)
LEAKY_SLOPE = 0.2


class _ClampedLeakyReLU(torch.autograd.Function):
    """In place, and one map kept for the way back, where the two operations would make and keep three."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, clamp: float) -> Tensor:
        y = F.leaky_relu_(x, LEAKY_SLOPE).clamp_(-clamp, clamp)
        ctx.mark_dirty(x)  # type: ignore[attr-defined]
        ctx.clamp = clamp  # type: ignore[attr-defined]
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _ClampedLeakyReLUGradient.apply(gradient, y.detach(), ctx.clamp), None  # type: ignore[attr-defined]


class _ClampedLeakyReLUGradient(torch.autograd.Function):
    """Linear in the gradient, and its own adjoint; piecewise constant in the activations."""

    @staticmethod
    def forward(ctx: FunctionCtx, gradient: Tensor, y: Tensor, clamp: float) -> Tensor:
        ctx.clamp = clamp  # type: ignore[attr-defined]
        ctx.save_for_backward(y)
        gradient = torch.ops.aten.hardtanh_backward(gradient, y, -clamp, clamp)
        return torch.ops.aten.leaky_relu_backward.grad_input(gradient, y, LEAKY_SLOPE, True, grad_input=gradient)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _ClampedLeakyReLUGradient.apply(gradient, y, ctx.clamp), None, None  # type: ignore[attr-defined]


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """Leaky ReLU (slope 0.2) and clamp to +-`clamp`; the gain sqrt(2) is already in `x`, which is overwritten."""
    if x.requires_grad:
        return F.leaky_relu(x, LEAKY_SLOPE) if clamp is None else _ClampedLeakyReLU.apply(x, clamp)
    x = F.leaky_relu_(x, LEAKY_SLOPE)
    return x if clamp is None else x.clamp_(-clamp, clamp)


class EqualizedLinear(nn.Module):
    """Linear layer with equalised learning rate (Progressive GAN, section 4.1; StyleGAN for `lr_multiplier`).

    Args:
        in_features, out_features: sizes.
        bias_init: initial value of the bias, as it acts in the forward pass.
        lr_multiplier: the layer's learning rate relative to the rest; 0.01 in the mapping network.
        activation: apply leaky ReLU with gain sqrt(2).

    Shapes: (..., in_features) -> (..., out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        activation: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.activation = activation
        gain = ACTIVATION_GAIN if activation else 1.0
        self.weight_scale = gain * lr_multiplier / math.sqrt(in_features)
        self.bias_scale = gain * lr_multiplier

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) * self.weight_scale
        bias = self.bias.to(x.dtype) * self.bias_scale
        x = F.linear(x, weight, bias)
        return activate(x, None) if self.activation else x


class EqualizedConv2d(nn.Module):
    """Convolution with equalised learning rate, optional FIR downsampling by 2, bias, activation and clamp.

    Args:
        in_channels, out_channels, kernel_size: as in `nn.Conv2d`; padding keeps the size.
        bias: whether there is one.
        down: filter with [1, 3, 3, 1] and halve height and width.
        activation: apply leaky ReLU with gain sqrt(2).
        gain: extra factor on the output, sqrt(1/2) on both branches of a residual discriminator block.
        clamp: clamp the output to +-`clamp` * `gain`; None for no clamp.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W), or half the size with `down`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        down: bool = False,
        activation: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.down = down
        self.activation = activation
        self.kernel_size = kernel_size
        self.output_gain = gain * (ACTIVATION_GAIN if activation else 1.0)
        self.weight_scale = self.output_gain / math.sqrt(in_channels * kernel_size**2)
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.to(x.dtype) * self.weight_scale
        bias = None if self.bias is None else self.bias.to(x.dtype) * self.output_gain
        if not self.down:
            x = conv2d(x, weight, bias, padding=self.kernel_size // 2)
        elif self.kernel_size == 1:
            x = conv2d(downsample2d(x), weight, bias)
        else:
            # The filter's margin and the convolution's are padded at once, so that neither sees the other's border.
            x = conv2d(fir_filter2d(x, padding=1 + self.kernel_size // 2), weight, bias, stride=2)
        if self.activation:
            return activate(x, self.clamp)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)
