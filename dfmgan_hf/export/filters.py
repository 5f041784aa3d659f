"""Which draws are kept, by the area of their masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

Reason = Literal["empty", "too_small", "too_large"]
"""Why a draw was dropped."""

REASONS: tuple[Reason, ...] = get_args(Reason)


@dataclass(frozen=True)
class MaskFilter:
    """Bounds of the share of the image that a mask covers.

    Args:
        min_area: smallest share, 0 to 1; None for at least one pixel, 0 keeps empty masks too.
        max_area: largest share, 0 to 1.
    """

    min_area: float | None = None
    max_area: float = 1.0

    def why_dropped(self, area: float) -> Reason | None:
        """Why a mask that covers the share `area` is dropped; None if it is kept."""
        if area == 0 and self.min_area != 0:
            return "empty"
        if area < (self.min_area or 0):
            return "too_small"
        return "too_large" if area > self.max_area else None

    def __str__(self) -> str:
        lowest = "at least one pixel" if self.min_area is None else f"at least {self.min_area:g}"
        return f"a mask of {lowest} and at most {self.max_area:g} of the image"
