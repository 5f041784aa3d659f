"""List the photographs and masks of a folder or an archive, in any of the supported layouts."""

from __future__ import annotations

import csv
import difflib
import hashlib
import json
import lzma
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, get_args

from filelock import FileLock

from ..files import whole_folder
from .records import GOOD, IMAGE_EXTENSIONS, DataError, ImageRecord, Listing, Split, image_files, shorten

_MVTEC_AD_DEFECTS = {
    "bottle": "broken_large broken_small contamination",
    "cable": "bent_wire cable_swap combined cut_inner_insulation cut_outer_insulation missing_cable missing_wire "
    "poke_insulation",
    "capsule": "crack faulty_imprint poke scratch squeeze",
    "carpet": "color cut hole metal_contamination thread",
    "grid": "bent broken glue metal_contamination thread",
    "hazelnut": "crack cut hole print",
    "leather": "color cut fold glue poke",
    "metal_nut": "bent color flip scratch",
    "pill": "color combined contamination crack faulty_imprint pill_type scratch",
    "screw": "manipulated_front scratch_head scratch_neck thread_side thread_top",
    "tile": "crack glue_strip gray_stroke oil rough",
    "toothbrush": "defective",
    "transistor": "bent_lead cut_lead damaged_case misplaced",
    "wood": "color combined hole liquid scratch",
    "zipper": "broken_teeth combined fabric_border fabric_interior rough split_teeth squeezed_teeth",
}
MVTEC_AD_DEFECTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {category: tuple(kinds.split()) for category, kinds in _MVTEC_AD_DEFECTS.items()}
)
"""The 15 categories of MVTec AD (Bergmann et al., CVPR 2019) with their kinds of defect."""

_METADATA_NAMES = ("metadata.csv", "metadata.jsonl")
_MASK_COLUMNS = ("mask_file_name", "mask")
# `_mask`, `-gt`, `.label`, `_ground_truth`: words, never numbers, so that part_2_mask is not taken for a mask of part.
_SUFFIX = re.compile(r"(?:[_\-. ][A-Za-z]+){0,2}")
_TEXT_EXTENSIONS = frozenset({".txt", ".md", ".csv", ".jsonl"})


def list_data_dir(root: Path, category: str | None = None) -> Listing:
    """List one category of a data set in either layout: an imagefolder, or that of MVTec AD.

    Args:
        root: The data set, or the folder of the category.
        category: Name of the object; None if there is only one.

    Raises:
        DataError: see `list_imagefolder` and `find_category`.
    """
    for folder in (root / category, root) if category else (root,):
        if metadata_files(folder):
            return list_imagefolder(folder, category)
    return list_category(find_category(root, category))


# The folder layout of MVTec AD


def is_category_folder(folder: Path) -> bool:
    """Tell whether `folder` looks like one category: it holds `train/good`, or `test` with subfolders."""
    test = folder / "test"
    return (folder / "train" / GOOD).is_dir() or (test.is_dir() and any(path.is_dir() for path in test.iterdir()))


def category_folders(root: Path) -> list[str]:
    """Return the names of the category folders directly inside `root`, sorted."""
    if not root.is_dir():
        return []
    return sorted(path.name for path in root.iterdir() if path.is_dir() and is_category_folder(path))


def find_category(root: Path, category: str | None) -> Path:
    """Find the folder of a category, given the data set's root or that folder itself.

    Raises:
        DataError: (`no_images`, `unknown_category`) that lists the names that would be right.
    """
    if not root.is_dir():
        advice = "Check the path, or give --good_dir, --defect_dir and --mask_dir for photographs without it."
        raise DataError("no_images", root, "there is no such folder", "a folder in the layout of MVTec AD", advice)
    if is_category_folder(root) and category in (None, root.name):
        return root
    present = category_folders(root)
    if category in present or (category is None and len(present) == 1):
        return root / (category or present[0])
    if present:
        raise unknown_category(root, category, present)
    advice = "Give --good_dir, --defect_dir and --mask_dir for photographs without that layout."
    if is_category_folder(root):
        advice = f"This folder is itself a category: leave --category out, or say --category {root.name}."
    elif category is not None and category not in MVTEC_AD_DEFECTS:
        close = difflib.get_close_matches(category, MVTEC_AD_DEFECTS, n=1)
        hint = f" (did you mean {close[0]}?)" if close else ""
        advice += f" MVTec AD has {', '.join(MVTEC_AD_DEFECTS)}{hint}."
    found = f"no category '{category}'" if category else "no category folder"
    raise DataError(
        "unknown_category",
        root,
        found=f"{found}; the folder holds {shorten(sorted(path.name for path in root.iterdir()))}",
        expected="CATEGORY/train/good/*.png, CATEGORY/test/DEFECT/*.png, CATEGORY/ground_truth/DEFECT/*_mask.png",
        advice=advice,
    )


