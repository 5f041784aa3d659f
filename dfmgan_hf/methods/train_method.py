"""Training any method of the registry: what examples/train_baseline.py and the benchmarks do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeVar

import torch
from accelerate import Accelerator

from ..data import DataConfig, ImageMaskDataset
from ..metrics.while_training import prepare_scorer
from ..training import ProcessGroup, Task
from ..training.best import ScoreConfig
from ..training.run import RunConfig, fit_run, start_accelerator, train
from .augmentations import AugmentationConfig
from .backbone import load_backbone
from .build import Target
from .method import Backbone, Method, TaskRequest
from .presets import PresetName, Recipe, RecipeOverrides

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainingConfig(Generic[Options]):
    """Train one method on the photographs of one kind of defect, or of several.

    Args:
        pretrained_backbone: Folder that stage 1 wrote, or the Hub id of one, for methods that start from it.
        defect: Kinds of defect to learn, one after the other; may be left out if the data has only one. A method that
            learns them jointly (--joint) makes one model of them, by default of all that the data has.
        preset: Named sizes and hyperparameters. The method's published ones come before it, and what is overridden
            before both; network sizes are those of a backbone.
    """

    run: RunConfig
    options: Options
    augmentation: AugmentationConfig
    pretrained_backbone: str | None = None
    defect: tuple[str, ...] = ()
    preset: PresetName = "auto"
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    data: DataConfig = field(default_factory=DataConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)


@dataclass(frozen=True)
class PreparedRun:
    """A run that is ready to start.

    Args:
        build: puts the task together on a device.
        recipe: sizes and hyperparameters, settled.
        run: options that fit them.
        dataset: the photographs of the defect.
        accelerator: processes, device and tracker.
    """

    build: Callable[[torch.device], Task]
    recipe: Recipe
    run: RunConfig
    dataset: ImageMaskDataset
    accelerator: Accelerator


def prepare(method: Method, config: TrainingConfig[Any]) -> PreparedRun:
    """Settle everything, load photographs and backbone, and seed the random generators.

    Raises:
        ValueError: the method is not trained; it starts from stage 1 and no folder was given, or the other way round;
            a setting that the method has no use for; several kinds of defect for a model of one.
        DataError: see `DataConfig.load_defects` and `load_kinds`.
    """
    build = method.build
    if build is None:
        raise ValueError(f"{method.title} is not trained: draw from it directly.")
    joint = method.is_joint(config.options)
    if len(config.defect) > 1 and not joint:
        raise ValueError(f"A model is trained on one kind of defect at a time, not on {', '.join(config.defect)}.")
    backbone = _backbone(method, config)
    accelerator = start_accelerator(config.run)
    recipe = method.resolve(
        config.preset, config.recipe, None if backbone is None else backbone[0], accelerator.num_processes
    )
    run = fit_run(config.run, recipe.batch_size, accelerator)
    size = {"resolution": recipe.resolution, "image_channels": recipe.image_channels}
    if joint:
        dataset = config.data.load_kinds(config.defect, **size)
    else:
        dataset = config.data.load_defects(config.defect[0] if config.defect else None, **size)
    mean = ProcessGroup(accelerator).mean

    def build_on(device: torch.device) -> Task:
        target = Target(device, run.low_precision_dtype, mean)
        return build(TaskRequest(recipe, config.options, config.augmentation, target, dataset, backbone, config.data))

    return PreparedRun(build_on, recipe, run, dataset, accelerator)


def each_model(method: Method, config: TrainingConfig[Any]) -> dict[str, TrainingConfig[Any]]:
    """The runs that a command line asks for, by what they learn: a model of all kinds of defect, or one of each.

    As in stage 2, the models of several kinds lie in folders of their own in `config.run.output_dir`.
    """
    names = ", ".join(config.defect)
    if len(config.defect) < 2 or method.is_joint(config.options):
        return {names: config}
    return {
        defect: replace(config, defect=(defect,), run=replace(config.run, output_dir=config.run.output_dir / defect))
        for defect in config.defect
    }


def train_method(method: Method, config: TrainingConfig[Any]) -> Accelerator:
    """Train a method and export what draws to `config.run.output_dir`.

    Args:
        method: one that is trained.
        config: what, on what, how long.

    Returns:
        The accelerator, for a last `end_training()`.

    Raises:
        see `prepare` and `training.run.train`.
    """
    prepared = prepare(method, config)
    train(
        prepared.build,
        prepared.dataset,
        prepared.run,
        prepared.accelerator,
        prepared.recipe.total_kimg,
        prepared.recipe.batch_size,
        {
            "method": method.name,
            "reconstruction": method.is_reconstruction,
            "defect": ", ".join(prepared.dataset.kinds or config.defect) or None,
            "config": config,
            "recipe": prepared.recipe,
        },
        score=config.score,
        make_scorer=prepare_scorer(config.score, prepared.dataset, prepared.accelerator, method.sample_task),
    )
    return prepared.accelerator


def _backbone(method: Method, config: TrainingConfig[Any]) -> Backbone | None:
    source, init = config.pretrained_backbone, method.init_with(config.options)
    if init == "stage1" and source is None:
        raise ValueError(f"{method.title} starts from stage 1: give its folder with --pretrained_backbone.")
    if init == "scratch" and source is not None:
        raise ValueError(f"{method.title} starts from scratch: leave --pretrained_backbone out.")
    return None if source is None else load_backbone(source)
