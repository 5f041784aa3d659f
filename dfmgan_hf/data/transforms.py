"""Image and mask to a square of the training resolution, together."""

from __future__ import annotations

import math
from typing import Any, Literal, get_args

import numpy as np
from PIL import Image

Array = np.ndarray[Any, Any]

Fit = Literal["resize", "center_crop", "pad"]
"""`resize` stretches to the square, `center_crop` keeps the middle square, `pad` adds a border of the rim's colour."""

FITS: tuple[str, ...] = get_args(Fit)

# A thresholded mask is kept where its area, within this many cells around, is off by no more than this fraction.
_NEIGHBOURHOOD = 8
_AREA_TOLERANCE = 0.04


def fit_to_square(
    image: Array, mask: Array | None, resolution: int, fit: Fit = "resize"
) -> tuple[Array, Array | None]:
    """Brings a photograph and its mask to `(resolution, resolution)` in the same way.

    The photograph is resampled with an antialiased Lanczos filter, the mask by `resize_mask`.

    Args:
        image: uint8 `(H, W, C)`, C = 1 or 3.
        mask: bool `(H, W)`, or None.
        resolution: Side of the square in pixels.
        fit: See `Fit`.

    Returns:
        uint8 `(resolution, resolution, C)` and bool `(resolution, resolution)` or None.

    Raises:
        ValueError: if `fit` is unknown, or if the sizes of image and mask differ.
    """
    height, width, channels = image.shape
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"image is {width}x{height} but mask is {mask.shape[1]}x{mask.shape[0]}.")
    if fit == "center_crop":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        image = image[top : top + side, left : left + side]
        mask = None if mask is None else mask[top : top + side, left : left + side]
    elif fit == "pad":
        side = max(height, width)
        top, left = (side - height) // 2, (side - width) // 2
        padding = ((top, side - height - top), (left, side - width - left))
        padded = np.empty((side, side, channels), dtype=np.uint8)
        padded[:] = _rim_colour(image)
        padded[top : top + height, left : left + width] = image
        image = padded
        mask = None if mask is None else np.pad(mask, padding)
    elif fit != "resize":
        raise ValueError(f"fit must be one of {', '.join(FITS)}, got {fit!r}.")
    return _resize_image(image, resolution), None if mask is None else resize_mask(mask, resolution)


def resize_mask(mask: Array, resolution: int) -> Array:
    """Resizes a binary mask to a square so that thin defects survive and areas are kept.

    Each new pixel's coverage (the exact share of it that the defect covers) is rounded to 0 or 1. Where rounding at
    one half keeps the local area, that is the result: outlines stay clean. Where it does not, as along a scratch
    thinner than a new pixel, which it would delete or double, the pixels are chosen by `_round_keeping_area`.

    Args:
        mask: bool `(H, W)`.
        resolution: Side of the result in pixels.

    Returns:
        bool `(resolution, resolution)`, with at least one True if `mask` has one.
    """
    if mask.shape == (resolution, resolution) or not mask.any():
        return mask.copy() if mask.shape == (resolution, resolution) else np.zeros((resolution,) * 2, dtype=bool)
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    # float64: sums of thousands of overlaps must come out whole where a cell is covered wholly.
    vertical = _overlaps(mask.shape[0], resolution)[:, top:bottom]
    horizontal = _overlaps(mask.shape[1], resolution)[:, left:right]
    coverage = np.round(vertical @ mask[top:bottom, left:right].astype(np.float64) @ horizontal.T, 9)

    thresholded = coverage >= 0.5
    area, thresholded_area = _neighbourhood_sum(coverage), _neighbourhood_sum(thresholded.astype(np.float64))
    keep = np.abs(thresholded_area - area) <= _AREA_TOLERANCE * area
    coverage = np.where(keep, thresholded, coverage)
    return _round_keeping_area(coverage)


def _resize_image(image: Array, resolution: int) -> Array:
    if image.shape[:2] == (resolution, resolution):
        return image.copy()
    grey = image.shape[2] == 1
    resized = Image.fromarray(image[:, :, 0] if grey else image).resize(
        (resolution, resolution), Image.Resampling.LANCZOS
    )
    return np.array(resized).reshape(resolution, resolution, image.shape[2])


def _rim_colour(image: Array) -> Array:
    """Median colour of the outermost pixels, `(C,)`: a border in it adds no edge that isn't there."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.median(rim, axis=0).astype(np.uint8)


def _overlaps(size: int, cells: int) -> Array:
    """Share of each of `cells` equal parts of a line that each of its `size` pixels covers, `(cells, size)`."""
    edges = np.arange(cells + 1) * (size / cells)
    pixels = np.arange(size)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * (cells / size)


def _neighbourhood_sum(values: Array) -> Array:
    """Sum over the square window of `_NEIGHBOURHOOD` cells to each side, `(R, R)`."""
    size = 2 * _NEIGHBOURHOOD + 1
    padded = np.pad(values, ((_NEIGHBOURHOOD + 1, _NEIGHBOURHOOD),) * 2)
    total = padded.cumsum(axis=0).cumsum(axis=1)
    return total[size:, size:] - total[:-size, size:] - total[size:, :-size] + total[:-size, :-size]


def _round_keeping_area(coverage: Array) -> Array:
    """Rounds coverage `(R, R)` so that every aligned block of 2^k by 2^k cells keeps its area, rounded up or down.

    The total is rounded first; then each block's count is shared among its four quarters: the whole part of
    each quarter's area, and what is left to the quarters with the largest fractions. A scratch half a cell wide
    becomes a dotted line along all of its length, of the same area.
    """
    resolution = coverage.shape[0]
    levels = math.ceil(math.log2(resolution)) if resolution > 1 else 0
    padding = 2**levels - resolution
    areas = [np.pad(coverage, ((0, padding), (0, padding)))]
    for _ in range(levels):
        side = areas[-1].shape[0] // 2
        areas.append(np.round(areas[-1].reshape(side, 2, side, 2).sum(axis=(1, 3)), 6))

    counts = np.maximum(np.round(areas[-1]), 1).astype(np.int64)
    for area in reversed(areas[:-1]):
        side = counts.shape[0]
        quarters = area.reshape(side, 2, side, 2).transpose(0, 2, 1, 3).reshape(side, side, 4)
        whole = np.floor(quarters).astype(np.int64)
        left_over = counts - whole.sum(axis=2)
        rank = np.argsort(np.argsort(whole - quarters, axis=2, kind="stable"), axis=2, kind="stable")
        shared = whole + (rank < left_over[:, :, None])
        counts = shared.reshape(side, side, 2, 2).transpose(0, 2, 1, 3).reshape(2 * side, 2 * side)
    return counts[:resolution, :resolution] > 0