def unknown_category(source: Path | str, category: str | None, present: Sequence[str]) -> DataError:
    """Return the error for a category that is not among those present, or for none that was chosen of several."""
    close = difflib.get_close_matches(category or "", present, n=1)
    return DataError(
        "unknown_category",
        source,
        found="several categories and none was chosen" if category is None else f"no category '{category}'",
        expected=f"one of {shorten(present, 20)}",
        advice=f"Say --category {close[0] if close else present[0]}.",
    )


def list_category(folder: Path) -> Listing:
    """List a category's folder: `train/good`, `test/good`, `test/<defect>` and `ground_truth/<defect>`."""
    listing = Listing(root=folder, category=folder.name)
    for split in get_args(Split):
        parent = folder / split
        for kind in sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []:
            images, others = image_files(kind)
            listing.ignored_files += others
            if kind.name == GOOD:
                listing.records += [ImageRecord(f"{split}/{GOOD}/{i.name}", i, None, GOOD, split) for i in images]
                continue
            mask_dir = folder / "ground_truth" / kind.name
            masks, others = image_files(mask_dir) if mask_dir.is_dir() else ([], [])
            listing.ignored_files += others
            _add_defects(listing, images, masks, mask_dir, kind.name, split)
    return listing


# The user's own folders: good photographs, photographs of a defect, masks


def list_folders(
    good_dir: Path | None = None,
    defect_dir: Path | None = None,
    mask_dir: Path | None = None,
    *,
    defect: str | None = None,
    category: str | None = None,
) -> Listing:
    """List photographs that lie in plain folders.

    Names are those of the MVTec AD layout, `train/good/<file>` and `test/<defect>/<file>`, so that file lists stay
    valid when the photographs move to that layout.

    Args:
        good_dir: Defect-free photographs.
        defect_dir: Photographs of one kind of defect.
        mask_dir: Their masks; None if they lie in `defect_dir` beside the photographs.
        defect: Name of the kind of defect; None for the name of `defect_dir`.
        category: Name of the object; None for the name of the folder that holds the photographs' folder.

    Raises:
        DataError: (`no_images`) if a folder is missing or holds no image.
        ValueError: if neither `good_dir` nor `defect_dir` is given, or `mask_dir` without `defect_dir`.
    """
    if mask_dir is not None and defect_dir is None:
        raise ValueError(f"mask_dir={mask_dir} needs defect_dir, the folder of the photographs that it belongs to.")
    if good_dir is None and defect_dir is None:
        raise ValueError("Give good_dir, or defect_dir and mask_dir, or all three.")
    root = (good_dir or defect_dir or Path()).resolve().parent
    listing = Listing(root=root, category=category or root.name)
    if defect_dir is not None:
        files = _images(listing, defect_dir, "defect_dir")
        if mask_dir is None or mask_dir.resolve() == defect_dir.resolve():
            images, masks = split_images_and_masks(files)
        else:
            images, masks = files, _images(listing, mask_dir, "mask_dir")
        _add_defects(listing, images, masks, mask_dir or defect_dir, defect or defect_dir.resolve().name, "test")
    if good_dir is not None:
        for image in _images(listing, good_dir, "good_dir"):
            listing.records.append(ImageRecord(f"train/{GOOD}/{image.name}", image, None, GOOD, "train"))
    listing.records.sort(key=lambda record: record.name)
    return listing


