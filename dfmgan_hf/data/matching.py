"""Find each photograph's mask by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from .errors import DataError
from .records import ImageRecord, Listing, Split, shorten

# `_mask`, `-gt`, `.label`, `_ground_truth`: words, never numbers, so that part_2_mask is not taken for a mask of part.
_SUFFIX = re.compile(r"(?:[_\-. ][A-Za-z]+){0,2}")


def match_masks(
    images: Sequence[Path], masks: Sequence[Path], mask_dir: Path
) -> tuple[dict[Path, Path | DataError], list[Path]]:
    """Match masks to photographs by stem, with or without a suffix such as `_mask`; file endings may differ.

    Args:
        images: Photographs.
        masks: Files of `mask_dir`.
        mask_dir: Named in the errors.

    Returns:
        By photograph its mask, or an error with the code `no_mask` or `several_masks`; and the masks without one.
    """
    image_stems = {image.stem for image in images}
    by_stem: dict[str | None, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(_image_stem(mask.stem, image_stems), []).append(mask)
    orphans = by_stem.pop(None, [])
    matches: dict[Path, Path | DataError] = {}
    for image in images:
        found = by_stem.get(image.stem, [])
        if len(found) == 1:
            matches[image] = found[0]
        elif not found:
            matches[image] = DataError(
                "no_mask",
                image,
                found=f"an image without a mask; {mask_dir} holds {shorten(m.name for m in masks)}",
                expected=f"{mask_dir / image.stem}_mask.png, or the same stem with another suffix or file ending",
                advice="Add the mask, rename it, or leave the image out with --skip_bad_files or --file_list.",
            )
        else:
            matches[image] = DataError(
                "several_masks",
                image,
                found=f"{len(found)} files that could be its mask: {shorten(m.name for m in found)}",
                expected=f"one mask in {mask_dir}",
                advice="Move the others elsewhere, or merge them into one mask.",
            )
    return matches, orphans


def add_defects(
    listing: Listing, images: Sequence[Path], masks: Sequence[Path], mask_dir: Path, defect: str, split: Split
) -> None:
    """Add photographs of one kind of defect to a listing, with their masks or what is wrong with these."""
    matches, orphans = match_masks(images, masks, mask_dir)
    listing.orphan_masks += orphans
    for image, mask in matches.items():
        name = f"{split}/{defect}/{image.name}"
        path, error = (None, mask) if isinstance(mask, DataError) else (mask, None)
        listing.records.append(ImageRecord(name, image, path, defect, split, error))


def split_images_and_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell photographs from masks where both lie in one folder: `x_mask.png` is a mask if there is an `x`."""
    stems = {path.stem for path in files}
    is_mask = {path: _image_stem(path.stem, stems - {path.stem}) is not None for path in files}
    return [p for p in files if not is_mask[p]], [p for p in files if is_mask[p]]


def _image_stem(mask_stem: str, image_stems: set[str]) -> str | None:
    """Return the longest image stem that `mask_stem` is, or begins with followed by a suffix of words."""
    for length in range(len(mask_stem), 0, -1):
        stem = mask_stem[:length]
        if stem in image_stems and _SUFFIX.fullmatch(mask_stem[length:]):
            return stem
    return None
