"""One page about a run, for those without a tracker at hand: warnings, the last samples, curves, settings.

    python -m dfmgan_hf.training.report runs/hazelnut_crack

writes it again at any time, even during the run. The trackers show more: all numbers, all sheets.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import write_text
from ..sheets import html_page, html_picture
from .checkpointing import CheckpointError, read_training_record
from .task import MetricsLog

REPORT_FILE = "report.html"
SHEET_WIDTH = 1100
COLORS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf")
RUN_PANELS = {
    "Score": ("score/kid", "score/clustered_lpips", "score/copy_rate"),
    "Seconds per kimg": ("seconds_per_kimg",),
    "Memory (GiB)": ("resident_memory_gib", "peak_memory_gib"),
}
Rows = Sequence[Mapping[str, Any]]


def write_report(run_dir: Path) -> Path:
    """Write `run_dir`/report.html, one file with everything in it, and return its path.

    Args:
        run_dir: output folder of a run, finished or not, with metrics.jsonl, samples/ and training_config.json.

    Raises:
        FileNotFoundError: there is no metrics.jsonl.
        CheckpointError: the record of the settings is damaged.
    """
    log = run_dir / "metrics.jsonl"
    if not log.is_file():
        raise FileNotFoundError(f"{log} does not exist: {run_dir} is not the --output_dir of a run that has logged.")
    rows = MetricsLog(log).rows()
    record = read_training_record(run_dir)
    parts = (record.get("method"), record.get("defect"), run_dir.name)
    title = escape(" · ".join(str(part) for part in parts if part))
    panels = {**record.get("panels", {}), **RUN_PANELS}
    body = [
        f"<h1>{title}</h1>",
        f"<p>{escape(_state(rows, record))}</p>",
        _warnings(rows),
        _last_sheet(sorted(path for path in (run_dir / "samples").glob("*.png") if path.stem.isdecimal())),
        "<h2>Curves</h2>",
        *(_curves(name, names, rows) for name, names in panels.items()),
        _facts(record),
        f"<p>Everything else: <code>tensorboard --logdir {escape(str(run_dir / 'logs'))}</code></p>",
    ]
    page = run_dir / REPORT_FILE
    write_text(page, html_page(title, "\n".join(body), _STYLE))
    return page


def _state(rows: Rows, record: Mapping[str, Any]) -> str:
    """Return how far the run is, in one line."""
    last = rows[-1] if rows else {}
    total = record.get("recipe", {}).get("total_kimg")
    result = record.get("result", {})
    seconds = result.get("training_seconds")
    is_finished = seconds is not None and result.get("images_seen", 0) >= 1000 * (total or 0)
    shown = f"{last.get('images_seen', 0) / 1000:.2f}" + (f" of {total:g}" if total else "")
    facts = [
        "finished" if is_finished else "not finished",
        f"{shown} kimg in {last.get('step', 0):,} steps",
        f"{record['images']:,} photographs" if "images" in record else None,
        None if seconds is None else f"{seconds / 3600:.2f} h of training",
    ]
    return ", ".join(fact for fact in facts if fact)


def _warnings(rows: Rows) -> str:
    """Return each warning with the last advice and the kimg that it held for."""
    spans: dict[str, list[Any]] = {}
    for row in rows:
        for name, text in row.get("warnings", {}).items():
            first = spans.get(name, [row["images_seen"]])[0]
            spans[name] = [first, row["images_seen"], text]
    if not spans:
        return "<p>No warnings.</p>"
    end = [row["images_seen"] for row in rows if "warnings" in row][-1]
    lines = []
    for name, (first, last, text) in spans.items():
        kind, over = ("now", "") if last == end else ("past", ", no longer")
        when = f"{first / 1000:.1f} to {last / 1000:.1f} kimg{over}"
        lines.append(f'<p class="{kind}"><b>{escape(name.replace("_", " "))}</b> ({when}): {escape(text)}</p>')
    return f"<h2>Warnings</h2>{''.join(lines)}"


def _last_sheet(sheets: Sequence[Path]) -> str:
    if not sheets:
        return ""
    title = f"Samples after {int(sheets[-1].stem) / 1000:g} kimg"
    with Image.open(sheets[-1]) as sheet:
        sheet.thumbnail((SHEET_WIDTH, 10 * SHEET_WIDTH))
        return f"<h2>{title}</h2>{html_picture(sheet, title)}"


def _curves(title: str, names: Sequence[str], rows: Rows) -> str:
    """Return the curves of these numbers over the images seen, in one frame; nothing without any."""
    series = {name: [(row["images_seen"], row[name]) for row in rows if row.get(name) is not None] for name in names}
    series = {name: points for name, points in series.items() if points}
    if not series:
        return ""
    xs, ys = zip(*(point for points in series.values() for point in points), strict=True)
    left, low = min(xs), min(ys)
    width, height = max(xs) - left or 1, max(ys) - low or 1
    lines, legend = [], []
    for color, (name, points) in zip(itertools.cycle(COLORS), series.items(), strict=False):
        path = " ".join(f"{300 * (x - left) / width:.1f},{100 - 100 * (y - low) / height:.1f}" for x, y in points)
        lines.append(f'<polyline points="{path}" fill="none" stroke="{color}"/>')
        legend.append(f'<span style="color:{color}">{escape(name)} {points[-1][1]:.4g}</span>')
    return (
        f'<figure><figcaption>{escape(title)} ({low:.3g} to {max(ys):.3g})</figcaption><svg viewBox="-2 -2 304 104">'
        f"{''.join(lines)}</svg><figcaption>{'<br>'.join(legend)}</figcaption></figure>"
    )


def _facts(record: Mapping[str, Any]) -> str:
    environment = record.get("environment", {})
    facts = {
        "best checkpoint": record.get("best", {}).get("summary"),
        "rule": record.get("checkpoint_rule"),
        "device": environment.get("device"),
        "recipe": ", ".join(f"{k} {v}" for k, v in record.get("recipe", {}).items()),
        "versions": ", ".join(f"{k} {v}" for k, v in environment.get("versions", {}).items()),
    }
    lines = [f"<li>{name}: {escape(str(value))}</li>" for name, value in facts.items() if value]
    return f"<h2>Settings</h2><ul>{''.join(lines)}</ul>" if lines else ""


_STYLE = """body { font-family: system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; }
img { max-width: 100%; }
.now { border-left: 4px solid #c2410c; padding-left: 1em; }
.past { border-left: 4px solid #bbb; padding-left: 1em; }
figure { display: inline-block; width: 30%; min-width: 18em; margin: 0 1em 1.5em 0; vertical-align: top; }
figcaption { font-size: 85%; }
svg { width: 100%; border: 1px solid #ddd; }"""


if __name__ == "__main__":
    import tyro

    try:
        print(tyro.cli(write_report, config=(tyro.conf.PositionalRequiredArgs,)))
    except (OSError, CheckpointError) as error:
        raise SystemExit(f"Error: {error}") from error
