"""Drawing on a GPU with few passes over every map: between two convolutions there is one operator.

It reads a map once and writes it once: FIR filter, demodulation, noise, bias, activation, clamp, the gate of the
defect (DFMGAN, equation 1), ToRGB and ToMask, and the multiplication by the style of the convolution that reads it
next happen on the way, in float32. There are no gradients.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from . import operators
from .operators import Convolved, Reading, filtered_epilogue, pointwise_epilogue


def applies(network: Any, ws: Tensor) -> bool:
    """Return whether `synthesize` can draw: in half precision on a GPU, where no gradients are asked for."""
    dtypes = {network.compute_dtype(r) for r in network.synthesis.resolutions}
    return (
        not torch.is_grad_enabled()
        and network.compute_dtype(network.config["resolution"]).itemsize == 2
        and ws.device == network.block(4).const.device
        and all(operators.serve(ws.new_empty(0, dtype=dtype)) for dtype in dtypes)
    )


def synthesize(
    network: Any, modulations: Mapping[Any, Any], noise: Any, *, twins: bool = False, mask_threshold: float = 0.0
) -> tuple[Tensor, Tensor | None]:
    """Draw with a StyleGAN2Generator or a DFMGANGenerator.

    Args:
        network: see `applies`.
        modulations: of all its layers, by `modulate` with `wide`.
        noise: a `NoiseInput`.
        twins: also draw the defect-free twins.
        mask_threshold: see `gate`.

    Returns:
        Images (N, K, R, R), or (2 N, K, R, R) with the twins in the second half, and mask logits (N, 1, R, R) or None.
    """

    def convolve(layer: Any, x: Tensor) -> Convolved:
        weight = layer.arranged_weight(x.dtype)
        x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2) if layer.up else F.conv2d(x, weight, padding=1)
        pixel_noise = noise(layer, layer.noise_const.dtype)
        return Convolved(x, modulations[layer].factor, layer.bias, layer.noise_strength, pixel_noise)

    def convolve_block(block: Any, x: Any) -> Convolved:
        if hasattr(block, "conv0"):
            below = convolve(block.conv0, x)
            x = filtered_epilogue(below, modulations[block.conv1].style, block.conv0.conv_clamp, x.dtype)
        return convolve(block.conv1, x)

    def reading(layer: Any) -> Reading:
        weight, bias = (layer.scaled(name, torch.float32) for name in ("weight", "bias"))
        return Reading(modulations[layer].style, weight, bias)

    residual_blocks = {int(r): block for r, block in getattr(network, "defect_blocks", {}).items()}
    dtypes = {r: network.compute_dtype(r) for r in network.synthesis.resolutions}
    first = network.block(4)
    x = first.const * modulations[first.conv1].style[:, :, None, None]
    x = x.to(dtypes[4], memory_format=torch.channels_last)
    image: Tensor | None = None
    mask: Tensor | None = None
    defect_x: Tensor | None = None
    for r, dtype in dtypes.items():
        # The features of a block leave it only as what the convolutions above it read.
        block, above = network.block(r), 2 * r
        residual = convolve_block(residual_blocks[r], defect_x) if r in residual_blocks else None
        image, mask, x, defect_x = pointwise_epilogue(
            convolve_block(block, x),
            reading(block.to_rgb),
            image,
            block.conv1.conv_clamp,
            dtypes.get(above, dtype),
            style=modulations[network.block(above).conv0].style if above in dtypes else None,
            defect_style=modulations[residual_blocks[above].conv0].style if above in residual_blocks else None,
            residual=residual,
            to_mask=reading(network.to_mask) if residual is not None and mask is None else None,
            mask=mask,
            mask_threshold=mask_threshold,
            twins=twins and residual is not None,
        )
    assert image is not None
    return image, mask
