"""What networks share: loading from safetensors alone, half precision where it does no harm, and sizes."""

from __future__ import annotations

import contextlib
import inspect
import json
import math
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils import SAFE_WEIGHTS_INDEX_NAME
from safetensors import SafetensorError, safe_open
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
        raise PickledWeightsError(
            f"{source} is not loaded, because it holds pickles ({listed(pickles, 3)}), and reading one runs whatever "
            "is in it. Expected weights as safetensors. Convert official snapshots with `dfmgan convert`, and keep "
            "the originals in a folder of their own."
        )


class DamagedModelError(OSError):
    """A model's files are damaged, incomplete or not of the class that reads them; the message says what and where."""


class MisfitError(ValueError):
    """A configuration, or tensors, that make no network of a class."""


# What a configuration may ask for. The widest published network has 512 channels, 8 mapping layers and 1024 pixels.
MAX_CONFIG_BYTES = 2**20
MAX_SIZES = {
    "resolution": 4096,
    "channel_base": 2**20,
    "z_dim": 8192,
    "w_dim": 8192,
    "conv_clamp": 2**20,
    "window": 2**16,
    "aspect": 4,
}
MAX_OTHER_SIZE = 2048
MAX_REPETITIONS = 64
MAX_PARAMETERS = 500_000_000
MAX_WEIGHT = 1_000_000

FLOAT_TYPES = ("F64", "F32", "F16", "BF16")
"""Types of weights, as safetensors names them."""


@contextlib.contextmanager
def readable_errors(source: str) -> Iterator[None]:
    """Turn what a damaged model at `source` makes diffusers raise inside into a `DamagedModelError`; others pass."""
    try:
        yield
    # Whatever is in a file that is missing, of another type, nested too deeply or no text.
    except (
        *(MisfitError, SafetensorError, json.JSONDecodeError, UnicodeDecodeError),
        *(LookupError, TypeError, AttributeError, RecursionError),
    ) as error:
        reason = str(error) if isinstance(error, MisfitError) else f"{type(error).__name__}: {str(error)[:300]}."
        raise DamagedModelError(
            f"{source} cannot be loaded: {reason} Expected a model as save_pretrained or a training writes it."
        ) from error


