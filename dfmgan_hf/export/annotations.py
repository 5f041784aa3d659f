"""Turn masks into what detectors learn from: the run lengths of its parts (COCO), their outlines (YOLO)."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ..data.parts import Part
from ..data.reading import Array

Edge = tuple[int, int, int]  # the grid point where it begins, x and y, and its direction

# Outlines run this far inside of the pixels' borders, in pixels. Then those who fill the pixels whose centres are
# inside (COCO) and those who round corners down and fill up to and with the line (OpenCV, and Ultralytics with it)
# get the same pixels back, and no rounding of a share of the width leads into the next pixel.
_INSET = 0.05
_BRIDGE = 0.25  # where in a row of pixels a hole is joined to the outline; not in the middle, where centres are
_RIGHT, _DOWN, _LEFT, _UP = range(4)
_STEPS = ((1, 0), (0, 1), (-1, 0), (0, -1))
# The pixel on the right hand of an edge, as seen from the grid point where the edge begins.
_PIXELS = ((0, 0), (-1, 0), (-1, -1), (0, -1))


def run_lengths(part: Part, width: int, height: int) -> list[int]:
    """Return the run lengths of a part in a picture, column by column, of background first: COCO's, uncompressed."""
    columns, rows = np.nonzero(part.pixels.T)
    places = (columns + part.left) * height + rows + part.top
    firsts = np.flatnonzero(np.diff(places, prepend=-2) > 1)
    starts, ends = places[firsts], places[np.append(firsts[1:], len(places)) - 1] + 1
    borders = np.stack([starts, ends], axis=1).ravel()
    counts = [int(count) for count in np.diff(borders, prepend=0, append=width * height)]
    return counts if counts[-1] else counts[:-1]


def counts_to_text(counts: Sequence[int]) -> str:
    """Write run lengths as COCO does: from the fourth on as differences to the last but one, six bits a character."""
    text = []
    for number, count in enumerate(counts):
        value = count - counts[number - 2] if number > 2 else count
        more = True
        while more:
            bits = value & 31
            value >>= 5
            more = value != (-1 if bits & 16 else 0)
            text.append(chr((bits | 32 if more else bits) + 48))
    return "".join(text)


def outline(part: Part) -> list[tuple[float, float]]:
    """Trace a part's outline, in pixels of the picture; filled by the even-odd rule, it gives back exactly its pixels.

    A hole is joined to what surrounds it by a line that is gone along there and back.
    """
    loops = _trace(part.pixels)
    # Clockwise is the outline, anticlockwise are holes; the outline alone begins in the first column of all.
    outer, *holes = sorted(loops, key=lambda loop: min(x for x, _, _ in loop))
    detours: dict[Edge, list[tuple[float, float]]] = {}
    # A hole is joined to what is left of it, which begins farther to the left: that comes after it, and then takes in
    # what the hole has taken in already.
    for hole in reversed(holes):
        start = min(range(len(hole)), key=lambda i: (hole[i][0], hole[i][2] != _DOWN))
        x, y, _ = hole[start]
        columns = np.flatnonzero(~part.pixels[y, : x - 1])
        left = int(columns[-1]) + 1 if len(columns) else 0
        there, here = (left + _INSET, y + _BRIDGE), (x - _INSET, y + _BRIDGE)
        around = _corners(hole[start:] + hole[:start], part.pixels, detours)
        detours[left, y + 1, _UP] = [there, here, *around, here, there]
    return [(part.left + x, part.top + y) for x, y in _corners(outer, part.pixels, detours)]


def _trace(pixels: Array) -> list[list[Edge]]:
    """Return the loops of edges around pixels, with these at the right hand; across corners where two meet."""
    padded = np.pad(pixels, 1)
    inside = padded[1:-1, 1:-1]
    following: dict[tuple[int, int], list[int]] = defaultdict(list)
    neighbours = padded[:-2, 1:-1], padded[1:-1, 2:], padded[2:, 1:-1], padded[1:-1, :-2]
    for direction, (neighbour, (dx, dy)) in enumerate(zip(neighbours, _PIXELS, strict=True)):
        for y, x in np.argwhere(inside & ~neighbour).tolist():
            following[x - dx, y - dy].append(direction)
    loops = []
    while following:
        place = next(iter(following))
        loop: list[Edge] = []
        while following.get(place):
            choices = following[place]
            # To the left leads to the pixel across the corner.
            direction = (loop[-1][2] - 1) % 4 if len(choices) > 1 and loop else choices[0]
            choices.remove(direction)
            if not choices:
                del following[place]
            loop.append((*place, direction))
            place = place[0] + _STEPS[direction][0], place[1] + _STEPS[direction][1]
        loops.append(loop)
    return loops


def _corners(
    loop: Sequence[Edge], pixels: Array, detours: dict[Edge, list[tuple[float, float]]]
) -> Iterator[tuple[float, float]]:
    """Yield the corners of a loop, inset, and what has been joined to its edges."""
    for (x, y, direction), following in zip(loop, [*loop[1:], loop[0]], strict=True):
        yield from detours.get((x, y, direction), ())
        if following[2] == direction:
            continue
        last = _inset_pixel(x, y, direction, _STEPS[direction])
        first = _inset_pixel(*following, (0, 0))
        corner = (first[0], last[1]) if direction in (_RIGHT, _LEFT) else (last[0], first[1])
        column, row = int(corner[0]), int(corner[1])
        if pixels[row, column]:
            yield corner
        else:  # two pixels that meet at this corner alone
            yield last
            yield first


def _inset_pixel(x: int, y: int, direction: int, step: tuple[int, int]) -> tuple[float, float]:
    """Return a grid point of an edge, its beginning or, a step on, its end, moved into the pixel at its right hand."""
    column, row = x + _PIXELS[direction][0], y + _PIXELS[direction][1]
    point = x + step[0], y + step[1]
    return tuple(  # type: ignore[return-value]
        corner + _INSET if corner == pixel else corner - _INSET
        for corner, pixel in zip(point, (column, row), strict=True)
    )
