"""What the doctor found, as a table for people and as JSON for programs."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..files import write_json

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
