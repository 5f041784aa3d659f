"""Photographs and masks: reading, checking, and turning them into training sets and `datasets.DatasetDict`s."""

from .errors import DataError, DataWarning
from .mvtec_layout import MVTEC_AD_DEFECTS
from .reading import read_image, read_mask
from .training_set import ImageMaskDataset, load_training_set
from .transforms import fit_to_square, resize_mask

__all__ = [
    "MVTEC_AD_DEFECTS",
    "DataError",
    "DataWarning",
    "ImageMaskDataset",
    "fit_to_square",
    "load_training_set",
    "read_image",
    "read_mask",
    "resize_mask",
]
