"""Wasserstein losses with gradient penalty (WGAN-GP, Gulrajani et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """E D(G) - E D(x) (WGAN-GP, equation 3, without the penalty). Scores of any shape; returns a scalar."""
    return fake_scores.mean() - real_scores.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """(|gradient of D| - 1)^2 at random points between real and generated images, without the weight (WGAN-GP, eq. 3).

    The critic of an image is the mean over its patches, as in the loss that it belongs to.

    Args:
        critic: images (N, C, H, W) -> scores (N, ...).
        real, fake: (N, C, H, W).

    Returns:
        (N,), differentiable.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real, fake, share).detach().requires_grad_()
    scores = critic(between).flatten(1).mean(dim=1)
    (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square()
