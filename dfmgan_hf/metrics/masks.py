"""Do generated masks look like real ones? Area, empty and full masks, position, pieces."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ..arguments import require

GRID = 8
"""Rows and columns of the position map."""

_COLUMNS = ("area", "row", "column", "touches_border", "pieces")
MEASUREMENTS = len(_COLUMNS) + GRID * GRID
"""Numbers that `measure_masks` takes of a mask."""

_LARGE_AREA = 0.5


@dataclass(frozen=True)
class MaskStatistics:
    """Statistics of a set of masks. Position, border and pieces are of the masks that are not empty.

    Args:
        num_masks: masks measured.
        empty_rate: share of masks without a defect pixel.
        large_rate: share of masks that cover more than half of the image.
        area_mean, area_std: covered share of the image.
        area_percentiles: 5th, 25th, 50th, 75th and 95th percentile of that share.
        border_rate: share of masks that touch the image's border.
        pieces_mean: mean number of 8-connected pieces.
        centroid_mean, centroid_std: (row, column) of the centroids, 0 at the top or left and 1 at the bottom or right.
        position_map: covered share of each cell of a grid of 8 x 8, averaged over the masks; rows from the top.
    """

    num_masks: int
    empty_rate: float
    large_rate: float
    area_mean: float
    area_std: float
    area_percentiles: list[float]
    border_rate: float | None
    pieces_mean: float | None
    centroid_mean: list[float] | None
    centroid_std: list[float] | None
    position_map: list[list[float]]


@dataclass(frozen=True)
class MaskComparison:
    """Generated beside real masks.

    Args:
        area_ratio: mean area of generated masks / mean area of real ones; None if the real ones are all empty.
        area_distance: Wasserstein-1 distance of the two distributions of areas (in shares of the image).
        position_distance: total variation, in [0, 1], of the two position maps when each sums to 1: 0 means that
            defects lie where they lie in the real images; None if all masks of a set are empty.
    """

    area_ratio: float | None
    area_distance: float
    position_distance: float | None


def measure_masks(masks: Tensor) -> Tensor:
    """Measure each mask; `summarize_masks` makes statistics of it.

    Args:
        masks: (N, 1, H, W), non-zero on the defect; H and W at least 8.

    Returns:
        float64 (N, MEASUREMENTS). An empty mask has its centroid at (0, 0), which summaries leave out.
    """
    require("scipy", purpose="Counting the pieces of masks")
    from scipy import ndimage

    if masks.ndim != 4 or masks.shape[1] != 1 or min(masks.shape[2:]) < GRID:
        raise ValueError(f"`masks` must be (N, 1, H, W), at least {GRID}x{GRID}, but is {tuple(masks.shape)}.")
    on = masks[:, 0] != 0
    height, width = on.shape[1:]
    pixels = on.double()
    count = pixels.sum(dim=(1, 2))
    rows = (torch.arange(height, dtype=torch.float64) + 0.5) / height
    columns = (torch.arange(width, dtype=torch.float64) + 0.5) / width
    border = on[:, 0].any(1) | on[:, -1].any(1) | on[:, :, 0].any(1) | on[:, :, -1].any(1)
    pieces = [ndimage.label(mask.numpy(), structure=np.ones((3, 3)))[1] for mask in on]
    row = (pixels.sum(dim=2) @ rows) / count.clamp(min=1)
    column = (pixels.sum(dim=1) @ columns) / count.clamp(min=1)
    measured = count / (height * width), row, column, border.double(), torch.tensor(pieces, dtype=torch.float64)
    position = torch.nn.functional.adaptive_avg_pool2d(pixels[:, None], GRID).flatten(1)
    return torch.cat([torch.stack(measured, dim=1), position], dim=1)


def summarize_masks(measurements: Tensor) -> MaskStatistics:
    """Summarize what `measure_masks` returned, (N, MEASUREMENTS).

    Raises:
        ValueError: if there is no mask.
    """
    if measurements.ndim != 2 or len(measurements) == 0 or measurements.shape[1] != MEASUREMENTS:
        raise ValueError(
            f"`measurements` must be (N, {MEASUREMENTS}), N at least 1, but is {tuple(measurements.shape)}."
        )
    area, row, column, border, pieces = measurements[:, : len(_COLUMNS)].unbind(1)
    some = area > 0
    centroids = torch.stack([row[some], column[some]], dim=1)
    quantiles = torch.tensor([0.05, 0.25, 0.5, 0.75, 0.95], dtype=torch.float64)
    any_defect = bool(some.any())
    return MaskStatistics(
        num_masks=len(area),
        empty_rate=float((~some).double().mean()),
        large_rate=float((area > _LARGE_AREA).double().mean()),
        area_mean=float(area.mean()),
        area_std=float(area.std(correction=0)),
        area_percentiles=area.quantile(quantiles).tolist(),
        border_rate=float(border[some].mean()) if any_defect else None,
        pieces_mean=float(pieces[some].mean()) if any_defect else None,
        centroid_mean=centroids.mean(dim=0).tolist() if any_defect else None,
        centroid_std=centroids.std(dim=0, correction=0).tolist() if any_defect else None,
        position_map=_position_map(measurements).tolist(),
    )


def compare_masks(generated: Tensor, real: Tensor) -> MaskComparison:
    """Compare what `measure_masks` returned of generated and of real masks, (N, MEASUREMENTS) each."""
    require("scipy", purpose="The distance of mask areas")
    from scipy.stats import wasserstein_distance

    mean_generated, mean_real = float(generated[:, 0].mean()), float(real[:, 0].mean())
    map_generated, map_real = _position_map(generated), _position_map(real)
    position_distance = None
    if mean_generated > 0 and mean_real > 0:
        position_distance = float((map_generated / map_generated.sum() - map_real / map_real.sum()).abs().sum() / 2)
    return MaskComparison(
        area_ratio=mean_generated / mean_real if mean_real > 0 else None,
        area_distance=float(wasserstein_distance(generated[:, 0].numpy(), real[:, 0].numpy())),
        position_distance=position_distance,
    )


def _position_map(measurements: Tensor) -> Tensor:
    return measurements[:, len(_COLUMNS) :].mean(dim=0).reshape(GRID, GRID)
