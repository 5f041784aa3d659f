"""Losses as functions of tensors: StyleGAN2's (section 4, appendix B), the hinge, and `change_outside` of stage 2.

Stage 2's mode seeking, which runs the generator again, is in `methods/dfmgan.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

PATH_LENGTH_DECAY = 0.01
"""Step of the running mean of path lengths (StyleGAN2, appendix B)."""


def logistic_loss(logits: Tensor, sign: int) -> Tensor:
    """Return softplus(-sign D), averaged over `logits` (N, 1).

    In the discriminator's loss, `sign` is 1 on real images, softplus(-D(x)), and -1 on generated ones,
    softplus(D(G(z))). The generator's loss, the non-saturating one, is softplus(-D(G(z))): `sign` 1 on generated ones.
    """
    return F.softplus(-sign * logits).mean()


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Return -D(G(z)): the mean over images and patches, the sum over the heads, of `fake_logits` (N, heads, patches).

    The hinge loss (Lim and Ye 2017, arXiv 1705.02894) is that of `ProjectedDiscriminator`.
    """
    return -fake_logits.mean(dim=(0, 2)).sum()


def hinge_discriminator_loss(logits: Tensor, sign: int) -> Tensor:
    """Return max(0, 1 - sign D), likewise; `sign` is 1 on real and -1 on generated images."""
    return F.relu(1 - sign * logits).mean(dim=(0, 2)).sum()


def feature_distance(features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    """Return how much two lists of maps (N, C, H, W) differ: LPIPS without learnt weights (Zhang et al. 2018, eq. 1).

    Channels are brought to unit length at each place; squared differences are summed over channels and maps, and
    averaged over places and images.
    """
    distances = (
        (F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(dim=1).mean()
        for a, b in zip(features, others, strict=True)
    )
    return torch.stack(list(distances)).sum()


def r1_gamma(resolution: int, batch_size: int) -> float:
    """Return the default weight of R1: 0.0002 R^2 / batch (StyleGAN2-ADA, appendix D); the batch of all processes."""
    return 0.0002 * resolution**2 / batch_size


def r1_penalty(real_logits: Tensor, real_inputs: Tensor) -> Tensor:
    """Return the squared gradient at real images, without gamma / 2 (Mescheder et al. 2018, equation 9).

    Args:
        real_logits: (N, 1), computed from `real_inputs`.
        real_inputs: (N, C, H, W) that require gradients.

    Returns:
        (N,), summed over pixels and channels; differentiable.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_inputs, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, image_noise: Tensor) -> Tensor:
    """Return ||J^T y||, y ~ N(0, I) / sqrt(H W), J = d image / d w (StyleGAN2, section 3.2, equation 4).

    Both stages penalise its distance from its own running mean every few steps (`methods/stylegan2.py`).

    Args:
        images: (N, C, H, W), computed from `ws`.
        ws: per-layer latents (N, L, w_dim) that require gradients; in stage 2 those of the object.
        image_noise: N(0, 1), like `images`; divided by sqrt(H W) here.

    Returns:
        (N,): the root of the mean over layers of the squared norm; differentiable.
    """
    projection = (images * (image_noise / math.sqrt(images.shape[2] * images.shape[3]))).sum()
    (gradient,) = torch.autograd.grad(projection, ws, create_graph=True)
    return gradient.square().sum(dim=2).mean(dim=1).sqrt()


def change_outside(images: Tensor, twins: Tensor, mask_logits: Tensor) -> Tensor:
    """Return the mean absolute difference between a defect image and its twin, counted outside the mask only.

    Not in the paper. The gate acts at every resolution on the mask of that resolution. A small spot of a mask can
    vanish when the mask is upsampled and smoothed, while what it let into the image stays: a defect without a mask.
    This term takes it back; its gradient reaches the residual blocks only, as the gate passes none to the mask.

    Args:
        images: (N, C, R, R) in about [-1, 1].
        twins: the same without the defect; they get no gradient.
        mask_logits: (N, 1, R, R); the mask is where they are at least 0.

    Returns:
        A scalar of at least 0, the mean over all pixels.
    """
    return ((images - twins.detach()).abs() * (mask_logits < 0)).mean()


VISIBLE_CHANGE = 0.1
"""Of an image in [-1, 1]: 13 of 255 levels, which the eye sees on most surfaces."""


def unchanged_inside(images: Tensor, twins: Tensor, masks: Tensor) -> Tensor:
    """Return how much of a defect that was asked for is missing: relu(1 - |change| / `VISIBLE_CHANGE`) in the masks.

    Not in the paper, where the generator draws the masks itself.

    Args:
        images: (N, C, R, R) in about [-1, 1].
        twins: the same without the defect; they get no gradient.
        masks: bool (N, 1, R, R).

    Returns:
        (N,) in [0, 1]; 0 for an empty mask.
    """
    change = (images - twins.detach()).abs().mean(dim=1, keepdim=True)
    missing = (F.relu(1 - change / VISIBLE_CHANGE) * masks).sum(dim=(1, 2, 3))
    return missing / masks.sum(dim=(1, 2, 3)).clamp_min(1)
