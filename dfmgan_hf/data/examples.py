"""Bring one photograph and its mask from the files to the arrays that are trained on."""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import DataError
from .reading import Mask, read_image, read_mask
from .records import GOOD, ImageRecord
from .transforms import Fit, fit_to_square

Array = np.ndarray[Any, Any]


def read_pair(record: ImageRecord, image_channels: int = 3, bit_depth: int = 16) -> tuple[Array, Mask | None]:
    """Decode a photograph and its mask at their own size, and check that they fit together.

    Args:
        record: The files.
        image_channels: 1 (grey) or 3 (RGB).
        bit_depth: Significant bits of a 16-bit photograph.

    Returns:
        uint8 `(H, W, image_channels)`, and the mask or None for defect-free photographs.

    Raises:
        DataError: `record.error`; `unreadable` or `pixel_format` (see `reading`); `size_mismatch` or `empty_mask` (see
            `check_pair`).
    """
    if record.error is not None:
        raise record.error
    image = read_image(record.image_path, image_channels, bit_depth)
    if record.mask_path is None:
        return image, None
    mask = read_mask(record.mask_path)
    check_pair(record, image, mask)
    return image, mask


def check_pair(record: ImageRecord, image: Array, mask: Mask) -> None:
    """Check that a mask belongs to its photograph.

    Raises:
        DataError: `size_mismatch` if it has another size, `empty_mask` if it has no pixel but zeros.
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
        is_product = record.defect == GOOD
        raise DataError(
            "empty_mask",
            path,
            found=f"a mask without any {'product' if is_product else 'defect'} pixel",
            expected=f"non-zero pixels on the {'product' if is_product else 'defect'}",
            advice="Draw the mask anew."
            if is_product
            else f"Draw the defect, or move {record.image_path.name} to the defect-free images.",
        )


def prepare_example(
    record: ImageRecord, resolution: int, image_channels: int = 3, fit: Fit = "resize", bit_depth: int = 16
) -> tuple[Array, Array | None, bool]:
    """Decode one photograph and its mask, check them, and bring them to the training resolution.

    Returns:
        The photograph, uint8 `(C, R, R)`; its mask, uint8 `(1, R, R)` of 0 and 255, or None for defect-free
        photographs; whether the mask held several values (see `reading.Mask.is_soft`).

    Raises:
        DataError: as `read_pair`, and `cropped_mask` if `center_crop` cuts off all that the mask shows.
        ValueError: that names the option whose value is not possible.
    """
    image, mask = read_pair(record, image_channels, bit_depth)
    square, square_mask = fit_to_square(image, None if mask is None else mask.defect, resolution, fit)
    samples = np.ascontiguousarray(square.transpose(2, 0, 1))
    if mask is None or square_mask is None:
        return samples, None, False
    if not square_mask.any():
        raise DataError(
            "cropped_mask",
            record.mask_path or record.image_path,
            found=f"a {'product' if record.defect == GOOD else 'defect'} that lies wholly outside the middle square",
            expected="some of it inside, since fit is center_crop",
            advice="Use --fit pad or --fit resize, or leave the image out with --skip_bad_files.",
        )
    return samples, np.where(square_mask, 255, 0).astype(np.uint8)[None], mask.is_soft
