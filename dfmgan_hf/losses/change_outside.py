"""What a defect changes where its mask says that there is none; not in the paper."""

from __future__ import annotations

from torch import Tensor


def change_outside(images: Tensor, twins: Tensor, mask_logits: Tensor) -> Tensor:
    """Mean absolute difference between a defect image and its twin, counted outside the mask only.

    The gate acts at every resolution on the mask of that resolution. A small spot of a mask can vanish when the mask
    is upsampled and smoothed, while what it let into the image stays: a defect without a mask. This term takes it
    back; its gradient reaches the residual blocks only, as the gate passes none to the mask.

    Args:
        images: (N, C, R, R) in about [-1, 1].
        twins: the same without the defect; they get no gradient.
        mask_logits: (N, 1, R, R); the mask is where they are at least 0.

    Returns:
        A scalar of at least 0, the mean over all pixels.
    """
    return ((images - twins.detach()).abs() * (mask_logits < 0)).mean()
