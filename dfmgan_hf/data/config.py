"""The data options that every training script has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from torch import Tensor

from .dataset import ImageMaskDataset, join_kinds
from .errors import DataError
from .foregrounds import read_foregrounds
from .records import Listing, Split, shorten
from .sources import find_listing
from .training_set import load_training_set
from .transforms import Fit


@dataclass(frozen=True)
class DataConfig:
    """Where the photographs are and how they are read: `data_dir`, or `good_dir`, `defect_dir` and `mask_dir`.

    Attributes:
        data_dir: Data set in the layout of MVTec AD (its root, or one category), a tar archive of it, or an
            imagefolder with a mask column.
        category: Category of the data set; needed if there are several.
        good_dir: One's own photographs without that layout: the defect-free ones.
        defect_dir: One's own photographs: those of one kind of defect.
        mask_dir: Their masks, named like them with or without a suffix such as _mask.
        fit: How other shapes become square: stretched (resize), their middle (center_crop), or with a border (pad).
        bit_depth: Significant bits of 16-bit photographs (12 for the raw values of many cameras).
        shots: Train on this many defect photographs, drawn at random.
        shots_seed: Seed of that draw.
        file_list: Text file with the names of the photographs to use, one a line.
        skip_bad_files: Leave files with problems out and list them, instead of stopping at the first.
        cache_dir: Folder that keeps prepared photographs for the next run.
    """

    data_dir: Path | None = None
    category: str | None = None
    good_dir: Path | None = None
    defect_dir: Path | None = None
    mask_dir: Path | None = None
    fit: Fit = "resize"
    bit_depth: int = 16
    shots: int | None = None
    shots_seed: int = 0
    file_list: Path | None = None
    skip_bad_files: bool = False
    cache_dir: Path | None = None

    def load_good(self, *, resolution: int = 256, image_channels: int = 3, split: Split = "train") -> ImageMaskDataset:
        """Loads the defect-free photographs, all of them: `shots` are defect photographs.

        Args:
            resolution: Side of the training images in pixels.
            image_channels: 3, or 1 for grey.
            split: Those for training, or those that the data set keeps for testing.

        Raises:
            DataError: see `load_training_set`.
        """
        return load_training_set(
            **{**self._options(), "shots": None}, resolution=resolution, image_channels=image_channels, split=split
        )

    def load_defects(
        self, defect: str | None = None, *, resolution: int = 256, image_channels: int = 3
    ) -> ImageMaskDataset:
        """Loads the photographs of one kind of defect with their masks.

        Args:
            defect: Kind of defect; None if there is only one, as with `defect_dir`.
            resolution: Side of the training images in pixels.
            image_channels: 3, or 1 for grey.

        Raises:
            DataError: see `load_training_set`; (`unknown_defect`) lists the kinds if there are several.
        """
        kind = defect if defect is not None else self._only_defect()
        return load_training_set(
            **self._options(), defect=kind, resolution=resolution, image_channels=image_channels, min_images=1
        )

    def load_kinds(
        self, defects: Sequence[str] = (), *, resolution: int = 256, image_channels: int = 3
    ) -> ImageMaskDataset:
        """Loads the photographs of several kinds of defect as one labelled set; `shots` are of each kind.

        Args:
            defects: Kinds of defect; all of the category if empty.
            resolution: Side of the training images in pixels.
            image_channels: 3, or 1 for grey.

        Raises:
            DataError: see `load_training_set`; (`one_kind`) if that is one kind alone.
        """
        listing = self.listing()
        kinds = tuple(dict.fromkeys(defects or listing.defects))
        if len(kinds) < 2:
            raise DataError(
                "one_kind",
                listing.root,
                found=f"a single kind of defect to learn ({shorten(kinds)})",
                expected="at least two, to be learnt jointly",
                advice=f"Name more of {shorten(listing.defects)} with --defect, or leave --joint out.",
            )
        return join_kinds(
            {k: self.load_defects(k, resolution=resolution, image_channels=image_channels) for k in kinds}
        )

    def listing(self) -> Listing:
        """All files of the category, before any choice.

        Raises:
            DataError: see `find_listing`.
        """
        return find_listing(
            self.data_dir,
            self.category,
            good_dir=self.good_dir,
            defect_dir=self.defect_dir,
            mask_dir=self.mask_dir,
            cache_dir=self.cache_dir,
        )

    def load_foregrounds(self, folder: Path, file_names: Sequence[str], resolution: int = 256) -> Tensor:
        """Loads where the product is on defect-free photographs.

        Args:
            folder: A mask for each of them; see `read_foregrounds`.
            file_names: Of the photographs, as `load_good` gives them.
            resolution: Side of the training images in pixels.

        Returns:
            bool (N, resolution, resolution), in the order of `file_names`.

        Raises:
            DataError: see `read_foregrounds`.
        """
        records = {record.name: record for record in self.listing().select(None)}
        return read_foregrounds(folder, [records[name] for name in file_names], resolution, self.fit)

    def _options(self) -> dict[str, Any]:
        return {field.name: getattr(self, field.name) for field in fields(self)}

    def _only_defect(self) -> str:
        listing = self.listing()
        if len(listing.defects) != 1:
            raise DataError(
                "unknown_defect",
                listing.root,
                found=f"{len(listing.defects)} kinds of defect and none was chosen",
                expected=f"one of {shorten(listing.defects)}",
                advice="Say which with --defect.",
            )
        return listing.defects[0]
