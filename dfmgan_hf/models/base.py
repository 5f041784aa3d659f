"""What networks share: loading from safetensors alone, half precision where it does no harm, and sizes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

RandomSource = torch.Generator | list[torch.Generator] | None
"""Source of noise: None (torch's global generator), one for the batch, or a list with one for each sample."""

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
            "Expected weights as safetensors. Convert official snapshots with `dfmgan convert`, and keep the "
            "originals in a folder of their own."
        )


class SafetensorsModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A diffusers model that is loaded from safetensors only: to read a pickle is to run what is in it."""

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


class StyleGAN2Model(SafetensorsModel):
    """A network with one block for each resolution, of which the highest can run in half precision."""

    low_precision_dtype: torch.dtype | None = None
    low_precision_resolutions: frozenset[int] = frozenset()

    def block(self, resolution: int) -> Any:
        raise NotImplementedError

    def set_mixed_precision(self, dtype: torch.dtype | None, num_resolutions: int = 4) -> None:
        """Run the blocks of the `num_resolutions` highest resolutions in `dtype`; parameters stay as they are.

        Mapping, styles, demodulation, images, masks and logits stay in the parameters' type. None turns it off.
        """
        self.low_precision_dtype = dtype
        self.low_precision_resolutions = frozenset(block_resolutions(self.config["resolution"])[-num_resolutions:])

    def compute_dtype(self, resolution: int) -> torch.dtype:
        """Return the type that the convolutions of the block at `resolution` run in."""
        if self.low_precision_dtype is not None and resolution in self.low_precision_resolutions:
            return self.low_precision_dtype
        return self.block(resolution).conv1.weight.dtype


def channels_at(resolution: int, channel_base: int, channel_max: int) -> int:
    """Return the feature channels at a resolution: min(channel_base // resolution, channel_max)."""
    return min(channel_base // resolution, channel_max)


def default_channel_base(resolution: int) -> int:
    """Return 16384 below 512x512 and 32768 from there on (StyleGAN2-ADA, appendix D)."""
    return 16384 if resolution < 512 else 32768


def block_resolutions(resolution: int) -> list[int]:
    """Return the resolutions of the blocks: 4, 8, ..., `resolution`."""
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
