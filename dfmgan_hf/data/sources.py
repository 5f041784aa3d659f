"""From what the user names (a data set, an archive, own folders, a set on the Hub) to a list of files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .archive import unpacked
from .folders import list_folders
from .hub_folder import download_category
from .imagefolder import list_data_dir
from .mvtec_layout import list_category
from .records import Listing, is_hub_id


@dataclass(frozen=True)
class DataSource:
    """Where the photographs are: `data_dir`, or `good_dir`, `defect_dir` and `mask_dir`.

    Attributes:
        data_dir: Data set in the layout of MVTec AD (its root, or one category), a tar archive of it, an imagefolder
            with a mask column, or the Hub id of a set.
        category: Category of the data set; needed if there are several.
        good_dir: One's own photographs without that layout: the defect-free ones.
        defect_dir: One's own photographs: those of one kind of defect.
        mask_dir: Their masks, named like them with or without a suffix such as _mask.
    """

    data_dir: Path | None = None
    category: str | None = None
    good_dir: Path | None = None
    defect_dir: Path | None = None
    mask_dir: Path | None = None


def find_listing(source: DataSource, defect: str | None = None, *, cache_dir: Path | None = None) -> Listing:
    """List the photographs of a data set or of one's own folders.

    Args:
        source: Where they are.
        defect: Name for the kind of defect in `defect_dir`; None for the folder's own.
        cache_dir: Where an archive or a set from the Hub is unpacked.

    Raises:
        DataError: that names the folder or archive and says what it lacks.
        ValueError: if both `data_dir` and own folders are given, or neither.
    """
    folders = source.good_dir, source.defect_dir, source.mask_dir
    if any(folders):
        if source.data_dir is not None:
            raise ValueError("Give either data_dir or good_dir, defect_dir and mask_dir, not both.")
        own = [None if folder is None else Path(folder) for folder in folders]
        return list_folders(*own, defect=defect, category=source.category)
    if source.data_dir is None:
        raise ValueError("Give data_dir (and category), or good_dir, defect_dir and mask_dir.")
    root, category = Path(source.data_dir), source.category
    if is_hub_id(root):
        return list_category(download_category(root.as_posix(), category, cache_dir))
    return list_data_dir(unpacked(root, cache_dir), category)
