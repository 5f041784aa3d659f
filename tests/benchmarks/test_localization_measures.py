"""Measures of localisation against values known by hand, and against slower ways to the same number."""

import numpy as np
import pytest

from benchmarks.paper.localization import MEASURES, f1_max, measure, pro

pytest.importorskip("sklearn", reason="the benchmarks extra is not installed")


def masks_with_two_regions() -> np.ndarray:
    """Of two images, one has a region of 12 pixels and one of 2 that touch at a corner; 498 pixels are good."""
    masks = np.zeros((2, 16, 16), dtype=bool)
    masks[0, 2:5, 2:6] = True
    masks[0, 10, 10] = masks[0, 11, 11] = True
    return masks


def test_perfect_maps_score_one():
    masks = masks_with_two_regions()
    values = measure(masks.astype(float), masks, masks.any(axis=(1, 2)).astype(float))
    assert tuple(values) == MEASURES
    assert all(value == pytest.approx(1) for value in values.values())


def test_constant_maps_score_chance():
    masks = masks_with_two_regions()
    values = measure(np.full(masks.shape, 0.5), masks, np.array([0.5, 0.5]))
    assert values["pixel_auroc"] == values["image_auroc"] == 0.5
    assert values["pixel_ap"] == pytest.approx(masks.mean())
    assert values["pro"] == pytest.approx(0.15)


def test_small_regions_count_as_much_as_large_ones():
    masks = masks_with_two_regions()
    maps = np.zeros(masks.shape)
    maps[0, 2:5, 2:6] = 1.0
    # The large region is found at once; the small one on the straight line to the end, with all good pixels.
    line = 0.5 + 0.5 * 0.3 / 2
    assert pro(maps, masks) == pytest.approx(line)
    values = measure(maps, masks, np.array([1.0, 0.0]))
    assert values["pro"] == pytest.approx(line)
    assert values["pixel_auroc"] == pytest.approx(12 / 14 + 0.5 * 2 / 14)


def test_false_positives_beyond_the_limit_do_not_matter():
    masks = masks_with_two_regions()
    good = np.flatnonzero(~masks.ravel())
    maps = np.full(masks.shape, 0.2)
    maps.ravel()[good[: len(good) // 2]] = 0.9
    maps[masks] = 0.5
    # Half of the good pixels come first: until then nothing is found.
    assert pro(maps, masks) == 0
    maps[masks] = 1.0
    assert pro(maps, masks) == pytest.approx(1)


def test_pro_is_the_integral_over_all_thresholds():
    rng = np.random.default_rng(0)
    masks = masks_with_two_regions()
    maps = np.clip(rng.random(masks.shape) + 0.4 * masks, 0, 1).round(2)
    regions = [np.zeros_like(masks) for _ in range(2)]
    regions[0][0, 2:5, 2:6] = True
    regions[1][0, 10, 10] = regions[1][0, 11, 11] = True
    curve = [(0.0, 0.0)]
    for threshold in np.unique(maps)[::-1]:
        found = maps >= threshold
        overlap = np.mean([(found & region).sum() / region.sum() for region in regions])
        curve.append(((found & ~masks).sum() / (~masks).sum(), overlap))
    x, y = np.array(curve).T
    fine = np.linspace(0, 0.3, 300_001)
    assert pro(maps, masks) == pytest.approx(np.interp(fine, x, y).mean(), abs=1e-4)


def test_f1_is_the_best_of_all_thresholds():
    rng = np.random.default_rng(1)
    truth = rng.random(200) < 0.3
    scores = rng.random(200) + 0.3 * truth
    best = max(2 * ((scores >= t) & truth).sum() / ((scores >= t).sum() + truth.sum()) for t in scores)
    assert f1_max(scores, truth) == pytest.approx(best)


def test_what_cannot_be_measured_is_refused():
    masks = masks_with_two_regions()
    with pytest.raises(ValueError, match="do not fit together"):
        measure(np.zeros((2, 8, 8)), masks, np.zeros(2))
    with pytest.raises(ValueError, match="1 of 1 test images have a defect"):
        measure(np.zeros((1, 16, 16)), masks[:1], np.zeros(1))
    with pytest.raises(ValueError, match="0 of 1 test images have a defect"):
        measure(np.zeros((1, 16, 16)), masks[1:], np.zeros(1))
