"""From what the user names (a data set, an archive, own folders) to a list of files."""

from __future__ import annotations

import re
from pathlib import Path

from .archive import unpacked
from .folders import list_folders
from .imagefolder import list_imagefolder, metadata_files
from .mvtec_layout import find_category, list_category
from .records import Listing

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_hub_id(source: Path | str) -> bool:
    """Whether `source` is no path here and has the form `user/name` of a repository on the Hub."""
    return not Path(source).exists() and _REPO_ID.fullmatch(str(source)) is not None


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
            archive of either; a Hugging Face imagefolder with a mask column; the id of a set on the Hub.
        category: Category; None if there is only one.
        good_dir: Defect-free photographs, without that layout.
        defect_dir: Photographs of one kind of defect.
        mask_dir: Their masks.
        defect: Name for the kind of defect in `defect_dir`.
        cache_dir: Where an archive or a set from the Hub is unpacked.

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
    if is_hub_id(data_dir):
        # Imports datasets, which takes a second that those who train on a folder need not wait for.
        from .hub_folder import download_category

        return list_category(download_category(str(data_dir), category, cache_dir))
    root = unpacked(root, cache_dir)
    for folder in (root / category, root) if category else (root,):
        if metadata_files(folder):
            return list_imagefolder(folder, category)
    return list_category(find_category(root, category))
