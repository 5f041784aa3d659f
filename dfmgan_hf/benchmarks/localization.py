"""Defects found pixel by pixel: segmentation networks trained on generated pairs, tested on photographs.

The protocol of AnomalyDiffusion (AAAI 2024) and its successors: the first third of each kind of defect, by name, may
be trained on; the rest and all good photographs of the test set are tested on; one network for all kinds of defect of
a category, trained on good photographs and generated pairs. Unlike in its script, by default the network of the last
step is tested, not the best one on the test set, and measures are exact. Its test masks with grey values, which it
counts as good pixels in some measures and as defects in others, are not repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from ..data import Partition, first_third_partition, make_partitions, read_file_list
from ..data.records import ImageRecord
from ..methods.registry import METHODS
from ..metrics.weights import require
from .downstream import DownstreamBenchmark, DownstreamConfig, Subject, Trial
from .localization_measures import Compat, measure
from .localization_tables import write_tables
from .segmenter import SegmenterConfig, find_defects, train_segmenter
from .splits import of_other_parts
from .training_sets import LabelledImages

_TIMED_STEPS = 2
_SELECTED_BY = ("image_auroc", "pixel_auroc", "pixel_ap", "pro")


@dataclass(frozen=True)
class LocalizationConfig(DownstreamConfig):
    """Train segmentation networks on generated pairs and test them on photographs.

    Attributes:
        split: Photographs that may be trained on: the first third by name (of AnomalyDiffusion), or the random third
            of a partition of benchmark_classification.py, so that its generators can be used.
        compat: anomalydiffusion repeats that script's coarse thresholds of pixel F1 and PRO.
    """

    split: Literal["first_third", "P1", "P2", "P3"] = "first_third"
    compat: Compat = "none"
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)


class LocalizationBenchmark(DownstreamBenchmark):
    """Where is the defect?

    Args:
        config: what to compare.
        accelerator: of the launch, or of a single process.

    Raises:
        ImportError: a library is not installed.
        ValueError: a method has no masks, or as `DownstreamBenchmark`.
        DataError: as `DownstreamBenchmark`.
    """

    config: LocalizationConfig

    def __init__(self, config: LocalizationConfig, accelerator: Accelerator) -> None:
        require("segmentation_models_pytorch", "sklearn", "scipy", purpose="Localisation", extra="benchmarks")
        without = [METHODS[name].title for name in config.methods if name in METHODS and not METHODS[name].has_masks]
        if without:
            able = [name for name, method in METHODS.items() if method.has_masks]
            raise ValueError(f"{', '.join(without)} has no masks to learn from; these have: {', '.join(able)}.")
        super().__init__(config, accelerator)
        self._photographs: tuple[str, dict[str, Tensor]] | None = None

    def make_splits(self, records: Sequence[ImageRecord], groups: Mapping[str, str] | None) -> dict[str, Partition]:
        """The one that `config.split` names."""
        split = self.config.split
        if split == "first_third":
            return {split: first_third_partition(records, groups)}
        return {split: make_partitions(records, 1, seed=int(split[1:]), groups=groups)[0]}

    def run_trial(self, trial: Trial, subject: Subject, training: LabelledImages) -> dict[str, Any]:
        """One segmentation network."""
        if training.masks is None:
            raise ValueError(f"The images of {trial.source} have no masks to learn from; leave it out.")
        good = self._good(trial.category, subject)
        config, device = self.config.segmenter, self.accelerator.device
        test = self.test_set(trial, subject)
        assert test.masks is not None
        images = torch.cat([test.images, good["test"]])
        empty = torch.zeros(len(good["test"]), *test.masks.shape[1:], dtype=torch.uint8)
        masks = torch.cat([test.masks, empty])[:, 0].numpy() > 0
        kinds, best = test.labels.numpy(), _Best()

        def test_at(model: nn.Module, step: int) -> None:
            maps, scores = find_defects(model, images, device)
            measures = measure(maps, masks, scores, self.config.compat)
            if config.select == "last" or best.is_beaten_by(measures):
                best.step, best.measures = step, measures
                best.by_defect = self._by_defect(maps, masks, scores, kinds, subject.defects)

        _, seconds = train_segmenter(training, good["train"], config, trial.seed, device, test_at)
        return {
            "measures": best.measures,
            "by_defect": best.by_defect,
            "step": best.step,
            "tested": len(test),
            "tested_good": len(good["test"]),
            "trained_good": len(good["train"]),
            "network": f"U-Net (segmentation-models-pytorch, {config.encoder}, from scratch)",
            "seconds": seconds,
        }

    def headline(self, result: dict[str, Any]) -> str:
        measures = result["measures"]
        shown = {"pixel AP": "pixel_ap", "PRO": "pro", "image AUROC": "image_auroc"}
        return ", ".join(f"{title} {measures[name]:.1%}" for title, name in shown.items())

    def seconds_per_trial(self) -> float:
        """Time of a training, from two timed steps on noise; the test is short beside it."""
        config, side = self.config.segmenter, self.config.resolution
        noise = torch.randint(0, 256, (config.batch_size, 3, side, side), dtype=torch.uint8)
        pairs = LabelledImages(noise, torch.zeros(len(noise), dtype=torch.int64), noise[:, :1])
        few = replace(config, steps=_TIMED_STEPS)
        train_segmenter(pairs, noise, few, 0, self.accelerator.device)  # chooses kernels
        return train_segmenter(pairs, noise, few, 0, self.accelerator.device)[1] / _TIMED_STEPS * config.steps

    def write_tables(self) -> str:
        return write_tables(self.config.output_dir, self.all_trials, self.read_results(), self.title)

    def _good(self, category: str, subject: Subject) -> dict[str, Tensor]:
        """The good photographs to train on and to test on, uint8 (n, 3, R, R)."""
        if self._photographs is None or self._photographs[0] != category:
            train, test = (
                subject.data.load_good(resolution=self.config.resolution, split=split) for split in ("train", "test")
            )
            (lists,) = subject.lists.values()
            kept = of_other_parts(train.file_names, [*test.file_names, *read_file_list(lists[1])], subject.groups)
            self._photographs = category, {"train": train.images[kept], "test": test.images}
        return self._photographs[1]

    def _by_defect(
        self, maps: np.ndarray, masks: np.ndarray, scores: np.ndarray, labels: np.ndarray, defects: tuple[str, ...]
    ) -> dict[str, dict[str, float]]:
        """The measures of each kind of defect, each beside all good photographs."""
        kinds = np.concatenate([labels, np.full(len(maps) - len(labels), -1)])
        parts = {defect: (kinds == number) | (kinds == -1) for number, defect in enumerate(defects)}
        return {
            defect: measure(maps[part], masks[part], scores[part], self.config.compat)
            for defect, part in parts.items()
        }


@dataclass
class _Best:
    """The test that is reported."""

    step: int = 0
    measures: dict[str, float] = field(default_factory=dict)
    by_defect: dict[str, dict[str, float]] = field(default_factory=dict)

    def is_beaten_by(self, measures: dict[str, float]) -> bool:
        """By the sum that AnomalyDiffusion's script goes by."""
        return not self.measures or sum(measures[name] for name in _SELECTED_BY) > sum(
            self.measures[name] for name in _SELECTED_BY
        )