def _images(listing: Listing, folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            "no_images", folder, "there is no such folder", f"a folder of images (--{option})", "Check the path."
        )
    images, others = image_files(folder)
    listing.ignored_files += others
    if not images:
        subfolders = sorted(path.name for path in folder.iterdir() if path.is_dir())
        raise DataError(
            "no_images",
            folder,
            found=f"no images, {len(others)} other files and {len(subfolders)} folders",
            expected=f"images directly inside it (--{option})",
            advice=f"Give the folder that holds them, such as {folder / subfolders[0]}."
            if subfolders
            else "PNG, JPEG, TIFF, BMP, WebP, GIF, PPM and PGM files are read.",
        )
    return images


# Hugging Face imagefolders: photographs and a metadata file with a column of masks


def metadata_files(root: Path) -> list[Path]:
    """Return the metadata files of an imagefolder, in `root` or in its `train` and `test`; empty if it is none."""
    folders = [root, root / "train", root / "test"]
    return [folder / name for folder in folders for name in _METADATA_NAMES if (folder / name).is_file()]


def list_imagefolder(root: Path, category: str | None = None) -> Listing:
    """List an imagefolder whose metadata has `file_name` and `mask_file_name` (or `mask`), and perhaps `defect`.

    Rows without a mask are defect-free, unless `defect` says otherwise. The kind of defect is the column `defect`, or
    `defect` where there is no such column. The split is that of the folder `train` or `test` in which the metadata
    lies, or else `train` for defect-free rows and `test` for the others.

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
    defect = str(row.get("defect") or ("defect" if mask else GOOD))
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
            file, f"the file name {name!r}", "paths of files below its folder", "Move the files, or correct the row."
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


# Masks are named like their photographs


def match_masks(
    images: Sequence[Path], masks: Sequence[Path], mask_dir: Path
) -> tuple[dict[Path, Path | DataError], list[Path]]:
    """Match masks to photographs by stem, with or without a suffix such as `_mask`; file endings may differ.

    Returns:
        By photograph its mask, or an error that names `mask_dir` (`no_mask` or `several_masks`); and the masks that
        belong to none.
    """
    image_stems = {image.stem for image in images}
    by_stem: dict[str | None, list[Path]] = {}
    for mask in masks:
        by_stem.setdefault(_image_stem(mask.stem, image_stems), []).append(mask)
    orphans = by_stem.pop(None, [])
    matches: dict[Path, Path | DataError] = {}
    for image in images:
        found = by_stem.get(image.stem, [])
        if len(found) == 1:
            matches[image] = found[0]
        elif not found:
            matches[image] = DataError(
                "no_mask",
                image,
                found=f"an image without a mask; {mask_dir} holds {shorten(m.name for m in masks)}",
                expected=f"{mask_dir / image.stem}_mask.png, or the same stem with another suffix or file ending",
                advice="Add the mask, rename it, or leave the image out with --skip_bad_files or --file_list.",
            )
        else:
            matches[image] = DataError(
                "several_masks",
                image,
                found=f"{len(found)} files that could be its mask: {shorten(m.name for m in found)}",
                expected=f"one mask in {mask_dir}",
                advice="Move the others elsewhere, or merge them into one mask.",
            )
    return matches, orphans


def _add_defects(
    listing: Listing, images: Sequence[Path], masks: Sequence[Path], mask_dir: Path, defect: str, split: Split
) -> None:
    matches, orphans = match_masks(images, masks, mask_dir)
    listing.orphan_masks += orphans
    for image, mask in matches.items():
        name = f"{split}/{defect}/{image.name}"
        path, error = (None, mask) if isinstance(mask, DataError) else (mask, None)
        listing.records.append(ImageRecord(name, image, path, defect, split, error))


def split_images_and_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell photographs from masks where both lie in one folder: `x_mask.png` is a mask if there is an `x`."""
    stems = {path.stem for path in files}
    is_mask = {path: _image_stem(path.stem, stems - {path.stem}) is not None for path in files}
    return [p for p in files if not is_mask[p]], [p for p in files if is_mask[p]]


