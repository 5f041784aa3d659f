"""The StyleGAN2 generator (Karras et al., CVPR 2020): mapping, modulated convolutions, synthesis."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, get_args

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
    sides,
)
from .layers import (
    ACTIVATION_GAIN,
    EqualizedLayer,
    EqualizedLinear,
    conv2d,
    finish,
    scale_channels,
    scaled_together,
    upsample2d,
    upsampling_conv2d,
    wider,
)

MAPPING_LR_MULTIPLIER = 0.01
W_AVG_DECAY = 0.995
DEMODULATION_EPS = 1e-8
HALF_WEIGHT_SCALE = 2.0**-10
"""Of a convolution's weight in float16: see `ModulatedConv2d`."""

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = get_args(NoiseMode)
LatentSpace = Literal["z", "w", "w+"]


class MappingNetwork(nn.Module):
    """z -> w by fully connected layers (StyleGAN, section 2), with a moving average of w for the truncation trick.

    Args:
        z_dim, w_dim, num_layers: widths and depth.
        num_kinds: kinds of latents that are asked for by number, each with a learnt code beside z and an average of
            its own; 0 for none.
    """

    w_avg: Tensor
    conditioning: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_layers: int, num_kinds: int = 0) -> None:
        super().__init__()
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.num_kinds = num_kinds
        widths = [2 * z_dim if num_kinds else z_dim] + [w_dim] * num_layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, lr_multiplier=MAPPING_LR_MULTIPLIER, activation=True)
            for a, b in itertools.pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros((num_kinds, w_dim) if num_kinds else w_dim))
        if num_kinds:
            self.kinds = nn.Embedding(num_kinds, z_dim)
            # How much the code counts: training goes from 0 to 1.
            self.register_buffer("conditioning", torch.ones(()))

    def forward(self, z: Tensor, truncation_psi: float = 1.0, kinds: Tensor | None = None) -> Tensor:
        """Map z (N, z_dim), normally N(0, 1), to w (N, w_dim) in float32, or in float64 if the weights are.

        Args:
            z: brought to unit mean square first.
            truncation_psi: w_avg + psi (w - w_avg); 1 leaves w alone, smaller values trade variety for typicality.
            kinds: int64 (N,), the number of each latent's kind, of a network that has several.

        Raises:
            ValueError: the network has kinds and they are not given, or the other way round.
        """
        if (kinds is None) == (self.num_kinds > 0):
            wanted = f"numbers from 0 to {self.num_kinds - 1}, one for each latent" if self.num_kinds else "None"
            raise ValueError(f"`kinds` must be {wanted}, but is {kinds}.")
        dtype = wider(self.w_avg.dtype, torch.float32)
        x = _to_unit_mean_square(z.to(dtype))
        average = self.w_avg.to(dtype)
        if kinds is not None:
            code = _to_unit_mean_square(self.kinds(kinds).to(dtype))
            x = torch.cat([x, self.conditioning.to(dtype) * code], dim=1)
            average = average[kinds]
        with scaled_together((layer, dtype) for layer in self.layers):
            for layer in self.layers:
                x = layer(x)
        if truncation_psi != 1.0:
            x = average.lerp(x, truncation_psi)
        return x

    @torch.no_grad()
    def update_w_avg(self, mean: Tensor) -> None:
        """Move `w_avg` towards a mean of w, (w_dim,) or one for each kind (num_kinds, w_dim), with decay 0.995."""
        self.w_avg.copy_(mean.detach().to(self.w_avg.dtype).lerp(self.w_avg, W_AVG_DECAY))


def _to_unit_mean_square(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


class ModulatedConv2d(EqualizedLayer):
    """A convolution whose weight each sample's style scales (StyleGAN2, section 2.2).

    The style is an affine function of a latent of width `w_dim`. For output channel o, input channel i and kernel
    position k, with the style s = affine(w):

        w'_oik = s_i w_oik                            (equation 1)
        d_o = 1 / sqrt(sum_ik w'_oik^2 + eps)         (equation 3, of `StyledConv2d` alone)
        y_o = d_o sum_i conv(x_i, w'_oi)

    Half precision overflows in the sum over channels. There, styles are divided by their largest and demodulated
    weights by 1024, so that it cannot: a weight has about unit variance at the start and grows slowly. A factor on
    the output, in float32 or a demodulated one, takes both back.
    """

    demodulate = True
    style_gain = 1.0

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, w_dim: int) -> None:
        super().__init__()
        self.affine = EqualizedLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def squares(self) -> Tensor:
        """Return the sums over the kernel of the weight's squares, (out_channels, in_channels)."""
        dtype = wider(self.weight.dtype, torch.float32)
        return self.keep("squares", dtype, lambda: self.weight.to(dtype).square().sum(dim=(2, 3)))


