"""Table 2 of the paper: classifiers of defects, trained on generated images, tested on photographs.

    python -m benchmarks.paper.classification --data_dir mvtec_ad --category hazelnut --output_dir runs/table2 \\
        --generated 'dfmgan=generated/{split}/{defect}' --methods crop_paste

A split (P1, P2, P3) divides the photographs of each defect: generators may see a third of them, and two thirds are
tested on. The first start writes the lists to OUTPUT_DIR/CATEGORY/splits; train a generator of each split and defect
with --file_list partition_P1_base.txt (`dfmgan train NAME`) and draw from it with `dfmgan generate` or, methods other
than DFMGAN, `dfmgan sample`.

First says how long it will take. Stopped and started again, it resumes. Tables (table.md, table.csv, table.json) and
figure (table.png) are written anew after each network.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import tyro
from accelerate import Accelerator
from torch import Tensor, nn

from benchmarks.paper.cells import TABLE_2, markdown_table, write_files
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
from dfmgan_hf.data import Partition, make_partitions
from dfmgan_hf.data.records import ImageRecord
from dfmgan_hf.metrics import MissingWeightsError
from dfmgan_hf.metrics.networks import read_weights

LEAST_SIDE = 128
"""Smaller images are enlarged to it: an ImageNet network has too few cells to see with in fewer pixels."""

_TEST_BATCH_SIZE = 64
# How often a classifier is tested while it is trained, if the best of these tests is reported.
_TESTS = 10
_TIMED_STEPS = 2


@dataclass(frozen=True)
class ClassifierConfig:
    """How the classifier is trained. The paper names the network only; this is close to what AnomalyDiffusion does.

    Attributes:
        network: A model of timm. The paper's ResNet-34 has the weights of torchvision.
        init: Start from ImageNet, or from scratch; results name it.
        weights: A file of the network's ImageNet weights, as timm or torchvision has them. None: timm downloads them.
        steps: Length of the training.
        batch_size: Images a step.
        lr: Adam's learning rate; a fifth of it from 80 % of the steps on, and again from 90 %.
        select: Test after the last step, or report the best of ten tests on the way (best_on_test), which looks at
            the test set as AnomalyDiffusion's script does and flatters all.
    """

    network: str = "resnet34.tv_in1k"
    init: Literal["imagenet", "scratch"] = "imagenet"
    weights: Path | None = None
    steps: int = 2000
    batch_size: int = 64
    lr: float = 1e-4
    select: Literal["last", "best_on_test"] = "last"


class Start(NamedTuple):
    """What classifiers start from: a network of timm, a name for results, and its tensors, None from scratch."""

    network: str
    name: str
    tensors: dict[str, Tensor] | None = None


def load_start(config: ClassifierConfig) -> Start:
    """Load the weights to start from, as `config.init` says.

    Raises:
        ValueError: timm has no such network, or the weights are not its own.
        MissingWeightsError: there is no such file, or none was given and none can be downloaded.
    """
    require("timm", purpose="Classification", extra="benchmarks")
    import timm

    name = config.network
    if not timm.is_model(name):
        raise ValueError(
            f"--classifier.network {name}: timm {timm.__version__} has no such model, see timm.list_models()."
        )
    if config.init == "scratch":
        return Start(name, "scratch")
    if config.weights is None:
        try:
            return Start(name, "ImageNet (timm)", timm.create_model(name, pretrained=True).state_dict())
        except Exception as error:  # timm, huggingface_hub and torch raise many types for a download.
            raise MissingWeightsError(
                f"No ImageNet weights of {name} from the Hub ({type(error).__name__}: {str(error).strip()[:200]}). "
                f"Download them where there is a network (`hf download timm/{name} model.safetensors`) and give the "
                "file by --classifier.weights, or start with --classifier.init scratch."
            ) from error
    if not config.weights.is_file():
        raise MissingWeightsError(f"--classifier.weights {config.weights}: there is no such file.")
    tensors, file = read_weights(config.weights)
    try:
        timm.create_model(name).load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(
            f"--classifier.weights {config.weights}: not the weights of --classifier.network {name} "
            f"({str(error).splitlines()[1].strip()[:120]} ...)"
        ) from error
    return Start(name, f"ImageNet ({file.name}, SHA-256 {file.sha256[:8]})", tensors)


def make_classifier(start: Start, num_classes: int, seed: int) -> nn.Module:
    """The network with a new last layer; it takes uint8 images (n, 3, H, W) and gives logits (n, num_classes)."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network: Any = timm.create_model(start.network)
        if start.tensors is not None:
            network.load_state_dict(start.tensors)
        network.reset_classifier(num_classes)
    return nn.Sequential(_Normalize(network.pretrained_cfg), network)