def _image_stem(mask_stem: str, image_stems: set[str]) -> str | None:
    """Return the longest image stem that `mask_stem` is, or begins with followed by a suffix of words."""
    for length in range(len(mask_stem), 0, -1):
        stem = mask_stem[:length]
        if stem in image_stems and _SUFFIX.fullmatch(mask_stem[length:]):
            return stem
    return None


# Archives: extracted once, and only what belongs to a data set


def default_cache_dir() -> Path:
    """Return where archives and Hub data sets are unpacked unless told otherwise: beside the caches of `datasets`."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "dfmgan_hf"


def make_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Make a folder of a cache, whole or not at all, unless it is there; other processes that need it wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            with whole_folder(folder) as aside:
                fill(aside)
    return folder


def extract_archive(archive: Path, cache_dir: Path | None = None, max_bytes: int = 64 * 2**30) -> Path:
    """Extract a tar archive (xz, gz, bz2 or plain) of images below `cache_dir`, and return the folder.

    That is done once, unless the archive's size or time changes. Only regular files with the ending of an image or a
    text are written. A member that points outside the folder, a link or a device stops the extraction, and so do more
    than `max_bytes`; nothing half-extracted is left behind.

    Raises:
        DataError: (`archive`) that names the archive and the member.
    """
    status = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = (cache_dir or default_cache_dir()) / f"{archive.name.split('.')[0]}-{key}"
    return make_once(target, lambda folder: _extract(archive, folder, max_bytes))


def unpacked(path: Path, cache_dir: Path | str | None = None) -> Path:
    """Return the folder itself, or that of an archive's content, without the folder that wraps it all, if any."""
    if not path.is_file():
        return path
    folder = extract_archive(path, None if cache_dir is None else Path(cache_dir))
    entries = [entry for entry in folder.iterdir() if entry.is_dir()]
    if len(entries) == 1 and category_folders(entries[0]):
        return entries[0]
    return folder


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    extracted_bytes = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                path = _checked_path(archive, member)
                if not member.isfile() or path.suffix.lower() not in IMAGE_EXTENSIONS | _TEXT_EXTENSIONS:
                    continue
                extracted_bytes += member.size
                if extracted_bytes > max_bytes:
                    raise _bad_archive(archive, f"more than {max_bytes} bytes", f"at most {max_bytes} bytes of images")
                source = tar.extractfile(member)
                assert source is not None  # only for members that are no regular files
                destination = folder / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with source, destination.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 2**20)
            _check_end(archive, tar)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        # tarfile lists on several lines how each compression it knows did not fit.
        reason = "no tar archive, or damaged at its beginning" if "\n" in str(error) else str(error)
        raise _damaged(archive, reason) from error
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise on damaged data
            raise _damaged(archive, str(error)) from error
        raise DataError(
            "archive",
            archive,
            found=f"a member that cannot be written ({error})",
            expected=f"names that the file system allows, and space and permission to write in {folder.parent}",
            advice="Fix that, or extract it yourself and give the folder.",
        ) from error


def _check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Check that nothing but zeros, and at least a block of them, is left where tarfile saw the end.

    It takes a damaged header for the end as well. Reading on also checks the sums that compression adds at the end.
    """
    assert tar.fileobj is not None  # only once closed
    num_left = 0
    while rest := tar.fileobj.read(2**20):
        num_left += len(rest)
        if any(rest):
            raise _damaged(archive, "a header amid the files is not one")
    if num_left < tarfile.BLOCKSIZE:
        raise _damaged(archive, "it breaks off without an end")


def _damaged(archive: Path, reason: str) -> DataError:
    return _bad_archive(archive, f"an archive that does not unpack ({reason})", "a whole tar.xz, tar.gz or tar file")


def _checked_path(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or any(character in member.name for character in "\\:\0"):
        raise _bad_archive(archive, f"the member {member.name!r}, which points outside", "paths inside the archive")
    if not (member.isfile() or member.isdir()):
        raise _bad_archive(archive, f"the member {member.name!r}, a link or device", "files and folders only")
    return path


def _bad_archive(archive: Path, found: str, expected: str) -> DataError:
    return DataError(
        "archive",
        archive,
        found=found,
        expected=expected,
        advice="Download it again from a source you trust, or extract it yourself and give the folder.",
    )