def read_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return what the JSON file `path` of a model says; `DamagedModelError` unless it is one, and names a class."""
    size = os.path.getsize(path)
    if size > MAX_CONFIG_BYTES:
        raise DamagedModelError(f"{path} has {size} bytes, which no configuration has: at most {MAX_CONFIG_BYTES}.")
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise DamagedModelError(f"{path} is not valid JSON ({error}); save or download the model again.") from error
    if not isinstance(config, dict) or not isinstance(config.get("_class_name"), str):
        raise DamagedModelError(f"{path} does not say of which class the model is (`_class_name`); save it again.")
    return config


class SafetensorsModel(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """A diffusers model that is loaded from whole safetensors only.

    To read a pickle is to run what is in it, and diffusers draws tensors that are missing, ignores those that are too
    many, and takes NaN as it comes. Here all of these are refused, and sizes before memory is taken for them.
    """

    @classmethod
    def from_pretrained(
        cls: type[_Model], pretrained_model_name_or_path: str | os.PathLike[Any] | None, **kwargs: Any
    ) -> _Model:
        """As every diffusers model, but without its fallback to pickles.

        Raises:
            PickledWeightsError: the folder holds pickles.
            DamagedModelError: the configuration or the weights are not those of a whole model of this class.
            ValueError: `use_safetensors=False`.
            OSError: there are no weights as safetensors.
        """
        if kwargs.get("use_safetensors") is False:
            raise ValueError("`use_safetensors` must be True: weights in other formats are pickles.")
        folder = os.path.join(pretrained_model_name_or_path or "", kwargs.get("subfolder") or "")
        if folder and os.path.isdir(folder):
            refuse_pickles(folder, os.listdir(folder))
        with readable_errors(os.path.normpath(folder)):
            return super().from_pretrained(pretrained_model_name_or_path, **{**kwargs, "use_safetensors": True})

    def save_pretrained(self, save_directory: str | os.PathLike[Any], *args: Any, **kwargs: Any) -> None:
        """As every diffusers model, but with weights that are as readable for others as the configuration.

        Raises:
            ValueError: `safe_serialization=False`.
            OSError: there is no room.
        """
        given = inspect.signature(ModelMixin.save_pretrained).bind(self, save_directory, *args, **kwargs).arguments
        if not given.get("safe_serialization", True):
            raise ValueError("`safe_serialization` must be True: weights in other formats are pickles.")
        # diffusers removes the shards that were there, but not their index, which loading would follow.
        stem, variant = SAFE_WEIGHTS_INDEX_NAME.removesuffix(".json"), given.get("variant")
        Path(save_directory, f"{stem}.{variant}.json" if variant else SAFE_WEIGHTS_INDEX_NAME).unlink(missing_ok=True)
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        except SafetensorError as error:
            raise OSError(
                f"The weights could not be written to {save_directory}: {error}. Make room there."
            ) from error
        # safetensors makes files that only their owner can read, whatever the umask.
        config = Path(save_directory, self.config_name)
        for file in config.parent.glob("*.safetensors"):
            shutil.copymode(config, file)

    # A pipeline looks there for the arguments that it passes on.
    save_pretrained.__signature__ = inspect.signature(ModelMixin.save_pretrained)  # type: ignore[attr-defined]

    @classmethod
    def _dict_from_json_file(cls, json_file: str | os.PathLike[str]) -> dict[str, Any]:
        config = read_config(json_file)
        if "quantization_config" in config:
            raise MisfitError("its weights are quantized (`quantization_config`), which no network here is.")
        return config

    def register_to_config(self, **kwargs: Any) -> None:
        """As diffusers, with tuples as the lists that JSON makes of them: saving changes no configuration."""
        super().register_to_config(**{k: list(v) if isinstance(v, tuple) else v for k, v in kwargs.items()})

    @classmethod
    def extract_init_dict(cls, config_dict: Any, **kwargs: Any) -> Any:
        """As diffusers; `MisfitError` for another class, values of another type or a size that no network has."""
        written = config_dict.get("_class_name", cls.__name__)
        if written not in (base.__name__ for base in cls.__mro__):
            raise MisfitError(f"it is that of a {str(written)[:60]!r}.")
        init_dict, unused, hidden = super().extract_init_dict(config_dict, **kwargs)
        hints = get_type_hints(cls.__init__)
        for name, value in init_dict.items():
            check_config_value(name, value, hints[name])
        return init_dict, unused, hidden

    @classmethod
    def from_config(cls, config: Any = None, return_unused_kwargs: bool = False, **kwargs: Any) -> Any:
        """As diffusers; `MisfitError` for a network that cannot be, before memory is taken for it."""
        try:
            with torch.device("meta"):
                sizes: Any = super().from_config(config, **kwargs)
        except (ValueError, RuntimeError) as error:
            raise MisfitError(f"its configuration makes no {cls.__name__}: {error}") from error
        count = sum(tensor.numel() for tensor in sizes.state_dict().values())
        if count > MAX_PARAMETERS:
            raise MisfitError(f"its sizes make {count:,} parameters; at most {MAX_PARAMETERS:,} are expected.")
        return super().from_config(config, return_unused_kwargs, **kwargs)

    @classmethod
    def _load_pretrained_model(
        cls, model: nn.Module, state_dict: Any, resolved_model_file: list[str], *args: Any, **kwargs: Any
    ) -> Any:
        # The one place that all ways of loading pass: folder, Hub, shards, variants, device maps.
        check_tensors(model, resolved_model_file)
        loaded = super()._load_pretrained_model(model, state_dict, resolved_model_file, *args, **kwargs)
        check_finite(model)
        return loaded


def check_config_value(name: str, value: Any, hint: Any) -> None:
    """Raise `MisfitError` unless a value of a configuration has its annotated type and a possible size."""
    hints = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kinds = tuple(get_origin(kind) or kind for kind in hints)
    # True is an int for Python, and JSON writes 256.0 as 256.
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = isinstance(value, kinds) or (is_number and float in kinds)
    if not fits or (isinstance(value, bool) and bool not in kinds):
        kind = " or ".join(kind.__name__ for kind in kinds)
        raise MisfitError(f"`{name}` must be of type {kind}, but is {str(value)[:80]!r}.")
    if isinstance(value, list):
        (of_entries,) = (get_args(kind) for kind in hints if get_args(kind))
        for entry in value:
            check_config_value(name, entry, *of_entries)
    if is_number:
        repeats = name.endswith(("_layers", "_blocks", "_taps"))
        highest = MAX_REPETITIONS if repeats else MAX_SIZES.get(name, MAX_OTHER_SIZE)
        lowest = "0" if repeats or name in ("window", "num_kinds") else "above 0"
        if not (math.isfinite(value) and (value > 0 or (lowest == "0" and value == 0)) and value <= highest):
            raise MisfitError(f"`{name}` must be {lowest} to {highest}, but is {str(value)[:80]}.")


def check_tensors(model: nn.Module, files: Iterable[str | os.PathLike[str]]) -> None:
    """Raise `MisfitError` unless safetensors files hold the tensors of `model` and no others; reads headers."""
    found = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 (it is no dict)
                part = tensors.get_slice(name)
                found[name] = (part.get_dtype(), tuple(part.get_shape()))
    if told := misfits(model, found):
        raise MisfitError(f"its weights are not those of a {type(model).__name__} of its sizes. Tensors {told}.")


def misfits(model: nn.Module, found: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """Say which tensors, by the types and shapes found, are not those of `model`; nothing if all are."""
    expected = model.state_dict()
    problems = {
        "missing": [name for name in expected if name not in found],
        "unknown": [name for name in found if name not in expected],
        "of another shape": [n for n, t in expected.items() if n in found and found[n][1] != tuple(t.shape)],
        "not of floating-point numbers": [
            n for n, t in expected.items() if n in found and t.is_floating_point() and found[n][0] not in FLOAT_TYPES
        ],
    }
    return "; ".join(f"{what}: {listed(names)}" for what, names in problems.items() if names)


def check_finite(model: nn.Module) -> None:
    """Raise `MisfitError` if a weight is NaN, infinite, or so large that what is drawn with it overflows."""
    ranges: dict[str, tuple[float, float]] = {}
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and tensor.numel() and not tensor.is_meta:
            low, high = tensor.aminmax()  # NaN if one is
            ranges[name] = float(low), float(high)
    broken = [name for name, (low, high) in ranges.items() if not math.isfinite(low + high)]
    if broken:
        raise MisfitError(f"NaN or infinity in {listed(broken)}: its training had diverged, or the file is damaged.")
    huge = [name for name, (low, high) in ranges.items() if max(-low, high) > MAX_WEIGHT]
    if huge:
        raise MisfitError(f"numbers beyond {MAX_WEIGHT:,} in {listed(huge)}, with which what is drawn would overflow.")


def listed(names: list[str], limit: int = 5) -> str:
    """Return the first names for a message, escaped since strangers chose them, and how many more there are."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(name[:100].encode("unicode_escape").decode() for name in names[:limit]) + more


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


