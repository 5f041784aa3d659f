"""Find photographs that occur more than once: the same file, or the same view saved, lit or turned differently."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image

from .reading import Array

_SIDE = 64
_COARSE_SIDE = 16
# Correlation of detail above which two photographs show the same thing. On 768 photographs of magnetic tiles, where
# one tile may appear under several exposures, 107 of the 109 pairs above it have neighbouring serial numbers.
_NEAR = 0.85
# Seven turned or mirrored comparisons make seven times as many chance hits, so they must agree better.
_TURNED = 0.9
# What all photographs share (an aligned object) is subtracted if there are enough of them to tell.
_ENOUGH_FOR_A_MEAN = 16
_ROWS_AT_ONCE = 1024


class DuplicatePair(NamedTuple):
    """Two photographs that show the same thing."""

    first: int
    second: int  # larger than `first`
    kind: Literal["exact", "near", "turned"]  # same bytes; same view; same view, rotated or mirrored
    similarity: float  # correlation of their detail, up to 1


def describe_detail(image: Array) -> Array:
    """Reduce a photograph to a small grey version without its coarse shading, which lighting changes.

    Args:
        image: uint8 `(H, W, 3)`, or `(H, W, 1)` of grey.

    Returns:
        float32 `(64, 64)`.
    """
    grey = (
        Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image)
        .convert("L")
        .resize((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    )
    fine = Image.fromarray(np.asarray(grey, dtype=np.float32))
    coarse = fine.resize((_COARSE_SIDE, _COARSE_SIDE), Image.Resampling.BOX)
    return np.asarray(fine) - np.asarray(coarse.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC))


def find_duplicates(details: Sequence[Array | None], digests: Sequence[str]) -> list[DuplicatePair]:
    """Compare all photographs with all others.

    Args:
        details: What `describe_detail` returns, or None for photographs that could not be read.
        digests: SHA-256 of the files, in the same order.

    Returns:
        Pairs, sorted by index.
    """
    indices = [index for index, detail in enumerate(details) if detail is not None]
    if len(indices) < 2:
        return []
    stacked = np.stack([detail for detail in details if detail is not None])
    if len(indices) >= _ENOUGH_FOR_A_MEAN:
        stacked = stacked - stacked.mean(axis=0)
    pairs: dict[tuple[int, int], DuplicatePair] = {}
    normalised = _normalise(stacked)
    for turn, turned in enumerate(_turns(stacked)):
        for i, j, similarity in _similar_pairs(normalised, _normalise(turned), _TURNED if turn else _NEAR):
            first, second = sorted((indices[i], indices[j]))
            is_exact = digests[first] == digests[second]
            pair = DuplicatePair(first, second, "exact" if is_exact else "turned" if turn else "near", similarity)
            # The plain comparison comes first and wins: a symmetric view agrees with its mirror image too.
            pairs.setdefault((first, second), pair)
    # Flat photographs have no detail, but equal bytes.
    first_with: dict[str, int] = {}
    for index, digest in enumerate(digests):
        first = first_with.setdefault(digest, index)
        if digest and first != index:
            pairs.setdefault((first, index), DuplicatePair(first, index, "exact", 1.0))
    return sorted(pairs.values())


def group_duplicates(pairs: Sequence[DuplicatePair]) -> list[list[int]]:
    """Join pairs to groups of photographs that show the same thing, largest first."""
    group_of: dict[int, list[int]] = {}
    for pair in pairs:
        merged = group_of.get(pair.first, [pair.first])
        other = group_of.get(pair.second, [pair.second])
        if merged is not other:
            merged = merged + [index for index in other if index not in merged]
            for index in merged:
                group_of[index] = merged
    unique = {id(group): sorted(group) for group in group_of.values()}
    return sorted(unique.values(), key=lambda group: (-len(group), group))


def _turns(stacked: Array) -> Iterator[Array]:
    """Yield the photographs as they are, and in the seven other orientations of a square."""
    for mirrored in (stacked, stacked[:, :, ::-1]):
        for quarter_turns in range(4):
            yield np.rot90(mirrored, quarter_turns, axes=(1, 2))


def _normalise(stacked: Array) -> Array:
    vectors = stacked.reshape(len(stacked), -1).astype(np.float32)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Flat photographs have no detail to compare: they resemble nothing.
    return np.where(norms > 1, vectors / np.maximum(norms, 1), 0)


def _similar_pairs(left: Array, right: Array, threshold: float) -> Iterator[tuple[int, int, float]]:
    for start in range(0, len(left), _ROWS_AT_ONCE):
        similarity = left[start : start + _ROWS_AT_ONCE] @ right.T
        for row, column in np.argwhere(similarity > threshold):
            if start + row < column:
                yield int(start + row), int(column), float(similarity[row, column])
