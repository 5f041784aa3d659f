"""A data set on the Hub as files in the folder layout of MVTec AD, so that all else works on it unchanged."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, get_args

from .archive import default_cache_dir
from .errors import DataError
from .mvtec_ad import load_mvtec_ad
from .records import Split


def download_category(repo_id: str, category: str | None = None, cache_dir: Path | str | None = None) -> Path:
    """Writes a category from the Hub as `train/good`, `test/<defect>` and `ground_truth/<defect>`, once.

    Args:
        repo_id: As in `hub.load_from_hub`.
        category: Category; None if there is only one.
        cache_dir: Folder under which it is written; None for that of `archive.default_cache_dir`.

    Returns:
        The category's folder.

    Raises:
        DataError: see `hub.load_from_hub`.
    """
    import datasets

    rows = load_mvtec_ad(repo_id, category, cache_dir=cache_dir)
    first = next(split for split in rows.values() if len(split))
    name = first.features["category"].int2str(first[0]["category"])
    # The cache files' paths hold a hash of the repository's commit.
    sources = sorted(file["filename"] for split in rows.values() for file in split.cache_files)
    key = hashlib.sha256("\n".join([repo_id, name, *sources]).encode()).hexdigest()[:16]
    parent = (default_cache_dir() if cache_dir is None else Path(cache_dir)) / f"{repo_id.replace('/', '--')}-{key}"
    folder = parent / _checked(name)
    if folder.is_dir():
        return folder
    parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=parent, prefix=f".{name}."))
    try:
        for split_name, split in rows.items():
            for column in ("image", "mask"):
                split = split.cast_column(column, datasets.Image(decode=False))
            for row in split:
                _write_row(aside, row, split_name, split.features["defect"].int2str(row["defect"]))
        aside.chmod(0o755)
        try:
            os.replace(aside, folder)
        except OSError:  # another process was faster
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _write_row(folder: Path, row: dict[str, Any], split: str, defect: str) -> None:
    """Writes a photograph and its mask.

    A name in the layout of MVTec AD says the split: generated sets have but one on the Hub. Other names, as those of
    imagefolders, keep all of their parts, by which they differ.
    """
    parts = row["file_name"].split("/")
    if len(parts) == 3 and parts[0] in get_args(Split):
        split, _, name = parts
    else:
        name = "_".join(parts)
    _write(folder / _checked(split) / _checked(defect) / _checked(name), row["image"])
    if row["mask"] is not None:
        _write(folder / "ground_truth" / defect / f"{Path(name).stem}_mask.png", row["mask"])


def _checked(name: str) -> str:
    """The name, if it is one: a repository may not choose where files are written."""
    if name in ("", ".", "..") or "/" in name or "\\" in name or ":" in name:
        raise DataError(
            "hub",
            name,
            found="a name in a data set on the Hub that is no plain file name",
            expected="split, defect and file names without path separators",
            advice="Do not use this data set.",
        )
    return name


def _write(path: Path, image: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes())