ASPECTS = ((1, 1), (1, 2), (1, 4), (2, 1), (4, 1))
"""Height and width of images, as multiples of the shorter side."""


def sides(resolution: int, aspect: Sequence[int] | None) -> tuple[int, int]:
    """Return height and width of what a block works on: `resolution` is the shorter side; without `aspect`, square."""
    height, width = aspect or (1, 1)
    return height * resolution, width * resolution


def image_size(config: Mapping[str, Any]) -> tuple[int, int]:
    """Return height and width of the images of a network; one without `aspect` in its configuration is square."""
    return sides(config["resolution"], config.get("aspect"))


def check_aspect(aspect: Sequence[int]) -> None:
    """Raise ValueError unless images can be of this shape."""
    if tuple(aspect) not in ASPECTS:
        raise ValueError(
            "`aspect` must be height and width as multiples of the shorter side, one of "
            f"{', '.join(map(str, ASPECTS))}, but is {str(aspect)[:80]}."
        )


def check_network_size(resolution: int, channel_base: int, aspect: Sequence[int]) -> None:
    """Raise ValueError unless images can be so large and of this shape, with at least one channel there."""
    check_aspect(aspect)
    if resolution not in (32, 64, 128, 256, 512, 1024):
        raise ValueError(f"`resolution` must be a power of two from 32 to 1024, but is {resolution}.")
    if channel_base < resolution:
        raise ValueError(f"`channel_base` must be at least the resolution {resolution}, but is {channel_base}.")


def check_image_shape(images: Tensor, config: Mapping[str, Any]) -> None:
    """Raise ValueError unless `images` is (N, image_channels, height, width) of a network's configuration."""
    expected = (config["image_channels"], *image_size(config))
    if tuple(images.shape[1:]) != expected:
        raise ValueError(f"`images` must be (N, {', '.join(map(str, expected))}), but is {tuple(images.shape)}.")
