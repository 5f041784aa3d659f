"""Rows of a Hugging Face data set: photograph, mask, label, defect, category, file name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag

from .decoding import is_deep_colour
from .errors import DataError, DataWarning
from .examples import read_pair
from .mvtec_layout import MVTEC_AD_DEFECTS
from .records import GOOD, ImageRecord

LABELS = ("normal", "anomalous")


def make_features(categories: Sequence[str], defects: Sequence[str]) -> datasets.Features:
    """Return the features of a set of these categories and kinds of defect.

    Args:
        categories: Names of the objects; for those of MVTec AD all 15 become names of the class label, so that sets
            of different categories can be joined.
        defects: Kinds of defect, without `good`.

    Returns:
        image (RGB), mask (8-bit grey, 0 and 255, None for defect-free photographs), label
        (normal, anomalous), defect (good, ...), category, file_name (as in `ImageRecord.name`).
    """
    known = list(MVTEC_AD_DEFECTS)
    return datasets.Features(
        {
            "image": datasets.Image(mode="RGB"),
            "mask": datasets.Image(mode="L"),
            "label": datasets.ClassLabel(names=list(LABELS)),
            "defect": datasets.ClassLabel(names=[GOOD, *defects]),
            "category": datasets.ClassLabel(names=known if set(categories) <= set(known) else list(categories)),
            "file_name": datasets.Value("string"),
        }
    )


def generate_rows(
    records: Sequence[tuple[str, ImageRecord]], bit_depth: int, skip_bad_files: bool
) -> Iterator[dict[str, Any]]:
    """Read, check and yield rows in the form of `make_features`.

    8-bit grey and RGB photographs are referred to by path and stay as they are; others are stored as 8-bit PNG, since
    `datasets` would clip 16-bit samples and forget what is transparent.

    Args:
        records: Category and record.
        bit_depth: Significant bits of 16-bit photographs.
        skip_bad_files: Leave files with problems out and warn with their list.

    Raises:
        DataError: that names the first file with a problem, unless `skip_bad_files`.
    """
    skipped: list[DataError] = []
    for category, record in records:
        try:
            yield _make_row(category, record, bit_depth)
        except DataError as problem:
            if not skip_bad_files:
                raise
            skipped.append(problem)
    if skipped:
        listed = "\n".join(f"  {error}" for error in skipped)
        warnings.warn(f"{len(skipped)} of {len(records)} files were left out:\n{listed}", DataWarning, stacklevel=2)


def encode_mask(defect: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Return a mask `(H, W)` as the `datasets` image of an 8-bit PNG with 0 and 255."""
    return {"path": None, "bytes": _to_png(np.where(defect, 255, 0).astype(np.uint8))}


def _make_row(category: str, record: ImageRecord, bit_depth: int) -> dict[str, Any]:
    photograph, mask = read_pair(record, 3, bit_depth)
    image: dict[str, Any]
    if _is_plain(record.image_path):
        image = {"path": str(record.image_path.resolve()), "bytes": None}
    else:
        image = {"path": None, "bytes": _to_png(photograph)}
    return {
        "image": image,
        "mask": None if mask is None else encode_mask(mask.defect),
        "label": LABELS[record.defect != GOOD],
        "defect": record.defect,
        "category": category,
        "file_name": record.name,
    }


def _is_plain(path: Path) -> bool:
    """Tell whether `datasets` would decode the file as this package does, see `decoding.decode`."""
    with Image.open(path) as image:
        is_eight_bit = image.mode in ("L", "RGB") and "transparency" not in image.info and not is_deep_colour(image)
        return is_eight_bit and (image.format != "TIFF" or image.getexif().get(Tag.Orientation, 1) == 1)


def _to_png(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(array).save(stream, "PNG")
    return stream.getvalue()
