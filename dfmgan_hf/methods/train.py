"""Train any method of the registry."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Generic, TypeVar

import torch
import tyro
from accelerate import Accelerator, PartialState

from ..data.sources import check_place
from ..data.training_set import DataConfig
from ..hub.cards import origin
from ..hub.push import HubConfig, prepare_push, push_trained
from ..metrics.scoring import prepare_scorer
from ..processes import ProcessGroup
from ..training.checkpointing import ScoreConfig
from ..training.run import PreparedRun, check_finished, fit, fit_run, start_accelerator
from ..training.task import NonFiniteLossError, Task
from ..training.trainer import RunConfig
from . import METHODS, get_method
from .method import (
    AugmentationConfig,
    Method,
    PresetName,
    RecipeConfig,
    Target,
    TaskRequest,
    load_backbone,
    open_pipeline,
)

Options = TypeVar("Options")


@dataclass(frozen=True)
class TrainingConfig(Generic[Options]):
    """Train one method on photographs: of one kind of defect, of several, or, for stage 1, of the good product.

    Args:
        pretrained_backbone: Folder that stage 1 wrote, or the Hub id of one, for methods that start from it. Stage 1
            itself may start from that of another product.
        defect: Kinds of defect to learn, one after the other; may be left out if the data has only one. A method that
            learns them jointly (--joint) makes one model of them, by default of all that the data has.
        preset: Named sizes and hyperparameters. The method's published ones come before it, and what is overridden
            before both; network sizes are those of a backbone.
    """

    run: RunConfig
    options: Annotated[Options, tyro.conf.arg(name="method")]
    augmentation: AugmentationConfig
    pretrained_backbone: str | None = None
    defect: tuple[str, ...] = ()
    preset: PresetName = "auto"
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    data: DataConfig = field(default_factory=DataConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    hub: HubConfig = field(default_factory=HubConfig)


def train(arguments: Sequence[str]) -> None:
    """Train what the first argument names: stage1, stage2 (also called dfmgan), or a method to compare with.

    The other arguments are options, the fields of `TrainingConfig`, the method's published values their defaults.

    Args:
        arguments: such as ["stage1", "--data_dir", "mvtec_ad", "--category", "hazelnut", "--output_dir", "runs/h"].

    Raises:
        SystemExit: after --help, or an option that is not known.
        ValueError: there is no such method.
        see `train_models`.
    """
    methods = {"stage1": "stage1", "stage2": "dfmgan"}
    methods |= {name: name for name, method in METHODS.items() if method.is_trained}
    if not arguments or arguments[0] in ("-h", "--help"):
        titles = "\n".join(f"  {name:<12} {get_method(methods[name]).title}" for name in methods if name != "dfmgan")
        print(f"usage: dfmgan train METHOD [options]\n\n{titles}\n\n`dfmgan train METHOD --help` lists its options.")
        raise SystemExit(0)
    name, *options = arguments
    if name not in methods:
        raise ValueError(f"The method must be one of {', '.join(methods)}, but is {name!r}.")
    method = get_method(methods[name])
    config = tyro.cli(
        TrainingConfig[method.options],  # type: ignore[name-defined]
        prog=f"dfmgan train {name}",
        args=options,
        default=TrainingConfig(
            run=RunConfig(output_dir=tyro.MISSING),
            options=method.options(),
            augmentation=AugmentationConfig(),
        ),
        description=f"Train {method.title} ({method.citation})",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    train_models(method, config)


def train_models(method: Method, config: TrainingConfig[Any]) -> None:
    """Train all models that a configuration asks for, and publish them if it says so.

    One that diverges does not keep the others from being trained. Whether models can be published is found out first.

    Raises:
        SystemExit: some diverged; the message says which, and where.
        see `train_method`, `prepare_push` and `push_trained`.
    """
    models = each_model(method, config)
    if config.hub.push_to_hub and method.open_sampler is not open_pipeline:
        raise ValueError(f"What {method.title} draws with is not a DFMGANPipeline: leave --push_to_hub out.")
    # Accelerator and not PartialState, which would not see ACCELERATE_USE_CPU.
    is_main = Accelerator().is_main_process
    pushes = {model.run.output_dir: model.hub for model in models.values()} if is_main else {}
    prepare_push(pushes)
    diverged: dict[str, str] = {}
    for defect, training in models.items():
        try:
            train_method(method, training)
        except NonFiniteLossError as error:
            if len(models) == 1:
                raise
            diverged[defect] = str(error)  # the error itself would keep the model's networks in memory
            pushes.pop(training.run.output_dir, None)
            print(f"{defect} was given up. {error}", flush=True)
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
    for address in push_trained(pushes):
        print(f"Published: {address}")
    if diverged:
        raise SystemExit("\n".join(f"{defect}: {error}" for defect, error in diverged.items()))


def each_model(method: Method, config: TrainingConfig[Any]) -> dict[str, TrainingConfig[Any]]:
    """Return the runs that are asked for, by what they learn: a model of all kinds of defect, or one of each.

    The models of several kinds lie in folders of their own in `config.run.output_dir`, and on the Hub in repositories
    of their own.

    Raises:
        ValueError: one checkpoint for several models; several kinds of defect in the folder of one.
    """
    if len(config.defect) > 1 and config.data.defect_dir is not None:
        raise ValueError(
            f"`defect_dir` holds photographs of one kind of defect, but {len(config.defect)} are named: train each "
            "with its own folders and one --defect, or lay them out like MVTec AD and give --data_dir."
        )
    if len(config.defect) < 2 or method.is_joint(config.options):
        return {", ".join(config.defect): config}
    if config.run.resume_from_checkpoint not in (None, "latest"):
        raise ValueError(
            f"`resume_from_checkpoint` {config.run.resume_from_checkpoint} is of one model, but {len(config.defect)} "
            "are trained: resume with latest, or name one --defect."
        )
    return {
        defect: replace(
            config,
            defect=(defect,),
            run=replace(config.run, output_dir=config.run.output_dir / defect),
            hub=config.hub.for_part(defect, config.run.output_dir),
        )
        for defect in config.defect
    }


def train_method(method: Method, config: TrainingConfig[Any]) -> None:
    """Train a method and export what draws to `config.run.output_dir`.

    Raises:
        see `prepare` and `training.run.fit`.
    """
    prepared = prepare(method, config)
    scorer = prepare_scorer(config.score, prepared.dataset, prepared.accelerator, method.sample_task)
    fit(prepared, config.score, scorer)


def prepare(method: Method, config: TrainingConfig[Any]) -> PreparedRun:
    """Settle everything, load photographs and backbone, and seed the random generators.

    Raises:
        ValueError: the method is not trained; it starts from stage 1 and no folder was given, or the other way round;
            a setting that the method does not use; square patches for other images; several kinds of
            defect for a model of one, or any for stage 1; the output folder is that of the photographs.
        CheckpointError: the backbone's training has not ended, and there is no model yet.
        DataError: see `DataConfig.load_defects` and `load_kinds`.
    """
    build, joint, source = method.build, method.is_joint(config.options), config.pretrained_backbone
    if build is None:
        raise ValueError(f"{method.title} is not trained: draw from it directly.")
    if len(config.defect) > 1 and not joint:
        raise ValueError(f"A model is trained on one kind of defect at a time, not on {', '.join(config.defect)}.")
    if config.defect and method.learns == "good":
        raise ValueError(f"{method.title} learns the good product: leave --defect out.")
    if method.init == "stage1" and source is None:
        raise ValueError(f"{method.title} starts from stage 1: give its folder with --pretrained_backbone.")
    if method.init == "scratch" and source is not None:
        raise ValueError(f"{method.title} starts from scratch: leave --pretrained_backbone out.")
    check_place(config.run.output_dir, config.data)
    if source is not None:
        check_finished(source)
    backbone = None if source is None else load_backbone(source)
    accelerator = start_accelerator(config.run)
    recipe = method.resolve(config.preset, config.recipe, backbone, accelerator.num_processes)
    if recipe.aspect != (1, 1) and config.data.patch_size() is not None:
        raise ValueError(
            "What `dfmgan cut-patches` cut is square, and would be squeezed: train without --aspect, or on whole "
            "photographs."
        )
    augmentation = method.settle_augmentation(config.augmentation, recipe, config.options)
    run = fit_run(config.run, recipe.batch_size, accelerator)
    size: dict[str, Any] = {"resolution": recipe.image_size, "image_channels": recipe.image_channels}
    if method.learns == "good":
        dataset = config.data.load_good(**size)
    elif joint:
        dataset = config.data.load_kinds(config.defect, **size)
    else:
        if not config.defect and len(kinds := config.data.listing().defects) == 1:
            config = replace(config, defect=tuple(kinds))
        dataset = config.data.load_defects(config.defect[0] if config.defect else None, **size)
    mean = ProcessGroup(accelerator).mean

    def build_on(device: torch.device) -> Task:
        target = Target(device, run.low_precision_dtype, mean)
        request = TaskRequest(recipe, config.options, augmentation, target, dataset, backbone, config.data, run.mirror)
        return build(request)

    record = {
        "method": method.name,
        "reconstruction": method.is_reconstruction,
        "defect": ", ".join(dataset.kinds or config.defect) or None,
        "config": replace(config, augmentation=augmentation),
        "recipe": recipe,
        **({} if source is None else origin(source, "other_product" if method.learns == "good" else "backbone")),
    }
    return PreparedRun(build_on, dataset, run, accelerator, recipe.total_kimg, recipe.batch_size, record)