class Modulation(NamedTuple):
    """What a modulated convolution multiplies the channels of its input and output by.

    With demodulation both are in the type that the layer runs in, since rounding a style is one error for all pixels;
    but in float32 or better for a single sample, which has few numbers to multiply, and without demodulation.

    Args:
        style: s, (N, in_channels), in float16 divided by the largest of the sample's.
        factor: d times the gain of the activation, (N, out_channels), and what has to be taken back in float16;
            without demodulation that alone, (N, 1), or None if there is nothing.
    """

    style: Tensor
    factor: Tensor | None


Modulations = dict[ModulatedConv2d, Modulation]


@contextmanager
def modulated_layers(
    requests: Sequence[tuple[ModulatedConv2d, torch.dtype, Tensor]], wide: bool = False
) -> Iterator[Modulations]:
    """Inside, the layers' parameters have been scaled together; yield their modulations, see `modulate`."""
    with scaled_together((layer, dtype) for layer, dtype, _ in requests):
        yield modulate(requests, wide)


def modulate(requests: Sequence[tuple[ModulatedConv2d, torch.dtype, Tensor]], wide: bool = False) -> Modulations:
    """Return the modulations of layers; the styles of all of them are one product of matrices with rows of zeros.

    Styles and what follows from them are a few thousand numbers: float32 costs nothing and cannot overflow.

    Args:
        requests: each layer, the type of its block and its latents (N, w_dim).
        wide: for `fused`, which multiplies in float32: leave them in it, and undivided without demodulation.
    """
    requests = sorted(requests, key=lambda request: str(request[1]))  # those of a type together
    layers = [layer for layer, _, _ in requests]
    dtype = wider(layers[0].weight.dtype, torch.float32)
    widest = max(len(layer.affine.weight) for layer in layers)

    def joined(name: str) -> Tensor:
        parameters: list[Tensor] = [getattr(layer.affine, name) for layer in layers]
        zero = parameters[0].new_zeros(())
        padded = (t for p in parameters for t in (p, zero.expand(widest - len(p), *p.shape[1:])))
        return torch.cat(list(padded)).unflatten(0, (len(layers), widest)).to(dtype)

    weight, bias = (
        layers[0].keep(f"{name} of {len(layers)} styles", dtype, partial(joined, name)) for name in ("weight", "bias")
    )
    latents = torch.stack([w for _, _, w in requests]).to(dtype)
    styles = torch.baddbmm(bias[:, None], latents, weight.mT, alpha=layers[0].affine.weight_scale)

    modulations: Modulations = {}
    counts = Counter(block_dtype for _, block_dtype, _ in requests)
    for block_dtype, group in zip(counts, styles.split(list(counts.values())), strict=True):
        members = layers[len(modulations) :][: len(group)]
        undivided, gain = group, ACTIVATION_GAIN
        largest: Tensor | None = None
        if block_dtype == torch.float16:
            # Found again in the factors, so that it needs no gradient.
            largest = torch.linalg.vector_norm(group.detach(), torch.inf, dim=2, keepdim=True).clamp_min(1e-30)
            group, gain = group / largest, gain / HALF_WEIGHT_SCALE
        product_dtype = dtype if wide or group.shape[1] == 1 else block_dtype
        demodulations = _demodulations(members, group.square(), gain, product_dtype)
        exact = undivided if wide else group
        for i, (layer, exact_style, rounded) in enumerate(zip(members, exact, group.to(product_dtype), strict=True)):
            style = rounded if layer.demodulate else exact_style
            factor = demodulations.get(layer, None if wide or largest is None else largest[i])
            modulations[layer] = Modulation(style[:, : layer.weight.shape[1]], factor)
    return modulations


def _demodulations(
    layers: Sequence[ModulatedConv2d], squares: Tensor, gain: float, dtype: torch.dtype
) -> dict[ModulatedConv2d, Tensor]:
    """Return the demodulations, times `gain`, from the squares of the styles of all `layers`."""
    sums = {
        layer: square[:, : layer.weight.shape[1]] @ layer.squares().t()
        for layer, square in zip(layers, squares, strict=True)
        if layer.demodulate
    }
    if not sums:
        return {}
    demodulations = ((torch.cat(list(sums.values()), dim=1) + DEMODULATION_EPS).rsqrt() * gain).to(dtype)
    return dict(zip(sums, demodulations.split([s.shape[1] for s in sums.values()], dim=1), strict=True))


