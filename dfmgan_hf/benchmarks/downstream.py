"""What the benchmarks of classification and localisation share: splits, trials, resuming, the loop over them."""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import tyro
from accelerate import Accelerator

from ..data import DataConfig, Partition
from ..data.records import ImageRecord
from ..methods.registry import METHODS
from ..training.run import environment, to_json
from ..training.run_state import changed_settings
from .cells import hash_of_names, share
from .estimate import format_seconds
from .splits import keep_lists, read_category_groups
from .training_sets import LabelledImages, Place, draw_images, join, load_listed, make_sources, merge

REAL = "real"

TrainingSet = Literal["real", "generated", "both"]


@dataclass(frozen=True)
class DownstreamConfig:
    """What is compared, and on which photographs.

    Attributes:
        output_dir: Table, figure, lists of the photographs and a file for each trial. The same command given again
            goes on where it stopped.
        generated: NAME=FOLDER of images that are generated already, in a form that generate.py writes; {category},
            {split} and {defect} in it stand for the names. They must come from a generator that has seen no test
            photograph: one that was trained with the list of the split.
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
        resolution: Side of the images in pixels.
        groups: CSV file with the columns file and group, for data with several photographs of the same part: all of a
            part then lie on the same side of a split. {category} in its name stands for the category.
        cells: i/n: the i-th of n parts of the trials, for the jobs of an array that share the output folder.
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
    groups: str | None = None
    cells: str = "1/1"
    estimate: bool = True
    data: tyro.conf.OmitArgPrefixes[DataConfig] = field(default_factory=DataConfig)


@dataclass(frozen=True)
class Trial:
    """One network, trained once and tested.

    Args:
        category: of the data.
        split: which photographs may be trained on and which are tested on.
        source: name of what generated the images; "real" for none.
        with_real: whether the photographs of the split are trained on too.
        seed: of the network.
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

    def path(self, output_dir: Path) -> Path:
        """Where its result is."""
        return output_dir / self.category / self.split / self.training_set / f"seed_{self.seed}.json"


@dataclass(frozen=True)
class Subject:
    """One category with its splits.

    Args:
        data: its photographs.
        defects: kinds of defect, in the order of their numbers.
        lists: of each split, the files with the names to train on and to test on.
        groups: which part each photograph shows, where several show the same.
    """

    data: DataConfig
    defects: tuple[str, ...]
    lists: dict[str, tuple[Path, Path]]
    groups: Mapping[str, str] | None = None


