"""What a method is to scripts, benchmarks and tests: how it is trained, how it draws, and what is known of it.

How to add one:

1. Write `methods/<name>.py` with a `Task` (training/task.py) that the trainer runs and, if it has settings of its own,
   frozen dataclasses of options with a documented default for each: those of training, and those of drawing. Losses
   go to `losses/`, networks to `models/` (as `SafetensorsModel`, so that they have `from_pretrained`). The task's
   `export` saves what draws in the subfolder `generator`; its class says later how the folder is drawn from.
2. At the end of that file put `METHOD = Method(...)` and `register(METHOD)`; name the file in `methods/registry.py`.

Then examples/train_baseline.py trains it, `open_sampler` draws from it, benchmarks list it, and the tests that run
over the registry test it. A method that is not trained has no `build` and gives its sampler from photographs alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from ..data import DataConfig, ImageMaskDataset
from ..metrics import Sampler
from ..metrics.while_training import sample_generator
from ..models import StyleGAN2Discriminator, StyleGAN2Generator
from ..training import Task
from .augmentations import AugmentationConfig
from .backbone import recipe_from_backbone
from .presets import PRESETS, Recipe, RecipeOverrides, resolve_recipe

Init = Literal["stage1", "scratch"]
Backbone = tuple[StyleGAN2Generator, StyleGAN2Discriminator]
Network = TypeVar("Network", bound=StyleGAN2Generator | StyleGAN2Discriminator)

STYLEGAN2_FIELDS = tuple(f.name for f in fields(RecipeOverrides))
"""Recipe values that a method on StyleGAN2's networks uses: all of them."""

_PAPER_KIMG = PRESETS["auto"]["stage2_kimg"]
_PAPER_RESOLUTION = 256


@dataclass(frozen=True)
class NoOptions:
    """The method has no options of its own."""


@dataclass(frozen=True)
class Defaults:
    """A method's published hyperparameters. None: those of the preset, as in stage 2.

    Args:
        batch_size: images a step over all processes.
        lr: Adam's learning rate before lazy regularisation.
        r1_gamma: weight of R1 at 256x256; with other sizes it goes as R^2, as StyleGAN2-ADA's own.
        ema_kimg: half-life of the averaged generator.
        total_kimg: length in thousands of images; a preset that shortens stage 2 shortens this in proportion.
        channel_base: channels at resolution r are min(channel_base // r, channel_max), in presets that set none.
        augmentation: of the discriminator, see `AugmentationConfig`.
    """

    batch_size: int | None = None
    lr: float | None = None
    r1_gamma: float | None = None
    ema_kimg: float | None = None
    total_kimg: float | None = None
    channel_base: int | None = None
    augmentation: str = "none"


@dataclass(frozen=True)
class Target:
    """Where and how a task computes.

    Args:
        device: of the networks. On "meta" they have shapes but no memory, to look at their sizes.
        low_precision_dtype: of the four highest resolutions; None for float32 everywhere.
        mean_over_processes: averages a tensor over all processes.
    """

    device: torch.device
    low_precision_dtype: torch.dtype | None = None
    mean_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor

    @property
    def is_meta(self) -> bool:
        return self.device.type == "meta"

    def construct(self) -> AbstractContextManager[object]:
        """Weights are drawn on the CPU, so that a seed gives the same ones on every device."""
        return torch.device("meta") if self.is_meta else nullcontext()

    def place(self, network: Network) -> Network:
        network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-arg]
        network.set_mixed_precision(self.low_precision_dtype)
        return network


@dataclass(frozen=True)
class TaskRequest:
    """All that a task is built from.

    Args:
        recipe: sizes and hyperparameters, settled.
        options: of the method, an instance of `Method.options`.
        augmentation: what the discriminator sees.
        target: where and how it computes.
        dataset: what is learnt, which the trainer's batches come from too: photographs of the defect, labelled ones of
            several kinds if the method learns them jointly; or of the good product.
        backbone: stage 1's averaged generator and its discriminator, on the CPU, to be copied; None from scratch.
        data: where the defect-free photographs come from, for methods that learn from both (`load_good`).
    """

    recipe: Recipe
    options: Any
    augmentation: AugmentationConfig
    target: Target
    dataset: ImageMaskDataset
    backbone: Backbone | None = None
    data: DataConfig | None = None

    @cached_property
    def good(self) -> ImageMaskDataset:
        """The defect-free photographs at the recipe's size."""
        assert self.data is not None
        return self.data.load_good(resolution=self.recipe.resolution, image_channels=self.recipe.image_channels)

    @property
    def networks(self) -> Backbone:
        """The backbone of a method that cannot do without."""
        assert self.backbone is not None
        return self.backbone

    def copy_backbone(self) -> Backbone:
        """Copies of stage 1's generator and discriminator where the task computes."""
        generator, discriminator = copy.deepcopy(self.networks)
        return self.target.place(generator), self.target.place(discriminator)


