"""Table 2 of the paper: classifiers of defects, trained on generated images, tested on photographs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from accelerate import Accelerator

from ..data import Partition, make_partitions
from ..data.records import ImageRecord
from .classification_tables import write_tables
from .classifier import ClassifierConfig, load_start, train_classifier
from .downstream import DownstreamBenchmark, DownstreamConfig, Subject, Trial
from .training_sets import LabelledImages

_TIMED_STEPS = 2


@dataclass(frozen=True)
class ClassificationConfig(DownstreamConfig):
    """Train classifiers on generated images and test them on photographs.

    Attributes:
        partitions: Number of random divisions of the photographs into one third and two thirds of each kind.
    """

    partitions: int = 3
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)


class ClassificationBenchmark(DownstreamBenchmark):
    """Which kind of defect is it? Accuracy on two thirds of the photographs (paper, section 4.3).

    Args:
        config: what to compare.
        accelerator: of the launch, or of a single process.

    Raises:
        BadWeightsError, MissingWeightsError: what the classifier is to start from.
        Others: as `DownstreamBenchmark`.
    """

    config: ClassificationConfig

    def __init__(self, config: ClassificationConfig, accelerator: Accelerator) -> None:
        super().__init__(config, accelerator)
        for category, subject in self.subjects.items():
            if len(subject.defects) < 2:
                raise ValueError(
                    f"{category} has one kind of defect, {subject.defects[0]}: there is nothing to tell apart."
                )
        self.start = load_start(config.classifier, accelerator.is_main_process)

    def make_splits(self, records: Sequence[ImageRecord], groups: Mapping[str, str] | None) -> dict[str, Partition]:
        """P1, P2, ...: one third of each kind to train on, two thirds to test on; seeds 1, 2, ..."""
        partitions = make_partitions(records, self.config.partitions, seed=1, groups=groups)
        return {f"P{number}": partition for number, partition in enumerate(partitions, 1)}

    def run_trial(self, trial: Trial, subject: Subject, training: LabelledImages) -> dict[str, Any]:
        """One classifier."""
        result = train_classifier(
            training,
            self.test_set(trial, subject),
            len(subject.defects),
            self.config.classifier,
            self.start,
            trial.seed,
            self.accelerator.device,
        )
        return {**result, "network": "ResNet-34 (torchvision)", "start": self.start.name}

    def headline(self, result: dict[str, Any]) -> str:
        return f"{result['correct']} of {result['tested']} right, {result['accuracy']:.1%}"

    def seconds_per_trial(self) -> float:
        """Time of a training, from two timed steps on noise."""
        config, side = self.config.classifier, self.config.resolution
        noise = torch.randint(0, 256, (config.batch_size, 3, side, side), dtype=torch.uint8)
        images = LabelledImages(noise, torch.zeros(len(noise), dtype=torch.int64))
        few = ClassifierConfig(steps=_TIMED_STEPS, batch_size=config.batch_size)
        train_classifier(images, images, 2, few, self.start, 0, self.accelerator.device)  # chooses kernels
        begun = time.perf_counter()
        timed = train_classifier(images, images, 2, few, self.start, 0, self.accelerator.device)
        testing = (time.perf_counter() - begun - timed["seconds"]) / _TIMED_STEPS
        return timed["seconds"] / _TIMED_STEPS * config.steps + 10 * testing

    def write_tables(self) -> str:
        return write_tables(self.config.output_dir, self.all_trials, self.read_results(), self.title)
