"""Bring a photograph and its mask to the size that is trained on, together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
from PIL import Image, ImageFilter
from tqdm import tqdm

from ..files import file_sha256
from .duplicates import describe_photograph
from .reading import Array, Mask, decode, has_more_pages, highest_sample, image_to_array, is_transparent, read_mask
from .records import GOOD, DataError, ImageRecord, list_entries, normalised, shorten

Fit = Literal["resize", "center_crop", "pad"]
"""How to reach another shape: stretch to it, keep the middle part of it, or add a border of the rim's colour."""

Size = int | tuple[int, int]
"""Side of a square, or height and width, in pixels."""

FULL_AREA = 0.98
"""A mask over this share of a photograph, or more, is probably inverted or has a background that is not zero."""

# A part of a mask is thick if a fully covered pixel is no farther away than this.
_CORE_DISTANCE = 2
# Areas are kept within blocks of this many pixels: small ones where a defect is thin, so that it survives along all of
# its length; large ones where it is thick, so that its outline stays clean.
_THIN_BLOCK = 4
_THICK_BLOCK = 64
_COLUMNS_AT_ONCE = 512

_GREY_TOLERANCE = 16
_DARK = 24
_PIXELS_LOOKED_AT = 1024  # along a side: colour and brightness of a large photograph are told from a part of it
_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP"})


def height_and_width(size: Size) -> tuple[int, int]:
    """Return height and width of a size."""
    return (size, size) if isinstance(size, int) else size


def check_size(resolution: Size, fit: str) -> None:
    """Raise a ValueError that names the option whose value is not possible."""
    if min(height_and_width(resolution)) < 1:
        raise ValueError(f"`resolution` must be at least 1 pixel, but is {resolution}.")
    if fit not in get_args(Fit):
        raise ValueError(f"`fit` must be one of {', '.join(get_args(Fit))}, but is {fit!r}.")


