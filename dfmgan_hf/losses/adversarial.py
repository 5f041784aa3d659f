"""Non-saturating logistic losses (Goodfellow et al. 2014; StyleGAN2, section 4)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def generator_loss(fake_logits: Tensor) -> Tensor:
    """softplus(-D(G(z))), averaged over the batch. `fake_logits`: (N, 1). Returns a scalar."""
    return F.softplus(-fake_logits).mean()


def discriminator_fake_loss(fake_logits: Tensor) -> Tensor:
    """softplus(D(G(z))), averaged over the batch. `fake_logits`: (N, 1). Returns a scalar."""
    return F.softplus(fake_logits).mean()


def discriminator_real_loss(real_logits: Tensor) -> Tensor:
    """softplus(-D(x)), averaged over the batch. `real_logits`: (N, 1). Returns a scalar."""
    return F.softplus(-real_logits).mean()
