"""Computing the regularisers in full precision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..models import StyleGAN2Discriminator, StyleGAN2Generator


@contextmanager
def full_precision(network: StyleGAN2Generator | StyleGAN2Discriminator) -> Iterator[None]:
    """Run a network without its low-precision blocks: second derivatives lose too much in 8 or 11 bits."""
    dtype, network.low_precision_dtype = network.low_precision_dtype, None
    try:
        yield
    finally:
        network.low_precision_dtype = dtype
