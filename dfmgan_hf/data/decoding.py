"""Decode image files with Pillow, and with imagecodecs what Pillow would cut or misread."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageChops, ImageFile, ImageOps, PpmImagePlugin, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from .errors import DataError

Array = np.ndarray[Any, Any]

# What Pillow raises on broken files depends on the format; all of these have been seen on truncated ones.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error)
_DEEP_PNG = frozenset({"LA;16B", "RGB;16B", "RGBA;16B"})
_WHITE_IS_ZERO = 0
_FAX_COMPRESSIONS = frozenset({"tiff_ccitt", "group3", "group4"})


def decode(path: Path, *, is_mask: bool = False) -> Image.Image | Array:
    """Decode the first frame of a file, upright.

    Args:
        path: The file.
        is_mask: Whether zero is the background, even where a TIFF file calls its zeros white and Pillow inverts it.
            ImageJ and tifffile write binary masks so. Fax compression, which knows no other way, is still taken at
            its word.

    Returns:
        The image; of colour or alpha with 16 bits, of which Pillow keeps 8, uint16 `(H, W, C)` instead: C = 2 (grey
        and alpha), 3 (RGB) or 4 (RGBA).

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
        # As a stream: given a path, Pillow maps uncompressed files into memory, and of a TIFF file that is to be
        # turned by 90 degrees it then takes the rows for columns.
        with path.open("rb") as stream, Image.open(stream) as image:
            if is_deep_colour(image):
                return _decode_deep_colour(path, image)
            if _is_misread_bitmap(image):
                import imagecodecs

                return Image.fromarray(imagecodecs.bmp_decode(path.read_bytes()))
            is_inverted = is_mask and _has_white_zeros(image)
            image.load()
            upright = ImageOps.exif_transpose(image)
            return ImageChops.invert(upright) if is_inverted else upright
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


def is_deep_colour(image: ImageFile.ImageFile) -> bool:
    """Tell whether a file, opened but not decoded yet, has several channels and more than 8 bits in each."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        bits = image.tag_v2.get(Tag.BitsPerSample, ())
        return len(bits) > 1 and max(bits) > 8
    # How Pillow unpacks the samples is all that it says of them.
    arguments = image.tile[0].args if image.tile else None
    if isinstance(image, PpmImagePlugin.PpmImageFile):
        return image.mode == "RGB" and isinstance(arguments, tuple) and arguments[1] > 255
    return image.format == "PNG" and arguments in _DEEP_PNG


def _decode_deep_colour(path: Path, image: ImageFile.ImageFile) -> Array:
    import imagecodecs

    if image.format not in ("PNG", "TIFF"):
        raise ValueError("16-bit colour is read from PNG and TIFF only")
    decoder = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.tiff_decode
    samples = decoder(path.read_bytes())
    if samples.ndim == 3 and samples.shape[2] > 4:  # TIFF may store one channel after another
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype != np.uint16 or samples.ndim != 3 or samples.shape[2] not in (2, 3, 4):
        raise ValueError(f"{samples.dtype} samples of shape {samples.shape}, not colour of 16 bits")
    orientation = image.getexif().get(Tag.Orientation, 1)  # EXIF 2.32, 4.6.4: 1 to 8
    if orientation > 4:
        samples = samples.swapaxes(0, 1)
    is_upside_down, is_mirrored = ((False, False), (False, True), (True, True), (True, False))[(orientation - 1) % 4]
    return samples[:: -1 if is_upside_down else 1, :: -1 if is_mirrored else 1]


def _is_misread_bitmap(image: ImageFile.ImageFile) -> bool:
    """Tell whether Pillow takes a bitmap of 4 or 8 bits a pixel for one of a single bit: a black and white palette.

    The length of its rows, whole words of 4 bytes, shows that it has more.
    """
    if image.format != "BMP" or image.mode != "1":
        return False
    arguments: Any = image.tile[0].args
    return bool(arguments[1] != (image.width + 31) // 32 * 4)


def _has_white_zeros(image: ImageFile.ImageFile) -> bool:
    """Tell whether Pillow inverts a TIFF file as it decodes it."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.mode in ("1", "L")
        and image.tag_v2.get(Tag.PhotometricInterpretation) == _WHITE_IS_ZERO
        and image.info.get("compression") not in _FAX_COMPRESSIONS
    )
