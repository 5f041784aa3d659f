"""What can be measured against what: samplers, folders, tensors and Hugging Face data sets, made alike."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from dfmgan_hf.data import ImageMaskDataset, fit_to_square
from dfmgan_hf.data.reading import image_to_array, mask_to_array

from .sampler import FolderSampler, Sampler, TensorSampler, draw, too_small

if TYPE_CHECKING:
    from datasets import Dataset

Generated: TypeAlias = Sampler | Tensor | str | Path
"""A sampler, a folder (see `FolderSampler`), or images uint8 (N, 3 or 1, H, W)."""

Real: TypeAlias = "ImageMaskDataset | Dataset | Tensor | str | Path"
"""A set that is loaded, rows of a Hugging Face data set, images uint8 (M, 3 or 1, H, W), or a folder."""

FOLDER_RESOLUTION = 256


def as_sampler(samples: Generated, resolution: int | None = None) -> Sampler:
    """Make a sampler of what is to be measured.

    Args:
        samples: a sampler; or images uint8 (N, 3 or 1, H, W); or a folder in any layout that `FolderSampler` reads.
        resolution: side that the images of a folder are scaled down to.

    Raises:
        DataError: there are no images in the folder.
        ValueError: a tensor of another type or shape.
        TypeError: anything else.
    """
    if isinstance(samples, Tensor):
        return TensorSampler(samples)
    if isinstance(samples, (str, Path)):
        return FolderSampler(samples, resolution=resolution)
    if isinstance(samples, Sampler):
        return samples
    raise TypeError(
        f"`sampler` must be a Sampler, a folder or a uint8 tensor (N, 3, H, W), but is a {type(samples).__name__}."
    )


def as_real(real: Real, resolution: int) -> ImageMaskDataset:
    """Bring the real images into memory.

    Args:
        real: a set that is loaded already, which is taken as it is; a folder in any layout that `FolderSampler` reads;
            rows of a Hugging Face data set with a column `image`, and perhaps `mask` and `file_name`, such as
            `load_mvtec_ad(...)["test"].filter(...)`; or images uint8 (M, 3 or 1, H, W).
        resolution: side of the square that photographs of a folder or of rows are scaled down to.

    Raises:
        DataError: there are no images, or one cannot be read or is smaller than `resolution`.
        TypeError: anything else.
    """
    if isinstance(real, ImageMaskDataset):
        return real
    if isinstance(real, Tensor):
        return ImageMaskDataset(real, None, [str(i) for i in range(len(real))])
    if isinstance(real, (str, Path)):
        folder = FolderSampler(real, resolution=resolution)
        images, masks = draw(folder, range(len(folder)), 0)
        return ImageMaskDataset(images, masks, [record.name for record in folder.records])
    if "image" not in (getattr(real, "column_names", None) or []):
        raise TypeError(
            "`real` must be an ImageMaskDataset, a folder, a uint8 tensor (M, 3, H, W) or a datasets.Dataset with a "
            f"column 'image', but is a {type(real).__name__}."
        )
    return _from_rows(real, resolution)


def as_pair(
    samples: Generated,
    real: Real,
    resolution: int | None = None,
    seed: int = 0,
) -> tuple[Sampler, ImageMaskDataset]:
    """Make both sides of a comparison, of one size.

    Args:
        samples: see `as_sampler`.
        real: see `as_real`.
        resolution: side for images that are read from files. None: that of the side that is in memory or drawn; 256
            if both come from files.
        seed: of the image that is drawn to learn the size of a sampler's images.

    Raises:
        As `as_sampler` and `as_real`.
    """
    if resolution is None and isinstance(real, (ImageMaskDataset, Tensor)):
        resolution = (real.images if isinstance(real, ImageMaskDataset) else real).shape[-1]
    if resolution is None and not isinstance(samples, (str, Path)):
        resolution = draw(as_sampler(samples), [0], seed)[0].shape[-1]
    resolution = resolution or FOLDER_RESOLUTION
    return as_sampler(samples, resolution), as_real(real, resolution)


def _from_rows(rows: Dataset, resolution: int) -> ImageMaskDataset:
    images, masks, names = [], [], []
    for i, row in enumerate(rows):
        name = str(row.get("file_name", i))
        photograph = image_to_array(row["image"], 3, path=name)
        if min(photograph.shape[:2]) < resolution:
            raise too_small(name, photograph.shape, resolution)
        defect = None if row.get("mask") is None else mask_to_array(row["mask"]).defect
        image, mask = fit_to_square(photograph, defect, resolution)
        images.append(torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1))))
        if mask is not None:
            masks.append(torch.from_numpy(mask)[None].to(torch.uint8) * 255)
        names.append(name)
    if not images:
        raise ValueError("`real` holds no images to measure against.")
    return ImageMaskDataset(torch.stack(images), torch.stack(masks) if len(masks) == len(images) else None, names)
