"""What classification and localisation share: training sets, trials, resuming, the loop over them, tables."""

from __future__ import annotations

import io
import json
import math
import statistics
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence, Sized
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch
import tyro
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.paper.cells import (
    RECONSTRUCTION_NOTE,
    UNKNOWN_NOTE,
    check_held_out,
    check_learnt,
    check_unchanged,
    hash_of_names,
    hash_of_weights,
    keep_lists,
    learnt_from,
    read_category_groups,
    trained_template,
)
from dfmgan_hf.data import DataConfig, Partition, read_file_list
from dfmgan_hf.data.partitions import unite_files
from dfmgan_hf.data.preparation import Size
from dfmgan_hf.data.records import ImageRecord, fingerprint, normalised
from dfmgan_hf.files import to_json, write_json
from dfmgan_hf.hub.cards import read_record
from dfmgan_hf.methods import METHODS, get_method, open_sampler
from dfmgan_hf.methods.method import SamplerRequest
from dfmgan_hf.metrics import FolderSampler, Sampler, draw
from dfmgan_hf.models.base import image_size, sides
from dfmgan_hf.prove.experiment import in_words
from dfmgan_hf.training.run import environment

_BATCH_SIZE = 32
REAL = "real"
TrainingSet = Literal["real", "generated", "both"]
_MAX_COLUMNS = 4


