"""Masks of where the product is on defect-free photographs, from a folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .errors import DataError
from .matching import match_masks
from .reading import read_image, read_mask
from .records import ImageRecord, image_files, shorten
from .transforms import Fit, fit_to_square


def read_foregrounds(folder: Path, records: Sequence[ImageRecord], resolution: int, fit: Fit = "resize") -> Tensor:
    """Reads where the product is on photographs, brought to the training resolution as these are.

    Args:
        folder: a mask for each photograph, named like it with or without a suffix such as _mask; non-zero pixels are
            the product.
        records: the photographs.
        resolution: side of the square in pixels.
        fit: see `Fit`.

    Returns:
        bool (N, resolution, resolution), in the order of `records`.

    Raises:
        DataError: `no_images` if the folder is missing or empty; `no_mask` or `several_masks` of a photograph;
            `size_mismatch` if a mask has another size than its photograph; `empty_mask` if it is empty, or `fit` cuts
            all of it off.
    """
    files = image_files(folder)[0] if folder.is_dir() else []
    if not files:
        raise DataError(
            "no_images",
            folder,
            found="no images" if folder.is_dir() else "there is no such folder",
            expected="a folder of masks that show where the product is, named like the good photographs",
            advice="Check the path, or choose --foreground auto for products on a plain background.",
        )
    matches = match_masks([record.image_path for record in records], files, folder)
    return torch.stack([_read(record, matches.masks, folder, files, resolution, fit) for record in records])


def _read(
    record: ImageRecord, masks: dict[Path, Path], folder: Path, files: Sequence[Path], resolution: int, fit: Fit
) -> Tensor:
    path = masks.get(record.image_path)
    if path is None:
        of_it = [file.name for file in files if file.stem.startswith(record.image_path.stem)]
        raise DataError(
            "several_masks" if len(of_it) > 1 else "no_mask",
            record.image_path,
            found=f"{len(of_it)} files that could show its product: {shorten(of_it)}"
            if len(of_it) > 1
            else f"no mask of its product; {folder} holds {shorten(file.name for file in files)}",
            expected=f"one mask, {folder / record.image_path.name}",
            advice="Every good photograph needs one: add it, rename it, or leave the photograph out with --file_list.",
        )
    image, mask = read_image(record.image_path, 1), read_mask(path).defect
    if mask.shape != image.shape[:2]:
        raise DataError(
            "size_mismatch",
            path,
            found=f"a mask of {mask.shape[1]}x{mask.shape[0]} pixels",
            expected=f"{image.shape[1]}x{image.shape[0]}, the size of {record.image_path}",
            advice="Export the mask again from the photograph as it is now (not rotated, cropped or scaled).",
        )
    square = fit_to_square(image, mask, resolution, fit)[1]
    if square is None or not square.any():
        raise DataError(
            "empty_mask",
            path,
            found="no product: the mask is empty" if not mask.any() else "a product that fit cuts off",
            expected="non-zero pixels where the product is",
            advice="Draw the mask anew." if not mask.any() else "Use --fit resize or pad.",
        )
    return torch.from_numpy(square)
