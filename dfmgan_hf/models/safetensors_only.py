"""Weights come from safetensors and from nothing else: to read a pickle is to run what is in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import nn

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
