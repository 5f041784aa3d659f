"""How well anomaly maps find defects: AUROC, AP and F1-max of pixels and images, and PRO.

scikit-learn has the first three. PRO (Bergmann et al., MVTec AD, IJCV 2021, section 4.1.2) is here, exactly: from all
pixel scores as thresholds. The libraries that have it (anomalib, torchmetrics-based) bin the scores and bring far more
along than this one measure.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, Any]

MEASURES = ("pixel_auroc", "pixel_ap", "pixel_f1", "pro", "image_auroc", "image_ap", "image_f1")
"""Names in results; all from 0 to 1, 1 being perfect."""

Compat = Literal["none", "anomalydiffusion"]

PRO_FPR_LIMIT = 0.3
_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=bool)
_COMPAT_F1_THRESHOLDS = np.arange(21) / 20
_COMPAT_PRO_THRESHOLDS = 100


def measure(maps: Array, masks: Array, image_scores: Array, compat: Compat = "none") -> dict[str, float]:
    """All of `MEASURES`.

    Args:
        maps: anomaly score of each pixel, 0 to 1, float (n, H, W).
        masks: the truth, bool (n, H, W); without a True one in it, an image is a good one.
        image_scores: anomaly score of each image, float (n,).
        compat: `anomalydiffusion` repeats the coarse thresholds of that project's script: pixel F1 at 0, 0.05, ..., 1,
            and PRO at 100 thresholds. Masks are binary all the same. It selects the epoch on the test set, which
            `SegmenterConfig.select` does.

    Raises:
        ValueError: shapes differ, or there are only good images, only defective ones, or no good pixel.
    """
    if maps.shape != masks.shape or image_scores.shape != maps.shape[:1]:
        raise ValueError(
            f"Maps {maps.shape}, masks {masks.shape} and scores {image_scores.shape} do not fit together."
        )
    is_defective = np.asarray(masks.any(axis=(1, 2)))
    if is_defective.all() or not is_defective.any() or masks.all():
        raise ValueError(
            f"{int(is_defective.sum())} of {len(masks)} test images have a defect; defects and good images are needed."
        )
    pixels, truth = maps.reshape(-1), masks.reshape(-1)
    is_compat = compat == "anomalydiffusion"
    pixel_f1 = f1_at(pixels, truth, _COMPAT_F1_THRESHOLDS) if is_compat else f1_max(pixels, truth)
    values = {
        "pixel_auroc": auroc(pixels, truth),
        "pixel_ap": average_precision(pixels, truth),
        "pixel_f1": pixel_f1,
        "pro": pro(maps, masks, num_thresholds=_COMPAT_PRO_THRESHOLDS if is_compat else None),
        "image_auroc": auroc(image_scores, is_defective),
        "image_ap": average_precision(image_scores, is_defective),
        "image_f1": f1_max(image_scores, is_defective),
    }
    return {name: float(value) for name, value in values.items()}


def auroc(scores: Array, truth: Array) -> float:
    """Area under the ROC curve of scores (n,) and truth bool (n,)."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(truth, scores))


def average_precision(scores: Array, truth: Array) -> float:
    """Average precision of scores (n,) and truth bool (n,)."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(truth, scores))


def f1_max(scores: Array, truth: Array) -> float:
    """Largest F1 over all thresholds."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def f1_at(scores: Array, truth: Array, thresholds: Array) -> float:
    """Largest F1 over the given thresholds; a score above one counts as a defect."""
    best = 0.0
    for threshold in thresholds:
        found = scores > threshold
        hits = int((found & truth).sum())
        best = max(best, 2 * hits / max(int(found.sum()) + int(truth.sum()), 1))
    return best


def pro(maps: Array, masks: Array, limit: float = PRO_FPR_LIMIT, num_thresholds: int | None = None) -> float:
    """Area under the curve of per-region overlap against false positives, up to `limit` of these, divided by it.

    A region is a connected part of a mask (eight neighbours). Its overlap is the share of it that is found; the curve
    has the mean over all regions of all images, small ones counting as much as large ones.

    Args:
        maps: scores, float (n, H, W).
        masks: the truth, bool (n, H, W).
        limit: largest rate of false positives.
        num_thresholds: None for all scores; or so many, at equispaced ranks of the scores of good pixels.

    Returns:
        From 0 to 1. Constant maps have `limit` / 2: the straight line.
    """
    from scipy.integrate import trapezoid

    weights, num_regions = _region_weights(masks)
    scores, weights, is_good = maps.reshape(-1), weights.reshape(-1), ~masks.reshape(-1)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    false_positives = np.cumsum(is_good[order]) / is_good.sum()
    overlap = np.cumsum(weights[order]) / num_regions
    # Pixels of the same score are found together: only the last of them is a point of the curve.
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    if num_thresholds is not None:
        good_ends = np.flatnonzero(is_good[order])
        ranks = np.linspace(0, len(good_ends) - 1, num_thresholds).round().astype(int)
        wanted = scores[good_ends[ranks]]
        ends = ends[np.isin(scores[ends], wanted)]
    false_positives = np.concatenate([[0.0], false_positives[ends]])
    overlap = np.concatenate([[0.0], overlap[ends]])
    inside = false_positives < limit
    x = np.append(false_positives[inside], limit)
    y = np.append(overlap[inside], np.interp(limit, false_positives, overlap))
    return float(trapezoid(y, x) / limit)


def _region_weights(masks: Array) -> tuple[Array, int]:
    """For each pixel 1 / (size of its region), 0 on good ones, float64 (n, H, W); and the number of regions."""
    from scipy import ndimage

    weights, count = np.zeros(masks.shape), 0
    for index, mask in enumerate(masks):
        regions, number = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
        sizes = np.bincount(regions.reshape(-1))
        weights[index][mask] = 1 / sizes[regions[mask]]
        count += number
    return weights, count
