"""What is wrong with this folder? Look at all of it and report everything at once."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image
from PIL.ExifTags import Base as Tag

from ..files import file_sha256, write_json
from ..sheets import contact_sheet, outlined, save_sheet, stack
from .duplicates import DuplicatePair, describe_detail, find_duplicates, group_duplicates
from .preparation import FULL_AREA, check_pair, check_square
from .reading import Array, decode, highest_sample, image_to_array, is_deep_colour, read_image, read_mask
from .records import GOOD, DataError, ImageRecord, Listing
from .sources import SquareSource, find_listing

# Rules of thumb. The paper's categories of MVTec AD have 60 to 391 defect-free photographs, and its hazelnut 17 or 18
# of each kind of defect.
ADVISED_GOOD = 200
ADVISED_DEFECTS = 10
_MINIMUM_GOOD = 2
_MINIMUM_DEFECTS = 1
# A third, rounded down, must leave one photograph to train on (paper, section 4.3).
_MINIMUM_FOR_PARTITIONS = 3

# What the mask is drawn at inside the generator (method, section 3): smaller defects have no pixel of their own there.
_LARGEST_MASK_GRID = 64
_LARGE_AREA = 0.5
_ELONGATED = 1.5
_MIXED_SHAPES = 1.3
_GREY_TOLERANCE = 16
_LOSSY_FORMATS = frozenset({"JPEG", "MPO", "WEBP"})
_AREA_LIMITS_PERCENT = (0.1, 0.3, 1, 3, 10, 30, 100)

Severity = Literal["error", "warning", "note"]
_EXIT_STATUS: dict[Severity, int] = {"note": 0, "warning": 1, "error": 2}

_TEXT_WIDTH = 110
_FILES_SHOWN = 5
_PICTURE_SIZE = 200


@dataclass(frozen=True)
class CheckConfig(SquareSource):
    """Check photographs and masks before training on them; with `skip_bad_files`, bad files are warnings, not errors.

    Attributes:
        resolution: Resolution that is planned for training, in pixels.
        output_dir: Folder for report.json and contact_sheet.png.
        columns: Photographs of each kind on the contact sheet.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    resolution: int = 256
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
    report, inspections = examine(config)
    print(report.to_text())
    sheet = draw_contact_sheet(report, inspections, columns=config.columns, bit_depth=config.bit_depth)
    written = config.output_dir / "report.json", config.output_dir / "contact_sheet.png"
    write_json(written[0], report.to_dict())
    save_sheet(sheet, written[1])
    print("", *written, sep="\n")
    return report.exit_status


def examine(config: CheckConfig) -> tuple[Report, list[Inspection]]:
    """Open every file of a data set, check it against what training needs, and compare all photographs.

    Returns:
        The report, and what was found about each photograph, in the order of their names.

    Raises:
        DataError: there is nothing to check.
        ValueError: that names the option whose value is not possible.

    Example:
        >>> report, _ = examine(CheckConfig(Path("mvtec_ad"), "hazelnut", resolution=256))
        >>> print(report.to_text())
    """
    check_square(config.resolution, config.fit)
    listing = find_listing(config)
    with ThreadPoolExecutor() as pool:
        inspections = list(pool.map(partial(_inspect, bit_depth=config.bit_depth), listing.records))
    pairs = find_duplicates([i.detail for i in inspections], [i.sha256 for i in inspections])
    stages = _judge_stages(inspections)
    findings = [
        *_check_numbers(stages),
        *_check_files(inspections, config.skip_bad_files),
        *_check_folder(listing),
        *_check_masks(inspections, config.resolution),
        *_check_shapes(inspections, config.resolution, config.fit),
        *_check_pixels(inspections, config.bit_depth),
        *_check_duplicates([i.record for i in inspections], pairs),
    ]
    report = Report(
        root=str(listing.root),
        category=listing.category,
        resolution=config.resolution,
        fit=config.fit,
        kinds=[_summarise(split, kind, members) for (split, kind), members in _by_kind(inspections).items()],
        stages=stages,
        findings=sorted(findings, key=lambda finding: -_EXIT_STATUS[finding.severity]),
        duplicate_groups=[[inspections[i].record.name for i in group] for group in group_duplicates(pairs)],
    )
    return report, inspections


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
        lines = [wrap(f"{self.severity.upper():<9}{self.message}"), wrap(f"{margin}-> {self.advice}")]
        lines += [f"{margin}   {name}" for name in self.files[:_FILES_SHOWN]]
        if len(self.files) > _FILES_SHOWN:
            lines.append(f"{margin}   and {len(self.files) - _FILES_SHOWN} more (all of them are in the JSON)")
        return "\n".join(lines)


