"""ZeroGPU, where the Space has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, run on a borrowed GPU on a ZeroGPU Space, and as it is everywhere else.

    ZeroGPU runs it in a forked process: arguments and results must be picklable, and models must be on "cuda" before.
    """
    try:
        from spaces import GPU
    except ImportError:
        return function
    return GPU(duration=60)(function)
