"""What is odd about photographs, masks and the folders that they lie in: the doctor and training say the same."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np

from .duplicates import DuplicatePair
from .preparation import FULL_AREA, Inspection, Size, fitting_size, height_and_width
from .records import GOOD, LEFT_OVER, DataError, ImageRecord, Listing, normalised, printable

# What the mask is drawn at inside the generator (method, section 3): smaller defects have no pixel of their own there.
_LARGEST_MASK_GRID = 64
_LARGE_AREA = 0.5
_ELONGATED = 1.5
_MIXED_SHAPES = 1.3
_SQUEEZED = 1.25

Severity = Literal["error", "warning", "note"]
RANKS: dict[Severity, int] = {"note": 0, "warning": 1, "error": 2}

_TEXT_WIDTH = 110
_FILES_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One kind of problem: an `error` if training cannot run, a `warning` if it would suffer, a `note` otherwise."""

    severity: Severity
    code: str  # short and stable
    message: str  # what was found
    advice: str  # what to do
    files: tuple[str, ...] = ()  # names of those concerned

    def to_text(self) -> str:
        """Return a paragraph with the first few files."""
        margin = " " * 9
        wrap = partial(textwrap.fill, width=_TEXT_WIDTH, subsequent_indent=margin, break_on_hyphens=False)
        lines = [
            wrap(f"{self.severity.upper():<9}{printable(self.message)}"),
            wrap(f"{margin}-> {printable(self.advice)}"),
            *(f"{margin}   {printable(name)}" for name in self.files[:_FILES_SHOWN]),
        ]
        if len(self.files) > _FILES_SHOWN:
            lines.append(f"{margin}   and {len(self.files) - _FILES_SHOWN} more (all of them are in the JSON)")
        return "\n".join(lines)

    def to_line(self) -> str:
        """Return a sentence or two, with one of the files."""
        example = f" For example {self.files[0]}." if self.files else ""
        return printable(f"{self.message}{example} {self.advice}")


def judge(
    inspections: Sequence[Inspection], *, resolution: Size, fit: str, bit_depth: int, image_channels: int
) -> list[Finding]:
    """Say what is odd about photographs, and masks, that can be used."""
    return [
        *_check_masks(inspections, height_and_width(resolution), fit),
        *_check_shapes(inspections, height_and_width(resolution), fit),
        *_check_pixels(inspections, bit_depth),
        *_check_colour(inspections, image_channels),
    ]


# Rules of thumb. The paper's categories of MVTec AD have 60 to 391 defect-free photographs, and its hazelnut 17 or 18
# of each kind of defect.
ADVISED_GOOD = 200
ADVISED_DEFECTS = 10
# A third, rounded down, must leave one photograph to train on (paper, section 4.3).
_MINIMUM_FOR_PARTITIONS = 3


def judge_number(kind: str, usable: int) -> Iterator[Finding]:
    """Report that photographs of a kind, enough to train on, are few."""
    if kind == GOOD and usable < ADVISED_GOOD:
        yield Finding(
            "warning",
            "few_good",
            f"{usable} usable defect-free photographs; {ADVISED_GOOD} are advised for stage 1.",
            "Take more: they need no defects. With few, the discriminator learns them by heart.",
        )
    elif kind != GOOD and usable < ADVISED_DEFECTS:
        also = f" Classification needs at least {_MINIMUM_FOR_PARTITIONS}." if usable < _MINIMUM_FOR_PARTITIONS else ""
        yield Finding(
            "warning",
            "few_defects",
            f"'{kind}' has {usable} usable photographs; {ADVISED_DEFECTS} are advised.",
            f"Add more if you can; what is generated will stay close to these few.{also}",
        )


def judge_files(inspections: Sequence[Inspection], skip_bad_files: bool) -> Iterator[Finding]:
    """Report what cannot be used."""
    by_code: dict[str, list[tuple[str, DataError]]] = {}
    for inspection in inspections:
        for error in inspection.errors:
            by_code.setdefault(error.code, []).append((inspection.record.name, error))
    for code, cases in by_code.items():
        first = cases[0][1]
        which = ", the first" if len(cases) > 1 else ""
        says_so = skip_bad_files or "--skip_bad_files" in first.advice
        yield Finding(
            "warning" if skip_bad_files else "error",
            code,
            f"{count(len(cases), 'file')}{which}: {first.found}; expected {first.expected}.",
            first.advice if says_so else f"{first.advice} Or leave them out with --skip_bad_files.",
            tuple(name for name, _ in cases),
        )


