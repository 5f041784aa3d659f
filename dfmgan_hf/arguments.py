"""Checks of arguments, whose errors name the argument, what is allowed and what came; and of optional libraries."""

from __future__ import annotations

import importlib.util
import math
import operator
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import torch


def check_positive_integer(value: Any, name: str) -> None:
    """Raise ValueError that names the argument unless `value` is an integer of at least 1."""
    number = as_integer(value)
    if number is None or number < 1:
        raise ValueError(f"`{name}` must be an integer of at least 1, but is {shown(value)}.")


def check_number(value: Any, name: str, lowest: float, highest: float) -> None:
    """Raise ValueError that names the argument unless `value` is a finite number within bounds."""
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, RuntimeError):
        number = math.nan
    if not (math.isfinite(number) and lowest <= number <= highest):
        allowed = f"a number from {lowest:g} to {highest:g}" if math.isfinite(highest) else "a finite number"
        raise ValueError(f"`{name}` must be {allowed}, but is {shown(value)}.")


def check_numbers(options: Any, **lowest: float) -> None:
    """Raise ValueError that names a field of `options` unless it is None, or finite and at least as large as given."""
    for name, least in lowest.items():
        value = getattr(options, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"`{name}` must be finite and at least {least:g}, but is {shown(value)}.")


def check_effect(options: Any, names: Iterable[str], needed: str) -> None:
    """Raise ValueError for a field of `options`, a dataclass, that was changed and does nothing without `needed`."""
    defaults = {field.name: field.default for field in fields(options)}
    for name in names:
        if getattr(options, name) != defaults[name]:
            raise ValueError(f"`{name}` has no effect without {needed}: leave it out, or give both.")


def check_choice(value: Any, name: str, choices: tuple[Any, ...]) -> None:
    """Raise ValueError that names the argument unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"`{name}` must be one of {', '.join(map(repr, choices))}, but is {shown(value)}.")


def check_device(value: str) -> None:
    """Raise ValueError unless `value` names a device that torch can compute on here."""
    try:
        torch.empty(0, device=value)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"`device` is {value!r}, which cannot be used here: name another, or cpu.") from error


def check_generator(generator: Any) -> None:
    """Raise ValueError unless `generator` is None, a torch.Generator or a list of some."""
    entries = generator if isinstance(generator, list) else [] if generator is None else [generator]
    if generator == [] or not all(isinstance(entry, torch.Generator) for entry in entries):
        allowed = "None, a torch.Generator or a list of them, one for each image"
        raise ValueError(f"`generator` must be {allowed}, but is {shown(generator)}.")


def require(*modules: str, purpose: str, extra: str = "metrics") -> None:
    """Raise an ImportError that names the extra if a library that something needs is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {' and '.join(missing)}, which is not installed: pip install dfmgan-hf[{extra}]"
        )


def as_integer(value: Any) -> int | None:
    """Return `value` as an integer, or None if it is none, as True and False are."""
    try:
        return None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        return None


def shown(value: Any) -> str:
    """Return a value for an error message: a shortened text and its type."""
    text = repr(value)
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({type(value).__name__})"
