"""Train detectors with and without generated defects, and test them on photographs of parts that nothing has seen.

The arms share everything but what stands in for some of the photographs of defects: networks, seeds, number of steps,
good photographs. One file is kept for each network that was tested, so that a run that is stopped goes on.
"""

from __future__ import annotations

import csv
import hashlib
import math
import re
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import numpy as np
import safetensors.numpy
import torch
import tyro
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..arguments import check_device, require
from ..data.partitions import (
    Partition,
    find_parts,
    find_usable,
    quarter_of,
    read_groups,
    split_by_parts,
    unite_files,
    unite_kinds,
)
from ..data.patches import patch_stems
from ..data.preparation import fit_to_size, fitting_size, read_pair, resize_mask
from ..data.reading import Array
from ..data.records import DataError, ImageRecord, normalised, shorten
from ..data.sources import FittedSource
from ..export.generate import candidate_seed, describe_model, judge_triplet
from ..export.paint import judge_painted
from ..files import TRAINING_FILE, keep_settings, lock_folder, to_json, whole_file, write_json
from ..gate import QualityGate
from ..hub.cards import BACKBONE_TRAINING_FILE, read_record
from ..models.base import image_size, sides
from ..painting import PaintConfig, trained_fit
from ..photograph import Photograph
from ..pipeline import DFMGANPipeline
from .detector import Detector, Example, Shown, cut, find_defects, train_detector, write_onnx
from .perlin import perlin_defect
from .report import WITH_MODEL, sentence, write_report
from .statistics import LEAST_PARTS, LEAST_SEEDS, Scores, best_threshold, compare

ArmName = Literal[
    "photographs", "painted", "generated", "painted_gated", "generated_gated", "crop_paste", "mixture", "perlin"
]
ARMS: tuple[ArmName, ...] = get_args(ArmName)
"""In the order in which a budget leaves them out, from the last; `report.CALLED` says what they are."""
BASELINE: ArmName = "photographs"
GATED: tuple[ArmName, ...] = ("painted_gated", "generated_gated")
"""With what the quality gate lets pass of the draws of the arm before `_gated`; compared where they are named."""
NEEDS_MODEL = tuple(arm for arm in WITH_MODEL if arm != "mixture")
MORE_RATIOS = (0.25, 0.75)
MOST_SEEDS = 10
TRIES = 100
"""Seeds that are tried for a made defect that is not empty and, where there is a gate, passes."""

Made = tuple[Array, Array, Array | None]
"""Image, mask and, if there is one, what has no defect beside it."""

_PATCH = re.compile(r"_x\d{5,}_y\d{5,}$")
_TIMED_STEPS = 3
# What may differ when a run goes on.
_FREE = (
    "scale",
    "output_dir",
    "models",
    "seeds",
    "arms",
    "budget",
    "estimate",
    "device",
    "least_gain",
    "cache_dir",
    "max_megapixels",
)


class ProveError(ValueError):
    """Detectors cannot be compared; the message says why and what to do."""


