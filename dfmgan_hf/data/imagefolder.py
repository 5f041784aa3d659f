"""Hugging Face imagefolders: photographs and a metadata file with a column of masks."""

from __future__ import annotations

import csv
import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

from .errors import DataError
from .mvtec_layout import find_category, list_category
from .records import GOOD, ImageRecord, Listing, Split, shorten

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_MASK_COLUMNS = ("mask_file_name", "mask")
_UNNAMED_DEFECT = "defect"


def metadata_files(root: Path) -> list[Path]:
    """Return the metadata files of an imagefolder, in `root` or in its `train` and `test`; empty if it is none."""
    folders = [root, root / "train", root / "test"]
    return [folder / name for folder in folders for name in METADATA_NAMES if (folder / name).is_file()]


def list_data_dir(root: Path, category: str | None = None) -> Listing:
    """List one category of a data set in either layout: an imagefolder, or that of MVTec AD.

    Args:
        root: The data set, or the folder of the category.
        category: Category; None if there is only one.

    Raises:
        DataError: see `list_imagefolder` and `find_category`.
    """
    for folder in (root / category, root) if category else (root,):
        if metadata_files(folder):
            return list_imagefolder(folder, category)
    return list_category(find_category(root, category))


def list_imagefolder(root: Path, category: str | None = None) -> Listing:
    """List an imagefolder whose metadata has `file_name` and `mask_file_name` (or `mask`), and perhaps `defect`.

    Rows without a mask are defect-free, unless `defect` says otherwise. The kind of defect is the column `defect`, or
    `defect` where there is no such column. The split is that of the folder `train` or `test` in which the metadata
    lies, or else `train` for defect-free rows and `test` for the others.

    Args:
        root: The imagefolder, with a metadata file (see `metadata_files`).
        category: Name of the object; None for the folder's name.

    Raises:
        DataError: (`metadata`) if its metadata are not what is described above.
    """
    listing = Listing(root=root, category=category or root.resolve().name)
    files = metadata_files(root)
    for file in files:
        for row in _read_rows(file):
            _add_row(listing, file, row)
    listing.records.sort(key=lambda record: record.name)
    for first, second in pairwise(listing.records):
        if first.name == second.name:
            raise _bad_metadata(
                files[0], f"{first.name} in two rows", "one row for each photograph", "Remove all but one."
            )
    return listing


def _add_row(listing: Listing, file: Path, row: dict[str, Any]) -> None:
    image = _inside(file, row["file_name"])
    mask_name = next((row[column] for column in _MASK_COLUMNS if row.get(column)), None)
    mask = _inside(file, mask_name) if mask_name else None
    defect = str(row.get("defect") or (_UNNAMED_DEFECT if mask else GOOD))
    if defect in (".", "..") or any(character in defect for character in "/\\:\0"):  # it becomes a folder's name
        raise _bad_metadata(file, f"the defect {defect!r}", "a name that a folder can have", "Rename it.")
    split: Split = "train" if defect == GOOD else "test"
    if file.parent != listing.root:
        split = "train" if file.parent.name == "train" else "test"
    name = image.relative_to(os.path.abspath(listing.root)).as_posix()
    error = None
    if defect != GOOD and mask is None:
        error = DataError(
            "no_mask",
            image,
            found=f"a row of {file} with defect '{defect}' and without a mask",
            expected=f"the mask's path in the column {_MASK_COLUMNS[0]}",
            advice="Add the mask, or leave the image out with --skip_bad_files.",
        )
    listing.records.append(ImageRecord(name, image, mask if defect != GOOD else None, defect, split, error))


def _inside(file: Path, name: object) -> Path:
    """Return the file of that name beside a metadata file; one that lies elsewhere is not part of the data set."""
    folder = os.path.abspath(file.parent)
    path = os.path.normpath(os.path.join(folder, name)) if isinstance(name, str) and "\0" not in name else ""
    if not path.startswith(f"{folder}{os.sep}"):
        raise _bad_metadata(
            file,
            f"the file name {name!r}",
            "paths of files below its folder",
            "Move the files there, or mend the row.",
        )
    return Path(path)


def _read_rows(file: Path) -> list[dict[str, Any]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if file.suffix == ".csv":
                rows: list[dict[str, Any]] = list(csv.DictReader(stream))
            else:
                rows = [json.loads(line) for line in stream if line.strip()]
    except (ValueError, csv.Error) as error:
        raise _bad_metadata(file, f"text that does not parse ({error})") from error
    if not all(isinstance(row, dict) for row in rows):
        raise _bad_metadata(file, "a line that is no JSON object")
    columns = {column for row in rows for column in row}
    if not all(row.get("file_name") for row in rows) or not columns.intersection(_MASK_COLUMNS):
        raise _bad_metadata(file, f"the columns {shorten(sorted(map(str, columns)))}")
    return rows


def _bad_metadata(
    file: Path,
    found: str,
    expected: str = "file_name in every row, and mask_file_name (empty for defect-free photographs)",
    advice: str = "Add the columns; huggingface.co/docs/datasets/image_dataset shows the format.",
) -> DataError:
    return DataError("metadata", file, found=found, expected=expected, advice=advice)