@dataclass(frozen=True)
class KindSummary:
    """The photographs of one kind (`good`, or a kind of defect) in one split."""

    split: str
    kind: str
    photographs: int
    usable: int  # photographs without any problem
    sizes: dict[str, int]  # number of photographs by "WIDTHxHEIGHT"
    modes: dict[str, int]  # number of photographs by `Inspection.mode`
    # Of the masks' share of the photograph; both empty without masks.
    mask_area_percent: dict[str, float]  # "min", "25", "50", "75" (quartiles), "max"
    mask_area_histogram: dict[str, int]  # number of masks by "<=LIMIT", see _AREA_LIMITS_PERCENT


@dataclass(frozen=True)
class StageSummary:
    """Whether one stage of training can run."""

    stage: str  # "stage 1" or "stage 2"
    kind: str  # what it trains on
    usable: int
    advised: int  # number from which results are as good as the method's
    verdict: Literal["ready", "few", "cannot train"]


@dataclass(frozen=True)
class Report:
    """What was found in a data set."""

    root: str
    category: str
    resolution: int
    fit: str
    kinds: list[KindSummary]
    stages: list[StageSummary]
    findings: list[Finding]
    duplicate_groups: list[list[str]] = field(default_factory=list)

    @property
    def photographs(self) -> int:
        """Number of photographs, usable or not."""
        return sum(kind.photographs for kind in self.kinds)

    @property
    def exit_status(self) -> int:
        """Exit status of a script: 0 if all is well, 1 for warnings, 2 if training cannot run."""
        return max((_EXIT_STATUS[finding.severity] for finding in self.findings), default=0)

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "exit_status": self.exit_status}

    def to_text(self) -> str:
        """Write a readable table, without colours, at most 110 columns wide apart from file names."""
        kinds = []
        for k in self.kinds:
            areas = "  ".join(f"{k.mask_area_percent[q]:6.3g}" for q in ("min", "50", "max") if k.mask_area_percent)
            sizes, modes = _size_range(k.sizes), ", ".join(k.modes)
            kinds.append(
                (k.split, k.kind, str(k.photographs), str(k.usable), sizes or "-", modes or "-", areas or "-")
            )
        stages = [(s.stage, s.kind, str(s.usable), str(s.advised), s.verdict) for s in self.stages]
        severities = Counter(finding.severity for finding in self.findings)
        found = ", ".join(_count(severities[name], name) for name in reversed(_EXIT_STATUS) if severities[name])
        verdicts = ("Ready to train.", "Can be trained on; read the warnings.", "Cannot be trained on as it is.")
        parts = [
            f"{self.category}: {self.photographs} photographs in {self.root}",
            _table("split|kind|photos|usable|size in pixels|mode|defect area in % (min, median, max)", kinds),
            _table("stage|trains on|usable|advised|verdict", stages),
            *(finding.to_text() for finding in self.findings),
            f"{verdicts[self.exit_status]} {found}".strip(),
        ]
        return "\n\n".join(parts)


def _size_range(sizes: dict[str, int]) -> str:
    sides = zip(*(map(int, size.split("x")) for size in sizes), strict=True)
    return " x ".join(_range(side, "..") for side in sides)