@dataclass(frozen=True)
class SamplerRequest:
    """All that a sampler is made from.

    Args:
        source: folder that training wrote, or the Hub id of one; None for a method that is not trained.
        data: photographs, for methods that draw with them; None if there are none.
        defect: kind of defect; None if the data, and what was trained, have only one.
        resolution: of what a method without training draws; trained ones know theirs.
        options: of drawing, an instance of the method's `Method.drawing`; None for the defaults.
        device: where networks compute.
        revision: of the Hub repository.
    """

    source: str | None = None
    data: DataConfig | None = None
    defect: str | None = None
    resolution: int = 256
    options: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    revision: str | None = None

    def load_good(self, resolution: int, image_channels: int = 3) -> ImageMaskDataset:
        """The defect-free photographs.

        Raises:
            ValueError: there is no data.
        """
        return self._data().load_good(resolution=resolution, image_channels=image_channels)

    def load_defects(self, resolution: int, image_channels: int = 3) -> ImageMaskDataset:
        """The photographs of the defect with their masks; errors as `load_good`."""
        return self._data().load_defects(self.defect, resolution=resolution, image_channels=image_channels)

    def _data(self) -> DataConfig:
        if self.data is None:
            raise ValueError("This method draws on photographs: give --data_dir (and --category, --defect).")
        return self.data


@dataclass(frozen=True)
class Method:
    """A method of defect image generation.

    Args:
        name: on command lines and in folders, a-z and _.
        title: in tables.
        citation: authors, title, venue, year.
        open_sampler: draws from what training wrote, or from photographs; image i follows from the seed and i alone.
        build: puts the task together; None for a method that is not trained.
        generator: class of the network that `export` saves in generator/; None for a method that is not trained.
        sample_task: draws from a task while it is trained, for scores.
        options: dataclass of the method's own options of training.
        drawing: dataclass of its options of drawing, with a default for each.
        defaults: published hyperparameters.
        recipe_fields: values of the recipe that the method uses; overriding another one is an error.
        learns: the defects, or the good product, as stage 1 does.
        init: what it starts from; an option called `init` prevails.
        has_masks: whether its samples have masks.
        needs_masks: whether it learns from masks.
        is_reconstruction: whether details that no source gives were filled in here: its results are then no check of
            the published ones.
    """

    name: str
    title: str
    citation: str
    open_sampler: Callable[[SamplerRequest], Sampler]
    build: Callable[[TaskRequest], Task] | None = None
    generator: str | None = None
    sample_task: Callable[[Task], Sampler] = sample_generator
    options: type = NoOptions
    drawing: type = NoOptions
    defaults: Defaults = Defaults()
    recipe_fields: tuple[str, ...] = STYLEGAN2_FIELDS
    learns: Literal["defects", "good"] = "defects"
    init: Init = "scratch"
    has_masks: bool = False
    needs_masks: bool = False
    is_reconstruction: bool = False

    @property
    def is_trained(self) -> bool:
        return self.build is not None

    def is_joint(self, options: Any) -> bool:
        """Whether one model learns several kinds of defect: what an option called `joint` says."""
        return bool(getattr(options, "joint", False))

    def init_with(self, options: Any) -> Init:
        """What the method starts from with these options."""
        return getattr(options, "init", self.init)

    def resolve(
        self, preset: str, overrides: RecipeOverrides, backbone: StyleGAN2Generator | None, num_processes: int
    ) -> Recipe:
        """Settle every value: what `overrides` sets, then the backbone's sizes, this method's table, the preset.

        Args:
            preset: a name of `PRESETS`.
            overrides: None where nothing was chosen.
            backbone: stage 1's generator, or None from scratch.
            num_processes: of the launch.

        Raises:
            ValueError: an unknown preset, an override that the method has no use for or that contradicts the backbone.
        """
        for name in (f.name for f in fields(overrides)):
            if getattr(overrides, name) is not None and name not in self.recipe_fields:
                raise ValueError(
                    f"`{name}` has no meaning for {self.title}, which uses {', '.join(self.recipe_fields)}; "
                    "leave it out."
                )
        if backbone is not None:
            overrides = recipe_from_backbone(overrides, backbone)
        table, settled = self.defaults, PRESETS.get(preset, {})
        resolution = overrides.resolution or settled.get("resolution", _PAPER_RESOLUTION)
        published: dict[str, Any] = {
            "batch_size": table.batch_size,
            "lr": table.lr,
            "r1_gamma": None if table.r1_gamma is None else table.r1_gamma * (resolution / _PAPER_RESOLUTION) ** 2,
            "ema_kimg": table.ema_kimg,
            "channel_base": None if "channel_base" in settled else table.channel_base,
        }
        if table.total_kimg is not None:
            published["total_kimg"] = table.total_kimg * settled.get("stage2_kimg", _PAPER_KIMG) / _PAPER_KIMG
        missing = {name: value for name, value in published.items() if getattr(overrides, name) is None}
        stage: Literal["stage1", "stage2"] = "stage1" if self.learns == "good" else "stage2"
        return resolve_recipe(preset, replace(overrides, **missing), stage, num_processes)


REGISTERED: dict[str, Method] = {}


def register(method: Method) -> None:
    """Make a method known by its name to scripts, benchmarks and tests."""
    REGISTERED[method.name] = method
