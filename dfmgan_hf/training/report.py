"""One page about a run: what was warned of, the last samples and numbers, the curves, mask areas, samples over time.

    python -m dfmgan_hf.training.report runs/hazelnut_crack

writes it again at any time, also while the run goes on.
"""

from __future__ import annotations

import base64
import html
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from .monitoring import AREA_EDGES

REPORT_FILE = "report.html"
SHEETS_SHOWN = 6
SHEET_WIDTH = 1100

METHOD_NAMES = {"stage1": "Stage 1: the good product", "stage2": "Stage 2: the defect"}
# What a card says, of which numbers, and how they are written.
CARDS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("mean mask area, real / generated", ("mask_area/real", "mask_area/fake"), ".1%"),
    ("empty masks, generated", ("mask_empty/fake",), ".0%"),
    ("masks at the border, real / generated", ("mask_border/real", "mask_border/fake"), ".0%"),
    ("of a mask changes with z_defect", ("defect_change/mask",), ".0%"),
    ("D is right on real / generated", ("accuracy/real", "accuracy/fake"), ".0%"),
    ("ADA: p / r_t", ("ada/p", "ada/r_t"), ".2f"),
    ("KID", ("score/kid",), ".3f"),
    ("seconds per kimg", ("seconds_per_kimg",), ".1f"),
    ("GiB of the GPU at most", ("peak_memory_gib",), ".1f"),
)
RATES = ("D: accuracy", "Masks: rates", "Change with z_defect")

# Title, logarithmic axis, and what is drawn, where the log has it.
PANELS: tuple[tuple[str, bool, tuple[str, ...]], ...] = (
    ("Losses", False, ("loss/generator", "loss/discriminator", "loss/match", "loss/mode_seeking")),
    ("D: mean logits", False, ("logits/real", "logits/fake", "match/logits/real", "match/logits/fake")),
    ("D: accuracy", False, ("accuracy/real", "accuracy/fake", "match/accuracy/real", "match/accuracy/fake")),
    ("ADA", False, ("ada/p", "ada/r_t")),
    ("Mask area (share of the image)", True, ("mask_area/real", "mask_area/fake")),
    ("Masks: rates", False, ("mask_empty/fake", "mask_full/fake", "mask_border/real", "mask_border/fake")),
    ("Change with z_defect", False, ("defect_change/mask", "defect_change/image")),
    ("Regularisers", True, ("r1_penalty", "match/r1_penalty", "path_length")),
    (
        "Gradient norms",
        True,
        ("gradient_norm/generator", "gradient_norm/discriminator", "gradient_norm/path_length", "gradient_norm/r1"),
    ),
    ("Score", False, ("score/kid", "score/clustered_lpips", "score/copy_rate")),
    ("Seconds per kimg", False, ("seconds_per_kimg",)),
    ("Memory (GiB)", False, ("resident_memory_gib", "peak_memory_gib")),
)


