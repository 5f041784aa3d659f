"""What a call would ask of a GPU, counted on a CPU with meta tensors: operators, and the bytes that they move."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class Launches(TorchDispatchMode):
    """Inside, counts operators that launch work on a device; those that make a view or an empty tensor do not.

    Attributes:
        counts: by the operator's name; a convolution with groups is a "grouped_convolution".
        moved: bytes of the operators' inputs and outputs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()
        self.moved = 0

    @property
    def total(self) -> int:
        return self.counts.total()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if _launches_nothing(func, name):
            return out
        if (name == "convolution" and args[8] > 1) or (name == "convolution_backward" and args[9] > 1):
            name = "grouped_convolution"
        self.counts[name] += 1
        self.moved += sum(_bytes(t) for t in _tensors((args, kwargs, out)))
        return out


def _launches_nothing(func: Any, name: str) -> bool:
    makes_view = any(r.alias_info is not None and not r.alias_info.is_write for r in func._schema.returns)
    return makes_view or "empty" in name or name in ("_unsafe_view", "lift_fresh")


def _tensors(tree: Any) -> Iterator[Tensor]:
    return (leaf for leaf in tree_flatten(tree)[0] if isinstance(leaf, Tensor))


def _bytes(t: Tensor) -> int:
    """Of a tensor, but not more than of what it is expanded from."""
    return min(t.numel() * t.element_size(), t.untyped_storage().nbytes())
