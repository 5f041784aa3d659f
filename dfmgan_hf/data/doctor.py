"""What is wrong with this folder? Looks at all of it and reports everything at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from .checks import check_duplicates, check_files, check_folder, check_masks, check_pixels, check_shapes
from .duplicates import find_duplicates, group_duplicates
from .inspection import Inspection, inspect_listing
from .records import GOOD, Listing
from .report import EXIT_STATUS, Finding, KindSummary, Report, StageSummary
from .transforms import Fit, check_square

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
