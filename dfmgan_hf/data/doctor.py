"""What is wrong with this folder? Look at all of it and report everything at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image

from ..arguments import check_choice
from ..files import write_json
from ..sheets import contact_sheet, outlined, save_sheet, stack
from .duplicates import find_duplicates, group_duplicates
from .findings import (
    ADVISED_DEFECTS,
    ADVISED_GOOD,
    RANKS,
    Finding,
    count,
    judge,
    judge_duplicates,
    judge_files,
    judge_folder,
    judge_number,
    value_range,
)
from .patches import defect_length, propose_patch_size, propose_region, same_view_in_train_and_test
from .preparation import Inspection, check_size, inspect_all, read_masks
from .reading import read_image
from .records import GOOD, WHERE_GOOD, ImageRecord, printable
from .sources import FittedSource, check_place, find_listing

_MINIMUM_GOOD = 2
_MINIMUM_DEFECTS = 1

RESOLUTIONS = {"auto": 256, "quick": 64, "small": 64, "paper256": 256, "large512": 512, "large1024": 1024}
"""What each preset of training (`methods.method.PRESETS`) brings photographs to, in pixels."""

_PICTURE_SIZE = 200
_REGION_WORTH_TELLING = 0.8  # share of the photograph


@dataclass(frozen=True)
class CheckConfig(FittedSource):
    """Check photographs and masks before training on them; with `skip_bad_files`, bad files are warnings, not errors.

    Attributes:
        preset: Preset that is planned for training.
        resolution: Resolution that is planned for training, a power of two from 32 to 1024; None for the preset's.
        aspect: Height and width of the images that are planned, as multiples of the shorter side.
        strict: Exit with status 1 if there are warnings.
        output_dir: Folder for report.json and contact_sheet.png.
        image_channels: Channels that are planned for training: 3, or 1 for grey.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    preset: Literal["auto", "quick", "small", "paper256", "large512", "large1024"] = "auto"
    resolution: int | None = None
    aspect: tuple[int, int] = (1, 1)
    strict: bool = False
    output_dir: Path = Path("outputs/check_dataset")
    image_channels: int = 3


def check_dataset(config: CheckConfig) -> int:
    """Print what is in a data set and what is wrong with it; write report.json and contact_sheet.png.

    Returns:
        0 if training can run, 2 if it cannot; with `strict`, 1 for warnings.

    Raises:
        DataError: there is nothing to check.
        OSError: something cannot be read, or the report not be written.
    """
    check_place(config.output_dir, config)  # or the contact sheet would be among the photographs of the next run
    report, inspections = examine(config)
    print(report.to_text())
    sheet = draw_contact_sheet(report, inspections, bit_depth=config.bit_depth)
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
    resolution = RESOLUTIONS[config.preset] if config.resolution is None else config.resolution
    if sorted(config.aspect) not in ([1, 1], [1, 2], [1, 4]):
        raise ValueError(f"`aspect` must be 1 and 1, 2 or 4, in any order, but is {config.aspect}.")
    check_choice(resolution, "resolution", (32, 64, 128, 256, 512, 1024))
    check_choice(config.image_channels, "image_channels", (1, 3))
    size = resolution * config.aspect[0], resolution * config.aspect[1]
    check_size(size, config.fit)
    listing = find_listing(config)
    inspections = inspect_all(listing.records, config.bit_depth, size, config.fit)
    pairs = find_duplicates([i.small for i in inspections], [i.digest for i in inspections])
    # One name of each file: a photograph with defects of two kinds has two.
    same = [{listing.records[i].image_path: listing.records[i].name for i in each} for each in group_duplicates(pairs)]
    stages = _judge_stages(inspections)
    findings = [
        *_check_numbers(stages),
        *judge_files(inspections, config.skip_bad_files),
        *judge_folder(listing),
        *judge(
            inspections,
            resolution=size,
            fit=config.fit,
            bit_depth=config.bit_depth,
            image_channels=config.image_channels,
        ),
        *_propose_patches(inspections),
        *judge_duplicates(listing.records, pairs, same_view_in_train_and_test(listing)),
    ]
    report = Report(
        root=str(listing.root),
        category=listing.category,
        account=listing.account(),
        resolution=resolution,
        aspect=config.aspect,
        fit=config.fit,
        strict=config.strict,
        kinds=[_summarise(split, kind, members) for (split, kind), members in _by_kind(inspections).items()],
        stages=stages,
        findings=sorted(findings, key=lambda finding: -RANKS[finding.severity]),
        photographs=len({record.image_path for record in listing.records}),
        duplicate_groups=[list(names.values()) for names in same if len(names) > 1],
    )
    return report, inspections