@dataclass(frozen=True)
class LabelledImages:
    """Images uint8 (n, 3, H, W) of several kinds of defect, the number of the kind, int64 (n,), and masks or None.

    A photograph that shows several kinds has the number of the first. `origin` is what is known of how generated
    images were drawn, for results.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor | None = None
    origin: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Source:
    """A method as a benchmark knows it: by a folder of images, a trained model, or the photographs alone.

    Args:
        name: in tables.
        images: template of a folder of generated images; None to draw.
        model: template of a folder that training wrote; None for a method that is not trained.
    """

    name: str
    images: str | None = None
    model: str | None = None


def make_sources(methods: Sequence[str], trained: Sequence[str], generated: Sequence[str]) -> list[Source]:
    """Make sources of what a command line says, see `DownstreamConfig`.

    Raises:
        ValueError: an unknown method, one without its folder, text without "=", or a name that occurs twice.
    """
    sources = []
    for entry in generated:
        name, separator, folder = entry.partition("=")
        if not (name and separator and folder):
            raise ValueError(f"`generated` must be NAME=FOLDER, such as dfmgan=outputs/frays, but is {entry!r}.")
        sources.append(Source(name, images=folder))
    for name in methods:
        method = get_method(name)
        template = trained_template(trained, name) if method.is_trained else None
        if method.is_trained and template is None:
            raise ValueError(
                f"{method.title} is trained: name the folders with --trained, such as 'runs/{{split}}/{{defect}}/"
                f"{{method}}', or its images with --generated {name}=FOLDER. `dfmgan train {name}` trains it, on a "
                "split's photographs with --file_list."
            )
        sources.append(Source(name, model=template))
    names = [source.name for source in sources]
    if len(set(names)) < len(names):
        raise ValueError(f"Each source needs a name of its own, but they are {', '.join(names)}.")
    return sources


def draw_images(sampler: Sampler, count: int, seed: int, size: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
    """Draw images uint8 (count, 3, H, W) and masks uint8 (count, 1, H, W) or None.

    Raises:
        ValueError: the sampler has fewer images, or draws others than of height and width `size`.
    """
    if isinstance(sampler, Sized) and len(sampler) < count:
        raise ValueError(
            f"There are {len(sampler)} images, but {count} are asked for: generate more, or give "
            f"--images_per_defect {len(sampler)} for all methods."
        )
    parts = [draw(sampler, range(i, min(i + _BATCH_SIZE, count)), seed) for i in range(0, count, _BATCH_SIZE)]
    images = torch.cat([part[0] for part in parts])
    height, width = images.shape[-2:]
    check_size((height, width), size)
    masks = [part[1] for part in parts if part[1] is not None]
    return images.expand(-1, 3, -1, -1), torch.cat(masks) if masks else None


def check_size(drawn: tuple[int, int], compared: tuple[int, int]) -> None:
    """Raise ValueError unless a model draws images of the height and width that are compared."""
    if drawn != compared:
        height, width = drawn
        shorter = min(drawn)
        raise ValueError(
            f"The model draws images of {width}x{height} pixels, but those of {compared[1]}x{compared[0]} are "
            f"compared: give --resolution {shorter} --aspect {height // shorter} {width // shorter}."
        )


def join(parts: Sequence[tuple[Tensor, Tensor | None]]) -> LabelledImages:
    """Make one set of the images and masks of several kinds, which get the numbers 0, 1, ..."""
    masks = [part_masks for _, part_masks in parts if part_masks is not None]
    return LabelledImages(
        torch.cat([images for images, _ in parts]),
        torch.cat([torch.full((len(images),), number) for number, (images, _) in enumerate(parts)]),
        torch.cat(masks) if len(masks) == len(parts) else None,
    )


def merge(first: LabelledImages, second: LabelledImages) -> LabelledImages:
    """Make one set of two; without masks if one of them has none."""
    masks = None if first.masks is None or second.masks is None else torch.cat([first.masks, second.masks])
    images, labels = torch.cat([first.images, second.images]), torch.cat([first.labels, second.labels])
    return LabelledImages(images, labels, masks, origin=first.origin | second.origin)


def check_no_choice(data: DataConfig) -> None:
    """See that nobody chooses among the photographs: the lists of the splits say which are used.

    Raises:
        ValueError: `file_list`, `shots` or `shots_seed` was given.
    """
    defaults = DataConfig()
    for name in ("file_list", "shots", "shots_seed"):
        if getattr(data, name) != getattr(defaults, name):
            raise ValueError(
                f"`{name}`: the benchmark makes its own lists of what to train on and to test on: leave it out. Lists "
                "of your own may take their place in OUTPUT_DIR/CATEGORY/splits."
            )


@lru_cache(maxsize=4)
def load_listed(data: DataConfig, defects: tuple[str, ...], file_list: Path, resolution: Size) -> LabelledImages:
    """Load the photographs that a list names, with their masks; kept, as each of many trials asks for the same.

    A photograph that is listed under several kinds of defect comes once, with all of its masks: in that of one kind
    alone, the other defects would count as background.

    Raises:
        DataError: a photograph cannot be used, or the list names none of a kind.
        ValueError: the list names a photograph under one of its kinds and not under another.
    """
    listed = replace(data, file_list=file_list)
    sets = [listed.load_defects(defect, resolution=resolution) for defect in defects]
    images = join([(dataset.images, dataset.masks) for dataset in sets])
    numbers = {name: number for number, name in enumerate(name for dataset in sets for name in dataset.file_names)}
    of_file: dict[Path, list[str]] = {}
    for record in data.listing().records:
        if record.defect in defects:
            of_file.setdefault(record.image_path, []).append(record.name)
    named = set(read_file_list(file_list))
    for names in of_file.values():
        missing = set(names) - named
        if missing and len(missing) < len(names):
            raise ValueError(
                f"{file_list} names {min(set(names) & named)}, but not {min(missing)}, another kind of defect on the "
                "same photograph: name both, or neither."
            )
    # Of a photograph of which one label was left out as bad, the others are half of the truth.
    files = sorted(sorted(numbers[name] for name in names) for names in of_file.values() if numbers.keys() >= {*names})
    first = torch.tensor([file[0] for file in files], dtype=torch.int64)
    masks = None if images.masks is None else images.masks[first]
    for row, file in enumerate(files):
        for number in file[1:]:
            if masks is not None and images.masks is not None:
                masks[row] |= images.masks[number]
    return LabelledImages(images.images[first], images.labels[first], masks)


@dataclass(frozen=True)
class DownstreamConfig:
    """What is compared, and on which photographs.

    Attributes:
        output_dir: Table, figure, lists of the photographs and a file for each trial. The same command given again
            resumes where it stopped; results of images or models that have been replaced since are an error.
        generated: NAME=FOLDER of images that are generated already, in a form that `dfmgan generate` writes;
            {category}, {split} and {defect} in it stand for the names. They must come from a generator that has seen
            no test photograph: one that was trained with the list of the split. The record of `dfmgan generate` in
            the folder tells; without one, the table says so.
        methods: Methods of the registry to draw from.
        trained: Folders of their trained models, with {category}, {split}, {defect} and {method} in the name, or
            METHOD=FOLDER for one method alone. Without {defect}, one model draws all kinds, which it has to have
            learnt jointly. One that has seen a test photograph is refused.
        images_per_defect: Generated images of each kind of defect.
        training_sets: What to train on: the photographs of the split alone, generated images alone, or both together.
        categories: Categories of the data; may be left out if there is only one.
        defects: Kinds of defect; all if left out.
        seeds: Of the trained networks; a trial for each.
        image_seed: Of the generated images.
        resolution: Shorter side of the images in pixels.
        aspect: Their height and width as multiples of it; None for squares.
        groups: CSV file with the columns file and group, for data with several photographs of the same part: all of a
            part then lie on the same side of a split. {category} in its name stands for the category.
        estimate: Say beforehand how long it will take; False starts at once.
    """

    output_dir: Path
    generated: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    trained: tuple[str, ...] = ()
    images_per_defect: int = 1000
    training_sets: tuple[TrainingSet, ...] = ("real", "generated", "both")
    categories: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    seeds: tuple[int, ...] = (0, 1, 2)
    image_seed: int = 0
    resolution: int = 256
    aspect: tuple[int, int] | None = None
    groups: str | None = None
    estimate: bool = True
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)

    def __post_init__(self) -> None:
        object.__setattr__(self, "defects", tuple(map(normalised, self.defects)))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the images."""
        return sides(self.resolution, self.aspect)


