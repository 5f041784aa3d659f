"""The box around a mask, and its parts."""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import numpy as np

from .reading import Array

Box = tuple[int, int, int, int]


def bounding_box(mask: Array) -> Box:
    """Return left, top, right and bottom of the box around a mask that is not empty; the last two are just outside."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


class Part(NamedTuple):
    """A part of a mask: pixels that touch each other, if only at corners.

    Attributes:
        left, top: its place in the picture, in pixels.
        pixels: bool `(H, W)`, as large as its box.
    """

    left: int
    top: int
    pixels: Array

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels, as COCO has them."""
        return self.left, self.top, self.pixels.shape[1], self.pixels.shape[0]


def parts_of(mask: Array) -> list[Part]:
    """Separate a mask, bool `(H, W)`, into its parts, from the top down."""
    height, width = mask.shape
    padded = np.zeros((height, width + 2), dtype=np.int8)
    padded[:, 1:-1] = mask
    change = np.diff(padded, axis=1)
    rows, starts = (each.tolist() for each in np.nonzero(change == 1))
    ends = np.nonzero(change == -1)[1].tolist()
    parents = list(range(len(rows)))

    def root(run: int) -> int:
        while parents[run] != run:
            parents[run] = parents[parents[run]]
            run = parents[run]
        return run

    above = 0
    for run, row in enumerate(rows):
        # Runs of the row before that end left of this one touch neither it nor what follows.
        while rows[above] < row - 1 or (rows[above] == row - 1 and ends[above] < starts[run]):
            above += 1
        other = above
        while rows[other] == row - 1 and starts[other] <= ends[run]:
            first, second = sorted((root(run), root(other)))
            parents[second] = first
            other += 1
    members: dict[int, list[int]] = defaultdict(list)
    for run in range(len(rows)):
        members[root(run)].append(run)
    parts = []
    for runs in members.values():
        left, top = min(starts[run] for run in runs), rows[runs[0]]
        pixels = np.zeros((rows[runs[-1]] - top + 1, max(ends[run] for run in runs) - left), dtype=bool)
        for run in runs:
            pixels[rows[run] - top, starts[run] - left : ends[run] - left] = True
        parts.append(Part(left, top, pixels))
    return parts
