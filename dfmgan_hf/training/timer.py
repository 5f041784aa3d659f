"""Time and images between two logs."""

from __future__ import annotations

import time


class Timer:
    """Measures laps.

    Args:
        images_seen: images at the start.
    """

    def __init__(self, images_seen: int) -> None:
        self._start, self._images = time.perf_counter(), images_seen

    def exclude(self, seconds: float) -> None:
        """Leave out time that was spent on something else than training."""
        self._start += seconds

    def lap(self, images_seen: int) -> tuple[float, float]:
        """Seconds since the last lap, and seconds per kimg."""
        now = time.perf_counter()
        elapsed, images = now - self._start, images_seen - self._images
        self._start, self._images = now, images_seen
        return elapsed, elapsed / images * 1000
