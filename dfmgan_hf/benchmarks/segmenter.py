"""The segmentation network: a U-Net of segmentation-models-pytorch, trained on images and masks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from .schedule import adam
from .training_sets import LabelledImages

Array = np.ndarray[Any, Any]

# Side of the average before the largest value is taken for an image, at 256 pixels.
_POOLING = 21
_TEST_BATCH_SIZE = 32
_TESTS = 10


@dataclass(frozen=True)
class SegmenterConfig:
    """How the segmentation network is trained: as AnomalyDiffusion's script trains its U-Net, unless said otherwise.

    Attributes:
        encoder: Of the U-Net, a name of segmentation-models-pytorch; it starts from scratch.
        steps: Length of the training; 200 epochs of 500 images there.
        batch_size: Images a step; half of them are good ones on average.
        lr: Adam's learning rate; a fifth of it from 80 % of the steps on, and again from 90 %.
        focal_gamma: Of the focal loss (Lin et al. 2017); 0 is cross-entropy.
        select: Test after the last step, or report the best of ten tests on the way (best_on_test), by the sum of
            image and pixel AUROC, pixel AP and PRO: it looks at the test set, as that script does after each epoch,
            and flatters all.
    """

    encoder: Literal["resnet18", "resnet34", "vgg13_bn", "mobilenet_v2"] = "resnet34"
    steps: int = 12_500
    batch_size: int = 8
    lr: float = 1e-4
    focal_gamma: float = 2.0
    select: Literal["last", "best_on_test"] = "last"


def make_segmenter(config: SegmenterConfig, seed: int) -> nn.Module:
    """A U-Net that takes images in [0, 1] (n, 3, R, R) and gives logits (n, 1, R, R); R is a multiple of 32."""
    from segmentation_models_pytorch import Unet

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Unet(config.encoder, encoder_weights=None, classes=1)


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
        good: defect-free photographs, uint8 (n, 3, R, R).
        config: how.
        seed: of the network and of the choice of images.
        device: where it computes.
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
    """Anomaly maps and scores of images.

    Args:
        model: as `train_segmenter` returns it.
        images: uint8 (n, 3, R, R).
        device: where it computes.

    Returns:
        Maps float32 (n, R, R) from 0 to 1, and scores float32 (n,): the largest value of the map after averaging over
        21x21 pixels at a resolution of 256, and over as much of the image at others.
    """
    maps = torch.cat(
        [torch.sigmoid(model(part.to(device).float() / 255)).cpu() for part in images.split(_TEST_BATCH_SIZE)]
    )
    side = max(1, round(_POOLING * images.shape[-1] / 256)) | 1
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
