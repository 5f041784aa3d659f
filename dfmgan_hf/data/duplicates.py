"""Find photographs that occur more than once: the same file, the same photograph saved anew, or the same part."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional
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
_ALIGNED_AT_ONCE = 64
_TURNS = 8

_Candidate = tuple[int, int, int]
_Item = TypeVar("_Item")

Kind = Literal["exact", "near", "turned", "maybe"]
"""Same bytes; same photograph or part; the same, rotated by 90 degrees or mirrored; perhaps one of these."""


class DuplicatePair(NamedTuple):
    """Two photographs that show the same thing."""

    first: int
    second: int  # larger than `first`
    kind: Kind


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
    for (i, j, turn), agreement in comparison.agreements(candidates):
        key = indices[i], indices[j]
        # The plain comparison counts before turned ones: a symmetric view agrees with its mirror image too.
        if agreement > _MAYBE and (not turn or key not in pairs):
            kind: Kind = "maybe" if agreement < _SAME else "turned" if turn else "near"
            pairs[key] = DuplicatePair(*key, kind)
    return sorted(pairs.values())


def exact_duplicates(digests: Sequence[str]) -> list[DuplicatePair]:
    """Return pairs of equal files, each with the first of its kind; "" stands for no file."""
    first_with: dict[str, int] = {}
    firsts = [first_with.setdefault(digest, index) for index, digest in enumerate(digests)]
    return [DuplicatePair(f, i, "exact") for i, f in enumerate(firsts) if f != i and digests[i]]


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
        self.photographs = torch.from_numpy(photographs).float()
        self.mean = self.photographs.mean(dim=0)
        self.coarse = _detail(_resized(self.photographs, _COARSE_SIDE), _SIDE_OF_SHADING)
        # What all of them show, an aligned object, is no likeness of two.
        self.shared = _unit_vectors(self.coarse.mean(dim=0, keepdim=True))[0]
        self.vectors = self._vectors(self.coarse)

    def _vectors(self, coarse: Tensor) -> Tensor:
        vectors = coarse.flatten(1)
        return _unit_vectors(vectors - torch.outer(vectors @ self.shared, self.shared))

    def candidates(self) -> list[_Candidate]:
        """Return pairs that are worth a look, plain ones first: two numbers, and how the second is turned."""
        found: dict[_Candidate, None] = {}
        for turn in range(_TURNS):
            vectors = self._vectors(_turned(self.coarse, turn)) if turn else self.vectors
            limit, number = (_WORTH_A_TURNED_LOOK, 1) if turn else (_WORTH_A_LOOK, _NEIGHBOURS)
            if len(vectors) < _ENOUGH_TO_COMPARE and not turn:
                limit, number = -1.5, len(vectors)  # all of them: what is shared may be all there is
            for start in range(0, len(vectors), _ROWS_AT_ONCE):
                likeness = self.vectors[start : start + _ROWS_AT_ONCE] @ vectors.T
                likeness.diagonal(start).fill_(-2)
                least = likeness.topk(number).values[:, -1:].clamp(min=limit)
                for row, j in ((likeness >= least) & (likeness > limit)).nonzero().tolist():
                    # A quarter turn of one is three quarters of the other.
                    back = (4 - turn) % 4 if turn < 4 else turn
                    i = start + row
                    found[(i, j, turn) if i < j else (j, i, back)] = None
        return sorted(found, key=lambda candidate: candidate[2] != 0)

    def agreements(self, candidates: Sequence[_Candidate]) -> Iterator[tuple[_Candidate, float]]:
        """Yield how well the fine detail of two photographs agrees, up to 1, if they can be aligned and it may be."""
        likely: list[tuple[_Candidate, Tensor, Tensor]] = []
        for chunk in _chunks(candidates, "Aligning"):
            ones = self.photographs[[i for i, _, _ in chunk]]
            others = torch.stack([_turned(self.photographs[j], turn) for _, j, turn in chunk])
            laid, is_laid = _aligned(ones, others)
            own, its = _fine(ones), _fine(laid)
            likely += [
                (candidate, one, other)
                for candidate, one, other, agrees in zip(
                    chunk, own, its, (is_laid & (_correlation(own, its) >= _MAYBE)).tolist(), strict=True
                )
                if agrees
            ]
        number = len(self.photographs)
        if number < _ENOUGH_TO_COMPARE:
            agreed = ((candidate, float(_correlation(own, its))) for candidate, own, its in likely)
            yield from ((candidate, value) for candidate, value in agreed if value > _FURTHER_COPY)
            return
        likely.sort(key=lambda found: found[0][0])
        of_one = [(i, list(found)) for i, found in groupby(likely, key=lambda found: found[0][0])]
        for groups in _chunks(of_one, "Comparing", _ALIGNED_AT_ONCE // 4):
            shown = [(i, each) for i, _ in groups for each in self._others(i)]
            if number < _ENOUGH_FOR_A_MEAN:  # to hold little of the two themselves
                rest = number * self.mean
                for i, found in groups:
                    without = [rest - self.photographs[i] - self.photographs[j] for (_, j, _), _, _ in found]
                    shown += [(i, each / (number - 2)) for each in without]
            ones, others = self.photographs[[i for i, _ in shown]], torch.stack([each for _, each in shown])
            details = list(_fine(_aligned(ones, others, insist=True)[0]))
            known = {i: [details.pop(0) for _ in self._others(i)] for i, _ in groups}
            for i, found in groups:
                mean, *others_of_one = known[i]
                for candidate, own, its in found:
                    mean = details.pop(0) if number < _ENOUGH_FOR_A_MEAN else mean
                    different = [each for each in others_of_one if _correlation(own, each) < _FURTHER_COPY]
                    common = torch.linalg.qr(torch.stack([mean, *different], dim=1)).Q
                    own_left, its_left = (detail - common @ (common.T @ detail) for detail in (own, its))
                    yield candidate, float(_correlation(own_left, its_left))

    def _others(self, i: int) -> list[Tensor]:
        """Return the mean and a few photographs that are most like one, but for those that may be the same."""
        order = (self.vectors @ self.vectors[i]).argsort(descending=True, stable=True)
        return [self.mean, *self.photographs[order[order != i][_OTHERS]]]


def _chunks(items: Sequence[_Item], title: str, size: int = _ALIGNED_AT_ONCE) -> Iterator[Sequence[_Item]]:
    """Yield parts of a sequence, and show on a terminal how far that is."""
    with tqdm(desc=title, total=len(items), disable=None if items else True) as bar:
        for start in range(0, len(items), size):
            yield items[start : start + size]
            bar.update(len(items[start : start + size]))


def _aligned(ones: Tensor, others: Tensor, *, insist: bool = False) -> tuple[Tensor, Tensor]:
    """Lay photographs onto others by affine maps.

    Args:
        ones: `(B, 128, 128)` to lay them onto.
        others: `(B, 128, 128)` to be laid.
        insist: Go on with those that, coarsely, do not agree.

    Returns:
        `(B, 128, 128)`, and bool `(B)` of those that do agree, or all.
    """
    matrices = torch.eye(3).repeat(len(ones), 1, 1)
    going = torch.arange(len(ones))
    for side, steps in _LEVELS:
        if not len(going):
            break
        targets, sources = (_detail(_resized(x[going], side), max(4, side // 8)) for x in (ones, others))
        agreements, matrices[going] = _align(_standard(targets), sources, matrices[going], steps)
        going = going if insist else going[agreements >= _NOT_ALIGNED]
    is_laid = torch.zeros(len(ones), dtype=torch.bool)
    is_laid[going] = True
    return _warped(others, matrices), is_laid


def _align(targets: Tensor, sources: Tensor, matrices: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Improve affine maps of `sources` onto `targets` (Gauss-Newton, with gain and offset); return the best ones.

    Coordinates go from -1/2 to 1/2 over the square, so that a map holds for all sizes.
    """
    side = targets.shape[-1]
    inner = _inner(side)
    places = ((torch.arange(side) + 0.5) / side - 0.5)[inner[-1]]
    y, x = places[:, None], places
    targets = targets[inner]
    warped = _warped(sources, matrices)
    best, best_matrices = _correlation(targets.flatten(1), warped[inner].flatten(1)), matrices
    for _ in range(steps):
        warped = _standard(warped)
        dy, dx = (each[inner] * side for each in torch.gradient(warped, dim=(1, 2)))
        kept = warped[inner]
        columns = [dx, dx * x, dx * y, dy, dy * x, dy * y, kept, torch.ones_like(dx)]
        slopes = torch.stack([column.flatten(1) for column in columns], dim=1)
        normal = (slopes @ slopes.mT).double()
        normal += 1e-6 * normal.diagonal(dim1=1, dim2=2).sum(dim=1)[:, None, None] * torch.eye(8)
        right = (slopes @ (targets - kept).flatten(1)[:, :, None]).double()
        step = torch.linalg.solve_ex(normal, right)[0][:, :6, 0].float()
        change = torch.eye(3).repeat(len(step), 1, 1)
        # The solution is (dx, dx_x, dx_y, dy, dy_x, dy_y), a row of the map is (d_x, d_y, d).
        change[:, :2] += step.reshape(-1, 2, 3).roll(-1, dims=2)
        matrices = (matrices @ change).nan_to_num(0).clamp(-8, 8)  # of those that do not converge
        warped = _warped(sources, matrices)
        agreements = _correlation(targets.flatten(1), warped[inner].flatten(1))
        is_better = agreements > best
        best = torch.where(is_better, agreements, best)
        best_matrices = torch.where(is_better[:, None, None], matrices, best_matrices)
        if abs(step).max() < 1e-3 / 4:  # a thirtieth of a pixel
            break
    return best, best_matrices


