"""The mode-seeking loss of a batch that is spread over processes and micro-batches (DFMGAN, section 3.3)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..models import DFMGANGenerator, soft_mask
from .drawing import Drawing

SMALLEST_SPREAD = 1e-8
"""Masks that are exactly equal give a large, finite value."""


def seeking_distances(
    generator: DFMGANGenerator, drawing: Drawing, on: Literal["mask", "image"], latents: Literal["w", "z"]
) -> Tensor:
    """The first half's objects once more, with the second half's defects: how far latents and outputs are apart.

    On masks, only the first residual block and ToMask run again.

    Args:
        generator: of the drawing.
        drawing: an even number of samples.
        on: distances between masks tanh(10 M) (published) or images.
        latents: distances between w (published) or z.

    Returns:
        mean|w1 - w2| and mean|m1 - m2|, (2,).

    Raises:
        ValueError: an odd number of samples.
    """
    if len(drawing.ws) % 2:
        raise ValueError(
            f"The mode-seeking loss pairs the halves of a micro-batch, but this one has {len(drawing.ws)} samples: "
            "choose `batch_size` and `accumulation_steps` so that it is even."
        )
    half = len(drawing.ws) // 2
    trunk, other_ws = drawing.trunk.samples(slice(half)), drawing.defect_ws[half:]
    if on == "mask":
        first = soft_mask(drawing.mask_logits[:half])
        second = soft_mask(generator.mask_logits(trunk, other_ws))
    else:
        assert drawing.images is not None
        first = drawing.images[:half]
        second = generator.synthesize_defect(trunk, drawing.ws[:half], other_ws).images
    codes = drawing.defect_ws if latents == "w" else drawing.defect_z
    return torch.stack([(codes[:half] - codes[half:]).abs().mean(), (first - second).abs().mean()])


def ratio_of_means(part: Tensor, means: Tensor) -> Tensor:
    """A part's share of the mode-seeking loss of the whole batch (DFMGAN, equation 2).

    The loss is a ratio of two means over the batch, so that the mean of the parts' own ratios would be another loss.
    This has the value of the whole batch's ratio, and gradients whose mean over the parts is that ratio's gradient.

    Args:
        part: distances of this part, (2,), with gradients.
        means: their means over all parts of the batch, (2,), without.

    Returns:
        A scalar.
    """
    latents, outputs = means.unbind()
    spread = outputs.clamp_min(SMALLEST_SPREAD)
    ratio = latents / spread
    # Where the spread is clamped it has no gradient.
    slope = torch.stack([1 / spread, torch.where(outputs > SMALLEST_SPREAD, -ratio / spread, 0.0)])
    return ratio + (slope * (part - part.detach())).sum()
