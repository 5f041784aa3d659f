"""The wavelet filters have the properties that define them."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.augmentation.wavelets import (
    SYM2,
    SYM6,
    SYM6_DELAY,
    doubling_matrix,
    halving_matrix,
    octave_filters,
    octave_matrices,
    reflect,
)

FLOAT64_CPU = torch.float64, torch.device("cpu")


@pytest.mark.parametrize(("wavelet", "vanishing_moments"), [(SYM2, 2), (SYM6, 6)])
def test_wavelets_are_orthonormal_with_their_vanishing_moments(wavelet, vanishing_moments):
    taps = torch.tensor(wavelet, dtype=torch.float64)
    for shift in range(0, len(taps), 2):
        product = (taps[shift:] * taps[: len(taps) - shift]).sum().item()
        assert product == pytest.approx(float(shift == 0), abs=1e-10)
    position = torch.arange(len(taps), dtype=torch.float64)
    high_pass = taps * (-1) ** position
    for power in range(vanishing_moments):
        assert (high_pass * (position / len(taps)) ** power).sum().item() == pytest.approx(0, abs=1e-8)


def test_reflect_does_not_repeat_the_border():
    assert reflect(torch.arange(-4, 9), size=4).tolist() == [2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1, 2]


@pytest.mark.parametrize("size", [2, 5, 16])
def test_doubling_then_halving_is_the_identity(size: int):
    period = 4 * size - 4
    doubled = doubling_matrix(size, *FLOAT64_CPU)
    assert doubled.shape == (period + 1, size)
    torch.testing.assert_close(doubled[-1], doubled[0])
    looked_up = doubled[torch.arange(-SYM6_DELAY, 2 * size + SYM6_DELAY) % period]
    torch.testing.assert_close(halving_matrix(size, *FLOAT64_CPU) @ looked_up, torch.eye(size, dtype=torch.float64))


def test_octave_filters_are_symmetric_and_split_the_spectrum():
    filters = octave_filters()
    assert filters.shape == (4, 43)
    torch.testing.assert_close(filters, filters.flip(1))
    offset = torch.arange(43) - 21
    torch.testing.assert_close(filters.sum(0), (offset == 0).double(), rtol=0, atol=1e-10)
    # In the middle of each band its own filter passes the most, and next to nothing at the far end of the spectrum.
    middle = torch.pi * torch.tensor([1 / 16, 3 / 16, 3 / 8, 3 / 4], dtype=torch.float64)
    response = filters @ torch.cos(offset[:, None] * middle)
    assert response.argmax(0).tolist() == [0, 1, 2, 3]
    assert response.diagonal().min() > 0.6
    assert response[0, 3].abs() < 0.03
    assert response[3, 0].abs() < 0.03


def test_octave_matrices_work_on_images_smaller_than_the_filter():
    matrices = octave_matrices(8, *FLOAT64_CPU)
    torch.testing.assert_close(matrices.sum(0), torch.eye(8, dtype=torch.float64), rtol=0, atol=1e-10)
    torch.testing.assert_close(matrices.sum(2)[0], torch.ones(8, dtype=torch.float64))


def test_constants_built_in_inference_mode_serve_training():
    doubling_matrix.cache_clear()
    with torch.inference_mode():
        matrix = doubling_matrix(4, *FLOAT64_CPU)
    column = torch.ones(4, dtype=torch.float64, requires_grad=True)
    (matrix @ column).sum().backward()
    assert column.grad is not None
