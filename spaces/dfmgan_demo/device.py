"""ZeroGPU, where the Space has it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def gpu_is_borrowed() -> bool:
    """Whether a GPU is only there while a visitor's request is answered."""
    return _decorator() is not None


def on_gpu(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, run on a borrowed GPU on a ZeroGPU Space, and as it is everywhere else.

    ZeroGPU runs it in a forked process: arguments and results must be picklable, and models must be on "cuda" before.
    """
    gpu = _decorator()
    return function if gpu is None else gpu(duration=60)(function)


def _decorator() -> Callable[..., Any] | None:
    try:
        from spaces import GPU
    except ImportError:
        return None
    return GPU
