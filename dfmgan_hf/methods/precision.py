"""Low precision where it does no harm, and full precision for the regularisers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from ..models import StyleGAN2Discriminator, StyleGAN2Generator


@contextmanager
def full_precision(network: StyleGAN2Generator | StyleGAN2Discriminator) -> Iterator[None]:
    """Run a network without its low-precision blocks: second derivatives lose too much in 8 or 11 bits."""
    dtype, network.low_precision_dtype = network.low_precision_dtype, None
    try:
        yield
    finally:
        network.low_precision_dtype = dtype


def autocast(device: torch.device, dtype: torch.dtype | None) -> AbstractContextManager[object]:
    """Run the convolutions of networks that know no precision of their own in `dtype`; None for full precision."""
    # The meta device of memory estimates has none: the estimate is one of full precision.
    if dtype is None or device.type == "meta":
        return nullcontext()
    return torch.autocast(device.type, dtype)
