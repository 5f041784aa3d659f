"""Requests to stop: Ctrl-C and SIGTERM, which schedulers send before they end a job."""

from __future__ import annotations

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

Handler = Callable[[int, FrameType | None], Any] | int | None


class StopRequest:
    """Remembers SIGINT or SIGTERM inside a `with` block, so that the run can save before it leaves.

    A second one is passed on to whoever handled it before: it stops at once. Outside the main thread signals cannot
    be handled, and nothing happens.

    Attributes:
        signal: number of the signal that came, or None.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> StopRequest:
        try:
            self._previous = {n: signal.signal(n, self._remember) for n in (signal.SIGINT, signal.SIGTERM)}
        except ValueError:  # not the main thread
            self._previous = {}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def _remember(self, number: int, _frame: FrameType | None) -> None:
        self.signal = number
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
