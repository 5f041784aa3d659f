"""The folder layout of MVTec AD, and the names of its categories and defects."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import get_args

from .errors import DataError
from .matching import add_defects
from .records import GOOD, ImageRecord, Listing, Split, image_files, shorten

MVTEC_AD_DEFECTS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "bottle": ("broken_large", "broken_small", "contamination"),
        "cable": (
            "bent_wire",
            "cable_swap",
            "combined",
            "cut_inner_insulation",
            "cut_outer_insulation",
            "missing_cable",
            "missing_wire",
            "poke_insulation",
        ),
        "capsule": ("crack", "faulty_imprint", "poke", "scratch", "squeeze"),
        "carpet": ("color", "cut", "hole", "metal_contamination", "thread"),
        "grid": ("bent", "broken", "glue", "metal_contamination", "thread"),
        "hazelnut": ("crack", "cut", "hole", "print"),
        "leather": ("color", "cut", "fold", "glue", "poke"),
        "metal_nut": ("bent", "color", "flip", "scratch"),
        "pill": ("color", "combined", "contamination", "crack", "faulty_imprint", "pill_type", "scratch"),
        "screw": ("manipulated_front", "scratch_head", "scratch_neck", "thread_side", "thread_top"),
        "tile": ("crack", "glue_strip", "gray_stroke", "oil", "rough"),
        "toothbrush": ("defective",),
        "transistor": ("bent_lead", "cut_lead", "damaged_case", "misplaced"),
        "wood": ("color", "combined", "hole", "liquid", "scratch"),
        "zipper": (
            "broken_teeth",
            "combined",
            "fabric_border",
            "fabric_interior",
            "rough",
            "split_teeth",
            "squeezed_teeth",
        ),
    }
)
"""The 15 categories of MVTec AD (Bergmann et al., CVPR 2019) with their kinds of defect."""


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

    Args:
        root: Folder that holds category folders, or a category folder.
        category: Name of the category; None if `root` is one, or holds only one.

    Raises:
        DataError: (`no_images`, `unknown_category`) that lists the names that would be right.
    """
    if not root.is_dir():
        raise DataError(
            "no_images",
            root,
            found="there is no such folder",
            expected="a folder in the layout of MVTec AD",
            advice="Check the path, or give --good_dir, --defect_dir and --mask_dir for photographs without it.",
        )
    if is_category_folder(root) and category in (None, root.name):
        return root
    present = category_folders(root)
    if category is None and len(present) == 1:
        return root / present[0]
    if category in present:
        return root / str(category)
    if not present:
        advice = "Give --good_dir, --defect_dir and --mask_dir for photographs without that layout."
        found = f"no category '{category}'" if category else "no category folder"
        if is_category_folder(root):
            advice = f"This folder is itself a category: leave --category out, or say --category {root.name}."
        elif category is not None and category not in MVTEC_AD_DEFECTS:
            close = difflib.get_close_matches(category, MVTEC_AD_DEFECTS, n=1)
            hint = f" (did you mean {close[0]}?)" if close else ""
            advice += f" MVTec AD has {', '.join(MVTEC_AD_DEFECTS)}{hint}."
        raise DataError(
            "unknown_category",
            root,
            found=f"{found}; the folder holds {shorten(sorted(path.name for path in root.iterdir()))}",
            expected="CATEGORY/train/good/*.png, CATEGORY/test/DEFECT/*.png, CATEGORY/ground_truth/DEFECT/*_mask.png",
            advice=advice,
        )
    close = difflib.get_close_matches(category or "", present, n=1)
    raise DataError(
        "unknown_category",
        root,
        found="several categories and none was chosen" if category is None else f"no category '{category}'",
        expected=f"one of {', '.join(present)}",
        advice=f"Say --category {close[0] if close else present[0]}.",
    )


def list_category(folder: Path) -> Listing:
    """List one category: `train/good`, `test/good`, `test/<defect>` and `ground_truth/<defect>`.

    Args:
        folder: The category's folder, as `find_category` returns it.
    """
    listing = Listing(root=folder, category=folder.name)
    for split in get_args(Split):
        parent = folder / split
        kinds = sorted(path for path in parent.iterdir() if path.is_dir()) if parent.is_dir() else []
        for kind in kinds:
            _list_kind(listing, kind, split)
    return listing


def _list_kind(listing: Listing, kind: Path, split: Split) -> None:
    images, others = image_files(kind)
    listing.ignored_files += others
    if kind.name == GOOD:
        listing.records += [ImageRecord(f"{split}/{GOOD}/{path.name}", path, None, GOOD, split) for path in images]
        return
    mask_dir = listing.root / "ground_truth" / kind.name
    masks: list[Path] = []
    if mask_dir.is_dir():
        masks, others = image_files(mask_dir)
        listing.ignored_files += others
    add_defects(listing, images, masks, mask_dir, kind.name, split)
