"""The classifier of defects: torchvision's ResNet-34, from ImageNet where its weights can be had."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..metrics import MissingWeightsError
from ..metrics.weights import PublishedWeights, find_weights, read_weights, require
from .schedule import adam, batches
from .training_sets import LabelledImages

RESNET34 = PublishedWeights(
    file_name="resnet34-b627a593.pth",
    url="https://download.pytorch.org/models/resnet34-b627a593.pth",
    sha256="b627a593",
    option="--classifier.weights",
    environment="DFMGAN_RESNET34_WEIGHTS",
    megabytes=83,
    used_for="ResNet-34 that starts from ImageNet (classification)",
)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TEST_BATCH_SIZE = 64
_CURVE_POINTS = 10


@dataclass(frozen=True)
class ClassifierConfig:
    """How the classifier is trained. The paper names the network only; this is close to what AnomalyDiffusion does.

    Attributes:
        init: Start from ImageNet, from scratch, or from ImageNet if its weights can be had (auto); results name it.
        weights: ResNet-34 as torchvision has it. None: the file that DFMGAN_RESNET34_WEIGHTS names, or a download.
        steps: Length of the training.
        batch_size: Images a step.
        lr: Adam's learning rate; a fifth of it from 80 % of the steps on, and again from 90 %.
        select: Test after the last step, or report the best of ten tests on the way (best_on_test), which looks at
            the test set as AnomalyDiffusion's script does and flatters all.
    """

    init: Literal["auto", "imagenet", "scratch"] = "auto"
    weights: Path | None = None
    steps: int = 2000
    batch_size: int = 64
    lr: float = 1e-4
    select: Literal["last", "best_on_test"] = "last"


@dataclass(frozen=True)
class Start:
    """What the classifier starts from.

    Args:
        name: for results: "scratch", or the file of the weights with its hash.
        tensors: of the network; None from scratch.
    """

    name: str
    tensors: dict[str, Tensor] | None = None


def load_start(config: ClassifierConfig, progress: bool = True) -> Start:
    """The weights to start from, as `config.init` says.

    Raises:
        MissingWeightsError: they are asked for, and neither given nor to be downloaded.
        BadWeightsError: the file is damaged.
        ImportError: torchvision is not installed.
    """
    require("torchvision", purpose="Classification")
    if config.init == "scratch":
        return Start("scratch")
    try:
        tensors, file = read_weights(find_weights(RESNET34, config.weights, progress))
    except MissingWeightsError as error:
        if config.init == "imagenet" or config.weights is not None:
            raise
        print(f"From scratch: {error}")
        return Start("scratch")
    return Start(f"ImageNet ({file.name}, SHA-256 {file.sha256[:8]})", tensors)


def make_classifier(start: Start, num_classes: int, seed: int) -> nn.Module:
    """ResNet-34 with a new last layer; it takes uint8 images (n, 3, R, R) and gives logits (n, num_classes)."""
    from torchvision.models import resnet34

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = resnet34()
        if start.tensors is not None:
            network.load_state_dict(start.tensors)
        network.fc = nn.Linear(network.fc.in_features, num_classes)
    return nn.Sequential(_Normalize(), network)


def train_classifier(
    training: LabelledImages,
    test: LabelledImages,
    num_classes: int,
    config: ClassifierConfig,
    start: Start,
    seed: int,
    device: torch.device,
) -> dict[str, Any]:
    """Train with cross-entropy and test.

    Args:
        training, test: images with labels below `num_classes`.
        config: how.
        start: from `load_start`.
        seed: of the new layers and of the order of the images.
        device: where it computes.

    Returns:
        accuracy (0 to 1), balanced_accuracy (mean over the classes), correct, tested, confusion (rows: truth), step of
        the test, curve of (step, accuracy), seconds of the training.
    """
    model = make_classifier(start, num_classes, seed).to(device)
    optimizer, schedule = adam(model, config.lr, config.steps)
    interval = max(1, config.steps // _CURVE_POINTS)
    curve: list[tuple[int, float]] = []
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
        if step % interval == 0 or step == config.steps:
            confusion = confusion_matrix(model, test, num_classes, device)
            curve.append((step, _accuracy(confusion)))
            is_better = best is None or _accuracy(confusion) > _accuracy(best)
            if config.select == "last" or is_better:
                best, best_step = confusion, step
    assert best is not None
    return {
        "accuracy": _accuracy(best),
        "balanced_accuracy": float((best.diagonal() / best.sum(dim=1)).mean()),
        "correct": int(best.diagonal().sum()),
        "tested": int(best.sum()),
        "confusion": best.tolist(),
        "step": best_step,
        "curve": curve,
        "seconds": seconds,
    }


@torch.no_grad()
def confusion_matrix(model: nn.Module, test: LabelledImages, num_classes: int, device: torch.device) -> Tensor:
    """Counts, int64 (num_classes, num_classes): rows are the truth, columns what the model says."""
    model.eval()
    predicted = torch.cat([model(part.to(device)).argmax(dim=1).cpu() for part in test.images.split(_TEST_BATCH_SIZE)])
    counts = torch.bincount(test.labels * num_classes + predicted, minlength=num_classes**2)
    return counts.reshape(num_classes, num_classes)


class _Normalize(nn.Module):
    """uint8 images to what ImageNet's networks expect."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(_STD)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return (images.float() / 255 - self.mean) / self.std


def _accuracy(confusion: Tensor) -> float:
    return float(confusion.diagonal().sum() / confusion.sum())
