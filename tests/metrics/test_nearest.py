from __future__ import annotations

import pytest
import torch

from dfmgan_hf.metrics import lpips_distances, nearest_real
from dfmgan_hf.metrics.networks import LPIPS
from tests.metrics.drawn import draw_images


def measure(lpips: LPIPS, generated: torch.Tensor, real: torch.Tensor, threshold: float | None = None):
    return nearest_real(lpips_distances(lpips, generated, real), lpips_distances(lpips, real), threshold)


def test_copies_are_found(lpips_net: LPIPS):
    real = draw_images(8, seed=1)
    fresh = draw_images(6, seed=2)
    noise = torch.randint(-2, 3, (3, *real.shape[1:]), generator=torch.Generator().manual_seed(0))
    nearly_copied = (real[:3] + noise).clamp(0, 255).to(torch.uint8)
    result = measure(lpips_net, torch.cat([fresh, real[:3], nearly_copied]), real)
    assert result.copy_rate == pytest.approx(6 / 12)
    assert result.minimum < 1e-6


def test_the_training_set_itself_is_all_copies(lpips_net: LPIPS):
    real = draw_images(8)
    result = measure(lpips_net, real, real)
    assert result.copy_rate == 1
    assert result.ratio == pytest.approx(0, abs=1e-4)


def test_fresh_images_are_as_far_as_real_ones_from_each_other(lpips_net: LPIPS):
    result = measure(lpips_net, draw_images(40, seed=1), draw_images(40, seed=2))
    assert result.copy_rate == 0
    assert result.ratio == pytest.approx(1, abs=0.15)


def test_one_real_image_has_no_yardstick_but_a_given_one(lpips_net: LPIPS):
    real = draw_images(1)
    result = measure(lpips_net, torch.cat([real, draw_images(3, seed=5)]), real)
    assert (result.real_median, result.ratio, result.copy_threshold, result.copy_rate) == (None,) * 4
    assert measure(lpips_net, real, real, threshold=0.01).copy_rate == 1


def test_tables_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="among_real"):
        nearest_real(torch.zeros(3, 2), torch.zeros(3, 3))
