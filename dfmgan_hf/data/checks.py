"""The doctor's rules: each looks at the inspected photographs and says what is wrong, if anything."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from .duplicates import DuplicatePair
from .errors import DataError
from .inspection import Inspection
from .records import GOOD, Listing
from .report import Finding, Severity

# What the mask is drawn at inside the generator (method, section 3): smaller defects have no pixel of their own there.
_LARGEST_MASK_GRID = 64
_LARGE_AREA = 0.5
_FULL_AREA = 0.98
_ELONGATED = 1.5
_MIXED_SHAPES = 1.3


def check_files(inspections: Sequence[Inspection], skip_bad_files: bool) -> Iterator[Finding]:
    """Report photographs and masks that cannot be used, by kind of problem."""
    by_code: dict[str, list[tuple[Inspection, DataError]]] = {}
    for inspection in inspections:
        for error in inspection.errors:
            by_code.setdefault(error.code, []).append((inspection, error))
    severity: Severity = "warning" if skip_bad_files else "error"
    for code, cases in by_code.items():
        first = cases[0][1]
        yield Finding(
            severity,
            code,
            f"{_count(cases, 'file')}: {_FILE_PROBLEMS.get(code, code)}. "
            f"The first: {first.found}; expected {first.expected}.",
            first.advice if skip_bad_files or "--skip_bad_files" in first.advice else f"{first.advice} {_SKIP}",
            tuple(inspection.record.name for inspection, _ in cases),
        )


_SKIP = "Or leave them out with --skip_bad_files."
_FILE_PROBLEMS = {
    "unreadable": "not readable as an image",
    "pixel_format": "samples that cannot be used",
    "no_mask": "a defect without its mask",
    "several_masks": "more than one possible mask",
    "size_mismatch": "photograph and mask of different sizes",
    "empty_mask": "a mask without any defect in it",
}


def check_folder(listing: Listing) -> Iterator[Finding]:
    """Report files that lie in the folders and are not used."""
    if listing.orphan_masks:
        yield Finding(
            "warning",
            "orphan_masks",
            f"{_count(listing.orphan_masks, 'mask')} without a photograph.",
            "Check the names: a mask is called like its photograph, with or without a suffix such as _mask.",
            _names(listing, listing.orphan_masks),
        )
    if listing.ignored_files:
        yield Finding(
            "note",
            "ignored_files",
            f"{_count(listing.ignored_files, 'file')} ignored for want of an image's ending.",
            "Nothing, unless they should be images.",
            _names(listing, listing.ignored_files),
        )


def check_masks(inspections: Sequence[Inspection], resolution: int) -> Iterator[Finding]:
    """Report masks that can be used but are probably not meant as they are."""
    masked = [inspection for inspection in inspections if inspection.mask_area]
    full = [i for i in masked if _area(i) >= _FULL_AREA]
    if full:
        yield Finding(
            "warning",
            "full_mask",
            f"{_count(full, 'mask')} over (almost) all of the photograph.",
            "Any non-zero pixel counts as defect: perhaps the background is not 0, or the mask is inverted.",
            _records(full),
        )
    large = [i for i in masked if _LARGE_AREA < _area(i) < _FULL_AREA]
    if large:
        yield Finding(
            "warning",
            "large_mask",
            f"{_count(large, 'mask')} over more than half of the photograph.",
            "Check that they are not inverted. The method adds a local defect to an object that it leaves as it is.",
            _records(large),
        )
    soft = [i for i in masked if i.has_soft_mask]
    if soft:
        lossy = sum(i.has_lossy_mask for i in soft)
        yield Finding(
            "warning",
            "soft_mask",
            f"{_count(soft, 'mask')} with several grey values or colours"
            f"{f', {lossy} of them compressed with losses' if lossy else ''}; every non-zero pixel counts as defect.",
            "If they are antialiased, heat maps or JPEG, threshold them and save them as PNG.",
            _records(soft),
        )
    grid = min(_LARGEST_MASK_GRID, resolution // 4)
    tiny = [i for i in masked if _area(i) * grid**2 < 1]
    if tiny:
        pixels = [round(_area(i) * resolution**2, 1) for i in tiny]
        yield Finding(
            "warning",
            "tiny_defect",
            f"{_count(tiny, 'defect')} smaller than one pixel of the {grid}x{grid} grid "
            f"on which masks are generated ({_range(pixels)} pixels at {resolution}x{resolution}).",
            "They may not be learnt as they are: train larger, or on patches of the photographs (cut_patches.py).",
            _records(tiny),
        )


def check_shapes(inspections: Sequence[Inspection], resolution: int, fit: str) -> Iterator[Finding]:
    """Report sizes that suffer on the way to the training square."""
    readable = [i for i in inspections if i.width]
    if not readable:
        return
    ratios = np.array([i.width / i.height for i in readable])
    if fit == "resize" and (
        ratios.max() / ratios.min() > _MIXED_SHAPES or abs(np.log(ratios)).max() > np.log(_ELONGATED)
    ):
        yield Finding(
            "warning",
            "distorted",
            f"Shapes go from {ratios.min():.2f} to {ratios.max():.2f} (width / height); fit=resize makes all square.",
            "If proportions matter, use --fit center_crop or --fit pad, or crop the photographs alike.",
        )
    small = [i for i in readable if _smallest_scaled_side(i, fit) < resolution]
    if small:
        side = min(_smallest_scaled_side(i, fit) for i in small)
        yield Finding(
            "warning" if 2 * len(small) > len(readable) else "note",
            "enlarged",
            f"{_count(small, 'photograph')} with a side below {resolution} pixels (down to {side}), to be enlarged.",
            "Train at a lower --resolution if the result looks soft.",
            _records(small),
        )


def check_pixels(inspections: Sequence[Inspection], bit_depth: int) -> Iterator[Finding]:
    """Report what is odd about colour, depth and orientation."""
    readable = [i for i in inspections if i.mode]
    good = [i.is_coloured for i in readable if i.record.defect == GOOD]
    bad = [i.is_coloured for i in readable if i.record.defect != GOOD]
    if good and bad and (2 * sum(good) > len(good)) != (2 * sum(bad) > len(bad)):
        yield Finding(
            "warning",
            "colour_differs",
            f"{sum(good)} of {len(good)} defect-free photographs are coloured, {sum(bad)} of {len(bad)} with defects.",
            "Use the same camera settings for both, or the generator learns colour as part of the defect.",
        )
    deep = [i for i in readable if i.highest_sample is not None]
    highest = max((i.highest_sample or 0 for i in deep), default=0)
    if deep and (bits := max(8, highest.bit_length())) < bit_depth:
        yield Finding(
            "warning",
            "bit_depth",
            f"{_count(deep, 'photograph')} of 16 bits without a sample above {highest}, which would be too dark.",
            f"Give --bit_depth {bits}.",
            _records(deep),
        )
    rotated = [i for i in readable if i.is_rotated]
    if rotated:
        masked = any(i.record.mask_path for i in rotated)
        yield Finding(
            "note",
            "exif_rotated",
            f"{_count(rotated, 'photograph')} to be turned upright by the EXIF orientation.",
            "Check in the contact sheet that their masks fit." if masked else "Nothing.",
            _records(rotated),
        )


def check_duplicates(inspections: Sequence[Inspection], pairs: Sequence[DuplicatePair]) -> Iterator[Finding]:
    """Report photographs that occur twice, and what leaks from the training into the test photographs."""
    records = [i.record for i in inspections]
    for kind, severity, what in (
        ("exact", "warning", "that are the same file"),
        ("near", "note", "that show the same view, saved, scaled or lit differently"),
        ("turned", "note", "that show the same view, rotated or mirrored"),
    ):
        found = [pair for pair in pairs if pair.kind == kind]
        if found:
            yield Finding(
                severity,  # type: ignore[arg-type]
                f"{kind}_duplicates",
                f"{_count(found, 'pair')} of photographs {what}.",
                "Keep one of each, or keep them together when you split the set.",
                tuple(f"{records[p.first].name} = {records[p.second].name}" for p in found),
            )
    leaks = [p for p in pairs if records[p.first].split != records[p.second].split]
    if leaks:
        yield Finding(
            "warning",
            "train_test_leak",
            f"{_count(leaks, 'pair')} with one photograph in train and the other in test.",
            "Move both to the same side, or what is measured on test rewards what was only remembered.",
            tuple(f"{records[p.first].name} = {records[p.second].name}" for p in leaks),
        )
    conflicts = [
        p
        for p in pairs
        if p.kind == "exact" and (records[p.first].defect == GOOD) != (records[p.second].defect == GOOD)
    ]
    if conflicts:
        yield Finding(
            "warning",
            "conflicting_labels",
            f"{_count(conflicts, 'pair')} of the same file, once as defect-free and once as defect.",
            "Remove one of the two.",
            tuple(f"{records[p.first].name} = {records[p.second].name}" for p in conflicts),
        )


def _area(inspection: Inspection) -> float:
    return inspection.mask_area or 0.0


def _smallest_scaled_side(inspection: Inspection, fit: str) -> int:
    sides = inspection.width, inspection.height
    return max(sides) if fit == "pad" else min(sides)


def _records(inspections: Sequence[Inspection]) -> tuple[str, ...]:
    return tuple(inspection.record.name for inspection in inspections)


def _names(listing: Listing, paths: Sequence[object]) -> tuple[str, ...]:
    root = f"{listing.root}/"
    return tuple(str(path).removeprefix(root) for path in paths)


def _range(values: Sequence[float]) -> str:
    lowest, highest = min(values), max(values)
    return f"{lowest:g}" if lowest == highest else f"{lowest:g} to {highest:g}"


def _count(items: Sequence[object], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"
