"""Drawing on a GPU with few passes over every map: what follows a convolution is one operator.

Between two convolutions a map is written once and read once: FIR filter, demodulation, noise, bias, activation, clamp,
the gate of the defect (DFMGAN, equation 1), ToRGB and ToMask, and the multiplication by the style of the convolution
that reads it next happen on the way, in float32. There are no gradients. Maps are channels last.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class Convolved(NamedTuple):
    """Output of a styled convolution, before what follows it.

    Args:
        x: (M, C, H, W), channels last, of a convolution without demodulation. M is N, or 2 N where the second half are
            the defect-free twins of the first.
        demodulation: (N, C).
        bias: (C,).
        strength: of the noise, a scalar.
        noise: (N, 1, r, r), or (r, r) for all samples, or None.
    """

    x: Tensor
    demodulation: Tensor
    bias: Tensor
    strength: Tensor
    noise: Tensor | None


class Reading(NamedTuple):
    """ToRGB or ToMask: style (N, C), weight (K, C, 1, 1) and bias (K,)."""

    style: Tensor
    weight: Tensor
    bias: Tensor


def filtered_epilogue(convolved: Convolved, style: Tensor, limit: float | None, dtype: torch.dtype) -> Tensor:
    """Finish a transposed convolution of stride 2, and scale the result for the next convolution.

    Args:
        convolved: of (M, C, H + 1, W + 1).
        style: of the next convolution, (N, C).
        limit: clamp of the activations, or None.
        dtype: of the result.

    Returns:
        style * clamp(lrelu(demodulation * FIR(x) + noise + bias)), (M, C, H, W), channels last.
    """
    return _filtered_epilogue(*convolved, style, limit, dtype)


class Finished(NamedTuple):
    """What `pointwise_epilogue` makes.

    Args:
        image: (M, K, H, W), float32.
        mask: logits (N, 1, H, W), float32; None without a residual.
        scaled: (M, C, H, W), the features for the next convolution of the backbone, or None.
        defect_scaled: (N, C, H, W), those of the defect images for the next residual block, or None.
    """

    image: Tensor
    mask: Tensor | None
    scaled: Tensor | None
    defect_scaled: Tensor | None


def pointwise_epilogue(
    features: Convolved,
    to_rgb: Reading,
    image: Tensor | None,
    limit: float | None,
    dtype: torch.dtype,
    *,
    style: Tensor | None = None,
    defect_style: Tensor | None = None,
    residual: Convolved | None = None,
    to_mask: Reading | None = None,
    mask: Tensor | None = None,
    mask_threshold: float = 0.0,
    twins: bool = False,
) -> Finished:
    """Finish a block: activation, gated residual, ToRGB, the sum of images, and the scaled maps for what comes next.

    Args:
        features: of the backbone's second convolution. Where the twins begin (`twins`, M = N), they have the same.
        to_rgb: of the backbone.
        image: (M or N, K, H/2, W/2), float32, which is upsampled and added; None at 4x4.
        limit: clamp of the activations, of ToRGB and of ToMask, or None.
        dtype: of the scaled maps.
        style: of the backbone's next convolution, (N, C); None for no such map.
        defect_style: likewise of the next residual block.
        residual: of the residual block's second convolution, (N, C, H, W).
        to_mask, mask: with a residual, either what reads the logits off it, or the logits (N, 1, H/2, W/2) to upsample.
        mask_threshold: the residual is added where the logits are at least this.
        twins: draw the twins of all samples too, in a second half of image and scaled map.
    """
    none: tuple[None, ...] = (None,) * 5
    outputs = _pointwise_epilogue(
        *features, *to_rgb, image, style, defect_style,
        *(none if residual is None else residual), *(none[:3] if to_mask is None else to_mask), mask,
        limit, mask_threshold, twins, dtype,
    )  # fmt: skip
    outputs.reverse()
    return Finished(
        outputs.pop(),
        None if residual is None else outputs.pop(),
        None if style is None else outputs.pop(),
        None if defect_style is None else outputs.pop(),
    )


def _empty_map(like: Tensor, samples: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    shape = (samples, like.shape[1], height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _maps(*maps: Tensor) -> list[Tensor]:
    return [x.contiguous(memory_format=torch.channels_last) for x in maps]


def _noise_stride(noise: Tensor | None) -> int:
    return 0 if noise is None or noise.dim() == 2 or len(noise) == 1 else noise[0].numel()


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _filtered_tile(height: int, width: int, channels: int) -> tuple[int, int, int, int]:
    """Return rows, columns, channels and warps of a tile."""
    tile = min(_power_of_two(channels), 64)
    return min(_power_of_two(height), 8), min(_power_of_two(width), 1024 // tile), tile, 4


def _pointwise_tile(height: int, width: int, channels: int) -> tuple[int, int, int]:
    """Return pixels, channels (all of them) and warps of a tile."""
    tile = _power_of_two(channels)
    return min(_power_of_two(height * width), max(1, 2048 // tile)), tile, 4


@torch.library.custom_op(
    "dfmgan_hf::filtered_epilogue",
    mutates_args=(),
    schema="(Tensor x, Tensor demodulation, Tensor bias, Tensor strength, Tensor? noise, Tensor style, float? limit, "
    "ScalarType dtype) -> Tensor",
)
def _filtered_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    strength: Tensor,
    noise: Tensor | None,
    style: Tensor,
    limit: float | None,
    dtype: torch.dtype,
) -> Tensor:
    from .kernels import filtered_kernel

    (x,) = _maps(x)
    height, width, channels = x.shape[2] - 1, x.shape[3] - 1, x.shape[1]
    out = _empty_map(x, len(x), height, width, dtype)
    rows, columns, tile, warps = _filtered_tile(height, width, channels)
    grid = len(x) * -(-height // rows) * -(-width // columns) * -(-channels // tile)
    filtered_kernel[(grid,)](
        x, demodulation, noise, strength, bias, style, out, len(demodulation), height, width, channels,
        demodulation.stride(0), _noise_stride(noise), style.stride(0),
        limit=limit, ROWS=rows, COLUMNS=columns, CHANNELS=tile, num_warps=warps,
    )  # fmt: skip
    return out


@_filtered_epilogue.register_fake
def _(x, demodulation, bias, strength, noise, style, limit, dtype):  # type: ignore[no-untyped-def]
    return _empty_map(x, len(x), x.shape[2] - 1, x.shape[3] - 1, dtype)


def _outputs(x: Tensor, demodulation: Tensor, to_rgb: Tensor, gated: bool, scaled: bool, defect: bool, twins: bool, dtype: torch.dtype) -> list[Tensor | None]:
    samples, (height, width) = len(demodulation), x.shape[2:]
    total = 2 * samples if twins else samples
    return [
        x.new_empty(total, len(to_rgb), height, width, dtype=torch.float32),
        x.new_empty(samples, 1, height, width, dtype=torch.float32) if gated else None,
        _empty_map(x, total, height, width, dtype) if scaled else None,
        _empty_map(x, samples, height, width, dtype) if defect else None,
    ]


@torch.library.custom_op(
    "dfmgan_hf::pointwise_epilogue",
    mutates_args=(),
    schema="(Tensor x, Tensor demodulation, Tensor bias, Tensor strength, Tensor? noise, Tensor rgb_style, "
    "Tensor rgb_weight, Tensor rgb_bias, Tensor? low_image, Tensor? style, Tensor? defect_style, Tensor? residual, "
    "Tensor? residual_demodulation, Tensor? residual_bias, Tensor? residual_strength, Tensor? residual_noise, "
    "Tensor? mask_style, Tensor? mask_weight, Tensor? mask_bias, Tensor? low_mask, float? limit, float threshold, "
    "bool twins, ScalarType dtype) -> Tensor[]",
)
def _pointwise_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    strength: Tensor,
    noise: Tensor | None,
    rgb_style: Tensor,
    rgb_weight: Tensor,
    rgb_bias: Tensor,
    low_image: Tensor | None,
    style: Tensor | None,
    defect_style: Tensor | None,
    residual: Tensor | None,
    residual_demodulation: Tensor | None,
    residual_bias: Tensor | None,
    residual_strength: Tensor | None,
    residual_noise: Tensor | None,
    mask_style: Tensor | None,
    mask_weight: Tensor | None,
    mask_bias: Tensor | None,
    low_mask: Tensor | None,
    limit: float | None,
    threshold: float,
    twins: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    from .kernels import pointwise_kernel

    (x,) = _maps(x)
    outputs = _outputs(x, demodulation, rgb_weight, residual is not None, style is not None, defect_style is not None, twins, dtype)
    channels, height, width = x.shape[1:]
    pixels, tile, warps = _pointwise_tile(height, width, channels)
    grid = len(outputs[0]) * -(-height * width // pixels)

    def stride(factors: Tensor | None) -> int:
        return 0 if factors is None else factors.stride(0)

    pointwise_kernel[(grid,)](
        x, demodulation, noise, strength, bias,
        None if residual is None else _maps(residual)[0],
        residual_demodulation, residual_noise, residual_strength, residual_bias,
        mask_style, mask_weight, mask_bias, low_mask, rgb_style, rgb_weight, rgb_bias, low_image, style, defect_style,
        *outputs, len(demodulation), len(x), 0 if low_image is None else len(low_image), height, width, channels,
        stride(demodulation), _noise_stride(noise), stride(residual_demodulation), _noise_stride(residual_noise),
        stride(mask_style), stride(rgb_style), stride(style), stride(defect_style), threshold,
        limit=limit, IMAGE_CHANNELS=len(rgb_weight), PIXELS=pixels, CHANNELS=tile, num_warps=warps,
    )  # fmt: skip
    return [y for y in outputs if y is not None]


@_pointwise_epilogue.register_fake
def _(x, demodulation, bias, strength, noise, rgb_style, rgb_weight, rgb_bias, low_image, style, defect_style, residual, *rest):  # type: ignore[no-untyped-def]
    outputs = _outputs(x, demodulation, rgb_weight, residual is not None, style is not None, defect_style is not None, *rest[-2:])
    return [y for y in outputs if y is not None]


class Prepared:
    """What a network's fused synthesis needs of its weights alone.

    Args:
        convolutions: styled convolutions, each with the latent that modulates it and the type that it runs in.
        readings: ToRGB and ToMask layers, each with its latent.
    """

    def __init__(self, convolutions: list[tuple[Any, int, torch.dtype]], readings: list[tuple[Any, int]]) -> None:
        self.convolutions, self.readings = [row[0] for row in convolutions], [row[0] for row in readings]
        self.latents = [row[1] for row in [*convolutions, *readings]]
        layers = [*self.convolutions, *self.readings]
        width = max(layer.weight.shape[1] for layer in layers)
        height = max(layer.weight.shape[0] for layer in self.convolutions)
        affine_weights, affine_biases, squares, divisors = [], [], [], []
        self.weights: dict[Any, Tensor] = {}
        for layer in layers:
            affine = layer.affine
            missing = width - len(affine.bias)
            affine_weights.append(F.pad(affine.weight.float().t() * (affine.weight_scale * layer.style_gain), (0, missing)))
            affine_biases.append(F.pad(affine.bias.float() * (affine.bias_scale * layer.style_gain), (0, missing)))
        for layer, _, dtype in convolutions:
            weight = layer.weight.float()
            missing = (0, height - len(weight), 0, width - weight.shape[1])
            squares.append(F.pad(weight.square().sum(dim=(2, 3)).t(), missing))
            # Half precision overflows in the sum over channels. With weights divided by this, and styles by their
            # largest, it cannot; the demodulation takes both divisions back.
            divisor = weight.abs().amax(dim=(1, 2, 3)) * math.sqrt(weight[0].numel())
            divisors.append(F.pad(divisor, missing[:2]))
            weight = (weight / divisor[:, None, None, None]).to(dtype)
            weight = weight.transpose(0, 1) if layer.up else weight
            self.weights[layer] = weight.contiguous(memory_format=torch.channels_last)
        self.affine_weights, self.affine_biases = torch.stack(affine_weights), torch.stack(affine_biases)[:, None]
        self.squares, self.divisors = torch.stack(squares), torch.stack(divisors)[:, None]

    def modulate(self, latents: Tensor) -> tuple[dict[Any, Tensor], dict[Any, Tensor]]:
        """Return each layer's style (N, in_channels) and demodulation (N, out_channels) from latents (N, L, w_dim)."""
        count = len(self.convolutions)
        latents = torch.stack([latents[:, i] for i in self.latents])
        styles = torch.baddbmm(self.affine_biases, latents, self.affine_weights)
        modulation = styles[:count]
        eps = modulation.new_full((1, 1, 1), 1e-8)
        demodulation = torch.baddbmm(eps, modulation.square(), self.squares).rsqrt_()
        largest = modulation.abs().amax(dim=2, keepdim=True).clamp_min_(torch.finfo(torch.float32).tiny)
        modulation.div_(largest)
        demodulation.mul_(self.divisors).mul_(largest)
        by_layer = {layer: s[:, : layer.weight.shape[1]] for layer, s in zip([*self.convolutions, *self.readings], styles)}
        return by_layer, {layer: d[:, : len(layer.weight)] for layer, d in zip(self.convolutions, demodulation)}


