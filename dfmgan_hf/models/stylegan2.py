"""The StyleGAN2 generator (Karras et al., CVPR 2020): mapping, modulated convolutions, synthesis."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from . import fused
from .base import (
    RandomSource,
    StyleGAN2Model,
    block_resolutions,
    channels_at,
    check_network_size,
    default_channel_base,
)
from .layers import (
    ACTIVATION_GAIN,
    EqualizedLayer,
    EqualizedLinear,
    conv2d,
    conv_transpose2d,
    finish,
    fir_filter2d,
    scaled_together,
    upsample2d,
    wider,
)

MAPPING_LR_MULTIPLIER = 0.01
W_AVG_DECAY = 0.995
DEMODULATION_EPS = 1e-8
HALF_WEIGHT_SCALE = 1 / 16
"""Of a convolution's weight in float16, besides 1 / sqrt(fan-in): see `ModulatedConv2d`."""

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = get_args(NoiseMode)
LatentSpace = Literal["z", "w", "w+"]


class MappingNetwork(nn.Module):
    """z -> w by fully connected layers (StyleGAN, section 2), with a moving average of w for the truncation trick."""

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
        """Map z (N, z_dim), normally N(0, 1), to w (N, w_dim) in float32, or in float64 if the weights are.

        Args:
            z: brought to unit mean square first.
            truncation_psi: w_avg + psi (w - w_avg); 1 leaves w alone, smaller values trade variety for typicality.
        """
        dtype = wider(self.w_avg.dtype, torch.float32)
        x = z.to(dtype)
        x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        with scaled_together([(self, dtype)]):
            for layer in self.layers:
                x = layer(x)
        if truncation_psi != 1.0:
            x = self.w_avg.to(dtype).lerp(x, truncation_psi)
        return x

    @torch.no_grad()
    def update_w_avg(self, w: Tensor) -> None:
        """Move `w_avg` towards the mean of `w` (N, w_dim) with decay 0.995."""
        self.w_avg.copy_(w.detach().mean(dim=0).to(self.w_avg.dtype).lerp(self.w_avg, W_AVG_DECAY))


class ModulatedConv2d(EqualizedLayer):
    """A convolution whose weight each sample's style scales (StyleGAN2, section 2.2).

    The style is an affine function of a latent of width `w_dim`. For output channel o, input channel i and kernel
    position k, with the style s = affine(w):

        w'_oik = s_i w_oik                            (equation 1)
        d_o = 1 / sqrt(sum_ik w'_oik^2 + eps)         (equation 3, of `StyledConv2d` alone)
        y_o = d_o sum_i conv(x_i, w'_oi)

    Half precision overflows in the sum over channels. There, styles are divided by their largest and demodulated
    weights multiplied by 1 / (16 sqrt(fan-in)), so that it cannot: a weight has about unit variance at the start and
    grows slowly. The demodulation, in float32, takes both back.
    """

    up = False
    demodulate = True
    style_gain = 1.0

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def style(self, w: Tensor) -> Tensor:
        """Return the styles (N, in_channels) of latents (N, w_dim).

        Styles and what follows from them are a few thousand numbers: float32 costs nothing and cannot overflow.
        """
        return self.affine(w.to(wider(self.weight.dtype, torch.float32)))