def judge_folder(listing: Listing) -> Iterator[Finding]:
    """Report all entries of a folder that are not used, and good photographs that share a name but for its ending."""
    for kind, (what, advice) in LEFT_OVER.items():
        entries = [entry for entry in listing.left_over if entry.kind == kind]
        names = [str(entry.path).removeprefix(f"{listing.root}/") for entry in entries]
        images = sum(entry.images for entry in entries)
        inside = f" ({count(images, 'image')} in folders)" if images else ""
        number = f"{len(names)} entr{'y' if len(names) == 1 else 'ies'}"
        severity: Severity = "warning" if any(entry.is_unresolved for entry in entries) else "note"
        yield from found_in(names, severity, kind, f"{number}: {what}{inside}.", advice)
    by_stem: dict[tuple[str, str], list[str]] = {}
    for record in listing.records:
        if record.defect == GOOD:
            place = str(record.image_path.parent), normalised(record.image_path.stem)
            by_stem.setdefault(place, []).append(record.name)
    alike = [" = ".join(names) for names in by_stem.values() if len(names) > 1]
    yield from found_in(
        alike,
        "warning",
        "same_stem",
        f"{count(len(alike), 'group')} of defect-free photographs in files that differ in their endings alone.",
        "All are used. If they are versions of one photograph, keep one of each; if one is a mask, move it out.",
    )


