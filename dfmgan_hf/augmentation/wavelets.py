"""Wavelet filters, written as small matrices that act on the rows or the columns of an image."""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

# Decomposition low-pass filters, scaled to sum 1: applied and transposed with a gain of 2 they reconstruct exactly.
# fmt: off
SYM2 = (-0.12940952255092145, 0.22414386804185735, 0.836516303737469, 0.48296291314469025)
SYM6 = (0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
        0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
        -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148)
# fmt: on

# sym6 delays by five samples: pixel k of an image sits at index 2k of the doubled grid.
SYM6_DELAY = 5


def _low_pass(wavelet: tuple[float, ...]) -> Tensor:
    taps = torch.tensor(wavelet, dtype=torch.float64)
    return taps / taps.sum()


def reflect(index: Tensor, size: int) -> Tensor:
    """Fold any integer index into 0..size-1 by reflection that does not repeat the border (period 2*size - 2)."""
    period = max(2 * size - 2, 1)
    folded = index.remainder(period)
    return torch.minimum(folded, period - folded)


def _banded(index: Tensor, taps: Tensor, size: int) -> Tensor:
    """Make the (rows, size) matrix whose row r is the sum over t of taps[r, t] at column index[r, t]."""
    matrix = torch.zeros(index.shape[0], size, dtype=taps.dtype)
    return matrix.scatter_add_(1, index, taps)


# The caches hold constants that depend on nothing but their arguments. They are built outside inference mode, whose
# tensors could not take part in a later training step.
@lru_cache(maxsize=16)
def doubling_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Reflect `size` pixels without end, double them with sym6, and keep one period.

    The reflected image repeats every 2*size - 2 pixels, so 4*size - 4 doubled samples hold all that any transform can
    ask for, however far outside the image: no margin has to be known, and no transform's size has to be read back.

    Returns:
        (4*size - 3, size); row u is the doubled sample u, and the last row repeats the first for interpolation's sake.
    """
    with torch.inference_mode(False):
        row = torch.arange(4 * size - 3)[:, None] + SYM6_DELAY
        step = torch.arange(len(SYM6) // 2)
        taps = 2 * _low_pass(SYM6)[row % 2 + 2 * step]
        return _banded(reflect(row // 2 - step, size), taps, size).to(device, dtype)


@lru_cache(maxsize=16)
def halving_matrix(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Halve 2*size + 10 doubled samples, the first of index -SYM6_DELAY, back to `size` pixels.

    Returns:
        (size, 2*size + 10); the transpose of the doubling filter, so that doubling and halving is the identity.
    """
    with torch.inference_mode(False):
        step = torch.arange(len(SYM6))
        index = 2 * torch.arange(size)[:, None] + step
        taps = _low_pass(SYM6).expand(size, -1)
        return _banded(index, taps, 2 * size + len(SYM6) - 2).to(device, dtype)


def octave_filters() -> Tensor:
    """Make four symmetric filters that split the spectrum at pi/8, pi/4 and pi/2, lowest band first.

    Returns:
        (4, 43) float64; they sum to the identity.
    """
    low = _low_pass(SYM2)
    power = F.conv1d(low[None, None], low[None, None], padding=len(SYM2) - 1)[0, 0]  # |H_low|^2, zero phase
    sign = torch.tensor([-1.0, 1.0], dtype=power.dtype).repeat(len(SYM2))[: len(power)]
    high = power * sign  # centre tap positive: |H_high|^2 = 1 - |H_low|^2
    bank = torch.zeros(4, 1, dtype=power.dtype)
    bank[0] = 1
    for band in range(1, 4):
        # Every earlier band moves an octave down, and the upper half of the spectrum joins as a new band.
        spread = torch.zeros(4, 2 * bank.shape[1] - 1, dtype=power.dtype)
        spread[:, ::2] = bank
        bank = F.conv1d(spread[:, None], power[None, None], padding=len(power) - 1)[:, 0]
        margin = (bank.shape[1] - len(high)) // 2
        bank[band, margin : margin + len(high)] += high
    return bank


@lru_cache(maxsize=16)
def octave_matrices(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Make matrices of the filters of `octave_filters` with reflection at the borders.

    Returns:
        (4, size, size); they sum to the identity.
    """
    with torch.inference_mode(False):
        bank = octave_filters()
        offset = torch.arange(bank.shape[1]) - bank.shape[1] // 2
        index = reflect(torch.arange(size)[:, None] + offset, size)
        matrices = [_banded(index, taps.expand(size, -1), size) for taps in bank]
        return torch.stack(matrices).to(device, dtype)
