"""List the photographs and masks of a folder, in any of the supported layouts."""

from __future__ import annotations

import difflib
import json
import os
import re
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from .records import (
    GOOD,
    DataError,
    ImageRecord,
    LeftOver,
    Listing,
    Split,
    is_folder_name,
    is_one_line,
    left_over_folder,
    list_entries,
    normalised,
    printable,
    read_csv,
    shorten,
    walk_entries,
)

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
GOOD_FOLDERS = frozenset({GOOD, "ok"})  # BTAD calls them ok, and its defects ko
_TEST_PLACES = ("test", "test_public")  # MVTec AD 2 keeps masks and photographs of the public test set together
# Photographs that MVTec LOCO and AD 2 have beside those for training and testing.
_UNUSED_PLACES = frozenset({"validation", "test_private", "test_private_mixed"})

# `_mask`, `-gt`, `.label`, `_ground_truth`: words, then perhaps the number of one of several instances. Never a number
# alone, so that part_2_mask is not taken for a mask of part.
_SUFFIX = re.compile(r"((?:[_\-. ][A-Za-z]+){0,2})(?:(?<=[A-Za-z])[_\-. ]?\(?(\d+)\)?)?")
_NUMBERED = re.compile(r"[_\-. ]\(?\d+\)?((?:[_\-. ][A-Za-z]+){0,2})")
_MASK_WORDS = re.compile(r".*[_\-. ](masks?|gt|truth|groundtruth|labels?|seg|segmentation|annotations?|anno)", re.I)
_LOSSY_ENDINGS = frozenset({".jpg", ".jpeg", ".webp"})


def list_data_dir(root: Path, category: str | None = None) -> Listing:
    """List one category of a data set in either layout: an imagefolder, or that of MVTec AD.

    Args:
        root: The data set, or the folder of the category.
        category: Name of the object, or its folder's path; None if there is only one.

    Raises:
        DataError: see `list_imagefolder` and `find_category`.
    """
    if category and not is_folder_name(category):  # such as `.`, `..` or an absolute path: a folder, named by itself
        root, category = Path(os.path.abspath(root / category)), None
    for folder in (root / category, root) if category else (root,):
        if metadata_files(folder):
            return list_imagefolder(folder, category)
        if is_category_folder(folder):
            break  # what lies beside a category that was named says nothing of it
    return list_category(find_category(root, category))


# The folder layout of MVTec AD


def is_category_folder(folder: Path) -> bool:
    """Tell whether `folder` looks like one category: it holds `train/good`, or `test` with subfolders."""
    return any((folder / "train" / name).is_dir() for name in GOOD_FOLDERS) or any(
        list_entries(folder / place).folders for place in _TEST_PLACES
    )


def category_folders(root: Path) -> list[str]:
    """Return the names of the category folders directly inside `root`, sorted; hidden ones are none."""
    return [path.name for path in list_entries(root).folders if is_category_folder(path)]


def name_of(folder: Path) -> str:
    """Return a folder's own name, also of `.` and `..`."""
    return normalised(os.path.basename(os.path.abspath(folder)))


def find_category(root: Path, category: str | None) -> Path:
    """Find the folder of a category, given the data set's root or that folder itself.

    Raises:
        DataError: (`no_images`, `unknown_category`) that lists the names that would be right.
    """
    if not root.is_dir():
        advice = "Check the path, or give --good_dir, --defect_dir and --mask_dir for photographs without it."
        raise DataError("no_images", root, "there is no such folder", "a folder in the layout of MVTec AD", advice)
    category = None if category is None else normalised(category)
    if is_category_folder(root) and category in (None, name_of(root)):
        return root
    present = category_folders(root)
    for name in present:
        if normalised(name) == category or (category is None and len(present) == 1):
            return root / name
    if present:
        raise unknown_category(root, category, present)
    advice = "Give --good_dir, --defect_dir and --mask_dir for photographs without that layout."
    if is_category_folder(root):
        advice = f"This folder is itself a category: leave --category out, or say --category {name_of(root)}."
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
    """List a category's folder: `train/good`, `test/good`, `test/<defect>` and `ground_truth/<defect>`.

    Those of MVTec LOCO (a folder of masks for each photograph), MVTec AD 2 (`test_public`) and BTAD (`ok` for `good`)
    are read as well.
    """
    listing = Listing(root=folder, category=name_of(folder))
    top = list_entries(folder)
    listing.left_over += [*top.left_over, *(LeftOver(image, "not_found") for image in top.images)]
    kinds: dict[str, list[tuple[Path, Split]]] = {}
    truths = [folder / "ground_truth", folder / "test_public" / "ground_truth"]
    for place in top.folders:
        if place.name == "train" or place.name in _TEST_PLACES:
            inside = list_entries(place)
            listing.left_over += [*inside.left_over, *(LeftOver(image, "not_found") for image in inside.images)]
            for kind in inside.folders:
                if kind not in truths:
                    images = kinds.setdefault(_kind_of(kind), [])
                    images += [
                        (image, "train" if place.name == "train" else "test") for image in _direct(listing, kind)
                    ]
        elif place not in truths:
            listing.left_over += left_over_folder(place, "unused" if place.name in _UNUSED_PLACES else "not_found")

    mask_dirs = {}
    for truth in truths:
        entries = list_entries(truth)
        listing.left_over += [*entries.left_over, *(LeftOver(mask, "orphan_masks") for mask in entries.images)]
        for mask_dir in entries.folders:
            kind_name = _kind_of(mask_dir)
            if kind_name in kinds and kind_name != GOOD:
                mask_dirs[kind_name] = mask_dir
            else:
                listing.left_over += left_over_folder(mask_dir, "unused" if kind_name == GOOD else "orphan_masks")
    for name, members in kinds.items():
        if name == GOOD:
            listing.records += [
                ImageRecord(f"{split}/{GOOD}/{normalised(i.name)}", i, None, GOOD, split) for i, split in members
            ]
        else:
            _add_defects(listing, members, mask_dirs.get(name, truths[0] / name), name)
    return finished(listing)


