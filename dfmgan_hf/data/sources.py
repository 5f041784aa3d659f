"""From what the user names (a data set, an archive, own folders) to a list of files."""

from __future__ import annotations

from pathlib import Path

from .archive import extract_archive
from .folders import list_folders
from .imagefolder import list_imagefolder, metadata_files
from .mvtec_layout import category_folders, find_category, list_category
from .records import Listing


def find_listing(
    data_dir: Path | str | None = None,
    category: str | None = None,
    *,
    good_dir: Path | str | None = None,
    defect_dir: Path | str | None = None,
    mask_dir: Path | str | None = None,
    defect: str | None = None,
    cache_dir: Path | str | None = None,
) -> Listing:
    """Lists the photographs of a data set or of one's own folders.

    Args:
        data_dir: One of: the root of a data set in the layout of MVTec AD, or one of its category folders; a tar
            archive of either; a Hugging Face imagefolder with a mask column.
        category: Category; None if there is only one.
        good_dir: Defect-free photographs, without that layout.
        defect_dir: Photographs of one kind of defect.
        mask_dir: Their masks.
        defect: Name for the kind of defect in `defect_dir`.
        cache_dir: Where an archive is extracted.

    Raises:
        DataError: that names the folder or archive and says what it lacks.
        ValueError: if both `data_dir` and own folders are given, or neither.
    """
    own = [None if folder is None else Path(folder) for folder in (good_dir, defect_dir, mask_dir)]
    if any(own):
        if data_dir is not None:
            raise ValueError("Give either data_dir or good_dir, defect_dir and mask_dir, not both.")
        return list_folders(*own, defect=defect, category=category)
    if data_dir is None:
        raise ValueError("Give data_dir (and category), or good_dir, defect_dir and mask_dir.")
    root = Path(data_dir)
    if root.is_file():
        root = _unwrap(extract_archive(root, None if cache_dir is None else Path(cache_dir)))
    for folder in (root / category, root) if category else (root,):
        if metadata_files(folder):
            return list_imagefolder(folder, category)
    return list_category(find_category(root, category))


def _unwrap(folder: Path) -> Path:
    """The first folder with more than one entry or with a category in it: archives often wrap all in one folder."""
    entries = [path for path in folder.iterdir() if path.is_dir()]
    while len(entries) == 1 and not category_folders(folder) and category_folders(entries[0]):
        folder = entries[0]
        entries = [path for path in folder.iterdir() if path.is_dir()]
    return folder
