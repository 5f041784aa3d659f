"""Training sets in memory: photographs and masks, decoded and resized once."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import Dataset

from .cache import fingerprint, read_cache, write_cache
from .errors import DataError, DataWarning
from .examples import Example, Preparation, prepare_example
from .partitions import read_file_list, select_listed, shuffled
from .records import GOOD, ImageRecord, Listing, Split, shorten
from .sources import find_listing
from .transforms import Fit


class ImageMaskDataset(Dataset[dict[str, torch.Tensor]]):
    """Photographs and masks of one kind, ready to train on.

    An item is `{"image": uint8 (C, R, R), "mask": uint8 (1, R, R)}`, mask values 0 and 255; without masks
    (defect-free photographs) it has no `mask`.

    Args:
        images: uint8 `(N, C, R, R)`.
        masks: uint8 `(N, 1, R, R)`, values 0 and 255, or None.
        file_names: N names within the data set.
        skipped: What was left out under `skip_bad_files`.
    """

    def __init__(
        self,
        images: torch.Tensor,
        masks: torch.Tensor | None,
        file_names: Sequence[str],
        skipped: Sequence[DataError | str] = (),
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

    def __len__(self) -> int:
        return len(self.file_names)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        item = {"image": self.images[index]}
        if self.masks is not None:
            item["mask"] = self.masks[index]
        return item


def load_training_set(
    data_dir: Path | str | None = None,
    category: str | None = None,
    *,
    defect: str | None = None,
    good_dir: Path | str | None = None,
    defect_dir: Path | str | None = None,
    mask_dir: Path | str | None = None,
    resolution: int = 256,
    image_channels: int = 3,
    fit: Fit = "resize",
    bit_depth: int = 16,
    split: Split | None = None,
    shots: int | None = None,
    shots_seed: int = 0,
    file_list: Path | str | None = None,
    skip_bad_files: bool = False,
    cache_dir: Path | str | None = None,
    min_images: int = 2,
) -> ImageMaskDataset:
    """Loads the photographs of one kind, with their masks if they show defects.

    Args:
        data_dir: Root or category folder of a data set in the layout of MVTec AD, a tar archive of one, or an
            imagefolder with a mask column.
        category: Category; None if there is only one.
        defect: Kind of defect; None for the defect-free photographs.
        good_dir: Instead of `data_dir`: folder of defect-free photographs.
        defect_dir: Instead of `data_dir`: folder of photographs of one kind of defect.
        mask_dir: Their masks, matched by stem with or without a suffix such as `_mask`.
        resolution: Side of the square in pixels.
        image_channels: 3, or 1 for grey.
        fit: How other shapes become square: `resize`, `center_crop` or `pad`.
        bit_depth: Significant bits of 16-bit photographs.
        split: `train` or `test`; None for `train` if `defect` is None, else for both.
        shots: Use only this many, drawn at random with `shots_seed`.
        shots_seed: Seed of that draw.
        file_list: Text file with the names to use (see `partitions`).
        skip_bad_files: Leave files with problems out and warn with their list, instead of stopping at the first.
        cache_dir: Folder that keeps the prepared set; None prepares it anew in each run.
        min_images: Fewer usable photographs are an error.

    Returns:
        The set, sorted by name.

    Raises:
        DataError: that names the first file with a problem, or says what the folder lacks.
        ValueError: if the arguments contradict each other.
    """
    listing = find_listing(
        data_dir,
        category,
        good_dir=good_dir,
        defect_dir=defect_dir,
        mask_dir=mask_dir,
        defect=defect,
        cache_dir=cache_dir,
    )
    candidates = _candidates(listing, defect, split)
    if file_list is not None:
        candidates = select_listed(candidates, listing.records, read_file_list(file_list), file_list)
    if shots is not None:
        if shots < 1:
            raise ValueError(f"shots must be at least 1, got {shots}.")
        candidates = shuffled(candidates, shots_seed)

    preparation = Preparation(resolution, image_channels, fit, bit_depth)
    path = None
    if cache_dir is not None:
        key = fingerprint(candidates, {**preparation.settings(), "shots": shots, "skip_bad_files": skip_bad_files})
        path = Path(cache_dir) / f"{listing.category}-{defect or GOOD}-{resolution}-{key[:16]}.safetensors"
    prepared = None if path is None else _read(path)
    if prepared is None:
        prepared = _prepare(candidates, listing, preparation, shots, skip_bad_files)
        if path is not None:
            _write(path, prepared)
    _warn(prepared, len(candidates))
    _check_count(len(prepared.dataset), listing, defect, shots, min_images)
    return prepared.dataset


class _Prepared(NamedTuple):
    dataset: ImageMaskDataset
    soft_masks: list[str]


def _read(path: Path) -> _Prepared | None:
    cached = read_cache(path)
    if cached is None:
        return None
    tensors, header = cached
    dataset = ImageMaskDataset(tensors["images"], tensors.get("masks"), header["file_names"], header["skipped"])
    return _Prepared(dataset, header["soft_masks"])


def _write(path: Path, prepared: _Prepared) -> None:
    dataset = prepared.dataset
    tensors = {"images": dataset.images}
    if dataset.masks is not None:
        tensors["masks"] = dataset.masks
    header = {"file_names": dataset.file_names, "skipped": dataset.skipped, "soft_masks": prepared.soft_masks}
    write_cache(path, tensors, header)


def _warn(prepared: _Prepared, candidates: int) -> None:
    skipped, soft = prepared.dataset.skipped, prepared.soft_masks
    if skipped:
        listed = "\n".join(f"  {error}" for error in skipped)
        warnings.warn(f"{len(skipped)} of {candidates} files were left out:\n{listed}", DataWarning, stacklevel=3)
    if soft:
        warnings.warn(
            f"{len(soft)} masks hold several grey values or colours, for example that of {soft[0]}: every non-zero "
            "pixel counts as defect. If they are antialiased, lossily compressed or heat maps, threshold them first.",
            DataWarning,
            stacklevel=3,
        )


def _candidates(listing: Listing, defect: str | None, split: Split | None) -> list[ImageRecord]:
    if split is None and defect is None:
        split = "train"
    candidates = listing.select(defect, split)
    if not candidates:
        kind = "defect-free photographs" if defect is None else f"photographs with the defect '{defect}'"
        kinds = [f"'{name}'" for name in listing.defects]
        raise DataError(
            "no_images",
            listing.root,
            found=f"no {kind}{f' in {split}' if split else ''}",
            expected=f"{split or 'test'}/{defect or GOOD}/*.png",
            advice=f"Defects in this folder: {shorten(kinds)}.",
        )
    return candidates


def _prepare(
    candidates: Sequence[ImageRecord],
    listing: Listing,
    preparation: Preparation,
    shots: int | None,
    skip_bad_files: bool,
) -> _Prepared:
    examples: list[tuple[str, Example]] = []
    skipped: list[DataError] = []
    for record, result in zip(candidates, _prepare_each(candidates, listing, preparation, shots), strict=False):
        if isinstance(result, Example):
            examples.append((record.name, result))
        elif skip_bad_files:
            skipped.append(result)
        else:
            raise result
        if len(examples) == shots:
            break
    examples.sort(key=lambda example: example[0])
    channels, side = preparation.image_channels, preparation.resolution
    images = _stack([example.image for _, example in examples], (channels, side, side))
    masks = [example.mask for _, example in examples if example.mask is not None]
    dataset = ImageMaskDataset(
        images, _stack(masks, (1, side, side)) if masks else None, [name for name, _ in examples], skipped
    )
    return _Prepared(dataset, [name for name, example in examples if example.has_soft_mask])


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


def _stack(arrays: Iterable[np.ndarray[Any, Any]], shape: tuple[int, ...]) -> torch.Tensor:
    arrays = list(arrays)
    return torch.from_numpy(np.stack(arrays)) if arrays else torch.zeros((0, *shape), dtype=torch.uint8)


def _check_count(usable: int, listing: Listing, defect: str | None, shots: int | None, min_images: int) -> None:
    needed = max(1, min_images) if shots is None else shots
    if usable < needed:
        raise DataError(
            "too_few",
            listing.root,
            found=f"{usable} usable photographs of '{defect or GOOD}'",
            expected=f"at least {needed}" if shots is None else f"{shots}, the shots asked for",
            advice="Add photographs; check_dataset.py says how many are advised."
            if shots is None
            else "Ask for fewer shots.",
        )
