"""Batches of real images: which image comes when depends on the seed and the image count alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass
class Batch:
    """Real images as the networks see them.

    Args:
        images: (N, C, R, R) in [-1, 1].
        masks: (N, 1, R, R), -1 or +1, or None in stage 1.
        labels: number of each image's kind of defect, int64 (N,), or None if all are of one kind.
    """

    images: Tensor
    masks: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    def split(self, parts: int) -> list[Batch]:
        """Equal micro-batches for gradient accumulation."""
        images = self.images.chunk(parts)
        masks = self.masks.chunk(parts) if self.masks is not None else [None] * parts
        labels = self.labels.chunk(parts) if self.labels is not None else [None] * parts
        return [Batch(*part) for part in zip(images, masks, labels, strict=True)]


class ImageSource(Protocol):
    """What batches are drawn from: decoded images in memory."""

    images: Tensor
    masks: Tensor | None
    labels: Tensor | None


class BatchStream:
    """Endless shuffled passes over a training set, shared out among processes.

    Position p of the stream is image `permutation(seed, p // len)[p % len]`; a training step takes the next
    `batch_size` positions and process r the r-th equal part of them. Nothing but the image count is needed to go on
    where a run stopped, with any number of processes.

    Args:
        source: images uint8 (M, C, R, R), masks uint8 {0, 255} (M, 1, R, R) or None, and labels int64 (M,) or None,
            on the CPU or on `device`.
        batch_size: images a step over all processes.
        seed: of the permutations.
        rank, world_size: this process and how many there are.
        device: where batches go.
        mirror: flip every other pass over the data left to right (doubles the data where a mirrored product is one).
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        mirror: bool = False,
    ) -> None:
        if batch_size % world_size:
            raise ValueError(f"`batch_size` {batch_size} cannot be shared among {world_size} processes.")
        self.images, self.masks, self.labels = source.images, source.masks, source.labels
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)
        self.mirror = mirror
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.long)

    def _index(self, position: int) -> tuple[int, bool]:
        epoch, offset = divmod(position, len(self.images))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
            self._order = torch.randperm(len(self.images), generator=generator)
            self._epoch = epoch
        return int(self._order[offset]), self.mirror and epoch % 2 == 1

    def at(self, images_seen: int) -> Batch:
        """This process's part of the step that starts after `images_seen` images."""
        part = self.batch_size // self.world_size
        start = images_seen + self.rank * part
        picks = [self._index(position) for position in range(start, start + part)]
        index = torch.tensor([i for i, _ in picks], device=self.images.device)
        images = self._normalise(self.images[index])
        masks = None if self.masks is None else self._normalise(self.masks[index])
        if self.mirror:
            flips = torch.tensor([flip for _, flip in picks], device=self.device)[:, None, None, None]
            images = torch.where(flips, images.flip(3), images)
            masks = None if masks is None else torch.where(flips, masks.flip(3), masks)
        labels = None if self.labels is None else self.labels[index].to(self.device)
        return Batch(images, masks, labels)

    def _normalise(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device, non_blocking=True).to(torch.float32) / 127.5 - 1.0

    def iterate(self, images_seen: int) -> Iterator[Batch]:
        """Batches from `images_seen` on, without end."""
        while True:
            yield self.at(images_seen)
            images_seen += self.batch_size
