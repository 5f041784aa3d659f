"""What a visitor may ask for. The page's widgets know these bounds too, but a request need not come from the page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import gradio as gr

MAX_SHOWN = 24
MAX_EXPORTED = 200
# torch's CPU generator takes 32 bits of its seed.
MAX_SEED = 2**32 - 1
MAX_TRUNCATION_PSI = 1.5
# In units of the mask's logit, which is around ten where the model is sure.
MAX_MASK_THRESHOLD = 10.0
# Of a photograph that is brought along.
MAX_UPLOAD_BYTES = 10 * 2**20
MAX_MEGAPIXELS = 25
# On the page, where every step of a slider shows: beyond, all parts are alike and all defects gone or everywhere.
MIN_VARIETY, MAX_SIZE = 0.3, 3.0
# Weaker ones are not seen, stronger ones are white or black: nothing more comes of it.
MIN_STRENGTH, MAX_STRENGTH = 0.2, 2.0
MAX_WINDOW = 2**13


def refusal(message: str) -> gr.Error:
    """The error that the page shows as a message and that clients get as text; it is the visitor's, so it is not
    logged."""
    return gr.Error(message, title="That cannot be drawn", print_exception=False)


def check_whole_number(value: Any, name: str, lowest: int, highest: int) -> int:
    """`value` as an integer within bounds; `gr.Error` in words otherwise."""
    allowed = f"{name} must be a whole number from {lowest:,} to {highest:,}"
    if _is_number(value) and value == math.floor(value) and lowest <= value <= highest:
        return int(value)
    raise refusal(f"{allowed}, but is {_shown(value)}.")


def check_number(value: Any, name: str, lowest: float, highest: float) -> float:
    """`value` as a float within bounds; `gr.Error` in words otherwise."""
    if _is_number(value) and lowest <= value <= highest:
        return float(value)
    raise refusal(f"{name} must be a number from {lowest:g} to {highest:g}, but is {_shown(value)}.")


def check_choice(value: Any, name: str, choices: Sequence[str]) -> str:
    """`value` if it is one of `choices`; `gr.Error` that lists them otherwise."""
    if isinstance(value, str) and value in choices:
        return value
    raise refusal(f"{name} must be one of {', '.join(choices)}, but is {_shown(value)}.")


def seeds_from(first: int, count: int) -> tuple[int, ...]:
    """`count` seeds from `first` on; after the last possible one comes 0."""
    return tuple((first + i) % (MAX_SEED + 1) for i in range(count))


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return isinstance(value, int) or math.isfinite(value)


def _shown(value: Any) -> str:
    """A visitor's value in a message: short, whatever was sent."""
    if value is None:
        return "empty"
    if isinstance(value, int) and value.bit_length() > 128:
        return f"a number of {value.bit_length()} bits"
    text = str(value) if isinstance(value, (int, float)) else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."