def write_report(run_dir: Path) -> Path:
    """Write `run_dir`/report.html, one file with everything in it, from metrics.jsonl, samples/ and the record.

    Args:
        run_dir: output folder of a run, finished or not.

    Returns:
        The page's path.

    Raises:
        FileNotFoundError: there is no metrics.jsonl.
        ImportError: matplotlib is not installed.
    """
    log = run_dir / "metrics.jsonl"
    if not log.is_file():
        raise FileNotFoundError(f"{log} does not exist: {run_dir} is not the --output_dir of a run that has logged.")
    rows = read_rows(log)
    record_file = run_dir / "training_config.json"
    record = json.loads(record_file.read_text()) if record_file.is_file() else {}
    sheets = sorted((run_dir / "samples").glob("*.png"))
    parts = [
        _warnings(rows),
        *([_picture(f"Samples after {_kimg(sheets[-1])} kimg", _small_jpeg(sheets[-1]), "jpeg")] if sheets else []),
        _numbers(rows),
        _picture("Curves", plot_curves(rows)),
        *([_picture("Areas of the masks", plot_areas(rows))] if _has_histograms(rows) else []),
        _over_time(sheets),
        _facts(record),
    ]
    text = _PAGE.format(title=html.escape(_title(run_dir, record)), lead=_lead(rows, record), body="\n".join(parts))
    page = run_dir / REPORT_FILE
    partial = page.with_suffix(".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.replace(page)
    finally:
        partial.unlink(missing_ok=True)
    return page


def read_rows(log: Path) -> list[dict[str, Any]]:
    """The rows of a metrics.jsonl; a line that is still being written is left out."""
    rows = []
    for line in log.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return rows


def plot_curves(rows: Sequence[dict[str, Any]]) -> bytes:
    """A PNG with every panel of `PANELS` that the rows have numbers for."""
    figure_class = _figure_class()
    from matplotlib.ticker import LogLocator

    panels = [(title, log, [n for n in names if _series(rows, n)[0]]) for title, log, names in PANELS]
    panels = [panel for panel in panels if panel[2]]
    columns = 3
    lines = max(-(-len(panels) // columns), 1)
    figure = figure_class(figsize=(5 * columns, 3 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flatten()
    for ax, (title, log, names) in zip(axes, panels, strict=False):
        for name in names:
            ax.plot(*_series(rows, name), label=name, linewidth=1, marker="." if "score" in name else None)
        ax.set_title(title, fontsize=10)
        if title in RATES:
            ax.set_ylim(-0.03, 1.03)
        if log:
            ax.set_yscale("log")
            ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            ax.yaxis.set_major_formatter("{x:g}")
            ax.yaxis.set_minor_formatter("")
        ax.set_xlabel("kimg", fontsize=8)
        ax.tick_params(labelsize=8)
        ax.legend(fontsize=7)
        ax.grid(alpha=0.3)
    for ax in axes[len(panels) :]:
        ax.remove()
    return _png(figure)


def plot_areas(rows: Sequence[dict[str, Any]]) -> bytes:
    """A PNG: the areas of real and generated masks over the last intervals, and the generated ones over time."""
    figure = _figure_class()(figsize=(15, 3.4), layout="constrained")
    now, over_time = figure.subplots(1, 2)
    labels = _area_labels()
    recent = [row["histograms"] for row in rows if row.get("histograms")][-5:]
    for offset, kind in ((-0.2, "real"), (0.2, "fake")):
        shares = [histograms[f"mask_area/{kind}"] for histograms in recent]
        means = [sum(bins) / len(bins) for bins in zip(*shares, strict=True)]
        now.bar([i + offset for i in range(len(means))], means, width=0.4, label=kind)
    now.set_xticks(range(len(labels)), labels, fontsize=7, rotation=30)
    now.set_ylabel("share of the masks", fontsize=8)
    now.set_title(f"Areas over the last {len(recent)} intervals", fontsize=10)
    now.legend(fontsize=8)
    fakes = [(row["images_seen"] / 1000, row["histograms"]["mask_area/fake"]) for row in rows if row.get("histograms")]
    over_time.imshow(
        list(zip(*(shares for _, shares in fakes), strict=True)),
        aspect="auto",
        origin="lower",
        extent=(fakes[0][0], max(fakes[-1][0], fakes[0][0] + 1e-3), -0.5, len(labels) - 0.5),
        cmap="viridis",
        interpolation="nearest",
    )
    over_time.set_yticks(range(len(labels)), labels, fontsize=7)
    over_time.set_xlabel("kimg", fontsize=8)
    over_time.set_title("Areas of generated masks over time", fontsize=10)
    return _png(figure)


def _figure_class() -> Any:
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("The report needs matplotlib: `pip install dfmgan-hf[train]`.") from error
    return Figure


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90)
    return buffer.getvalue()


def _series(rows: Sequence[dict[str, Any]], name: str) -> tuple[list[float], list[float]]:
    points = [(row["images_seen"] / 1000, row[name]) for row in rows if row.get(name) is not None]
    return [x for x, _ in points], [y for _, y in points]


def _has_histograms(rows: Sequence[dict[str, Any]]) -> bool:
    return any(row.get("histograms") for row in rows)


def _area_labels() -> list[str]:
    percents = [f"{edge * 100:g}" for edge in AREA_EDGES]
    between = [f"{low}-{high} %" for low, high in itertools.pairwise(percents)]
    return ["empty", *between, f"over {percents[-1]} %"]


def _title(run_dir: Path, record: dict[str, Any]) -> str:
    method = record.get("method")
    parts = [METHOD_NAMES.get(str(method), method), record.get("defect"), run_dir.name]
    return " · ".join(dict.fromkeys(str(part) for part in parts if part))


def _lead(rows: Sequence[dict[str, Any]], record: dict[str, Any]) -> str:
    """How far the run is, in one line."""
    last = rows[-1] if rows else {}
    total = record.get("recipe", {}).get("total_kimg")
    seconds = record.get("result", {}).get("training_seconds")
    shown = f"{last.get('images_seen', 0) / 1000:.2f}" + (f" of {total:g}" if total else "")
    facts = [
        "not finished" if seconds is None else "finished",
        f"{shown} kimg in {last.get('step', 0):,} steps",
        f"{record['images']:,} photographs" if "images" in record else None,
        None if seconds is None else f"{seconds / 3600:.2f} h of training",
    ]
    return html.escape(", ".join(fact for fact in facts if fact))


def _numbers(rows: Sequence[dict[str, Any]]) -> str:
    """The last value of what one looks at first, as cards."""
    cards = []
    for title, names, style in CARDS:
        values = [_series(rows, name)[1][-1:] for name in names]
        if all(values):
            shown = " / ".join(format(value[0], style) for value in values)
            cards.append(f"<div class='card'><b>{shown}</b><span>{title}</span></div>")
    return f"<h2>Last numbers</h2><div class='cards'>{''.join(cards)}</div>" if cards else ""


def _facts(record: dict[str, Any]) -> str:
    facts: list[tuple[str, Any]] = [
        ("best checkpoint", record.get("best", {}).get("summary")),
        ("rule", record.get("checkpoint_rule")),
        ("device", record.get("environment", {}).get("device")),
        ("processes", record.get("environment", {}).get("num_processes")),
        ("recipe", ", ".join(f"{k} {v}" for k, v in record.get("recipe", {}).items())),
        ("versions", ", ".join(f"{k} {v}" for k, v in record.get("environment", {}).get("versions", {}).items())),
    ]
    lines = [f"<tr><th>{name}</th><td>{html.escape(str(value))}</td></tr>" for name, value in facts if value]
    return f"<h2>Settings</h2><table>{''.join(lines)}</table>" if lines else ""


def _warnings(rows: Sequence[dict[str, Any]]) -> str:
    spans: dict[str, list[Any]] = {}
    for row in rows:
        for name, text in row.get("warnings", {}).items():
            first = spans.get(name, [row["images_seen"]])[0]
            spans[name] = [first, row["images_seen"], text]
    if not spans:
        return "<p class='fine'>No warnings.</p>"
    end = [row["images_seen"] for row in rows if "warnings" in row][-1]
    lines = []
    for name, (first, last, text) in spans.items():
        kind, over = ("now", "") if last == end else ("past", ", no longer")
        when = f"{first / 1000:.1f} to {last / 1000:.1f} kimg{over}"
        lines.append(f"<div class='{kind}'><b>{name.replace('_', ' ')}</b> ({when}): {html.escape(text)}</div>")
    return f"<h2>Warnings</h2>{''.join(lines)}"


def _picture(title: str, data: bytes, kind: str = "png") -> str:
    encoded = base64.b64encode(data).decode()
    return f'<h2>{html.escape(title)}</h2><img src="data:image/{kind};base64,{encoded}" alt="{html.escape(title)}">'


def _kimg(sheet: Path) -> str:
    return f"{int(sheet.stem) / 1000:g}"


def _over_time(sheets: Sequence[Path]) -> str:
    """Some of the sheets, side by side, and the same latents on all of them."""
    if len(sheets) < 2:
        return ""
    count = min(len(sheets), SHEETS_SHOWN)
    chosen = [sheets[round(i * (len(sheets) - 1) / (count - 1))] for i in range(count)]
    figures = [
        f'<figure><img src="data:image/jpeg;base64,{base64.b64encode(_small_jpeg(path, SHEET_WIDTH // 2)).decode()}" '
        f'alt="Samples after {_kimg(path)} kimg"><figcaption>{_kimg(path)} kimg</figcaption></figure>'
        for path in chosen
    ]
    return f"<h2>Samples over time</h2><div class='sheets'>{''.join(figures)}</div>"


def _small_jpeg(path: Path, width: int = SHEET_WIDTH) -> bytes:
    buffer = io.BytesIO()
    with Image.open(path) as sheet:
        sheet.thumbnail((width, 10 * width))
        sheet.convert("RGB").save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 2em auto; max-width: 1200px; padding: 0 1em; color: #222; }}
h1 {{ margin-bottom: 0.2em; }}
h2 {{ font-size: 1.1em; margin: 2em 0 0.7em; padding-bottom: 0.3em; border-bottom: 1px solid #ddd; }}
img {{ max-width: 100%; }}
.lead, span, figcaption, th {{ color: #666; }}
.fine, .now, .past {{ padding: 0.7em 1em; margin: 0.5em 0; border-left: 4px solid #2a9d57; background: #f1f8f4; }}
.now {{ border-color: #c2410c; background: #fff4ed; }}
.past {{ border-color: #bbb; background: #f6f6f6; }}
.cards {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(12em, 1fr)); gap: 0.7em; }}
.card {{ border: 1px solid #ddd; border-radius: 6px; padding: 0.6em 0.9em; }}
.card b {{ display: block; font-size: 1.15em; }}
.card span, td, th, figcaption {{ font-size: 85%; }}
.sheets {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(20em, 1fr)); gap: 1em; }}
figure {{ margin: 0; }}
th {{ text-align: left; vertical-align: top; padding-right: 1em; font-weight: normal; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{body}
</body>
</html>
"""


if __name__ == "__main__":
    import tyro

    print(tyro.cli(write_report, config=(tyro.conf.PositionalRequiredArgs,)))
