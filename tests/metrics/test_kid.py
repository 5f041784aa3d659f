"""KID against its definition, and that torch-fidelity's measures are called as they are meant."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dfmgan_hf.metrics import fid, inception_score, kid_subsets, kid_unbiased, precision_recall

GOLDEN = load_file(Path(__file__).parents[1] / "golden" / "metrics.safetensors")


def gaussian(n: int, shift: float = 0.0, seed: int = 0, d: int = 16) -> torch.Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed)) + shift


def test_golden_kid():
    """The golden number was computed in float32: two units in its last place are its own uncertainty."""
    x, y, expected = GOLDEN["kid_gen_features"], GOLDEN["kid_real_features"], float(GOLDEN["kid"])
    two_ulp = 2 * np.spacing(np.float32(expected))
    # The subset is the whole set, so that every draw and the estimate from all images are the same number.
    assert abs(kid_subsets(x, y, num_subsets=3).kid - expected) <= two_ulp
    assert abs(kid_unbiased(x, y, num_bootstrap=1).kid - expected) <= two_ulp


def test_unbiased_is_the_plain_sum_over_pairs(monkeypatch):
    x, y = gaussian(5, seed=1).double(), gaussian(3, 0.5, seed=2).double()

    def kernel(a: torch.Tensor, b: torch.Tensor) -> float:
        return float((a @ b / 16 + 1) ** 3)

    within_x = [kernel(x[i], x[j]) for i in range(5) for j in range(5) if i != j]
    within_y = [kernel(y[i], y[j]) for i in range(3) for j in range(3) if i != j]
    across = [kernel(a, b) for a in x for b in y]
    expected = np.mean(within_x) + np.mean(within_y) - 2 * np.mean(across)
    for block_size in (1, 2, 100):
        monkeypatch.setattr("dfmgan_hf.metrics.kid._BLOCK_SIZE", block_size)
        assert kid_unbiased(x, y, num_bootstrap=5).kid == pytest.approx(expected, rel=1e-12)


def test_bootstrap_weights_are_resampling_without_the_pairs_of_an_image_with_itself():
    """A draw that holds image 0 twice counts the pair (0, 1) twice and never the pair (0, 0)."""
    from dfmgan_hf.metrics.kid import _kernel, _weighted_mean

    x = gaussian(3).double().numpy()
    weights = np.array([[2.0, 1.0, 0.0]])
    result = _weighted_mean(x, x, weights, weights, exclude_diagonal=True)
    assert result[0] == pytest.approx(_kernel(x, x)[0, 1], rel=1e-12)


def test_same_distribution_is_within_the_interval_and_a_shift_is_outside():
    same = kid_unbiased(gaussian(400, seed=1), gaussian(30, seed=2))
    assert same.interval[0] < 0 < same.interval[1]
    shifted = kid_unbiased(gaussian(400, 1.0, seed=1), gaussian(30, seed=2))
    assert 0 < shifted.interval[0] < shifted.kid < shifted.interval[1]


def test_interval_covers_another_draw_of_real_images():
    """About 95 % of intervals should hold the value measured against all real images there could be."""
    truth = kid_unbiased(gaussian(1000, 0.6, seed=5), gaussian(2000, seed=6), num_bootstrap=1).kid
    generated = gaussian(200, 0.6, seed=7)
    results = [kid_unbiased(generated, gaussian(25, seed=100 + i), num_bootstrap=200) for i in range(40)]
    covered = sum(r.interval[0] <= truth <= r.interval[1] for r in results)
    assert covered >= 30


def test_estimates_are_unbiased_for_tiny_real_sets():
    estimates = [
        kid_unbiased(gaussian(50, seed=i), gaussian(4, seed=1000 + i), num_bootstrap=1).kid for i in range(200)
    ]
    assert abs(np.mean(estimates)) < 3 * np.std(estimates) / 200**0.5


def test_subsets_have_the_size_of_the_smaller_set():
    result = kid_subsets(gaussian(60), gaussian(7), num_subsets=9)
    assert (result.subset_size, result.num_subsets) == (7, 9)
    assert kid_subsets(gaussian(60), gaussian(70), max_subset_size=20).subset_size == 20


def test_seeds_decide():
    x, y = gaussian(60), gaussian(7, 0.3)
    assert kid_subsets(x, y, seed=1) == kid_subsets(x, y, seed=1)
    assert kid_subsets(x, y, seed=1).kid != kid_subsets(x, y, seed=2).kid
    assert kid_unbiased(x, y, seed=1) == kid_unbiased(x, y, seed=1)


@pytest.mark.parametrize(("n", "m"), [(1, 5), (5, 1), (0, 5)])
def test_one_image_is_refused(n: int, m: int):
    for function in (kid_subsets, kid_unbiased):
        with pytest.raises(ValueError, match="at least 2"):
            function(gaussian(n), gaussian(m))


def test_two_images_have_an_interval():
    result = kid_unbiased(gaussian(2), gaussian(2, seed=3))
    assert np.isfinite(result.interval).all()


def test_features_of_different_networks_are_refused():
    with pytest.raises(ValueError, match="same network"):
        kid_unbiased(gaussian(5, d=16), gaussian(5, d=8))


def test_fid_of_equal_sets_is_zero_and_of_a_shift_its_square():
    x = gaussian(300, d=8)
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