class Synthesis:
    """One pass."""

    def __init__(self, network: Any, prepared: Prepared, latents: Tensor, noise: Any) -> None:
        self.network, self.prepared, self.noise = network, prepared, noise
        self.styles, self.demodulations = prepared.modulate(latents)

    def convolve(self, layer: Any, x: Tensor) -> Convolved:
        weight = self.prepared.weights[layer]
        x = F.conv_transpose2d(x, weight, stride=2) if layer.up else F.conv2d(x, weight, padding=layer.padding)
        return Convolved(
            x, self.demodulations[layer], layer.bias, layer.noise_strength, self.noise(layer, layer.noise_const.dtype)
        )

    def reading(self, layer: Any) -> Reading:
        return Reading(self.styles[layer], layer.weight, layer.bias)

    def block(self, block: Any, x: Tensor) -> Convolved:
        """Run both convolutions of a block on its scaled input."""
        if hasattr(block, "conv0"):
            x = filtered_epilogue(self.convolve(block.conv0, x), self.styles[block.conv1], block.conv0.conv_clamp, x.dtype)
        return self.convolve(block.conv1, x)


def prepare(network: Any) -> Prepared:
    convolutions, readings = [], []
    for r in network.synthesis.resolutions:
        block = network.block(r)
        if hasattr(block, "conv0"):
            convolutions.append((block.conv0, block.latent - 1, network.compute_dtype(r)))
        convolutions.append((block.conv1, block.latent, network.compute_dtype(r)))
        readings.append((block.to_rgb, block.latent + 1))
    for r in getattr(network, "residual_resolutions", []):
        block, offset = network.defect_blocks[str(r)], network.num_latents
        convolutions.append((block.conv0, offset + block.latent - 1, network.compute_dtype(r)))
        convolutions.append((block.conv1, offset + block.latent, network.compute_dtype(r)))
        if r == network.residual_resolutions[0]:
            readings.append((network.to_mask, offset + block.latent + 1))
    return Prepared(convolutions, readings)


