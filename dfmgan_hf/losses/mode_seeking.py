"""Mode seeking on masks (DFMGAN, section 3.3, equation 2; Mao et al. 2019)."""

from __future__ import annotations

from torch import Tensor


def mode_seeking_loss(latents1: Tensor, latents2: Tensor, outputs1: Tensor, outputs2: Tensor) -> Tensor:
    """mean|w1 - w2| / mean|m1 - m2|: small when different defect latents draw different masks.

    Args:
        latents1, latents2: defect latents of the two halves, (N/2, ..., w_dim) (w as published; z in an ablation).
        outputs1, outputs2: what they draw on the same objects: tanh(10 M), (N/2, 1, R, R) as published, or the
            images in an ablation.

    Returns:
        A scalar. Masks that are exactly equal give a large, finite value.
    """
    spread = (outputs1 - outputs2).abs().mean()
    return (latents1 - latents2).abs().mean() / spread.clamp_min(1e-8)
