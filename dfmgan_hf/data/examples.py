"""One record to one training example: decoded, checked and brought to the training resolution."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np

from .errors import DataError
from .reading import read_image, read_mask
from .records import ImageRecord
from .transforms import Fit, fit_to_square

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Preparation:
    """How photographs become training examples.

    Attributes:
        resolution: Side of the square in pixels.
        image_channels: 1 (grey) or 3 (RGB).
        fit: `resize`, `center_crop` or `pad`.
        bit_depth: Significant bits of 16-bit photographs.
    """

    resolution: int
    image_channels: int = 3
    fit: Fit = "resize"
    bit_depth: int = 16

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


def prepare_example(record: ImageRecord, preparation: Preparation) -> Example:
    """Decodes one photograph and its mask, checks them, and brings them to the training resolution.

    Raises:
        DataError: `unreadable` or `pixel_format` (see `reading`), `size_mismatch` if the mask has another size
            than the photograph, `empty_mask` if it has no defect pixel, `cropped_mask` if `center_crop` cuts all
            of the defect off.
    """
    image = read_image(record.image_path, preparation.image_channels, preparation.bit_depth)
    if record.mask_path is None:
        square, _ = fit_to_square(image, None, preparation.resolution, preparation.fit)
        return Example(np.ascontiguousarray(square.transpose(2, 0, 1)), None, False)

    mask = read_mask(record.mask_path)
    height, width = image.shape[:2]
    if mask.defect.shape != (height, width):
        raise DataError(
            "size_mismatch",
            record.mask_path,
            found=f"a mask of {mask.defect.shape[1]}x{mask.defect.shape[0]} pixels",
            expected=f"{width}x{height}, the size of {record.image_path}",
            advice="Export the mask again from the photograph as it is now (not rotated, cropped or scaled).",
        )
    if not mask.defect.any():
        raise DataError(
            "empty_mask",
            record.mask_path,
            found="a mask without any defect pixel",
            expected="non-zero pixels on the defect",
            advice=f"Draw the defect, or move {record.image_path.name} to the defect-free images.",
        )
    square, square_mask = fit_to_square(image, mask.defect, preparation.resolution, preparation.fit)
    assert square_mask is not None
    if not square_mask.any():
        raise DataError(
            "cropped_mask",
            record.mask_path,
            found="a defect that lies wholly outside the middle square",
            expected="some of it inside, since fit is center_crop",
            advice="Use --fit pad or --fit resize, or leave the image out with --skip_bad_files.",
        )
    return Example(
        np.ascontiguousarray(square.transpose(2, 0, 1)),
        np.where(square_mask, 255, 0).astype(np.uint8)[None],
        mask.is_soft,
    )