def fitting_size(height: int, width: int, size: Size, fit: str) -> tuple[int, int]:
    """Return height and width of what becomes an image: of a photograph, of its middle part or of it and a border."""
    wanted_height, wanted_width = height_and_width(size)
    if fit == "center_crop":
        height, width = (
            min(height, max(width * wanted_height // wanted_width, 1)),
            min(width, max(height * wanted_width // wanted_height, 1)),
        )
    elif fit == "pad":
        height, width = (
            max(height, -(-width * wanted_height // wanted_width)),
            max(width, -(-height * wanted_width // wanted_height)),
        )
    return height, width


def middle(height: int, width: int, size: Size) -> tuple[slice, slice]:
    """Return the rows and columns of a photograph that `center_crop` keeps."""
    kept_height, kept_width = fitting_size(height, width, size, "center_crop")
    top, left = (height - kept_height) // 2, (width - kept_width) // 2
    return slice(top, top + kept_height), slice(left, left + kept_width)


def fit_to_size(image: Array, mask: Array | None, resolution: Size, fit: Fit = "resize") -> tuple[Array, Array | None]:
    """Bring a photograph and its mask to a size in the same way.

    The photograph is resampled with an antialiased Lanczos filter, the mask by `resize_mask`.

    Args:
        image: uint8 `(H, W, C)`, C = 1 or 3.
        mask: bool `(H, W)`, or None.
        resolution: See `Size`.
        fit: See `Fit`.

    Returns:
        uint8 `(height, width, C)` and bool `(height, width)` or None.

    Raises:
        ValueError: if `resolution` or `fit` is not possible, or if the sizes of image and mask differ.
    """
    check_size(resolution, fit)
    height, width, channels = image.shape
    if mask is not None and mask.shape != (height, width):
        raise ValueError(f"image is {width}x{height} but mask is {mask.shape[1]}x{mask.shape[0]}.")
    if fit == "center_crop":
        kept = middle(height, width, resolution)
        image, mask = image[kept], None if mask is None else mask[kept]
    elif fit == "pad":
        fitting_height, fitting_width = fitting_size(height, width, resolution, fit)
        top, left = (fitting_height - height) // 2, (fitting_width - width) // 2
        padding = ((top, fitting_height - height - top), (left, fitting_width - width - left))
        padded = np.empty((fitting_height, fitting_width, channels), dtype=np.uint8)
        padded[:] = _rim_colour(image)
        padded[top : top + height, left : left + width] = image
        image = padded
        mask = None if mask is None else np.pad(mask, padding)
    return _resize_image(image, resolution), None if mask is None else resize_mask(mask, resolution)


def resize_mask(mask: Array, resolution: Size) -> Array:
    """Resize a binary mask so that thin defects survive and areas are kept.

    From each new pixel's coverage (the exact share of it that the defect covers), as many pixels are chosen as the
    area calls for, the most covered ones first: see `_round_keeping_area`. Thresholding coverage at one half
    instead would delete a scratch thinner than half a new pixel, and double one that is a bit wider; such a scratch
    becomes a dashed line along all of its length, of the same area.

    Args:
        mask: bool `(H, W)`.
        resolution: See `Size`.

    Returns:
        bool `(height, width)`, with at least one True if `mask` has one.
    """
    height, width = height_and_width(resolution)
    if mask.shape == (height, width):
        return mask.copy()
    if not mask.any():
        return np.zeros((height, width), dtype=bool)
    coverage = _means_over_cells(_means_over_cells(mask, height).T, width).T
    coverage = np.round(coverage, 6)  # sums of many overlaps must come out as one where a pixel is covered wholly

    core = Image.fromarray((coverage == 1).astype(np.uint8))
    thick = np.asarray(core.filter(ImageFilter.MaxFilter(2 * _CORE_DISTANCE + 1))) > 0
    result = _round_keeping_area(np.where(thick, coverage, 0), _THICK_BLOCK)
    result |= _round_keeping_area(np.where(thick, 0, coverage), _THIN_BLOCK)
    if not result.any():
        result.flat[coverage.argmax()] = True
    return result


def _resize_image(image: Array, resolution: Size) -> Array:
    height, width = height_and_width(resolution)
    if image.shape[:2] == (height, width):
        return image.copy()
    grey = image.shape[2] == 1
    resized = Image.fromarray(image[:, :, 0] if grey else image).resize((width, height), Image.Resampling.LANCZOS)
    return np.array(resized).reshape(height, width, image.shape[2])


def _rim_colour(image: Array) -> Array:
    """Return the median colour of the outermost pixels, `(C,)`: a border in it adds no edge that isn't there."""
    rim = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return np.median(rim, axis=0).astype(np.uint8)


def _means_over_cells(values: Array, cells: int) -> Array:
    """Average over `cells` equal parts of the first axis, which may begin and end inside a pixel, `(cells, W)`."""
    if values.shape[1] > _COLUMNS_AT_ONCE:  # the sums of a large mask would take 8 bytes for each of its pixels
        strips = np.split(values, range(_COLUMNS_AT_ONCE, values.shape[1], _COLUMNS_AT_ONCE), axis=1)
        return np.concatenate([_means_over_cells(strip, cells) for strip in strips], axis=1)
    size = values.shape[0]
    sums = np.zeros((size + 1, values.shape[1]))
    np.cumsum(values, axis=0, out=sums[1:])
    edges = np.arange(cells + 1) * (size / cells)
    whole = np.minimum(edges.astype(np.int64), size - 1)
    sums_at_edges = sums[whole] + (edges - whole)[:, None] * values[whole]
    return np.diff(sums_at_edges, axis=0) * (cells / size)


def _round_keeping_area(coverage: Array, block: int) -> Array:
    """Round coverage `(H, W)` to 0 or 1 so that every aligned block of `block` by `block` cells keeps its area.

    The total is rounded to a whole number of cells, which is shared among four quarters: the whole part of each
    quarter's area, and what is left to those with the largest fractions; and so on down to the blocks, whose areas are
    thus rounded up or down. In a block, the most covered cells are chosen.
    """
    height, width = coverage.shape
    levels = max(0, math.ceil(math.log2(max(height, width) / block)))
    side = 2**levels * block
    padded = np.pad(coverage, ((0, side - height), (0, side - width)))
    cells = padded.reshape(2**levels, block, 2**levels, block).transpose(0, 2, 1, 3).reshape(4**levels, -1)
    areas = [np.round(cells.sum(axis=1), 3).reshape(2**levels, 2**levels)]
    for _ in range(levels):
        half = areas[-1].shape[0] // 2
        areas.append(np.round(areas[-1].reshape(half, 2, half, 2).sum(axis=(1, 3)), 3))

    counts = np.round(areas[-1]).astype(np.int64)
    for area in reversed(areas[:-1]):
        half = counts.shape[0]
        quarters = area.reshape(half, 2, half, 2).transpose(0, 2, 1, 3).reshape(half, half, 4)
        whole = np.floor(quarters).astype(np.int64)
        left_over = counts - whole.sum(axis=2)
        rank = np.argsort(np.argsort(whole - quarters, axis=2, kind="stable"), axis=2)
        shared = whole + (rank < left_over[:, :, None])
        counts = shared.reshape(half, half, 2, 2).transpose(0, 2, 1, 3).reshape(2 * half, 2 * half)

    chosen = np.zeros(cells.shape, dtype=bool)
    for index in np.nonzero(counts.reshape(-1))[0]:
        most_covered = np.argsort(-cells[index], kind="stable")[: counts.flat[index]]
        chosen[index, most_covered] = cells[index, most_covered] > 0
    blocks = chosen.reshape(2**levels, 2**levels, block, block).transpose(0, 2, 1, 3)
    return blocks.reshape(side, side)[:height, :width]


@dataclass
class Inspection:
    """What was found about one photograph and its mask; the defaults stand where it cannot be read."""

    record: ImageRecord
    errors: list[DataError] = field(default_factory=list)  # what keeps it from being used for training
    digest: str = ""  # SHA-256 of the photograph's file
    width: int = 0  # of the upright photograph, in pixels
    height: int = 0
    mode: str = ""  # Pillow's, and ";16" where colour has 16 bits, which Pillow does not say
    is_coloured: bool = False  # more than 1 % of its pixels are not grey
    is_dark: bool = False  # 99.9 % of its samples are nearly black
    is_transparent: bool = False  # all of it; its colours are used
    is_rotated: bool = False  # EXIF says that it is to be turned
    has_more_pages: bool = False  # its file, or one of its masks'; the first page is used
    highest_sample: int | None = None  # of a 16-bit photograph
    mask_area: float | None = None  # share of the photograph that is defect, 0 to 1
    mask_box: tuple[int, int, int, int] | None = None  # left, top, right, bottom of all that is defect, in pixels
    has_soft_mask: bool = False  # see `reading.Mask`
    has_lossy_mask: bool = False  # compressed in a way that changes pixels, as JPEG
    small: Array | None = field(default=None, repr=False)  # as `describe_photograph` makes it; None if unreadable

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Inside, a DataError is noted among the errors and ends the block."""
        try:
            yield
        except DataError as error:
            self.errors.append(error)


def inspect(
    record: ImageRecord,
    image_channels: int = 3,
    bit_depth: int = 16,
    resolution: Size | None = None,
    fit: str = "resize",
) -> tuple[Inspection, Array | None, Mask | None]:
    """Decode a photograph and its mask at their own size, and look at what came out; nothing is raised.

    Args:
        record: The files.
        image_channels, bit_depth: See `image_to_array`.
        resolution, fit: What they will be brought to, if that matters.

    Returns:
        What was found; uint8 `(H, W, image_channels)` or None if it cannot be read; the mask or None likewise, and for
        defect-free photographs. The errors are `record.error`; `unreadable` or `pixel_format` (see `reading`); `blank`
        or `mask_as_photograph` (see `check_photograph`); `size_mismatch`, `empty_mask`, `not_a_mask` or `cropped_mask`
        (see `check_pair`).
    """
    found = Inspection(record, [] if record.error is None else [record.error])
    image = mask = None
    with found.noting():
        decoded, found.mode, found.is_rotated = decode(record.image_path)
        found.digest = file_sha256(record.image_path)
        found.has_more_pages = has_more_pages(record.image_path)
        found.highest_sample = highest_sample(decoded)
        image = image_to_array(decoded, 3, bit_depth, record.image_path)
        found.height, found.width = image.shape[:2]
        step = max(1, min(image.shape[:2]) // _PIXELS_LOOKED_AT)
        seen = image[::step, ::step]
        found.is_coloured = bool((np.ptp(seen, axis=2) > _GREY_TOLERANCE).mean() > 0.001)
        found.is_dark = bool((seen > _DARK).mean() < 0.001)
        found.is_transparent = is_transparent(decoded)
        found.small = describe_photograph(image)
        check_photograph(record, image, found.highest_sample)
        if image_channels != 3:
            image = image_to_array(decoded, image_channels, bit_depth, record.image_path)
    with found.noting():
        mask = read_masks(record)
        if mask is not None:
            found.mask_area = float(mask.defect.mean())
            found.mask_box = Image.fromarray(mask.defect).getbbox()
            found.has_soft_mask = mask.is_soft
            found.has_more_pages |= any(map(has_more_pages, record.masks))
            with Image.open(record.masks[0]) as file:
                found.has_lossy_mask = file.format in _LOSSY_FORMATS
    with found.noting():
        if image is not None and mask is not None:
            check_pair(record, image, mask, resolution, fit)
    return found, image, mask


def inspect_all(
    records: Sequence[ImageRecord], bit_depth: int = 16, resolution: Size | None = None, fit: str = "resize"
) -> list[Inspection]:
    """Inspect photographs beside each other; a terminal shows how far that is."""
    with ThreadPoolExecutor() as pool:
        looked = pool.map(lambda record: inspect(record, 3, bit_depth, resolution, fit)[0], records)
        return list(tqdm(looked, "Reading", len(records), disable=None))


def read_pair(
    record: ImageRecord,
    image_channels: int = 3,
    bit_depth: int = 16,
    resolution: Size | None = None,
    fit: str = "resize",
) -> tuple[Array, Mask | None]:
    """Decode a photograph and its mask, and check that they fit together; the first error of `inspect` is raised."""
    found, image, mask = inspect(record, image_channels, bit_depth, resolution, fit)
    if found.errors or image is None:
        raise found.errors[0]
    return image, mask


def read_masks(record: ImageRecord) -> Mask | None:
    """Read a photograph's mask, or unite those of its instances; None if it has none.

    Raises:
        DataError: (`unreadable`) or, if the masks have different sizes, (`size_mismatch`).
    """
    united: Mask | None = None
    for path in record.masks:
        mask = read_mask(path)
        if united is None:
            united = mask
        elif united.defect.shape != mask.defect.shape:
            sizes = [f"{each.defect.shape[1]}x{each.defect.shape[0]}" for each in (mask, united)]
            found, expected = f"a mask of {sizes[0]} pixels", f"{sizes[1]}, the size of {record.mask_path}"
            raise DataError("size_mismatch", path, found, expected, "Export the masks of a photograph alike.")
        else:
            united = Mask(united.defect | mask.defect, united.is_soft or mask.is_soft)
    return united


def check_photograph(record: ImageRecord, image: Array, highest: int | None = None) -> None:
    """Raise a DataError (`blank`) if all pixels are alike, or two values are left and it may be another's mask."""
    lowest, brightest = int(image.min()), int(image.max())
    stem = normalised(record.image_path.stem)
    if brightest == 0 and highest:
        raise DataError(
            "blank",
            record.image_path,
            found=f"samples up to {highest}, which become black",
            expected="samples that fill their file of 16 bits or more, or their number of bits",
            advice=f"Give --bit_depth {max(8, highest.bit_length())}.",
        )
    if lowest == brightest:
        raise DataError(
            "blank",
            record.image_path,
            found=f"a photograph whose pixels are all {lowest}, of 0 to 255",
            expected="a photograph; a mask, an empty frame, or samples too small for their file look like this",
            advice="Give the camera's --bit_depth, give masks as --mask_dir, or leave it out with --skip_bad_files.",
        )
    if record.defect == GOOD and lowest == 0 and bool(np.isin(image, (0, brightest)).all()):
        siblings = [p for p in list_entries(record.image_path.parent).images if normalised(p.stem) == stem]
        if len(siblings) > 1:
            raise DataError(
                "mask_as_photograph",
                record.image_path,
                found=f"pixels of two values beside {shorten(p.name for p in siblings if p != record.image_path)}",
                expected="photographs; this looks like the mask of one",
                advice="Move the masks to another folder, or leave them out with --skip_bad_files.",
            )


def check_pair(
    record: ImageRecord, image: Array, mask: Mask, resolution: Size | None = None, fit: str = "resize"
) -> None:
    """Raise a DataError if a mask has another size (`size_mismatch`), no pixel but zeros (`empty_mask`), none that is
    zero but many values, as photographs have (`not_a_mask`), or none where `center_crop` keeps it (`cropped_mask`)."""
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
    if mask.is_soft and mask.defect.all():
        raise DataError(
            "not_a_mask",
            path,
            found="many values and none that is 0, so that all of the photograph counts as defect",
            expected="a mask: 0 on the background, anything else on the defect",
            advice="Give masks, not photographs; of a mask whose background is not 0, set it to 0.",
        )
    if not mask.defect.any():
        raise DataError(
            "empty_mask",
            path,
            found="a mask without any defect pixel",
            expected="non-zero pixels on the defect",
            advice=f"Draw the defect, or move {record.image_path.name} to the defect-free images.",
        )
    if resolution is not None and fit == "center_crop" and not mask.defect[middle(height, width, resolution)].any():
        raise DataError(
            "cropped_mask",
            path,
            found="a defect that lies wholly outside the middle",
            expected="some of it inside, since fit is center_crop",
            advice="Use --fit pad or --fit resize, or leave the image out with --skip_bad_files.",
        )


def prepare_example(
    record: ImageRecord, resolution: Size, image_channels: int = 3, fit: Fit = "resize", bit_depth: int = 16
) -> tuple[Array, Array | None, Inspection]:
    """Decode one photograph and its mask, check them, and bring them to the size that is trained on.

    Returns:
        The photograph, uint8 `(C, H, W)`; its mask, uint8 `(1, H, W)` of 0 and 255, or None; what was found.

    Raises:
        DataError: the first of `inspect`.
        ValueError: that names the option whose value is not possible.
    """
    check_size(resolution, fit)
    found, image, mask = inspect(record, image_channels, bit_depth, resolution, fit)
    if found.errors or image is None:
        raise found.errors[0]
    fitted, fitted_mask = fit_to_size(image, None if mask is None else mask.defect, resolution, fit)
    samples = np.ascontiguousarray(fitted.transpose(2, 0, 1))
    return samples, None if fitted_mask is None else np.where(fitted_mask, 255, 0).astype(np.uint8)[None], found