def _check_masks(inspections: Sequence[Inspection], size: tuple[int, int], fit: str) -> Iterator[Finding]:
    """Report masks that can be used but are probably not meant as they are."""
    areas = {i.record.name: i.mask_area for i in inspections if i.mask_area}
    full = [name for name, area in areas.items() if area >= FULL_AREA]
    yield from found_in(
        full,
        "warning",
        "full_mask",
        f"{count(len(full), 'mask')} over (almost) all of the photograph.",
        "Any non-zero pixel counts as defect: perhaps the background is not 0, or the mask is inverted.",
    )
    large = [name for name, area in areas.items() if _LARGE_AREA < area < FULL_AREA]
    yield from found_in(
        large,
        "warning",
        "large_mask",
        f"{count(len(large), 'mask')} over more than half of the photograph.",
        "Check that they are not inverted. The method adds a local defect to an object that it leaves as it is.",
    )
    soft = [i for i in inspections if i.mask_area and i.has_soft_mask]
    lossy = sum(i.has_lossy_mask for i in soft)
    yield from found_in(
        [i.record.name for i in soft],
        "warning",
        "soft_mask",
        f"{count(len(soft), 'mask')} with several grey values or colours"
        f"{f', {lossy} of them lossily compressed' if lossy else ''}; every non-zero pixel counts as defect.",
        "If they are antialiased, heat maps or JPEG, threshold them and save them as PNG.",
    )
    height, width = size
    # Of what is trained on, which is larger than the photograph or smaller.
    shares = {
        i.record.name: i.mask_area * i.width * i.height / (math.prod(fitting_size(i.height, i.width, size, fit)) or 1)
        for i in inspections
        if i.mask_area
    }
    coarser = max(4, min(size) // _LARGEST_MASK_GRID)
    tiny = [name for name, share in shares.items() if share * height * width < coarser**2]
    pixels = value_range([round(shares[name] * height * width, 1) for name in tiny])
    yield from found_in(
        tiny,
        "warning",
        "tiny_defect",
        f"{count(len(tiny), 'defect')} smaller than one pixel of the {width // coarser}x{height // coarser} grid "
        f"on which masks are generated ({pixels} pixels at {width}x{height}).",
        "They may not be learnt as they are: train larger, or on patches of the photographs (dfmgan cut-patches).",
    )


def _check_shapes(inspections: Sequence[Inspection], size: tuple[int, int], fit: str) -> Iterator[Finding]:
    sides = {i.record.name: (i.width, i.height) for i in inspections if i.width}
    if not sides:
        return
    height, width = size
    ratios = np.array([w / h for w, h in sides.values()])
    squeezes = np.maximum(ratios * height / width, width / height / ratios)
    is_mixed = ratios.max() / ratios.min() > _MIXED_SHAPES or squeezes.max() > _ELONGATED
    squeezed = [name for name, squeeze in zip(sides, squeezes, strict=True) if squeeze > _SQUEEZED]
    if fit == "resize":
        yield from found_in(
            squeezed,
            "warning" if is_mixed else "note",
            "distorted",
            f"{count(len(squeezed), 'photograph')} to be squeezed out of shape: width / height is "
            f"{value_range([round(float(ratio), 2) for ratio in ratios])}, and fit=resize makes all {width}x{height}.",
            "If proportions matter, use --fit center_crop or --fit pad, or crop the photographs alike.",
        )
    # How often the shorter side is as long as the longer one, or the other way round: 1, 2 or 4 times.
    nearest = 2 ** np.log2(np.median(ratios)).round().clip(-2, 2)
    aspect = round(max(1 / nearest, 1)), round(max(nearest, 1))
    if np.median(squeezes) > _ELONGATED and aspect[0] * width != aspect[1] * height:
        yield Finding(
            "note",
            "elongated",
            f"Photographs are {np.median(ratios):.2g} times as wide as high, images {width / height:.2g} times.",
            f"Train stage 1 with --aspect {aspect[0]} {aspect[1]} for images of nearly their shape.",
        )
    fitted = {name: fitting_size(h, w, size, fit) for name, (w, h) in sides.items()}
    scales = {name: min(h / height, w / width) for name, (h, w) in fitted.items()}
    small = [name for name, scale in scales.items() if scale < 1]
    smallest = fitted[min(scales, key=scales.__getitem__)]
    yield from found_in(
        small,
        "warning" if 2 * len(small) > len(sides) else "note",
        "enlarged",
        f"{count(len(small), 'photograph')} to be enlarged to {width}x{height} pixels (from down to "
        f"{smallest[1]}x{smallest[0]}).",
        "Train at a lower --resolution if the result looks soft.",
    )


def _check_pixels(inspections: Sequence[Inspection], bit_depth: int) -> Iterator[Finding]:
    readable = [i for i in inspections if i.mode]
    good, bad = ([i.is_coloured for i in readable if (i.record.defect == GOOD) is side] for side in (True, False))
    if good and bad and (2 * sum(good) > len(good)) != (2 * sum(bad) > len(bad)):
        yield Finding(
            "warning",
            "colour_differs",
            f"{sum(good)} of {len(good)} defect-free photographs are coloured, {sum(bad)} of {len(bad)} with defects.",
            "Use the same camera settings for both, or the generator learns colour as part of the defect.",
        )
    deep = {i.record.name: i.highest_sample for i in readable if i.highest_sample is not None}
    highest = max(deep.values(), default=0)
    bits = max(8, highest.bit_length())
    yield from found_in(
        list(deep) if bits < bit_depth else [],
        "warning",
        "bit_depth",
        f"{count(len(deep), 'photograph')} of 16 bits without a sample above {highest}, which would be too dark.",
        f"Give --bit_depth {bits}.",
    )
    dark = [i.record.name for i in readable if i.is_dark and not (bits < bit_depth and i.record.name in deep)]
    yield from found_in(
        dark,
        "warning",
        "dark",
        f"{count(len(dark), 'photograph')} nearly black.",
        "Check how they were exported; the contact sheet of `dfmgan check` shows them.",
    )
    transparent = [i.record.name for i in readable if i.is_transparent]
    yield from found_in(
        transparent,
        "warning",
        "transparent",
        f"{count(len(transparent), 'photograph')} wholly transparent; the colours behind are used.",
        "Nothing, if the contact sheet of `dfmgan check` shows them as they are. Save them without alpha to be sure.",
    )
    paged = [i.record.name for i in inspections if i.has_more_pages]
    yield from found_in(
        paged,
        "warning",
        "more_pages",
        f"{count(len(paged), 'photograph')} in files of several pages, or with such a mask: the first page is used.",
        "Save each page that counts as a file of its own; the masks of several instances as _mask_1, _mask_2, ...",
    )
    rotated = [i.record for i in readable if i.is_rotated]
    yield from found_in(
        [record.name for record in rotated],
        "note",
        "exif_rotated",
        f"{count(len(rotated), 'photograph')} to be turned upright by the EXIF orientation.",
        "Check in the contact sheet that their masks fit." if any(r.mask_path for r in rotated) else "Nothing.",
    )


def _check_colour(inspections: Sequence[Inspection], image_channels: int) -> Iterator[Finding]:
    """Report colour that is lost, missing, or in some of the photographs alone."""
    readable = [i for i in inspections if i.mode]
    coloured = [i.record.name for i in readable if i.is_coloured]
    if image_channels == 1:
        yield from found_in(
            coloured,
            "warning",
            "colour_lost",
            f"{len(coloured)} of {count(len(readable), 'photograph')} are coloured and become grey.",
            "Give --image_channels 3 if colour matters.",
        )
    elif readable and not coloured:
        yield Finding(
            "note",
            "grey",
            f"None of {count(len(readable), 'photograph')} is coloured: three equal channels are learnt.",
            "Give --image_channels 1, which is smaller and cannot tint them.",
        )
    else:
        by_kind: dict[str, list[bool]] = {}
        for inspection in readable:
            by_kind.setdefault(inspection.record.defect, []).append(inspection.is_coloured)
        mostly = {kind: 2 * sum(colours) > len(colours) for kind, colours in by_kind.items()}
        odd = [i.record.name for i in readable if i.is_coloured != mostly[i.record.defect]]
        yield from found_in(
            odd,
            "warning",
            "mixed_colour",
            f"{count(len(odd), 'photograph')} grey among coloured ones of the same kind, or the other way round.",
            "Take all with the same settings, or the generator learns both.",
        )


def judge_duplicates(
    records: Sequence[ImageRecord], pairs: Sequence[DuplicatePair], known_leaks: Sequence[str] = ()
) -> Iterator[Finding]:
    """Report photographs that occur more than once, and those known already to be in train and test."""
    # A photograph with defects of two kinds is two records.
    pairs = [p for p in pairs if records[p.first].image_path != records[p.second].image_path]
    exact, near, turned, maybe = (
        [p for p in pairs if p.kind == kind] for kind in ("exact", "near", "turned", "maybe")
    )
    leaks = [p for p in pairs if p.kind != "maybe" and records[p.first].split != records[p.second].split]
    conflicts = [p for p in exact if (records[p.first].defect == GOOD) != (records[p.second].defect == GOOD)]
    same_part = "of photographs of the same part, or of the same photograph"
    keep = "Keep one of each, or keep them together when you split the set."
    move = "Move both to the same side, or what is measured on test rewards what was only remembered."
    remove = "Remove one of the two."
    look = "Look at them: other parts in the same pose look like this too. If they are the same, keep them together."
    rows: tuple[tuple[list[DuplicatePair], Severity, str, str, str], ...] = (
        (exact, "warning", "exact_duplicates", "of photographs that are the same file", keep),
        (near, "note", "near_duplicates", f"{same_part} saved, scaled, cropped or lit differently", keep),
        (turned, "note", "turned_duplicates", f"{same_part} rotated or mirrored", keep),
        (maybe, "note", "maybe_duplicates", "of photographs that may show the same part, which is not certain", look),
        (leaks, "warning", "train_test_leak", "with one photograph in train and the other in test", move),
        (conflicts, "warning", "conflicting_labels", "of the same file, once as good and once as a defect", remove),
    )
    for found, severity, code, what, advice in rows:
        names = [f"{records[pair.first].name} = {records[pair.second].name}" for pair in found]
        if code == "train_test_leak":
            names += known_leaks
        yield from found_in(names, severity, code, f"{count(len(names), 'pair')} {what}.", advice)


def found_in(names: Sequence[str], severity: Severity, code: str, message: str, advice: str) -> Iterator[Finding]:
    if names:
        yield Finding(severity, code, message, advice, tuple(names))


def value_range(values: Sequence[float], to: str = " to ") -> str:
    lowest, highest = min(values, default=0), max(values, default=0)
    return f"{lowest:g}" if lowest == highest else f"{lowest:g}{to}{highest:g}"


def count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
