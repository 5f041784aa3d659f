"""Rectangles of a feature map."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

GRID = 8
"""Pixels between the places where a window may begin and end."""


@dataclass(frozen=True)
class Window:
    """Rows from `top` to before `bottom` and columns from `left` to before `right`."""

    top: int
    bottom: int
    left: int
    right: int

    @staticmethod
    def whole(x: Tensor) -> Window:
        """All of (..., H, W)."""
        return Window(0, x.shape[-2], 0, x.shape[-1])

    @staticmethod
    def around(on: Tensor) -> Window | None:
        """The smallest window on a grid that holds every true pixel of (N, C, H, W); None if there is none.

        The grid has `GRID` pixels, or an eighth of a map below 64: the library that convolves makes and keeps a
        program for every size of map that it meets, and with any size allowed there are thousands.
        """
        grid = max(2, min(GRID, on.shape[-1] // 8))
        rows, columns = on.any(dim=3).any(dim=1).any(dim=0).nonzero(), on.any(dim=2).any(dim=1).any(dim=0).nonzero()
        if len(rows) == 0:
            return None
        (top, bottom), (left, right) = (
            (int(i[0]) // grid * grid, int(i[-1]) // grid * grid + grid) for i in (rows, columns)
        )
        return Window(top, bottom, left, right)

    def halved(self) -> Window:
        """The same place at half the resolution."""
        return Window(self.top // 2, self.bottom // 2, self.left // 2, self.right // 2)

    def doubled(self) -> Window:
        """The same place at twice the resolution."""
        return Window(2 * self.top, 2 * self.bottom, 2 * self.left, 2 * self.right)

    def grown(self, margin: int, size: int) -> Window:
        """`margin` more on every side, but not beyond a map of `size`."""
        return Window(
            max(self.top - margin, 0),
            min(self.bottom + margin, size),
            max(self.left - margin, 0),
            min(self.right + margin, size),
        )

    def united(self, other: Window) -> Window:
        """The smallest window that holds both."""
        return Window(
            min(self.top, other.top),
            max(self.bottom, other.bottom),
            min(self.left, other.left),
            max(self.right, other.right),
        )

    def crop(self, x: Tensor, inside: Window | None = None) -> Tensor:
        """This window's part of (..., H, W), a view; `x` is the whole map, or its part in the window `inside`."""
        top, left = (0, 0) if inside is None else (inside.top, inside.left)
        return x[..., self.top - top : self.bottom - top, self.left - left : self.right - left]
