"""Low precision where it does no harm, and enough of it for the regularisers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor

from ..models import StyleGAN2Discriminator, StyleGAN2Generator


@contextmanager
def regularizer_precision(network: StyleGAN2Generator | StyleGAN2Discriminator) -> Iterator[None]:
    """Run a network whose gradient is differentiated once more: in bfloat16 if it is set to it, but not in float16.

    The penalties' gradients are small, and float16 has no room for small numbers; bfloat16 has float32's. Rounding to
    its 8 bits moves a gradient by 3 to 5 %, a twentieth or less of what another batch does (benchmarks/README.md).
    """
    dtype = network.low_precision_dtype
    if dtype is torch.float16:
        network.low_precision_dtype = None
    try:
        yield
    finally:
        network.low_precision_dtype = dtype


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Run the convolutions of networks that know no precision of their own in `dtype`; None for full precision."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype)


def at_least_float32(tensor: Tensor) -> Tensor:
    """What low precision gave, in the precision that losses are computed in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
