"""What a detector's scores say, and whether two sets of detectors differ by more than chance.

Chance comes in twice: other parts might have been held back, and networks with another seed might have been trained.
The first is measured by a paired bootstrap over the held-back parts (all photographs of a part are drawn or left out
together, and every network is measured on the same draws), the second by the differences between seeds. Their
variances are added, less what is in both (two-way clustering: Cameron, Gelbach and Miller 2011), and intervals are
Student's t with Welch and Satterthwaite's degrees of freedom, because a bootstrap over five seeds would be too narrow.

Scores are kept as counts in bins, photograph by photograph. So a measure on a thousand draws of the parts is a few
matrix products, where scikit-learn would sort ten million pixels a thousand times.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..data.reading import Array

BINS = 512
LARGEST_LOGIT = 16.0
PRO_LIMIT = 0.3
"""Per-region overlap is averaged over the false positive rates up to it (Bergmann et al., IJCV 2021, 4.1.2)."""

MEASURES = {"pixel_ap": "pixel AP", "pro": "PRO", "pixel_f1": "pixel F1-max", "image_auroc": "image AUROC"}
PRIMARY = "pixel_ap"
"""The measure that decides what the report says; chosen before anything was measured."""

CONFIDENCE = 0.95
DRAWS = 1000
LEAST_PARTS = 5
"""Held-back parts with a defect, and without one, below which nothing can be said."""

LEAST_SEEDS = 3


@dataclass
class Scores:
    """What one network gave to n photographs; a bin holds pixels whose logits are nearly the same.

    Attributes:
        good: pixels without a defect, (n, bins), from low logits to high.
        defect: pixels with one, likewise.
        overlap: sum over the photograph's defects (connected regions) of the share that lies in each bin, (n, bins).
        image: score of each photograph, (n,).
    """

    good: Array
    defect: Array
    overlap: Array
    image: Array

    @classmethod
    def of(cls, logits: Sequence[Array], masks: Sequence[Array], image_scores: Sequence[float]) -> Scores:
        """Count the pixels of logit maps (H, W), beside the truth, bool (H, W), of photographs of any sizes."""
        from scipy import ndimage

        good, defect, overlap = (np.zeros((len(logits), BINS), dtype=np.float32) for _ in range(3))
        for i, (values, mask) in enumerate(zip(logits, masks, strict=True)):
            bins = to_bins(values)
            good[i] = np.bincount(bins[~mask], minlength=BINS)
            defect[i] = np.bincount(bins[mask], minlength=BINS)
            regions, _ = ndimage.label(mask, structure=np.ones((3, 3)))
            inside = regions[mask]
            share = 1 / np.maximum(np.bincount(inside), 1)
            overlap[i] = np.bincount(bins[mask], share[inside], minlength=BINS)
        return cls(good, defect, overlap, np.asarray(image_scores, dtype=np.float32))

    @property
    def is_defective(self) -> Array:
        """Return which photographs have a defect, bool (n,)."""
        return self.defect.sum(axis=1) > 0


def to_bins(logits: Array) -> Array:
    """Return the bin of each logit, int64."""
    share = (np.clip(logits, -LARGEST_LOGIT, LARGEST_LOGIT) + LARGEST_LOGIT) / (2 * LARGEST_LOGIT)
    return np.minimum((share * BINS).astype(np.int64), BINS - 1)


def measure(scores: Scores, weights: Array) -> dict[str, Array]:
    """Return all `MEASURES`, from 0 to 1, for each row of weights (draws, n) of the photographs, as (draws,).

    Weights are whole numbers: how often each photograph was drawn. AP and F1 are those of scikit-learn for scores that
    are the same within a bin.
    """
    weights = weights.astype(np.float64)
    # Pixels that are found at each threshold, from the highest down.
    found = np.cumsum((weights @ scores.defect)[:, ::-1], axis=1)
    wrong = np.cumsum((weights @ scores.good)[:, ::-1], axis=1)
    total = found[:, -1:]
    precision = found / np.maximum(found + wrong, 1e-12)
    steps = np.diff(found, axis=1, prepend=0) / total
    curve = np.cumsum((weights @ scores.overlap)[:, ::-1], axis=1)
    curve /= curve[:, -1:]
    return {
        "pixel_ap": (steps * precision).sum(axis=1),
        "pro": _area_below(wrong / wrong[:, -1:], curve, PRO_LIMIT),
        "pixel_f1": (2 * found / (total + found + wrong)).max(axis=1),
        "image_auroc": _auroc(scores.image, scores.is_defective, weights),
    }


def best_threshold(scores: Scores) -> float:
    """Return the logit at or above which pixels count as defect for the largest F1."""
    found = np.cumsum(scores.defect.sum(axis=0)[::-1])
    wrong = np.cumsum(scores.good.sum(axis=0)[::-1])
    number = BINS - 1 - int((2 * found / (found[-1] + found + wrong)).argmax())
    return number / BINS * 2 * LARGEST_LOGIT - LARGEST_LOGIT


def _area_below(x: Array, y: Array, limit: float) -> Array:
    """Integrate curves (draws, points), both rising from 0, up to x = `limit`, and divide by it."""
    x, y = (np.concatenate([np.zeros((len(a), 1)), a], axis=1) for a in (x, y))
    inside = np.minimum(x, limit)
    width = np.diff(x, axis=1)
    share = np.divide(np.diff(inside, axis=1), width, out=np.zeros_like(width), where=width > 0)
    end = y[:, :-1] + share * np.diff(y, axis=1)
    return ((y[:, :-1] + end) / 2 * np.diff(inside, axis=1)).sum(axis=1) / limit


def _auroc(image: Array, is_defective: Array, weights: Array) -> Array:
    high, low = image[is_defective], image[~is_defective]
    above = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    of_defects, of_good = weights[:, is_defective], weights[:, ~is_defective]
    pairs = of_defects.sum(axis=1) * of_good.sum(axis=1)
    return ((of_defects @ above) * of_good).sum(axis=1) / pairs


def draw_parts(parts: Sequence[str], is_defective: Array, draws: int = DRAWS) -> Array:
    """Draw parts with replacement, as many as there are, and return how often each photograph is in, (draws, n).

    Parts with a defect and those without are drawn apart, so that no draw lacks either.
    """
    rng = np.random.default_rng(0)
    names, number = np.unique(np.asarray(parts), return_inverse=True)
    has_defect = np.zeros(len(names), dtype=bool)
    np.logical_or.at(has_defect, number, is_defective)
    counts = np.zeros((draws, len(names)), dtype=np.int64)
    for stratum in (np.flatnonzero(has_defect), np.flatnonzero(~has_defect)):
        if len(stratum):
            counts[:, stratum] = rng.multinomial(len(stratum), np.full(len(stratum), 1 / len(stratum)), size=draws)
    return counts[:, number]


@dataclass(frozen=True)
class Interval:
    """A number and its interval of confidence."""

    value: float
    low: float
    high: float


def interval(by_seed: Array, by_draw: Array, num_parts: int, intervals: int = 1) -> Interval:
    """Return the mean over seeds, and an interval for other parts and other seeds.

    Args:
        by_seed: of each seed's network, on the held-back parts as they are, (seeds,).
        by_draw: likewise on each draw of the parts, (seeds, draws).
        num_parts: held-back parts with a defect.
        intervals: how many are to hold at once (Bonferroni).
    """
    from scipy.stats import t

    seeds = len(by_seed)
    # A resample of n varies by (n - 1) / n less than a sample does.
    resampled = num_parts / (num_parts - 1)
    of_parts = float(by_draw.mean(axis=0).var(ddof=1)) * resampled
    of_seeds = float(by_seed.var(ddof=1)) / seeds
    # What one network finds by luck in one part varies over parts and over seeds: it is in both, and counts once.
    of_both = (float(by_draw.var(axis=1, ddof=1).mean()) * resampled - of_parts) / (seeds - 1)
    variance = max(of_parts + of_seeds - max(of_both, 0.0), of_parts, of_seeds)
    value = float(by_seed.mean())
    if variance == 0:
        return Interval(value, value, value)
    freedom = variance**2 / (of_parts**2 / (num_parts - 1) + of_seeds**2 / (seeds - 1))
    half = float(t.ppf(1 - (1 - CONFIDENCE) / 2 / intervals, freedom)) * math.sqrt(variance)
    return Interval(value, value - half, value + half)


Answer = Literal["helps", "does not help", "harms", "cannot tell"]


@dataclass(frozen=True)
class Comparison:
    """Networks of one arm beside those that were trained on photographs alone.

    Attributes:
        values: of each measure, with the interval of this arm alone.
        differences: to photographs alone, paired; intervals of the primary measure hold for all arms at once.
        answer: what the primary measure's interval says.
    """

    values: dict[str, Interval]
    differences: dict[str, Interval]
    answer: Answer


def compare(
    baseline: Sequence[Scores],
    arms: Mapping[str, Sequence[Scores]],
    parts: Sequence[str],
    least_gain: float,
    draws: int = DRAWS,
) -> tuple[dict[str, Interval], dict[str, Comparison]]:
    """Compare arms with the baseline; entry i of each is a network of seed i, on the same photographs.

    Args:
        baseline, arms: the networks' scores.
        parts: the part that each photograph shows.
        least_gain: the smallest difference that matters, of the primary measure.

    Returns:
        The baseline's measures, and a comparison of each arm.
    """
    is_defective = baseline[0].is_defective
    weights = np.concatenate([np.ones((1, len(parts)), dtype=np.int64), draw_parts(parts, is_defective, draws)])
    num_parts = len(set(np.asarray(parts)[is_defective]))
    base = _measured(baseline, weights)
    results = {}
    for name, scores in arms.items():
        own = _measured(scores, weights)
        differences = {}
        for key in MEASURES:
            seeds = min(len(own[key]), len(base[key]))
            apart = own[key][:seeds] - base[key][:seeds]
            several = len(arms) if key == PRIMARY else 1
            differences[key] = interval(apart[:, 0], apart[:, 1:], num_parts, several)
        results[name] = Comparison(_levels(own, num_parts), differences, answer_of(differences[PRIMARY], least_gain))
    return _levels(base, num_parts), results


def _measured(networks: Sequence[Scores], weights: Array) -> dict[str, Array]:
    """Return each measure of each network, (seeds, 1 + draws)."""
    all_measures = [measure(scores, weights) for scores in networks]
    return {key: np.stack([each[key] for each in all_measures]) for key in MEASURES}


def _levels(measured: dict[str, Array], num_parts: int) -> dict[str, Interval]:
    return {key: interval(x[:, 0], x[:, 1:], num_parts) for key, x in measured.items()}


def answer_of(difference: Interval, least_gain: float) -> Answer:
    """Return what an interval of the difference to photographs alone says."""
    if difference.low > 0:
        return "helps"
    if difference.high < 0:
        return "harms"
    return "does not help" if difference.high < least_gain else "cannot tell"


def parts_needed(difference: Interval, num_parts: int, least_gain: float) -> int:
    """Return about how many parts would narrow an interval down to what was measured, or to what matters."""
    wanted = max(abs(difference.value), least_gain)
    return math.ceil(num_parts * ((difference.high - difference.low) / 2 / wanted) ** 2)
