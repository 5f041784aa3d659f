"""One's own photographs: a folder of good ones, a folder of defects and a folder of masks."""

from __future__ import annotations

from pathlib import Path

from .errors import DataError
from .matching import add_defects, split_images_and_masks
from .records import GOOD, ImageRecord, Listing, image_files


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
        mask_dir: Their masks, matched by stem with or without a suffix such as `_mask`; None if they lie in
            `defect_dir` beside the photographs.
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
        _list_defects(listing, defect_dir, mask_dir, defect or defect_dir.resolve().name)
    if good_dir is not None:
        for image in _images(listing, good_dir, "good_dir"):
            listing.records.append(ImageRecord(f"train/{GOOD}/{image.name}", image, None, GOOD, "train"))
    listing.records.sort(key=lambda record: record.name)
    return listing


def _list_defects(listing: Listing, defect_dir: Path, mask_dir: Path | None, defect: str) -> None:
    files = _images(listing, defect_dir, "defect_dir")
    if mask_dir is None or mask_dir.resolve() == defect_dir.resolve():
        images, masks = split_images_and_masks(files)
    else:
        images, masks = files, _images(listing, mask_dir, "mask_dir")
    add_defects(listing, images, masks, mask_dir or defect_dir, defect, "test")


def _images(listing: Listing, folder: Path, option: str) -> list[Path]:
    if not folder.is_dir():
        raise DataError(
            "no_images",
            folder,
            found="there is no such folder",
            expected=f"a folder of images (--{option})",
            advice="Check the path.",
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
