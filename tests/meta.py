"""Meta tensors, which count as a GPU's where layers choose by device: its work can be looked at without one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

META = torch.device("meta")

_Generator, _autocast = torch.Generator, torch.autocast


class Generator:
    """Stands for a random generator on the meta device, which has none."""

    def __new__(cls, device: Any = "cpu") -> Any:
        return _Generator(device) if torch.device(device).type != "meta" else super().__new__(cls)

    device = META

    def manual_seed(self, seed: int) -> None:
        return None


class Autocast(TorchFunctionMode):
    """Stands for `torch.autocast`, which knows no meta tensors: convolutions are in `dtype`."""

    def __new__(cls, device_type: str, dtype: torch.dtype) -> Any:
        return super().__new__(cls) if device_type == "meta" else _autocast(device_type, dtype)

    def __init__(self, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.conv2d:
            args = [a.to(self.dtype) if isinstance(a, Tensor) else a for a in args]
        return func(*args, **(kwargs or {}))