@dataclass(frozen=True)
class KindSummary:
    """The photographs of one kind (`good`, or a kind of defect) in one split."""

    split: str
    kind: str
    photographs: int
    usable: int  # photographs without any problem
    sizes: dict[str, int]  # number of photographs by "WIDTHxHEIGHT"
    modes: dict[str, int]  # number of photographs by `Inspection.mode`
    mask_area_percent: dict[str, float]  # "min", "median" and "max" of the masks' share; empty without masks


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
    account: str  # of every entry of the folder, see `Listing.account`
    resolution: int
    aspect: tuple[int, int]
    fit: str
    strict: bool
    kinds: list[KindSummary]
    stages: list[StageSummary]
    findings: list[Finding]
    photographs: int  # usable or not; those with defects of several kinds are one
    duplicate_groups: list[list[str]] = field(default_factory=list)

    @property
    def worst(self) -> int:
        """0 if all is well, 1 for warnings, 2 if training cannot run."""
        return max((RANKS[finding.severity] for finding in self.findings), default=0)

    @property
    def exit_status(self) -> int:
        """Exit status of a script: that of warnings is 1 if `strict`."""
        return 0 if self.worst == 1 and not self.strict else self.worst

    def to_dict(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return {**asdict(self), "exit_status": self.exit_status}

    def to_text(self) -> str:
        """Write a readable table, without colours, at most 110 columns wide apart from file names."""
        kinds = []
        for k in self.kinds:
            areas = "  ".join(f"{area:6.3g}" for area in k.mask_area_percent.values())
            sizes, modes = _size_range(k.sizes), ", ".join(k.modes)
            kinds.append(
                (k.split, k.kind, str(k.photographs), str(k.usable), sizes or "-", modes or "-", areas or "-")
            )
        stages = [(s.stage, s.kind, str(s.usable), str(s.advised), s.verdict) for s in self.stages]
        severities = Counter(finding.severity for finding in self.findings)
        found = ", ".join(count(severities[name], name) for name in reversed(RANKS) if severities[name])
        verdicts = ("Ready to train.", "Can be trained on; read the warnings.", "Cannot be trained on as it is.")
        height, width = (self.resolution * multiple for multiple in self.aspect)
        parts = [
            printable(f"{self.category}: {self.photographs} photographs in {self.root}")
            + f"\nJudged for training at {width}x{height} pixels (--preset, --resolution, --aspect); "
            "a smaller size may lose small defects.",
            self.account,
            _table("split|kind|photos|usable|size in pixels|mode|defect area in % (min, median, max)", kinds),
            _table("stage|trains on|usable|advised|verdict", stages),
            *(finding.to_text() for finding in self.findings),
            f"{verdicts[self.worst]} {found}".strip(),
        ]
        return "\n\n".join(parts)


def _size_range(sizes: dict[str, int]) -> str:
    sides = zip(*(map(int, size.split("x")) for size in sizes), strict=True)
    return " x ".join(value_range(side, "..") for side in sides)


def _table(header: str, rows: Sequence[tuple[str, ...]]) -> str:
    rows = [tuple(map(printable, row)) for row in rows]
    columns = list(zip(header.split("|"), *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    is_right = [bool(rows) and all(cell.isdigit() for cell in column[1:]) for column in columns]
    rule = tuple("-" * width for width in widths)
    lines = []
    for row in (tuple(header.split("|")), rule, *rows):
        cells = (c.rjust(w) if right else c.ljust(w) for c, w, right in zip(row, widths, is_right, strict=True))
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _by_kind(inspections: Sequence[Inspection]) -> dict[tuple[str, str], list[Inspection]]:
    """Group by split and kind: training before test, defect-free before defects."""
    kinds: dict[tuple[str, str], list[Inspection]] = {}
    for inspection in inspections:
        kinds.setdefault((inspection.record.split, inspection.record.defect), []).append(inspection)
    return dict(sorted(kinds.items(), key=lambda item: (item[0][0] != "train", item[0][1] != GOOD, item[0][1])))


def _summarise(split: str, kind: str, members: Sequence[Inspection]) -> KindSummary:
    areas = 100 * np.array([i.mask_area for i in members if i.mask_area is not None])
    percent: dict[str, float] = {}
    if areas.size:
        percent = {"min": float(areas.min()), "median": float(np.median(areas)), "max": float(areas.max())}
    return KindSummary(
        split,
        kind,
        photographs=len(members),
        usable=sum(not i.errors for i in members),
        sizes=dict(Counter(f"{i.width}x{i.height}" for i in members if i.width).most_common()),
        modes=dict(Counter(i.mode for i in members if i.mode).most_common()),
        mask_area_percent=percent,
    )


def _judge_stages(inspections: Sequence[Inspection]) -> list[StageSummary]:
    usable = Counter((i.record.split, i.record.defect) for i in inspections if not i.errors)
    rows = [("stage 1", "defect-free", usable["train", GOOD], ADVISED_GOOD, _MINIMUM_GOOD)]
    for kind in sorted({i.record.defect for i in inspections} - {GOOD}):
        number = usable["train", kind] + usable["test", kind]
        rows.append(("stage 2", kind, number, ADVISED_DEFECTS, _MINIMUM_DEFECTS))
    return [
        StageSummary(stage, kind, n, advised, "cannot train" if n < minimum else "few" if n < advised else "ready")
        for stage, kind, n, advised, minimum in rows
    ]


def _check_numbers(stages: Sequence[StageSummary]) -> Iterator[Finding]:
    good, *defects = stages
    if good.verdict == "cannot train":
        yield Finding(
            "error",
            "too_few_good",
            f"{good.usable} usable defect-free photographs; stage 1 needs at least {_MINIMUM_GOOD}.",
            f"{WHERE_GOOD} {ADVISED_GOOD} are advised.",
        )
    else:
        yield from judge_number(GOOD, good.usable)
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
        else:
            yield from judge_number(stage.kind, stage.usable)


def _propose_patches(inspections: Sequence[Inspection]) -> Iterator[Finding]:
    """Propose patches where the defects of a kind are short, compared with what is trained on."""
    for (_, kind), members in _by_kind([i for i in inspections if i.mask_area and not i.errors]).items():
        lengths = [defect_length(i) for i in members]
        side = float(np.median([min(i.width, i.height) for i in members]))
        size = propose_patch_size(members)
        if kind != GOOD and np.median(lengths) < side / 10 and size < side:
            left, top, right, bottom = propose_region(members)
            where = f" They lie within --region {left:g} {top:g} {right:g} {bottom:g} of their photographs."
            yield Finding(
                "note",
                "patches_advised",
                f"'{kind}': half of the defects are at most {np.median(lengths):g} pixels long, in photographs of "
                f"{side:g} on the shorter side.",
                f"Patches would show them larger: dfmgan cut-patches --patch_size {size}."
                f"{where if (right - left) * (bottom - top) < _REGION_WORTH_TELLING else ''}",
            )


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
        heading = f"{split} / {kind}: {count(len(members), 'photograph')}{order}"
        rows.append((heading, shown, [_caption(inspection) for inspection in shown]))
    by_name = {inspection.record.name: inspection for inspection in usable}
    same = [name for group in report.duplicate_groups for name in group if name in by_name][:columns]
    if same:
        rows.append(("photographs of the same part", [by_name[name] for name in same], same))
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
    return stack(pages, title=f"{report.category}: {count(report.photographs, 'photograph')}")


def _thumbnail(record: ImageRecord, bit_depth: int) -> Image.Image:
    photograph = Image.fromarray(read_image(record.image_path, 3, bit_depth))
    mask = read_masks(record)
    if mask is None:
        photograph.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE), Image.Resampling.LANCZOS)
        return photograph
    return outlined(photograph, Image.fromarray(mask.defect), _PICTURE_SIZE)


def _caption(inspection: Inspection) -> str:
    """Return the share that is defect, and the end of the name: the heading says split and kind."""
    area = "" if inspection.mask_area is None else f"{100 * inspection.mask_area:.2g} %  "
    return area + Path(inspection.record.name).name
