"""Building blocks of the StyleGAN2 networks: FIR resampling, equalised layers and the modulated convolution.

Plain PyTorch throughout: every operation here can be differentiated twice (R1 and the path-length penalty need it) and
runs on CPU, CUDA and MPS.

Two identities keep the layers cheap:

* leaky ReLU is positively homogeneous, so its gain sqrt(2) is folded into the (small) weights, biases and demodulation
  factors instead of multiplying the (large) feature map;
* modulating the weights of every sample and convolving is the same as scaling the input channels by the style,
  convolving the whole batch with one weight and scaling the output channels by the demodulation factor
  (StyleGAN2, section 2.2, equations 1 to 3). One ordinary convolution serves the batch.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx

from .resampling import downsample2d, fir_filter2d

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = ("random", "const", "none")

ACTIVATION_GAIN = math.sqrt(2.0)
LEAKY_SLOPE = 0.2
DEMODULATION_EPS = 1e-8


class _ClampedLeakyReLU(torch.autograd.Function):
    """One pass forward and one back, where the two operations would take five and keep three maps."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, clamp: float) -> Tensor:
        y = F.leaky_relu(x, LEAKY_SLOPE).clamp_(-clamp, clamp)
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
        return torch.ops.aten.leaky_relu_backward(gradient, y, LEAKY_SLOPE, True)

    @staticmethod
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return _ClampedLeakyReLUGradient.apply(gradient, y, ctx.clamp), None, None  # type: ignore[attr-defined]


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """Leaky ReLU (slope 0.2) and clamp to +-`clamp`; the gain sqrt(2) is already in `x`, which may be overwritten."""
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
            x = F.conv2d(x, weight, bias, padding=self.kernel_size // 2)
        elif self.kernel_size == 1:
            x = F.conv2d(downsample2d(x), weight, bias)
        else:
            # The filter's margin and the convolution's are padded at once, so that neither sees the other's border.
            x = F.conv2d(fir_filter2d(x, padding=1 + self.kernel_size // 2), weight, bias, stride=2)
        if self.activation:
            return activate(x, self.clamp)
        return x if self.clamp is None else x.clamp(-self.clamp, self.clamp)


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
        weight = self.weight.to(small)
        bias = None if bias is None else bias.to(x.dtype)
        # The layout in which convolutions are fastest; not every one of them keeps to its input's.
        x = x.contiguous(memory_format=torch.channels_last)
        if len(x) == 1:
            return self._conv(x, self._modulated_weight(weight, style, gain).to(x.dtype), bias)
        if x.dtype == torch.float16:
            # Half precision overflows in the sum over channels: bring weights and styles to a maximum of one. The
            # demodulation takes the factors out again; without demodulation they return as an output gain.
            weight_peak = weight.abs().amax(dim=(1, 2, 3), keepdim=True) * math.sqrt(weight[0].numel())
            style_peak = style.abs().amax(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float32).tiny)
            weight, style = weight / weight_peak, style / style_peak
            restore = weight_peak.reshape(1, -1) * style_peak
        else:
            restore = None
        if self.demodulate:
            squared = weight.square().sum(dim=(2, 3))
            eps = DEMODULATION_EPS if restore is None else DEMODULATION_EPS / restore.square()
            scale = (style.square() @ squared.t() + eps).rsqrt() * gain
        elif restore is not None:
            scale = restore * gain
        else:
            scale = torch.full_like(weight[:, 0, 0, 0], gain).unsqueeze(0)
        x = x * style.to(x.dtype)[:, :, None, None]
        x, scale = self._conv(x, weight.to(x.dtype)), scale.to(x.dtype)[:, :, None, None]
        return x * scale if bias is None else torch.addcmul(bias[:, None, None], x, scale)

    def _modulated_weight(self, weight: Tensor, style: Tensor, gain: float) -> Tensor:
        """The weight of a single sample: no pass over feature maps, which are larger where most of the time goes."""
        weight = weight * style.reshape(1, -1, 1, 1)
        if self.demodulate:
            norm = torch.linalg.vector_norm(weight, dim=(1, 2, 3), keepdim=True)
            weight = weight * ((norm.square() + DEMODULATION_EPS).rsqrt() * gain)
        elif gain != 1.0:
            weight = weight * gain
        return weight

    def _conv(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if not self.up:
            return F.conv2d(x, weight, bias, padding=self.padding)
        x = fir_filter2d(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
        return x if bias is None else x + bias[:, None, None]


class NoiseInput:
    """Where the layers of one forward pass get their noise.

    Noise is one standard normal value per pixel, shared by all channels (StyleGAN, section 3.2). What was drawn for a
    layer is kept, so that a defect image and its defect-free twin, or two halves of the mode-seeking loss, see the
    same noise.

    Args:
        mode: "random" draws it, "const" takes the layer's stored buffer, "none" leaves it out.
        batch_size: number of samples N of the pass.
        generator: source of random noise: None, one generator, or N of them, in which case the noise of a sample
            depends on its own generator only. Drawn on the generator's device, then moved.

    Raises:
        ValueError: an unknown mode, or a list of generators whose length is not the batch size.
    """

    def __init__(
        self,
        mode: NoiseMode,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> None:
        if mode not in NOISE_MODES:
            raise ValueError(f"`noise_mode` must be one of {', '.join(NOISE_MODES)}, but is {mode!r}.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"`generator` lists {len(generator)} generators for a batch of {batch_size}.")
        self.mode = mode
        self.batch_size = batch_size
        self.generator = generator
        self._drawn: dict[nn.Module, Tensor] = {}

    def __call__(self, layer: StyledConv2d, dtype: torch.dtype) -> Tensor | None:
        """The noise of `layer`: (N, 1, r, r), (r, r), or None."""
        if self.mode == "none":
            return None
        if self.mode == "const":
            return layer.noise_const.to(dtype)
        if layer not in self._drawn:
            size = layer.noise_const.shape
            device = layer.noise_const.device
            if isinstance(self.generator, list):
                parts = [torch.randn(1, 1, *size, generator=g, device=g.device).to(device) for g in self.generator]
                noise = torch.cat(parts)
            else:
                source = device if self.generator is None else self.generator.device
                shape = (self.batch_size, 1, *size)
                noise = torch.randn(shape, generator=self.generator, device=source).to(device)
            self._drawn[layer] = noise
        return self._drawn[layer].to(dtype)

    def first(self, n: int) -> NoiseInput:
        """The noise of the first `n` samples; what was drawn already is shared."""
        part = NoiseInput(self.mode, n, self.generator[:n] if isinstance(self.generator, list) else self.generator)
        part._drawn = {layer: noise[:n] for layer, noise in self._drawn.items()}
        return part


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
