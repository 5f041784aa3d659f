"""Cross-domain distance consistency (Ojha et al., CVPR 2021, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_domain_consistency(source: Sequence[Tensor], target: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """How differently two generators see the same latents: KL between the similarities of their features.

    For each sample a: cosine similarities of its features to those of the other B - 1 samples at layer `layers[a]`,
    as a distribution by softmax, p in the source and q in the target; p (log p - log q), averaged over all B (B - 1)
    entries. That is 1 / (B - 1) of the mean KL(p || q), as the authors' code has it; the paper writes the other
    direction, summed over layers.

    Args:
        source: features of the frozen generator by layer, (B, ...) each; they get no gradient.
        target: features of the trained generator from the same latents, of the same shapes.
        layers: the layer at which each of the B samples is compared, B numbers.

    Returns:
        A scalar of at least 0; 0 if the similarities agree.

    Raises:
        ValueError: fewer than 3 samples: a single similarity is a distribution that nothing can change.
    """
    if len(layers) < 3:
        raise ValueError(f"Distances are compared among at least 3 samples, but there are {len(layers)}.")
    p, q = (
        torch.stack([_similarities(features[layer], sample) for sample, layer in enumerate(layers)])
        for features in (source, target)
    )
    return F.kl_div(q, p.detach(), reduction="none", log_target=True).mean()


def _similarities(features: Tensor, sample: int) -> Tensor:
    """Log-probabilities (B - 1,) that follow from the similarity of one sample to the others."""
    flat = features.flatten(1).to(torch.promote_types(features.dtype, torch.float32))
    others = torch.cat([flat[:sample], flat[sample + 1 :]])
    return F.log_softmax(F.cosine_similarity(flat[sample : sample + 1], others, dim=1), dim=0)
