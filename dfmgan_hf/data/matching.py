"""Finds each photograph's mask by its name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .errors import DataError
from .records import shorten

# `_mask`, `-gt`, `.label`, `_ground_truth`: words, never numbers, so that part_2_mask is not taken for a mask of part.
_SUFFIX = re.compile(r"(?:[_\-. ][A-Za-z]+){0,2}")


@dataclass
class Matches:
    """Mask by photograph, masks without one, and the error by photograph for those without exactly one mask."""

    masks: dict[Path, Path] = field(default_factory=dict)
    orphan_masks: list[Path] = field(default_factory=list)
    errors: dict[Path, DataError] = field(default_factory=dict)


def match_masks(images: Sequence[Path], masks: Sequence[Path], mask_dir: Path) -> Matches:
    """Matches masks to photographs by stem, with or without a suffix such as `_mask`; file endings may differ.

    Args:
        images: Photographs.
        masks: Files of `mask_dir`.
        mask_dir: Named in the errors.

    Returns:
        The matches; errors have the codes `no_mask` and `several_masks`.
    """
    matches = Matches()
    image_stems = {image.stem for image in images}
    masks_by_stem: dict[str, list[Path]] = {}
    for mask in masks:
        stem = _image_stem(mask.stem, image_stems)
        if stem is None:
            matches.orphan_masks.append(mask)
        else:
            masks_by_stem.setdefault(stem, []).append(mask)
    for image in images:
        found = masks_by_stem.get(image.stem, [])
        if len(found) == 1:
            matches.masks[image] = found[0]
        elif not found:
            matches.errors[image] = DataError(
                "no_mask",
                image,
                found=f"a defect image without a mask; {mask_dir} holds {shorten(m.name for m in masks)}",
                expected=f"{mask_dir / image.stem}_mask.png, or the same stem with another suffix or file ending",
                advice="Add the mask, rename it, or leave the image out with --skip_bad_files.",
            )
        else:
            matches.errors[image] = DataError(
                "several_masks",
                image,
                found=f"{len(found)} files that could be its mask: {shorten(m.name for m in found)}",
                expected=f"one mask in {mask_dir}",
                advice="Move the others elsewhere, or merge them into one mask.",
            )
    return matches


def split_images_and_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tells photographs from masks where both lie in one folder: `x_mask.png` is a mask if there is an `x`."""
    stems = {path.stem for path in files}
    is_mask = {path: _image_stem(path.stem, stems - {path.stem}) is not None for path in files}
    return [p for p in files if not is_mask[p]], [p for p in files if is_mask[p]]


def _image_stem(mask_stem: str, image_stems: set[str]) -> str | None:
    """The longest image stem that `mask_stem` is, or begins with followed by a suffix of words."""
    for length in range(len(mask_stem), 0, -1):
        stem = mask_stem[:length]
        if stem in image_stems and _SUFFIX.fullmatch(mask_stem[length:]):
            return stem
    return None
