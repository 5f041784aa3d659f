"""Find photographs that occur more than once: the same file, the same photograph saved anew, or the same part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from tqdm import tqdm

from .reading import Array

_SIDE = 128
_COARSE_SIDE = 32
# Each photograph is laid onto these of the others, by their coarse detail, if that agrees at all.
_NEIGHBOURS = 3
_WORTH_A_LOOK, _WORTH_A_TURNED_LOOK = 0.3, 0.8
# Sides at which two photographs are aligned, one after the other, and the most steps at each.
_LEVELS = ((32, 8), (64, 5), (128, 2))
_SIDE_OF_SHADING = 8
_NOT_ALIGNED = 0.5
# Agreement of fine detail, without what is alike in any two photographs of the product. Measured on MVTec AD bottle
# and pill (same part: 0.83 to 0.97; other parts in the same pose: up to 0.75), on magnetic tiles (one tile under
# several exposures: mostly above 0.8; other tiles: up to 0.52), and on copies (JPEG of quality 50, half the size, 4 %
# cut off: 0.84 to 1).
_SAME, _MAYBE = 0.8, 0.7
# Those that come first may be the same part as well.
_OTHERS = slice(8, 11)
_FURTHER_COPY = 0.97
_ENOUGH_FOR_A_MEAN = 32
# In a smaller set, what the product's photographs share cannot be told: only what agrees wholly is the same.
_ENOUGH_TO_COMPARE = 8
_ROWS_AT_ONCE = 1024


Kind = Literal["exact", "near", "turned", "maybe"]
"""Same bytes; same photograph or part; the same, rotated by 90 degrees or mirrored; perhaps one of these."""


class DuplicatePair(NamedTuple):
    """Two photographs that show the same thing."""

    first: int
    second: int  # larger than `first`
    kind: Kind
    agreement: float  # of their fine detail, up to 1


def describe_photograph(image: Array) -> Array:
    """Reduce a photograph to a small grey version.

    Args:
        image: uint8 `(H, W, 3)`, or `(H, W, 1)` of grey.

    Returns:
        uint8 `(128, 128)`.
    """
    grey = Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else image).convert("L")
    return np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.LANCZOS))


def find_duplicates(photographs: Sequence[Array | None], digests: Sequence[str]) -> list[DuplicatePair]:
    """Compare each photograph with those that look most like it; a terminal shows how far that is.

    Two parts in the same pose look alike as a whole. So one photograph is aligned with the other (an affine map, by
    Gauss-Newton), and their fine detail is compared after what a few further photographs of the product, aligned in
    the same way, have in common with it is taken away: what is left is each part's own texture.

    Args:
        photographs: What `describe_photograph` returns, or None for photographs that could not be read.
        digests: SHA-256 of the files, in the same order.

    Returns:
        Pairs, sorted by index.
    """
    indices = [index for index, photograph in enumerate(photographs) if photograph is not None]
    pairs = {(pair.first, pair.second): pair for pair in exact_duplicates(digests)}
    # Flat photographs have no detail to compare.
    indices = [index for index in indices if np.ptp(photographs[index]) > 1]  # type: ignore[arg-type]
    if len(indices) < 2:
        return sorted(pairs.values())
    comparison = _Comparison(np.stack([photographs[index] for index in indices]))  # type: ignore[misc]
    candidates = [c for c in comparison.candidates() if digests[indices[c[0]]] != digests[indices[c[1]]]]
    with ThreadPoolExecutor() as pool:
        agreements = tqdm(pool.map(comparison.agreement, candidates), "Comparing", len(candidates), disable=None)
        for (i, j, turn), agreement in zip(candidates, agreements, strict=True):
            key = indices[i], indices[j]
            # The plain comparison comes first and wins: a symmetric view agrees with its mirror image too.
            if agreement > _MAYBE and key not in pairs:
                kind: Kind = "maybe" if agreement < _SAME else "turned" if turn else "near"
                pairs[key] = DuplicatePair(*key, kind, agreement)
    return sorted(pairs.values())


def exact_duplicates(digests: Sequence[str]) -> list[DuplicatePair]:
    """Return pairs of equal files, each with the first of its kind; "" stands for no file."""
    first_with: dict[str, int] = {}
    firsts = [first_with.setdefault(digest, index) for index, digest in enumerate(digests)]
    return [DuplicatePair(f, i, "exact", 1.0) for i, f in enumerate(firsts) if f != i and digests[i]]


def group_duplicates(pairs: Sequence[DuplicatePair]) -> list[list[int]]:
    """Join pairs, but for the uncertain ones, to groups of photographs that show the same thing, largest first."""
    group_of: dict[int, list[int]] = {}
    for pair in pairs:
        if pair.kind == "maybe":
            continue
        merged = group_of.get(pair.first, [pair.first])
        other = group_of.get(pair.second, [pair.second])
        if merged is not other:
            merged = merged + [index for index in other if index not in merged]
            for index in merged:
                group_of[index] = merged
    unique = {id(group): sorted(group) for group in group_of.values()}
    return sorted(unique.values(), key=lambda group: (-len(group), group))


class _Comparison:
    """Photographs `(N, 128, 128)`, and what has been found out about them."""

    def __init__(self, photographs: Array) -> None:
        self.photographs = photographs
        self.mean = photographs.mean(axis=0, dtype=np.float32)
        coarse = np.stack([_detail(_resized(p, _COARSE_SIDE), _SIDE_OF_SHADING) for p in photographs])
        # What all of them show, an aligned object, is no likeness of two.
        self.shared = _unit_vectors(coarse.mean(axis=0)[None])[0]
        self.coarse = coarse
        self.vectors = self._vectors(coarse)
        # The `_fine` detail of the mean and of other photographs, laid onto one.
        self.others: dict[int, list[Array]] = {}

    def _vectors(self, coarse: Array) -> Array:
        vectors = coarse.reshape(len(coarse), -1)
        return _unit_vectors(vectors - np.outer(vectors @ self.shared, self.shared))

    def candidates(self) -> list[tuple[int, int, int]]:
        """Return pairs that are worth a look, plain ones first: two numbers, and how the second is turned."""
        found: dict[tuple[int, int, int], None] = {}
        for turn, turned in enumerate(_turns(self.coarse)):
            vectors = self._vectors(turned) if turn else self.vectors
            limit, number = (_WORTH_A_TURNED_LOOK, 1) if turn else (_WORTH_A_LOOK, _NEIGHBOURS)
            if len(vectors) < _ENOUGH_TO_COMPARE and not turn:
                limit, number = -1.5, len(vectors)  # all of them: what is shared may be all there is
            for start in range(0, len(vectors), _ROWS_AT_ONCE):
                likeness = self.vectors[start : start + _ROWS_AT_ONCE] @ vectors.T
                rows = np.arange(len(likeness))
                likeness[rows, start + rows] = -2
                for row, column in zip(
                    *np.nonzero(likeness >= np.partition(likeness, -number)[:, -number, None]), strict=True
                ):
                    if likeness[row, column] > limit:
                        i, j = int(start + row), int(column)
                        # A quarter turn of one is three quarters of the other.
                        back = (4 - turn) % 4 if turn < 4 else turn
                        found[(i, j, turn) if i < j else (j, i, back)] = None
        return sorted(found, key=lambda candidate: candidate[2] != 0)

    def agreement(self, candidate: tuple[int, int, int]) -> float:
        """Return how well the fine detail of two photographs agrees, up to 1; 0 if they cannot be aligned."""
        i, j, turn = candidate
        one = self.photographs[i]
        other = _aligned(one, next(islice(_turns(self.photographs[j][None]), turn, None))[0])
        if other is None:
            return 0.0
        own, its = _fine(one), _fine(other)
        agreement = _correlation(own, its)
        if agreement < _MAYBE:
            return 0.0
        number = len(self.photographs)
        if number < _ENOUGH_TO_COMPARE:
            return agreement if agreement > _FURTHER_COPY else 0.0
        if i not in self.others:
            order = np.argsort(-(self.vectors @ self.vectors[i]), kind="stable")
            shown = [self.mean, *(self.photographs[k] for k in order[order != i][_OTHERS])]
            laid = [_aligned(one, each, insist=True) for each in shown]
            self.others[i] = [_fine(each) for each in laid if each is not None]
        mean, *others = self.others[i]
        if number < _ENOUGH_FOR_A_MEAN:  # to hold little of the two themselves
            rest = number * self.mean - self.photographs[i] - self.photographs[j]
            without = _aligned(one, rest / (number - 2), insist=True)
            mean = mean if without is None else _fine(without)
        known = [mean, *(each for each in others if _correlation(own, each) < _FURTHER_COPY)]
        common = np.linalg.qr(np.stack(known, axis=1))[0]
        return _correlation(*(detail - common @ (common.T @ detail) for detail in (own, its)))


def _aligned(one: Array, other: Array, *, insist: bool = False) -> Array | None:
    """Lay a photograph onto another by an affine map; None if, coarsely, they then do not agree, unless `insist`."""
    matrix = np.eye(3)
    for side, steps in _LEVELS:
        target, source = (_detail(_resized(x, side), max(4, side // 8)) for x in (one, other))
        agreement, matrix = _align(_standard(target), source, matrix, steps)
        if agreement < _NOT_ALIGNED and not insist:
            return None
    return _warped(np.asarray(other, np.float32), matrix)


def _align(target: Array, source: Array, matrix: Array, steps: int) -> tuple[float, Array]:
    """Improve an affine map of `source` onto `target` (Gauss-Newton, with gain and offset); return the best one.

    Coordinates go from -1/2 to 1/2 over the square, so that a map holds for all sizes.
    """
    side = len(target)
    inner = _inner(side)
    y, x = ((np.mgrid[0:side, 0:side] + 0.5) / side - 0.5).astype(np.float32)
    warped = _warped(source, matrix)
    best = _correlation(target[inner], warped[inner]), matrix
    for _ in range(steps):
        warped = _standard(warped)
        dy, dx = np.gradient(warped * np.float32(side))
        columns = [dx, dx * x, dx * y, dy, dy * x, dy * y, warped, np.ones_like(x)]
        slopes = np.stack([column[inner].ravel() for column in columns])
        normal = (slopes @ slopes.T).astype(np.float64)
        normal += 1e-6 * np.trace(normal) * np.eye(8)
        step = np.linalg.solve(normal, slopes @ (target - warped)[inner].ravel())
        dx, dx_x, dx_y, dy, dy_x, dy_y = step[:6]
        matrix = matrix @ np.array([[1 + dx_x, dx_y, dx], [dy_x, 1 + dy_y, dy], [0, 0, 1]])
        warped = _warped(source, matrix)
        agreement = _correlation(target[inner], warped[inner])
        if agreement > best[0]:
            best = agreement, matrix
        if abs(step[:6]).max() < 1e-3 / 4:  # a thirtieth of a pixel
            break
    return best


def _warped(image: Array, matrix: Array) -> Array:
    side = len(image)
    (a, b, c), (d, e, f) = matrix[:2]
    half = side / 2
    affine = a, b, side * c + half - (a + b) * half, d, e, side * f + half - (d + e) * half
    how = Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).transform((side, side), Image.Transform.AFFINE, affine, how))


def _turns(stacked: Array) -> Iterator[Array]:
    """Yield the photographs as they are, and in the seven other orientations of a square."""
    for mirrored in (stacked, stacked[:, :, ::-1]):
        for quarter_turns in range(4):
            yield np.rot90(mirrored, quarter_turns, axes=(1, 2))


def _resized(image: Array, side: int, how: Image.Resampling = Image.Resampling.BOX) -> Array:
    return np.asarray(Image.fromarray(np.asarray(image, np.float32)).resize((side, side), how))


def _detail(image: Array, side_of_coarse: int) -> Array:
    """Take away the shading, which lighting changes: what is left in a version of that side."""
    return image - _resized(_resized(image, side_of_coarse), len(image), Image.Resampling.BICUBIC)


def _fine(image: Array) -> Array:
    detail = _detail(np.asarray(image, np.float32), _SIDE // 4)[_inner(_SIDE)].ravel()
    return detail - detail.mean()


def _inner(side: int) -> tuple[slice, slice]:
    """Leave out a rim, for which an aligned photograph may have no pixels."""
    rim = slice(side // 16, -(side // 16))
    return rim, rim


def _standard(image: Array) -> Array:
    centred = image - image.mean()
    return centred / max(float(np.sqrt((centred**2).mean())), 1e-3)


def _correlation(one: Array, other: Array) -> float:
    return float((one * other).sum() / np.sqrt((one**2).sum() * (other**2).sum() + 1e-6))


def _unit_vectors(stacked: Array) -> Array:
    vectors = stacked.reshape(len(stacked), -1)
    vectors = vectors - vectors.mean(axis=1, keepdims=True)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-3)
