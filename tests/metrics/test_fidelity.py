"""torch-fidelity computes these; the tests hold it to known values and to our order of arguments."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.metrics import fid, inception_score, precision_recall


def gaussian(n: int, shift: float = 0.0, scale: float = 1.0, seed: int = 0, d: int = 8) -> torch.Tensor:
    return scale * torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_fid_of_equal_sets_is_zero_and_of_a_shift_its_square():
    x = gaussian(300)
    assert fid(x, x) == pytest.approx(0, abs=1e-6)
    assert fid(x + 0.5, x) == pytest.approx(8 * 0.5**2, rel=1e-6)
    # Covariances C and 4 C: Tr(C + 4 C - 2 * 2 C) = Tr(C).
    assert fid(2 * x - x.mean(dim=0), x) == pytest.approx(float(torch.cov(x.T.double()).trace()), rel=1e-5)


def test_inception_score_has_its_extreme_values():
    assert inception_score(torch.zeros(50, 10)).mean == pytest.approx(1)
    certain = 1000 * torch.eye(10).repeat(20, 1)
    assert inception_score(certain, splits=1).mean == pytest.approx(10)


def test_precision_and_recall_are_not_mixed_up():
    """Generated images in one of two modes are precise, but miss half of the real ones."""
    left, right = gaussian(60, -20, seed=1), gaussian(60, 20, seed=2)
    collapsed = precision_recall(left[:30], torch.cat([left[30:], right]))
    assert collapsed.precision > 0.7
    assert collapsed.recall < 0.5
    assert precision_recall(gaussian(50, 1000, seed=3), left).precision == 0
    same = precision_recall(left, left)
    assert (same.precision, same.recall) == (1, 1)


def test_neighbourhood_is_cut_for_tiny_sets():
    assert precision_recall(gaussian(50), gaussian(3, seed=1)).neighbourhood == 2


def test_too_few_images_are_refused():
    for function in (fid, precision_recall):
        with pytest.raises(ValueError, match="at least 2 real"):
            function(gaussian(5), gaussian(1))
        with pytest.raises(ValueError, match="at least 2 generated"):
            function(gaussian(1), gaussian(5))
    with pytest.raises(ValueError, match="at least 10"):
        inception_score(torch.zeros(9, 5))