@contextmanager
def hold_weights(network: nn.Module) -> Iterator[None]:
    """Inside, without gradients, layers compute once what follows from their weights alone.

    It saves a tenth of an image's time in float32, more in bf16, and may need up to twice the weights' memory.
    The weights must not change meanwhile.
    """
    layers = [module for module in network.modules() if isinstance(module, EqualizedLayer)]
    for layer in layers:
        layer.kept, layer.held = {}, True
    try:
        yield
    finally:
        for layer in layers:
            layer.kept, layer.held = None, False


NOISE_PARTS = 64
"""Copies of its stored noise that a layer mixes to noise of an object's own."""


class NoiseInput:
    """Where the layers of one forward pass get their noise.

    Noise is one standard normal value per pixel, shared by all channels (StyleGAN, section 3.2). What was drawn for a
    layer is kept, so that a defect image and its defect-free twin, or two halves of the mode-seeking loss, see the
    same noise.

    Args:
        mode: "random" draws it, "const" takes the layer's stored buffer, or mixes it by `codes`, "none" leaves it out.
        batch_size: number of samples N of the pass.
        generator: source of random noise: None, one generator, or N of them, in which case the noise of a sample
            depends on its own generator only. Drawn on the generator's device, then moved.
        given: noise (N, 1, height, width) of layers for which none is to be drawn.
        codes: of the samples, by `object_codes`, (N, K): in mode "const", each then has noise of its own.

    Raises:
        ValueError: an unknown mode, or a list of generators whose length is not the batch size.
    """

    def __init__(
        self,
        mode: NoiseMode,
        batch_size: int,
        generator: RandomSource = None,
        given: Mapping[StyledConv2d, Tensor] | None = None,
        codes: Tensor | None = None,
    ) -> None:
        if mode not in NOISE_MODES:
            raise ValueError(f"`noise_mode` must be one of {', '.join(NOISE_MODES)}, but is {mode!r}.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"`generator` lists {len(generator)} generators for a batch of {batch_size}.")
        self.mode = mode
        self.batch_size = batch_size
        self.generator = generator
        self.codes = codes
        self._drawn: dict[StyledConv2d, Tensor] = dict(given or {})

    @property
    def is_shared(self) -> bool:
        """Return whether all samples have the layers' stored noise."""
        return self.mode == "const" and self.codes is None

    def __call__(self, layer: StyledConv2d, dtype: torch.dtype) -> Tensor | None:
        """Return the noise of `layer`: (N, 1, height, width), (height, width) if it is stored, or None."""
        if self.mode == "none":
            return None
        if self.is_shared:
            return layer.noise_const.to(dtype)
        if layer not in self._drawn:
            size, device = layer.noise_const.shape, layer.noise_const.device
            if self.codes is not None:
                noise = mix_noise(layer.noise_const, self.codes)
            elif isinstance(self.generator, list):
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
        kept = {layer: noise[which] for layer, noise in self._drawn.items()}
        codes = None if self.codes is None else self.codes[which]
        return NoiseInput(self.mode, len(range(self.batch_size)[which]), generator, kept, codes)


def object_codes(ws: Tensor) -> Tensor:
    """Return what tells objects apart, (N, K) of unit length, K being at most `NOISE_PARTS`, of w - w_avg (N, w_dim).

    Sums of K groups of w's numbers; all zero for the average itself. It changes as smoothly as w does.
    """
    count = min(NOISE_PARTS, ws.shape[1])
    return F.normalize(F.pad(ws, (0, -ws.shape[1] % count)).unflatten(1, (-1, count)).sum(dim=1), dim=1)


def mix_noise(stored: Tensor, codes: Tensor) -> Tensor:
    """Return noise (N, 1, height, width) of objects with these `codes` (N, K), from one stored noise (height, width).

    The sum of K copies of it, each a Kth further on and over the edge, with the codes as weights: again one standard
    normal value per pixel, and nearly independent where codes are.
    """
    flat, count = stored.flatten().to(codes.dtype), codes.shape[1]
    step = max(len(flat) // count, 1)
    copies = flat.repeat(2 + count * step // len(flat)).unfold(0, len(flat), step)[:count]
    return (codes @ copies).unflatten(1, (1, *stored.shape))


class StyledConv2d(ModulatedConv2d):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU and clamp: one layer of a synthesis block.

    The noise is added after demodulation and before the bias, times a learned scalar that starts at 0. `size` is
    height and width of the output; `up` makes the convolution a transposed one of stride 2 that the FIR filter
    follows, which doubles both; `conv_clamp` None is no clamp.
    """

    noise_const: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        size: tuple[int, int],
        *,
        up: bool = False,
        conv_clamp: float | None = None,
    ) -> None:
        super().__init__(in_channels, out_channels, 3, w_dim)
        self.noise_strength = nn.Parameter(torch.zeros([]))
        self.register_buffer("noise_const", torch.randn(size))
        self.up = up
        self.conv_clamp = conv_clamp
        self.scales = {"weight": 1.0, "bias": ACTIVATION_GAIN, "noise_strength": ACTIVATION_GAIN}

    def scale(self, name: str, dtype: torch.dtype) -> float:
        return HALF_WEIGHT_SCALE if name == "weight" and dtype == torch.float16 else super().scale(name, dtype)

    def forward(self, x: Tensor, modulation: Modulation, noise: NoiseInput) -> Tensor:
        """(N, in_channels, H, W), modulation of N samples -> (N, out_channels, *size).

        Factors on channels commute with the convolution, so that one weight serves all samples of a batch:
        conv(x * s, w) * d. A single sample's weight is modulated itself if it is smaller than its maps.
        """
        dtype, single = x.dtype, len(x) == 1
        shift: Tensor | None
        if noise.is_shared and not single:
            shift, pixel_noise = self.keep("shift", dtype, lambda: self.constant_shift(noise, dtype)), None
        else:
            shift, pixel_noise = self.scaled("bias", dtype)[:, None, None], self.scaled_noise(noise, dtype)
        # The layout in which convolutions are fastest; not every one of them keeps to its input's.
        x = x.contiguous(memory_format=torch.channels_last)
        style, demodulation = modulation
        if single and self.weight.numel() <= x.numel():
            weight, demodulation = self.modulated_weight(modulation, dtype), None
        else:
            x, weight = scale_channels(x, style).to(dtype), self.arranged_weight(dtype)
        if self.up:
            x = upsampling_conv2d(x, weight)
        elif demodulation is None:
            x, shift = conv2d(x, weight, self.scaled("bias", dtype), padding=1), None
        else:
            x = conv2d(x, weight, padding=1)
        return finish(x, demodulation, shift, pixel_noise, self.conv_clamp)

    def scaled_noise(self, noise: NoiseInput, dtype: torch.dtype) -> Tensor | None:
        """Return the noise times its strength and the gain of the activation."""
        pixel_noise = noise(self, dtype)
        return None if pixel_noise is None else pixel_noise * self.scaled("noise_strength", dtype)

    def constant_shift(self, noise: NoiseInput, dtype: torch.dtype) -> Tensor:
        """Return bias plus stored noise, (out_channels, height, width) in the layout of the features.

        A small map for all samples, which spares a pass over theirs.
        """
        pixel_noise = self.scaled_noise(noise, dtype)
        assert pixel_noise is not None
        return (pixel_noise[:, :, None] + self.scaled("bias", dtype)).permute(2, 0, 1)

    def modulated_weight(self, modulation: Modulation, dtype: torch.dtype) -> Tensor:
        """Return the weight of a single sample, modulated and demodulated, for a convolution in `dtype`."""
        style, demodulation = modulation
        assert demodulation is not None
        factor = demodulation.t() * (style * self.scale("weight", dtype))
        return (self.arranged_weight(style.dtype) * factor[:, :, None, None]).to(dtype)

    def arranged_weight(self, dtype: torch.dtype) -> Tensor:
        """Return the weight in `dtype`; one that is held in the order in which the convolution reads it."""

        def arrange() -> Tensor:
            if self.up and weight.device.type == "cpu":
                return weight.transpose(0, 1).contiguous().transpose(0, 1)
            if self.up:
                return weight.transpose(0, 1).contiguous(memory_format=torch.channels_last).transpose(0, 1)
            return weight.contiguous(memory_format=torch.channels_last)

        weight = self.scaled("weight", dtype)
        return self.keep("arranged", dtype, arrange) if self.held else weight


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

    def forward(self, x: Tensor, modulation: Modulation) -> Tensor:
        """(N, in_channels, H, W), modulation of N samples -> (N, out_channels, H, W), in float32 or better."""
        style, factor = modulation
        weight = self.scaled("weight", style.dtype).flatten(1).t() * style[:, :, None]
        bias = self.scaled("bias", style.dtype)
        pixels = x.permute(0, 2, 3, 1).flatten(1, 2)
        if x.dtype == style.dtype:
            y = torch.baddbmm(bias, pixels, weight)
        else:
            y = torch.bmm(pixels, weight.to(x.dtype))
            y = bias + y if factor is None else torch.addcmul(bias, y, factor[:, :, None])
        y = y.mT.unflatten(2, x.shape[2:])
        return y if self.conv_clamp is None else F.hardtanh(y, -self.conv_clamp, self.conv_clamp)


class SynthesisBlock(nn.Module):
    """One resolution of the backbone: an upsampling and a plain styled convolution, and ToRGB.

    At 4x4 the input is a learned constant and there is the plain convolution only. ToRGB shares its latent with the
    next block's first convolution, so that an image of size R has 2 log2(R) - 2 latents. A block is called by its
    shorter side: one at r works on (r h, r w) pixels, `aspect` being (h, w).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        conv_clamp: float | None,
        aspect: Sequence[int],
    ) -> None:
        super().__init__()
        size = sides(resolution, aspect)
        self.latent = 2 * resolution.bit_length() - 6  # of conv1; conv0 has the one before it, ToRGB the one after
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(out_channels, *size))
        else:
            self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, size, up=True, conv_clamp=conv_clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, size, conv_clamp=conv_clamp)
        self.to_rgb = ToChannels(out_channels, image_channels, w_dim, conv_clamp=conv_clamp)

    def layers(self, ws: Sequence[Tensor], dtype: torch.dtype) -> list[tuple[ModulatedConv2d, torch.dtype, Tensor]]:
        """Return the layers, each with `dtype` and its own of all latents `ws`, for `modulated_layers`."""
        convolutions = [self.conv1, self.to_rgb] if hasattr(self, "const") else [self.conv0, self.conv1, self.to_rgb]
        first = self.latent + 2 - len(convolutions)
        return [(layer, dtype, w) for layer, w in zip(convolutions, ws[first:], strict=False)]

    def features(self, x: Tensor | None, modulations: Modulations, noise: NoiseInput, dtype: torch.dtype) -> Tensor:
        """Return the features before ToRGB, (N, out_channels, h, w) in `dtype`, which the convolutions run in.

        Args:
            x: features of the block below, or None at 4x4.
            modulations: of all layers.
        """
        if x is None:
            x = self.const.to(dtype).unsqueeze(0).expand(len(modulations[self.conv1].style), -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), modulations[self.conv0], noise)
        return self.conv1(x, modulations[self.conv1], noise)

    def add_rgb(self, image: Tensor | None, x: Tensor, modulations: Modulations) -> Tensor:
        """Return the upsampled image of the block below plus ToRGB of this block's features `x`."""
        rgb = self.to_rgb(x, modulations[self.to_rgb])
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
        aspect: Sequence[int],
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(resolution)
        self.num_latents = 2 * len(self.resolutions)
        self.blocks = nn.ModuleDict()
        in_channels = 0
        for r in self.resolutions:
            out_channels = channels_at(r, channel_base, channel_max)
            self.blocks[str(r)] = SynthesisBlock(
                in_channels, out_channels, w_dim, r, image_channels, conv_clamp, aspect
            )
            in_channels = out_channels

    def forward(
        self,
        resolutions: Iterable[int],
        modulations: Modulations,
        noise: NoiseInput,
        compute_dtype: Callable[[int], torch.dtype],
    ) -> tuple[Tensor, Tensor]:
        """Run the blocks at `resolutions`, from 4x4 on, and return features and image of the last one.

        Args:
            modulations: of all their layers.
            compute_dtype: resolution -> type that its convolutions run in.
        """
        x: Tensor | None = None
        image: Tensor | None = None
        for r in resolutions:
            block: SynthesisBlock = self.blocks[str(r)]  # type: ignore[assignment]
            x = block.features(x, modulations, noise, compute_dtype(r))
            image = block.add_rgb(image, x, modulations)
        return x, image  # type: ignore[return-value]


