"""What a standalone pipeline file has in place of the package's other parts: its networks are in another file.

A test holds these definitions against the package's.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal, Protocol, get_args, runtime_checkable

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = get_args(NoiseMode)
LatentSpace = Literal["z", "w", "w+"]


def hold_weights(network: Any) -> AbstractContextManager[None]:
    """The package's saves some time; without it every image is the same."""
    return nullcontext()


@runtime_checkable
class StyleGAN2Generator(Protocol):
    """Any generator: the class itself was loaded from another file."""

    config: Mapping[str, Any]
    num_latents: int


@runtime_checkable
class DFMGANGenerator(Protocol):
    """A generator that also draws defects."""

    config: Mapping[str, Any]
    num_latents: int
    num_defect_latents: int
