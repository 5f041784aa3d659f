"""Record what a GPU is told to do once, and have it done again at a fraction of the host's time (CUDA graphs)."""

from __future__ import annotations

import itertools
import logging
import threading
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

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
        # What other threads ask of the device meanwhile is no part of it, and does not end it.
        with torch.cuda.graph(graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            call()
    except Exception as error:
        _failed.append(graph)
        # A failed capture leaves its stream current, and the random generator in the belief that it still runs.
        torch.cuda.set_stream(before)
        random.graphsafe_set_state(torch.Generator(stream.device).graphsafe_get_state())
        random.set_state(state)
        raise CaptureError(f"{error}".partition("\n")[0]) from error
    return graph


class NetworkGraphs:
    """Run a network without gradients, and replay it where the same is asked again.

    The first pass with inputs of a shape and certain settings runs as it is, the second is captured, and what follows
    is replayed. A network that is moved, cast or given other parameters is captured anew; values that change in place
    are seen by the graphs. If a capture fails, a warning says so, and all runs as it is.

    Attributes:
        failed: whether a capture has failed.

    Example:
        >>> graphs = NetworkGraphs()
        >>> images, mask_logits = graphs(generator, objects, defects, noise_mode="const", return_dict=False)
    """

    MOST = 8
    """Graphs that are kept; the oldest goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._state: Any = None
        self._seen: set[Any] = set()
        self._captured: dict[Any, tuple[Any, list[Tensor], tuple[Tensor, ...]]] = {}
        self.failed = False
        self._stream: Any = None
        self._pool: Any = None

    def __call__(self, network: nn.Module, *inputs: Tensor, **settings: Any) -> tuple[Tensor, ...]:
        """Return the tuple of tensors that `network(*inputs, **settings)` returns; settings can be compared."""
        with self._lock, torch.no_grad():
            if self.failed:
                return network(*inputs, **settings)
            self._forget_another(network)
            shapes = tuple((x.shape, x.dtype, x.device) for x in inputs)
            # What was made in inference mode cannot be written to outside of it.
            key = (shapes, tuple(sorted(settings.items())), torch.is_inference_mode_enabled())
            if key not in self._captured and not self._capture(key, network, inputs, settings):
                return network(*inputs, **settings)
            graph, own, outputs = self._captured[key]
            for mine, new in zip(own, inputs, strict=True):
                mine.copy_(new)
            graph.replay()
            # The next replay writes where this one did.
            return tuple(output.clone() for output in outputs)

    def _forget_another(self, network: nn.Module) -> None:
        """Drop all graphs if they are not of this network, at this place, in this precision and set in this way."""
        tensors = itertools.chain(network.parameters(), network.buffers())
        precision = [getattr(network, f"low_precision_{name}", None) for name in ("dtype", "resolutions")]
        settings = [network.training, dict(getattr(network, "config", {}))]
        state = [id(network), precision, settings, *((t.data_ptr(), t.dtype) for t in tensors)]
        if state != self._state:
            self._state = state
            self._seen.clear()
            self._captured.clear()
            self._pool = None

    def _capture(self, key: Any, network: nn.Module, inputs: tuple[Tensor, ...], settings: dict[str, Any]) -> bool:
        """Capture a pass if it has been seen before; return whether it was captured."""
        if key not in self._seen:
            self._seen.add(key)
            return False
        device = inputs[0].device
        if self._pool is None:
            self._stream, self._pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
        own, outputs = [x.clone() for x in inputs], []
        try:
            current = torch.cuda.current_stream(device)
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                network(*own, **settings)
            current.wait_stream(self._stream)
            graph = capture(lambda: outputs.extend(network(*own, **settings)), self._stream, self._pool)
        except CaptureError as error:
            self.failed = True
            self._captured.clear()
            logger.warning("No CUDA graph of the network (%s): it runs as without graphs.", error)
            return False
        if len(self._captured) == self.MOST:
            del self._captured[next(iter(self._captured))]
        self._captured[key] = graph, own, tuple(outputs)
        return True
