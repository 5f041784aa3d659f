"""One record to one training example: decoded, checked and brought to the training resolution."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError
from .reading import Mask, read_image, read_mask
from .records import ImageRecord
from .transforms import FITS, Fit, fit_to_square

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Preparation:
    """How photographs become training examples.

    Attributes:
        resolution: Side of the square in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        fit: `resize`, `center_crop` or `pad`.
        bit_depth: Significant bits of 16-bit photographs.

    Raises:
        ValueError: that names the value which is not possible.
    """

    resolution: int
    image_channels: int = 3
    fit: Fit = "resize"
    bit_depth: int = 16

    def __post_init__(self) -> None:
        if self.resolution < 1:
            raise ValueError(f"`resolution` must be at least 1 pixel, but is {self.resolution}.")
        if self.image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {self.image_channels}.")
        if self.fit not in FITS:
            raise ValueError(f"`fit` must be one of {', '.join(FITS)}, but is {self.fit!r}.")
        if not 8 <= self.bit_depth <= 16:
            raise ValueError(f"`bit_depth` must be from 8 to 16, but is {self.bit_depth}.")

    def settings(self) -> dict[str, int | str]:
        """All of it as plain values, for fingerprints."""
        return asdict(self)


class Example(NamedTuple):
    """A prepared photograph.

    Attributes:
        image: uint8 `(C, R, R)`.
        mask: uint8 `(1, R, R)`, 0 or 255, or None for defect-free photographs.
        has_soft_mask: See `reading.Mask.is_soft`.
    """

    image: Array
    mask: Array | None
    has_soft_mask: bool


def read_pair(record: ImageRecord, image_channels: int = 3, bit_depth: int = 16) -> tuple[Array, Mask | None]:
    """Decodes a photograph and its mask at their own size, and checks that they fit together.

    Args:
        record: The files.
        image_channels: 1 (grey) or 3 (RGB).
        bit_depth: Significant bits of a 16-bit photograph.

    Returns:
        uint8 `(H, W, image_channels)`, and the mask or None for defect-free photographs.

    Raises:
        DataError: `unreadable` or `pixel_format` (see `reading`), `size_mismatch` or `empty_mask` (see `check_pair`).
    """
    image = read_image(record.image_path, image_channels, bit_depth)
    if record.mask_path is None:
        return image, None
    mask = read_mask(record.mask_path)
    check_pair(record, image, mask)
    return image, mask


def check_pair(record: ImageRecord, image: Array, mask: Mask) -> None:
    """Checks that a mask belongs to its photograph.

    Raises:
        DataError: `size_mismatch` if it has another size, `empty_mask` if it has no defect pixel.
    """
    path = record.mask_path or record.image_path
    height, width = image.shape[:2]
    if mask.defect.shape != (height, width):
        raise DataError(
            "size_mismatch",
            path,
            found=f"a mask of {mask.defect.shape[1]}x{mask.defect.shape[0]} pixels",
            expected=f"{width}x{height}, the size of {record.image_path}",
            advice="Export the mask again from the photograph as it is now (not rotated, cropped or scaled).",
        )
    if not mask.defect.any():
        raise DataError(
            "empty_mask",
            path,
            found="a mask without any defect pixel",
            expected="non-zero pixels on the defect",
            advice=f"Draw the defect, or move {record.image_path.name} to the defect-free images.",
        )


def prepare_example(record: ImageRecord, preparation: Preparation) -> Example:
    """Decodes one photograph and its mask, checks them, and brings them to the training resolution.

    Raises:
        DataError: as `read_pair`, and `cropped_mask` if `center_crop` cuts all of the defect off.
    """
    image, mask = read_pair(record, preparation.image_channels, preparation.bit_depth)
    square, square_mask = fit_to_square(
        image, None if mask is None else mask.defect, preparation.resolution, preparation.fit
    )
    samples = np.ascontiguousarray(square.transpose(2, 0, 1))
    if mask is None or square_mask is None:
        return Example(samples, None, False)
    if not square_mask.any():
        raise DataError(
            "cropped_mask",
            record.mask_path or record.image_path,
            found="a defect that lies wholly outside the middle square",
            expected="some of it inside, since fit is center_crop",
            advice="Use --fit pad or --fit resize, or leave the image out with --skip_bad_files.",
        )
    return Example(samples, np.where(square_mask, 255, 0).astype(np.uint8)[None], mask.is_soft)
