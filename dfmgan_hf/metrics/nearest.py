"""Is it copying? LPIPS distances of generated images to the nearest training image, and what they are worth."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class NearestReal:
    """Distances to the nearest real image; see `nearest_real`.

    Args:
        median, minimum, percentile_5: of the generated images' distances to their nearest real image.
        real_median: median distance of a real image to the nearest other real one; None for a single real image.
        ratio: median / real_median: well below 1, generated images lie closer to the training images than those do to
            each other; None for a single real image.
        copy_threshold: distance below which an image counts as a copy; None if there is none.
        copy_rate: share of copies among the generated images; None without a threshold.
    """

    median: float
    minimum: float
    percentile_5: float
    real_median: float | None
    ratio: float | None
    copy_threshold: float | None
    copy_rate: float | None


def nearest_real(to_real: Tensor, among_real: Tensor, copy_threshold: float | None = None) -> NearestReal:
    """Summarize the distances to the nearest real images.

    Args:
        to_real: LPIPS of each generated image to each real one, (N, M).
        among_real: LPIPS of the real images among themselves, (M, M).
        copy_threshold: LPIPS below which an image counts as a copy. None: half of the real images' median distance to
            their nearest neighbour; with a single real image there is no such yardstick.

    Raises:
        ValueError: if the tables don't belong together.
    """
    if to_real.ndim != 2 or 0 in to_real.shape or among_real.shape != (to_real.shape[1], to_real.shape[1]):
        raise ValueError(
            f"`to_real` must be (N, M) and `among_real` (M, M), but they are {tuple(to_real.shape)} and "
            f"{tuple(among_real.shape)}."
        )
    nearest = to_real.min(dim=1).values.double()
    median = float(nearest.quantile(0.5))
    real_median = None
    if len(among_real) > 1:
        others = among_real.double() + torch.diag(torch.full((len(among_real),), torch.inf, dtype=torch.float64))
        real_median = float(others.min(dim=1).values.quantile(0.5))
    if copy_threshold is None and real_median is not None:
        copy_threshold = real_median / 2
    return NearestReal(
        median=median,
        minimum=float(nearest.min()),
        percentile_5=float(nearest.quantile(0.05)),
        real_median=real_median,
        ratio=median / real_median if real_median else None,
        copy_threshold=copy_threshold,
        copy_rate=None if copy_threshold is None else float((nearest < copy_threshold).double().mean()),
    )
