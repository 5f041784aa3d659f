"""Decode any photograph or mask that Pillow or imagecodecs opens."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageChops, ImageFile, ImageOps, PpmImagePlugin, TiffImagePlugin
from PIL.ExifTags import Base as Tag

from .records import DataError

Array = np.ndarray[Any, Any]

# What Pillow raises on broken files depends on the format; all of these have been seen on truncated ones.
_DAMAGE = (OSError, EOFError, LookupError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error, zlib.error)
_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})
INVERT = "dfmgan_invert"  # in an image's info
_DEEP_PNG = frozenset({"LA;16B", "RGB;16B", "RGBA;16B"})
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB = 0, 1, 2  # TIFF 6.0, PhotometricInterpretation
# Pillow reads it in one byte order alone.
TiffImagePlugin.OPEN_INFO.setdefault((TiffImagePlugin.MM, 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))
_ALPHA = frozenset({1, 2})  # TIFF 6.0, ExtraSamples; 0 is a channel of another kind, such as infrared
_SAMPLES_AT_ONCE = 2**22
_FAX_COMPRESSIONS = frozenset({"tiff_ccitt", "group3", "group4"})


class Decoded(NamedTuple):
    """The first frame of a file, upright.

    Attributes:
        pixels: The image; of colour or alpha with 16 bits, of which Pillow keeps 8, uint16 `(H, W, C)` instead: C = 2
            (grey and alpha), 3 (RGB) or 4 (RGBA).
        mode: Pillow's of the file, and ";16" where colour has 16 bits, which Pillow does not say.
        is_rotated: Whether EXIF said that it is to be turned.
    """

    pixels: Image.Image | Array
    mode: str
    is_rotated: bool


def decode(path: Path, *, is_mask: bool = False) -> Decoded:
    """Decode the first frame of a file, upright.

    Args:
        path: The file.
        is_mask: Whether zero is the background, even where a TIFF file calls its zeros white and Pillow inverts it.
            ImageJ and tifffile write binary masks so. Fax compression, which has no other convention, is believed.

    Raises:
        DataError: see `opened`.
    """
    with opened(path) as image:
        mode = f"{image.mode};16" if is_deep_colour(image) else image.mode
        # Of a TIFF file, Pillow forgets it as it decodes; of a PNG file, it decodes all to find it.
        is_rotated = image.format == "TIFF" and orientation(image) != 1
        pixels = _decode(path, image, is_mask)
        return Decoded(pixels, mode, is_rotated or orientation(image) != 1)


@contextmanager
def opened(path: Path) -> Iterator[ImageFile.ImageFile]:
    """Open an image file; it is decoded, in part or wholly, inside.

    Raises:
        DataError: (`unreadable`) if the file is missing, empty, truncated, too large or not an image, also where
            decoding it shows that; it names the file.
    """
    if not path.is_file():
        found = f"a link to {path.readlink()}, which is not there" if path.is_symlink() else "there is no such file"
        advice = "Fetch what it stands for (git annex, DVC, an unmounted share)." if path.is_symlink() else ""
        raise DataError("unreadable", path, found, "an image file", advice or "Check the path.")
    try:
        # As a stream: given a path, Pillow maps uncompressed files into memory, and of a TIFF file that is to be
        # turned by 90 degrees it then takes the rows for columns.
        with path.open("rb") as stream, Image.open(stream) as image:
            yield image
    except PermissionError as error:
        raise DataError(
            "unreadable", path, "a file that you may not read", "a file that you may", "Change its permissions."
        ) from error
    except Image.DecompressionBombError as error:
        raise DataError(
            "unreadable",
            path,
            found=f"more pixels than are decoded safely ({error})",
            expected="a photograph of fewer pixels",
            advice="Allow it with --max_megapixels if you trust the file, or cut or scale it before.",
        ) from error
    except _DAMAGE as error:
        size = path.stat().st_size
        raise DataError(
            "unreadable",
            path,
            found=f"{size} bytes that do not decode as an image ({type(error).__name__}: {error})",
            expected="a whole image file such as PNG, JPEG, TIFF or BMP",
            advice="Copy or export the file again, or leave it out with --skip_bad_files.",
        ) from error


def _decode(path: Path, image: ImageFile.ImageFile, is_mask: bool) -> Image.Image | Array:
    if is_deep_colour(image):
        return _decode_deep_colour(path, image, is_mask)
    if _is_misread_bitmap(image):
        import imagecodecs

        return Image.fromarray(imagecodecs.bmp_decode(path.read_bytes()))
    has_white_zeros, has_alpha = _has_white_zeros(image), _has_alpha(image)
    image.load()
    upright = ImageOps.exif_transpose(image)
    if is_mask:
        # Of 8 bits and less: Pillow leaves samples of 16 bits as they are.
        is_inverted = has_white_zeros and image.mode in ("1", "L")
        return ImageChops.invert(upright) if is_inverted else upright
    if image.mode in _SIXTEEN_BIT_MODES:
        upright.info[INVERT] = has_white_zeros
    return upright if has_alpha else upright.convert("RGB")


def allow_pixels(megapixels: int | None) -> None:
    """Let Pillow decode images of up to so many million pixels, in this process; None leaves its limit (89) as it is.

    Files of more than twice as many are refused, since a small file can claim to be a picture that fills the memory.
    """
    if megapixels is not None:
        if megapixels < 1:
            raise ValueError(f"`max_megapixels` must be at least 1, but is {megapixels}.")
        Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS or 0, megapixels * 10**6)


def orientation(image: ImageFile.ImageFile) -> int:
    """Return how a file, opened but not decoded yet, is to be turned: 1 to 8 (EXIF 2.32, 4.6.4)."""
    turn = image.getexif().get(Tag.Orientation, 1)
    return int(turn) if turn in range(1, 9) else 1  # Pillow, too, leaves the others as they are


def stored_size(image: ImageFile.ImageFile) -> tuple[int, int]:
    """Return width and height as they lie in a file; those of a TIFF file that is to be turned, Pillow has swapped."""
    width, height = _tag(image, Tag.ImageWidth), _tag(image, Tag.ImageLength)
    return (width, height) if width and height else image.size


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


def _decode_deep_colour(path: Path, image: ImageFile.ImageFile, is_mask: bool) -> Image.Image | Array:
    import imagecodecs

    if image.mode == "CMYK":  # Pillow keeps the upper 8 bits, which are what is shown of a photograph
        if is_mask:
            raise ValueError("a mask in 16-bit CMYK")
        if image.tile[0].codec_name == "raw" and len(image.tile) > 1:
            raise ValueError("16-bit CMYK in planes without compression")
        return ImageOps.exif_transpose(image)
    if image.format not in ("PNG", "TIFF"):
        raise ValueError("16-bit colour is read from PNG and TIFF only")
    decoder = imagecodecs.png_decode if image.format == "PNG" else imagecodecs.tiff_decode
    samples = decoder(path.read_bytes())
    if samples.ndim == 3 and samples.shape[2] > 4:  # TIFF may store one channel after another
        samples = np.moveaxis(samples, 0, -1)
    if samples.dtype != np.uint16 or samples.ndim != 3 or samples.shape[2] not in (2, 3, 4):
        raise ValueError(f"{samples.dtype} samples of shape {samples.shape}, not colour of 16 bits")
    turn = orientation(image)
    if turn > 4:
        samples = samples.swapaxes(0, 1)
    is_upside_down, is_mirrored = ((False, False), (False, True), (True, True), (True, False))[(turn - 1) % 4]
    samples = samples[:: -1 if is_upside_down else 1, :: -1 if is_mirrored else 1]
    colours = _tag(image, Tag.PhotometricInterpretation)
    if colours not in (None, _RGB, _BLACK_IS_ZERO):
        raise ValueError(f"16-bit colour in another space than RGB and CMYK (photometric interpretation {colours})")
    return samples if is_mask or _has_alpha(image) else samples[:, :, :3]


def _tag(image: ImageFile.ImageFile, tag: Tag) -> Any:
    return image.tag_v2.get(tag) if isinstance(image, TiffImagePlugin.TiffImageFile) else None


def _has_alpha(image: ImageFile.ImageFile) -> bool:
    """Tell whether what Pillow takes for an alpha channel is one: a TIFF file says so, or it is something else."""
    if len(_tag(image, Tag.BitsPerSample) or ()) == 4 and _tag(image, Tag.PhotometricInterpretation) == _RGB:
        return bool(_ALPHA.intersection(_tag(image, Tag.ExtraSamples) or ()))
    return True


def _is_misread_bitmap(image: ImageFile.ImageFile) -> bool:
    """Tell whether Pillow takes a bitmap of 4 or 8 bits a pixel for one of a single bit: a black and white palette.

    The length of its rows, whole words of 4 bytes, shows that it has more.
    """
    if image.format != "BMP" or image.mode != "1":
        return False
    arguments: Any = image.tile[0].args
    return bool(arguments[1] != (image.width + 31) // 32 * 4)


def _has_white_zeros(image: ImageFile.ImageFile) -> bool:
    """Tell whether zero is white in a TIFF file: Pillow inverts one of 8 bits or less as it decodes it."""
    is_white = _tag(image, Tag.PhotometricInterpretation) == _WHITE_IS_ZERO
    return is_white and image.info.get("compression") not in _FAX_COMPRESSIONS


def has_more_pages(path: Path) -> bool:
    """Tell whether a file holds further images than the one that is read; previews that cameras add are none.

    Raises:
        DataError: see `opened`.
    """
    with opened(path) as image:
        return image.format in ("TIFF", "GIF", "WEBP", "PNG") and getattr(image, "n_frames", 1) > 1


class Mask(NamedTuple):
    """A decoded mask.

    Attributes:
        defect: bool `(H, W)`, True on the defect.
        is_soft: Whether the file holds more than one non-zero grey value or colour, as antialiased, JPEG-compressed
            and multi-class masks do. All of them count as defect.
    """

    defect: Array
    is_soft: bool


def image_to_array(
    image: Image.Image | Array, channels: int = 3, bit_depth: int = 16, path: Path | str = "image"
) -> Array:
    """Turn a decoded photograph into 8-bit samples.

    Grey photographs are repeated over the channels; colour ones become luma (ITU-R 601) for one channel. Transparent
    pixels are laid over black; where all of them are, alpha means nothing (frame grabbers leave it 0) and the colours
    are taken. 16-bit samples are divided by `2**(bit_depth - 8)`.

    Args:
        image: Decoded and upright, see `decode`.
        channels: 1 (grey) or 3 (RGB).
        bit_depth: Significant bits of 16-bit files: 16, or 12 for the raw values of many industrial cameras.
        path: Named in errors.

    Returns:
        uint8 `(H, W, channels)`.

    Raises:
        DataError: (`pixel_format`) if samples exceed `bit_depth` or are floating-point numbers.
        ValueError: if `channels` or `bit_depth` is not possible.
    """
    if channels not in (1, 3):
        raise ValueError(f"`channels` must be 1 or 3, but is {channels}.")
    if not 8 <= bit_depth <= 16:
        raise ValueError(f"`bit_depth` must be from 8 to 16, but is {bit_depth}.")
    if not isinstance(image, Image.Image):
        colour, alpha = _split_alpha(image)
        samples = _scale_to_8_bits(colour, bit_depth, path)
        alpha = None if is_transparent(image) else alpha
        if alpha is not None:  # it has all 16 bits, whatever the camera's own depth
            samples = np.dstack([samples, (alpha >> 8).astype(np.uint8)])
        image = Image.fromarray(samples[:, :, 0] if samples.shape[2:] == (1,) else samples)
    if image.mode == "F":
        raise DataError(
            "pixel_format",
            path,
            found="floating-point samples",
            expected="8-bit or 16-bit integers",
            advice="Export the photograph with 8 or 16 bits.",
        )
    if image.mode in _SIXTEEN_BIT_MODES:
        grey = _scale_to_8_bits(np.asarray(image), bit_depth, path)
        grey = 255 - grey if image.info.get(INVERT) else grey
        return np.repeat(grey[:, :, None], channels, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        if is_transparent(rgba):
            image = rgba
        else:
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
    if image.mode == "RGBA":  # to grey, Pillow goes another way from there
        image = image.convert("RGB")
    array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return array.reshape(array.shape[0], array.shape[1], channels)


def _scale_to_8_bits(samples: Array, bit_depth: int, path: Path | str) -> Array:
    lowest, highest = int(samples.min()), int(samples.max())
    if lowest < 0 or highest >= 2**bit_depth:
        raise DataError(
            "pixel_format",
            path,
            found=f"samples from {lowest} to {highest}",
            expected=f"0 to {2**bit_depth - 1} (bit_depth={bit_depth})",
            advice="Set --bit_depth to the camera's own depth, or export the photograph with 8 or 16 bits.",
        )
    return (samples >> (bit_depth - 8)).astype(np.uint8)


def read_image(path: Path | str, channels: int = 3, bit_depth: int = 16) -> Array:
    """Read a photograph, upright, as uint8 `(H, W, channels)`; see `decode` and `image_to_array`.

    Example:
        >>> read_image("raw_12_bit.tif", channels=1, bit_depth=12).shape
        (480, 640, 1)
    """
    return image_to_array(decode(Path(path)).pixels, channels, bit_depth, path)


def highest_sample(image: Image.Image | Array) -> int | None:
    """Return the largest sample, of colour or grey, of a decoded photograph of 16 bits; None for one of 8."""
    if not isinstance(image, Image.Image):
        return int(_split_alpha(image)[0].max())
    return int(np.asarray(image).max()) if image.mode in _SIXTEEN_BIT_MODES else None


def is_transparent(image: Image.Image | Array) -> bool:
    """Tell whether all of a decoded photograph is transparent."""
    if not isinstance(image, Image.Image):
        alpha = _split_alpha(image)[1]
        return alpha is not None and not alpha.any()
    if "A" not in image.getbands() and "transparency" not in image.info:
        return False
    return image.convert("RGBA").getchannel("A").getextrema() == (0, 0)


def _split_alpha(samples: Array) -> tuple[Array, Array | None]:
    """Separate colour or grey `(H, W, 1 or 3)` from alpha, `(H, W)` or None."""
    return (samples[:, :, :-1], samples[:, :, -1]) if samples.shape[2] in (2, 4) else (samples, None)


def mask_to_array(image: Image.Image | Array) -> Mask:
    """Turn a decoded mask into booleans: whatever is not zero is defect.

    That holds for 0/1, 0/255, 16-bit and floating-point samples, for any colour that is not black, and for palette
    files by index, as annotation tools write them (see `_defect_by_index` for those that image editors write). Where a
    mask has an alpha channel, transparent pixels are background; if all its colours are black, alpha itself is the
    mask.
    """
    if not isinstance(image, Image.Image):
        return _mask_from_colour(image)
    if image.mode == "P":
        # Indices stand for classes, not for shades between defect and background.
        return Mask(_defect_by_index(image), False)
    if image.mode not in ("RGB", "RGBA", "LA", "PA", "RGBa", "La") and len(image.getbands()) > 1:
        image = image.convert("RGB")
    samples = np.asarray(image)
    if samples.ndim == 2:
        return Mask(np.not_equal(samples, 0), _has_several_values(samples))
    return _mask_from_colour(samples)


def _defect_by_index(image: Image.Image) -> Array:
    """Find where a palette file shows defect, bool `(H, W)`.

    Index 0 is the background, black or not. But programs that reduce a picture to a palette of their own (GIF files,
    image editors, optimisers of PNG) number its colours as they like: where index 0 is not black and another index
    that occurs is, black is the background.
    """
    indices = np.asarray(image)
    colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
    black = np.flatnonzero(~colours.any(axis=1))
    background = np.isin(indices, black)
    if 0 in black or not background.any():
        return np.not_equal(indices, 0)
    return ~background


def _mask_from_colour(samples: Array) -> Mask:
    colour, alpha = _split_alpha(samples)
    if alpha is not None:
        if colour.any():
            colour = np.where(alpha[:, :, None] != 0, colour, 0)
        elif alpha.min() != alpha.max():
            return Mask(alpha != 0, _has_several_values(alpha))
    return Mask(colour.max(axis=2) != 0, _has_several_values(colour))


def read_mask(path: Path | str) -> Mask:
    """Read a mask file; see `decode` and `mask_to_array`."""
    return mask_to_array(decode(Path(path), is_mask=True).pixels)


def _has_several_values(samples: Array) -> bool:
    """Tell whether more than one value (or colour) other than zero occurs."""
    first = None
    for rows in np.array_split(samples, max(1, samples.size // _SAMPLES_AT_ONCE)):  # what it compares takes memory
        occupied = rows[rows.any(axis=2)] if rows.ndim == 3 else rows[rows != 0]
        if len(occupied):
            first = occupied[0] if first is None else first
            if (occupied != first).any():
                return True
    return False
