"""Table 1 of the paper: methods trained on the same photographs, drawn from, and measured in the same way.

    accelerate launch --quiet -m benchmarks.paper.generation --data_dir mvtec_ad --categories hazelnut \\
        --pretrained_backbone 'runs/{category}' --kimg 400 --output_dir runs/table1

First says how long it will take. Stopped and started again, it resumes. Table (table.md, table.csv) and figure
(table.png) are written anew after each cell.

Where several photographs show the same part, --groups parts.csv trains on some parts and measures against the others.
One model that has learnt several kinds of defect jointly is given with --trained without {defect} in its path, beside
others as --trained 'runs/{defect}/{method}' defect_gan=runs/joint.
"""

from __future__ import annotations

import dataclasses
import io
import json
import sys
import time
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from accelerate import Accelerator
from PIL import Image

from benchmarks.paper.cells import (
    PHOTOGRAPHS_FILE,
    RECONSTRUCTION_NOTE,
    RESULTS_FILE,
    SHEET_FILE,
    TABLE_1,
    UNKNOWN_NOTE,
    Cell,
    check_held_out,
    check_learnt,
    check_unchanged,
    hash_of_names,
    hash_of_weights,
    keep_lists,
    learnt_from,
    list_cells,
    markdown_table,
    of_category,
    read_category_groups,
    read_results,
    trained_template,
    write_files,
)
from dfmgan_hf.cli import run
from dfmgan_hf.data import DataConfig, ImageMaskDataset
from dfmgan_hf.data.partitions import split_by_parts, unite_files
from dfmgan_hf.data.records import normalised
from dfmgan_hf.files import TRAINING_FILE, to_json
from dfmgan_hf.methods import METHODS, get_method, open_sampler
from dfmgan_hf.methods.method import (
    FROM_BACKBONE,
    PRESETS,
    AugmentationConfig,
    Method,
    PresetName,
    RecipeConfig,
    SamplerRequest,
)
from dfmgan_hf.methods.train import TrainingConfig, prepare, train_method
from dfmgan_hf.metrics import (
    EvaluationConfig,
    Networks,
    Sampler,
    TensorSampler,
    draw,
    evaluate,
    load_networks,
    save_evaluation,
)
from dfmgan_hf.models.base import SafetensorsModel, image_size, sides
from dfmgan_hf.processes import ProcessGroup
from dfmgan_hf.prove.experiment import in_words
from dfmgan_hf.sheets import contact_sheet, save_sheet, stack, to_pictures
from dfmgan_hf.training import Batch, BatchStream, NonFiniteLossError, RunningStatistics, Task
from dfmgan_hf.training.trainer import RunConfig

MODEL_FOLDER = "model"
SHEET_SAMPLES = 16
SAMPLES = 32
"""Images that are drawn and measured for an estimate."""
# Largest ratio of KIDs that a linear axis shows.
_LOGARITHMIC = 20
Results = Mapping[Cell, dict[str, Any]]


