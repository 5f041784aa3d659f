"""16-bit colour in full: Pillow keeps the upper 8 bits of it, and a mask of zeros and ones would turn black."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFile, PpmImagePlugin, TiffImagePlugin
from PIL.ExifTags import Base as Tag

Array = np.ndarray[Any, Any]

_DEEP_PNG = frozenset({"LA;16B", "RGB;16B", "RGBA;16B"})
_PLANES_APART = 2


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Whether a file that was opened, but not decoded yet, has more than one channel and more than 8 bits in each."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(Tag.BitsPerSample, ())
        return len(bits) > 1 and max(bits) > 8
    # How Pillow unpacks the samples is all that it says of them.
    arguments = image.tile[0].args if image.tile else None
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return image.mode == "RGB" and isinstance(arguments, tuple) and arguments[1] > 255
    return image.format == "PNG" and arguments in _DEEP_PNG


def read_deep_colour(path: Path) -> Array | None:
    """Decodes a file if it is one of deep colour.

    Returns:
        uint16 `(H, W, C)`, C = 2 (grey and alpha), 3 (RGB) or 4 (RGBA), upright; None for any other file.

    Raises:
        OSError, RuntimeError, ValueError: the file does not decode, or is neither PNG nor TIFF.
    """
    with Image.open(path) as image:
        if not is_deep_colour(image):
            return None
        orientation = image.getexif().get(Tag.Orientation, 1)
        kind = image.format
        has_planes_apart = (
            isinstance(image, TiffImagePlugin.TiffImageFile)
            and image.tag_v2.get(Tag.PlanarConfiguration) == _PLANES_APART
        )
    import imagecodecs

    if kind == "PNG":
        samples = imagecodecs.png_decode(path.read_bytes())
    elif kind == "TIFF":
        samples = imagecodecs.tiff_decode(path.read_bytes())
    else:
        raise ValueError("16-bit colour is read from PNG and TIFF only")
    if samples.dtype != np.uint16 or samples.ndim != 3:
        raise ValueError(f"{samples.ndim} dimensions of {samples.dtype} samples, not colour of 16 bits")
    return _upright(np.moveaxis(samples, 0, -1) if has_planes_apart else samples, orientation)


def _upright(samples: Array, orientation: int) -> Array:
    """Turns and mirrors `(H, W, C)` as an EXIF orientation, 1 to 8, asks."""
    if orientation > 4:
        samples = samples.swapaxes(0, 1)
    is_upside_down, is_mirrored = ((False, False), (False, True), (True, True), (True, False))[(orientation - 1) % 4]
    return samples[:: -1 if is_upside_down else 1, :: -1 if is_mirrored else 1]
