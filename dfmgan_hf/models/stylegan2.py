"""The StyleGAN2 generator (Karras et al., CVPR 2020): mapping, modulated convolutions, synthesis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal, Protocol, get_args

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from .base import SafetensorsModel, block_resolutions, channels_at, check_network_size, default_channel_base
from .layers import ACTIVATION_GAIN, EqualizedLinear, activate, conv2d, conv_transpose2d, fir_filter2d, upsample2d

# --- Pixel noise of the styled convolutions.

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = ("random", "const", "none")


class NoisyLayer(Protocol):
    """A layer that noise is added in.

    Args:
        noise_const: the stored noise, (r, r), r being the resolution of the layer's output.
    """

    noise_const: Tensor


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
        self._drawn: dict[NoisyLayer, Tensor] = {}

    def __call__(self, layer: NoisyLayer, dtype: torch.dtype) -> Tensor | None:
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

    def samples(self, which: slice) -> NoiseInput:
        """The noise of some of the samples; what either draws is the other's too."""
        return _NoiseOfSamples(self, which)


class _NoiseOfSamples(NoiseInput):
    """The noise of some of the samples of another pass."""

    def __init__(self, whole: NoiseInput, which: slice) -> None:
        self._whole = whole
        self._which = which

    def __call__(self, layer: NoisyLayer, dtype: torch.dtype) -> Tensor | None:
        noise = self._whole(layer, dtype)
        return noise if noise is None or noise.ndim == 2 else noise[self._which]


# --- Mapping network: from the latent z to the intermediate latent w (StyleGAN, section 2).

MAPPING_LR_MULTIPLIER = 0.01
W_AVG_DECAY = 0.995


class MappingNetwork(nn.Module):
    """z -> w by fully connected layers, with a moving average of w for the truncation trick.

    Args:
        z_dim: width of z.
        w_dim: width of w.
        num_layers: fully connected layers, 2 by default and 8 in the large presets.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_layers: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        widths = [z_dim] + [w_dim] * num_layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, lr_multiplier=MAPPING_LR_MULTIPLIER, activation=True)
            for a, b in itertools.pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """
        Args:
            z: (N, z_dim), normally N(0, 1); brought to unit mean square first.
            truncation_psi: w_avg + psi (w - w_avg); 1 leaves w alone, smaller values trade variety for typicality.

        Returns:
            w, (N, w_dim), in float32 (float64 if the weights are).
        """
        dtype = torch.promote_types(self.w_avg.dtype, torch.float32)
        x = z.to(dtype)
        x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = layer(x)
        if truncation_psi != 1.0:
            x = self.w_avg.to(dtype).lerp(x, truncation_psi)
        return x

    @torch.no_grad()
    def update_w_avg(self, w: Tensor) -> None:
        """Move `w_avg` towards the mean of `w` (N, w_dim) with decay 0.995."""
        self.w_avg.copy_(w.detach().mean(dim=0).to(self.w_avg.dtype).lerp(self.w_avg, W_AVG_DECAY))


# --- The modulated convolution (StyleGAN2, section 2.2, equations 1 to 3) and the layers that are built on it.

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


# --- The StyleGAN2 backbone's synthesis network with skip connections (StyleGAN2, section 4.1).


class SynthesisBlock(nn.Module):
    """One resolution of the backbone: an upsampling and a plain styled convolution, and ToRGB.

    At 4x4 the input is a learned constant and there is one convolution only.

    Args:
        in_channels: channels of the block below; ignored at 4x4.
        out_channels: channels of this block.
        w_dim: width of w.
        resolution: height and width of this block.
        image_channels: channels of the image, 1 or 3.
        conv_clamp: clamp of the activations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, resolution, up=True, conv_clamp=conv_clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)
        self.to_rgb = ToChannels(out_channels, image_channels, w_dim, conv_clamp=conv_clamp)

    @property
    def num_convs(self) -> int:
        return 1 if self.resolution == 4 else 2

    def features(self, x: Tensor | None, ws: Tensor, noise: NoiseInput, dtype: torch.dtype) -> Tensor:
        """The block's features before ToRGB.

        Args:
            x: features of the block below, or None at 4x4.
            ws: (N, >= num_convs, w_dim).
            noise: the pass's noise.
            dtype: type that the convolutions run in.

        Returns:
            (N, out_channels, resolution, resolution) in `dtype`.
        """
        if x is None:
            x = self.const.to(dtype).unsqueeze(0).expand(ws.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), ws[:, 0], noise)
        return self.conv1(x, ws[:, self.num_convs - 1], noise)


