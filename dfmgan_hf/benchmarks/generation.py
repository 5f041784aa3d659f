"""Table 1 of the paper: methods trained on the same photographs, drawn from, and measured in the same way."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sized
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from accelerate import Accelerator
from PIL import Image

from ..data import DataConfig, ImageMaskDataset
from ..methods.augmentations import AugmentationConfig
from ..methods.backbone import FROM_BACKBONE
from ..methods.method import Method, SamplerRequest
from ..methods.presets import PRESETS, PresetName, RecipeOverrides
from ..methods.registry import METHODS, get_method, open_sampler
from ..methods.train_method import TrainingConfig, prepare, train_method
from ..metrics import EvaluationConfig, Networks, ProcessGroup, Sampler, TensorSampler, evaluate, save_evaluation
from ..metrics.networks import FeatureNetwork
from ..metrics.sampler import draw
from ..models.safetensors_only import SafetensorsModel
from ..training import BatchStream, NonFiniteLossError
from ..training.run import CONFIG_FILE, RunConfig, to_json
from ..training.run_state import changed_settings
from ..training.sheets import save_sheet, tile
from .cells import (
    PHOTOGRAPHS_FILE,
    RESULTS_FILE,
    SHEET_FILE,
    Cell,
    check_held_out,
    check_learnt,
    hash_of_names,
    list_cells,
    of_category,
    share,
    trained_template,
)
from .estimate import Estimate, format_seconds, seconds_per_step, seconds_to_measure
from .generation_tables import write_tables
from .published import TABLE_1
from .splits import read_category_groups, split_by_groups

MODEL_FOLDER = "model"
SHEET_SAMPLES = 16


@dataclass(frozen=True)
class GenerationConfig:
    """Compare methods: train them, draw from them and measure KID and clustered LPIPS.

    Attributes:
        output_dir: Table and figure, and a folder for each cell: its model, results and samples. The same command
            given again goes on where it stopped.
        methods: Methods to compare.
        categories: Categories of the data; may be left out if there is only one.
        defects: Kinds of defect; all that a category has if left out.
        pretrained_backbone: Folder that stage 1 wrote, for the methods that start from it; {category} in it stands
            for the category. Methods that start from scratch draw at its size.
        trained: Folders of models that are trained already, with {category}, {defect} and {method} in the name, or
            METHOD=FOLDER for one method alone; what is not there is trained. Without {defect}, one model draws all
            kinds, which it has to have learnt jointly.
        groups: CSV file with the columns file and group, for data with several photographs of the same part: models
            are trained on a third of each kind of defect, whole parts, and on good photographs of other parts than the
            rest shows. The lists lie in OUTPUT_DIR/CATEGORY/splits; a trained model that has seen what it would be
            measured against is refused. {category} in the name stands for the category.
        compared_with: With groups, the photographs that generated images are measured against: those of parts that
            were not trained on (held_out), or all. Without groups, all.
        kimg: Length of every training in thousands of images shown, the same for all methods. None: each method's own.
        cells: i/n: the i-th of n parts of the cells, for the jobs of an array that share the output folder.
        preset: Named sizes and hyperparameters for what is trained.
        training_seed: Of the trainings; seed is that of the images.
        precision: Of the convolutions at the four highest resolutions while training.
        checkpoint_every_kimg: Interval of checkpoints while training.
        kid_features: Network for KID; results name it. The paper's is inception.
        inception_weights, lpips_weights: As in evaluate.py.
        estimate: Say beforehand how long it will take; False starts at once.
    """

    output_dir: Path
    methods: tuple[str, ...] = tuple(METHODS)
    categories: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    pretrained_backbone: str | None = None
    trained: tuple[str, ...] = ()
    groups: str | None = None
    compared_with: Literal["held_out", "all"] = "held_out"
    kimg: float | None = None
    cells: str = "1/1"
    preset: PresetName = "auto"
    training_seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpoint_every_kimg: float = 20.0
    kid_features: FeatureNetwork = "inception"
    inception_weights: Path | None = None
    lpips_weights: Path | None = None
    estimate: bool = True
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    evaluation: tyro.conf.OmitArgPrefixes[EvaluationConfig] = field(
        default_factory=lambda: EvaluationConfig(metrics=("kid", "clustered_lpips", "nearest", "masks"))
    )


class GenerationBenchmark:
    """Runs the cells of a comparison one after the other; every process of a launch does the same.

    Args:
        config: what to compare.
        networks: for the metrics.
        accelerator: of the launch.

    Raises:
        ValueError: an unknown method, defect or part of the cells; a method lacks the backbone that it starts from;
            groups that do not fit the photographs; a trained model has learnt other defects, or has seen what it is
            measured against.
        DataError: the photographs cannot be listed.
    """

    def __init__(self, config: GenerationConfig, networks: Networks, accelerator: Accelerator) -> None:
        self.config = config
        self.networks = networks
        self.accelerator = accelerator
        self.processes = ProcessGroup(accelerator)
        for name in config.methods:
            method = get_method(name)
            needs_backbone = method.is_trained and method.init_with(method.options()) == "stage1"
            if (
                needs_backbone
                and config.pretrained_backbone is None
                and trained_template(config.trained, name) is None
            ):
                raise ValueError(f"{method.title} starts from stage 1: give its folder with --pretrained_backbone.")
        self.all_cells = list_cells(config.data, config.methods, config.categories, config.defects)
        for cell in self.all_cells:
            self._trained_folder(cell)  # a wrong one is said before anything starts
        self.lists = self._make_lists()
        mine = share(self.all_cells, config.cells)
        self.pending = [cell for cell in mine if not self._is_done(cell)]
        for cell in self.pending:
            folder = self._trained_folder(cell)
            if folder is not None and self._is_held_out(cell):
                check_held_out(folder, self.lists[cell.category][1])
        # Nobody writes before everyone has looked.
        accelerator.wait_for_everyone()

    # --- before ---

    def estimate(self) -> dict[str, Estimate]:
        """Seconds that a cell of each pending method takes, from timed steps and samples on its first cell."""
        estimates: dict[str, Estimate] = {}
        for cell in self.pending:
            if cell.method not in estimates:
                self.say(f"Timing {get_method(cell.method).title} ...")
                estimates[cell.method] = self._estimate(cell)
        return estimates

    def describe(self, estimates: dict[str, Estimate]) -> str:
        """The estimate in words, a line for each method and the total."""
        lines, total = [], 0.0
        for name, estimate in estimates.items():
            count = sum(cell.method == name for cell in self.pending)
            total += count * estimate.total
            lines.append(
                f"  {get_method(name).title:<11} {count} cells, each about {format_seconds(estimate.training)} of "
                f"training and {format_seconds(estimate.measuring)} of measuring"
            )
        done = len(self.all_cells) - len(self.pending)
        head = f"{len(self.pending)} cells to do, {done} done or left to other jobs: about {format_seconds(total)}"
        return "\n".join([head, *lines])

    def _estimate(self, cell: Cell) -> Estimate:
        method, source = get_method(cell.method), self._trained_folder(cell)
        if source is not None or not method.is_trained:
            sampler, training = self._open(cell, source), 0.0
        else:
            prepared = prepare(method, self._training_config(cell))
            device = prepared.accelerator.device
            task = prepared.build(device)
            size = prepared.recipe.batch_size // prepared.accelerator.num_processes
            batch = BatchStream(prepared.dataset, batch_size=size, seed=0, device=device).at(0)
            steps = prepared.recipe.total_kimg * 1000 / prepared.recipe.batch_size
            training = steps * seconds_per_step(task, batch)
            sampler = method.sample_task(task)
        real = self._real(cell, sampler)
        measuring = seconds_to_measure(sampler, real, self.networks, self.config.evaluation)
        return Estimate(training, measuring / self.processes.count)

    # --- the cells ---

    def run(self) -> list[str]:
        """Do all pending cells, and write the tables anew after each.

        Returns:
            What went wrong: a line for each cell whose training diverged. Such cells stay undone.
        """
        failures = []
        for number, cell in enumerate(self.pending, 1):
            title = f"{cell.category}, {cell.defect}, {get_method(cell.method).title}"
            self.say(f"[{number}/{len(self.pending)}] {title}")
            try:
                self.run_cell(cell)
            except NonFiniteLossError as error:
                failures.append(f"{title}: {error}")
                self.say(failures[-1])
            if self.processes.is_main:
                write_tables(self.config.output_dir, self.all_cells)
        return failures

    def run_cell(self, cell: Cell) -> None:
        """Train (or take), draw, measure; results.json comes last and marks the cell as done."""
        method, folder = get_method(cell.method), cell.folder(self.config.output_dir)
        source = self._trained_folder(cell)
        if source is None and method.is_trained:
            train_method(method, self._training_config(cell))
            source = folder / MODEL_FOLDER
        sampler = self._open(cell, source)
        real = self._real(cell, sampler)
        if self.processes.is_main:
            save_sheet(sample_sheet(sampler, self.config.evaluation.seed), folder / SHEET_FILE)
            photographs = TensorSampler(real.images, real.masks)
            save_sheet(sample_sheet(photographs, 0), folder.parent / PHOTOGRAPHS_FILE)
        result = evaluate(sampler, real, self.networks, self.config.evaluation, processes=self.processes)
        if self.processes.is_main:
            published = TABLE_1.get((cell.category, cell.defect, cell.method))
            save_evaluation(
                folder,
                result,
                real,
                cell=to_json(cell),
                reconstruction=method.is_reconstruction,
                benchmark=self._settings(cell),
                training=_training_record(source),
                published=None if published is None else to_json(published),
            )
        self.accelerator.wait_for_everyone()

    def say(self, message: str) -> None:
        """Print, on the main process."""
        if self.processes.is_main:
            print(message, flush=True)

    def _is_done(self, cell: Cell) -> bool:
        if not cell.is_done(self.config.output_dir):
            return False
        path = cell.folder(self.config.output_dir) / RESULTS_FILE
        changes = changed_settings(json.loads(path.read_text())["benchmark"], self._settings(cell))
        if changes:
            raise ValueError(
                f"{path} was measured with other settings: {'; '.join(changes)}. Give those settings or another "
                "--output_dir, or delete the file to measure it again."
            )
        return True

    def _settings(self, cell: Cell) -> dict[str, Any]:
        """What decides the numbers of a cell."""
        left_out = (
            "output_dir", "methods", "categories", "defects", "groups", "cells", "checkpoint_every_kimg", "estimate",
        )  # fmt: skip
        places = ("inception_weights", "lpips_weights", "data")
        settings = to_json(self.config)
        data = {k: v for k, v in settings["data"].items() if k in ("fit", "bit_depth", "shots", "shots_seed")}
        if self.config.data.file_list is not None:
            data["file_list"] = hash_of_names(self.config.data.file_list)
        settings = {name: value for name, value in settings.items() if name not in (*left_out, *places)}
        if cell.category in self.lists:
            data["lists"] = dict(zip(("base", "test"), map(hash_of_names, self.lists[cell.category]), strict=True))
        else:
            settings["compared_with"] = None
        return {**settings, "data": data}

    def _make_lists(self) -> dict[str, tuple[Path, Path]]:
        """Of each category, the files with the names to train on and to test on; none without groups."""
        config = self.config
        if config.groups is not None and config.data.file_list is not None:
            raise ValueError("--groups makes lists of what to train on: leave --file_list out.")
        lists = {}
        for cell in {cell.category: cell for cell in self.all_cells}.values():
            groups = read_category_groups(config.groups, cell.category)
            if groups is not None:
                defects = [other.defect for other in self.all_cells if other.category == cell.category]
                folder = config.output_dir / cell.category
                lists[cell.category] = split_by_groups(folder, of_category(config.data, cell), defects, groups)
        return lists

    def _training_data(self, cell: Cell) -> DataConfig:
        """The photographs that a model of this cell may see."""
        data = of_category(self.config.data, cell)
        return replace(data, file_list=self.lists[cell.category][0]) if cell.category in self.lists else data

    def _backbone(self, cell: Cell) -> str | None:
        template = self.config.pretrained_backbone
        return None if template is None else cell.fill(template)

    def _trained_folder(self, cell: Cell) -> Path | None:
        template = trained_template(self.config.trained, cell.method)
        if template is None:
            return None
        folder = Path(cell.fill(template))
        if not (folder / "generator").is_dir():
            return None
        check_learnt(folder, cell.defect, template)
        return folder

    def _is_held_out(self, cell: Cell) -> bool:
        return cell.category in self.lists and self.config.compared_with == "held_out"

    def _training_config(self, cell: Cell) -> TrainingConfig[Any]:
        config, method = self.config, get_method(cell.method)
        options = method.options()
        from_stage1 = method.init_with(options) == "stage1"
        backbone = self._backbone(cell)
        return TrainingConfig(
            run=RunConfig(
                output_dir=cell.folder(config.output_dir) / MODEL_FOLDER,
                seed=config.training_seed,
                precision=config.precision,
                checkpoint_every_kimg=config.checkpoint_every_kimg,
                resume_from_checkpoint="latest",
                report_to="none",
            ),
            options=options,
            augmentation=AugmentationConfig(augmentation=method.defaults.augmentation),
            pretrained_backbone=backbone if from_stage1 else None,
            defect=(cell.defect,),
            preset=config.preset,
            recipe=self._overrides(method, backbone, from_stage1),
            data=self._training_data(cell),
        )

    def _overrides(self, method: Method, backbone: str | None, from_stage1: bool) -> RecipeOverrides:
        """What was chosen and the method has a use for; from scratch, the backbone's size of images."""
        chosen = {f.name: getattr(self.config.recipe, f.name) for f in dataclasses.fields(RecipeOverrides)}
        if from_stage1:
            chosen = {name: value for name, value in chosen.items() if name not in FROM_BACKBONE}
        elif backbone is not None:
            chosen |= _image_size(backbone)
        overrides = RecipeOverrides(**{name: v for name, v in chosen.items() if name in method.recipe_fields})
        return overrides if self.config.kimg is None else replace(overrides, total_kimg=self.config.kimg)

    def _resolution(self, cell: Cell) -> int:
        backbone = self._backbone(cell)
        if backbone is not None:
            return int(_image_size(backbone)["resolution"])
        return self.config.recipe.resolution or PRESETS[self.config.preset]["resolution"]

    def _open(self, cell: Cell, source: Path | None) -> Sampler:
        request = SamplerRequest(
            source=None if source is None else str(source),
            data=self._training_data(cell),
            defect=cell.defect,
            resolution=self._resolution(cell),
            device=self.accelerator.device,
        )
        return open_sampler(request, None if source is not None else cell.method)

    def _real(self, cell: Cell, sampler: Sampler) -> ImageMaskDataset:
        """All photographs of the defect, also where fewer were shots for the training; those of parts that were not
        trained on, with groups."""
        images, _ = draw(sampler, [0], 0)
        file_list = self.lists[cell.category][1] if self._is_held_out(cell) else None
        compared = replace(of_category(self.config.data, cell), shots=None, file_list=file_list)
        return compared.load_defects(cell.defect, resolution=images.shape[-1])


def sample_sheet(sampler: Sampler, seed: int) -> Image.Image:
    """The first images of a sampler, each with its mask if there is one."""
    count = min(SHEET_SAMPLES, len(sampler)) if isinstance(sampler, Sized) else SHEET_SAMPLES
    images, masks = draw(sampler, range(count), seed)
    pictures = [images] if masks is None else [images, masks]
    return tile([picture.expand(-1, 3, -1, -1) for picture in pictures], columns=8 // len(pictures))


def _image_size(backbone: str) -> dict[str, Any]:
    config: dict[str, Any] = SafetensorsModel.load_config(backbone, subfolder="generator")  # type: ignore[assignment]
    return {name: config[name] for name in ("resolution", "image_channels")}


def _training_record(source: Path | None) -> dict[str, Any] | None:
    """What is known of a model's training; None without training or record."""
    if source is None or not (source / CONFIG_FILE).is_file():
        return None
    record = json.loads((source / CONFIG_FILE).read_text())
    return {name: record.get(name) for name in ("method", "recipe", "settings", "result", "environment", "images")}
