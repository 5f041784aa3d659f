"""Turn any photograph into 8-bit samples and any mask into booleans: 8 and 16 bits, grey, RGB, RGBA, palette."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from .decoding import decode
from .errors import DataError

Array = np.ndarray[Any, Any]

_SIXTEEN_BIT_MODES = frozenset({"I", "I;16", "I;16L", "I;16B", "I;16N"})


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
    pixels are laid over black. 16-bit samples are divided by `2**(bit_depth - 8)`.

    Args:
        image: Decoded and upright, see `decoding.decode`.
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
        # Alpha has all 16 bits, whatever the camera's own depth.
        image = Image.fromarray(samples if alpha is None else np.dstack([samples, (alpha >> 8).astype(np.uint8)]))
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
        return np.repeat(grey[:, :, None], channels, axis=2)
    if "A" in image.getbands() or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, (0, 0, 0, 255)), rgba)
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
    """Read a photograph, upright, as uint8 `(H, W, channels)`; see `image_to_array`.

    Raises:
        DataError: `unreadable` if the file is missing, empty, truncated or not an image, `pixel_format` if its samples
            cannot be used; it names the file.
    """
    return image_to_array(decode(Path(path)), channels, bit_depth, path)


def highest_sample(image: Image.Image | Array) -> int | None:
    """Return the largest sample, of colour or grey, of a decoded photograph of 16 bits; None for one of 8."""
    if not isinstance(image, Image.Image):
        return int(_split_alpha(image)[0].max())
    return int(np.asarray(image).max()) if image.mode in _SIXTEEN_BIT_MODES else None


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
    """Read a mask file; see `mask_to_array`.

    Raises:
        DataError: `unreadable` if the file is missing, empty, truncated or not an image; it names the file.
    """
    return mask_to_array(decode(Path(path), is_mask=True))


def _has_several_values(samples: Array) -> bool:
    """Tell whether more than one value (or colour) other than zero occurs."""
    if samples.ndim == 3:
        shifts = 16 * np.arange(samples.shape[2], dtype=np.uint64)
        samples = (samples.astype(np.uint64) << shifts).sum(axis=2)
    occupied = samples[samples != 0]
    return bool(occupied.size) and bool((occupied != occupied[0]).any())
