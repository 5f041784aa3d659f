"""The set that a trainer reads: photographs and masks in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch.utils.data import Dataset

from .errors import DataError


class ImageMaskDataset(Dataset[dict[str, torch.Tensor]]):
    """Photographs and masks, ready to train on.

    An item is `{"image": uint8 (C, R, R), "mask": uint8 (1, R, R)}`, mask values 0 and 255; without masks
    (defect-free photographs) it has no `mask`.

    Args:
        images: uint8 `(N, C, R, R)`.
        masks: uint8 `(N, 1, R, R)`, values 0 and 255, or None.
        file_names: N names within the data set.
        skipped: What was left out under `skip_bad_files`.
        labels: Number of each photograph's kind of defect, int64 `(N,)`, or None if all are of one kind.
        kinds: Names of the kinds that `labels` numbers.
    """

    def __init__(
        self,
        images: torch.Tensor,
        masks: torch.Tensor | None,
        file_names: Sequence[str],
        skipped: Sequence[DataError | str] = (),
        *,
        labels: torch.Tensor | None = None,
        kinds: Sequence[str] = (),
    ) -> None:
        if len(images) != len(file_names) or (masks is not None and len(masks) != len(images)):
            raise ValueError(
                f"images ({len(images)}), masks ({'None' if masks is None else len(masks)}) and "
                f"file_names ({len(file_names)}) must have the same length."
            )
        self.images = images
        self.masks = masks
        self.file_names = list(file_names)
        self.skipped = [str(error) for error in skipped]
        self.labels = labels
        self.kinds = tuple(kinds)

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = {"image": self.images[index]}
        if self.masks is not None:
            item["mask"] = self.masks[index]
        return item


def join_kinds(sets: Mapping[str, ImageMaskDataset]) -> ImageMaskDataset:
    """Join several kinds of defect to one set, which `labels` numbers in this order; without masks if one has none.

    Args:
        sets: by the name of the kind, of the same size and channels.
    """
    parts = list(sets.values())
    masks = [part.masks for part in parts if part.masks is not None]
    return ImageMaskDataset(
        torch.cat([part.images for part in parts]),
        torch.cat(masks) if len(masks) == len(parts) else None,
        [name for part in parts for name in part.file_names],
        [error for part in parts for error in part.skipped],
        labels=torch.cat([torch.full((len(part),), number) for number, part in enumerate(parts)]),
        kinds=tuple(sets),
    )