class DownstreamBenchmark(ABC):
    """Trains and tests the network of each trial; the processes of a launch share the trials.

    Args:
        config: what to compare.
        accelerator: of the launch, or of a single process.

    Raises:
        ValueError: a source, defect or part of the trials is not what was expected; a model has seen what is tested
            on; results have other settings.
        DataError: the photographs cannot be listed.
    """

    def __init__(self, config: DownstreamConfig, accelerator: Accelerator) -> None:
        self.config = config
        self.accelerator = accelerator
        self.sources = {
            source.name: source for source in make_sources(config.methods, config.trained, config.generated)
        }
        self.subjects = dict(self._subject(category) for category in config.categories or (config.data.category,))
        accelerator.wait_for_everyone()
        self.all_trials = self._trials()
        mine = share(self.all_trials, config.cells)[accelerator.process_index :: accelerator.num_processes]
        self.pending = [trial for trial in mine if not self._is_done(trial)]
        self._check_models()  # a wrong one is said before anything starts
        self._drawn: tuple[tuple[str, str, str], LabelledImages] | None = None

    # --- what the two benchmarks differ in ---

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

    # --- the same in both ---

    def run(self) -> None:
        """Do all pending trials, and write the tables anew after each."""
        for number, trial in enumerate(self.pending, 1):
            subject = self.subjects[trial.category]
            training = self._training_set(trial, subject)
            result = self.run_trial(trial, subject, training)
            record = {
                "trial": asdict(trial),
                **result,
                "defects": list(subject.defects),
                "training_images": len(training),
                "generated": training.origin,
                "reconstruction": is_reconstruction(trial.source),
                "settings": self._settings(trial),
                "environment": environment(self.accelerator),
            }
            write_whole(trial.path(self.config.output_dir), json.dumps(to_json(record), indent=2).encode())
            name = f"{trial.category}, {trial.split}, {trial.training_set}, seed {trial.seed}"
            print(f"[{number}/{len(self.pending)}] {name}: {self.headline(result)}", flush=True)
            self.write_tables()

    def describe_estimate(self) -> str:
        """How long the pending trials will take."""
        each = self.seconds_per_trial()
        return (
            f"{len(self.pending)} trials to do, {len(self.all_trials) - len(self.pending)} done or left to others: "
            f"about {format_seconds(each * len(self.pending))}, {format_seconds(each)} each; drawing comes on top."
        )

    def read_results(self) -> dict[Trial, dict[str, Any]]:
        """Results of the trials that are done, by any job."""
        paths = {trial: trial.path(self.config.output_dir) for trial in self.all_trials}
        return {trial: json.loads(path.read_text()) for trial, path in paths.items() if path.is_file()}

    def title(self, training_set: str) -> str:
        """Name of a training set in tables."""
        name, plus, _ = training_set.partition("+")
        title = "Photographs" if name == REAL else self.sources[name].title
        if is_reconstruction(training_set):
            title += " *"
        return f"{title} + photographs" if plus else title

    def test_set(self, trial: Trial, subject: Subject) -> LabelledImages:
        """The photographs with defects that are tested on."""
        return load_listed(subject.data, subject.defects, subject.lists[trial.split][1], self.config.resolution)

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
        return name, Subject(data, defects, keep_lists(self.config.output_dir / name, splits), groups)

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
            return load_listed(subject.data, subject.defects, base_list, self.config.resolution)
        key = (trial.category, trial.split, trial.source)
        if self._drawn is None or self._drawn[0] != key:
            self._drawn = key, self._draw(trial, subject)
        generated = self._drawn[1]
        if not trial.with_real:
            return generated
        return merge(generated, load_listed(subject.data, subject.defects, base_list, self.config.resolution))

    def _draw(self, trial: Trial, subject: Subject) -> LabelledImages:
        parts, origin = [], {}
        for place in self._places(trial, subject):
            sampler = self.sources[trial.source].open(place)
            parts.append(
                draw_images(sampler, self.config.images_per_defect, self.config.image_seed, self.config.resolution)
            )
            origin[place.defect] = getattr(sampler, "settings", {})
        return replace(join(parts), origin=origin)

    def _places(self, trial: Trial, subject: Subject) -> list[Place]:
        """Where the images of a trial come from, by the number of the kind of defect."""
        base_list, test_list = subject.lists[trial.split]
        return [
            Place(
                data=subject.data,
                category=trial.category,
                defect=defect,
                split=trial.split,
                base_list=base_list,
                test_list=test_list,
                resolution=self.config.resolution,
                device=self.accelerator.device,
            )
            for defect in subject.defects
        ]

    def _check_models(self) -> None:
        drawn = {(trial.category, trial.split, trial.source): trial for trial in self.pending if trial.source != REAL}
        for trial in drawn.values():
            for place in self._places(trial, self.subjects[trial.category]):
                self.sources[trial.source].check(place)

    def _is_done(self, trial: Trial) -> bool:
        path = trial.path(self.config.output_dir)
        if not path.is_file():
            return False
        changes = changed_settings(json.loads(path.read_text())["settings"], self._settings(trial))
        if changes:
            raise ValueError(
                f"{path} was measured with other settings: {'; '.join(changes)}. Give those settings or another "
                "--output_dir, or delete the file to measure it again."
            )
        return True

    def _settings(self, trial: Trial) -> dict[str, Any]:
        """What decides the numbers of a trial."""
        settings: dict[str, Any] = to_json(self.config)
        data = {name: settings["data"][name] for name in ("fit", "bit_depth")}
        left_out = (
            "output_dir", "generated", "methods", "trained", "training_sets", "categories", "seeds", "cells",
            "groups", "estimate", "data",
        )  # fmt: skip
        chosen = {name: value for name, value in settings.items() if name not in left_out}
        lists = zip(("base", "test"), self.subjects[trial.category].lists[trial.split], strict=True)
        return {**chosen, "data": data, "lists": {side: hash_of_names(path) for side, path in lists}}


def is_reconstruction(training_set: str) -> bool:
    """Whether a training set is of a method some of whose details were filled in here."""
    method = METHODS.get(training_set.partition("+")[0])
    return method is not None and method.is_reconstruction


def write_whole(path: Path, content: bytes) -> None:
    """Whole or not at all, also beside other jobs that write the same file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    os.replace(aside, path)
