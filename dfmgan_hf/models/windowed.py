"""A defect is small: computing its residual, and what its twin has different, only where they can be.

Outside the mask the residual is multiplied by zero, and outside the reach of the convolutions the defect-free twin is
the defect image. Both are computed on a window around the mask with the margin that the convolutions reach into, so
that the result is the whole map's. Finding the window waits for the device, which is free on a CPU only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .defect import DefectResidualBlock
from .noise import NoiseInput
from .resampling import upsample2d
from .synthesis import SynthesisNetwork
from .window import Window

if TYPE_CHECKING:
    from .generator import DFMGANGenerator, Trunk

BLOCK_REACH = 3
"""Pixels that a block's output depends on around each of its own: two convolutions and the filter between them."""

BLOCK_MARGIN = 2
"""The same in pixels of the block's input, rounded up."""


SMALLEST_SAMPLE = 2**17
"""Numbers in the trunk's features of a sample, below which a batch is faster than its samples one by one."""


@dataclass
class TwinPatch:
    """Where the defect-free twin differs from the defect image at one resolution.

    Args:
        reach: pixels that the defect has influence on, (1, 1, r, r).
        window: around them.
        features: of the twin, in the window.
        image: the twin's skip image, in the window.
    """

    reach: Tensor
    window: Window
    features: Tensor
    image: Tensor


def synthesize_windowed(
    generator: DFMGANGenerator,
    trunk: Trunk,
    ws: Tensor,
    defect_ws: Tensor,
    return_defect_free: bool,
    mask_threshold: float,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Everything above the trunk for one sample, without gradients.

    Args:
        generator: with its weights.
        trunk: of one sample.
        ws: per-layer object latents (1, L, w_dim).
        defect_ws: per-layer defect latents (1, L_defect, w_dim).
        return_defect_free: also draw the twin.
        mask_threshold: as in `gate`.

    Returns:
        The image (1, C, R, R), its mask logits (1, 1, R, R), and the defect-free twin (1, C, R, R) or None.
    """
    synthesis, noise = generator.synthesis, trunk.noise
    residual, mask = generator.first_residual(trunk, defect_ws)
    inside = Window.whole(residual)
    x, image = trunk.features, trunk.image
    patch: TwinPatch | None = None
    for i, r in enumerate(generator.residual_resolutions):
        dtype = generator.compute_dtype(r)
        if i > 0:
            mask = upsample2d(mask)
        on = mask >= mask_threshold
        window = Window.around(on)
        if i > 0:
            block: DefectResidualBlock = generator.defect_blocks[str(r)]  # type: ignore[assignment]
            # Noise is drawn for all layers in their order, whether or not it is used.
            for layer in (block.conv0, block.conv1):
                noise(layer, dtype)
            if window is not None:
                below = window.halved().grown(BLOCK_MARGIN, r // 2)
                inside = below.doubled()
                residual = block(below.crop(x).to(dtype), defect_ws[:, 2 * i + 1 :], noise.window(inside))
        features = synthesis.block_features(r, x, ws, noise, dtype)
        if return_defect_free:
            patch = _twin_patch(synthesis, r, patch, on, features, x, image, ws, noise)
        if window is not None:
            gated = window.crop(features)
            gated.addcmul_(window.crop(residual, inside), window.crop(on).to(dtype))
        x = features
        image = synthesis.add_rgb(r, image, x, ws)
    if not return_defect_free:
        return image, mask, None
    twin = image.clone()
    if patch is not None:
        part = patch.window.crop(twin)
        part.copy_(torch.where(patch.window.crop(patch.reach), patch.image, part))
    return image, mask, twin


def _twin_patch(
    synthesis: SynthesisNetwork,
    resolution: int,
    patch: TwinPatch | None,
    on: Tensor,
    features: Tensor,
    x: Tensor,
    image: Tensor,
    ws: Tensor,
    noise: NoiseInput,
) -> TwinPatch | None:
    """The twin at `resolution`.

    Args:
        synthesis: the backbone.
        resolution: of the block.
        patch: the twin at the resolution below; None as long as it is the defect image.
        on: where a residual is about to be added, (1, 1, r, r).
        features: the defect image's, before that.
        x: the defect image's features at the resolution below.
        image: the defect image's skip image at the resolution below.
        ws, noise: of the pass.
    """
    reach = on if patch is None else on | _reach_above(patch)
    window = Window.around(reach)
    if window is None:
        return None
    below = window.halved().grown(BLOCK_MARGIN, resolution // 2)
    if patch is not None:
        below = below.united(patch.window)  # on a coarser grid there
    around, below_image = below.doubled(), below.crop(image)
    if patch is None:
        own_features = window.crop(features).clone()
    else:
        below_x, below_image = below.crop(x).clone(), below_image.clone()
        patch.window.crop(below_x, below).copy_(patch.features)
        patch.window.crop(below_image, below).copy_(patch.image)
        own = synthesis.block_features(resolution, below_x, ws, noise.window(around), features.dtype)
        own_features = window.crop(own, around)
    own_image = window.crop(upsample2d(below_image), around) + synthesis.rgb(resolution, own_features, ws)
    return TwinPatch(reach, window, own_features, own_image)


def _reach_above(patch: TwinPatch) -> Tensor:
    """Output pixels of a block that its input has influence on through the pixels of `patch`, (1, 1, 2 r, 2 r)."""
    size = patch.reach.shape[-1]
    # Only around the patch: the whole map takes longer to look through than a small convolution.
    around = patch.window.grown(BLOCK_MARGIN, size)
    y = F.interpolate(around.crop(patch.reach).to(torch.float32), scale_factor=2)
    width = 2 * BLOCK_REACH + 1
    y = F.max_pool2d(y, (width, 1), stride=1, padding=(BLOCK_REACH, 0))
    y = F.max_pool2d(y, (1, width), stride=1, padding=(0, BLOCK_REACH))
    reach = patch.reach.new_zeros((1, 1, 2 * size, 2 * size))
    around.doubled().crop(reach).copy_(y > 0)
    return reach


def windows_pay(trunk_features: Tensor) -> bool:
    """Whether windows can be found without waiting, maps be overwritten and samples be drawn one by one at no loss."""
    if trunk_features.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return len(trunk_features) == 1 or trunk_features[0].numel() >= SMALLEST_SAMPLE
