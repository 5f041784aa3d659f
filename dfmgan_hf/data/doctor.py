"""What is wrong with this folder? Look at all of it and report everything at once."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image
from PIL.ExifTags import Base as Tag

from ..files import file_sha256, write_json
from ..sheets import contact_sheet, outlined, save_sheet, stack
from .duplicates import DuplicatePair, describe_detail, find_duplicates, group_duplicates
from .preparation import Fit, check_pair, check_square
from .reading import Mask, decode, highest_sample, image_to_array, is_deep_colour, read_image, read_mask
from .records import GOOD, DataError, ImageRecord, Listing
from .sources import DataSource, find_listing

# --- Everything there is to know about one photograph and its mask, problems included.

Array = np.ndarray[Any, Any]

_GREY_TOLERANCE = 16
_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP"})


@dataclass
class Inspection:
    """What was found about one record.

    Attributes:
        record: The files.
        errors: What keeps it from being used for training.
        width: Of the upright photograph, in pixels; 0 if it cannot be read.
        height: Likewise.
        mode: Pillow's mode of the file: `L`, `RGB`, `I;16`, ...; with `;16` added where colour has 16 bits, which
            Pillow's mode does not say.
        sha256: Digest of the photograph's file.
        is_coloured: Whether more than 1 % of its pixels are not grey.
        is_rotated: Whether EXIF says that the photograph is to be turned.
        highest_sample: Largest sample of a 16-bit photograph, else None.
        mask_area: Share of the photograph that is defect, 0 to 1; None without a readable mask.
        has_soft_mask: See `reading.Mask.is_soft`.
        has_lossy_mask: Whether the mask is compressed in a way that changes pixels, as JPEG.
        detail: Descriptor for finding duplicates, see `duplicates.describe_detail`; None if unreadable.
    """

    record: ImageRecord
    errors: list[DataError] = field(default_factory=list)
    width: int = 0
    height: int = 0
    mode: str = ""
    sha256: str = ""
    is_coloured: bool = False
    is_rotated: bool = False
    highest_sample: int | None = None
    mask_area: float | None = None
    has_soft_mask: bool = False
    has_lossy_mask: bool = False
    detail: Array | None = None


def inspect_listing(listing: Listing, bit_depth: int = 16) -> list[Inspection]:
    """Open every photograph and mask of a listing. Nothing is raised: problems are in `Inspection.errors`.

    Args:
        listing: The files.
        bit_depth: Significant bits of 16-bit photographs.
    """
    with ThreadPoolExecutor() as pool:
        return list(pool.map(lambda record: _inspect(record, bit_depth), listing.records))


def _inspect(record: ImageRecord, bit_depth: int) -> Inspection:
    found = Inspection(record)
    if record.error is not None:
        found.errors.append(record.error)
    image: Array | None = None
    mask: Mask | None = None
    try:
        decoded = decode(record.image_path)
        image = image_to_array(decoded, 3, bit_depth, record.image_path)
        found.highest_sample = highest_sample(decoded)
        found.height, found.width = image.shape[:2]
        found.is_coloured = bool((np.ptp(image, axis=2) > _GREY_TOLERANCE).mean() > 0.01)
        found.detail = describe_detail(image)
        found.sha256 = file_sha256(record.image_path)
        with Image.open(record.image_path) as file:
            found.mode = f"{file.mode};16" if is_deep_colour(file) else file.mode
            found.is_rotated = file.getexif().get(Tag.Orientation, 1) != 1
    except DataError as error:
        found.errors.append(error)
    if record.mask_path is not None:
        try:
            mask = read_mask(record.mask_path)
            found.mask_area = float(mask.defect.mean())
            found.has_soft_mask = mask.is_soft
            with Image.open(record.mask_path) as file:
                found.has_lossy_mask = file.format in _LOSSY_FORMATS
        except DataError as error:
            found.errors.append(error)
    if image is not None and mask is not None:
        try:
            check_pair(record, image, mask)
        except DataError as error:
            found.errors.append(error)
    return found


# --- What the doctor found, as a table for people and as JSON for programs.

Severity = Literal["error", "warning", "note"]

EXIT_STATUS = {"note": 0, "warning": 1, "error": 2}

_WIDTH = 110
_FILES_SHOWN = 5


@dataclass(frozen=True)
class Finding:
    """One kind of problem.

    Attributes:
        severity: `error` if training cannot run, `warning` if it would suffer, `note` otherwise.
        code: Short stable name.
        message: What was found.
        advice: What to do.
        files: Names of the files concerned.
    """

    severity: Severity
    code: str
    message: str
    advice: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class KindSummary:
    """The photographs of one kind in one split.

    Attributes:
        split: `train` or `test`.
        kind: `good`, or the kind of defect.
        photographs: How many there are.
        usable: How many of them have no problem.
        sizes: Number of photographs by `<width>x<height>`.
        modes: Number of photographs by Pillow's mode.
        mask_area_percent: Minimum, quartiles and maximum (`min`, `25`, `50`, `75`, `max`) of the masks' share of the
            photograph; empty without masks.
        mask_area_histogram: Number of masks with a share of up to 0.1, 0.3, 1, 3, 10, 30 and 100 %.
    """

    split: str
    kind: str
    photographs: int
    usable: int
    sizes: dict[str, int]
    modes: dict[str, int]
    mask_area_percent: dict[str, float]
    mask_area_histogram: dict[str, int]


@dataclass(frozen=True)
class StageSummary:
    """Whether one stage of training can run.

    Attributes:
        stage: `stage 1` or `stage 2`.
        kind: What it trains on.
        usable: Usable photographs.
        advised: Number from which results are as good as the method's.
        verdict: `ready`, `few` or `cannot train`.
    """

    stage: str
    kind: str
    usable: int
    advised: int
    verdict: Literal["ready", "few", "cannot train"]


@dataclass(frozen=True)
class Report:
    """All that the doctor has to say about a data set."""

    root: str
    category: str
    resolution: int
    fit: str
    kinds: list[KindSummary]
    stages: list[StageSummary]
    findings: list[Finding]
    duplicate_groups: list[list[str]] = field(default_factory=list)

    @property
    def exit_status(self) -> int:
        """Exit status of a script: 0 for nothing to complain of, 1 for warnings, 2 if training cannot run."""
        return max((EXIT_STATUS[finding.severity] for finding in self.findings), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "exit_status": self.exit_status}

    def save_json(self, path: Path | str) -> Path:
        """Write `to_dict` as JSON."""
        write_json(path, self.to_dict())
        return Path(path)

    def to_text(self) -> str:
        """Write a readable table, without colours, at most 110 columns wide apart from file names."""
        total = sum(kind.photographs for kind in self.kinds)
        parts = [
            f"{self.category}: {total} photographs in {self.root}",
            _table(_KIND_HEADER, [_kind_row(kind) for kind in self.kinds]),
            _table(_STAGE_HEADER, [_stage_row(stage) for stage in self.stages]),
            *(_finding_text(finding) for finding in self.findings),
            self._verdict(),
        ]
        return "\n\n".join(parts)

    def _verdict(self) -> str:
        counts = {severity: sum(f.severity == severity for f in self.findings) for severity in EXIT_STATUS}
        verdicts = ("Ready to train.", "Can be trained on; read the warnings.", "Cannot be trained on as it is.")
        found = ", ".join(f"{n} {name}{'s' if n != 1 else ''}" for name, n in reversed(counts.items()) if n)
        return f"{verdicts[self.exit_status]} {found}".strip()


_KIND_HEADER = ("split", "kind", "photos", "usable", "size in pixels", "mode", "defect area in % (min, median, max)")
_STAGE_HEADER = ("stage", "trains on", "usable", "advised", "verdict")


def _kind_row(kind: KindSummary) -> tuple[str, ...]:
    area = kind.mask_area_percent
    areas = "  ".join(f"{area[key]:6.3g}" for key in ("min", "50", "max")) if area else "-"
    modes = ", ".join(kind.modes) or "-"
    return kind.split, kind.kind, str(kind.photographs), str(kind.usable), _size_range(kind.sizes), modes, areas


def _stage_row(stage: StageSummary) -> tuple[str, ...]:
    return stage.stage, stage.kind, str(stage.usable), str(stage.advised), stage.verdict


def _size_range(sizes: dict[str, int]) -> str:
    pairs = [tuple(map(int, size.split("x"))) for size in sizes]
    if not pairs:
        return "-"
    sides = [(min(side), max(side)) for side in zip(*pairs, strict=True)]
    return " x ".join(str(low) if low == high else f"{low}..{high}" for low, high in sides)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    right = [all(row[column].isdigit() for row in rows) and bool(rows) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = (c.rjust(w) if r else c.ljust(w) for c, w, r in zip(cells, widths, right, strict=True))
        return "  ".join(padded).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, rows)])


def _finding_text(finding: Finding) -> str:
    def wrap(text: str, first: str) -> str:
        return textwrap.fill(text, _WIDTH, initial_indent=first, subsequent_indent=" " * 9, break_on_hyphens=False)

    lines = [wrap(finding.message, f"{finding.severity.upper():<9}"), wrap(f"-> {finding.advice}", " " * 9)]
    lines += [f"{' ' * 9}   {name}" for name in finding.files[:_FILES_SHOWN]]
    if len(finding.files) > _FILES_SHOWN:
        lines.append(f"{' ' * 9}   and {len(finding.files) - _FILES_SHOWN} more (all of them are in the JSON)")
    return "\n".join(lines)


# --- The doctor's rules: each looks at the inspected photographs and says what is wrong, if anything.

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


# --- What is wrong with this folder? Looks at all of it and reports everything at once.

# Rules of thumb. The paper's categories of MVTec AD have 60 to 391 defect-free photographs, and its hazelnut 17 or 18
# of each kind of defect.
ADVISED_GOOD = 200
ADVISED_DEFECTS = 10
MINIMUM_GOOD = 2
MINIMUM_DEFECTS = 1
# A third, rounded down, must leave one photograph to train on (paper, section 4.3).
MINIMUM_FOR_PARTITIONS = 3

_AREA_LIMITS_PERCENT = (0.1, 0.3, 1, 3, 10, 30, 100)


def examine(
    listing: Listing,
    *,
    resolution: int = 256,
    fit: Fit = "resize",
    bit_depth: int = 16,
    skip_bad_files: bool = False,
) -> tuple[Report, list[Inspection]]:
    """Open every file of a data set, check it against what training needs, and compare all photographs.

    Args:
        listing: As `sources.find_listing` returns it.
        resolution: Resolution that is planned for training.
        fit: How photographs will become square.
        bit_depth: Significant bits of 16-bit photographs.
        skip_bad_files: Whether training will leave out files with problems; they are warnings then, not errors.

    Returns:
        The report, and what was found about each photograph, in the listing's order.

    Raises:
        ValueError: that names the option whose value is not possible.
    """
    check_square(resolution, fit)
    inspections = inspect_listing(listing, bit_depth)
    pairs = find_duplicates([i.detail for i in inspections], [i.sha256 for i in inspections])
    stages = _judge_stages(inspections)
    findings = [
        *_check_numbers(stages),
        *check_files(inspections, skip_bad_files),
        *check_folder(listing),
        *check_masks(inspections, resolution),
        *check_shapes(inspections, resolution, fit),
        *check_pixels(inspections, bit_depth),
        *check_duplicates(inspections, pairs),
    ]
    findings.sort(key=lambda finding: -EXIT_STATUS[finding.severity])
    groups = [[inspections[index].record.name for index in group] for group in group_duplicates(pairs)]
    report = Report(
        root=str(listing.root),
        category=listing.category,
        resolution=resolution,
        fit=fit,
        kinds=_summarise_kinds(inspections),
        stages=stages,
        findings=findings,
        duplicate_groups=groups,
    )
    return report, inspections


def _summarise_kinds(inspections: Sequence[Inspection]) -> list[KindSummary]:
    kinds: dict[tuple[str, str], list[Inspection]] = {}
    for inspection in inspections:
        kinds.setdefault((inspection.record.split, inspection.record.defect), []).append(inspection)
    # Training before test, defect-free before defects.
    order = sorted(kinds, key=lambda key: (key[0] != "train", key[1] != GOOD, key[1]))
    return [_summarise(split, kind, kinds[split, kind]) for split, kind in order]


def _summarise(split: str, kind: str, members: Sequence[Inspection]) -> KindSummary:
    areas = 100 * np.array([i.mask_area for i in members if i.mask_area is not None])
    quantiles = dict(zip(("min", "25", "50", "75", "max"), (0, 0.25, 0.5, 0.75, 1), strict=True))
    bins = np.searchsorted(_AREA_LIMITS_PERCENT, areas)
    return KindSummary(
        split=split,
        kind=kind,
        photographs=len(members),
        usable=sum(not i.errors for i in members),
        sizes=dict(Counter(f"{i.width}x{i.height}" for i in members if i.width).most_common()),
        modes=dict(Counter(i.mode for i in members if i.mode).most_common()),
        mask_area_percent={name: float(np.quantile(areas, q)) for name, q in quantiles.items()} if areas.size else {},
        mask_area_histogram={
            f"<={limit:g}": int((bins == index).sum()) for index, limit in enumerate(_AREA_LIMITS_PERCENT)
        }
        if areas.size
        else {},
    )


def _judge_stages(inspections: Sequence[Inspection]) -> list[StageSummary]:
    usable = Counter((i.record.split, i.record.defect) for i in inspections if not i.errors)
    good = usable["train", GOOD]
    stages = [_judge("stage 1", "defect-free", good, ADVISED_GOOD, MINIMUM_GOOD)]
    for kind in sorted({i.record.defect for i in inspections} - {GOOD}):
        count = usable["train", kind] + usable["test", kind]
        stages.append(_judge("stage 2", kind, count, ADVISED_DEFECTS, MINIMUM_DEFECTS))
    return stages


def _judge(stage: str, kind: str, usable: int, advised: int, minimum: int) -> StageSummary:
    verdict = "cannot train" if usable < minimum else "few" if usable < advised else "ready"
    return StageSummary(stage, kind, usable, advised, verdict)  # type: ignore[arg-type]


def _check_numbers(stages: Sequence[StageSummary]) -> list[Finding]:
    findings = []
    first, *second = stages
    if first.verdict == "cannot train":
        findings.append(
            Finding(
                "error",
                "too_few_good",
                f"{first.usable} usable defect-free photographs; stage 1 needs at least {MINIMUM_GOOD}.",
                f"Put defect-free photographs into train/good; {ADVISED_GOOD} are advised.",
            )
        )
    elif first.verdict == "few":
        findings.append(
            Finding(
                "warning",
                "few_good",
                f"{first.usable} usable defect-free photographs; {ADVISED_GOOD} are advised for stage 1.",
                "Photograph more, which needs no defects. With few, the discriminator remembers them.",
            )
        )
    if not second:
        findings.append(
            Finding(
                "error",
                "no_defects",
                "No photographs of defects; stage 2 cannot be trained.",
                "Put them into test/DEFECT and their masks into ground_truth/DEFECT.",
            )
        )
    for stage in second:
        if stage.verdict == "cannot train":
            findings.append(
                Finding(
                    "error",
                    "too_few_defects",
                    f"'{stage.kind}' has no usable photograph; stage 2 cannot be trained on it.",
                    f"Add photographs with masks; {ADVISED_DEFECTS} are advised.",
                )
            )
        elif stage.verdict == "few":
            also = ""
            if stage.usable < MINIMUM_FOR_PARTITIONS:
                also = f" Classification needs at least {MINIMUM_FOR_PARTITIONS}."
            findings.append(
                Finding(
                    "warning",
                    "few_defects",
                    f"'{stage.kind}' has {stage.usable} usable photographs; {ADVISED_DEFECTS} are advised.",
                    f"Add more if you can; what is generated will stay close to these few.{also}",
                )
            )
    return findings


# --- The page, and the command line


def draw_contact_sheet(
    inspections: Sequence[Inspection],
    title: str,
    *,
    duplicate_groups: Sequence[Sequence[str]] = (),
    columns: int = 8,
    bit_depth: int = 16,
) -> Image.Image:
    """Draw up to `columns` photographs of each kind, defects outlined, from the smallest mask to the largest.

    Args:
        inspections: As `examine` returns them; those with problems are left out.
        title: Written above.
        duplicate_groups: Names of photographs that show the same thing; the first few are drawn side by side.
        columns: Photographs in a row.
        bit_depth: Significant bits of 16-bit photographs.

    Returns:
        RGB image.
    """
    usable = [inspection for inspection in inspections if not inspection.errors]
    kinds: dict[tuple[str, str], list[Inspection]] = {}
    for inspection in usable:
        kinds.setdefault((inspection.record.split, inspection.record.defect), []).append(inspection)
    rows = []
    for split, kind in sorted(kinds, key=lambda key: (key[0] != "train", key[1] != GOOD, key[1])):
        members = sorted(kinds[split, kind], key=lambda inspection: inspection.mask_area or 0)
        chosen = np.unique(np.linspace(0, len(members) - 1, min(columns, len(members))).round().astype(int))
        order = "" if kind == GOOD else ", from the smallest defect to the largest"
        rows.append((f"{split} / {kind}: {len(members)} photographs{order}", [members[index] for index in chosen]))
    by_name = {inspection.record.name: inspection for inspection in usable}
    same = [by_name[name] for group in duplicate_groups for name in group if name in by_name]
    if same:
        rows.append(("photographs that show the same view", same[:columns]))
    pages: list[Image.Image] = []
    for name, members in rows:
        pictures = [[_thumbnail(inspection.record, bit_depth)] for inspection in members]
        captions = [_caption(inspection) for inspection in members]
        heading = name if pages else f"{title}    {name}"
        pages.append(contact_sheet(pictures, title=heading, captions=captions, columns=columns, picture_size=_CELL))
    return stack(pages)


_CELL = 200


def _thumbnail(record: ImageRecord, bit_depth: int) -> Image.Image:
    photograph = Image.fromarray(read_image(record.image_path, 3, bit_depth))
    if record.mask_path is None:
        photograph.thumbnail((_CELL, _CELL), Image.Resampling.LANCZOS)
        return photograph
    return outlined(photograph, Image.fromarray(read_mask(record.mask_path).defect), _CELL)


def _caption(inspection: Inspection) -> str:
    name = inspection.record.name
    area = "" if inspection.mask_area is None else f"{100 * inspection.mask_area:.2g} %  "
    return area + (name if len(name) <= 24 else f"...{name[-21:]}")


@dataclass(frozen=True)
class CheckConfig(DataSource):
    """Check photographs and masks before training on them.

    Args:
        resolution: Resolution that is planned for training, in pixels.
        fit: How photographs will become square.
        bit_depth: Significant bits of 16-bit photographs.
        skip_bad_files: Training will leave out files with problems: call them warnings, not errors.
        output_dir: Folder for report.json and contact_sheet.png.
        columns: Photographs of each kind on the contact sheet.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    resolution: int = 256
    fit: Fit = "resize"
    bit_depth: int = 16
    skip_bad_files: bool = False
    output_dir: Path = Path("outputs/check_dataset")
    columns: int = 8


def check_dataset(config: CheckConfig) -> int:
    """Print what is in a data set and what is wrong with it; write report.json and contact_sheet.png.

    Returns:
        0 if all is well, 1 for warnings, 2 if training cannot run.

    Raises:
        DataError: there is nothing to check.
        OSError: something cannot be read, or the report not be written.
    """
    if config.columns < 1:
        raise ValueError(f"`columns` must be at least 1, but is {config.columns}.")
    listing = find_listing(config)
    report, inspections = examine(
        listing,
        resolution=config.resolution,
        fit=config.fit,
        bit_depth=config.bit_depth,
        skip_bad_files=config.skip_bad_files,
    )
    print(report.to_text())
    title = f"{listing.category}: {len(inspections)} photographs"
    sheet = draw_contact_sheet(
        inspections,
        title,
        duplicate_groups=report.duplicate_groups,
        columns=config.columns,
        bit_depth=config.bit_depth,
    )
    written = report.save_json(config.output_dir / "report.json"), config.output_dir / "contact_sheet.png"
    save_sheet(sheet, written[1])
    print("", *written, sep="\n")
    return report.exit_status