@dataclass(frozen=True)
class GenerationConfig:
    """Compare methods: train them, draw from them and measure KID and clustered LPIPS.

    Attributes:
        output_dir: Table and figure, and a folder for each cell: its model, results and samples. The same command
            given again resumes where it stopped; results of models that have been replaced since are an error.
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
        preset: Named sizes and hyperparameters for what is trained.
        training_seed: Of the trainings; seed is that of the images.
        precision: Of the convolutions at the four highest resolutions while training.
        checkpoint_every_kimg: Interval of checkpoints while training.
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
    preset: PresetName = "auto"
    training_seed: int = 0
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    checkpoint_every_kimg: float = 20.0
    estimate: bool = True
    recipe: RecipeConfig = field(default_factory=RecipeConfig)
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)
    evaluation: tyro.conf.OmitArgPrefixes[EvaluationConfig] = field(
        default_factory=lambda: EvaluationConfig(metrics=("kid", "clustered_lpips", "nearest", "masks"))
    )

    def __post_init__(self) -> None:
        object.__setattr__(self, "defects", tuple(map(normalised, self.defects)))


class GenerationBenchmark:
    """Runs the cells of a comparison one after the other; every process of a launch does the same.

    Raises:
        ValueError: an unknown method or defect; a method lacks the backbone that it starts from;
            groups that do not fit the photographs; a trained model has learnt other defects, or has seen what it is
            measured against.
    """

    def __init__(self, config: GenerationConfig, networks: Networks, accelerator: Accelerator) -> None:
        self.config = config
        self.networks = networks
        self.accelerator = accelerator
        self.processes = ProcessGroup(accelerator)
        for name in config.methods:
            method = get_method(name)
            needs_backbone = method.is_trained and method.init == "stage1"
            if (
                needs_backbone
                and config.pretrained_backbone is None
                and trained_template(config.trained, name) is None
            ):
                raise ValueError(f"{method.title} starts from stage 1: give its folder with --pretrained_backbone.")
        self.all_cells = list_cells(config.data, config.methods, config.categories, config.defects)
        for cell in self.all_cells:  # so that a wrong one is reported before anything starts
            self._trained_folder(cell)
            self._check_shape(cell)
        self.lists = self._make_lists()
        self.pending = [cell for cell in self.all_cells if not self._is_done(cell)]
        for cell in self.pending:
            folder = self._trained_folder(cell)
            if folder is not None and self._is_held_out(cell):
                check_held_out(folder, self.lists[cell.category][1])
        # No process writes before all have looked.
        accelerator.wait_for_everyone()

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
            total += count * sum(estimate)
            lines.append(
                f"  {get_method(name).title:<11} {count} cells, each about {in_words(estimate.training)} of "
                f"training and {in_words(estimate.measuring)} of measuring"
            )
        done = len(self.all_cells) - len(self.pending)
        head = f"{len(self.pending)} cells to do, {done} done: about {in_words(total)}"
        return "\n".join([head, *lines])

    def _estimate(self, cell: Cell) -> Estimate:
        method, source = get_method(cell.method), self._trained_folder(cell)
        if source is not None or not method.is_trained:
            sampler, training = self._open(cell, source), 0.0
        else:
            prepared = prepare(method, self._training_config(cell))
            device = prepared.accelerator.device
            task = prepared.build(device)
            size = prepared.batch_size // prepared.accelerator.num_processes
            batch = BatchStream(prepared.dataset, batch_size=size, seed=0, device=device).at(0)
            steps = prepared.total_kimg * 1000 / prepared.batch_size
            training = steps * seconds_per_step(task, batch)
            sampler = method.sample_task(task)
        real = self._real(cell, sampler)
        measuring = seconds_to_measure(sampler, real, self.networks, self.config.evaluation)
        return Estimate(training, measuring / self.processes.count)

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
            save_sheet(sample_sheet(sampler, method.title, self.config.evaluation.seed), folder / SHEET_FILE)
            photographs = TensorSampler(real.images, real.masks)
            save_sheet(sample_sheet(photographs, "photographs"), folder.parent / PHOTOGRAPHS_FILE)
        result = evaluate(sampler, real, self.networks, self.config.evaluation, processes=self.processes)
        if self.processes.is_main:
            published = TABLE_1.get((cell.category, cell.defect, cell.method))
            save_evaluation(
                folder,
                result,
                real,
                cell=cell,
                reconstruction=method.is_reconstruction,
                benchmark=self._settings(cell),
                training=_training_record(source),
                unknown_origin=source is not None and learnt_from(source) is None,
                published=published,
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
        check_unchanged(path, json.loads(path.read_text("utf-8"))["benchmark"], self._settings(cell))
        return True

    def _settings(self, cell: Cell) -> dict[str, Any]:
        """What decides the numbers of a cell."""
        left_out = (
            "output_dir", "methods", "categories", "defects", "groups", "checkpoint_every_kimg", "estimate",
        )  # fmt: skip
        settings = to_json(self.config)
        data = {k: v for k, v in settings.pop("data").items() if k in ("fit", "bit_depth", "shots", "shots_seed")}
        if self.config.data.file_list is not None:
            data["file_list"] = hash_of_names(self.config.data.file_list)
        settings = {name: value for name, value in settings.items() if name not in left_out}
        evaluation = {k: v for k, v in settings.pop("evaluation").items() if not k.endswith("_weights")}
        if cell.category in self.lists:
            data["lists"] = dict(zip(("base", "test"), map(hash_of_names, self.lists[cell.category]), strict=True))
        else:
            settings["compared_with"] = None
        settings |= {"kid_features": evaluation.pop("kid_features"), "evaluation": evaluation}
        return {**settings, "data": data, "files": self._hashes(cell)}

    def _hashes(self, cell: Cell) -> dict[str, str]:
        """Return the weights that a cell takes: those of a trained model, or of what its training starts from."""
        trained, backbone = self._trained_folder(cell), self._backbone(cell)
        source: dict[str, Path] = {}
        if trained is not None:
            source = {"trained": trained}
        elif backbone is not None and get_method(cell.method).init == "stage1":
            source = {"pretrained_backbone": Path(backbone)}
        return {name: found for name, folder in source.items() if (found := hash_of_weights(folder)) is not None}

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
                # A third of each kind of defect to train on and the rest to test on, as P1 of Table 2.
                listing = of_category(config.data, cell).listing()
                partition = split_by_parts(listing, groups, defects=defects)
                parts = unite_files(listing.records, groups)
                lists[cell.category] = keep_lists(folder, {"P1": partition}, parts)["P1"]
        return lists

    def _training_data(self, cell: Cell) -> DataConfig:
        """The photographs that a model of this cell may see."""
        data = of_category(self.config.data, cell)
        return replace(data, file_list=self.lists[cell.category][0]) if cell.category in self.lists else data

    def _backbone(self, cell: Cell) -> str | None:
        return cell.fill(self.config.pretrained_backbone) if self.config.pretrained_backbone else None

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
        from_stage1 = method.init == "stage1"
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
            augmentation=AugmentationConfig(),
            pretrained_backbone=backbone if from_stage1 else None,
            defect=(cell.defect,),
            preset=config.preset,
            recipe=self._overrides(method, backbone, from_stage1),
            data=self._training_data(cell),
        )

    def _overrides(self, method: Method, backbone: str | None, from_stage1: bool) -> RecipeConfig:
        """The chosen settings that the method has; from scratch, the backbone's size of images."""
        chosen = {f.name: getattr(self.config.recipe, f.name) for f in dataclasses.fields(RecipeConfig)}
        if from_stage1:
            chosen = {name: value for name, value in chosen.items() if name not in FROM_BACKBONE}
        elif backbone is not None:
            chosen |= _image_size(backbone)
        overrides = RecipeConfig(**{name: v for name, v in chosen.items() if name in method.recipe_fields})
        return overrides if self.config.kimg is None else replace(overrides, total_kimg=self.config.kimg)

    def _size(self, cell: Cell) -> tuple[int, int]:
        """Height and width of the images that are compared."""
        backbone = self._backbone(cell)
        if backbone is not None:
            return image_size(_image_size(backbone))
        recipe = self.config.recipe
        return sides(recipe.resolution or PRESETS[self.config.preset]["resolution"], recipe.aspect)

    def _check_shape(self, cell: Cell) -> None:
        method, (height, width) = get_method(cell.method), self._size(cell)
        if method.is_trained and "aspect" not in method.recipe_fields and height != width:
            raise ValueError(
                f"{method.title} draws squares only, and {width}x{height} pixels are compared: leave it out."
            )

    def _open(self, cell: Cell, source: Path | None) -> Sampler:
        request = SamplerRequest(
            source=None if source is None else str(source),
            data=self._training_data(cell),
            defect=cell.defect,
            resolution=self._size(cell),
            device=self.accelerator.device,
        )
        return open_sampler(request, None if source is not None else cell.method)

    def _real(self, cell: Cell, sampler: Sampler) -> ImageMaskDataset:
        """All photographs of the defect, also where fewer were shots for the training; those of parts that were not
        trained on, with groups."""
        images, _ = draw(sampler, [0], 0)
        file_list = self.lists[cell.category][1] if self._is_held_out(cell) else None
        compared = replace(of_category(self.config.data, cell), shots=None, file_list=file_list)
        height, width = images.shape[-2:]
        return compared.load_defects(cell.defect, resolution=(height, width))