def _kind_of(folder: Path) -> str:
    return GOOD if folder.name.lower() in GOOD_FOLDERS else normalised(folder.name)


def _direct(listing: Listing, folder: Path) -> list[Path]:
    """Return the images directly inside a folder, and account for the rest of it."""
    entries = list_entries(folder)
    listing.left_over += entries.left_over
    for subfolder in entries.folders:
        listing.left_over += left_over_folder(subfolder)
    return entries.images


def finished(listing: Listing) -> Listing:
    """Sort the records, training first, and refuse those that share a name or a mask, or are a mask themselves."""
    listing.records.sort(key=lambda record: (record.split != "train", record.name))
    names = Counter(record.name for record in listing.records)
    masks = Counter(mask for record in listing.records for mask in record.masks)
    images = {record.image_path for record in listing.records}

    def problem(record: ImageRecord) -> DataError | None:
        shared = [mask for mask in record.masks if masks[mask] > 1]
        if record.error is not None:
            return record.error
        if not is_one_line(record.name):
            found, expected = (
                "a name with control characters, or that is no text in UTF-8",
                "names that a list can hold",
            )
            return DataError("name", record.image_path, found, expected, "Rename it.")
        if names[record.name] > 1:
            found = f"{names[record.name]} files that are called {record.name}"
            return DataError("same_name", record.image_path, found, "names that differ", "Rename all but one.")
        if shared:
            return _shared_mask(record.image_path, shared)
        if images.intersection(record.masks):
            return DataError(
                "mask_is_photograph",
                record.image_path,
                found=f"a mask that is listed as a photograph too ({shorten(mask.name for mask in record.masks)})",
                expected="a mask of its own",
                advice="Correct the mask's name.",
            )
        return None

    listing.records = [
        replace(each, error=problem(each), name=each.name if is_one_line(each.name) else printable(each.name))
        for each in listing.records
    ]
    return listing


def _shared_mask(image: Path, masks: Sequence[Path]) -> DataError:
    return DataError(
        "shared_mask",
        image,
        found=f"a mask that belongs to another photograph as well: {shorten(mask.name for mask in masks)}",
        expected="a mask for each photograph",
        advice="Name photographs and masks such that they differ in more than file ending and folder.",
    )


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
    if good_dir is not None and good_dir.resolve() in [d.resolve() for d in (defect_dir, mask_dir) if d is not None]:
        raise ValueError(f"good_dir={good_dir} is also the folder of the defects or of their masks: give its own.")
    root = (good_dir or defect_dir or Path()).resolve().parent
    listing = Listing(root=root, category=name_of(root / category) if category else name_of(root))
    if defect_dir is not None:
        files = _images(listing, defect_dir, "defect_dir")
        kind = normalised(defect) if defect else name_of(defect_dir)
        if not is_folder_name(kind):
            raise ValueError(f"The defect must have a name that a folder can have, but is {kind!r}.")
        masks: list[Path] | None = None
        if mask_dir is None or mask_dir.resolve() == defect_dir.resolve():
            files, masks = split_images_and_masks(files)
        elif not list_entries(mask_dir).folders:
            _images(Listing(root, ""), mask_dir, "mask_dir")  # to refuse one without any image
        _add_defects(listing, [(file, "test") for file in files], mask_dir or defect_dir, kind, masks)
    if good_dir is not None:
        for image in _images(listing, good_dir, "good_dir"):
            listing.records.append(ImageRecord(f"train/{GOOD}/{normalised(image.name)}", image, None, GOOD, "train"))
    return finished(listing)


