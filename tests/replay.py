"""CUDA graphs on a CPU: operators and their tensors are captured, and Python is not asked again."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfmgan_hf.cuda_graphs import CaptureError


class Recording(TorchDispatchMode):
    """Does what is asked and writes it down."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, list[Tensor]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise CaptureError("a value was read back")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, tensors(result)))
        return result


class Replay:
    """Stands for a `torch.cuda.CUDAGraph`: results are written where they were, and inputs are read where they were.

    Unlike a GPU's capture, this one does the work. The replay that follows it has nothing left to do.
    """

    def __init__(self, calls: list[tuple[Any, Any, Any, list[Tensor]]]) -> None:
        self.calls = calls
        self.replays = 0

    @torch.no_grad()
    def replay(self) -> None:
        self.replays += 1
        if self.replays == 1:
            return
        for func, args, kwargs, results in self.calls:
            for old, new in zip(results, tensors(func(*args, **kwargs)), strict=True):
                if old.data_ptr() != new.data_ptr():  # no view, and not changed in place
                    old.copy_(new)


def tensors(results: Any) -> list[Tensor]:
    return [t for t in tree_leaves(results) if isinstance(t, Tensor)]


def capture(call: Callable[[], object], stream: Any, pool: Any = None) -> Replay:
    with Recording() as recording:
        call()
    return Replay(recording.calls)


class Stream:
    device = torch.device("cpu")

    def __init__(self, *_: Any) -> None: ...

    def wait_stream(self, other: Stream) -> None: ...


def install(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """Let the module capture on this CPU."""
    monkeypatch.setattr(f"{module}.capture", capture)
    monkeypatch.setattr(torch.cuda, "Stream", Stream)
    monkeypatch.setattr(torch.cuda, "current_stream", Stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: nullcontext())
    monkeypatch.setattr(torch.cuda, "graph_pool_handle", lambda: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
