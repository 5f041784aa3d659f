"""Drawing on a GPU with few passes over every map: what follows a convolution is one operator.

Between two convolutions a map is written once and read once: FIR filter, demodulation, noise, bias, activation, clamp,
the gate of the defect (DFMGAN, equation 1), ToRGB and ToMask, and the multiplication by the style of the convolution
that reads it next happen on the way, in float32. There are no gradients. Maps are channels last.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import scaled_together

HAS_TRITON = find_spec("triton") is not None


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
        to_mask, mask: with a residual, either what reads the logits off it, or logits (N, 1, H/2, W/2) to upsample.
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


def _outputs(
    x: Tensor,
    demodulation: Tensor,
    to_rgb: Tensor,
    gated: bool,
    scaled: bool,
    defect: bool,
    twins: bool,
    dtype: torch.dtype,
) -> list[Tensor | None]:
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
    outputs = _outputs(
        x, demodulation, rgb_weight, residual is not None, style is not None, defect_style is not None, twins, dtype
    )
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
def _(
    x,
    demodulation,
    bias,
    strength,
    noise,
    rgb_style,
    rgb_weight,
    rgb_bias,
    low_image,
    style,
    defect_style,
    residual,
    *rest,
):  # type: ignore[no-untyped-def]
    outputs = _outputs(
        x, demodulation, rgb_weight, residual is not None, style is not None, defect_style is not None, *rest[-2:]
    )
    return [y for y in outputs if y is not None]


# --- The synthesis ---


def applies(network: Any, ws: Tensor) -> bool:
    """Return whether `synthesize` can draw: in half precision on CUDA, with Triton, where no gradients are asked for.

    Meta tensors stand for CUDA's, so that costs can be counted without a GPU.
    """
    return (
        HAS_TRITON
        and not torch.is_grad_enabled()
        and ws.device.type in ("cuda", "meta")
        and ws.device == network.block(4).const.device
        and network.compute_dtype(network.config["resolution"]).itemsize == 2
    )


class Prepared(NamedTuple):
    """What follows from a network's weights alone.

    Styles and demodulations of all layers are two batched matrix products; narrower layers are padded with zeros.

    Args:
        convolutions: the L styled convolutions.
        readings: ToRGB of all blocks, and ToMask: R layers, each with its scaled weight and bias.
        latents: the latent of each, L + R.
        weights: of the convolutions, scaled, in their types, in the layout that convolutions on a GPU read.
        affine_weights, affine_biases: (L + R, w_dim, in_channels) and (L + R, 1, in_channels).
        squares: sums of the scaled weights' squares over the kernel, (L, in_channels, out_channels).
    """

    convolutions: list[Any]
    readings: list[tuple[Any, Tensor, Tensor]]
    latents: list[int]
    weights: list[Tensor]
    affine_weights: Tensor
    affine_biases: Tensor
    squares: Tensor


def prepare(network: Any) -> Prepared:
    """Compute what `synthesize` needs of the weights of a StyleGAN2Generator or DFMGANGenerator."""
    blocks = [(network.block(r), 0, network.compute_dtype(r)) for r in network.synthesis.resolutions]
    readings = [(block.to_rgb, block.latent + 1) for block, *_ in blocks]
    if hasattr(network, "defect_blocks"):
        # Latents of the defect come behind those of the object.
        resolutions, offset = network.residual_resolutions, network.num_latents
        blocks += [(network.defect_blocks[str(r)], offset, network.compute_dtype(r)) for r in resolutions]
        readings.append((network.to_mask, offset + network.defect_blocks[str(resolutions[0])].latent + 1))
    convolutions = [
        (layer, offset + latent, dtype)
        for block, offset, dtype in blocks
        for layer, latent in ((getattr(block, "conv0", None), block.latent - 1), (block.conv1, block.latent))
        if layer is not None
    ]
    layers = [row[0] for row in (*convolutions, *readings)]
    types = [*(dtype for *_, dtype in convolutions), *(torch.float32 for _ in readings)]
    with scaled_together(zip(layers, types, strict=True)):
        weights = [layer.scaled("weight", dtype) for layer, dtype in zip(layers, types, strict=True)]
        biases = [layer.scaled("bias", torch.float32) for layer, _ in readings]
        affine_weights = [layer.affine.scaled("weight", torch.float32).t() for layer in layers]
        affine_biases = [layer.affine.scaled("bias", torch.float32)[None] for layer in layers]
    count = len(convolutions)
    for i, (layer, *_) in enumerate(convolutions):
        weight = weights[i].transpose(0, 1) if layer.up else weights[i]
        weights[i] = weight.contiguous(memory_format=torch.channels_last)
    squares = [
        (layer.weight.float() * layer.scale("weight", dtype)).square().sum(dim=(2, 3)).t()
        for layer, _, dtype in convolutions
    ]
    return Prepared(
        layers[:count],
        list(zip(layers[count:], weights[count:], biases, strict=True)),
        [row[1] for row in (*convolutions, *readings)],
        weights[:count],
        _stack(affine_weights),
        _stack(affine_biases),
        _stack(squares),
    )


def _kept(network: Any, key: tuple[torch.dtype, ...]) -> Prepared:
    if network.kept is None:
        return prepare(network)
    if key not in network.kept:
        network.kept[key] = prepare(network)
    return network.kept[key]


def _stack(matrices: list[Tensor]) -> Tensor:
    """Stack matrices, padded with zeros to the size of the largest."""
    height, width = (max(m.shape[i] for m in matrices) for i in range(2))
    stacked = matrices[0].new_zeros(len(matrices), height, width)
    torch._foreach_copy_([s[: m.shape[0], : m.shape[1]] for s, m in zip(stacked, matrices, strict=True)], matrices)
    return stacked


class _Layers:
    """The layers of one pass: each with its style, and what it needs beside its input."""

    def __init__(self, prepared: Prepared, latents: Tensor, noise: Any) -> None:
        layers = [*prepared.convolutions, *(layer for layer, *_ in prepared.readings)]
        styles = torch.baddbmm(
            prepared.affine_biases, torch.stack([latents[:, i] for i in prepared.latents]), prepared.affine_weights
        )
        # What is taken from a style here, so that half precision cannot overflow, is found again in the demodulation.
        modulation = styles[: len(prepared.convolutions)]
        modulation.div_(torch.linalg.vector_norm(modulation, torch.inf, dim=2, keepdim=True).clamp_min_(1e-30))
        eps = modulation.new_full((1, 1, 1), 1e-14)  # of weights that may be scaled down
        demodulations = torch.baddbmm(eps, modulation.square(), prepared.squares).rsqrt_()
        self.noise = noise
        self.styles = {layer: s[:, : layer.weight.shape[1]] for layer, s in zip(layers, styles, strict=True)}
        self.demodulations = dict(zip(prepared.convolutions, demodulations, strict=True))
        self.weights = dict(zip(prepared.convolutions, prepared.weights, strict=True))
        self.readings = {layer: Reading(self.styles[layer], weight, bias) for layer, weight, bias in prepared.readings}

    def convolve(self, layer: Any, x: Tensor) -> Convolved:
        if layer.up:
            x = F.conv_transpose2d(x, self.weights[layer], stride=2)
        else:
            x = F.conv2d(x, self.weights[layer], padding=1)
        noise = self.noise(layer, layer.noise_const.dtype)
        return Convolved(x, self.demodulations[layer][:, : x.shape[1]], layer.bias, layer.noise_strength, noise)

    def convolve_block(self, block: Any, x: Tensor) -> Convolved:
        """Run the convolutions of a block on the features below it, scaled by the style of the first."""
        if hasattr(block, "conv0"):
            made = self.convolve(block.conv0, x)
            x = filtered_epilogue(made, self.styles[block.conv1], block.conv0.conv_clamp, x.dtype)
        return self.convolve(block.conv1, x)


def synthesize(
    network: Any,
    ws: Tensor,
    noise: Any,
    defect_ws: Tensor | None = None,
    *,
    twins: bool = False,
    mask_threshold: float = 0.0,
) -> tuple[Tensor, Tensor | None]:
    """Draw with a StyleGAN2Generator, or with a DFMGANGenerator if there are latents of defects.

    Args:
        network: see `applies`.
        ws, defect_ws: per-layer latents, (N, L, w_dim) and (N, L_defect, w_dim).
        noise: a `NoiseInput`.
        twins: also draw the defect-free twins.
        mask_threshold: see `gate`.

    Returns:
        Images (N, K, R, R), or (2 N, K, R, R) with the twins in the second half, and mask logits (N, 1, R, R) or None.
    """
    resolutions = network.synthesis.resolutions
    dtypes = {r: network.compute_dtype(r) for r in resolutions}
    prepared = _kept(network, tuple(dtypes.values()))
    layers = _Layers(prepared, ws if defect_ws is None else torch.cat([ws, defect_ws], dim=1), noise)
    residual_blocks = {} if defect_ws is None else {int(r): block for r, block in network.defect_blocks.items()}
    first = network.block(4)
    x: Tensor | None = (first.const * layers.styles[first.conv1][:, :, None, None]).to(
        dtypes[4], memory_format=torch.channels_last
    )
    image = mask = defect_x = None
    for r in resolutions:
        block, above = network.block(r), 2 * r
        residual = layers.convolve_block(residual_blocks[r], defect_x) if r in residual_blocks else None
        image, new_mask, x, defect_x = pointwise_epilogue(
            layers.convolve_block(block, x),
            layers.readings[block.to_rgb],
            image,
            block.conv1.conv_clamp,
            dtypes.get(above, dtypes[r]),
            style=layers.styles[network.block(above).conv0] if above in dtypes else None,
            defect_style=layers.styles[residual_blocks[above].conv0] if above in residual_blocks else None,
            residual=residual,
            to_mask=None if residual is None or mask is not None else layers.readings[network.to_mask],
            mask=mask,
            mask_threshold=mask_threshold,
            twins=twins and residual is not None,
        )
        mask = new_mask
    return image, mask