def _warped(images: Tensor, matrices: Tensor) -> Tensor:
    side = images.shape[-1]
    places = (torch.arange(side) + 0.5) / side - 0.5
    per_x, per_y, offset = (matrices[:, None, None, :2] * 2).unbind(dim=-1)  # grid_sample's places go from -1 to 1
    # affine_grid takes three times as long.
    grid = (per_x * places[:, None]) + (per_y * places[:, None, None] + offset)
    return functional.grid_sample(images[:, None], grid, mode="bicubic", align_corners=False)[:, 0]


def _turned(stacked: Tensor, turn: int) -> Tensor:
    """Return photographs `(..., S, S)` in one of the eight orientations of a square; 0 is as they are."""
    return torch.rot90(stacked.flip(-1) if turn >= 4 else stacked, turn % 4, dims=(-2, -1))


def _resized(images: Tensor, side: int) -> Tensor:
    """Average over the pixels of a smaller square."""
    return functional.avg_pool2d(images, images.shape[-1] // side)


def _detail(images: Tensor, side_of_coarse: int) -> Tensor:
    """Take away the shading, which lighting changes: what is left in a version of that side."""
    shading = _resized(images, side_of_coarse)[:, None]
    return images - functional.interpolate(shading, images.shape[1:], mode="bicubic", antialias=True)[:, 0]


def _fine(images: Tensor) -> Tensor:
    detail = _detail(images, _SIDE // 4)[_inner(_SIDE)].flatten(1)
    return detail - detail.mean(dim=1, keepdim=True)


def _inner(side: int) -> tuple[slice, slice, slice]:
    """Leave out a rim, for which an aligned photograph may have no pixels."""
    rim = slice(side // 16, -(side // 16))
    return slice(None), rim, rim


def _standard(images: Tensor) -> Tensor:
    centred = images - images.mean(dim=(1, 2), keepdim=True)
    return centred / centred.square().mean(dim=(1, 2), keepdim=True).sqrt().clamp(min=1e-3)


def _correlation(ones: Tensor, others: Tensor) -> Tensor:
    """Return the cosines of vectors along the last dimension."""
    norms = (ones.square().sum(dim=-1) * others.square().sum(dim=-1) + 1e-6).sqrt()
    return (ones * others).sum(dim=-1) / norms


def _unit_vectors(stacked: Tensor) -> Tensor:
    vectors = stacked.flatten(1)
    vectors = vectors - vectors.mean(dim=1, keepdim=True)
    return vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-3)
