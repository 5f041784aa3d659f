"""From what the user names (a data set, an archive, own folders, a Hub repository) to a list of files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from ..arguments import check_effect
from .archives import archive_name, default_cache_dir, make_once, unpacked
from .label_forms import LABEL_EXTENSIONS
from .labels import Unlabelled, is_labelled, list_labels
from .layouts import list_category, list_data_dir, list_folders
from .preparation import Fit
from .reading import allow_pixels
from .records import DataError, Listing, Split, content_of, is_folder_name, is_hub_id, normalised


@dataclass(frozen=True)
class DataSource:
    """Where the photographs are, and how their files are read: `data_dir`, or `good_dir`, `defect_dir` and `mask_dir`.

    Attributes:
        data_dir: Data set in the layout of MVTec AD (its root, or one category), a tar or zip archive of it, an
            imagefolder with a mask column, what a labelling tool exported (COCO, YOLO, LabelMe, Label Studio, CVAT or
            VOC, with the photographs), or the Hub id of a set.
        category: Category of the data set; needed if there are several.
        good_dir: Folder of your own defect-free photographs, in no particular layout.
        defect_dir: Folder of your own photographs of one kind of defect.
        mask_dir: Their masks, named like them with or without a suffix such as _mask.
        labels: Label file, or a folder or archive of some, of photographs in `data_dir`; needed if they lie elsewhere,
            or if there are several.
        unlabelled: What to do with photographs that the labels say nothing about: leave them out (skip), or take them
            as defect-free (good).
        bit_depth: Significant bits of 16-bit photographs (12 for the raw values of many cameras).
        skip_bad_files: Leave files with problems out and list them, instead of stopping at the first.
        max_megapixels: Largest photograph to decode, in millions of pixels; None for what is safe if nobody
            knows where a file comes from (179).
        cache_dir: Folder in which archives and sets of the Hub are unpacked; None for that of `datasets`. For
            training, it also keeps prepared photographs for the next run.
    """

    data_dir: Path | None = None
    category: str | None = None
    good_dir: Path | None = None
    defect_dir: Path | None = None
    mask_dir: Path | None = None
    labels: Path | None = None
    unlabelled: Unlabelled = "skip"
    bit_depth: int = 16
    skip_bad_files: bool = False
    max_megapixels: int | None = None
    cache_dir: Path | None = None


@dataclass(frozen=True)
class FittedSource(DataSource):
    """Photographs that are brought to one size.

    Attributes:
        fit: How photographs of another shape get that of the images: stretched (resize), their middle (center_crop),
            or with a border (pad).
    """

    fit: Fit = "resize"


def find_listing(source: DataSource, defect: str | None = None) -> Listing:
    """List the photographs of a data set or of your own folders.

    Args:
        source: Where they are.
        defect: Name for the kind of defect in `defect_dir`; None for the folder's own.

    Raises:
        DataError: that names the folder or archive and says what it lacks.
        ValueError: if both `data_dir` and own folders are given, or neither.

    Example:
        >>> find_listing(DataSource(Path("mvtec_ad"), "hazelnut")).defects
        ['crack', 'cut', 'hole', 'print']
    """
    allow_pixels(source.max_megapixels)
    folders = source.good_dir, source.defect_dir, source.mask_dir
    listing = _find_labelled(source)
    if listing is not None:
        return listing
    check_effect(source, ["unlabelled"], "labels of a labelling tool")
    if any(folders):
        if source.data_dir is not None:
            raise ValueError("Give either data_dir or good_dir, defect_dir and mask_dir, not both.")
        own = [None if folder is None else Path(folder) for folder in folders]
        return list_folders(*own, defect=defect, category=source.category)
    if source.data_dir is None:
        raise ValueError("Give data_dir (and category), or good_dir, defect_dir and mask_dir.")
    root = Path(source.data_dir)
    if is_hub_id(root):
        return list_category(_download_category(root.as_posix(), source.category, source.cache_dir))
    return list_data_dir(unpacked(root, source.cache_dir), source.category)


def check_place(output_dir: Path, data: DataSource) -> None:
    """Raise ValueError if a run would write among the photographs."""
    output = output_dir.resolve()
    holders = [data.good_dir, data.defect_dir, data.mask_dir, data.labels]
    if data.data_dir is not None:
        root = Path(data.data_dir)
        if root.is_file() and root.suffix.lower() in LABEL_EXTENSIONS:
            root = root.parent
        # A category may be a folder, or but a name for all that is there.
        named = root / (data.category or "")
        holders.append(named if named.is_dir() else root)
    folders = [Path(folder).resolve() for folder in holders if folder is not None]
    is_among = any(folder in (output, *output.parents) for folder in folders)
    if is_among or (data.data_dir is not None and output == Path(data.data_dir).resolve()):
        raise ValueError(
            f"`output_dir` {output_dir} is or lies in a folder of photographs, where the next run would read what "
            "this one writes. Name a folder outside of it."
        )


def _find_labelled(source: DataSource) -> Listing | None:
    """List what a labelling tool exported; None if the source is none."""
    if source.labels is not None and (source.data_dir is None or source.defect_dir or source.mask_dir):
        raise ValueError("labels belong to the photographs in data_dir: give that, and no defect_dir and mask_dir.")
    if source.data_dir is None or source.defect_dir or source.mask_dir or is_hub_id(source.data_dir):
        return None
    root, labels = Path(source.data_dir), None if source.labels is None else Path(source.labels)
    category = source.category or (normalised(archive_name(root)) if root.is_file() else None)
    if root.is_file() and root.suffix.lower() in LABEL_EXTENSIONS:
        root, labels, category = root.parent, labels or root, source.category
    root = unpacked(root, source.cache_dir)
    if source.category and is_folder_name(source.category) and (root / source.category).is_dir():
        root /= source.category
    if labels is None and not is_labelled(root):
        return None
    if labels is not None and labels.suffix.lower() not in LABEL_EXTENSIONS | {".txt", ".names"}:
        labels = unpacked(labels, source.cache_dir)
    return list_labels(
        root,
        labels,
        unlabelled=source.unlabelled,
        good_dir=None if source.good_dir is None else Path(source.good_dir),
        category=category,
        cache_dir=source.cache_dir,
    )


def _download_category(repo_id: str, category: str | None, cache_dir: Path | None) -> Path:
    """Write a category from the Hub in the folder layout of MVTec AD, once, so that all else works on it unchanged."""
    # Imported here because it takes a second, which is not needed to train on a folder.
    import datasets

    from .hub import load_mvtec_ad

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
    _write(folder / _checked(split) / _checked(defect) / _checked(name), content_of(row["image"], row["file_name"]))
    if row["mask"] is not None:
        mask = content_of(row["mask"], row["file_name"])
        _write(folder / "ground_truth" / defect / f"{Path(name).stem}_mask.png", mask)


def _checked(name: str) -> str:
    """Return the name if it is a plain file name: a repository must not choose where files are written."""
    if not is_folder_name(name):
        raise DataError(
            "hub",
            repr(name),
            found="a name in a data set on the Hub that is no plain file name",
            expected="split, defect and file names without path separators or control characters",
            advice="Do not use this data set.",
        )
    return name


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        raise DataError(
            "hub", path.name, "two rows that would be one file", "names that differ by row", "Rename one of them."
        )
    path.write_bytes(content)
