"""The modulated convolution (StyleGAN2, section 2.2, equations 1 to 3) and the layers that are built on it.

Modulating every sample's weights and convolving is the same as scaling the input channels by the style, convolving
the whole batch with one weight and scaling the output channels by the demodulation factor. One ordinary convolution
serves the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .convolution import conv2d, conv_transpose2d
from .layers import ACTIVATION_GAIN, EqualizedLinear, activate
from .noise import NoiseInput
from .resampling import fir_filter2d

DEMODULATION_EPS = 1e-8


@dataclass(frozen=True)
class _Operands:
    """What of a modulated convolution follows from its weight alone.

    Args:
        weight: (out_channels, in_channels, k, k), in the type of the convolution.
        energy: sum of its squares over the kernel, (out_channels, in_channels), in float32; None without demodulation.
        peak: what the weight was divided by, (N or 1, out_channels), or None.
    """

    weight: Tensor
    energy: Tensor | None
    peak: Tensor | None


@contextmanager
def hold_weights(network: nn.Module) -> Iterator[None]:
    """Inside, without gradients, modulated convolutions compute once what follows from their weights alone.

    Their sums of squares, other types and layouts: a tenth of the time of an image in float32, more in bf16. The
    weights must not change meanwhile, and take up to twice their memory.
    """
    layers = [module for module in network.modules() if isinstance(module, ModulatedConv2d)]
    for layer in layers:
        layer.held = {}
    try:
        yield
    finally:
        for layer in layers:
            layer.held = None


class ModulatedConv2d(nn.Module):
    """The weight and style of a modulated convolution (StyleGAN2, section 2.2), without noise, bias and activation.

    Args:
        in_channels, out_channels, kernel_size: as in `nn.Conv2d`; padding keeps the size.
        w_dim: width of the latent that the style is an affine function of.
        up: stride-2 transposed convolution followed by the FIR filter, which doubles height and width.
        demodulate: normalise each output channel to unit expected variance. Without it the style carries the
            equalised learning rate's 1 / sqrt(in_channels).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        w_dim: int,
        *,
        up: bool = False,
        demodulate: bool = True,
    ) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.up = up
        self.demodulate = demodulate
        self.padding = kernel_size // 2
        self.style_gain = 1.0 if demodulate else 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.held: dict[torch.dtype, _Operands] | None = None

    def modulated_conv(self, x: Tensor, w: Tensor, bias: Tensor | None = None, gain: float = 1.0) -> Tensor:
        """Convolve `x` with the weights that `w` modulates, and add a bias.

        Args:
            x: (N, in_channels, H, W), in any floating type; the convolution runs in it.
            w: (N, w_dim).
            bias: (out_channels,), or None.
            gain: factor on the convolution, not on the bias.

        Returns:
            (N, out_channels, H, W), twice the size with `up`.
        """
        # Styles and demodulation are a few thousand numbers: float32 costs nothing and cannot overflow.
        small = torch.promote_types(self.weight.dtype, torch.float32)
        style = self.affine(w.to(small)) * self.style_gain
        bias = None if bias is None else bias.to(x.dtype)
        # The layout in which convolutions are fastest; not every one of them keeps to its input's.
        x = x.contiguous(memory_format=torch.channels_last)
        # A single sample's weights are modulated if they are smaller than its feature maps.
        if len(x) == 1 and self.weight.numel() <= x.numel():
            operands = self._operands(small)
            scale = self._output_scale(style, operands, gain)
            weight = operands.weight * (scale.t() * style)[:, :, None, None]
            return self._conv(x, weight.to(x.dtype), bias)
        operands = self._operands(x.dtype)
        if operands.peak is not None:
            style_peak = style.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            style, operands = style / style_peak, replace(operands, peak=operands.peak * style_peak)
        scale = self._output_scale(style, operands, gain)
        # Rounding a style to 8 bits is one error for all pixels. A single sample's maps are small enough here to be
        # multiplied in float32.
        exact, dtype = (small if len(x) == 1 else x.dtype), x.dtype
        style, scale = (factors.to(exact)[:, :, None, None] for factors in (style, scale))
        x = self._conv((x * style).to(dtype), operands.weight).to(exact)
        x = x * scale if bias is None else torch.addcmul(bias.to(exact)[:, None, None], x, scale)
        return x.to(dtype)

    def _output_scale(self, style: Tensor, operands: _Operands, gain: float) -> Tensor:
        """What the output channels are multiplied with, (N, out_channels) or (1, out_channels)."""
        if operands.energy is None:
            return style.new_full((1, len(self.weight)), gain) if operands.peak is None else operands.peak * gain
        eps = DEMODULATION_EPS if operands.peak is None else DEMODULATION_EPS / operands.peak.square()
        return (style.square() @ operands.energy.t() + eps).rsqrt() * gain

    def _operands(self, dtype: torch.dtype) -> _Operands:
        """What a convolution in `dtype` takes that follows from the weight alone."""
        held = self.held
        if held is not None and dtype in held:
            return held[dtype]
        weight = self.weight.to(torch.promote_types(self.weight.dtype, torch.float32))
        peak = None
        if dtype == torch.float16:
            # Half precision overflows in the sum over channels: bring weights and styles to a maximum of one. The
            # demodulation takes the factors out again; without demodulation they return as an output gain.
            peak = weight.abs().amax(dim=(1, 2, 3)).unsqueeze(0) * math.sqrt(weight[0].numel())
            weight = weight / peak.reshape(-1, 1, 1, 1)
        energy = weight.square().sum(dim=(2, 3)) if self.demodulate else None
        operands = _Operands(weight.to(dtype), energy, peak)
        if held is not None and not torch.is_grad_enabled():
            # In the order in which the two kinds of convolution read it.
            if self.up:
                weight = operands.weight.transpose(0, 1).contiguous().transpose(0, 1)
            else:
                weight = operands.weight.contiguous(memory_format=torch.channels_last)
            operands = held[dtype] = replace(operands, weight=weight)
        return operands

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.up:
            return conv2d(x, weight, bias, padding=self.padding)
        x = fir_filter2d(conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        if bias is None:
            return x
        bias = bias[:, None, None]
        return x + bias if x.requires_grad or bias.requires_grad else x.add_(bias)


class StyledConv2d(ModulatedConv2d):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU and clamp: one layer of a synthesis block.

    The noise is added after demodulation and before the bias, times a learned scalar that starts at 0.

    Args:
        resolution: height and width of the output.
        conv_clamp: clamp the output to +-this; None for no clamp.
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, 3, w_dim, up=up)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.conv_clamp = conv_clamp

    def forward(self, x: Tensor, w: Tensor, noise: NoiseInput) -> Tensor:
        """(N, in_channels, H, W), (N, w_dim) -> (N, out_channels, resolution, resolution)."""
        x = self.modulated_conv(x, w, self.bias * ACTIVATION_GAIN, gain=ACTIVATION_GAIN)
        pixel_noise = noise(self, x.dtype)
        if pixel_noise is not None:
            pixel_noise = pixel_noise * (self.noise_strength * ACTIVATION_GAIN).to(x.dtype)
            # Two kinds of broadcasting in two passes: together they would make a full map in another memory layout.
            x = x + pixel_noise if x.requires_grad else x.add_(pixel_noise)
        return activate(x, self.conv_clamp)


class ToChannels(ModulatedConv2d):
    """Modulated 1x1 convolution without demodulation that reads an output map off the features: ToRGB and ToMask."""

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, conv_clamp: float | None = None) -> None:
        super().__init__(in_channels, out_channels, 1, w_dim, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.conv_clamp = conv_clamp

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in_channels, H, W), (N, w_dim) -> (N, out_channels, H, W), in float32 or better."""
        x = self.modulated_conv(x, w, self.bias)
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return x if self.conv_clamp is None else x.clamp(-self.conv_clamp, self.conv_clamp)
