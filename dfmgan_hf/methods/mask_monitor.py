"""Statistics of masks, real beside generated: how large, how many empty or full, at the border; and what is ill."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ..training import RunningStatistics
from ..training.health import Rows, last

AREA_EDGES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)
"""Bins of the histograms of mask areas, as shares of the image: empty, up to 0.1 %, ..., above 90 %."""

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


def masks_empty(rows: Rows) -> str | None:
    """At least 90 % of the generated masks are empty, and at most 10 % of the real ones."""
    values = last(rows, "mask_empty/fake", "mask_empty/real")
    if values is None or not all(fake >= 0.9 and real <= 0.1 for fake, real in values):
        return None
    return (
        f"{values[-1][0]:.0%} of the generated masks are empty: no defect is learnt. Check the real masks with "
        "check_dataset.py; then train on, since masks can take a while to appear, and if they don't, start again "
        "with another --seed or a larger --mode_seeking_weight."
    )


def masks_full(rows: Rows) -> str | None:
    """At least half of the generated masks cover nearly everything, and at most 10 % of the real ones."""
    values = last(rows, "mask_full/fake", "mask_full/real")
    if values is None or not all(fake >= 0.5 and real <= 0.1 for fake, real in values):
        return None
    return (
        f"{values[-1][0]:.0%} of the generated masks cover nearly the whole image. Check that white means defect in "
        "the real masks; then start again with another --seed, or a smaller --match_discriminator if D_match's "
        "accuracy is near 1."
    )


def area_far_from_real(rows: Rows) -> str | None:
    """The mean generated area is over 4 times, or under a quarter of, the mean real one, with masks neither all empty
    nor all full."""
    values = last(rows, "mask_area/fake", "mask_area/real", "mask_empty/fake", "mask_full/fake")
    if values is None:
        return None
    for fake, real, empty, full in values:
        if real <= 0 or empty >= 0.9 or full >= 0.5 or real / 4 <= fake <= real * 4:
            return None
    fake, real = values[-1][:2]
    return (
        f"Generated masks cover {fake:.2%} of the image on average, real ones {real:.2%}. Train on if the ratio still "
        "falls; if not, a larger --match_weight makes the masks follow the real ones more closely."
    )


def masks_at_border(rows: Rows) -> str | None:
    """Most generated masks touch the border, while few real ones do."""
    values = last(rows, "mask_border/fake", "mask_border/real")
    if values is None or not all(fake >= 0.75 and fake - real >= 0.5 for fake, real in values):
        return None
    fake, real = values[-1]
    return (
        f"{fake:.0%} of the generated masks touch the border, but only {real:.0%} of the real ones. Look at the "
        "sheets: if frames are drawn instead of defects, start again with another --seed, or with --augmentation "
        "none, since all others shift the images."
    )


def defects_do_not_change(rows: Rows) -> str | None:
    """Another z_defect changes neither mask nor image, although there are masks."""
    values = last(rows, "defect_change/mask", "defect_change/image", "mask_empty/fake")
    if values is None or not all(mask < 0.05 and image < 0.02 and empty < 0.5 for mask, image, empty in values):
        return None
    return (
        f"The defects hardly change with z_defect (masks differ by {values[-1][0]:.1%} of their union): the generator "
        "draws one defect. Raise --mode_seeking_weight, or use more photographs of the defect."
    )


MASK_RULES = (masks_empty, masks_full, area_far_from_real, masks_at_border, defects_do_not_change)