def train_classifier(
    training: LabelledImages,
    test: LabelledImages,
    num_classes: int,
    config: ClassifierConfig,
    start: Start,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Train with cross-entropy and test; the seed is that of the new layers and of the order of the images.

    Returns:
        accuracy (0 to 1), balanced_accuracy (mean over the classes), correct, tested, confusion (rows: truth), step of
        the test, seconds of the training.
    """
    model = make_classifier(start, num_classes, seed).to(device)
    optimizer, schedule = adam(model, config.lr, config.steps)
    interval = max(1, config.steps // _TESTS)
    best: Tensor | None = None
    best_step, seconds = config.steps, 0.0
    for step, batch in enumerate(batches(len(training), config.batch_size, config.steps, seed), 1):
        begun = time.perf_counter()
        model.train()
        logits = model(training.images[batch].to(device))
        nn.functional.cross_entropy(logits, training.labels[batch].to(device)).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        seconds += time.perf_counter() - begun
        if step == config.steps or (config.select == "best_on_test" and step % interval == 0):
            confusion = confusion_matrix(model, test, num_classes, device)
            if best is None or _accuracy(confusion) > _accuracy(best):
                best, best_step = confusion, step
    assert best is not None
    return {
        "accuracy": _accuracy(best),
        "balanced_accuracy": float((best.diagonal() / best.sum(dim=1)).mean()),
        "correct": int(best.diagonal().sum()),
        "tested": int(best.sum()),
        "confusion": best.tolist(),
        "step": best_step,
        "seconds": seconds,
    }


@torch.no_grad()
def confusion_matrix(model: nn.Module, test: LabelledImages, num_classes: int, device: torch.device) -> Tensor:
    """Counts, int64 (num_classes, num_classes): rows are the truth, columns what the model says."""
    model.eval()
    predicted = torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in test.images.split(_TEST_BATCH_SIZE)])
    counts = torch.bincount(test.labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


def batches(count: int, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Yield the numbers of the images of each step: all in a new order, again and again; fewer than a batch repeat."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:batch_size]
        order = order[batch_size:]


class _Normalize(nn.Module):
    """uint8 images to what an ImageNet network expects: its mean and deviation, and LEAST_SIDE pixels or more."""

    mean: Tensor
    std: Tensor

    def __init__(self, statistics: Mapping[str, Any]) -> None:
        super().__init__()
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(statistics[name])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        images = (images.float() / 255 - self.mean) / self.std
        shorter = min(images.shape[-2:])
        if shorter >= LEAST_SIDE:
            return images
        size = [side * LEAST_SIDE // shorter for side in images.shape[-2:]]
        return nn.functional.interpolate(images, size=size, mode="bilinear", antialias=True)


def _accuracy(confusion: Tensor) -> float:
    return float(confusion.diagonal().sum() / confusion.sum())


@dataclass(frozen=True)
class ClassificationConfig(DownstreamConfig):
    """Train classifiers on generated images and test them on photographs.

    Attributes:
        partitions: Number of random divisions of the photographs into one third and two thirds of each kind.
    """

    partitions: int = 3
    classifier: ClassifierConfig = field(default_factory=ClassifierConfig)


class ClassificationBenchmark(DownstreamBenchmark):
    """Which kind of defect is it? Accuracy on two thirds of the photographs (paper, section 4.3)."""

    config: ClassificationConfig

    def __init__(self, config: ClassificationConfig, accelerator: Accelerator) -> None:
        super().__init__(config, accelerator)
        for category, subject in self.subjects.items():
            if len(subject.defects) < 2:
                raise ValueError(
                    f"{category} has one kind of defect, {subject.defects[0]}: there is nothing to tell apart."
                )
        self.start = load_start(config.classifier)

    def make_splits(self, records: Sequence[ImageRecord], groups: Mapping[str, str] | None) -> dict[str, Partition]:
        """P1, P2, ...: one third of each kind to train on, two thirds to test on; seeds 1, 2, ...

        Raises:
            ValueError: a photograph shows several kinds; or as `make_partitions`.
        """
        of_file: dict[Path, list[str]] = {}
        for record in records:
            of_file.setdefault(record.image_path, []).append(record.name)
        several = [(path, names) for path, names in of_file.items() if len(names) > 1]
        if several:
            path, names = several[0]
            raise ValueError(
                f"{len(several)} photographs show several kinds of defect, such as {path} ({', '.join(names)}), but a "
                "classifier names one. Give photographs that show one kind, name kinds that are never together with "
                "--defects, or compare by localization.py, which takes them."
            )
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
        return {**result, "network": self.start.network, "start": self.start.name}

    def headline(self, result: dict[str, Any]) -> str:
        return f"{result['correct']} of {result['tested']} right, {result['accuracy']:.1%}"

    def seconds_per_trial(self) -> float:
        """Time of a training, from two timed steps on noise."""
        config = self.config.classifier
        noise = torch.randint(0, 256, (config.batch_size, 3, *self.config.size), dtype=torch.uint8)
        images = LabelledImages(noise, torch.zeros(len(noise), dtype=torch.int64))
        few = ClassifierConfig(steps=_TIMED_STEPS, batch_size=config.batch_size)
        train_classifier(images, images, 2, few, self.start, 0, self.accelerator.device)  # chooses kernels
        begun = time.perf_counter()
        timed = train_classifier(images, images, 2, few, self.start, 0, self.accelerator.device)
        testing = (time.perf_counter() - begun - timed["seconds"]) / _TIMED_STEPS
        return timed["seconds"] / _TIMED_STEPS * config.steps + 10 * testing

    def write_tables(self) -> str:
        return write_tables(self.config.output_dir, self.all_trials, self.read_results(), self.title)


def write_tables(output_dir: Path, trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> str:
    """Write table.md, table.csv, table.json and table.png of all trials, done or not, and return the Markdown."""
    categories = list(dict.fromkeys(trial.category for trial in trials))
    rows = [row for category in categories for row in _rows(category, trials, results)]
    parts = [_markdown(category, trials, results, title) for category in categories]
    text = "\n\n".join([*parts, _notes(results)]) + "\n"
    write_files(output_dir, text, rows, lambda: _plot(trials, results, title))
    return text


def accuracies(
    results: Results, category: str, split: str | None, training_set: str, name: str = "accuracy"
) -> list[float]:
    """In %, of all seeds (and all splits for None)."""
    return [
        100 * result[name]
        for trial, result in results.items()
        if trial.category == category and trial.training_set == training_set and split in (None, trial.split)
    ]


def _splits(category: str, trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.split for trial in trials if trial.category == category))


def _rows(category: str, trials: Sequence[Trial], results: Results) -> list[dict[str, Any]]:
    """A row for each training set and split."""
    rows = []
    for name in row_names(trials):
        for split in _splits(category, trials):
            values = accuracies(results, category, split, name)
            mean, deviation = spread(values)
            rows.append(
                {
                    "category": category,
                    "split": split,
                    "training_set": name,
                    "accuracy_percent": mean,
                    "deviation": deviation,
                    "balanced_percent": spread(accuracies(results, category, split, name, "balanced_accuracy"))[0],
                    "seeds": len(values),
                    "paper_percent": TABLE_2.get((category, split, name)),
                }
            )
    return rows


def _markdown(category: str, trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> str:
    splits = _splits(category, trials)
    rows = []
    for name in row_names(trials):
        cells = []
        for split in splits:
            published = TABLE_2.get((category, split, name))
            text = entry(accuracies(results, category, split, name))
            cells.append(text if published is None else f"{text} ({published:.2f})")
        kinds = ("accuracy", "balanced_accuracy") if len(splits) > 1 else ("balanced_accuracy",)
        rows.append(
            [
                title(name),
                *cells,
                *(entry(accuracies(results, category, None, name, kind)) for kind in kinds),
            ]
        )
    means = ("all", "all, balanced") if len(splits) > 1 else ("balanced",)
    table = markdown_table(["accuracy in %, trained on", *splits, *means], rows)
    return f"### {category.replace('_', ' ')}\n\n{table}"


def _notes(results: Results) -> str:
    """What the numbers are, under the tables."""
    if not results:
        return "Nothing has been measured yet."
    result = next(iter(results.values()))
    settings = result["settings"]
    classifier, kinds = settings["classifier"], len(result["defects"])
    one = 100 / result["tested"]
    most = max(map(sum, result["confusion"])) / result["tested"]
    notes = [
        f"{result['network']}, {result['start']}, {classifier['steps']} steps of {classifier['batch_size']} images at "
        f"{size_in_words(settings)} pixels, {settings['images_per_defect']} generated images of each of {kinds} "
        f"kinds. {seeds_note(results)} Tested on {result['tested']} photographs, so that one "
        f"is {one:.1f} points; always naming the most frequent kind gives {100 * most:.1f} %. Balanced: the mean over "
        f"the {kinds} kinds, of which guessing gets {100 / kinds:.0f} %."
    ]
    notes += more_notes(results, classifier["select"])
    if any((trial.category, trial.split, trial.training_set) in TABLE_2 for trial in results):
        notes.append("In brackets: the paper, a single classifier on partitions that are not known.")
    return "\n\n".join(notes)


def _plot(trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> bytes:
    panels: dict[str, dict[str, list[float]]] = {}
    published: dict[tuple[str, str], float] = {}
    for category in dict.fromkeys(trial.category for trial in trials):
        for split in _splits(category, trials):
            panel = f"{category}, {split}"
            panels[panel] = {title(n): accuracies(results, category, split, n) for n in row_names(trials)}
            for name in row_names(trials):
                if (category, split, name) in TABLE_2:
                    published[panel, title(name)] = TABLE_2[category, split, name]
    most = {max(map(sum, result["confusion"])) / result["tested"] for result in results.values()}
    chance = 100 * most.pop() if len(most) == 1 else None
    return plot_points(panels, "accuracy in %", published, chance)


def main(arguments: Sequence[str]) -> None:
    """Train and test all classifiers that are still missing."""
    run_benchmark(ClassificationBenchmark, tyro.cli(ClassificationConfig, args=arguments))


if __name__ == "__main__":
    run(main)
