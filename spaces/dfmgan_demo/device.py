"""Where the networks compute: on ZeroGPU if the Space has it, else each kind of work in a thread of its own."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from functools import wraps
from typing import Any

_END = object()


def gpu_is_borrowed() -> bool:
    """Whether a GPU is only there while a visitor's request is answered."""
    return _decorator() is not None


def where_it_computes(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, or generator function, run on a borrowed GPU on a ZeroGPU Space, and in its own thread elsewhere.

    ZeroGPU runs it in a forked process: arguments and results must be picklable, and models must be on "cuda" before.
    """
    gpu = _decorator()
    return in_own_thread(function) if gpu is None else gpu(duration=60)(function)


def in_own_thread(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function`, or generator function, whose every call is computed in one and the same thread, in turn.

    Gradio answers in any of 40 threads, and the libraries that convolve keep memory for each that ever called them.
    """
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=function.__name__)

    @wraps(function)
    def call(*args: Any) -> Any:
        return thread.submit(function, *args).result()

    @wraps(function)
    def iterate(*args: Any) -> Generator[Any, None, None]:
        items = function(*args)
        try:
            while (item := thread.submit(next, items, _END).result()) is not _END:
                yield item
        finally:
            thread.submit(items.close).result()

    return iterate if inspect.isgeneratorfunction(function) else call


def _decorator() -> Callable[..., Any] | None:
    try:
        from spaces import GPU
    except ImportError:
        return None
    return GPU
