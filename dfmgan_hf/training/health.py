"""What is going wrong, seen in the statistics, and what to do about it.

A rule is a function of the last rows of the log, oldest first, that returns advice or None. Tasks name the rules that
concern them (`Task.rules`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

Rows = Iterable[dict[str, Any]]
Rule = Callable[[Rows], str | None]

PATIENCE = 5
"""Intervals in a row that a condition must hold for: one alone may be chance, and the first ones always look bad."""


class TrainingWarning(UserWarning):
    """The run looks as if it will not end well; the message says why and what to do."""


def last(rows: Rows, *names: str) -> list[tuple[float, ...]] | None:
    """Return the named numbers of the last PATIENCE rows, or None if there are fewer or one is missing."""
    recent = list(rows)[-PATIENCE:]
    values = [tuple(row.get(name) for name in names) for row in recent]
    if len(recent) < PATIENCE or any(value is None for numbers in values for value in numbers):
        return None
    return values  # type: ignore[return-value]


def examine(rules: Iterable[Rule], rows: Rows) -> dict[str, str]:
    """Return advice by the name of the rule that gives it."""
    advice = {rule.__name__: rule(rows) for rule in rules}
    return {name: text for name, text in advice.items() if text is not None}
