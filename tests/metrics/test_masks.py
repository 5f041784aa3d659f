from __future__ import annotations

import pytest
import torch

from dfmgan_hf.metrics.masks import MEASUREMENTS, compare_masks, measure_masks, summarize_masks
from tests.metrics.drawn import draw_masks


def square(top: int, left: int, side: int = 4, size: int = 16) -> torch.Tensor:
    mask = torch.zeros(1, 1, size, size, dtype=torch.uint8)
    mask[0, 0, top : top + side, left : left + side] = 255
    return mask


def test_numbers_of_a_square():
    statistics = summarize_masks(measure_masks(square(2, 6)))
    assert statistics.area_mean == 16 / 256
    assert statistics.centroid_mean == [4 / 16, 8 / 16]
    assert statistics.pieces_mean == 1
    assert statistics.border_rate == 0
    assert statistics.empty_rate == statistics.large_rate == 0
    position = torch.tensor(statistics.position_map)
    assert position.shape == (8, 8)
    assert torch.equal(torch.nonzero(position), torch.tensor([[1, 3], [1, 4], [2, 3], [2, 4]]))


def test_empty_and_full_masks_are_counted():
    masks = torch.cat([torch.zeros(2, 1, 16, 16), torch.ones(1, 1, 16, 16), square(4, 4)])
    statistics = summarize_masks(measure_masks(masks))
    assert statistics.empty_rate == 0.5
    assert statistics.large_rate == 0.25
    assert statistics.border_rate == 0.5
    assert statistics.area_percentiles[0] == 0


def test_all_empty_masks_have_no_position():
    statistics = summarize_masks(measure_masks(torch.zeros(3, 1, 16, 16)))
    assert statistics.empty_rate == 1
    assert statistics.centroid_mean is None
    assert statistics.border_rate is None
    comparison = compare_masks(measure_masks(torch.zeros(3, 1, 16, 16)), measure_masks(square(2, 2)))
    assert comparison.position_distance is None
    assert comparison.area_ratio == 0
    assert compare_masks(measure_masks(square(2, 2)), measure_masks(torch.zeros(3, 1, 16, 16))).area_ratio is None


def test_pieces_touching_at_a_corner_are_one():
    mask = square(2, 2) + square(6, 6)
    assert summarize_masks(measure_masks(mask)).pieces_mean == 1
    mask = square(2, 2) + square(7, 7)
    assert summarize_masks(measure_masks(mask)).pieces_mean == 2


def test_every_border_counts():
    for top, left in ((0, 5), (12, 5), (5, 0), (5, 12)):
        assert summarize_masks(measure_masks(square(top, left))).border_rate == 1


def test_comparison_sees_area_and_position():
    real = measure_masks(draw_masks(6))
    same = compare_masks(real, real)
    assert (same.area_ratio, same.area_distance, same.position_distance) == (1, 0, 0)
    bigger = compare_masks(measure_masks(draw_masks(6, side=16)), real)
    assert bigger.area_ratio == pytest.approx(4)
    assert bigger.area_distance == pytest.approx((16**2 - 8**2) / 32**2)
    elsewhere = compare_masks(measure_masks(square(0, 0)), measure_masks(square(12, 12)))
    assert elsewhere.area_ratio == 1
    assert elsewhere.position_distance == pytest.approx(1)


def test_bad_shapes_are_refused():
    with pytest.raises(ValueError, match="at least 8x8"):
        measure_masks(torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="N at least 1"):
        summarize_masks(torch.zeros(0, MEASUREMENTS))