@dataclass
class StyleGAN2GeneratorOutput(BaseOutput):
    """Output of `StyleGAN2Generator`: `images`, (N, image_channels, H, W), around [-1, 1], not clamped."""

    images: Tensor


class StyleGAN2Generator(StyleGAN2Model):
    """StyleGAN2 generator of defect-free images: the backbone that stage 1 trains.

    Args:
        resolution: shorter side of the images, a power of two from 32 to 1024; channels and latents follow it.
        image_channels: 1 (grey) or 3 (RGB).
        z_dim, w_dim: widths of the latents.
        mapping_layers: layers of the mapping network: 2, or 8 in the large presets.
        channel_base: channels at resolution r are min(channel_base // r, channel_max). None: 16384 below 512x512,
            32768 from there on.
        channel_max: upper limit of the channels.
        conv_clamp: clamp of the activations; None for none.
        window: shorter side of the part of a photograph that an image shows, in the photograph's pixels, for painting
            into photographs; 0 for the whole, None if it is not known. Networks do not depend on it.
        aspect: height and width as multiples of the shorter side, of which one is 1 and the other 1, 2 or 4: of images
            (H, W) = `image_size(config)`.
        object_noise: noise mode "const" gives each object noise of its own, which follows from its w; False, as
            published, the same stored noise to all. For generators that draw by noise what differs from object to
            object, such as spots (`PhotographNoise`).
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
        window: int | None = None,
        aspect: Sequence[int] = (1, 1),
        object_noise: bool = False,
    ) -> None:
        super().__init__()
        channel_base = channel_base or default_channel_base(resolution)
        check_network_size(resolution, channel_base, aspect)
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {image_channels}.")
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(
            resolution, image_channels, w_dim, channel_base, channel_max, conv_clamp, aspect
        )

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
            noise_mode: "random", "const" (the stored noise, see `object_noise`) or "none". Training draws new noise
                for every image, hence the default; a pipeline, which repeats pictures, has "const".
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
        images = self.synthesize(ws, self.noise(noise_mode, ws, generator))
        return StyleGAN2GeneratorOutput(images=images) if return_dict else (images,)

    def noise(self, mode: NoiseMode, ws: Tensor, generator: RandomSource = None) -> NoiseInput:
        """Return where a pass on per-layer latents (N, L, w_dim) gets its noise, see `forward`."""
        codes = None
        if mode == "const" and self.config["object_noise"]:
            codes = object_codes((ws[:, 0] - self.mapping.w_avg).to(torch.float32))
        return NoiseInput(mode, len(ws), generator, codes=codes)

    def layers(self, resolutions: Iterable[int], ws: Tensor) -> list[tuple[ModulatedConv2d, torch.dtype, Tensor]]:
        """Return the layers of the blocks at `resolutions`, for `modulated_layers`; `ws` is (N, L, w_dim)."""
        latents = ws.unbind(dim=1)
        return [layer for r in resolutions for layer in self.block(r).layers(latents, self.compute_dtype(r))]

    def synthesize(self, ws: Tensor, noise: NoiseInput) -> Tensor:
        """Return images (N, image_channels, H, W) from per-layer latents (N, L, w_dim)."""
        blocks, is_fused = self.synthesis.resolutions, fused.applies(self, ws)
        with modulated_layers(self.layers(blocks, ws), wide=is_fused) as modulations:
            if is_fused:
                return fused.synthesize(self, modulations, noise)[0]
            return self.synthesis(blocks, modulations, noise, self.compute_dtype)[1]


def to_layer_latents(
    mapping: MappingNetwork,
    latents: Tensor,
    space: LatentSpace,
    num_latents: int,
    truncation_psi: float,
    name: str,
    kinds: Tensor | None = None,
) -> Tensor:
    """Return per-layer latents (N, num_latents, w_dim) from latents in any space; those in "z" are truncated.

    `kinds` are the numbers (N,) of what a mapping network of several kinds is asked for.

    Raises:
        ValueError: an unknown space, or latents whose shape does not fit it; the message calls them `name`.
    """
    if space not in get_args(LatentSpace):
        raise ValueError(f"The latent space of `{name}` must be 'z', 'w' or 'w+', but is {space!r}.")
    w_dim = mapping.w_dim
    expected = {"z": (mapping.z_dim,), "w": (w_dim,), "w+": (num_latents, w_dim)}[space]
    if tuple(latents.shape[1:]) != expected:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"`{name}` in space {space!r} must be (N, {wanted}), but is {tuple(latents.shape)}.")
    if space == "w+":
        return latents
    w = mapping(latents, truncation_psi, kinds) if space == "z" else latents
    return w.unsqueeze(1).expand(-1, num_latents, -1)
