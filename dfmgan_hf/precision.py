"""What may round: autocast, and TF32 in products and convolutions on a GPU, whichever interface of torch has set it.

torch's older functions raise RuntimeError where its newer ones have set something that they cannot express.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from typing import Any

import torch
from torch import Tensor

# Older versions of torch lack the newer interface.
_BACKENDS: Any = torch.backends


@contextmanager
def full_precision() -> Iterator[None]:
    """Run without TF32 and autocast, and restore both; also a decorator.

    A score must not depend on whether a trainer measures it inside autocast, or on cuDNN's default of rounding
    convolutions to TF32 (10 bits), which would make GPUs and CPUs differ in the third digit.
    """
    with (
        torch.autocast("cuda", enabled=False),
        torch.autocast("cpu", enabled=False),
        matrix_products(tf32=False),
        _exact_convolutions(),
    ):
        yield


@contextmanager
def without_autocast(images: Tensor) -> Iterator[Tensor]:
    """Yield the images in float32 or better, with autocast off: half precision would show as noise in the pixels."""
    kind = images.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        yield images.float() if images.dtype.itemsize < 4 else images


def convolutions_round() -> bool:
    """Return whether convolutions may round to TF32, as they do by default."""
    try:
        return torch.backends.cudnn.allow_tf32
    except RuntimeError:
        return _BACKENDS.cudnn.conv.fp32_precision == "tf32"


@contextmanager
def matrix_products(tf32: bool) -> Iterator[None]:
    """Round matrix products to TF32, or not at all, and restore what was set."""
    with ExitStack() as undo:
        try:
            undo.callback(torch.set_float32_matmul_precision, torch.get_float32_matmul_precision())
            torch.set_float32_matmul_precision("high" if tf32 else "highest")
        except RuntimeError:
            for operation in (_BACKENDS.cuda.matmul, _BACKENDS.mkldnn.matmul):
                undo.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
                operation.fp32_precision = "tf32" if tf32 else "ieee"
        yield


@contextmanager
def _exact_convolutions() -> Iterator[None]:
    """Keep convolutions from rounding, and restore what was set."""
    cudnn = _BACKENDS.cudnn
    newer = (cudnn.conv, _BACKENDS.mkldnn.conv) if hasattr(cudnn, "conv") else ()
    with ExitStack() as undo:
        for operation in newer:
            undo.callback(setattr, operation, "fp32_precision", operation.fp32_precision)
        with suppress(RuntimeError):
            undo.callback(setattr, cudnn, "allow_tf32", cudnn.allow_tf32)
            cudnn.allow_tf32 = False
        # To the older function, False is "not set": what the newer ones have set for all operations would hold.
        for operation in newer:
            operation.fp32_precision = "ieee"
        yield