class SynthesisNetwork(nn.Module):
    """All synthesis blocks; the image is the sum of the blocks' ToRGB outputs, FIR-upsampled step by step.

    The block at resolution r reads the latents from `first_latent(r)` on: one for each convolution, and one for ToRGB
    which it shares with the next block's first convolution. There are 2 log2(R) - 2 latents in all.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        w_dim: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(resolution)
        self.num_latents = 2 * len(self.resolutions)
        self.blocks = nn.ModuleDict()
        in_channels = 0
        for r in self.resolutions:
            out_channels = channels_at(r, channel_base, channel_max)
            self.blocks[str(r)] = SynthesisBlock(in_channels, out_channels, w_dim, r, image_channels, conv_clamp)
            in_channels = out_channels

    @staticmethod
    def first_latent(resolution: int) -> int:
        """Index of the first latent that the block at `resolution` reads."""
        return 0 if resolution == 4 else 2 * resolution.bit_length() - 7

    def block_features(
        self, resolution: int, x: Tensor | None, ws: Tensor, noise: NoiseInput, dtype: torch.dtype
    ) -> Tensor:
        """Features of one block; see `SynthesisBlock.features`. `ws` are all latents (N, num_latents, w_dim)."""
        block: SynthesisBlock = self.blocks[str(resolution)]  # type: ignore[assignment]
        return block.features(x, ws[:, self.first_latent(resolution) :], noise, dtype)

    def rgb(self, resolution: int, x: Tensor, ws: Tensor) -> Tensor:
        """What the block at `resolution` adds to the image: ToRGB of its features `x`."""
        block: SynthesisBlock = self.blocks[str(resolution)]  # type: ignore[assignment]
        return block.to_rgb(x, ws[:, self.first_latent(resolution) + block.num_convs])

    def add_rgb(self, resolution: int, image: Tensor | None, x: Tensor, ws: Tensor) -> Tensor:
        """The image at `resolution`: the upsampled image of the block below plus ToRGB of the features `x`."""
        rgb = self.rgb(resolution, x, ws)
        return rgb if image is None else upsample2d(image) + rgb


# --- The two generators as diffusers models: the StyleGAN2 backbone and DFMGAN on top of it.

LatentSpace = Literal["z", "w", "w+"]
RandomSource = torch.Generator | list[torch.Generator] | None


@dataclass
class StyleGAN2GeneratorOutput(BaseOutput):
    """Output of `StyleGAN2Generator`.

    Args:
        images: (N, image_channels, R, R), around [-1, 1], not clamped.
    """

    images: Tensor


@dataclass
class Trunk:
    """What a defect image and its defect-free twin share: everything below the first residual block.

    Args:
        features: (N, C, r/2, r/2), the features below the first residual block at resolution r.
        image: (N, image_channels, r/2, r/2), the skip image up to there.
        noise: the pass's noise.
    """

    features: Tensor
    image: Tensor
    noise: NoiseInput

    def samples(self, which: slice) -> Trunk:
        """The trunk of some of the samples; their noise is shared."""
        return Trunk(self.features[which], self.image[which], self.noise.samples(which))


class StyleGAN2Generator(SafetensorsModel):
    """StyleGAN2 generator of defect-free images: the backbone that stage 1 trains.

    Args:
        resolution: height and width, a power of two from 32 to 1024.
        image_channels: 1 (grey) or 3 (RGB).
        z_dim, w_dim: widths of the latents.
        mapping_layers: layers of the mapping network: 2, or 8 in the large presets.
        channel_base: channels at resolution r are min(channel_base // r, channel_max). None: 16384 below 512x512,
            32768 from there on.
        channel_max: upper limit of the channels.
        conv_clamp: clamp of the activations; None for none.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 2,
        channel_base: int | None = None,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
    ) -> None:
        super().__init__()
        channel_base = channel_base or default_channel_base(resolution)
        check_network_size(resolution, channel_base)
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {image_channels}.")
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(resolution, image_channels, w_dim, channel_base, channel_max, conv_clamp)
        self.low_precision_dtype: torch.dtype | None = None
        self.low_precision_resolutions: frozenset[int] = frozenset()

    @property
    def num_latents(self) -> int:
        """Number L of per-layer latents: 2 log2(R) - 2."""
        return self.synthesis.num_latents

    def set_mixed_precision(self, dtype: torch.dtype | None, num_resolutions: int = 4) -> None:
        """Run the blocks of the `num_resolutions` highest resolutions in `dtype`; parameters stay as they are.

        Mapping, styles, demodulation, images and masks stay in the parameters' type. None turns it off.
        """
        self.low_precision_dtype = dtype
        self.low_precision_resolutions = frozenset(self.synthesis.resolutions[-num_resolutions:])

    def compute_dtype(self, resolution: int) -> torch.dtype:
        """Type that the convolutions at `resolution` run in."""
        if self.low_precision_dtype is not None and resolution in self.low_precision_resolutions:
            return self.low_precision_dtype
        return self.synthesis.blocks[str(resolution)].conv1.weight.dtype  # type: ignore[union-attr, return-value]

    def forward(
        self,
        object_latents: Tensor,
        truncation_psi: float = 1.0,
        noise_mode: NoiseMode = "random",
        generator: RandomSource = None,
        latent_space: LatentSpace = "z",
        return_dict: bool = True,
    ) -> StyleGAN2GeneratorOutput | tuple[Tensor]:
        """Draw defect-free images.

        Args:
            object_latents: (N, z_dim), (N, w_dim) or (N, L, w_dim), as `latent_space` says.
            truncation_psi: truncation of w; needs `latent_space="z"` unless it is 1.
            noise_mode: "random", "const" (the stored noise) or "none".
            generator: source of random noise; N generators make every sample's noise its own.
            latent_space: "z", "w" (one for all layers) or "w+" (one for each layer).
            return_dict: False returns the tuple (images,).

        Raises:
            ValueError: latents whose shape does not fit `latent_space`, an unknown mode.
        """
        ws = to_layer_latents(
            self.mapping, object_latents, latent_space, self.num_latents, truncation_psi, "object_latents"
        )
        images = self.synthesize(ws, NoiseInput(noise_mode, len(ws), generator))
        return StyleGAN2GeneratorOutput(images=images) if return_dict else (images,)

    def synthesize(self, ws: Tensor, noise: NoiseInput) -> Tensor:
        """Images (N, image_channels, R, R) from per-layer latents (N, L, w_dim)."""
        return self.continue_synthesis(None, None, ws, noise, self.synthesis.resolutions)

    def continue_synthesis(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: NoiseInput, resolutions: list[int]
    ) -> Tensor:
        """Run the backbone's blocks at `resolutions` on features `x` and skip image `image`; returns the image."""
        for r in resolutions:
            x = self.synthesis.block_features(r, x, ws, noise, self.compute_dtype(r))
            image = self.synthesis.add_rgb(r, image, x, ws)
        if image is None:
            raise ValueError("`resolutions` is empty.")
        return image


def to_layer_latents(
    mapping: MappingNetwork, latents: Tensor, space: LatentSpace, num_latents: int, truncation_psi: float, name: str
) -> Tensor:
    """Per-layer latents (N, num_latents, w_dim) from latents in any of the three spaces.

    Raises:
        ValueError: an unknown space, or latents whose shape does not fit it; the message calls them `name`.
    """
    if space not in get_args(LatentSpace):
        raise ValueError(f"The latent space of `{name}` must be 'z', 'w' or 'w+', but is {space!r}.")
    w_dim = mapping.w_avg.shape[0]
    expected = {"z": (mapping.z_dim,), "w": (w_dim,), "w+": (num_latents, w_dim)}[space]
    if tuple(latents.shape[1:]) != expected:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"`{name}` in space {space!r} must be (N, {wanted}), but is {tuple(latents.shape)}.")
    if truncation_psi != 1.0 and space != "z":
        raise ValueError(f"`truncation_psi` acts on z, but `{name}` is given as {space}; truncate w yourself.")
    if space == "z":
        latents = mapping(latents, truncation_psi)
    if space == "w+":
        return latents
    return latents.unsqueeze(1).expand(-1, num_latents, -1)
