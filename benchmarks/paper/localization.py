"""Defects found pixel by pixel: segmentation networks trained on generated pairs, tested on photographs.

    python -m benchmarks.paper.localization --data_dir mvtec_ad --category hazelnut --output_dir runs/localization \\
        --methods crop_paste --generated 'dfmgan=generated/{split}/{defect}'

The protocol of AnomalyDiffusion (AAAI 2024) and its successors: the first third of each kind of defect, by name, may
be trained on (the lists and the rest go as in classification.py); the rest and all good photographs of the test set
are tested on; one network for all kinds of defect of a category, trained on good photographs and generated pairs.

What its script does otherwise: it reports the epoch that is best on the test set (here `--segmenter.select
best_on_test`), takes pixel F1 at 21 thresholds and PRO at 100 instead of at all scores, and counts grey values of test
masks as good pixels in some measures and as defects in others.

AUROC, AP and F1-max are scikit-learn's. PRO (Bergmann et al., MVTec AD, IJCV 2021, section 4.1.2) is here, exactly:
from all pixel scores as thresholds. The libraries that have it (anomalib, torchmetrics-based) bin the scores and bring
far more along than this one measure.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.paper.cells import LOCALIZATION, LOCALIZATION_MEASURES, markdown_table, write_files
from benchmarks.paper.downstream import (
    DownstreamBenchmark,
    DownstreamConfig,
    LabelledImages,
    Results,
    Subject,
    Trial,
    adam,
    entry,
    more_notes,
    plot_points,
    row_names,
    run_benchmark,
    seeds_note,
    size_in_words,
    spread,
)
from dfmgan_hf.arguments import require
from dfmgan_hf.cli import run
from dfmgan_hf.data import DataConfig, Partition, first_third_partition, make_partitions, read_file_list
from dfmgan_hf.data.partitions import of_other_parts
from dfmgan_hf.data.preparation import Size
from dfmgan_hf.data.records import ImageRecord, Split
from dfmgan_hf.methods import METHODS
from dfmgan_hf.models.projected import FEATURE_NETWORK
from dfmgan_hf.prove.detector import Detector

Array = np.ndarray[Any, Any]

_TITLES = {
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel AP",
    "pixel_f1": "pixel F1-max",
    "pro": "PRO",
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1": "image F1-max",
}
MEASURES = tuple(_TITLES)
"""Names in results; all from 0 to 1, 1 being perfect."""

PRO_FPR_LIMIT = 0.3
# Side of the average before the largest value is taken for an image, at 256 pixels.
_POOLING = 21
_TEST_BATCH_SIZE = 32
_TESTS = 10
_TIMED_STEPS = 2
_SELECTED_BY = ("image_auroc", "pixel_auroc", "pixel_ap", "pro")


def measure(maps: Array, masks: Array, image_scores: Array) -> dict[str, float]:
    """Measure all of `MEASURES`.

    Args:
        maps: anomaly score of each pixel, 0 to 1, float (n, H, W).
        masks: the truth, bool (n, H, W); without a True one in it, an image is a good one.
        image_scores: anomaly score of each image, float (n,).

    Raises:
        ValueError: shapes differ, or there are only good images, only defective ones, or no good pixel.
    """
    if maps.shape != masks.shape or image_scores.shape != maps.shape[:1]:
        raise ValueError(
            f"Maps {maps.shape}, masks {masks.shape} and scores {image_scores.shape} do not fit together."
        )
    is_defective = np.asarray(masks.any(axis=(1, 2)))
    if is_defective.all() or not is_defective.any() or masks.all():
        raise ValueError(
            f"{int(is_defective.sum())} of {len(masks)} test images have a defect; defects and good images are needed."
        )
    from sklearn.metrics import average_precision_score, roc_auc_score

    values = {"pro": pro(maps, masks)}
    for level, scores, truth in (
        ("pixel", maps.reshape(-1), masks.reshape(-1)),
        ("image", image_scores, is_defective),
    ):
        values[f"{level}_auroc"] = roc_auc_score(truth, scores)
        values[f"{level}_ap"] = average_precision_score(truth, scores)
        values[f"{level}_f1"] = f1_max(scores, truth)
    return {name: float(values[name]) for name in MEASURES}


def f1_max(scores: Array, truth: Array) -> float:
    """Return the largest F1 over all thresholds, of scores (n,) and truth bool (n,)."""
    from sklearn.metrics import precision_recall_curve

    precision, recall, _ = precision_recall_curve(truth, scores)
    return float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())


def pro(maps: Array, masks: Array) -> float:
    """Integrate per-region overlap over false positives up to a rate PRO_FPR_LIMIT, and divide by it: from 0 to 1.

    A region is a connected part of a mask (eight neighbours). Its overlap is the share of it that is found; the curve
    has the mean over all regions of all images, small ones counting as much as large ones. Constant maps have
    PRO_FPR_LIMIT / 2: the straight line.
    """
    from scipy.integrate import trapezoid

    weights, num_regions = _region_weights(masks)
    scores, weights, is_good = maps.reshape(-1), weights.reshape(-1), ~masks.reshape(-1)
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    false_positives = np.cumsum(is_good[order]) / is_good.sum()
    overlap = np.cumsum(weights[order]) / num_regions
    # Pixels of the same score are found together: only the last of them is a point of the curve.
    ends = np.append(np.flatnonzero(np.diff(scores)), len(scores) - 1)
    false_positives = np.concatenate([[0.0], false_positives[ends]])
    overlap = np.concatenate([[0.0], overlap[ends]])
    inside = false_positives < PRO_FPR_LIMIT
    x = np.append(false_positives[inside], PRO_FPR_LIMIT)
    y = np.append(overlap[inside], np.interp(PRO_FPR_LIMIT, false_positives, overlap))
    return float(trapezoid(y, x) / PRO_FPR_LIMIT)


def _region_weights(masks: Array) -> tuple[Array, int]:
    """For each pixel 1 / (size of its region), 0 on good ones, float64 (n, H, W); and the number of regions."""
    from scipy import ndimage

    weights, count = np.zeros(masks.shape), 0
    for index, mask in enumerate(masks):
        regions, number = ndimage.label(mask, structure=np.ones((3, 3)))
        sizes = np.bincount(regions.reshape(-1))
        weights[index][mask] = 1 / sizes[regions[mask]]
        count += number
    return weights, count


@dataclass(frozen=True)
class SegmenterConfig:
    """How the segmentation network is trained: as AnomalyDiffusion's script trains its U-Net, unless said otherwise.

    Attributes:
        encoder: Of the U-Net, a name of segmentation-models-pytorch; it starts from scratch. Or imagenet:
            EfficientNet-Lite0 with ImageNet's weights, the detector of `dfmgan prove`.
        steps: Length of the training; 200 epochs of 500 images there.
        batch_size: Images a step; half of them are good ones on average.
        lr: Adam's learning rate; a fifth of it from 80 % of the steps on, and again from 90 %.
        focal_gamma: Of the focal loss (Lin et al. 2017); 0 is cross-entropy.
        select: Test after the last step, or report the best of ten tests on the way (best_on_test), by the sum of
            image and pixel AUROC, pixel AP and PRO: it looks at the test set, as that script does after each epoch,
            and flatters all.
    """

    encoder: Literal["resnet18", "resnet34", "vgg13_bn", "mobilenet_v2", "imagenet"] = "resnet34"
    steps: int = 12_500
    batch_size: int = 8
    lr: float = 1e-4
    focal_gamma: float = 2.0
    select: Literal["last", "best_on_test"] = "last"


def make_segmenter(config: SegmenterConfig, seed: int) -> nn.Module:
    """A U-Net that takes images in [0, 1] (n, 3, H, W) and gives logits (n, 1, H, W); both are multiples of 32."""
    from segmentation_models_pytorch import Unet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Detector() if config.encoder == "imagenet" else Unet(config.encoder, encoder_weights=None, classes=1)


def train_segmenter(
    training: LabelledImages,
    good: Tensor,
    config: SegmenterConfig,
    seed: int,
    device: torch.device,
    test: Callable[[nn.Module, int], None] | None = None,
) -> tuple[nn.Module, float]:
    """Train with the focal loss.

    Each image is a good one or one with a defect with equal chances; in the second case all kinds of defect have
    equal chances, whatever their numbers (AnomalyDiffusion's script).

    Args:
        training: images with masks.
        good: defect-free photographs, uint8 (n, 3, H, W).
        config, seed, device: how, and where; the seed is that of the network and of the choice of images.
        test: called with the network, in evaluation mode, and the step: after the last one, and ten times on the way
            if the best of them is to be reported.

    Returns:
        The network, in evaluation mode, and the seconds it took to train.
    """
    assert training.masks is not None
    from segmentation_models_pytorch.losses import FocalLoss

    model = make_segmenter(config, seed).to(device)
    loss = FocalLoss("binary", gamma=config.focal_gamma)
    optimizer, schedule = adam(model, config.lr, config.steps)
    generator = torch.Generator().manual_seed(seed)
    kinds = [torch.nonzero(training.labels == kind).flatten() for kind in training.labels.unique()]
    interval = max(1, config.steps // _TESTS) if config.select == "best_on_test" else config.steps
    seconds = 0.0
    for step in range(1, config.steps + 1):
        begun = time.perf_counter()
        model.train()
        images, masks = _batch(training, training.masks, good, kinds, config.batch_size, generator)
        loss(model(images.to(device).float() / 255), (masks.to(device) > 0).float()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        seconds += time.perf_counter() - begun
        if test is not None and (step % interval == 0 or step == config.steps):
            test(model.eval(), step)
    return model.eval(), seconds


@torch.no_grad()
def find_defects(model: nn.Module, images: Tensor, device: torch.device) -> tuple[Array, Array]:
    """Compute anomaly maps and scores of images uint8 (n, 3, H, W).

    Returns:
        Maps float32 (n, H, W) from 0 to 1, and scores float32 (n,): the largest value of the map after averaging over
        21x21 pixels where the shorter side has 256, and over as much of it at others.
    """
    maps = torch.cat(
        [torch.sigmoid(model(part.to(device).float() / 255)).cpu() for part in images.split(_TEST_BATCH_SIZE)]
    )
    side = max(1, round(_POOLING * min(images.shape[-2:]) / 256)) | 1
    smooth = nn.functional.avg_pool2d(maps, side, stride=1, padding=side // 2)
    return maps[:, 0].numpy(), smooth.amax(dim=(1, 2, 3)).numpy()


def _batch(
    training: LabelledImages,
    all_masks: Tensor,
    good: Tensor,
    kinds: list[Tensor],
    size: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    images, masks = [], []
    for _ in range(size):
        if torch.rand((), generator=generator) < 0.5:
            images.append(good[_choose(len(good), generator)])
            masks.append(torch.zeros_like(all_masks[0]))
        else:
            members = kinds[_choose(len(kinds), generator)]
            index = members[_choose(len(members), generator)]
            images.append(training.images[index])
            masks.append(all_masks[index])
    return torch.stack(images), torch.stack(masks)


def _choose(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


@dataclass(frozen=True)
class LocalizationConfig(DownstreamConfig):
    """Train segmentation networks on generated pairs and test them on photographs.

    Attributes:
        split: Photographs that may be trained on: the first third by name (of AnomalyDiffusion), or the random third
            of a partition of classification.py, so that its generators can be used.
    """

    split: Literal["first_third", "P1", "P2", "P3"] = "first_third"
    segmenter: SegmenterConfig = field(default_factory=SegmenterConfig)


class LocalizationBenchmark(DownstreamBenchmark):
    """Where is the defect? Scores of pixels and images, on two thirds of the defects and good photographs."""

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
        best: dict[str, Any] = {}

        def test_at(model: nn.Module, step: int) -> None:
            maps, scores = find_defects(model, images, device)
            measures = measure(maps, masks, scores)
            # The sum that AnomalyDiffusion's script goes by.
            total = sum(measures[name] for name in _SELECTED_BY)
            if config.select == "best_on_test" and best and total <= sum(best["measures"][n] for n in _SELECTED_BY):
                return
            best.update(measures=measures, step=step)

        _, seconds = train_segmenter(training, good["train"], config, trial.seed, device, test_at)
        is_pretrained = config.encoder == "imagenet"
        encoder = f"{FEATURE_NETWORK}, from ImageNet" if is_pretrained else f"{config.encoder}, from scratch"
        return {
            **best,
            "tested": len(test),
            "tested_good": len(good["test"]),
            "trained_good": len(good["train"]),
            "network": f"U-Net (segmentation-models-pytorch, {encoder})",
            "seconds": seconds,
        }

    def headline(self, result: dict[str, Any]) -> str:
        measures = result["measures"]
        shown = {"pixel AP": "pixel_ap", "PRO": "pro", "image AUROC": "image_auroc"}
        return ", ".join(f"{title} {measures[name]:.1%}" for title, name in shown.items())

    def seconds_per_trial(self) -> float:
        """Time of a training, from two timed steps on noise; the test is short beside it."""
        config = self.config.segmenter
        noise = torch.randint(0, 256, (config.batch_size, 3, *self.config.size), dtype=torch.uint8)
        pairs = LabelledImages(noise, torch.zeros(len(noise), dtype=torch.int64), noise[:, :1])
        few = replace(config, steps=_TIMED_STEPS)
        train_segmenter(pairs, noise, few, 0, self.accelerator.device)  # chooses kernels
        return train_segmenter(pairs, noise, few, 0, self.accelerator.device)[1] / _TIMED_STEPS * config.steps

    def write_tables(self) -> str:
        return write_tables(self.config.output_dir, self.all_trials, self.read_results(), self.title)

    def _good(self, category: str, subject: Subject) -> dict[str, Tensor]:
        """The good photographs to train on and to test on, uint8 (n, 3, H, W)."""
        if self._photographs is None or self._photographs[0] != category:
            (lists,) = subject.lists.values()
            train, names = load_good(subject.data, lists[0], "train", self.config.size)
            test, tested = load_good(subject.data, lists[1], "test", self.config.size)
            kept = of_other_parts(names, [*tested, *read_file_list(lists[1])], subject.groups)
            self._photographs = category, {"train": train[kept], "test": test}
        return self._photographs[1]


def load_good(data: DataConfig, file_list: Path, split: Split, resolution: Size) -> tuple[Tensor, list[str]]:
    """Load the good photographs that a list names, or, if it names none, those of a split; with their names."""
    named = set(read_file_list(file_list))
    splits = {record.split for record in data.listing().select(None) if record.name in named}
    listed = replace(data, file_list=file_list) if splits else data
    sets = [listed.load_good(resolution=resolution, split=each) for each in sorted(splits or {split})]
    return torch.cat([each.images for each in sets]), [name for each in sets for name in each.file_names]


def write_tables(output_dir: Path, trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> str:
    """Write table.md, table.csv, table.json and table.png of all trials, done or not, and return the Markdown."""
    categories = list(dict.fromkeys(trial.category for trial in trials))
    parts = [_markdown(category, [category], trials, results, title) for category in categories]
    if len(categories) > 1:
        parts.append(_markdown(f"mean of {len(categories)} categories", categories, trials, results, title))
    rows = [row for category in categories for row in _rows(category, trials, results)]
    text = "\n\n".join([*parts, _notes(results)]) + "\n"
    write_files(output_dir, text, rows, lambda: _plot(categories, trials, results, title))
    return text


def values_of(results: Results, categories: Sequence[str], training_set: str, name: str) -> list[float]:
    """A measure in %, of each seed, on average over the categories that have it."""
    by_seed: dict[int, list[float]] = {}
    for trial, result in results.items():
        if trial.category in categories and trial.training_set == training_set:
            by_seed.setdefault(trial.seed, []).append(100 * result["measures"][name])
    # A mean over some of the categories would look like one over all.
    return [sum(values) / len(values) for values in by_seed.values() if len(values) == len(categories)]


def _rows(category: str, trials: Sequence[Trial], results: Results) -> list[dict[str, Any]]:
    """A row for each training set."""
    rows = []
    for training_set in row_names(trials):
        row: dict[str, Any] = {"category": category, "training_set": training_set}
        for name in MEASURES:
            values = values_of(results, [category], training_set, name)
            row[f"{name}_percent"], row[f"{name}_deviation"] = spread(values)
            row["seeds"] = len(values)
        rows.append(row)
    return rows


def _markdown(
    name: str, categories: Sequence[str], trials: Sequence[Trial], results: Results, title: Callable[[str], str]
) -> str:
    rows = [
        [title(n), *(entry(values_of(results, categories, n, measure)) for measure in MEASURES)]
        for n in row_names(trials)
    ]
    table = markdown_table(["in %, trained on", *_TITLES.values()], rows)
    return f"### {name.replace('_', ' ')}\n\n{table}"


def _notes(results: Results) -> str:
    """What the numbers are, under the tables."""
    if not results:
        return "Nothing has been measured yet."
    result = next(iter(results.values()))
    settings = result["settings"]
    segmenter = settings["segmenter"]
    notes = [
        f"{result['network']}, {segmenter['steps']} steps of {segmenter['batch_size']} images at "
        f"{size_in_words(settings)} pixels, {settings['images_per_defect']} generated pairs of each of "
        f"{len(result['defects'])} kinds, and the good photographs for training. "
        f"{seeds_note(results)} Tested on {result['tested']} photographs with defects "
        f"and {result['tested_good']} without."
    ]
    notes += more_notes(results, segmenter["select"])
    published = "; ".join(
        f"{method} {' / '.join(f'{value:.1f}' for value in values)}" for method, values in LOCALIZATION.items()
    )
    names = ", ".join(_TITLES[name] for name in LOCALIZATION_MEASURES)
    notes.append(
        f"Published means over MVTec AD at 256 pixels, the epoch chosen on the test set ({names}): {published}."
    )
    return "\n\n".join(notes)


def _plot(categories: Sequence[str], trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> bytes:
    panels = {
        _TITLES[name]: {title(n): values_of(results, categories, n, name) for n in row_names(trials)}
        for name in MEASURES
    }
    return plot_points(panels, "%")


def main(arguments: Sequence[str]) -> None:
    """Train and test all segmentation networks that are still missing."""
    run_benchmark(LocalizationBenchmark, tyro.cli(LocalizationConfig, args=arguments))


if __name__ == "__main__":
    run(main)