def _images(listing: Listing, folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            "no_images", folder, "there is no such folder", f"a folder of images (--{option})", "Check the path."
        )
    images = _direct(listing, folder)
    if not images:
        entries = list_entries(folder)
        raise DataError(
            "no_images",
            folder,
            found=f"no images, {len(entries.left_over)} other files and {len(entries.folders)} folders",
            expected=f"images directly inside it (--{option})",
            advice=f"Give the folder that holds them, such as {entries.folders[0]}."
            if entries.folders
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
    listing = Listing(root=root, category=category or name_of(root))
    files = metadata_files(root)
    for file in files:
        for row in _read_rows(file):
            _add_row(listing, file, row)
    used = {os.path.abspath(file) for file in files}
    used |= {str(path) for record in listing.records for path in (record.image_path, *record.masks)}
    for _, entries in walk_entries(Path(os.path.abspath(root))):
        listing.left_over += [entry for entry in entries.left_over if str(entry.path) not in used]
        listing.left_over += [LeftOver(image, "not_found") for image in entries.images if str(image) not in used]
    finished(listing)
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
    defect = normalised(str(row.get("defect") or ("defect" if mask else GOOD)))
    if not is_folder_name(defect):  # it becomes a folder's name
        raise _bad_metadata(file, f"the defect {defect!r}", "a name that a folder can have", "Rename it.")
    split: Split = "train" if defect == GOOD else "test"
    if file.parent != listing.root:
        split = "train" if file.parent.name == "train" else "test"
    name = normalised(image.relative_to(os.path.abspath(listing.root)).as_posix())
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
    return _as_stored(Path(folder), Path(path).relative_to(folder).parts)


def _as_stored(folder: Path, parts: Sequence[str]) -> Path:
    """Return the path below a folder; where a name is not there, but stored in another form of Unicode, that one."""
    for part in parts:
        if not os.path.lexists(folder / part) and folder.is_dir():
            part = next((n for n in os.listdir(folder) if normalised(n) == normalised(part)), part)
        folder /= part
    return folder


def _read_rows(file: Path) -> list[dict[str, Any]]:
    try:
        if file.suffix == ".csv":
            rows: list[dict[str, Any]] = read_csv(file)
        else:
            lines = file.read_text(encoding="utf-8-sig").split("\n")
            rows = [json.loads(line) for line in lines if line.strip()]
    except ValueError as error:
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
    advice: str = "Add the columns (huggingface.co/docs/datasets/image_dataset shows the format), or move the file "
    "away if it does not list the photographs.",
) -> DataError:
    return DataError("metadata", file, found=found, expected=expected, advice=advice)


# Masks are named like their photographs


