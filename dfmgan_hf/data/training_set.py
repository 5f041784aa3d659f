"""From what the user names to the set that a trainer reads."""

from __future__ import annotations

import warnings
from pathlib import Path

from .cache import fingerprint
from .dataset import ImageMaskDataset
from .errors import DataError, DataWarning
from .examples import Preparation
from .partitions import read_file_list, select_listed, shuffled
from .prepared import PreparedSet, prepare_records, read_prepared, write_prepared
from .records import GOOD, ImageRecord, Listing, Split, shorten
from .sources import find_listing
from .transforms import Fit

_FULL_AREA = 0.98


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
        file_list: Text file with the names to use (see `partitions`). If it names no defect-free photograph, it
            does not restrict them.
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
        names = read_file_list(file_list)
        # A list of defect photographs, such as a partition, says nothing about the defect-free ones.
        if defect is not None or any(record.name in names for record in listing.select(None)):
            candidates = select_listed(candidates, listing.records, names, file_list)
    if shots is not None:
        if shots < 1:
            raise ValueError(f"shots must be at least 1, got {shots}.")
        candidates = shuffled(candidates, shots_seed)

    preparation = Preparation(resolution, image_channels, fit, bit_depth)
    path = None
    if cache_dir is not None:
        key = fingerprint(candidates, {**preparation.settings(), "shots": shots, "skip_bad_files": skip_bad_files})
        path = Path(cache_dir) / f"{listing.category}-{defect or GOOD}-{resolution}-{key[:16]}.safetensors"
    prepared = None if path is None else read_prepared(path)
    if prepared is None:
        prepared = prepare_records(candidates, listing, preparation, shots, skip_bad_files)
        if path is not None:
            write_prepared(path, prepared)
    _warn(prepared, len(candidates))
    _check_count(len(prepared.dataset), listing, defect, shots, min_images)
    return prepared.dataset


def _warn(prepared: PreparedSet, candidates: int) -> None:
    skipped, soft = prepared.dataset.skipped, prepared.soft_masks
    if skipped:
        listed = "\n".join(f"  {error}" for error in skipped)
        warnings.warn(f"{len(skipped)} of {candidates} files were left out:\n{listed}", DataWarning, stacklevel=3)
    full = _full_masks(prepared.dataset)
    if full:
        warnings.warn(
            f"{len(full)} masks cover (almost) all of the photograph, for example that of {full[0]}: every non-zero "
            "pixel counts as defect, so check that the background is 0 and the mask not inverted.",
            DataWarning,
            stacklevel=3,
        )
    if soft:
        warnings.warn(
            f"{len(soft)} masks hold several grey values or colours, for example that of {soft[0]}: every non-zero "
            "pixel counts as defect. If they are antialiased, lossily compressed or heat maps, threshold them first.",
            DataWarning,
            stacklevel=3,
        )


def _full_masks(dataset: ImageMaskDataset) -> list[str]:
    if dataset.masks is None or not len(dataset):
        return []
    areas = (dataset.masks > 0).float().mean(dim=(1, 2, 3))
    return [name for name, area in zip(dataset.file_names, areas, strict=True) if area >= _FULL_AREA]


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
