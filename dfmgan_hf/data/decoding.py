"""Opens image files: with Pillow, and around what it misreads."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFile, ImageOps, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from .deep_colour import read_deep_colour
from .errors import DataError

Array = np.ndarray[Any, Any]

# What Pillow raises on broken files depends on the format; all of these have been seen on truncated ones.
_DECODING_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    RuntimeError,
    struct.error,
    zlib.error,
)
_WHITE_IS_ZERO = 0
_FAX_COMPRESSIONS = frozenset({"tiff_ccitt", "group3", "group4"})


def decode(path: Path, *, zero_stays_zero: bool = False) -> Image.Image | Array:
    """Decodes the first frame of a file, upright.

    Args:
        path: The file.
        zero_stays_zero: For masks. A TIFF file may call its zeros white, and Pillow inverts it then. Masks from
            ImageJ and tifffile are such files, in which zero is the background nevertheless: they are left as stored.
            Fax compression, which knows no other way, is still taken at its word.

    Returns:
        The image; an array if it is of 16-bit colour, see `read_deep_colour`.

    Raises:
        DataError: (`unreadable`) if the file is missing, empty, truncated, too large or not an image; it names the
            file.
    """
    if not path.is_file():
        raise DataError(
            "unreadable",
            path,
            found="there is no such file",
            expected="an image file",
            advice="Check the path.",
        )
    try:
        samples = read_deep_colour(path)
        if samples is not None:
            return samples
        # As a stream: given a path, Pillow maps uncompressed files into memory, and of a TIFF file that is to be
        # turned by 90 degrees it then takes the rows for columns.
        with path.open("rb") as stream, Image.open(stream) as image:
            if _is_taken_for_one_bit(image, path):
                return _decode_bitmap(path)
            image.load()
            if zero_stays_zero and _is_inverted(image):
                return ImageChops.invert(image)
            return ImageOps.exif_transpose(image)
    except Image.DecompressionBombError as error:
        raise DataError(
            "unreadable",
            path,
            found=f"more pixels than are decoded safely ({error})",
            expected="a photograph of fewer pixels",
            advice="Cut or scale it before, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust the file.",
        ) from error
    except _DECODING_ERRORS as error:
        size = path.stat().st_size
        raise DataError(
            "unreadable",
            path,
            found=f"{size} bytes that do not decode as an image ({type(error).__name__}: {error})",
            expected="a whole image file such as PNG, JPEG, TIFF or BMP",
            advice="Copy or export the file again, or leave it out with --skip_bad_files.",
        ) from error


def _is_taken_for_one_bit(image: ImageFile.ImageFile, path: Path) -> bool:
    """Whether Pillow takes a bitmap of 4 or 8 bits a pixel for one of a single bit: its palette is black and white."""
    if image.format != "BMP" or image.mode != "1":
        return False
    with path.open("rb") as stream:
        header = stream.read(30)
    # OS/2 has a shorter header.
    offset = 24 if int.from_bytes(header[14:18], "little") == 12 else 28
    return int.from_bytes(header[offset : offset + 2], "little") != 1


def _decode_bitmap(path: Path) -> Image.Image:
    import imagecodecs

    return Image.fromarray(imagecodecs.bmp_decode(path.read_bytes()))


def _is_inverted(image: ImageFile.ImageFile) -> bool:
    """Whether Pillow inverted a decoded TIFF file, and turned it upright too, because its zeros are to be white."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.mode in ("1", "L")
        and image.tag_v2.get(Tag.PhotometricInterpretation) == _WHITE_IS_ZERO
        and image.info.get("compression") not in _FAX_COMPRESSIONS
    )