def synthesize(
    network: Any, prepared: Prepared, latents: Tensor, noise: Any, *, twins: bool = False, mask_threshold: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Return images, and of a DFMGAN generator mask logits; the second half of the images are twins, if asked for."""
    run = Synthesis(network, prepared, latents, noise)
    resolutions = network.synthesis.resolutions
    residuals = getattr(network, "defect_blocks", {})
    first = network.block(4)
    dtype = network.compute_dtype(4)
    x = (first.const * run.styles[first.conv1][:, :, None, None]).to(dtype, memory_format=torch.channels_last)
    image = mask = defect_x = None
    for r in resolutions:
        block = network.block(r)
        residual = to_mask = None
        if str(r) in residuals:
            residual = run.block(residuals[str(r)], defect_x)
            to_mask = run.reading(network.to_mask) if mask is None else None
        features = run.block(block, x)
        last = r == resolutions[-1]
        image, mask, x, defect_x = pointwise_epilogue(
            features,
            run.reading(block.to_rgb),
            image,
            block.conv1.conv_clamp,
            dtype if last else network.compute_dtype(2 * r),
            style=None if last else run.styles[network.block(2 * r).conv0],
            defect_style=run.styles[residuals[str(2 * r)].conv0] if str(2 * r) in residuals else None,
            residual=residual,
            to_mask=to_mask,
            mask=mask,
            mask_threshold=mask_threshold,
            twins=twins and residual is not None,
        )
    return image, mask
