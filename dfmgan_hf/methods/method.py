"""What a method is to scripts, benchmarks and tests: how it is trained, how it draws, and its sizes by name."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import torch
from torch import Tensor, nn

from ..arguments import check_effect
from ..augmentation.ada import AUGMENTATION_SETS, AugmentPipe
from ..augmentation.controller import AdaController
from ..augmentation.diffaugment import DiffAugment
from ..data.preparation import Size
from ..data.training_set import DataConfig, ImageMaskDataset
from ..hub_errors import clear_loading_errors
from ..losses import r1_gamma
from ..metrics.sampler import PipelineSampler, Sampler
from ..metrics.scoring import sample_generator
from ..models.base import SafetensorsModel, check_aspect, default_channel_base, sides
from ..models.discriminator import StyleGAN2Discriminator
from ..models.projected import ProjectedDiscriminator
from ..models.stylegan2 import StyleGAN2Generator
from ..pipeline import DFMGANPipeline
from ..training.task import Task

Init = Literal["stage1", "scratch", "either"]
Discriminator = StyleGAN2Discriminator | ProjectedDiscriminator
Backbone = tuple[StyleGAN2Generator, Discriminator]
Network = TypeVar("Network", bound=nn.Module)
DiscriminatorName = Literal["stylegan2", "projected"]
PresetName = Literal["auto", "quick", "small", "paper256", "large512", "large1024"]

FROM_BACKBONE = (
    *("resolution", "aspect", "image_channels", "z_dim", "w_dim", "mapping_layers", "channel_base", "channel_max"),
)
"""Sizes that a method which starts from stage 1 takes over."""

ADA_KIMG = {"stage1": 500.0, "stage2": 100.0}
"""Thousands of images in which ADA's probability can go from 0 to 1: of the good product, and of few photographs."""

# --- Sizes and hyperparameters ---


