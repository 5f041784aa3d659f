"""Everything there is to know about one photograph and its mask, problems included."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from PIL.ExifTags import Base as Tag

from ..files import file_sha256
from .decoding import decode, is_deep_colour
from .duplicates import describe_detail
from .errors import DataError
from .examples import check_pair
from .reading import Mask, highest_sample, image_to_array, read_mask
from .records import ImageRecord, Listing

Array = np.ndarray[Any, Any]

_GREY_TOLERANCE = 16
_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP"})


@dataclass
class Inspection:
    """What was found about one record.

    Attributes:
        record: The files.
        errors: What keeps it from being used for training.
        width: Of the upright photograph, in pixels; 0 if it cannot be read.
        height: Likewise.
        mode: Pillow's mode of the file: `L`, `RGB`, `I;16`, ...; with `;16` added where colour has 16 bits, which
            Pillow's mode does not say.
        sha256: Digest of the photograph's file.
        is_coloured: Whether more than 1 % of its pixels are not grey.
        is_rotated: Whether EXIF says that the photograph is to be turned.
        highest_sample: Largest sample of a 16-bit photograph, else None.
        mask_area: Share of the photograph that is defect, 0 to 1; None without a readable mask.
        has_soft_mask: See `reading.Mask.is_soft`.
        has_lossy_mask: Whether the mask is compressed in a way that changes pixels, as JPEG.
        detail: Descriptor for finding duplicates, see `duplicates.describe_detail`; None if unreadable.
    """

    record: ImageRecord
    errors: list[DataError] = field(default_factory=list)
    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    is_coloured: bool = False
    is_rotated: bool = False
    highest_sample: int | None = None
    mask_area: float | None = None
    has_soft_mask: bool = False
    has_lossy_mask: bool = False
    detail: Array | None = None


def inspect_listing(listing: Listing, bit_depth: int = 16) -> list[Inspection]:
    """Open every photograph and mask of a listing. Nothing is raised: problems are in `Inspection.errors`.

    Args:
        listing: The files.
        bit_depth: Significant bits of 16-bit photographs.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda record: _inspect(record, bit_depth), listing.records))


def _inspect(record: ImageRecord, bit_depth: int) -> Inspection:
    found = Inspection(record)
    if record.error is not None:
        found.errors.append(record.error)
    image: Array | None = None
    mask: Mask | None = None
    try:
        decoded = decode(record.image_path)
        image = image_to_array(decoded, 3, bit_depth, record.image_path)
        found.highest_sample = highest_sample(decoded)
        found.height, found.width = image.shape[:2]
        found.is_coloured = bool((np.ptp(image, axis=2) > _GREY_TOLERANCE).mean() > 0.01)
        found.detail = describe_detail(image)
        found.sha256 = file_sha256(record.image_path)
        with Image.open(record.image_path) as file:
            found.mode = f"{file.mode};16" if is_deep_colour(file) else file.mode
            found.is_rotated = file.getexif().get(Tag.Orientation, 1) != 1
    except DataError as error:
        found.errors.append(error)
    if record.mask_path is not None:
        try:
            mask = read_mask(record.mask_path)
            found.mask_area = float(mask.defect.mean())
            found.has_soft_mask = mask.is_soft
            with Image.open(record.mask_path) as file:
                found.has_lossy_mask = file.format in _LOSSY_FORMATS
        except DataError as error:
            found.errors.append(error)
    if image is not None and mask is not None:
        try:
            check_pair(record, image, mask)
        except DataError as error:
            found.errors.append(error)
    return found
