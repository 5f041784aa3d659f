"""A photograph of any kind that is painted into, as training would read it, and what regions on it are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from .arguments import shown
from .data.foreground import find_foreground
from .data.label_forms import fill_outlines
from .data.parts import Box
from .data.preparation import Size, fit_to_size
from .data.reading import INVERT, Array, decode, image_to_array, mask_to_array

Picture = Image.Image | Array | str | Path
Region = Picture | Sequence[float] | Sequence[Sequence[float]] | Literal["product"]

PICTURE_MODES = ("L", "LA", "RGB", "RGBA", "I;16")


class PaintError(ValueError):
    """A defect cannot be painted as it was asked for; the message says why and what to do."""


@dataclass
class Photograph:
    """A photograph of any kind, and the way back to it.

    Attributes:
        pixels: uint8 or uint16 (H, W, 1 or 3), upright.
        alpha: (H, W), which painting leaves alone, or None.
        highest: level of white.
        info: colour profile and EXIF entries of a PIL image; the profile of a file in colour with 16 bits; None of an
            array.
        is_flat: whether an array came as (H, W).
    """

    pixels: Array
    alpha: Array | None
    highest: int
    info: dict[Any, Any] | None
    is_flat: bool = False
    _as_read: dict[int, Array] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, picture: Picture | Photograph, bit_depth: int = 16) -> Photograph:
        """Take in a PIL image, an array uint8 or uint16 (H, W) or (H, W, 1 to 4), or a file; an opened one stays.

        A file whose zeros are white is turned into a positive, as for training.

        Raises:
            PaintError: it is of another kind.
            DataError: a file cannot be read.
        """
        info: dict[Any, Any] | None = None
        has_white_zeros = False
        if isinstance(picture, Photograph):
            return picture
        if isinstance(picture, (str, Path)):
            path = Path(picture)
            picture = decode(path).pixels
            if not isinstance(picture, Image.Image):
                with Image.open(path) as image:
                    info = {"icc_profile": image.info.get("icc_profile")}
        elif isinstance(picture, Image.Image):
            picture = ImageOps.exif_transpose(picture)
        if isinstance(picture, Image.Image):
            has_white_zeros = picture.info.get(INVERT, False)
            if picture.mode in ("P", "L", "RGB") and "transparency" in picture.info:
                picture = picture.convert("LA" if picture.mode == "L" else "RGBA")
            elif picture.mode == "P":
                picture = picture.convert("RGB")
            elif picture.mode.startswith("I"):
                samples = np.asarray(picture)
                if samples.min() < 0 or samples.max() > 65535:
                    raise PaintError(
                        f"The photograph's samples are {samples.min()} to {samples.max()}, but must be 0 to 65535: "
                        "save it with 16 bits."
                    )
                before = picture.info
                picture = Image.fromarray(samples.astype(np.uint16))
                picture.info = before
            if picture.mode not in PICTURE_MODES:
                raise PaintError(
                    f"The photograph's mode is {picture.mode}, but must be one of {', '.join(PICTURE_MODES)}: convert "
                    "it first, as with `.convert('RGB')`."
                )
            info = {name: picture.info[name] for name in ("icc_profile", "dpi", "exif") if picture.info.get(name)}
            samples = np.asarray(picture)
        elif isinstance(picture, np.ndarray):
            samples = picture
        else:
            raise PaintError(f"A photograph is a PIL image, an array or the path of a file, not {shown(picture)}.")
        if samples.dtype not in (np.uint8, np.uint16) or samples.ndim not in (2, 3) or 0 in samples.shape:
            raise PaintError(
                "The photograph must be uint8 or uint16 of shape (H, W) or (H, W, C), but is "
                f"{samples.dtype} of shape {samples.shape}. Numbers from 0 to 1 become so by "
                "`(255 * x).round().astype(numpy.uint8)`."
            )
        pixels = samples.reshape(*samples.shape[:2], -1)
        if pixels.shape[2] > 4:
            raise PaintError(
                f"The photograph has {pixels.shape[2]} channels, but must have 1 to 4 (grey or RGB, alpha)."
            )
        alpha = pixels[:, :, -1] if pixels.shape[2] in (2, 4) else None
        pixels = pixels if alpha is None else pixels[:, :, :-1]
        highest = 255 if samples.dtype == np.uint8 else 2**bit_depth - 1
        if pixels.max() > highest:
            raise PaintError(
                f"The photograph has levels up to {pixels.max()}, above those of {bit_depth} bits: see `bit_depth`."
            )
        pixels = highest - pixels if has_white_zeros else pixels
        return cls(pixels, alpha, highest, info, is_flat=samples.ndim == 2)

    def restore(self, pixels: Array) -> Any:
        """Return pixels (H, W, C) in the form in which the photograph came."""
        samples = pixels if self.alpha is None else np.dstack([pixels, self.alpha])
        samples = samples[:, :, 0] if self.is_flat else samples
        if self.info is None or (samples.dtype == np.uint16 and samples.ndim == 3):
            return samples
        image = Image.fromarray(samples)
        image.info = dict(self.info)
        return image

    @property
    def size(self) -> tuple[int, int]:
        """Return height and width."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def as_read(self, channels: int) -> Array:
        """Return what is read of the photograph for training, uint8 (H, W, channels): see `image_to_array`."""
        if channels not in self._as_read:
            samples = self.pixels if self.alpha is None else np.dstack([self.pixels, self.alpha])
            samples = samples[:, :, 0] if samples.shape[2] == 1 else samples
            is_deep_colour = samples.dtype == np.uint16 and samples.ndim == 3  # Pillow has no images for it
            picture = samples if is_deep_colour else Image.fromarray(samples)
            self._as_read[channels] = image_to_array(picture, channels, self.highest.bit_length())
        return self._as_read[channels]

    def view(self, window: Box, resolution: Size, channels: int) -> Tensor:
        """Return what a model would be shown of a window at its size: float32 (channels, H, W) in [0, 1]."""
        small, _ = fit_to_size(np.ascontiguousarray(crop(self.as_read(channels), window)), None, resolution)
        return torch.from_numpy(small).permute(2, 0, 1).to(torch.float32) / 255

    def region(self, region: Region, name: str) -> Array:
        """Return where a region is, bool (H, W).

        Args:
            region: a mask of the photograph's size (a picture or a file; what is not zero), a box (left, top, right,
                bottom), a polygon of at least three (x, y), which holds the pixels whose centres lie in it, or
                "product", what stands out from a plain background.
            name: of the argument, for errors.

        Raises:
            PaintError: it is none of these, or no pixel of the photograph is in it.
        """
        height, width = self.size
        if isinstance(region, str) and region == "product":
            try:
                return find_foreground(self.as_read(self.pixels.shape[2]), "the photograph")
            except ValueError as error:
                raise PaintError(str(error)) from error
        if isinstance(region, str) and not Path(region).is_file():
            raise PaintError(
                f"`{name}` is {region!r}, but there is no such file, and the only other word is 'product': check the "
                "path or the spelling."
            )
        if isinstance(region, (str, Path)):
            region = mask_to_array(decode(Path(region), is_mask=True).pixels).defect
        elif isinstance(region, Image.Image):
            region = mask_to_array(ImageOps.exif_transpose(region)).defect
        if isinstance(region, np.ndarray) and region.ndim in (2, 3) and region.size:
            if region.dtype.kind == "f" and not np.isfinite(region).all():
                raise PaintError(f"`{name}` holds NaN or infinity.")
            flat = region if region.ndim == 2 else mask_to_array(region).defect
            if flat.shape != self.size:
                raise PaintError(
                    f"`{name}` is {flat.shape[1]}x{flat.shape[0]} pixels, but the photograph is {width}x{height}: it "
                    "must be a mask of the same size, or a box, a polygon or a point."
                )
            return np.asarray(flat != 0)
        points = _points(region, name)
        if len(points) == 2:
            (left, top), (right, bottom) = points
            found = np.zeros(self.size, dtype=bool)
            found[
                max(math.floor(top), 0) : max(math.ceil(bottom), 0),
                max(math.floor(left), 0) : max(math.ceil(right), 0),
            ] = True
        else:
            try:
                found = fill_outlines([points], width, height)
            except ValueError as error:
                raise PaintError(f"`{name}` is {error}: give fewer corners, or a mask.") from error
        if not found.any():
            raise PaintError(
                f"`{name}` {shown(region)} lies outside of the photograph, which is {width}x{height} pixels, or is "
                "too thin to hold the centre of a pixel."
            )
        return found

    def allowed(self, region: Region | None, forbidden: Region | None) -> Array:
        """Return where a defect may be, bool (H, W)."""
        allowed = np.ones(self.size, dtype=bool) if region is None else self.region(region, "region")
        if forbidden is not None:
            allowed = allowed & ~self.region(forbidden, "forbidden")
        if not allowed.any():
            raise PaintError("No pixel of the photograph is in `region` and outside of `forbidden`.")
        return allowed


