"""Drawing on a GPU with few passes over every map: between two convolutions there is one operator.

It reads a map once and writes it once: FIR filter, demodulation, noise, bias, activation, clamp, the gate of the
defect (DFMGAN, equation 1), ToRGB and ToMask, and the multiplication by the style of the convolution that reads it
next happen on the way, in float32. There are no gradients.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .layers import scaled_together
from .operators import Convolved, Reading, filtered_epilogue, pointwise_epilogue, serve


def applies(network: Any, ws: Tensor) -> bool:
    """Return whether `synthesize` can draw: in half precision on a GPU, where no gradients are asked for."""
    return (
        not torch.is_grad_enabled()
        and network.compute_dtype(network.config["resolution"]).itemsize == 2
        and ws.device == network.block(4).const.device
        and serve(ws)
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