@dataclass(frozen=True)
class ProveConfig(FittedSource):
    """Find out whether generated defects make a detector better, on parts that were held back.

    Attributes:
        output_dir: Folder for the report, the network and the scores. The same command goes on where it was stopped.
        models: Models to draw and paint with, each a folder or a repository on the Hub. Without one, only what needs
            no model is compared.
        defects: Kinds of defect to find; none for all.
        split_dir: Folder that `dfmgan split` wrote. None divides the photographs in the same way, into output_dir.
        groups: CSV file with the columns file and group, which says what shows the same part; each photograph of
            these defects needs a line. None compares the photographs.
        arms: What to compare with photographs alone; none for all that is at hand, but for what passes the quality
            gate: name painted and painted_gated, generated and generated_gated to see what the gate is worth.
        seeds: Networks of each arm.
        ratio: Share of what a network is shown as defects that is made: between 0 and 1, both excluded.
        budget: Hours to spend, from which arms, ratios and seeds follow. None: all arms at one ratio.
        scale: Photographs at their own scale (pixels), or scaled to `side` (whole). auto: as the models were trained.
        side: Pixels of the shorter side that whole photographs are scaled to, in the shape of the models' images; a
            multiple of 32. Networks are trained on squares of them.
        crop: Pixels a side of the crops of photographs at their own scale; a multiple of 32.
        steps: Length of a training.
        num_made: Defects that are made for each network.
        least_gain: Smallest gain of pixel AP that matters.
        pretrained: Whether networks begin with ImageNet's weights.
        allow_overlap: Whether to go on if a model has learnt from parts that are tested; the report then says so
            instead of an answer.
        estimate: Say how long it would take, and end.
        device: Where to compute; CUDA if there is a GPU for it.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    output_dir: Path = field(kw_only=True)
    models: tuple[str, ...] = ()
    defects: tuple[str, ...] = ()
    split_dir: Path | None = None
    groups: Path | None = None
    arms: tuple[ArmName, ...] = ()
    seeds: int = 5
    ratio: float = 0.5
    budget: float | None = None
    scale: Literal["auto", "pixels", "whole"] = "auto"
    side: int = 256
    crop: int = 96
    steps: int = 200
    num_made: int = 64
    least_gain: float = 0.02
    pretrained: bool = True
    allow_overlap: bool = False
    estimate: bool = False
    device: str = "cuda" if torch.cuda.is_available() else "cpu"

    def __post_init__(self) -> None:
        object.__setattr__(self, "defects", tuple(map(normalised, self.defects)))
        if self.seeds < LEAST_SEEDS:
            raise ValueError(f"`seeds` must be at least {LEAST_SEEDS}, to know how much they differ: {self.seeds}.")
        for name in ("side", "crop"):
            value = getattr(self, name)
            if value < 32 or value % 32:
                raise ValueError(f"`{name}` must be a multiple of 32, but is {value}.")
        for name in ("steps", "num_made"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")
        if not 0 < self.ratio < 1:
            raise ValueError(f"`ratio` must be between 0 and 1, both excluded, but is {self.ratio}.")
        if self.budget is not None and not 0 < self.budget < 10_000:
            raise ValueError(f"`budget` is in hours, from 0 to 10000, but is {self.budget}.")


def prove(config: ProveConfig) -> None:
    """Compare the arms and write report.html, results.json and the network: what `dfmgan prove` does.

    Raises:
        ProveError, DataError, PaintError: what is at hand cannot be compared.
        FeatureWeightsError: there are no ImageNet weights.
        BlockingIOError: another run is writing to the folder.
    """
    require(
        *("segmentation_models_pytorch", "timm", "scipy", "onnx"),
        purpose="Training detectors",
        extra="prove",
    )
    with lock_folder(config.output_dir):
        experiment = Experiment(config)
        todo = experiment.estimate_plan()
        if config.estimate:
            return
        begun = time.monotonic()
        for number, network in enumerate(todo, 1):
            experiment.run(network)
            left = (time.monotonic() - begun) / number * (len(todo) - number)
            print(f"{network.title}: {number} of {len(todo)}, about {in_words(left)} left", flush=True)
        experiment.finish()


@dataclass(frozen=True)
class Network:
    """One network of the plan."""

    arm: ArmName
    seed: int
    ratio: float

    @property
    def row(self) -> str:
        """Return the name of the row of the table that it belongs to."""
        return self.arm if self.arm == BASELINE else f"{self.arm}@{self.ratio:g}"

    @property
    def title(self) -> str:
        return f"{self.row}, seed {self.seed}"


def choose_plan(
    arms: Sequence[ArmName], seeds: int, ratio: float, hours: float | None, seconds: Mapping[ArmName, float]
) -> list[Network]:
    """Choose the networks that a budget allows: arms first, then ratios, then seeds.

    Args:
        arms: at hand, the most important first.
        seeds: of each arm.
        ratio: of the first round.
        hours: to spend; None for the first round, whatever it takes.
        seconds: that a network of each arm takes.

    Returns:
        Seed after seed, so that what is there after an hour can be compared.

    Raises:
        ProveError: the budget is not enough for two arms.
    """

    def plan(chosen: Sequence[ArmName], count: int, ratios: Sequence[float]) -> list[Network]:
        return [
            Network(arm, seed, each)
            for seed in range(count)
            for each in ratios
            for arm in chosen
            if arm != BASELINE or each == ratio
        ]

    def cost(networks: Sequence[Network]) -> float:
        return sum(seconds[network.arm] for network in networks) / 3600

    if hours is None:
        return plan(arms, seeds, [ratio])
    ratios = [ratio, *(each for each in MORE_RATIOS if each != ratio)]
    larger_and_larger = (
        *(plan(arms[:count], seeds, [ratio]) for count in range(2, len(arms) + 1)),
        *(plan(arms, seeds, ratios[:count]) for count in range(2, len(ratios) + 1)),
        *(plan(arms, count, ratios) for count in range(seeds + 1, MOST_SEEDS + 1)),
    )
    affordable = [networks for networks in larger_and_larger if cost(networks) <= hours]
    if not affordable:
        needed = cost(larger_and_larger[0])
        raise ProveError(
            f"A budget of {hours:g} hours is not enough: {seeds} networks each of {arms[0]} and {arms[1]} take about "
            f"{in_words(3600 * needed)}. Give more, or fewer `steps`."
        )
    return affordable[-1]


class Experiment:
    """The photographs, the models and what was measured so far."""

    def __init__(self, config: ProveConfig) -> None:
        check_device(config.device)
        self.config = config
        self.device = torch.device(config.device)
        self.pipes: dict[str, DFMGANPipeline] = {}
        self.sources: list[dict[str, Any]] = []
        self._gates: dict[tuple[str, str | None], QualityGate] = {}
        for name in config.models:
            pipe = DFMGANPipeline.from_pretrained(name).to(config.device)
            if not pipe.has_defects:
                raise ProveError(f"{name} is a backbone without defects: give a model of stage 2.")
            pipe.set_progress_bar_config(disable=True)
            self.pipes[name] = pipe
            self.sources.append(describe_model(pipe, name))
        self.is_whole = self._is_whole()
        self.size = sides(config.side, self._aspect())
        self.listing = find_usable(config, config.defects, self.size if self.is_whole else None, config.fit)
        self.kinds = self._kinds()
        self._check_models()
        self.parts = unite_files(self.listing.records, self._find_parts())
        self.partition = self._split()
        self.train_defects, self.train_good, self.test = self._select()
        self.overlap = self._find_overlap()
        self._begin()

    # --- What there is ---

    def _kinds(self) -> list[str]:
        unknown = sorted(set(self.config.defects) - set(self.listing.defects))
        if unknown or not self.listing.defects:
            raise DataError(
                "unknown_defect",
                self.listing.root,
                found=f"no photographs of {shorten(unknown)}" if unknown else "no photographs of defects",
                expected=f"some of {shorten(self.listing.defects)}" if unknown else "photographs of real defects",
                advice="Detectors are tested on real defects: name the folder that has some.",
            )
        if not self.listing.select(None):
            raise DataError(
                "no_images",
                self.listing.root,
                found="no good photographs",
                expected="photographs without a defect, to train on and to test on",
                advice="Put some into train/good, or name their folder with --good_dir.",
            )
        return list(dict.fromkeys(self.config.defects or self.listing.defects))

    def _check_models(self) -> None:
        """Refuse a model that draws photographs of another shape, or, of several kinds, none of those tested."""
        for name, pipe in self.pipes.items():
            fit = trained_fit(pipe.unwrapped_generator)
            if self.is_whole and fit not in ("resize", self.config.fit):
                raise ProveError(
                    f"{name} was trained with --fit {fit}, but photographs are brought to its shape by --fit "
                    f"{self.config.fit}, so that they would not look like what it draws: give --fit {fit}."
                )
            if pipe.defect_names and not self._drawn_by(pipe):
                raise ProveError(
                    f"{name} draws the defects {', '.join(pipe.defect_names)}, but none of those that are tested "
                    f"({', '.join(self.kinds)}): name some that it draws (--defects), as its training called them, or "
                    "leave this model out."
                )

    def _is_whole(self) -> bool:
        windows = {name: pipe.unwrapped_generator.config.get("window") for name, pipe in self.pipes.items()}
        of_patches = [name for name, window in windows.items() if window]
        if of_patches and len(of_patches) < len(windows):
            whole = next(name for name, window in windows.items() if not window)
            raise ProveError(
                f"{of_patches[0]} draws patches and {whole} whole photographs: give models of one kind, and compare "
                "the others by themselves."
            )
        if self.config.scale == "auto":
            return not of_patches
        if self.config.scale == "whole" and of_patches:
            raise ProveError(f"{of_patches[0]} draws patches at the photographs' own scale: leave out --scale.")
        if self.config.scale == "pixels" and windows and not of_patches:
            raise ProveError(f"{next(iter(windows))} draws whole photographs: leave out --scale.")
        return self.config.scale == "whole"

    def _aspect(self) -> tuple[int, ...]:
        names = {tuple(pipe.unwrapped_generator.config["aspect"]): name for name, pipe in self.pipes.items()}
        if len(names) > 1:
            raise ProveError(
                f"{' and '.join(names.values())} draw images of different shapes, and photographs are scaled to one: "
                "compare each by itself."
            )
        return next(iter(names), (1, 1))

    def _find_parts(self) -> dict[str, str]:
        """Return what shows the same part. Comparing photographs takes minutes, so it is kept until there are more."""
        if self.config.groups is not None:
            return read_groups(self.config.groups, [r.name for r in self.listing.records if r.defect in self.kinds])
        kept = self.config.output_dir / "parts.csv"
        parts = read_groups(kept) if kept.is_file() else {}
        if not parts.keys() >= {record.name for record in self.listing.records}:
            parts = find_parts(self.listing, self.config.bit_depth)
            with whole_file(kept) as aside, aside.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows([("file", "group"), *parts.items()])
        return parts

    def _split(self) -> Partition:
        folder = self.config.split_dir or self.config.output_dir
        if self.config.split_dir is None and not Partition.paths(folder, "P1")[0].is_file():
            partition = split_by_parts(self.listing, self.parts, defects=self.kinds)
            if self.config.estimate:
                return partition
            partition.save(folder, "P1")
        return Partition.load(folder, "P1")

    def _part(self, name: str) -> str:
        return self.parts.get(name, name)

    def _parts_of(self, records: Sequence[ImageRecord]) -> set[str]:
        return {self._part(record.name) for record in records}

    def _select(self) -> tuple[list[ImageRecord], list[ImageRecord], list[ImageRecord]]:
        """Return photographs of defects and good ones to train on, and all to test on: no part is on both sides."""
        base, tested = set(self.partition.base), set(self.partition.test)
        with_defect = [r for r in self.listing.records if r.defect in self.kinds]
        train, test = (self._with_all_kinds(with_defect, side) for side in (base, tested))
        parts_of_train, parts_of_test = self._parts_of(train), self._parts_of(test)
        shared = sorted(parts_of_train & parts_of_test)
        if shared:
            raise ProveError(
                f"{len(shared)} parts are in both lists of {self.config.split_dir or self.config.output_dir} "
                f"({shorten(shared, 3)}). Divide the photographs with `dfmgan split`, which keeps those of one part "
                "together."
            )
        # Lists that name good photographs mean these and no others.
        pile = [r for r in self.listing.select(None) if r.name not in tested]
        listed = [r for r in self.listing.select(None) if r.name in tested]
        good = [r for r in pile if r.name in base] or [r for r in pile if r.split == "train"]
        good = [r for r in good if self._part(r.name) not in parts_of_test]
        test_good = listed or [r for r in pile if r.split == "test" and r.name not in base]
        test_good = [r for r in test_good if self._part(r.name) not in parts_of_train]
        if not test_good and not listed:  # a list of defects alone
            held_back = quarter_of(self._parts_of(good) - parts_of_train)
            test_good = [r for r in good if self._part(r.name) in held_back]
        held_back = self._parts_of(test_good)
        good = [r for r in good if self._part(r.name) not in held_back]
        for what, some, least in (
            ("photographs of defects to train on", train, 1),
            ("good photographs to train on", good, 1),
            ("held-back parts with a defect", parts_of_test, LEAST_PARTS),
            ("held-back parts without a defect", held_back, LEAST_PARTS),
        ):
            if len(some) < least:
                raise ProveError(
                    f"There are {len(some)} {what}, but at least {least} are needed: photograph more parts"
                    f"{', or name more kinds of `defects`' if 'defect' in what else ''}."
                )
        return train, good, [*test, *test_good]

    @staticmethod
    def _with_all_kinds(records: Sequence[ImageRecord], names: set[str]) -> list[ImageRecord]:
        """Return the photographs that are named under one of their kinds of defect, each once, with all masks."""
        files = {record.image_path for record in records if record.name in names}
        return unite_kinds(record for record in records if record.image_path in files)

    def _find_overlap(self) -> list[str]:
        """Return sentences about parts that a model has learnt from and that are tested."""
        tested = self._parts_of(self.test)
        known = {r.name: r for r in self.listing.records}
        with_defect = {r.image_path for r in self.listing.records if r.defect in self.kinds}
        notes = []
        for name, source in zip(self.config.models, self.sources, strict=True):
            learnt_from = origin_of(name)
            seen = photographs_of(learnt_from, known)
            source["origin_known"] = bool(seen)
            shared = sorted(n for n in seen if self._part(n) in tested and known[n].image_path in with_defect)
            if shared:
                sentence = f"{name} has learnt from {len(shared)} photographs of tested parts ({shorten(shared, 3)})"
                if not self.config.allow_overlap:
                    raise ProveError(
                        f"{sentence}, so that it would be tested on what it knows. Train it on partition_P1_base.txt "
                        "of the split (--file_list), give the split that it was trained by (--split_dir), or see the "
                        "report without an answer (--allow_overlap)."
                    )
                notes.append(f"{sentence}: the comparison with it says nothing about new parts.")
            elif not seen:
                known_as = "bears names that are not in this data set" if learnt_from else "is not recorded"
                notes.append(
                    f"What {name} has learnt from {known_as}: if tested parts are among it, the comparison with it "
                    "says nothing about new parts."
                )
            good = [n for n in seen if self._part(n) in tested and known[n].image_path not in with_defect]
            if good:
                notes.append(f"{name} has seen {len(good)} photographs of tested parts without these defects.")
            source["overlaps"] = bool(shared)
        return notes

    def _begin(self) -> None:
        """Keep the settings in a new folder, or compare them with those it was begun with; an estimate begins none."""
        options = {k: v for k, v in to_json(self.config).items() if k not in _FREE}
        settings = {
            **options,
            "whole": self.is_whole,
            "size": list(self.size) if self.is_whole else None,
            "train": [r.name for r in (*self.train_defects, *self.train_good)],
            "test": [r.name for r in self.test],
        }
        path = self.config.output_dir / "settings.json"
        if self.config.estimate and not path.is_file():
            return
        _, different = keep_settings(path, settings)
        if different:
            shape = " Photographs are scaled to the shape of the models' images." if "size" in different else ""
            raise ProveError(
                f"{self.config.output_dir} was begun with another {' and '.join(sorted(different))}: give the same to "
                f"go on, or name a new folder.{shape}"
            )

    @cached_property
    def arms(self) -> list[ArmName]:
        """Return the arms to compare, photographs alone first."""
        lacking = sorted({arm for arm in self.config.arms if arm in NEEDS_MODEL and not self.pipes})
        if lacking:
            raise ProveError(f"{' and '.join(lacking)} need a model: give one with --models.")
        wanted = self.config.arms or self.at_hand
        if set(wanted) <= {BASELINE}:
            raise ProveError(f"Nothing is compared with {BASELINE}: name another arm as well (--arms).")
        return [arm for arm in ARMS if arm == BASELINE or arm in wanted]

    @property
    def at_hand(self) -> list[ArmName]:
        """Return the arms that are compared where none are named."""
        return [arm for arm in ARMS if arm not in GATED and (self.pipes or arm not in NEEDS_MODEL)]

    # --- Photographs as arrays ---

    def _load(self, record: ImageRecord) -> Example:
        size = self.size if self.is_whole else None
        image, mask = read_pair(record, 3, self.config.bit_depth, size, self.config.fit)
        return self._fitted(image, np.zeros(image.shape[:2], dtype=bool) if mask is None else mask.defect)

    def _fitted(self, image: Array, mask: Array) -> Example:
        if not self.is_whole:
            return image, mask
        fitted, small = fit_to_size(image, mask, self.size, self.config.fit)
        assert small is not None
        return fitted, small

    @cached_property
    def good(self) -> list[Array]:
        """Return good photographs to train on."""
        return [self._load(record)[0] for record in self.train_good]

    @cached_property
    def real(self) -> list[Example]:
        """Return photographs of defects to train on."""
        return [self._load(record) for record in self.train_defects]

    @cached_property
    def held_back(self) -> list[Example]:
        """Return the photographs to test on."""
        return [self._load(record) for record in self.test]

    @property
    def crop(self) -> int:
        """Return the side of what a network is shown in training."""
        return self.config.side if self.is_whole else self.config.crop

    # --- Made defects ---

    def make(self, arm: ArmName, seed: int, count: int) -> tuple[list[Example], list[Array]]:
        """Make `count` defects for the network of a seed; and what has none beside them."""
        if arm == BASELINE:
            return [], []
        if arm == "mixture":
            others = [other for other in self.at_hand if other not in (BASELINE, "mixture")]
            made = [self.make(other, seed, math.ceil(count / len(others))) for other in others]
            return [e for examples, _ in made for e in examples], [c for _, clean in made for c in clean]
        makers: dict[ArmName, Callable[[int, np.random.Generator], Made | None]] = {
            "painted": self._paint,
            "painted_gated": partial(self._paint, is_gated=True),
            "generated": self._generate,
            "generated_gated": partial(self._generate, is_gated=True),
            "crop_paste": self._paste,
            "perlin": self._perlin,
        }
        examples, clean = [], []
        for index in range(count):
            for attempt in range(TRIES):
                number = candidate_seed(seed, index, attempt)
                drawn = makers[arm](number, np.random.default_rng(number))
                if drawn is not None and drawn[1].any():
                    break
            else:
                refused = " or refused by the gate" if arm in GATED else ""
                raise ProveError(
                    f"{TRIES} defects of the arm {arm} are empty{refused}, one after the other: train the model longer"
                    f"{', or leave this arm out' if refused else ''}."
                )
            image, mask, without = drawn
            examples.append((image, mask))
            clean += [] if without is None else [without]
        return examples, clean

    def _paint(self, seed: int, rng: np.random.Generator, is_gated: bool = False) -> Made | None:
        name = self.config.models[rng.integers(len(self.config.models))]
        pipe = self.pipes[name]
        record = self.train_good[rng.integers(len(self.train_good))]
        image, _ = read_pair(record, 3, self.config.bit_depth)
        if self.is_whole:  # painting would stretch it, whatever `fit` says
            height, width = image.shape[:2]
            shape = fitting_size(height, width, self.size, self.config.fit)
            image, _ = fit_to_size(image, None, shape, self.config.fit)
        # A model of another product is not refused here: that it does not help is what the report will say.
        window = pipe.unwrapped_generator.config.get("window") or 0
        how = PaintConfig(any_product=True, flip=True, window=window)
        kind = self._kind_of(pipe, rng)
        output = pipe.paint(image, seeds=[seed], config=how, defect=kind)
        if is_gated and not judge_painted(self.gate(name, kind), Photograph.open(image), output, pipe).passed:
            return None
        return *self._fitted(output.images[0], np.asarray(output.labels[0]) > 0), None

    def _drawn_by(self, pipe: DFMGANPipeline) -> list[str]:
        """Return the tested kinds that a model of several draws, as its training called them."""
        return [kind for kind in pipe.defect_names if normalised(kind) in self.kinds]

    def _kind_of(self, pipe: DFMGANPipeline, rng: np.random.Generator) -> str | None:
        """Return a kind of defect that is tested and that a model of several draws; None of other models."""
        known = self._drawn_by(pipe)
        return known[rng.integers(len(known))] if known else None

    def _generate(self, seed: int, rng: np.random.Generator, is_gated: bool = False) -> Made | None:
        name = self.config.models[rng.integers(len(self.config.models))]
        pipe = self.pipes[name]
        kind = self._kind_of(pipe, rng)
        output: Any = pipe(seeds=[seed], defect=kind)
        triplet = output.images[0], output.masks[0], output.defect_free_images[0]
        if is_gated and not judge_triplet(triplet, self.gate(name, kind)).passed:
            return None
        config = pipe.unwrapped_generator.config
        height, width = sides(config.get("window") or self.config.side, config["aspect"])
        image, twin = (
            np.asarray(picture.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))
            for picture in (output.images[0], output.defect_free_images[0])
        )
        return image, resize_mask(np.asarray(output.masks[0]) > 0, (height, width)), twin

    def gate(self, name: str, kind: str | None) -> QualityGate:
        """Return the gate of a model for a kind of defect; its thresholds come from photographs to train on alone."""
        if (name, kind) not in self._gates:
            config = self.pipes[name].unwrapped_generator.config
            defects = self.train_defects
            if kind is not None:  # with the masks of this kind alone, which is what the model draws
                trained = {record.image_path for record in defects}
                defects = [record for record in self.listing.select(kind) if record.image_path in trained]
            self._gates[name, kind] = QualityGate.from_photographs(
                defects,
                self.train_good,
                image_size(config),
                config["image_channels"],
                window=config.get("window") or 0,
                parts=[self._part(record.name) for record in defects],
                fit=self.config.fit,
                bit_depth=self.config.bit_depth,
                device=self.device,
            )
        return self._gates[name, kind]

    def _paste(self, seed: int, rng: np.random.Generator) -> Made:
        """Lay a real defect over a good photograph: where it was on whole ones, else anywhere (Lin et al. 2021)."""
        source, mask = self.real[rng.integers(len(self.real))]
        target = self.good[rng.integers(len(self.good))].copy()
        ys, xs = np.nonzero(mask)
        down, right = 0, 0
        if not self.is_whole:
            middle = (ys.min() + ys.max()) // 2, (xs.min() + xs.max()) // 2
            down, right = rng.integers(0, target.shape[:2]) - middle
        height, width = target.shape[:2]
        inside = (ys + down >= 0) & (ys + down < height) & (xs + right >= 0) & (xs + right < width)
        ys, xs = ys[inside], xs[inside]
        pasted = np.zeros((height, width), dtype=bool)
        pasted[ys + down, xs + right] = True
        target[ys + down, xs + right] = source[ys, xs]
        return target, pasted, None

    def _perlin(self, seed: int, rng: np.random.Generator) -> Made:
        target = self.good[rng.integers(len(self.good))]
        other = self.good[rng.integers(len(self.good))]
        # Blots as large as a crop, not as the photograph.
        target, _ = cut(target, np.zeros(target.shape[:2], dtype=bool), self.crop, rng)
        source, _ = cut(other, np.zeros(other.shape[:2], dtype=bool), len(target), rng)
        return *perlin_defect(target, source, rng), None

    # --- Networks ---

    def _scores_file(self, network: Network) -> Path:
        return self.config.output_dir / "scores" / f"{self._stem(network.row)}_{network.seed}.safetensors"

    def _weights_file(self, row: str) -> Path:
        return self.config.output_dir / "networks" / f"{self._stem(row)}.safetensors"

    def _stem(self, row: str) -> str:
        """Return a row's name with the models that it depends on: others leave what needs no model as it is."""
        hashes = "".join(source["model_sha256"] for source in self.sources)
        has_model = hashes and row.partition("@")[0] in WITH_MODEL
        return f"{row}-{hashlib.sha256(hashes.encode()).hexdigest()[:12]}" if has_model else row

    def read_scores(self, network: Network) -> Scores | None:
        """Return what was kept of a network; None if there is nothing, or it is damaged."""
        try:
            return Scores(**safetensors.numpy.load_file(self._scores_file(network)))
        except (OSError, SafetensorError, TypeError):
            return None

    def train(self, network: Network, steps: int, num_made: int) -> Detector:
        """Make defects and train a network on them."""
        made, clean = self.make(network.arm, network.seed, num_made)
        return train_detector(
            Shown(self.good, self.real, made, clean, network.ratio if made else 0.0),
            seed=network.seed,
            steps=steps,
            crop=self.crop,
            batch_size=8 if self.crop <= 128 else 4,
            device=self.device,
            pretrained=self.config.pretrained,
        )

    def test_on(self, model: Detector, examples: Sequence[Example]) -> Scores:
        """Score photographs."""
        found = [find_defects(model, image, self.crop) for image, _ in examples]
        return Scores.of([logits for logits, _ in found], [mask for _, mask in examples], [s for _, s in found])

    def run(self, network: Network) -> None:
        """Train and test a network and keep its scores; of seed 0, the network too."""
        model = self.train(network, self.config.steps, self.config.num_made)
        scores = self.test_on(model, self.held_back)
        if network.seed == 0:
            with whole_file(self._weights_file(network.row)) as aside:
                save_file(model.state_dict(), aside)
        tensors = {name: np.ascontiguousarray(counts) for name, counts in vars(scores).items()}
        with whole_file(self._scores_file(network)) as aside:
            safetensors.numpy.save_file(tensors, aside)

    def estimate_plan(self) -> list[Network]:
        """Time a few steps, print what will be done and how long it takes, and return what is left to do."""
        config = self.config
        print(
            f"{len(self.train_defects)} photographs of defects and {len(self.train_good)} good ones to train on; "
            f"tested on {len(self.test)} of {len(self._parts_of(self.test))} other parts.",
            *self.overlap,
            sep="\n",
            flush=True,
        )
        seconds = {arm: self._time(arm) for arm in self.arms}
        self.plan = choose_plan(self.arms, config.seeds, config.ratio, config.budget, seconds)
        todo = [network for network in self.plan if self.read_scores(network) is None]
        rows = Counter(network.row for network in self.plan)
        needed = sum(seconds[network.arm] for network in todo)
        print(
            f"{len(self.plan)} networks ({', '.join(f'{row} x {number}' for row, number in rows.items())}), "
            f"{len(self.plan) - len(todo)} of them done. About {in_words(needed)} to go on this machine.",
            flush=True,
        )
        return todo

    def _time(self, arm: ArmName) -> float:
        """Return about how many seconds a network takes: from few steps, few defects and few photographs."""
        made_seconds = 0.0
        if arm != BASELINE:
            self.make(arm, 0, 1)  # opens what is opened once
            made_seconds = _timed(self.make, arm, 1, 4) / 4 * self.config.num_made
        start, step, test = self._timings
        return made_seconds + start + step * self.config.steps + test * len(self.test)

    @cached_property
    def _timings(self) -> tuple[float, float, float]:
        """Return the seconds of a training's first step with what comes before it, of a step, and of a test."""
        network = Network(BASELINE, 0, 0.5)
        model = self.train(network, 1, 1)
        start, longer = (_timed(self.train, network, steps, 1) for steps in (1, 1 + _TIMED_STEPS))
        sample = self.held_back[:: max(len(self.held_back) // 4, 1)]
        return start, (longer - start) / _TIMED_STEPS, _timed(self.test_on, model, sample) / len(sample)

    # --- What came of it ---

    def finish(self) -> None:
        """Compare the arms, leave the network behind, and write the report."""
        config = self.config
        rows: dict[str, list[Scores]] = {}
        for network in self.plan:
            scores = self.read_scores(network)
            assert scores is not None  # since it was run
            rows.setdefault(network.row, []).append(scores)
        baseline = rows.pop(BASELINE)
        parts = [self._part(record.name) for record in self.test]
        levels, compared = compare(baseline, rows, parts, config.least_gain)
        gated = {row: row.replace("_gated", "") for row in rows if row.partition("@")[0] in GATED}
        by_gate = {
            row: compare(rows[without], {row: rows[row]}, parts, config.least_gain)[1][row].differences
            for row, without in gated.items()
            if without in rows
        }
        helping = [row for row, comparison in compared.items() if comparison.answer == "helps"]
        chosen = max(helping, key=lambda row: compared[row].differences["pixel_ap"].value, default=BASELINE)
        has_overlap = any(source["overlaps"] for source in self.sources)
        if has_overlap:
            chosen = BASELINE
        threshold = best_threshold((rows.get(chosen) or baseline)[0])
        is_defective = baseline[0].is_defective
        results = {
            "product": self.listing.category,
            "defects": self.kinds,
            "photographs": {
                "train_defects": len(self.train_defects),
                "train_good": len(self.train_good),
                "tested_defects": int(is_defective.sum()),
                "tested_good": int((~is_defective).sum()),
                "tested_parts": len(set(np.asarray(parts)[is_defective])),
                "tested_good_parts": len(set(np.asarray(parts)[~is_defective])),
            },
            "settings": {k: v for k, v in to_json(config).items() if k not in ("output_dir", "estimate", "arms")},
            "models": [{k: v for k, v in s.items() if k != "trained_on"} for s in self.sources],
            "notes": self.overlap,
            "overlaps": has_overlap,
            "seeds": len(baseline),
            "baseline": to_json(levels),
            "arms": to_json(compared),
            "gated": to_json(by_gate),
            "gates": {
                f"{name} ({kind})" if kind else name: {"sha256": gate.sha256, "thresholds": gate.thresholds}
                for (name, kind), gate in self._gates.items()
            },
            "network": {"arm": chosen, "threshold": 1 / (1 + math.exp(-threshold)), "input": self._input()},
        }
        write_json(config.output_dir / "results.json", results)
        pictures = self._pictures(chosen, threshold)
        self._leave_network(chosen, results["network"])
        page = write_report(config.output_dir, results, pictures)
        print(f"{sentence(results)}\n{page}")

    def _input(self) -> str:
        scale = f"scaled to {self.size[1]}x{self.size[0]}" if self.is_whole else "at their own scale"
        return f"photographs {scale}, RGB from 0 to 1, height and width multiples of 32"

    def _detector(self, row: str) -> Detector:
        model = Detector(pretrained=False)
        model.load_state_dict(load_file(self._weights_file(row)))
        return model.to(self.device).eval()

    def _leave_network(self, row: str, facts: dict[str, Any]) -> None:
        model = self._detector(row)
        metadata = {key: str(value) for key, value in facts.items()}
        with whole_file(self.config.output_dir / "network.safetensors") as aside:
            save_file(model.state_dict(), aside, metadata)
        write_onnx(model, self.config.output_dir / "network.onnx")

    def _pictures(self, chosen: str, threshold: float) -> dict[str, Any]:
        """Return what the report shows: what networks were shown, and what they found."""
        rng = np.random.default_rng(0)
        made: dict[str, list[Example]] = {}
        for arm in dict.fromkeys(network.arm for network in self.plan):
            examples = self.real if arm == BASELINE else self.make(arm, 0, 6)[0]
            order = rng.permutation(len(examples))[:6]
            made[arm] = [cut(examples[i][0], examples[i][1], self.crop, rng) for i in order]
        best = chosen if chosen != BASELINE else next(n.row for n in self.plan if n.row != BASELINE)
        models = {row: self._detector(row) for row in (BASELINE, best)}
        defective = [i for i, (_, mask) in enumerate(self.held_back) if mask.any()]
        good = [i for i, (_, mask) in enumerate(self.held_back) if not mask.any()]
        tested = []
        for i in (*rng.permutation(defective)[:6], *rng.permutation(good)[:2]):
            image, mask = self.held_back[i]
            found = {row: find_defects(model, image, self.crop)[0] for row, model in models.items()}
            tested.append((self.test[i].name, image, mask, found))
        return {"made": made, "tested": tested, "threshold": threshold}


def _timed(work: Callable[..., object], *arguments: object) -> float:
    begun = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - begun


def in_words(seconds: float) -> str:
    """Write a duration as `3 h 20 min`, `12 min` or `40 s`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def origin_of(model: str) -> list[str]:
    """Return the photographs or patches that a model and its backbone learnt from; none if that is not recorded."""
    names: list[str] = []
    for file in (TRAINING_FILE, BACKBONE_TRAINING_FILE):
        record = read_record(Path(model) / file) or {}
        for each in (record, record.get("backbone") or {}):
            names += each.get("training_file_names") or []
    return names


def photographs_of(names: Sequence[str], known: Mapping[str, ImageRecord]) -> set[str]:
    """Return the photographs of a data set that these are, or are patches of: `test/crack/000_x00010_y00020.png`.

    `known` has all photographs by their names, in the order of the listing, which the names of patches depend on.
    """
    stems = patch_stems(known.values())
    patched = {f"{record.split}/{record.defect}/{stems[name]}": name for name, record in known.items()}
    found = (name if name in known else patched.get(_PATCH.sub("", str(Path(name).with_suffix("")))) for name in names)
    return {name for name in found if name is not None}
