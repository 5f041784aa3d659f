"""Photographs and masks: reading, checking, and turning them into training sets and `datasets.DatasetDict`s."""

from typing import TYPE_CHECKING, Any

from .partitions import (
    Partition,
    first_third_partition,
    make_partitions,
    read_file_list,
    read_groups,
    save_file_list,
)
from .records import DataError, DataWarning
from .sources import DataSource, find_listing
from .training_set import DataConfig, ImageMaskDataset, load_training_set

if TYPE_CHECKING:
    from .hub import load_mvtec_ad

__all__ = [
    "DataConfig",
    "DataError",
    "DataSource",
    "DataWarning",
    "ImageMaskDataset",
    "Partition",
    "find_listing",
    "first_third_partition",
    "load_mvtec_ad",
    "load_training_set",
    "make_partitions",
    "read_file_list",
    "read_groups",
    "save_file_list",
]


def __getattr__(name: str) -> Any:
    """Import what needs `datasets` when it is asked for: that takes a second."""
    if name == "load_mvtec_ad":
        from .hub import load_mvtec_ad

        return load_mvtec_ad
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
