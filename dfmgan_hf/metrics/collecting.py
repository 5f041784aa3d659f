"""Draw images once and take from them all that the metrics need."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ..processes import ProcessGroup
from .features import FeatureExtractor, Features
from .mask_statistics import MEASUREMENTS, measure_masks
from .sampler import Sampler, batches, draw


@dataclass(frozen=True)
class Collected:
    """What was taken from N drawn images, of which the first K were kept; the same in every process.

    Args:
        images: uint8 (K, 3, H, W).
        masks: uint8 (K, 1, H, W), values 0 and 255; None if the sampler has no masks.
        mask_measurements: of all N masks, see `measure_masks`; None if the sampler has no masks.
        features: of all N images, or None without an extractor.
        unique_share: share of the N images that differ from all before them, in (0, 1].
    """

    images: Tensor
    masks: Tensor | None
    mask_measurements: Tensor | None
    features: Features | None
    unique_share: float


def collect(
    sampler: Sampler,
    num_images: int,
    *,
    num_kept: int,
    size: tuple[int, int],
    seed: int = 0,
    batch_size: int = 16,
    extractor: FeatureExtractor | None = None,
    with_masks: bool = True,
    processes: ProcessGroup | None = None,
    progress: bool = False,
    description: str = "Drawing",
) -> Collected:
    """Draw images 0..num_images-1 of a sampler in batches that the processes share.

    Args:
        sampler: draws; image i depends on `seed + i` alone.
        num_images: N.
        num_kept: K, images that are kept themselves, at most N.
        size: (H, W) that the images must have.
        seed: base seed.
        batch_size: images drawn, and passed through the extractor, at once. Batches are the same for any number of
            processes.
        extractor: gives the features.
        with_masks: whether masks are measured and kept.
        processes: share of the work.
        progress: whether to draw a progress bar.
        description: its text.

    Raises:
        ValueError: if the sampler's images have another size.
    """
    processes = processes or ProcessGroup()
    images = torch.zeros(num_kept, 3, *size, dtype=torch.uint8)
    masks = torch.zeros(num_kept, 1, *size, dtype=torch.uint8)
    measurements = torch.zeros(num_images, MEASUREMENTS, dtype=torch.float64)
    digests = torch.zeros(num_images, dtype=torch.int64)
    unmasked = torch.zeros(1)
    features: list[Tensor] = []
    logits: list[Tensor] = []

    work = processes.mine(batches(num_images, batch_size))
    with tqdm(
        total=sum(len(batch) for batch in work),
        desc=description,
        unit="image",
        disable=not (progress and processes.is_main),
        leave=False,
    ) as bar:
        for batch in work:
            drawn, drawn_masks = draw(sampler, batch, seed)
            if tuple(drawn.shape[2:]) != size:
                raise ValueError(
                    f"Generated images are {drawn.shape[3]}x{drawn.shape[2]}, the real ones {size[1]}x{size[0]}; load "
                    "the real ones at the generated ones' size (--resolution)."
                )
            kept = range(batch.start, min(batch.stop, num_kept))
            images[batch.start : kept.stop] = drawn[: len(kept)]
            digests[batch.start : batch.stop] = _digests(drawn)
            if drawn_masks is None:
                unmasked += 1
            elif with_masks:
                masks[batch.start : kept.stop] = drawn_masks[: len(kept)]
                measurements[batch.start : batch.stop] = measure_masks(drawn_masks)
            if extractor is not None:
                output = extractor(drawn)
                features.append(output.features)
                logits.append(torch.empty(len(drawn), 0) if output.logits is None else output.logits)
            bar.update(len(drawn))

    has_masks = with_masks and float(processes.sum(unmasked)) == 0
    return Collected(
        images=processes.sum(images),
        masks=processes.sum(masks) if has_masks else None,
        mask_measurements=processes.sum(measurements) if has_masks else None,
        features=None if extractor is None else _gather(features, logits, num_images, batch_size, processes),
        unique_share=len(processes.sum(digests).unique()) / num_images,
    )


def extract(
    images: Tensor, extractor: FeatureExtractor, *, batch_size: int = 16, processes: ProcessGroup | None = None
) -> Features:
    """Extract features of images uint8 (N, 3 or 1, H, W); the processes share the work and each gets the whole."""
    processes = processes or ProcessGroup()
    work = processes.mine(batches(len(images), batch_size))
    outputs = [extractor(images[batch.start : batch.stop]) for batch in work]
    features = [output.features for output in outputs]
    logits = [torch.empty(len(f), 0) if o.logits is None else o.logits for f, o in zip(features, outputs, strict=True)]
    return _gather(features, logits, len(images), batch_size, processes)


def _gather(
    features: list[Tensor], logits: list[Tensor], count: int, batch_size: int, processes: ProcessGroup
) -> Features:
    """Put this process's batches into their places and add the others'."""
    # A process without a batch learns the widths from the others.
    widths = torch.zeros(2, dtype=torch.int64)
    if processes.is_main:
        widths = torch.tensor([features[0].shape[1], logits[0].shape[1]])
    widths = processes.sum(widths)
    whole = []
    for parts, width in zip((features, logits), widths.tolist(), strict=True):
        tensor = torch.zeros(count, width)
        for batch, part in zip(processes.mine(batches(count, batch_size)), parts, strict=True):
            tensor[batch.start : batch.stop] = part
        whole.append(processes.sum(tensor) if width else None)
    assert whole[0] is not None
    return Features(whole[0], whole[1])


def _digests(images: Tensor) -> Tensor:
    """A 64-bit hash of each image's pixels, int64 (N,)."""
    hashes = (hashlib.blake2b(image.numpy().tobytes(), digest_size=8).digest() for image in images)
    return torch.tensor([int.from_bytes(digest, "little", signed=True) for digest in hashes])
