"""What all networks share: loading from safetensors alone, and checks of their sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

# --- Weights come from safetensors and from nothing else: to read a pickle is to run what is in it.

_Model = TypeVar("_Model", bound="SafetensorsModel")

# What the name of a variant promises of its weights. Not `to`, at which diffusers warns of float32 modules even where
# there are none.
VARIANTS: dict[str, Callable[[nn.Module], nn.Module]] = {"fp16": nn.Module.half, "bf16": nn.Module.bfloat16}

PICKLE_SUFFIXES = (".bin", ".ckpt", ".pickle", ".pkl", ".pt", ".pth")


class PickledWeightsError(OSError):
    """A folder or repository holds pickles, which are never read; the message names them."""


def refuse_pickles(source: str, names: Iterable[str]) -> None:
    """Raise `PickledWeightsError` if a file name among `names` of the folder or repository `source` is a pickle's."""
    pickles = sorted(name for name in names if name.lower().endswith(PICKLE_SUFFIXES))
    if pickles:
        shown = ", ".join(pickles[:3]) + (f" and {len(pickles) - 3} more" if len(pickles) > 3 else "")
        raise PickledWeightsError(
            f"{source} is not loaded, because it holds pickles ({shown}), and reading one runs whatever is in it. "
            "Expected weights as safetensors. Convert official snapshots with "
            "examples/convert_official_snapshot.py, and keep the originals in a folder of their own."
        )


class SafetensorsModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A diffusers model that is loaded from safetensors only."""

    @classmethod
    def from_pretrained(
        cls: type[_Model], pretrained_model_name_or_path: str | os.PathLike[Any] | None, **kwargs: Any
    ) -> _Model:
        """As every diffusers model, but without its fallback to pickles.

        Raises:
            PickledWeightsError: the folder holds pickles.
            ValueError: `use_safetensors=False`.
            OSError: there are no weights as safetensors.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("`use_safetensors` must be True: weights in other formats are pickles.")
        folder = os.path.join(pretrained_model_name_or_path or "", kwargs.get("subfolder") or "")
        if folder and os.path.isdir(folder):
            refuse_pickles(folder, os.listdir(folder))
        return super().from_pretrained(pretrained_model_name_or_path, **{**kwargs, "use_safetensors": True})


# --- Sizes of the StyleGAN2 networks: resolutions of the blocks and channels at each of them.


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