@dataclass(frozen=True)
class Trial:
    """One network, trained once on the images of a source ("real" for none), and tested.

    `split` says which photographs may be trained on and which are tested on, `with_real` whether the former are.
    """

    category: str
    split: str
    source: str
    with_real: bool
    seed: int

    @property
    def training_set(self) -> str:
        """Name in tables and folders."""
        return f"{self.source}+real" if self.with_real and self.source != REAL else self.source

    def fill(self, template: str, defect: str) -> str:
        """Return a path in which {category}, {defect}, {split} and {method} stand for the names."""
        return template.format(category=self.category, defect=defect, split=self.split, method=self.source)

    def path(self, output_dir: Path) -> Path:
        """Return where its result is."""
        return output_dir / self.category / self.split / self.training_set / f"seed_{self.seed}.json"


@dataclass(frozen=True)
class Subject:
    """One category with its splits.

    Args:
        data, defects: its photographs, and the kinds of defect in the order of their numbers.
        lists: of each split, the files with the names to train on and to test on.
        groups: which part each photograph shows, see `unite_files`.
    """

    data: DataConfig
    defects: tuple[str, ...]
    lists: dict[str, tuple[Path, Path]]
    groups: Mapping[str, str]


class DownstreamBenchmark(ABC):
    """Trains and tests the network of each trial; the processes of a launch share the trials.

    Raises:
        ValueError: a source or defect is not what was expected; photographs are chosen in another way than by lists;
            lists that lie there divide a part; a model has seen what is tested on; results have other settings.
    """

    def __init__(self, config: DownstreamConfig, accelerator: Accelerator) -> None:
        check_no_choice(config.data)
        self.config = config
        self.accelerator = accelerator
        self.sources = {
            source.name: source for source in make_sources(config.methods, config.trained, config.generated)
        }
        self._files: dict[tuple[str, str, str], dict[str, str]] = {}
        self.subjects = dict(self._subject(category) for category in config.categories or (config.data.category,))
        accelerator.wait_for_everyone()
        self.all_trials = self._trials()
        mine = self.all_trials[accelerator.process_index :: accelerator.num_processes]
        self.pending = [trial for trial in mine if not self._is_done(trial)]
        self._check_models()  # so that a wrong one is reported before anything starts
        self._drawn: tuple[tuple[str, str, str], LabelledImages] | None = None

    @abstractmethod
    def make_splits(self, records: Sequence[ImageRecord], groups: Mapping[str, str] | None) -> dict[str, Partition]:
        """The splits of a category by name, whole groups on one side."""

    @abstractmethod
    def run_trial(self, trial: Trial, subject: Subject, training: LabelledImages) -> dict[str, Any]:
        """Train a network and test it; what is returned is stored."""

    @abstractmethod
    def seconds_per_trial(self) -> float:
        """Time of a training, from a few timed steps."""

    @abstractmethod
    def headline(self, result: dict[str, Any]) -> str:
        """A result in a few words."""

    @abstractmethod
    def write_tables(self) -> str:
        """Write tables and figure of all trials that are done, and return the Markdown."""

    def run(self) -> None:
        """Do all pending trials; the main process writes the tables anew after each of its own."""
        for number, trial in enumerate(self.pending, 1):
            subject = self.subjects[trial.category]
            settings = self._settings(trial)  # before anything is drawn: what is replaced meanwhile is then another
            training = self._training_set(trial, subject)
            result = self.run_trial(trial, subject, training)
            record = {
                "trial": asdict(trial),
                **result,
                "defects": list(subject.defects),
                "training_images": len(training),
                "generated": training.origin,
                "reconstruction": is_reconstruction(trial.source),
                "unknown_origin": any(learnt_from(f) is None for f in self._folders(trial, subject).values()),
                "settings": settings,
                "environment": environment(self.accelerator),
            }
            write_json(trial.path(self.config.output_dir), to_json(record))
            name = f"{trial.category}, {trial.split}, {trial.training_set}, seed {trial.seed}"
            print(f"[{number}/{len(self.pending)}] {name}: {self.headline(result)}", flush=True)
            if self.accelerator.is_main_process:
                self.write_tables()

    def describe_estimate(self) -> str:
        """How long the pending trials will take."""
        each = self.seconds_per_trial()
        others = len(self.all_trials) - len(self.pending)
        return (
            f"{len(self.pending)} trials to do, {others} done or left to other processes: "
            f"about {in_words(each * len(self.pending))}, {in_words(each)} each; drawing comes on top."
        )

    def read_results(self) -> dict[Trial, dict[str, Any]]:
        """Results of the trials that are done, by any process."""
        paths = {trial: trial.path(self.config.output_dir) for trial in self.all_trials}
        return {trial: json.loads(path.read_text("utf-8")) for trial, path in paths.items() if path.is_file()}

    def title(self, training_set: str) -> str:
        """Name of a training set in tables."""
        name, plus, _ = training_set.partition("+")
        title = "Photographs" if name == REAL else METHODS[name].title if name in METHODS else name
        if is_reconstruction(training_set):
            title += " *"
        return f"{title} + photographs" if plus else title

    def test_set(self, trial: Trial, subject: Subject) -> LabelledImages:
        """The photographs with defects that are tested on."""
        return load_listed(subject.data, subject.defects, subject.lists[trial.split][1], self.config.size)

    def _subject(self, category: str | None) -> tuple[str, Subject]:
        data = self.config.data if category is None else replace(self.config.data, category=category)
        listing = data.listing()
        missing = set(self.config.defects) - set(listing.defects)
        if missing:
            raise ValueError(
                f"`defects`: {listing.category} has no {', '.join(sorted(missing))}; it has "
                f"{', '.join(listing.defects)}."
            )
        defects = tuple(self.config.defects or listing.defects)
        name = category or listing.category or "object"
        groups = read_category_groups(self.config.groups, name)
        splits = self.make_splits([record for record in listing.records if record.defect in defects], groups)
        parts = unite_files(listing.records, groups)
        return name, Subject(data, defects, keep_lists(self.config.output_dir / name, splits, parts), parts)

    def _trials(self) -> list[Trial]:
        """Seeds innermost: what was drawn once serves for all of them."""
        chosen = self.config.training_sets
        sets = [(REAL, True)] if "real" in chosen else []
        sets += [
            (name, with_real)
            for name in self.sources
            for with_real, wanted in ((False, "generated"), (True, "both"))
            if wanted in chosen
        ]
        return [
            Trial(category, split, source, with_real, seed)
            for category, subject in self.subjects.items()
            for split in subject.lists
            for source, with_real in sets
            for seed in self.config.seeds
        ]

    def _training_set(self, trial: Trial, subject: Subject) -> LabelledImages:
        base_list = subject.lists[trial.split][0]
        if trial.source == REAL:
            return load_listed(subject.data, subject.defects, base_list, self.config.size)
        key = (trial.category, trial.split, trial.source)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, self._draw(trial, subject)
        generated = self._drawn[1]
        if not trial.with_real:
            return generated
        return merge(generated, load_listed(subject.data, subject.defects, base_list, self.config.size))

    def _draw(self, trial: Trial, subject: Subject) -> LabelledImages:
        parts, origin = [], {}
        for defect in subject.defects:
            sampler = self.open_source(trial, subject, defect)
            parts.append(draw_images(sampler, self.config.images_per_defect, self.config.image_seed, self.config.size))
            origin[defect] = getattr(sampler, "settings", {})
        return replace(join(parts), origin=origin)

    def open_source(self, trial: Trial, subject: Subject, defect: str) -> Sampler:
        """Open the sampler of one kind of defect: a folder of images, a trained model, or the photographs' method."""
        source, size = self.sources[trial.source], self.config.size
        if source.images is not None:
            # A folder of its own for each defect may call it anything.
            named = None if "{defect}" in source.images else defect
            folder, bit_depth = trial.fill(source.images, defect), subject.data.bit_depth
            return FolderSampler(folder, defect=named, resolution=size, bit_depth=bit_depth)
        data = replace(subject.data, file_list=subject.lists[trial.split][0])
        model = None if source.model is None else trial.fill(source.model, defect)
        request = SamplerRequest(model, data, defect, size, device=self.accelerator.device)
        return open_sampler(request, None if model is not None else source.name)

    def _check_models(self) -> None:
        """See that models have learnt what they are to draw, and have not seen what is tested on."""
        drawn = {(trial.category, trial.split, trial.source): trial for trial in self.pending if trial.source != REAL}
        for trial in drawn.values():
            template, subject = self.sources[trial.source].model, self.subjects[trial.category]
            for defect, folder in self._folders(trial, subject).items():
                if template is not None:
                    check_learnt(folder, defect, template)
                    config = read_record(folder / "generator" / "config.json")
                    if config is not None:
                        check_size(image_size(config), self.config.size)
                check_held_out(folder, subject.lists[trial.split][1])

    def _folders(self, trial: Trial, subject: Subject) -> dict[str, Path]:
        """Return where the models or images of a trial are by kind of defect; nothing if it needs none."""
        source = self.sources.get(trial.source, Source(REAL))
        template = source.images or source.model
        return {} if template is None else {d: Path(trial.fill(template, d)) for d in subject.defects}

    def _is_done(self, trial: Trial) -> bool:
        path = trial.path(self.config.output_dir)
        if path.is_file():
            check_unchanged(path, json.loads(path.read_text("utf-8"))["settings"], self._settings(trial))
        return path.is_file()

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """What decides the numbers of a trial."""
        settings: dict[str, Any] = to_json(self.config)
        data = {name: settings["data"][name] for name in ("fit", "bit_depth")}
        left_out = (
            "output_dir", "generated", "methods", "trained", "training_sets", "categories", "seeds",
            "groups", "estimate", "data",
        )  # fmt: skip
        chosen = {name: value for name, value in settings.items() if name not in left_out}
        lists = zip(("base", "test"), self.subjects[trial.category].lists[trial.split], strict=True)
        # Of what `generated` and `trained` name, what this trial takes: the other sources may come and go.
        source = self.sources.get(trial.source, Source(REAL))
        return {
            **chosen,
            "generated": source.images,
            "trained": source.model,
            "data": data,
            "lists": {side: hash_of_names(path) for side, path in lists},
            "files": self._hashes(trial),
        }

    def _hashes(self, trial: Trial) -> dict[str, str]:
        """Return, by kind of defect, what images a trial takes, or what draws them; nothing of what is not there."""
        key = trial.category, trial.split, trial.source
        if key not in self._files:
            subject, hashes = self.subjects[trial.category], {}
            for defect, folder in self._folders(trial, subject).items():
                if self.sources[trial.source].model is not None:
                    hashes[defect] = hash_of_weights(folder)
                elif folder.is_dir():
                    sampler = self.open_source(trial, subject, defect)
                    assert isinstance(sampler, FolderSampler)
                    hashes[defect] = fingerprint(sampler.records[: self.config.images_per_defect], {})[:16]
            self._files[key] = {defect: value for defect, value in hashes.items() if value is not None}
        return self._files[key]