def sample_sheet(sampler: Sampler, title: str, seed: int = 0) -> Image.Image:
    """Lay out the first images of a sampler, each with its mask if there is one."""
    count = min(SHEET_SAMPLES, len(sampler)) if isinstance(sampler, Sized) else SHEET_SAMPLES
    images, masks = draw(sampler, range(count), seed)
    pictures = [to_pictures(pixels) for pixels in (images, masks) if pixels is not None]
    samples = list(zip(*pictures, strict=True))
    return contact_sheet(samples, title=title, columns=8 // len(pictures), picture_size=96)


def _image_size(backbone: str) -> dict[str, Any]:
    config: dict[str, Any] = SafetensorsModel.load_config(backbone, subfolder="generator")  # type: ignore[assignment]
    size = {name: config[name] for name in ("resolution", "image_channels")}
    return {**size, "aspect": tuple(config.get("aspect") or (1, 1))}


def _training_record(source: Path | None) -> dict[str, Any] | None:
    """What is known of a model's training; None without training or record."""
    if source is None or not (source / TRAINING_FILE).is_file():
        return None
    record = json.loads((source / TRAINING_FILE).read_text("utf-8"))
    return {name: record.get(name) for name in ("method", "recipe", "settings", "result", "environment", "images")}


class Estimate(NamedTuple):
    """Seconds that one cell takes: the training of its model, and drawing the images and measuring them."""

    training: float
    measuring: float


def seconds_per_step(task: Task, batch: Batch) -> float:
    """Time of a training step on average over the phases' intervals; no weight is changed."""
    seconds, statistics = 0.0, RunningStatistics()
    wait = torch.cuda.synchronize if batch.images.device.type == "cuda" else lambda: None
    for phase in task.phases:
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        # The first pass chooses kernels and reserves memory.
        for is_timed in (False, True):
            wait()
            start = time.perf_counter()
            if phase.prepare is not None:
                phase.prepare([batch])
            phase.loss(batch, statistics).backward()
            wait()
            if is_timed:
                seconds += (time.perf_counter() - start) / phase.interval
        phase.optimizer.zero_grad(set_to_none=True)
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
    return seconds


def seconds_to_measure(
    sampler: Sampler, real: ImageMaskDataset, networks: Networks, config: EvaluationConfig
) -> float:
    """Estimate the time to draw and measure: drawing and features grow with the images, LPIPS with their pairs."""
    few = replace(
        config,
        num_images=min(SAMPLES, config.num_images),
        num_lpips_images=min(SAMPLES, config.num_lpips_images),
        kid_num_subsets=1,
        num_bootstrap=1,
        inception_splits=1,
    )
    seconds = evaluate(sampler, real, networks, few, progress=False).seconds
    images = max(config.num_images, config.num_lpips_images) / max(few.num_images, few.num_lpips_images)
    pairs = ((config.num_lpips_images + len(real)) / (few.num_lpips_images + len(real))) ** 2
    return sum(value * (pairs if "LPIPS" in step else images) for step, value in seconds.items())


def write_tables(output_dir: Path, cells: Sequence[Cell]) -> str:
    """Write tables and figure of all cells, done or not, and for each defect page.png with samples of all methods.

    Returns:
        The Markdown.
    """
    results = read_results(output_dir, cells)
    text = to_markdown(cells, results)
    rows = [row_of(cell, result) for cell, result in results.items()]
    write_files(output_dir, text, rows, lambda: plot(cells, results))
    for folder in {cell.folder(output_dir).parent for cell in results}:
        done = [cell.folder(output_dir) for cell in results if cell.folder(output_dir).parent == folder]
        sheets = [folder / PHOTOGRAPHS_FILE, *(path / SHEET_FILE for path in done)]
        save_sheet(stack([Image.open(path) for path in sheets if path.is_file()]), folder / "page.png")
    return text


def row_of(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """Return the numbers of one cell by the names of the CSV's columns; None where there is none."""
    metrics, settings = result["metrics"], result["settings"]
    kid, lpips = metrics.get("kid", {}), metrics.get("clustered_lpips", {})
    unbiased = kid.get("unbiased", {})
    low, high = unbiased.get("interval", (None, None))
    training = result.get("training") or {}
    outcome = training.get("result") or {}
    published = TABLE_1.get((cell.category, cell.defect, cell.method))
    return {
        "category": cell.category,
        "defect": cell.defect,
        "method": cell.method,
        "kid_x1000": _times_1000(unbiased.get("kid")),
        "kid_low_x1000": _times_1000(low),
        "kid_high_x1000": _times_1000(high),
        "kid_subsets_x1000": _times_1000(kid.get("subsets", {}).get("kid")),
        "clustered_lpips": lpips.get("clustered_lpips"),
        "clustered_lpips_nonempty": lpips.get("clustered_lpips_nonempty"),
        "empty_clusters": lpips.get("num_empty"),
        "pairwise_lpips": lpips.get("pairwise_lpips"),
        "copy_rate": metrics.get("nearest", {}).get("copy_rate"),
        "unique_share": settings["unique_share"],
        "generated": settings["num_generated"],
        "generated_lpips": settings["num_generated_lpips"],
        "real": settings["num_real"],
        "compared_with": result.get("benchmark", {}).get("compared_with") or "all",
        "height": settings["resolution"][0],
        "width": settings["resolution"][1],
        "features": kid.get("features"),
        "trained_kimg": outcome["images_seen"] / 1000 if outcome else None,
        "training_images": training.get("images"),
        "training_seconds": outcome.get("training_seconds"),
        "reconstruction": result["reconstruction"],
        "unknown_origin": result.get("unknown_origin", False),
        "paper_kid_x1000": None if published is None else published.kid,
        "paper_clustered_lpips": None if published is None else published.clustered_lpips,
    }


def to_markdown(cells: Sequence[Cell], results: Results) -> str:
    """A table for each category: methods down, defects across; the paper's numbers in brackets."""
    rows = {cell: row_of(cell, result) for cell, result in results.items()}
    parts = []
    for category, members in groupby(cells, key=lambda cell: cell.category):
        of_category = list(members)
        defects = list(dict.fromkeys(cell.defect for cell in of_category))
        methods = list(dict.fromkeys(cell.method for cell in of_category))
        header, lines = ["", *(name for d in defects for name in (f"{d}: KID x 1000", "clustered LPIPS"))], []
        for name in methods:
            method = get_method(name)
            entries = [f"{method.title} *" if method.is_reconstruction else method.title]
            for defect in defects:
                row = rows.get(Cell(category, defect, name), {})
                entries.append(_entry(row.get("kid_x1000"), row.get("paper_kid_x1000"), 2))
                entries.append(_entry(row.get("clustered_lpips"), row.get("paper_clustered_lpips"), 4))
            lines.append(entries)
        parts.append(f"### {category.replace('_', ' ')}\n\n{markdown_table(header, lines)}")
    return "\n\n".join([*parts, _notes(list(rows.values()))]) + "\n"


def plot(cells: Sequence[Cell], results: Results) -> bytes:
    """Draw KID and clustered LPIPS of all methods, defect by defect, hollow marks for the paper's; return the PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    rows = {cell: row_of(cell, result) for cell, result in results.items()}
    groups = list(dict.fromkeys((cell.category, cell.defect) for cell in cells))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    figure = Figure(figsize=(10, max(3.0, 1.2 + 0.28 * (len(methods) + 1.5) * len(groups))), layout="constrained")
    panels = (
        ("KID x 1000 (lower is closer)", "kid_x1000", "paper_kid_x1000"),
        ("clustered LPIPS (higher is more varied)", "clustered_lpips", "paper_clustered_lpips"),
    )
    for axes, (title, measured, published) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        ticks: list[tuple[float, str]] = []
        for g, (category, defect) in enumerate(groups):
            for m, name in enumerate(methods):
                y = g * (len(methods) + 1.5) + m
                ticks.append((y, get_method(name).title))
                row = rows.get(Cell(category, defect, name))
                if row is None or row[measured] is None:
                    continue
                axes.plot(row[measured], y, "o", color=f"C{m}")
                if measured == "kid_x1000" and row["kid_low_x1000"] is not None:
                    axes.hlines(y, row["kid_low_x1000"], row["kid_high_x1000"], color=f"C{m}")
                if row[published] is not None:
                    axes.plot(row[published], y, "o", color=f"C{m}", markerfacecolor="none")
            top = g * (len(methods) + 1.5) - 0.9
            axes.text(0.01, top, f"{category}, {defect}", transform=axes.get_yaxis_transform(), weight="bold", size=9)
        axes.set_yticks([y for y, _ in ticks], [label for _, label in ticks], size=8)
        axes.set_xlabel(title)
        found = [row[n] for row in rows.values() for n in (measured, published, "kid_low_x1000") if row[n] is not None]
        if measured == "kid_x1000" and found and min(found) > 0 and max(found) > _LOGARITHMIC * min(found):
            # One method that has learnt nothing would press all others together.
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", alpha=0.3)
        axes.set_ylim(len(groups) * (len(methods) + 1.5) - 1.5, -1.8)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def _entry(measured: float | None, published: float | None, digits: int) -> str:
    text = "-" if measured is None else f"{measured:.{digits}f}"
    return text if published is None else f"{text} ({published:.{digits}f})"


def _notes(rows: list[dict[str, Any]]) -> str:
    """What the numbers are, under the tables."""
    if not rows:
        return "Nothing has been measured yet."

    def values(name: str) -> str:
        found = sorted({row[name] for row in rows if row[name] is not None})
        return f"{found[0]:g} to {found[-1]:g}" if len(found) > 1 else f"{found[0]:g}" if found else "-"

    notes = [
        f"{values('generated')} images a cell ({values('generated_lpips')} for LPIPS) against {values('real')} "
        f"photographs, {values('width')} pixels wide and {values('height')} high; models trained on "
        f"{values('training_images')} photographs for {values('trained_kimg')} kimg. KID from all images on "
        f"{', '.join(sorted({row['features'] for row in rows if row['features']}))} features; CSV has its intervals.",
    ]
    if any(row["compared_with"] == "held_out" for row in rows):
        notes.append("These are photographs of other parts than the models were trained on.")
    if any(row["reconstruction"] for row in rows):
        notes.append(RECONSTRUCTION_NOTE)
    unknown = {get_method(row["method"]).title for row in rows if row["unknown_origin"]}
    if unknown:
        notes.append(f"{UNKNOWN_NOTE}{', '.join(sorted(unknown))}.")
    if any(row["paper_clustered_lpips"] is not None for row in rows):
        notes.append("In brackets: the paper (Inception features, 256 pixels, 400 kimg for DFMGAN).")
    return "\n\n".join(notes)


def _times_1000(value: float | None) -> float | None:
    return None if value is None else 1000 * value


def main(arguments: Sequence[str]) -> int:
    """Do the comparison, and print its table. Returns 1 if the training of a cell diverged."""
    config = tyro.cli(GenerationConfig, args=arguments)
    accelerator = Accelerator()
    networks = load_networks(config.evaluation, device=accelerator.device, progress=accelerator.is_main_process)
    benchmark = GenerationBenchmark(config, networks, accelerator)
    if config.estimate and benchmark.pending:
        benchmark.say(benchmark.describe(benchmark.estimate()))
    failures = benchmark.run()
    if accelerator.is_main_process:
        print(write_tables(config.output_dir, benchmark.all_cells))
    accelerator.end_training()
    if failures:
        print("\n".join(["These cells are missing:", *failures]), file=sys.stderr)
    return int(bool(failures))


if __name__ == "__main__":
    run(main)