@dataclass(frozen=True)
class RecipeConfig:
    """Network sizes and hyperparameters that the methods share; None takes the method's own or the preset's value.

    Args:
        resolution: Shorter side of the images, a power of two from 32 to 1024.
        aspect: Height and width of the images as multiples of the shorter side: 1 4 for bars that are four times as
            wide as high; one of the two is 1, the other 1, 2 or 4.
        image_channels: 1 (grey) or 3 (RGB).
        z_dim: Width of the latents z.
        w_dim: Width of the latents w.
        mapping_layers: Layers of the mapping networks.
        channel_base: Channels at resolution r are min(channel_base // r, channel_max).
        channel_max: Upper limit of the channels.
        batch_size: Images a step over all processes.
        lr: Learning rate of Adam.
        r1_gamma: Weight of R1.
        ema_kimg: Half-life of the averaged generator in thousands of images.
        total_kimg: Length of the stage in thousands of images shown.
        imitation_kimg: Thousands of images in which the generator first learns to imitate the photographs (in stage 2
            the defects, and from then on their masks), before it plays against the projected discriminator; 0, as
            published, for none.
        discriminator: stylegan2 (published), or projected: small heads on the frozen features of an ImageNet
            classifier. Stage 2 takes over stage 1's unless the other one is chosen.

    Raises:
        ValueError: a value is not positive and finite (R1's weight, the half-life and the imitation may be 0), or
            there is no such discriminator, or there are no images of this shape.
    """

    resolution: int | None = None
    image_channels: int | None = None
    z_dim: int | None = None
    w_dim: int | None = None
    mapping_layers: int | None = None
    channel_base: int | None = None
    channel_max: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    r1_gamma: float | None = None
    ema_kimg: float | None = None
    total_kimg: float | None = None
    imitation_kimg: float | None = None
    discriminator: DiscriminatorName | None = None
    aspect: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            if name == "discriminator":
                if value not in get_args(DiscriminatorName):
                    names = ", ".join(get_args(DiscriminatorName))
                    raise ValueError(f"`discriminator` must be one of {names}, but is {value!r}.")
            elif name == "aspect":
                check_aspect(value)
            elif not (0 < value < math.inf or (value == 0 and name in ("r1_gamma", "ema_kimg", "imitation_kimg"))):
                raise ValueError(f"`{name}` must be a positive, finite number, but is {value}.")

    def given(self) -> dict[str, Any]:
        """Return the values that are set."""
        return {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}

    @property
    def image_size(self) -> tuple[int, int]:
        """Return height and width of the images, of a settled recipe."""
        return sides(self.resolution, self.aspect)  # type: ignore[arg-type]

    def network_config(self) -> dict[str, Any]:
        """Return the constructor arguments of the generator."""
        return self._take(*FROM_BACKBONE)

    def discriminator_config(self) -> dict[str, Any]:
        """Return the constructor arguments of the discriminator."""
        return self._take("resolution", "aspect", "image_channels", "channel_base", "channel_max")

    def training_config(self) -> dict[str, Any]:
        """Return the hyperparameters that every task on these networks has."""
        return self._take("batch_size", "lr", "r1_gamma", "ema_kimg")

    def _take(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


PUBLISHED_VALUES: dict[str, Any] = {"imitation_kimg": 0.0, "discriminator": "stylegan2"}
"""Of what the papers do not have: values that leave it out."""

PUBLISHED_FIELDS = tuple(f.name for f in fields(RecipeConfig) if f.name not in PUBLISHED_VALUES)

Recipe = Any
"""A `RecipeConfig` in which `Method.resolve` has settled every value, so that none is None."""

_PAPER = {
    "resolution": 256,
    "image_channels": 3,
    "z_dim": 512,
    "w_dim": 512,
    "mapping_layers": 2,
    "channel_max": 512,
    "stage1_kimg": 3000,
    "stage2_kimg": 400,
}

PRESETS: dict[str, dict[str, Any]] = {
    # StyleGAN2-ADA's "auto": what is missing follows from the resolution and the number of GPUs.
    "auto": _PAPER,
    # For CPUs and first tries: an image costs about a thousandth of the paper's work.
    "small": {
        **_PAPER,
        "resolution": 64,
        "z_dim": 128,
        "w_dim": 128,
        "channel_base": 1024,
        "channel_max": 128,
        "batch_size": 16,
        "stage1_kimg": 100,
        "stage2_kimg": 30,
    },
    # The discriminator on frozen features, and a generator that imitates first; channels, and how long the product is
    # imitated, follow the resolution.
    "quick": {
        **_PAPER,
        "resolution": 64,
        "channels_per_pixel": 16,
        "channel_max": 128,
        "batch_size": 16,
        "lr": 0.000625,
        "ema_kimg": 4.0,
        "imitation_kimg": 8.0,
        "stage1_imitation_kimg_per_pixel": 1 / 8,
        "discriminator": "projected",
        "stage1_kimg": 60,
        "stage2_kimg": 30,
    },
    # The paper's runs: two GPUs, batch 32.
    "paper256": {**_PAPER, "batch_size": 32, "r1_gamma": 0.4096, "ema_kimg": 10.0},
    "large512": {**_PAPER, "resolution": 512, "mapping_layers": 8},
    "large1024": {**_PAPER, "resolution": 1024, "mapping_layers": 8},
}


def default_batch_size(resolution: int, num_processes: int) -> int:
    """Return 4096 / R images for each process, up to 32 each and 64 in all, in fours if possible, but at least one."""
    each = min(4096 // resolution, 32, 64 // num_processes)
    return num_processes * max(each - each % 4 if each > 4 else each, 1)


def default_lr(resolution: int) -> float:
    """Return 0.0025, from 1024x1024 on 0.002."""
    return 0.0025 if resolution < 1024 else 0.002


def default_ema_kimg(batch_size: int) -> float:
    """Return a half-life of 10 kimg for batches of 32, in proportion for others."""
    return batch_size * 10 / 32


# --- What the discriminator sees ---


DIFFAUGMENT_POLICIES = {"diffaugment": "color,translation,cutout", "shift_cutout": "shift,cutout"}


@dataclass(frozen=True)
class AugmentationConfig:
    """What the discriminator sees of an image.

    Args:
        augmentation: A set of adaptive augmentations (bgc, keep_orientation, ...), diffaugment, shift_cutout,
            which is DiffAugment without colours (they leak into products that are all alike), or none. None: the
            method's published one, and shift_cutout for the projected discriminator.
        ada_target: Mean sign of the discriminator on real images that ADA holds.
        ada_max: Highest probability of an augmentation.
        ada_kimg: Thousands of images in which the probability can go from 0 to 1. None: 500 in stage 1, 100 in
            stage 2.

    Raises:
        ValueError: an unknown augmentation (the message lists the names), or a number that is not possible.
    """

    augmentation: str | None = None
    ada_target: float = 0.6
    ada_max: float = 0.8
    ada_kimg: float | None = None

    def __post_init__(self) -> None:
        names = (*AUGMENTATION_SETS, *DIFFAUGMENT_POLICIES, "none")
        if self.augmentation is not None and self.augmentation not in names:
            raise ValueError(f"`augmentation` must be one of {', '.join(names)}, but is {self.augmentation!r}.")
        if not -1 < self.ada_target < 1:
            raise ValueError(f"`ada_target` must lie between -1 and 1, but is {self.ada_target}.")
        if not 0 < self.ada_max <= 1:
            raise ValueError(f"`ada_max` must be above 0 and at most 1, but is {self.ada_max}.")
        if self.ada_kimg is not None and not 0 < self.ada_kimg < math.inf:
            raise ValueError(f"`ada_kimg` must be a positive, finite number, but is {self.ada_kimg}.")


def build_augmentation(
    config: AugmentationConfig, batch_size: int, default_kimg: float, device: torch.device
) -> tuple[nn.Module | None, AdaController | None]:
    """Build the augmentation and what adapts its probability; either may be None."""
    if config.augmentation == "none":
        return None, None
    if config.augmentation in DIFFAUGMENT_POLICIES:
        return DiffAugment(DIFFAUGMENT_POLICIES[config.augmentation]), None
    assert config.augmentation is not None, "settled by `Method.settle_augmentation`"
    controller = AdaController(
        batch_size,
        target=config.ada_target,
        ramp_kimg=default_kimg if config.ada_kimg is None else config.ada_kimg,
        p_max=config.ada_max,
        device=device,
    )
    return AugmentPipe.from_set(config.augmentation), controller


# --- What a task and a sampler are made from ---

DISCRIMINATORS: dict[str, Any] = {"stylegan2": StyleGAN2Discriminator, "projected": ProjectedDiscriminator}


def load_backbone(source: str) -> Backbone:
    """Load the averaged generator and the discriminator of stage 1.

    Args:
        source: the output folder of stage 1, of a converted snapshot, or the Hub id of one.

    Raises:
        OSError: `source` has no generator/ or no discriminator/.
        ValueError: its generator is not that of stage 1.
    """
    name = generator_class(source)
    if name != "StyleGAN2Generator":
        raise ValueError(
            f"`pretrained_backbone` {source} holds a {name}; stage 2 starts from the output of stage 1, a "
            "StyleGAN2Generator: train one with `dfmgan train stage1` and give its output folder."
        )
    with clear_loading_errors(source):
        generator = StyleGAN2Generator.from_pretrained(source, subfolder="generator")
        config: Any = SafetensorsModel.load_config(source, subfolder="discriminator")
        name = config["_class_name"]
        cls = next((cls for cls in DISCRIMINATORS.values() if cls.__name__ == name), StyleGAN2Discriminator)
        return generator, cls.from_pretrained(source, subfolder="discriminator")


def generator_class(source: str, revision: str | None = None) -> str:
    """Return the class name of the generator in a model's folder or Hub repository.

    Raises:
        OSError: `source` holds no generator; the message says where to look for one.
    """
    if Path(source).is_dir() and not (Path(source) / "generator" / "config.json").is_file():
        inside = sorted(path.parents[1].relative_to(source) for path in Path(source).glob("*/generator/config.json"))
        advice = f"one of the folders in it: {', '.join(map(str, inside))}" if inside else "a model's folder"
        raise FileNotFoundError(
            f"{source} holds no model: it has no generator/config.json. Give {advice}, as a training or "
            "save_pretrained writes them."
        )
    with clear_loading_errors(source, revision):
        config: Any = SafetensorsModel.load_config(source, subfolder="generator", revision=revision)
    return str(config["_class_name"])


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

    def construct(self) -> AbstractContextManager[object]:
        """Draw weights on the CPU, so that a seed gives the same ones on every device."""
        return torch.device("meta") if self.device.type == "meta" else nullcontext()

    def place(self, network: Network) -> Network:
        """Bring a network to the device and the precision."""
        network.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        if isinstance(network, (StyleGAN2Generator, StyleGAN2Discriminator, ProjectedDiscriminator)):
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
        backbone: stage 1's averaged generator and its discriminator, to be copied; None from scratch.
        data: where the defect-free photographs come from, for methods that learn from both.
        mirror: photographs are also shown flipped left to right.
    """

    recipe: Recipe
    options: Any
    augmentation: AugmentationConfig
    target: Target
    dataset: ImageMaskDataset | None = None
    backbone: Backbone | None = None
    data: DataConfig | None = None
    mirror: bool = False

    @cached_property
    def good(self) -> ImageMaskDataset:
        """The defect-free photographs at the recipe's size."""
        assert self.data is not None
        return self.data.load_good(resolution=self.recipe.image_size, image_channels=self.recipe.image_channels)

    def networks(self) -> Backbone:
        """Copy stage 1's generator and discriminator to where the task computes, or make new ones from scratch.

        Raises:
            FeatureWeightsError: a new projected discriminator's classifier cannot be had.
        """
        generator: StyleGAN2Generator | None = None
        discriminator: Discriminator | None = None
        if self.backbone is not None:
            generator, discriminator = copy.deepcopy(self.backbone)
        with self.target.construct():
            if generator is None:
                window = None if self.data is None else self.data.patch_size()
                generator = StyleGAN2Generator(**self.recipe.network_config(), window=window)
            if discriminator is None or not isinstance(discriminator, DISCRIMINATORS[self.recipe.discriminator]):
                discriminator = self._new_discriminator()
        return self.target.place(generator), self.target.place(discriminator)

    def _new_discriminator(self) -> Discriminator:
        recipe = self.recipe
        if recipe.discriminator == "stylegan2":
            return StyleGAN2Discriminator(**recipe.discriminator_config())
        sizes = recipe._take("resolution", "aspect", "image_channels")
        if self.target.device.type == "meta":
            return ProjectedDiscriminator(**sizes)
        discriminator = ProjectedDiscriminator.from_features(**sizes)
        if self.dataset is not None:
            discriminator.measure_scales(self.dataset.images[:64].to(torch.float32) / 127.5 - 1)
        return discriminator

    def gan_arguments(self, ada_kimg: float = ADA_KIMG["stage2"]) -> dict[str, Any]:
        """Return the keyword arguments that all tasks with an augmented discriminator have."""
        augment, ada = build_augmentation(self.augmentation, self.recipe.batch_size, ada_kimg, self.target.device)
        return {"augment": augment, "ada": ada, "mean_over_processes": self.target.mean_over_processes}


@dataclass(frozen=True)
class SamplerRequest:
    """All that a sampler is made from.

    Args:
        source: folder that training wrote, or the Hub id of one; None for a method that is not trained.
        data: photographs, for methods that draw with them; None if there are none.
        defect: kind of defect; None if the data, and what was trained, have only one.
        resolution: of what a method without training draws, side or height and width; trained ones know theirs.
        options: of drawing, an instance of the method's `Method.drawing`; None for the defaults.
        device: where networks compute.
        revision: of the Hub repository.
    """

    source: str | None = None
    data: DataConfig | None = None
    defect: str | None = None
    resolution: Size = 256
    options: Any = None
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    revision: str | None = None

    @property
    def photographs(self) -> DataConfig:
        """What the method draws on; a ValueError without any."""
        if self.data is None:
            raise ValueError("This method draws on photographs: give --data_dir (and --category, --defect).")
        return self.data


def open_pipeline(request: SamplerRequest) -> PipelineSampler:
    """Draw with `DFMGANPipeline.from_pretrained(source)`: image i is that of `seeds=[seed + i]`.

    A model of several kinds of defect draws the request's, or all of them if it names none.

    Raises:
        ValueError: the model knows several kinds, and not this one.
    """
    pipe = DFMGANPipeline.from_pretrained(str(request.source), revision=request.revision)
    defect = request.defect if pipe.defect_names else None
    return PipelineSampler(pipe.to(request.device), defect=defect)


# --- The method ---


@dataclass(frozen=True)
class NoOptions:
    """The method has no options of its own."""


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
        options: dataclass of the method's own options of training, with a default for each.
        drawing: dataclass of its options of drawing, likewise.
        defaults: published hyperparameters. `r1_gamma` is that at 256x256 and goes as R^2, as StyleGAN2-ADA's own; a
            preset that shortens stage 2 shortens `total_kimg` in proportion; one that sets channels keeps its own.
        augmentation: published augmentation of the discriminator, see `AugmentationConfig`.
        augments: whether anything is augmented with these options.
        recipe_fields: values of the recipe that the method uses; to set another one is an error.
        learns: the defects, or the good product, as stage 1 does.
        init: what it starts from; "either" for new networks, or those of a stage 1 if one is given.
        is_joint: whether one model learns several kinds of defect with these options.
        has_masks: whether its samples have masks.
        is_reconstruction: whether details that no source gives were filled in here: its results are then no check of
            the published ones.
    """

    name: str
    title: str
    citation: str
    open_sampler: Callable[[SamplerRequest], Sampler]
    build: Callable[[TaskRequest], Task] | None = None
    generator: str | None = None
    sample_task: Callable[[Any], Sampler] = sample_generator
    options: type = NoOptions
    drawing: type = NoOptions
    defaults: RecipeConfig = RecipeConfig()
    augmentation: str = "none"
    augments: Callable[[Any], bool] = lambda options: True
    recipe_fields: tuple[str, ...] = PUBLISHED_FIELDS
    learns: Literal["defects", "good"] = "defects"
    init: Init = "scratch"
    is_joint: Callable[[Any], bool] = lambda options: False
    has_masks: bool = False
    is_reconstruction: bool = False

    @property
    def is_trained(self) -> bool:
        return self.build is not None

    def settle_augmentation(self, config: AugmentationConfig, recipe: Recipe, options: Any) -> AugmentationConfig:
        """Choose the augmentation where `config` leaves it open.

        Raises:
            ValueError: one was chosen for a method that has none with these `options`, or ADA was set for one that is
                not adaptive.
        """
        if not self.augments(options):
            if config.augmentation not in (None, "none"):
                raise ValueError(
                    f"`augmentation` has no meaning for {self.title} with these options: what it judges is not "
                    "augmented. Leave it out."
                )
            config = replace(config, augmentation="none")
        chosen = "shift_cutout" if recipe.discriminator == "projected" else self.augmentation
        settled = config if config.augmentation is not None else replace(config, augmentation=chosen)
        if settled.augmentation not in AUGMENTATION_SETS:
            check_effect(settled, ["ada_target", "ada_max", "ada_kimg"], "an adaptive `augmentation`")
        return settled

    def resolve(self, preset: str, config: RecipeConfig, backbone: Backbone | None, num_processes: int) -> Recipe:
        """Settle every value: what `config` sets, then the backbone's sizes, the method's defaults, the preset, rules.

        The rules are StyleGAN2-ADA's (appendix D, "auto"), each a function: `default_batch_size`, `default_lr`,
        `default_ema_kimg`, `default_channel_base`, `r1_gamma`.

        Args:
            preset: a name of `PRESETS`.
            config: None where nothing was chosen.
            backbone: stage 1's networks, or None from scratch.
            num_processes: of the launch.

        Raises:
            ValueError: an unknown preset, a value that the method does not use or that contradicts the backbone, a
                backbone with a discriminator that it cannot use.
        """
        if preset not in PRESETS:
            raise ValueError(f"`preset` must be one of {', '.join(PRESETS)}, but is {preset!r}.")
        chosen = config.given()
        for name in chosen.keys() - set(self.recipe_fields):
            raise ValueError(
                f"`{name}` has no meaning for {self.title}, which uses {', '.join(self.recipe_fields)}; leave it out."
            )
        sizes: dict[str, Any] = {} if backbone is None else {name: backbone[0].config[name] for name in FROM_BACKBONE}
        for name, size in sizes.items():
            size = tuple(size) if name == "aspect" else size
            if size is not None and chosen.setdefault(name, size) != size:
                raise ValueError(
                    f"`{name}` is {size} in the pretrained backbone and cannot be {chosen[name]}; leave it out."
                )
        table, defaults = PRESETS[preset], self.defaults.given()
        resolution, longer = chosen.get("resolution", table["resolution"]), math.prod(chosen.get("aspect", (1, 1)))
        if "r1_gamma" in defaults:
            defaults["r1_gamma"] *= (resolution / _PAPER["resolution"]) ** 2 * longer
        if "total_kimg" in defaults:
            defaults["total_kimg"] *= table["stage2_kimg"] / _PAPER["stage2_kimg"]
        if {"channel_base", "channels_per_pixel"} & table.keys():
            defaults.pop("channel_base", None)
        kimg = table["stage1_kimg" if self.learns == "good" else "stage2_kimg"]
        if self.learns == "good" and "stage1_imitation_kimg_per_pixel" in table:
            # Of larger images it would leave the discriminator little of the run, or nothing.
            defaults["imitation_kimg"] = table["stage1_imitation_kimg_per_pixel"] * min(resolution, 256)
        inherited = self._inherited_discriminator(backbone)
        values = {**PUBLISHED_VALUES, **inherited, **table, "total_kimg": kimg, **defaults, **chosen}
        values |= {name: value for name, value in PUBLISHED_VALUES.items() if name not in self.recipe_fields}
        if values["imitation_kimg"] and values["discriminator"] != "projected":
            if "imitation_kimg" in chosen:
                raise ValueError(
                    f"`imitation_kimg` {chosen['imitation_kimg']:g} needs --discriminator projected, whose features "
                    "say how alike two images are: add it, or leave the imitation out."
                )
            values["imitation_kimg"] = 0.0
        values.setdefault("aspect", (1, 1))
        batch_size = values.setdefault("batch_size", default_batch_size(resolution, num_processes))
        if "channels_per_pixel" in table:
            values.setdefault("channel_base", table["channels_per_pixel"] * resolution)
        values.setdefault("channel_base", default_channel_base(resolution))
        values.setdefault("lr", default_lr(resolution))
        values.setdefault("r1_gamma", r1_gamma(resolution, batch_size) * longer)
        values.setdefault("ema_kimg", default_ema_kimg(batch_size))
        return RecipeConfig(**{f.name: values[f.name] for f in fields(RecipeConfig)})

    def _inherited_discriminator(self, backbone: Backbone | None) -> dict[str, Any]:
        if backbone is None:
            return {}
        name = next(name for name, cls in DISCRIMINATORS.items() if isinstance(backbone[1], cls))
        if name != "stylegan2" and "discriminator" not in self.recipe_fields:
            raise ValueError(
                f"{self.title} goes on with the StyleGAN2 discriminator of stage 1, but this backbone has a {name} "
                "one. Train stage 1 with --discriminator stylegan2."
            )
        return {"discriminator": name}


REGISTERED: dict[str, Method] = {}


def register(method: Method) -> Method:
    """Make a method known by its name to scripts, benchmarks and tests, and return it."""
    REGISTERED[method.name] = method
    return method
