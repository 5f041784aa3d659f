"""Prepares all records of a training set, once, and keeps the result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from .cache import read_cache, write_cache
from .dataset import ImageMaskDataset
from .errors import DataError
from .examples import Example, Preparation, prepare_example
from .records import ImageRecord, Listing


class PreparedSet(NamedTuple):
    """A training set and what is to be said about it.

    Attributes:
        dataset: Sorted by name.
        soft_masks: Names of the photographs whose mask holds several grey values or colours.
    """

    dataset: ImageMaskDataset
    soft_masks: list[str]


def prepare_records(
    candidates: Sequence[ImageRecord],
    listing: Listing,
    preparation: Preparation,
    shots: int | None,
    skip_bad_files: bool,
) -> PreparedSet:
    """Decodes records, in parallel, and keeps those without problems, sorted by name.

    Args:
        candidates: Records of one kind; with `shots`, the first so many usable ones of them are taken.
        listing: Where problems are known already.
        preparation: Resolution and so on.
        shots: Number to take; None for all.
        skip_bad_files: Leave files with problems out, instead of stopping at the first.

    Raises:
        DataError: of the first file with a problem, unless `skip_bad_files`.
    """
    limit = len(candidates) if shots is None else min(shots, len(candidates))
    side = preparation.resolution
    # Allocated once: a list of arrays and their stack would take twice the memory.
    images = torch.zeros((limit, preparation.image_channels, side, side), dtype=torch.uint8)
    masks = torch.zeros((limit, 1, side, side), dtype=torch.uint8)
    names: list[str] = []
    soft_masks: list[str] = []
    skipped: list[DataError] = []
    has_masks = False
    for record, result in zip(candidates, _prepare_each(candidates, listing, preparation, shots), strict=False):
        if not isinstance(result, Example):
            if not skip_bad_files:
                raise result
            skipped.append(result)
            continue
        images[len(names)] = torch.from_numpy(result.image)
        if result.mask is not None:
            has_masks = True
            masks[len(names)] = torch.from_numpy(result.mask)
        if result.has_soft_mask:
            soft_masks.append(record.name)
        names.append(record.name)
        if len(names) == shots:
            break
    order = sorted(range(len(names)), key=names.__getitem__)
    if order == sorted(order):
        images, masks = images[: len(names)], masks[: len(names)]
    else:
        images, masks = images[order], masks[order]
    dataset = ImageMaskDataset(images, masks if has_masks else None, [names[index] for index in order], skipped)
    return PreparedSet(dataset, sorted(soft_masks))


def _prepare_each(
    candidates: Sequence[ImageRecord], listing: Listing, preparation: Preparation, shots: int | None
) -> Iterator[Example | DataError]:
    def prepare(record: ImageRecord) -> Example | DataError:
        if record.name in listing.errors:
            return listing.errors[record.name]
        try:
            return prepare_example(record, preparation)
        except DataError as error:
            return error

    if shots is not None:
        yield from map(prepare, candidates)  # lazily: decodes only as many as it takes
        return
    # Pillow decodes and resizes outside the interpreter's lock, so threads do run beside each other.
    with ThreadPoolExecutor() as pool:
        try:
            yield from pool.map(prepare, candidates)
        finally:
            pool.shutdown(cancel_futures=True)


def read_prepared(path: Path) -> PreparedSet | None:
    """What `write_prepared` wrote, or None if there is no such file or it is damaged."""
    cached = read_cache(path)
    if cached is None:
        return None
    tensors, header = cached
    dataset = ImageMaskDataset(tensors["images"], tensors.get("masks"), header["file_names"], header["skipped"])
    return PreparedSet(dataset, header["soft_masks"])


def write_prepared(path: Path, prepared: PreparedSet) -> None:
    """Keeps a prepared set for the next run."""
    dataset = prepared.dataset
    tensors = {"images": dataset.images}
    if dataset.masks is not None:
        tensors["masks"] = dataset.masks
    header = {"file_names": dataset.file_names, "skipped": dataset.skipped, "soft_masks": prepared.soft_masks}
    write_cache(path, tensors, header)