@contextmanager
def hold_weights(network: nn.Module) -> Iterator[None]:
    """Inside, without gradients, layers compute once what follows from their weights alone.

    It saves a tenth of an image's time in float32, more in bf16, and may need up to twice the weights' memory.
    The weights must not change meanwhile.
    """
    layers = [module for module in network.modules() if isinstance(module, (EqualizedLayer, StyleGAN2Generator))]
    for layer in layers:
        layer.kept, layer.held = {}, True
    try:
        yield
    finally:
        for layer in layers:
            layer.kept, layer.held = None, False


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

    def __init__(self, mode: NoiseMode, batch_size: int, generator: RandomSource = None) -> None:
        if mode not in NOISE_MODES:
            raise ValueError(f"`noise_mode` must be one of {', '.join(NOISE_MODES)}, but is {mode!r}.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"`generator` lists {len(generator)} generators for a batch of {batch_size}.")
        self.mode = mode
        self.batch_size = batch_size
        self.generator = generator
        self._drawn: dict[StyledConv2d, Tensor] = {}

    def __call__(self, layer: StyledConv2d, dtype: torch.dtype) -> Tensor | None:
        """Return the noise of `layer` at its resolution r: (N, 1, r, r), (r, r) if it is stored, or None."""
        if self.mode == "none":
            return None
        if self.mode == "const":
            return layer.noise_const.to(dtype)
        if layer not in self._drawn:
            size, device = layer.noise_const.shape, layer.noise_const.device
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
        """Return the noise of some of the samples; what was drawn for a layer is theirs too."""
        generator = self.generator[which] if isinstance(self.generator, list) else self.generator
        part = NoiseInput(self.mode, len(range(self.batch_size)[which]), generator)
        part._drawn = {layer: noise[which] for layer, noise in self._drawn.items()}
        return part


class StyledConv2d(ModulatedConv2d):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU and clamp: one layer of a synthesis block.

    The noise is added after demodulation and before the bias, times a learned scalar that starts at 0. `resolution` is
    that of the output; `up` makes the convolution a transposed one of stride 2 that the FIR filter follows, which
    doubles height and width; `conv_clamp` None is no clamp.
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
        super().__init__(in_channels, out_channels, 3, w_dim)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.up = up
        self.conv_clamp = conv_clamp
        self.half_weight_scale = HALF_WEIGHT_SCALE / math.sqrt(in_channels * 9)
        self.scales = {"weight": 1.0, "bias": ACTIVATION_GAIN, "noise_strength": ACTIVATION_GAIN}

    def scale(self, name: str, dtype: torch.dtype) -> float:
        return self.half_weight_scale if name == "weight" and dtype == torch.float16 else super().scale(name, dtype)

    def forward(self, x: Tensor, w: Tensor, noise: NoiseInput) -> Tensor:
        """(N, in_channels, H, W), (N, w_dim) -> (N, out_channels, resolution, resolution)."""
        pixel_noise = noise(self, x.dtype)
        if pixel_noise is not None:
            pixel_noise = pixel_noise * self.scaled("noise_strength", x.dtype)
        bias: Tensor | None = self.scaled("bias", x.dtype)
        # The layout in which convolutions are fastest; not every one of them keeps to its input's.
        x = x.contiguous(memory_format=torch.channels_last)
        style = self.style(w)
        if len(x) == 1 and self.weight.numel() <= x.numel():
            x, demodulation = self.convolve(x, self.modulated_weight(style, x.dtype), None if self.up else bias), None
            bias = bias if self.up else None
        else:
            x, demodulation = self.convolve_modulated(x, style)
        if self.up:
            x = fir_filter2d(x, padding=1, gain=4.0)
        return finish(x, demodulation, pixel_noise, bias, self.conv_clamp)

    def modulated_weight(self, style: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the weight of a single sample, modulated and demodulated, times the gain of the activation."""
        factor = self.demodulation(style).t() * style * ACTIVATION_GAIN
        return (self.arranged_weight(style.dtype) * factor[:, :, None, None]).to(dtype)

    def convolve_modulated(self, x: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Convolve x * s, which serves all samples with one weight: factors on channels commute with the convolution.

        Returns:
            The convolution without demodulation, and the demodulation (N, out_channels) times the activation's gain.
        """
        dtype, gain = x.dtype, ACTIVATION_GAIN
        if dtype == torch.float16:
            # What is taken from the style is found again in the demodulation, and needs no gradient.
            style = style / torch.linalg.vector_norm(style.detach(), torch.inf, dim=1, keepdim=True).clamp_min(1e-30)
            gain = ACTIVATION_GAIN / self.half_weight_scale
        demodulation = self.demodulation(style) * gain
        # Rounding a style to 8 bits is one error for all pixels. A single sample's maps are small enough here to be
        # multiplied in float32.
        product_dtype = style.dtype if len(x) == 1 else dtype
        x = (x * style.to(product_dtype)[:, :, None, None]).to(dtype)
        return self.convolve(x, self.arranged_weight(dtype)), demodulation.to(product_dtype)

    def arranged_weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight in `dtype`; one that is held in the order in which the convolution reads it."""

        def arrange() -> Tensor:
            if self.up:
                return weight.transpose(0, 1).contiguous().transpose(0, 1)
            return weight.contiguous(memory_format=torch.channels_last)

        weight = self.scaled("weight", dtype)
        return self.keep("arranged", dtype, arrange) if self.held else weight

    def demodulation(self, style: Tensor) -> Tensor:
        """Return d (N, out_channels) of styles (N, in_channels)."""
        squares = self.keep("squares", style.dtype, lambda: self.weight.to(style.dtype).square().sum(dim=(2, 3)))
        return (style.square() @ squares.t() + DEMODULATION_EPS).rsqrt()

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """Convolve with a weight (out_channels, in_channels, 3, 3): transposed with stride 2 before the FIR filter."""
        return conv_transpose2d(x, weight.transpose(0, 1), stride=2) if self.up else conv2d(x, weight, bias, padding=1)


class ToChannels(ModulatedConv2d):
    """Modulated 1x1 convolution without demodulation that reads an output map off the features: ToRGB and ToMask.

    A convolution of one pixel with a weight of its own for each sample is a matrix product.
    """

    demodulate = False

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, *, conv_clamp: float | None = None) -> None:
        super().__init__(in_channels, out_channels, 1, w_dim)
        self.conv_clamp = conv_clamp
        # The equalised learning rate's, which the demodulation of other layers cancels.
        self.style_gain = 1.0 / math.sqrt(in_channels)
        self.scales = {"weight": self.style_gain, "bias": 1.0}

    def runs_in(self, dtype: torch.dtype) -> torch.dtype:
        return wider(self.weight.dtype, torch.float32)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """(N, in_channels, H, W), (N, w_dim) -> (N, out_channels, H, W), in float32 or better."""
        style = self.style(w)
        weight = self.scaled("weight", style.dtype).flatten(1).t() * style[:, :, None]
        bias = self.scaled("bias", style.dtype)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        if x.dtype == style.dtype:
            y = torch.baddbmm(bias, pixels, weight)
        else:
            # A half's range is small: see `ModulatedConv2d`.
            norm = torch.linalg.vector_norm(weight.detach(), dim=(1, 2), keepdim=True).clamp_min(1e-30)
            y = torch.addcmul(bias, torch.bmm(pixels, (weight / norm).to(x.dtype)), norm)
        y = y.mT.unflatten(2, x.shape[2:])
        return y if self.conv_clamp is None else F.hardtanh(y, -self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution of the backbone: an upsampling and a plain styled convolution, and ToRGB.

    At 4x4 the input is a learned constant and there is the plain convolution only. ToRGB shares its latent with the
    next block's first convolution, so that an image of size R has 2 log2(R) - 2 latents.
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
        self.latent = 2 * resolution.bit_length() - 6  # of conv1; conv0 has the one before it, ToRGB the one after
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, resolution, up=True, conv_clamp=conv_clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)
        self.to_rgb = ToChannels(out_channels, image_channels, w_dim, conv_clamp=conv_clamp)

    def features(self, x: Tensor | None, ws: Tensor, noise: NoiseInput, dtype: torch.dtype) -> Tensor:
        """Return the features before ToRGB, (N, out_channels, r, r) in `dtype`, which the convolutions run in.

        Args:
            x: features of the block below, or None at 4x4.
            ws: all latents, (N, num_latents, w_dim).
        """
        if x is None:
            x = self.const.to(dtype).unsqueeze(0).expand(len(ws), -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), ws[:, self.latent - 1], noise)
        return self.conv1(x, ws[:, self.latent], noise)

    def add_rgb(self, image: Tensor | None, x: Tensor, ws: Tensor) -> Tensor:
        """Return the upsampled image of the block below plus ToRGB of this block's features `x`."""
        rgb = self.to_rgb(x, ws[:, self.latent + 1])
        return rgb if image is None else upsample2d(image) + rgb


class SynthesisNetwork(nn.Module):
    """All synthesis blocks; the image is the sum of their ToRGB outputs, FIR-upsampled (StyleGAN2, section 4.1)."""

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

    def forward(
        self,
        resolutions: Iterable[int],
        ws: Tensor,
        noise: NoiseInput,
        compute_dtype: Callable[[int], torch.dtype],
        x: Tensor | None = None,
        image: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks at `resolutions` on the features `x` and the image of the block below them, if there is one.

        Args:
            ws: per-layer latents, (N, num_latents, w_dim).
            compute_dtype: resolution -> type that its convolutions run in.

        Returns:
            Features and image of the last block.
        """
        resolutions = list(resolutions)
        with scaled_together((self.blocks[str(r)], compute_dtype(r)) for r in resolutions):
            for r in resolutions:
                block: SynthesisBlock = self.blocks[str(r)]  # type: ignore[assignment]
                x = block.features(x, ws, noise, compute_dtype(r))
                image = block.add_rgb(image, x, ws)
        return x, image  # type: ignore[return-value]


@dataclass
class StyleGAN2GeneratorOutput(BaseOutput):
    """Output of `StyleGAN2Generator`: `images`, (N, image_channels, R, R), around [-1, 1], not clamped."""

    images: Tensor


class StyleGAN2Generator(StyleGAN2Model):
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

    kept: dict[tuple[torch.dtype, ...], fused.Prepared] | None = None  # while `hold_weights` keeps it

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

    @property
    def num_latents(self) -> int:
        """Return the number L of per-layer latents, 2 log2(R) - 2."""
        return self.synthesis.num_latents

    def block(self, resolution: int) -> SynthesisBlock:
        """Return the synthesis block at a resolution."""
        return self.synthesis.blocks[str(resolution)]  # type: ignore[return-value]

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
            noise_mode: "random", "const" (the stored noise) or "none". Training draws new noise for every image,
                hence the default; a pipeline, which repeats pictures, has "const".
            generator: source of random noise; N generators make every sample's noise its own.
            latent_space: "z", "w" (one for all layers) or "w+" (one for each layer).

        Raises:
            ValueError: latents whose shape does not fit `latent_space`, an unknown mode.
        """
        if truncation_psi != 1.0 and latent_space != "z":
            raise ValueError('`truncation_psi` acts on z: give it with "z" latents, or truncate w yourself.')
        ws = to_layer_latents(
            self.mapping, object_latents, latent_space, self.num_latents, truncation_psi, "object_latents"
        )
        images = self.synthesize(ws, NoiseInput(noise_mode, len(ws), generator))
        return StyleGAN2GeneratorOutput(images=images) if return_dict else (images,)

    def synthesize(self, ws: Tensor, noise: NoiseInput) -> Tensor:
        """Return images (N, image_channels, R, R) from per-layer latents (N, L, w_dim)."""
        if fused.applies(self, ws):
            return fused.synthesize(self, ws, noise)[0]
        return self.synthesis(self.synthesis.resolutions, ws, noise, self.compute_dtype)[1]


def to_layer_latents(
    mapping: MappingNetwork, latents: Tensor, space: LatentSpace, num_latents: int, truncation_psi: float, name: str
) -> Tensor:
    """Return per-layer latents (N, num_latents, w_dim) from latents in any space; those in "z" are truncated.

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
    if space == "w+":
        return latents
    w = mapping(latents, truncation_psi) if space == "z" else latents
    return w.unsqueeze(1).expand(-1, num_latents, -1)
