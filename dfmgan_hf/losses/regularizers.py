"""The two gradient penalties of StyleGAN2: R1 on the discriminator, path length on the generator."""

from __future__ import annotations

import math

import torch
from torch import Tensor

PATH_LENGTH_DECAY = 0.01
"""Step of the running mean of path lengths (StyleGAN2, appendix B)."""


def r1_gamma(resolution: int, batch_size: int) -> float:
    """Default weight of R1: 0.0002 R^2 / batch (StyleGAN2-ADA, appendix D). `batch_size` counts all processes."""
    return 0.0002 * resolution**2 / batch_size


def r1_penalty(real_logits: Tensor, real_inputs: Tensor) -> Tensor:
    """Squared gradient of the discriminator at real images (Mescheder et al. 2018, equation 9), without gamma / 2.

    Args:
        real_logits: (N, 1), computed from `real_inputs`.
        real_inputs: (N, C, H, W) that require gradients.

    Returns:
        (N,), summed over pixels and channels; differentiable.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_inputs, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3))


def path_lengths(images: Tensor, ws: Tensor, image_noise: Tensor) -> Tensor:
    """Length of the image's gradient with respect to the latents (StyleGAN2, section 3.2, equation 4).

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