def match_masks(
    images: Sequence[Path], mask_dir: Path, masks: Sequence[Path] | None = None
) -> tuple[dict[Path, tuple[Path, ...] | DataError], list[LeftOver]]:
    """Match masks to photographs by stem, with or without a suffix such as `_mask`; file endings may differ.

    A photograph has one mask, or several that are numbered (`_mask`, `_mask_2`) or lie in a folder of its name, as
    those of MVTec LOCO: together they are its mask.

    Args:
        images: The photographs.
        mask_dir: Folder of the masks.
        masks: Those in it; None for all.

    Returns:
        By photograph its masks, or an error (`no_mask`, `several_masks`, `shared_mask`); and what else is in the
        folder of masks.
    """
    entries = list_entries(mask_dir)
    owners: dict[str, list[Path]] = {}  # by all that a mask's name may begin with
    for image in images:
        for name in {normalised(image.stem), normalised(image.name)}:
            owners.setdefault(name, []).append(image)
    found: dict[Path, dict[Path, tuple[str, str | None]]] = {image: {} for image in images}  # mask: words, number
    doubtful: dict[Path, list[Path]] = {}
    left_over = list(entries.left_over) if masks is None else []
    for mask in entries.images if masks is None else masks:
        beginning, suffix, number = _image_stem(mask, owners)
        for image in owners.get(beginning or "", ()):
            found[image][mask] = suffix.lower(), number
        if beginning is None:
            for image in _could_be_numbered(mask, owners):
                doubtful.setdefault(image, []).append(mask)
            left_over.append(LeftOver(mask, "orphan_masks"))
    for folder in entries.folders if masks is None else ():
        inside = list_entries(folder)
        of_folder = owners.get(normalised(folder.name), [])
        for image in of_folder:
            found[image].update({mask: ("/", mask.name) for mask in inside.images})
        left_over += inside.left_over if of_folder else left_over_folder(folder, "orphan_masks")

    num_owners = Counter(mask for candidates in found.values() for mask in candidates)
    matches: dict[Path, tuple[Path, ...] | DataError] = {}
    for image, candidates in found.items():
        shared = [mask for mask in candidates if num_owners[mask] > 1]
        words = {suffix for suffix, _ in candidates.values()}
        several = [*candidates, *doubtful.get(image, [])]
        if not several:
            twins = [i for i in owners[normalised(image.stem)] if i != image and i.parent == image.parent]
            advice = "Add the mask, rename it, or leave the image out with --skip_bad_files or --file_list."
            if twins:
                advice += f" If {twins[0].name} is its mask, give --defect_dir {image.parent} alone: they are paired."
            matches[image] = DataError(
                "no_mask",
                image,
                found=f"an image without a mask; {mask_dir} holds {shorten(m.name for m in entries.images)}",
                expected=f"{mask_dir / image.stem}_mask.png, or the same stem with another suffix or file ending",
                advice=advice,
            )
        elif shared:
            matches[image] = _shared_mask(image, shared)
        elif image in doubtful or len(words) > 1 or len(set(candidates.values())) < len(candidates):
            matches[image] = DataError(
                "several_masks",
                image,
                found=f"{len(several)} files that could be its mask: {shorten(m.name for m in several)}",
                expected=f"one mask in {mask_dir}, or masks of its instances, called {image.stem}_mask_1.png, _2, ...",
                advice="Move the others elsewhere, rename them, or merge them into one mask.",
            )
        else:
            matches[image] = tuple(sorted(candidates))
    return matches, left_over


def _add_defects(
    listing: Listing,
    images: Sequence[tuple[Path, Split]],
    mask_dir: Path,
    defect: str,
    masks: Sequence[Path] | None = None,
) -> None:
    matches, left_over = match_masks([image for image, _ in images], mask_dir, masks)
    listing.left_over += left_over
    for image, split in images:
        name, found = f"{split}/{defect}/{normalised(image.name)}", matches[image]
        if isinstance(found, DataError):
            listing.records.append(ImageRecord(name, image, None, defect, split, found))
        else:
            listing.records.append(ImageRecord(name, image, found[0], defect, split, more_masks=found[1:]))


def split_images_and_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Tell photographs from masks where both lie in one folder.

    `x_mask.png` is a mask if there is an `x`. Of `x.jpg` and `x.png`, as the magnetic tiles were published, the one
    that keeps its pixels is the mask.
    """
    owners: dict[str, list[Path]] = {}
    for path in files:
        owners.setdefault(normalised(path.stem), []).append(path)
    masks = set()
    for path in files:
        stem = normalised(path.stem)
        if owners[stem] == [path] and _MASK_WORDS.match(path.stem):
            del owners[stem]  # it is no mask of itself
            if _image_stem(path, owners)[0]:
                masks.add(path)
            owners[stem] = [path]
    for same_stem in owners.values():
        lossless = [path for path in same_stem if path.suffix.lower() not in _LOSSY_ENDINGS]
        if len(same_stem) == 2 and len(lossless) == 1:
            masks.add(lossless[0])
    return [p for p in files if p not in masks], [p for p in files if p in masks]


def _image_stem(mask: Path, beginnings: Container[str]) -> tuple[str | None, str, str | None]:
    """Return the longest of `beginnings` that a mask's name has, followed by words and perhaps a number, and these."""
    stem = normalised(mask.stem)
    for length in range(len(stem), 0, -1):
        suffix = _SUFFIX.fullmatch(stem[length:]) if stem[:length] in beginnings else None
        if suffix:
            return stem[:length], suffix[1], suffix[2]
    return None, "", None


def _could_be_numbered(mask: Path, owners: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Find photographs of which `000_2.png` may be a second mask: where none is called `000_<number>` itself."""
    stem = normalised(mask.stem)
    for length in range(len(stem), 0, -1):
        beginning = stem[:length]
        if beginning in owners and _NUMBERED.fullmatch(stem[length:]):
            is_their_habit = any(s.startswith(beginning) and _NUMBERED.fullmatch(s[length:]) for s in owners)
            return [] if is_their_habit else list(owners[beginning])
    return []
