"""Sizes of the StyleGAN2 networks: resolutions of the blocks and channels at each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Feature channels at a resolution: min(channel_base // resolution, channel_max)."""
    return min(channel_base // resolution, channel_max)


def default_channel_base(resolution: int) -> int:
    """16384 below 512x512, 32768 from 512x512 on."""
    return 16384 if resolution < 512 else 32768


def block_resolutions(resolution: int) -> list[int]:
    """Resolutions of the synthesis blocks: 4, 8, ..., `resolution`."""
    return [2**k for k in range(2, resolution.bit_length())]


def check_network_size(resolution: int, channel_base: int) -> None:
    """Raise ValueError unless `resolution` is a power of two from 32 to 1024 with at least one channel there."""
    if resolution not in (32, 64, 128, 256, 512, 1024):
        raise ValueError(f"`resolution` must be a power of two from 32 to 1024, but is {resolution}.")
    if channel_base < resolution:
        raise ValueError(f"`channel_base` must be at least the resolution {resolution}, but is {channel_base}.")


def check_image_shape(images: Tensor, config: Mapping[str, Any]) -> None:
    """Raise ValueError unless `images` is (N, image_channels, resolution, resolution) of a network's configuration."""
    expected = (config["image_channels"], config["resolution"], config["resolution"])
    if tuple(images.shape[1:]) != expected:
        raise ValueError(f"`images` must be (N, {', '.join(map(str, expected))}), but is {tuple(images.shape)}.")
