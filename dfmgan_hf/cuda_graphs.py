"""Record what a GPU is told to do once, and have it done again at a fraction of the host's time (CUDA graphs)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

_failed: list[Any] = []
"""Graphs whose capture failed: the memory allocator goes on asking them whether they are being captured."""


class CaptureError(RuntimeError):
    """Something cannot be captured; the message says why. Nothing of it was done, and all else goes on as before."""


def capture(call: Callable[[], object], stream: Any, pool: Any = None) -> Any:
    """Capture all that `call` does on a GPU in a graph whose `replay()` does it again. Capturing itself does nothing.

    Args:
        call: has run on `stream` before, decides nothing on the host that may change, and does not wait for the
            device. What it reads stays where it is as long as the graph is in use.
        stream: to capture on.
        pool: `torch.cuda.graph_pool_handle()` of graphs that share their memory. What one of them has left there may
            be overwritten by the next.

    Raises:
        CaptureError: the capture failed.
    """
    graph = torch.cuda.CUDAGraph()
    before = torch.cuda.current_stream(stream.device)
    random = torch.cuda.default_generators[stream.device.index]
    state = random.get_state()
    try:
        with torch.cuda.graph(graph, pool=pool, stream=stream):
            call()
    except Exception as error:
        _failed.append(graph)
        # A failed capture leaves its stream current, and the random generator in the belief that it still runs.
        torch.cuda.set_stream(before)
        random.graphsafe_set_state(torch.Generator(stream.device).graphsafe_get_state())
        random.set_state(state)
        raise CaptureError(f"{error}".partition("\n")[0]) from error
    return graph
