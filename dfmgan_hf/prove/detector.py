"""The detector that the arms are compared by: a small U-Net on ImageNet's features, from kept libraries.

segmentation-models-pytorch has the decoder and timm the encoder. EfficientNet-Lite0 is small enough to be trained on
a CPU in minutes, has no layers that ONNX runtimes lack, and its ImageNet weights can be had without the Hub.
"""

from __future__ import annotations

import logging
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.reading import Array
from ..files import whole_file
from ..models.projected import FEATURE_NETWORK, imagenet_weights

Example = tuple[Array, Array]
"""A photograph, uint8 (H, W, 3), and where its defect is, bool (H, W)."""

DECODER = (128, 64, 32, 24, 16)
STRIDE = 32
"""Height and width of what the network takes are multiples of it."""

LR = 1e-3
ENCODER_LR = 3e-4
POOLED = 16
"""A photograph's score is the largest mean over squares of this part of a crop's side."""


class Detector(nn.Module):
    """Logits (N, 1, H, W) of defect for images (N, 3, H, W) in [0, 1]; H and W are multiples of 32.

    Args:
        pretrained: start the encoder from ImageNet's weights.

    Raises:
        FeatureWeightsError: they could not be had.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, pretrained: bool = True) -> None:
        super().__init__()
        import timm
        from segmentation_models_pytorch import Unet

        self.network = Unet(f"tu-{FEATURE_NETWORK}", encoder_weights=None, decoder_channels=DECODER)
        if pretrained:
            # The classifier's head is left out, about which timm warns for each network.
            logging.getLogger("timm").setLevel(logging.ERROR)
            weights = imagenet_weights(FEATURE_NETWORK, "start from scratch with --no-pretrained", features_only=True)
            self.network.encoder.model.load_state_dict(weights)
        normalisation = timm.get_pretrained_cfg(FEATURE_NETWORK)
        for name in ("mean", "std"):
            self.register_buffer(name, torch.tensor(getattr(normalisation, name))[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        return self.network((images - self.mean) / self.std)


@dataclass(frozen=True)
class Shown:
    """What networks of one arm are shown.

    Attributes:
        good: photographs without a defect, uint8 (H, W, 3) each.
        real: photographs with one.
        synthetic: made ones; none for photographs alone.
        clean: what has no defect among what was made: twins of generated images.
        ratio: chance of a made one in place of a photograph.
    """

    good: list[Array]
    real: list[Example]
    synthetic: list[Example]
    clean: list[Array]
    ratio: float


def train_detector(
    shown: Shown,
    *,
    seed: int,
    steps: int,
    crop: int,
    batch_size: int,
    device: torch.device,
    pretrained: bool = True,
) -> Detector:
    """Train a network: half of each batch has no defect. The same seed begins with the same weights in every arm.

    Binary cross-entropy and Dice loss, AdamW, one cycle of the learning rate. Crops are mirrored, turned by right
    angles, and made up to a tenth brighter or darker.

    Args:
        shown: what on.
        seed, steps, crop, batch_size, device: how, and where; the side of crops in pixels.
        pretrained: start from ImageNet's weights.

    Returns:
        The network, in evaluation mode.
    """
    from segmentation_models_pytorch.losses import DiceLoss

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)  # the CPU's alone: that of a GPU is not forked
        model = Detector(pretrained).to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    rng = np.random.default_rng(seed)
    encoder = list(model.network.encoder.parameters())
    others = [*model.network.decoder.parameters(), *model.network.segmentation_head.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": encoder, "lr": ENCODER_LR}, {"params": others, "lr": LR}], weight_decay=1e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, [ENCODER_LR, LR], total_steps=max(steps, 2), pct_start=0.2
    )
    dice = DiceLoss("binary")
    for _ in range(steps):
        images, masks = draw_batch(shown, crop, batch_size, rng)
        logits = model(images.to(device, memory_format=torch.channels_last))
        truth = masks.to(device)
        loss = F.binary_cross_entropy_with_logits(logits, truth) + dice(logits, truth)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
    # Training is twice as fast with channels last on a CPU, testing twice as fast with them first.
    return model.to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]


def draw_batch(shown: Shown, crop: int, batch_size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw crops (N, 3, S, S) in [0, 1], the first half of them without a defect, and masks (N, 1, S, S)."""
    images, masks = [], []
    for i in range(batch_size):
        made = rng.random() < shown.ratio
        if i < batch_size // 2:
            image = _any(shown.clean if made and shown.clean else shown.good, rng)
            mask = np.zeros(image.shape[:2], dtype=bool)
        else:
            image, mask = _any(shown.synthetic if made and shown.synthetic else shown.real, rng)
        image, mask = cut(image, mask, crop, rng)
        turns, mirrored = int(rng.integers(4)), rng.integers(2)
        image, mask = np.rot90(image, turns), np.rot90(mask, turns)
        if mirrored:
            image, mask = image[:, ::-1], mask[:, ::-1]
        brightness = 1 + 0.1 * rng.uniform(-1, 1)
        images.append(np.clip(image.astype(np.float32) * (brightness / 255), 0, 1).transpose(2, 0, 1))
        masks.append(mask[None].astype(np.float32))
    return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(masks))