def is_reconstruction(training_set: str) -> bool:
    """Whether a training set is of a method some of whose details were filled in here."""
    method = METHODS.get(training_set.partition("+")[0])
    return method is not None and method.is_reconstruction


Results = Mapping[Trial, dict[str, Any]]


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation from two values on; None where there are too few."""
    if not values:
        return None, None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def entry(values: Sequence[float]) -> str:
    """ "81.3 ± 2.1", "81.3" of a single value, "-" of none."""
    mean, deviation = spread(values)
    if mean is None:
        return "-"
    return f"{mean:.1f}" if deviation is None else f"{mean:.1f} ± {deviation:.1f}"


def size_in_words(settings: Mapping[str, Any]) -> str:
    """Say how large images are: their side, or width and height of those that are not square."""
    height, width = sides(settings["resolution"], settings.get("aspect"))
    return f"{width}" if height == width else f"{width}x{height}"


def seeds_note(results: Results) -> str:
    """Say how many networks a number stands for."""
    count = len({trial.seed for trial in results})
    return f"Mean and standard deviation of {count} networks." if count > 1 else "A single network."


def more_notes(results: Results, select: str) -> list[str]:
    """Say what the choice of the test and the star behind a method mean."""
    notes = []
    if select != "last":
        notes.append("The best of ten tests on the way is reported: the test set has been looked at.")
    if any(is_reconstruction(trial.source) for trial in results):
        notes.append(RECONSTRUCTION_NOTE)
    # Results of an earlier version do not say it: of these it is not known either.
    unknown = {trial.source for trial, result in results.items() if result.get("unknown_origin", trial.source != REAL)}
    if unknown:
        notes.append(f"{UNKNOWN_NOTE}{', '.join(sorted(unknown))}.")
    return notes


def row_names(trials: Sequence[Trial]) -> list[str]:
    """Training sets in the order of the trials."""
    return list(dict.fromkeys(trial.training_set for trial in trials))


def plot_points(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    label: str,
    published: Mapping[tuple[str, str], float] | None = None,
    chance: float | None = None,
) -> bytes:
    """Draw a panel for each of `panels`, in it a line of points for each row, one for each seed; return the PNG file.

    The axis goes from 0 to 100. Hollow marks are the paper's numbers, by panel and row; the dotted line is what a
    trivial answer would score.
    """
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(name for values in panels.values() for name in values))
    columns = min(len(panels), _MAX_COLUMNS)
    lines = math.ceil(len(panels) / columns)
    size = (max(6.5, 1.8 + 2.2 * columns), lines * (1.0 + 0.26 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    places = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, values) in zip(places, panels.items(), strict=False):
        for y, name in enumerate(rows):
            points = values.get(name, ())
            axes.plot(points, [y] * len(points), "o", color=f"C{y % 10}", alpha=0.5, markersize=4)
            if points:
                axes.plot(statistics.mean(points), y, "|", color=f"C{y % 10}", markersize=14, markeredgewidth=2)
            if published and (title, name) in published:
                axes.plot(published[title, name], y, "D", color=f"C{y % 10}", markerfacecolor="none", markersize=6)
        if chance is not None:
            axes.axvline(chance, linestyle=":", color="0.5")
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
        # All of the scale, so that small differences look small.
        axes.set_xlim(0, 102)
        # From the top down, with as little above and below as between two rows.
        axes.set_ylim(len(rows) - 0.4, -0.6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()


def adam(model: nn.Module, lr: float, steps: int) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.MultiStepLR]:
    """Return Adam and its schedule: the rate falls to a fifth at 80 % and again at 90 % of the steps, as in
    AnomalyDiffusion."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    milestones = [steps * 8 // 10, steps * 9 // 10]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)


def run_benchmark(kind: type[DownstreamBenchmark], config: DownstreamConfig) -> None:
    """Do the pending trials of a benchmark and print its table: what both scripts do."""
    accelerator = Accelerator()
    benchmark = kind(config, accelerator)
    if config.estimate and benchmark.pending and accelerator.is_main_process:
        print(benchmark.describe_estimate(), flush=True)
    benchmark.run()
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        print(benchmark.write_tables())
    accelerator.end_training()
