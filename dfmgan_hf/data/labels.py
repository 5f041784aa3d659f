"""List photographs that were labelled with a tool: find them, draw their masks, and account for all the rest."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import takewhile
from operator import eq
from pathlib import Path, PurePosixPath
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from PIL.ExifTags import Base as Tag

from .archives import default_cache_dir, make_once
from .label_forms import (
    BOXES,
    GOOD_NAMES,
    LINES,
    PREDICTIONS,
    LabelSource,
    Sheet,
    bad_labels,
    find_labels,
    plain_name,
    read_sheets,
)
from .layouts import GOOD_FOLDERS, category_folders, finished, list_folders, metadata_files, name_of
from .reading import opened, orientation, stored_size
from .records import (
    GOOD,
    DataError,
    ImageRecord,
    LeftOver,
    Listing,
    Split,
    is_folder_name,
    normalised,
    shorten,
    walk_entries,
)

Unlabelled = Literal["skip", "good"]
"""What to do with photographs that the labels say nothing about: leave them out, or take them as defect-free."""

# Raise it when the same labels would be drawn or named otherwise than before: the cache then makes them anew.
_VERSION = 4

_HELD_BACK = frozenset({"test", "val", "valid", "validation"})
_UPLOADED = re.compile(r"[0-9a-f]{8}-")  # which Label Studio puts before names


# --- Photographs: which one a label file means ---


class Photographs:
    """The images below a folder, found by what label files call them: a path, a URL, or a path without its ending."""

    def __init__(self, root: Path) -> None:
        self.root = Path(os.path.abspath(root))
        self.images: list[Path] = []
        self.left_over: list[LeftOver] = []
        for folder, entries in walk_entries(self.root):
            self.left_over += entries.left_over
            if any(part.startswith("Segmentation") for part in folder.relative_to(self.root).parts):  # masks of VOC
                self.left_over += [LeftOver(image, "unused") for image in entries.images]
            else:
                self.images += entries.images
        self._by_name: dict[str, list[Path]] = defaultdict(list)
        for image in self.images:
            for name in {normalised(image.name), normalised(image.stem)}:
                self._by_name[name].append(image)

    def find(self, sheet: Sheet) -> list[Path]:
        """Return the photograph that a sheet means, or all those that it could be as well; none if it is not there."""
        *folders, name = normalised(plain_name(sheet.name)).split("/")
        as_written = normalised(sheet.name).replace("\\", "/").rpartition("/")[2]
        candidates = self._by_name.get(name) or self._by_name.get(as_written, [])
        if not candidates and _UPLOADED.match(name):
            candidates = self._by_name.get(name[9:], [])
        # YOLO keeps texts in labels/ that are about photographs in images/.
        folders = ["images" if part == "labels" else part for part in folders]
        here = Path(os.path.abspath(sheet.file)).parent.parts

        def fit(image: Path) -> tuple[int, int]:
            behind = _common(reversed(folders), reversed(image.parent.parts))
            return behind, _common(here, image.parent.parts)

        best = max(map(fit, candidates), default=None)
        return [image for image in candidates if fit(image) == best]


def _common(first: Iterable[str], second: Iterable[str]) -> int:
    """Return how many of the first parts are the same."""
    return sum(takewhile(bool, map(eq, first, second)))


# --- All of it: records, with masks in the cache ---


def is_labelled(root: Path) -> bool:
    """Tell whether a folder is what a labelling tool exported, and in no layout that has masks already."""
    if not root.is_dir() or metadata_files(root) or category_folders(root):
        return False
    if (root / "ground_truth").is_dir() or any((root / "train" / name).is_dir() for name in GOOD_FOLDERS):
        return False
    return bool(find_labels(root))


def list_labels(
    root: Path,
    labels: Path | None = None,
    *,
    unlabelled: Unlabelled = "skip",
    good_dir: Path | None = None,
    category: str | None = None,
    cache_dir: Path | None = None,
) -> Listing:
    """List photographs with the masks that their labels mean.

    A photograph with several kinds of defect is listed under each, with the mask of that kind. Names are those of the
    MVTec AD layout, `test/<label>/<file>` and `train/good/<file>`. Photographs that are labelled as good (a tag called
    good, ok or normal, an empty label file, an annotation that was submitted empty) or lie in a folder called so are
    defect-free; of others without labels nobody knows.

    Args:
        root: Folder of the photographs, with those below it.
        labels: The label file, or a folder of some; None if they are in `root`.
        unlabelled: See `Unlabelled`.
        good_dir: Folder of more defect-free photographs.
        category: Name of the object; None for that of `root`.
        cache_dir: Where the masks are drawn, once; None for the cache of `datasets`.

    Raises:
        DataError: `labels` that cannot be read or are of several tools; `no_images` if there is none of the
            photographs. What is wrong with a single photograph is its record's error.

    Example:
        >>> list_labels(Path("task_1_cvat")).defects
        ['crack', 'dent']
    """
    found = Photographs(root)
    sources = find_labels(labels or root)
    if not sources:
        known = "labels of COCO, YOLO, LabelMe, Label Studio, CVAT for images, or VOC"
        raise bad_labels(labels or root, "no label file", known, "Name the file or folder with --labels.")
    # All that records, errors and the account depend on: also how large photographs may be.
    row: tuple[object, ...] = _VERSION, sources, found.root, unlabelled, found.left_over, Image.MAX_IMAGE_PIXELS
    key = hashlib.sha256(repr(row).encode("utf-8", "backslashreplace"))
    for path in sorted({*found.images, *(path for source in sources for path in source.files)}):
        status = path.stat() if path.exists() else None
        # The time of change is another if a file may be read now, or was exchanged by a copy that keeps times.
        row = str(path), status and (status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        key.update(repr(row).encode("utf-8", "backslashreplace"))
    folder = Path(cache_dir or default_cache_dir()) / f"labels-{key.hexdigest()[:16]}"
    make_once(folder, lambda aside: _draw_all(found, sources, unlabelled, aside))
    listing = _read_listing(folder)
    listing.category = category or name_of(root)
    if good_dir is not None:
        _add_good(listing, list_folders(good_dir=good_dir), good_dir)
    if any(entry.kind == "unlabelled" for entry in listing.left_over):
        listing.remarks.append("--unlabelled good would take those without a label as defect-free")
    return finished(listing)


def _add_good(listing: Listing, more: Listing, good_dir: Path) -> None:
    """Add the photographs of a folder of good ones; if it lies in the export, all in it is listed there already."""
    known = {os.path.abspath(record.image_path) for record in listing.records}
    listing.records += [record for record in more.records if os.path.abspath(record.image_path) not in known]
    good = {os.path.abspath(record.image_path) for record in more.records}
    listing.left_over = [entry for entry in listing.left_over if str(entry.path) not in good]
    if not Path(os.path.abspath(good_dir)).is_relative_to(listing.root):
        listing.left_over += more.left_over


def _draw_all(found: Photographs, sources: Sequence[LabelSource], unlabelled: Unlabelled, folder: Path) -> None:
    """Draw the masks into a folder, and write beside them what is listed."""
    listing = Listing(found.root, "")
    sheets: dict[Path, list[Sheet]] = {}
    missing: list[Sheet] = []
    ignored: Counter[str] = Counter()
    areas = 0
    for sheet in (sheet for source in sources for sheet in read_sheets(source)):
        candidates = found.find(sheet)
        if len(candidates) > 1:
            listed = shorten(str(path.relative_to(found.root)) for path in candidates)
            sheet.problem = f"{sheet.name!r}, which could be any of {listed}"
        ignored += sheet.ignored
        for candidate in candidates:  # each, or the others would count as photographs without a label
            sheets.setdefault(candidate, []).append(sheet)
        if candidates:
            areas += len(sheet.areas)
        else:
            missing.append(sheet)
    if missing and not sheets:
        raise DataError(
            "no_images",
            found.root,
            found=f"none of the {len(missing)} photographs that {sources[0].path.name} names, such as "
            f"{missing[0].name[:200]!r}",
            expected="the photographs that were labelled, in this folder or below",
            advice="Export with images, or give their folder as --data_dir and the labels as --labels.",
        )
    several = 0
    record = partial(_record, found.root)
    names = Counter(normalised(image.name) for image in found.images)
    for image in found.images:
        is_only = names[normalised(image.name)] == 1
        name = normalised(image.name) if is_only else normalised("_".join(image.relative_to(found.root).parts))
        about = sheets.get(image, [])
        records = _records(partial(record, image, name), image, about, folder / f"{len(listing.records):06d}")
        several += len(records) > 1
        if not records and (unlabelled == "good" or image.parent.name.lower() in GOOD_NAMES) and not _defects(about):
            records = [record(image, name, GOOD)]
        if not records:
            listing.left_over.append(LeftOver(image, "unlabelled"))
        listing.records += records
    for number, sheet in enumerate(missing):
        name = normalised(PurePosixPath(plain_name(sheet.name)).name)
        name = name if is_folder_name(name) else f"nameless_{number}"
        error = DataError(
            "no_photograph",
            sheet.file,
            found=f"labels of {sheet.name[:200]!r}, which is not in {found.root}",
            expected="every photograph that the labels name",
            advice="Add it, or leave it out with --skip_bad_files.",
        )
        for kind in _kinds(sheet) or (["unknown"] if sheet.problem else []):
            listing.records.append(record(found.root / name, name, kind, error))
    read = [source.path for source in sources] + [sheet.file for about in sheets.values() for sheet in about]
    if sources[0].form == "VOC":
        read += [source.path / "labelmap.txt" for source in sources]
    used = {os.path.abspath(path) for path in read}
    listing.left_over += [entry for entry in found.left_over if str(entry.path) not in used]
    forms = f"labels of {sources[0].form} in {shorten((source.path.name for source in sources), 3)}"
    num_outlined = sum(any(sheet.areas for sheet in about) for about in sheets.values())
    listing.remarks.append(f"{forms}: {areas} areas on {num_outlined} photographs")
    listing.remarks += [f"{count} {what} not used" for what, count in sorted(ignored.items())]
    if several:
        listing.remarks.append(f"{several} photographs show several kinds and are listed under each")
    _write_listing(listing, folder)


def _records(
    record: Callable[..., ImageRecord], image: Path, about: Sequence[Sheet], masks: Path
) -> list[ImageRecord]:
    """Draw the masks of a photograph, into files whose names begin with `masks`, and list it under each kind."""
    kinds = dict.fromkeys(kind for sheet in about for kind in _kinds(sheet))
    problem = next((sheet for sheet in about if sheet.problem), None)
    said = [sheet for sheet in about if sheet.areas or sheet.is_good or sheet.ignored.keys() - {PREDICTIONS}]
    error: DataError | None = None
    if problem is not None:
        error = _bad_photograph(image, problem.file, problem.problem)
    elif len(said) > 1:
        listed = shorten(sorted({str(sheet.file) for sheet in said}))
        error = _bad_photograph(image, said[0].file, f"{len(said)} sets of labels, in {listed}", "one set of labels")
    elif kinds and any(sheet.is_good for sheet in about):
        error = _bad_photograph(image, said[0].file, "a defect on it, and that it is good", "one of the two")
    elif _defects(about) and not kinds:
        listed = ", ".join(f"{count} {what}" for what, count in said[0].ignored.items())
        error = DataError(
            "no_mask",
            image,
            found=f"labels that do not say which pixels are defective: {listed}",
            expected="outlines or masks",
            advice="Outline its defects, or leave it out with --skip_bad_files.",
        )
    if error is not None:
        return [record(kind, error) for kind in kinds or ["unknown"]]
    if not kinds:
        return [record(GOOD)] if any(sheet.is_good for sheet in about) else []
    records = []
    try:
        with opened(image) as file:
            raw, turn = stored_size(file), orientation(file)
    except DataError as unreadable:
        return [record(kind, unreadable) for kind in kinds]
    upright = raw[::-1] if turn > 4 else raw
    (sheet,) = said
    if sheet.size not in (None, upright, raw):
        width, height = sheet.size or (0, 0)
        found = f"labels for {width}x{height} pixels, but it has {upright[0]}x{upright[1]}"
        error = DataError(
            "size_mismatch", image, found, "the photograph that was labelled", "Bring it, or label it anew."
        )
        return [record(kind, error) for kind in kinds]
    size = sheet.size or upright
    for number, kind in enumerate(kinds):
        mask = np.zeros(size[::-1], dtype=bool)
        try:
            for area in sheet.areas:
                if area.label == kind:
                    mask |= area.draw(*size)
        except (DataError, ValueError) as problem_of_area:
            records.append(record(kind, _bad_photograph(image, sheet.file, str(problem_of_area))))
            continue
        drawn = Image.fromarray(mask)
        if size != upright:  # labelled as it lies in the file
            drawn.getexif()[Tag.Orientation] = turn
            drawn = ImageOps.exif_transpose(drawn)
        path = masks.with_name(f"{masks.name}_{number}.png")
        drawn.save(path)
        records.append(replace(record(kind), mask_path=path))
    return records


def _record(root: Path, image: Path, name: str, kind: str, error: DataError | None = None) -> ImageRecord:
    held_back = _HELD_BACK.intersection(part.lower() for part in image.relative_to(root).parts[-4:-1])
    split: Split = "test" if kind != GOOD or held_back else "train"
    return ImageRecord(f"{split}/{kind}/{name}", image, None, kind, split, error)


def _bad_photograph(image: Path, file: Path, found: str, expected: str = "labels that can be drawn") -> DataError:
    advice = "Correct it in your labelling tool and export again, or leave it out with --skip_bad_files."
    return DataError("labels", image, f"{file.name} says of it: {found}", expected, advice)


def _kinds(sheet: Sheet) -> list[str]:
    return list(dict.fromkeys([*(area.label for area in sheet.areas), *sheet.troubled]))


def _defects(about: Sequence[Sheet]) -> bool:
    """Tell whether labels say that there is a defect, drawn or not."""
    return any(sheet.areas or sheet.problem or sheet.ignored[BOXES] or sheet.ignored[LINES] for sheet in about)


def _write_listing(listing: Listing, folder: Path) -> None:
    records = []
    for record in listing.records:
        row = asdict(replace(record, error=None))
        row["mask_path"] = record.mask_path and record.mask_path.name  # the folder is still to take its place
        row["error"] = record.error and record.error.__reduce__()[1]
        records.append(row)
    left_over = [(str(entry.path), entry.kind, entry.images) for entry in listing.left_over]
    content = {"root": listing.root, "records": records, "left_over": left_over, "remarks": listing.remarks}
    (folder / "listing.json").write_text(json.dumps(content, default=str), encoding="ascii")


def _read_listing(folder: Path) -> Listing:
    content = json.loads((folder / "listing.json").read_text(encoding="ascii"))
    listing = Listing(Path(content["root"]), "", remarks=content["remarks"])
    listing.left_over = [LeftOver(Path(path), kind, images) for path, kind, images in content["left_over"]]
    for row in content["records"]:
        mask, error = row.pop("mask_path"), row.pop("error")
        record = ImageRecord(**row | {"image_path": Path(row["image_path"]), "more_masks": ()}, mask_path=None)
        record = replace(record, mask_path=folder / mask if mask else None, error=DataError(*error) if error else None)
        listing.records.append(record)
    return listing