def _any(entries: list[Any], rng: np.random.Generator) -> Any:
    return entries[rng.integers(len(entries))]


def cut(image: Array, mask: Array, side: int, rng: np.random.Generator) -> Example:
    """Cut a random square that shows some of the defect, if there is one; what is smaller is continued in a mirror."""
    missing = [max(side - length, 0) for length in image.shape[:2]]
    if any(missing):
        border = [(m // 2, m - m // 2) for m in missing]
        image = np.pad(image, [*border, (0, 0)], mode="symmetric")
        mask = np.pad(mask, border, mode="symmetric")
    room = np.array(image.shape[:2]) - side
    low, high = np.zeros(2, dtype=int), room
    defect = np.flatnonzero(mask)
    if len(defect):
        at = np.array(np.unravel_index(defect[rng.integers(len(defect))], mask.shape))
        low, high = np.clip(at - side + 1, 0, room), np.clip(at, 0, room)
    y, x = rng.integers(low, high + 1)
    return image[y : y + side, x : x + side], mask[y : y + side, x : x + side]


@torch.no_grad()
def find_defects(model: Detector, image: Array, crop: int) -> tuple[Array, float]:
    """Return logits of a photograph uint8 (H, W, 3) of any size, float32 (H, W), and its score."""
    height, width = image.shape[:2]
    padded = np.pad(image, ((0, -height % STRIDE), (0, -width % STRIDE), (0, 0)), mode="symmetric")
    x = torch.from_numpy(padded).permute(2, 0, 1)[None].to(model.mean.device, torch.float32) / 255
    logits = model(x.contiguous())[:, :, :height, :width].float().cpu()
    side = min(max(crop // POOLED, 1), height, width)
    return logits[0, 0].numpy(), float(F.avg_pool2d(logits.sigmoid(), side, 1).max())


class _Probabilities(nn.Module):
    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> Tensor:
        return self.detector(images).sigmoid()


def write_onnx(model: Detector, path: Path) -> None:
    """Write the network as ONNX: `images` (N, 3, H, W) in [0, 1] to `probabilities` (N, 1, H, W), of any sizes."""
    model = model.to("cpu")
    sizes = {0: "batch", 2: "height", 3: "width"}
    with warnings.catch_warnings(), whole_file(path) as aside:
        warnings.simplefilter("ignore")
        # torch.export needs nine minutes to reason about heights and widths that may vary; tracing needs a second.
        torch.onnx.export(
            _Probabilities(model).eval(),
            (torch.zeros(2, 3, 4 * STRIDE, 5 * STRIDE),),
            str(aside),
            input_names=["images"],
            output_names=["probabilities"],
            dynamic_axes={"images": sizes, "probabilities": sizes},
            dynamo=False,
        )
