"""Statistics of masks, real beside generated: how large, how many empty or full, how many at the border."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..training import RunningStatistics
from ..training.monitoring import AREA_EDGES

FULL_AREA = 0.9
"""A mask that covers more of the image than this counts as full."""


def report_masks(statistics: RunningStatistics, kind: Literal["real", "fake"], masks: Tensor) -> None:
    """Report the area (mean and histogram) and the rates of empty, full and border-touching masks.

    Args:
        statistics: takes mask_area/, mask_empty/, mask_full/ and mask_border/ `kind`.
        kind: whose masks they are.
        masks: (N, 1, R, R), bool.
    """
    areas = masks.to(torch.float32).mean(dim=(1, 2, 3))
    border = masks[..., [0, -1], :].flatten(1).any(dim=1) | masks[..., :, [0, -1]].flatten(1).any(dim=1)
    statistics.report(f"mask_area/{kind}", areas)
    statistics.report(f"mask_empty/{kind}", (areas == 0).to(torch.float32))
    statistics.report(f"mask_full/{kind}", (areas > FULL_AREA).to(torch.float32))
    statistics.report(f"mask_border/{kind}", border.to(torch.float32))
    statistics.report_histogram(f"mask_area/{kind}", areas, AREA_EDGES)


def mask_difference(first: Tensor, second: Tensor) -> Tensor:
    """1 - intersection / union of pairs of masks (N, 1, R, R), bool: (N,), 0 for two empty ones."""
    union = (first | second).sum(dim=(1, 2, 3))
    return (first ^ second).sum(dim=(1, 2, 3)) / union.clamp_min(1)
