"""A data set on the Hub as files in the folder layout of MVTec AD, so that all else works on it unchanged."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, get_args

from .archive import default_cache_dir, make_once
from .errors import DataError
from .records import Split


def download_category(repo_id: str, category: str | None = None, cache_dir: Path | str | None = None) -> Path:
    """Write a category from the Hub as `train/good`, `test/<defect>` and `ground_truth/<defect>`, once.

    Args:
        repo_id: As in `hub.load_from_hub`.
        category: Category; None if there is only one.
        cache_dir: Folder under which it is written; None for that of `archive.default_cache_dir`.

    Returns:
        The category's folder.

    Raises:
        DataError: see `hub.load_from_hub`.
    """
    # It takes a second to import, which those who train on a folder need not wait for.
    import datasets

    from .mvtec_ad import load_mvtec_ad

    rows = load_mvtec_ad(repo_id, category, cache_dir=cache_dir)
    first = next(split for split in rows.values() if len(split))
    name = first.features["category"].int2str(first[0]["category"])
    # The cache files' paths hold a hash of the repository's commit.
    sources = sorted(file["filename"] for split in rows.values() for file in split.cache_files)
    key = hashlib.sha256("\n".join([repo_id, name, *sources]).encode()).hexdigest()[:16]
    parent = Path(cache_dir or default_cache_dir()) / f"{repo_id.replace('/', '--')}-{key}"

    def fill(folder: Path) -> None:
        for split_name, split in rows.items():
            for column in ("image", "mask"):
                split = split.cast_column(column, datasets.Image(decode=False))
            for row in split:
                _write_row(folder, row, split_name, split.features["defect"].int2str(row["defect"]))

    return make_once(parent / _checked(name), fill)


def _write_row(folder: Path, row: dict[str, Any], split: str, defect: str) -> None:
    """Write a photograph and its mask.

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
    """Return the name, if it is one: a repository may not choose where files are written."""
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