def is_box_or_polygon(region: Any) -> bool:
    """Tell whether a list holds the four numbers of a box or the corners of a polygon, rather than several masks."""
    if len(region) == 4 and all(isinstance(number, Real) for number in region):
        return True
    return all(isinstance(corner, (list, tuple)) and len(corner) == 2 for corner in region)


def _points(region: Any, name: str) -> Array:
    """Return the corners of a polygon, or two of a box, `(N, 2)`."""
    try:
        numbers = np.asarray(region, dtype=float)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if numbers.shape == (4,):
        numbers = numbers.reshape(2, 2)
        if not (numbers[0] < numbers[1]).all():
            numbers = np.empty(0)
    elif not (numbers.ndim == 2 and numbers.shape[1] == 2 and len(numbers) >= 3):
        numbers = np.empty(0)
    if numbers.size == 0 or not np.isfinite(numbers).all():
        raise PaintError(
            f"`{name}` must be a mask (picture, array or file), a box (left, top, right, bottom), a polygon "
            f"[(x, y), (x, y), (x, y), ...] or 'product', but is {shown(region)}."
        )
    return numbers


def crop(array: Array, box: Box) -> Array:
    """Return the part of an array (H, W, ...) that is in a box."""
    left, top, right, bottom = box
    return array[top:bottom, left:right]