def _table(header: str, rows: Sequence[tuple[str, ...]]) -> str:
    columns = list(zip(header.split("|"), *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_right = [bool(rows) and all(cell.isdigit() for cell in column[1:]) for column in columns]
    rule = tuple("-" * width for width in widths)
    lines = []
    for row in (tuple(header.split("|")), rule, *rows):
        cells = (c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, is_right, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


@dataclass
class Inspection:
    """What was found about one photograph and its mask; the defaults stand where it cannot be read."""

    record: ImageRecord
    errors: list[DataError] = field(default_factory=list)  # what keeps it from being used for training
    width: int = 0  # of the upright photograph, in pixels
    height: int = 0
    mode: str = ""  # Pillow's, and ";16" where colour has 16 bits, which Pillow does not say
    sha256: str = ""  # of the photograph's file
    is_coloured: bool = False  # more than 1 % of its pixels are not grey
    is_rotated: bool = False  # EXIF says that it is to be turned
    highest_sample: int | None = None  # of a 16-bit photograph
    mask_area: float | None = None  # share of the photograph that is defect, 0 to 1
    has_soft_mask: bool = False  # see `reading.Mask`
    has_lossy_mask: bool = False  # compressed in a way that changes pixels, as JPEG
    detail: Array | None = None  # see `duplicates.describe_detail`

    @contextmanager
    def noting(self) -> Iterator[None]:
        """Inside, a DataError is noted among the errors and ends the block."""
        try:
            yield
        except DataError as error:
            self.errors.append(error)


def _inspect(record: ImageRecord, bit_depth: int) -> Inspection:
    """Open a photograph and its mask; nothing is raised."""
    found = Inspection(record, [] if record.error is None else [record.error])
    image = mask = None
    with found.noting():
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
    with found.noting():
        if record.mask_path is not None:
            mask = read_mask(record.mask_path)
            found.mask_area = float(mask.defect.mean())
            found.has_soft_mask = mask.is_soft
            with Image.open(record.mask_path) as file:
                found.has_lossy_mask = file.format in _LOSSY_FORMATS
    with found.noting():
        if image is not None and mask is not None:
            check_pair(record, image, mask)
    return found


def _by_kind(inspections: Sequence[Inspection]) -> dict[tuple[str, str], list[Inspection]]:
    """Group by split and kind: training before test, defect-free before defects."""
    kinds: dict[tuple[str, str], list[Inspection]] = {}
    for inspection in inspections:
        kinds.setdefault((inspection.record.split, inspection.record.defect), []).append(inspection)
    return dict(sorted(kinds.items(), key=lambda item: (item[0][0] != "train", item[0][1] != GOOD, item[0][1])))


def _summarise(split: str, kind: str, members: Sequence[Inspection]) -> KindSummary:
    areas = 100 * np.array([i.mask_area for i in members if i.mask_area is not None])
    percent: dict[str, float] = {}
    histogram: dict[str, int] = {}
    if areas.size:
        quartiles = np.quantile(areas, (0, 0.25, 0.5, 0.75, 1)).tolist()
        percent = dict(zip(("min", "25", "50", "75", "max"), quartiles, strict=True))
        bins = Counter(np.searchsorted(_AREA_LIMITS_PERCENT, areas).tolist())
        histogram = {f"<={limit:g}": bins[index] for index, limit in enumerate(_AREA_LIMITS_PERCENT)}
    return KindSummary(
        split,
        kind,
        photographs=len(members),
        usable=sum(not i.errors for i in members),
        sizes=dict(Counter(f"{i.width}x{i.height}" for i in members if i.width).most_common()),
        modes=dict(Counter(i.mode for i in members if i.mode).most_common()),
        mask_area_percent=percent,
        mask_area_histogram=histogram,
    )


def _judge_stages(inspections: Sequence[Inspection]) -> list[StageSummary]:
    usable = Counter((i.record.split, i.record.defect) for i in inspections if not i.errors)
    rows = [("stage 1", "defect-free", usable["train", GOOD], ADVISED_GOOD, _MINIMUM_GOOD)]
    for kind in sorted({i.record.defect for i in inspections} - {GOOD}):
        count = usable["train", kind] + usable["test", kind]
        rows.append(("stage 2", kind, count, ADVISED_DEFECTS, _MINIMUM_DEFECTS))
    return [
        StageSummary(
            stage, kind, count, advised, "cannot train" if count < minimum else "few" if count < advised else "ready"
        )
        for stage, kind, count, advised, minimum in rows
    ]


def _check_numbers(stages: Sequence[StageSummary]) -> Iterator[Finding]:
    good, *defects = stages
    if good.verdict == "cannot train":
        yield Finding(
            "error",
            "too_few_good",
            f"{good.usable} usable defect-free photographs; stage 1 needs at least {_MINIMUM_GOOD}.",
            f"Put defect-free photographs into train/good; {ADVISED_GOOD} are advised.",
        )
    elif good.verdict == "few":
        yield Finding(
            "warning",
            "few_good",
            f"{good.usable} usable defect-free photographs; {ADVISED_GOOD} are advised for stage 1.",
            "Photograph more, which needs no defects. With few, the discriminator remembers them.",
        )
    if not defects:
        yield Finding(
            "error",
            "no_defects",
            "No photographs of defects; stage 2 cannot be trained.",
            "Put them into test/DEFECT and their masks into ground_truth/DEFECT.",
        )
    for stage in defects:
        if stage.verdict == "cannot train":
            yield Finding(
                "error",
                "too_few_defects",
                f"'{stage.kind}' has no usable photograph; stage 2 cannot be trained on it.",
                f"Add photographs with masks; {ADVISED_DEFECTS} are advised.",
            )
        elif stage.verdict == "few":
            also = f" Classification needs at least {_MINIMUM_FOR_PARTITIONS}."
            yield Finding(
                "warning",
                "few_defects",
                f"'{stage.kind}' has {stage.usable} usable photographs; {ADVISED_DEFECTS} are advised.",
                "Add more if you can; what is generated will stay close to these few."
                f"{also if stage.usable < _MINIMUM_FOR_PARTITIONS else ''}",
            )


_FILE_PROBLEMS = {
    "unreadable": "not readable as an image",
    "pixel_format": "samples that cannot be used",
    "no_mask": "a defect without its mask",
    "several_masks": "more than one possible mask",
    "size_mismatch": "photograph and mask of different sizes",
    "empty_mask": "a mask without any defect in it",
}


def _check_files(inspections: Sequence[Inspection], skip_bad_files: bool) -> Iterator[Finding]:
    by_code: dict[str, list[tuple[str, DataError]]] = {}
    for inspection in inspections:
        for error in inspection.errors:
            by_code.setdefault(error.code, []).append((inspection.record.name, error))
    for code, cases in by_code.items():
        first = cases[0][1]
        says_so = skip_bad_files or "--skip_bad_files" in first.advice
        yield Finding(
            "warning" if skip_bad_files else "error",
            code,
            f"{_count(len(cases), 'file')}: {_FILE_PROBLEMS.get(code, code)}. "
            f"The first: {first.found}; expected {first.expected}.",
            first.advice if says_so else f"{first.advice} Or leave them out with --skip_bad_files.",
            tuple(name for name, _ in cases),
        )


def _check_folder(listing: Listing) -> Iterator[Finding]:
    orphans, ignored = (
        [str(path).removeprefix(f"{listing.root}/") for path in paths]
        for paths in (listing.orphan_masks, listing.ignored_files)
    )
    yield from _if_any(
        orphans,
        "warning",
        "orphan_masks",
        f"{_count(len(orphans), 'mask')} without a photograph.",
        "Check the names: a mask is called like its photograph, with or without a suffix such as _mask.",
    )
    yield from _if_any(
        ignored,
        "note",
        "ignored_files",
        f"{_count(len(ignored), 'file')} ignored: not named like images.",
        "Nothing, unless they should be images.",
    )


def _check_masks(inspections: Sequence[Inspection], resolution: int) -> Iterator[Finding]:
    """Report masks that can be used but are probably not meant as they are."""
    areas = {i.record.name: i.mask_area for i in inspections if i.mask_area}
    full = [name for name, area in areas.items() if area >= FULL_AREA]
    yield from _if_any(
        full,
        "warning",
        "full_mask",
        f"{_count(len(full), 'mask')} over (almost) all of the photograph.",
        "Any non-zero pixel counts as defect: perhaps the background is not 0, or the mask is inverted.",
    )
    large = [name for name, area in areas.items() if _LARGE_AREA < area < FULL_AREA]
    yield from _if_any(
        large,
        "warning",
        "large_mask",
        f"{_count(len(large), 'mask')} over more than half of the photograph.",
        "Check that they are not inverted. The method adds a local defect to an object that it leaves as it is.",
    )
    soft = [i for i in inspections if i.mask_area and i.has_soft_mask]
    lossy = sum(i.has_lossy_mask for i in soft)
    yield from _if_any(
        [i.record.name for i in soft],
        "warning",
        "soft_mask",
        f"{_count(len(soft), 'mask')} with several grey values or colours"
        f"{f', {lossy} of them lossily compressed' if lossy else ''}; every non-zero pixel counts as defect.",
        "If they are antialiased, heat maps or JPEG, threshold them and save them as PNG.",
    )
    grid = min(_LARGEST_MASK_GRID, resolution // 4)
    tiny = [name for name, area in areas.items() if area * grid**2 < 1]
    pixels = _range([round(areas[name] * resolution**2, 1) for name in tiny])
    yield from _if_any(
        tiny,
        "warning",
        "tiny_defect",
        f"{_count(len(tiny), 'defect')} smaller than one pixel of the {grid}x{grid} grid "
        f"on which masks are generated ({pixels} pixels at {resolution}x{resolution}).",
        "They may not be learnt as they are: train larger, or on patches of the photographs (dfmgan cut-patches).",
    )


def _check_shapes(inspections: Sequence[Inspection], resolution: int, fit: str) -> Iterator[Finding]:
    sides = {i.record.name: (i.width, i.height) for i in inspections if i.width}
    if not sides:
        return
    ratios = np.array([width / height for width, height in sides.values()])
    is_mixed = ratios.max() / ratios.min() > _MIXED_SHAPES or abs(np.log(ratios)).max() > np.log(_ELONGATED)
    if fit == "resize" and is_mixed:
        yield Finding(
            "warning",
            "distorted",
            f"Shapes go from {ratios.min():.2f} to {ratios.max():.2f} (width / height); fit=resize makes all square.",
            "If proportions matter, use --fit center_crop or --fit pad, or crop the photographs alike.",
        )
    scaled = {name: max(pair) if fit == "pad" else min(pair) for name, pair in sides.items()}
    small = [name for name, side in scaled.items() if side < resolution]
    yield from _if_any(
        small,
        "warning" if 2 * len(small) > len(sides) else "note",
        "enlarged",
        f"{_count(len(small), 'photograph')} with a side below {resolution} pixels (down to {min(scaled.values())}), "
        "to be enlarged.",
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
    yield from _if_any(
        list(deep) if bits < bit_depth else [],
        "warning",
        "bit_depth",
        f"{_count(len(deep), 'photograph')} of 16 bits without a sample above {highest}, which would be too dark.",
        f"Give --bit_depth {bits}.",
    )
    rotated = [i.record for i in readable if i.is_rotated]
    yield from _if_any(
        [record.name for record in rotated],
        "note",
        "exif_rotated",
        f"{_count(len(rotated), 'photograph')} to be turned upright by the EXIF orientation.",
        "Check in the contact sheet that their masks fit." if any(r.mask_path for r in rotated) else "Nothing.",
    )


def _check_duplicates(records: Sequence[ImageRecord], pairs: Sequence[DuplicatePair]) -> Iterator[Finding]:
    exact, near, turned = ([p for p in pairs if p.kind == kind] for kind in ("exact", "near", "turned"))
    leaks = [p for p in pairs if records[p.first].split != records[p.second].split]
    conflicts = [p for p in exact if (records[p.first].defect == GOOD) != (records[p.second].defect == GOOD)]
    same_view = "of photographs that show the same view,"
    keep = "Keep one of each, or keep them together when you split the set."
    move = "Move both to the same side, or what is measured on test rewards what was only remembered."
    remove = "Remove one of the two."
    rows: tuple[tuple[list[DuplicatePair], Severity, str, str, str], ...] = (
        (exact, "warning", "exact_duplicates", "of photographs that are the same file", keep),
        (near, "note", "near_duplicates", f"{same_view} saved, scaled or lit differently", keep),
        (turned, "note", "turned_duplicates", f"{same_view} rotated or mirrored", keep),
        (leaks, "warning", "train_test_leak", "with one photograph in train and the other in test", move),
        (conflicts, "warning", "conflicting_labels", "of the same file, once as good and once as a defect", remove),
    )
    for found, severity, code, what, advice in rows:
        names = [f"{records[pair.first].name} = {records[pair.second].name}" for pair in found]
        yield from _if_any(names, severity, code, f"{_count(len(found), 'pair')} {what}.", advice)


def _if_any(names: Sequence[str], severity: Severity, code: str, message: str, advice: str) -> Iterator[Finding]:
    if names:
        yield Finding(severity, code, message, advice, tuple(names))


def _range(values: Sequence[float], to: str = " to ") -> str:
    lowest, highest = min(values, default=0), max(values, default=0)
    return f"{lowest:g}" if lowest == highest else f"{lowest:g}{to}{highest:g}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def draw_contact_sheet(
    report: Report, inspections: Sequence[Inspection], *, columns: int = 8, bit_depth: int = 16
) -> Image.Image:
    """Draw up to `columns` photographs of each kind, defects outlined, from the smallest mask to the largest.

    Args:
        report: As `examine` returns it: of the photographs that show the same thing, the first few are drawn.
        inspections: Likewise; those with problems are left out.
        columns: Photographs in a row.
        bit_depth: Significant bits of 16-bit photographs.

    Returns:
        One page, RGB.
    """
    usable = [inspection for inspection in inspections if not inspection.errors]
    rows: list[tuple[str, list[Inspection], list[str]]] = []
    for (split, kind), members in _by_kind(usable).items():
        members.sort(key=lambda inspection: inspection.mask_area or 0)
        chosen = np.linspace(0, len(members) - 1, min(columns, len(members))).round().astype(int)
        shown = [members[index] for index in chosen]
        order = "" if kind == GOOD else ", from the smallest defect to the largest"
        heading = f"{split} / {kind}: {_count(len(members), 'photograph')}{order}"
        rows.append((heading, shown, [_caption(inspection) for inspection in shown]))
    by_name = {inspection.record.name: inspection for inspection in usable}
    same = [name for group in report.duplicate_groups for name in group if name in by_name][:columns]
    if same:
        rows.append(("photographs that show the same view", [by_name[name] for name in same], same))
    pages = [
        contact_sheet(
            [[_thumbnail(inspection.record, bit_depth)] for inspection in shown],
            title=heading,
            captions=captions,
            columns=columns,
            picture_size=_PICTURE_SIZE,
        )
        for heading, shown, captions in rows
    ]
    return stack(pages, title=f"{report.category}: {_count(report.photographs, 'photograph')}")


def _thumbnail(record: ImageRecord, bit_depth: int) -> Image.Image:
    photograph = Image.fromarray(read_image(record.image_path, 3, bit_depth))
    if record.mask_path is None:
        photograph.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE), Image.Resampling.LANCZOS)
        return photograph
    return outlined(photograph, Image.fromarray(read_mask(record.mask_path).defect), _PICTURE_SIZE)


def _caption(inspection: Inspection) -> str:
    """Return the share that is defect, and the end of the name: the heading says split and kind."""
    area = "" if inspection.mask_area is None else f"{100 * inspection.mask_area:.2g} %  "
    return area + Path(inspection.record.name).name
