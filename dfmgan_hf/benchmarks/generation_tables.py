"""The results of a comparison as Markdown, CSV and a figure, the paper's numbers beside where there are any."""

from __future__ import annotations

import csv
import io
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from ..methods.registry import get_method
from .cells import PHOTOGRAPHS_FILE, SHEET_FILE, Cell, read_results
from .published import TABLE_1

_TITLE_HEIGHT = 30
# Largest ratio of KIDs that a linear axis shows.
_LOGARITHMIC = 20

Results = Mapping[Cell, dict[str, Any]]

COLUMNS = (
    "category", "defect", "method", "kid_x1000", "kid_low_x1000", "kid_high_x1000", "kid_subsets_x1000",
    "clustered_lpips", "clustered_lpips_nonempty", "empty_clusters", "pairwise_lpips", "copy_rate", "unique_share",
    "generated", "generated_lpips", "real", "compared_with", "resolution", "features", "trained_kimg",
    "training_images", "training_seconds", "reconstruction", "paper_kid_x1000", "paper_clustered_lpips",
)  # fmt: skip


def write_tables(output_dir: Path, cells: Sequence[Cell]) -> str:
    """Write table.md, table.csv, table.png, and for each defect page.png with samples of all methods.

    Without matplotlib there is no figure; a warning says so.

    Args:
        output_dir: of the comparison.
        cells: all of it, done or not.

    Returns:
        The Markdown.
    """
    results = read_results(output_dir, cells)
    text = to_markdown(cells, results)
    output_dir.mkdir(parents=True, exist_ok=True)
    _write(output_dir / "table.md", text.encode())
    _write(output_dir / "table.csv", to_csv(results).encode())
    try:
        _write(output_dir / "table.png", plot(cells, results))
    except ImportError as error:
        warnings.warn(f"No figure was drawn: {error}. `pip install dfmgan-hf[train]`.", stacklevel=2)
    for folder in {cell.folder(output_dir).parent for cell in results}:
        sheets = {"photographs": folder / PHOTOGRAPHS_FILE} | {
            get_method(cell.method).title: cell.folder(output_dir) / SHEET_FILE
            for cell in results
            if cell.folder(output_dir).parent == folder
        }
        _write(folder / "page.png", page({title: path for title, path in sheets.items() if path.is_file()}))
    return text


def page(sheets: Mapping[str, Path]) -> bytes:
    """Sample sheets one under the other with their titles, as a PNG file."""
    pictures = {title: Image.open(path).convert("RGB") for title, path in sheets.items()}
    width = max(picture.width for picture in pictures.values())
    whole = Image.new("RGB", (width, sum(picture.height + _TITLE_HEIGHT for picture in pictures.values())), "white")
    pen, top = ImageDraw.Draw(whole), 0
    for title, picture in pictures.items():
        pen.text((4, top + 4), title, fill="black", font=ImageFont.load_default(18))
        whole.paste(picture, (0, top + _TITLE_HEIGHT))
        top += picture.height + _TITLE_HEIGHT
    return _png(whole.save)


def row_of(cell: Cell, result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of one cell by the names of `COLUMNS`; None where there is none."""
    metrics, settings = result["metrics"], result["settings"]
    kid, lpips = metrics.get("kid", {}), metrics.get("clustered_lpips", {})
    unbiased = kid.get("unbiased", {})
    low, high = unbiased.get("interval", (None, None))
    training = result.get("training") or {}
    outcome = training.get("result") or {}
    published = TABLE_1.get((cell.category, cell.defect, cell.method))
    return {
        "category": cell.category,
        "defect": cell.defect,
        "method": cell.method,
        "kid_x1000": _times_1000(unbiased.get("kid")),
        "kid_low_x1000": _times_1000(low),
        "kid_high_x1000": _times_1000(high),
        "kid_subsets_x1000": _times_1000(kid.get("subsets", {}).get("kid")),
        "clustered_lpips": lpips.get("clustered_lpips"),
        "clustered_lpips_nonempty": lpips.get("clustered_lpips_nonempty"),
        "empty_clusters": lpips.get("num_empty"),
        "pairwise_lpips": lpips.get("pairwise_lpips"),
        "copy_rate": metrics.get("nearest", {}).get("copy_rate"),
        "unique_share": settings["unique_share"],
        "generated": settings["num_generated"],
        "generated_lpips": settings["num_generated_lpips"],
        "real": settings["num_real"],
        "compared_with": result.get("benchmark", {}).get("compared_with") or "all",
        "resolution": settings["resolution"][0],
        "features": kid.get("features"),
        "trained_kimg": outcome["images_seen"] / 1000 if outcome else None,
        "training_images": training.get("images"),
        "training_seconds": outcome.get("training_seconds"),
        "reconstruction": result["reconstruction"],
        "paper_kid_x1000": None if published is None else published.kid,
        "paper_clustered_lpips": None if published is None else published.clustered_lpips,
    }


def to_csv(results: Results) -> str:
    """A line for each cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row_of(cell, result) for cell, result in results.items())
    return stream.getvalue()


def to_markdown(cells: Sequence[Cell], results: Results) -> str:
    """A table for each category: methods down, defects across; the paper's numbers in brackets."""
    rows = {cell: row_of(cell, result) for cell, result in results.items()}
    parts = []
    for category, members in groupby(cells, key=lambda cell: cell.category):
        of_category = list(members)
        defects = list(dict.fromkeys(cell.defect for cell in of_category))
        methods = list(dict.fromkeys(cell.method for cell in of_category))
        lines = [
            f"### {category.replace('_', ' ')}",
            "",
            "| | " + " | ".join(f"{d}: KID x 1000 | clustered LPIPS" for d in defects) + " |",
            "|---|" + "---|---|" * len(defects),
        ]
        for name in methods:
            method = get_method(name)
            entries = [_entries(rows.get(Cell(category, defect, name))) for defect in defects]
            mark = " *" if method.is_reconstruction else ""
            lines.append(f"| {method.title}{mark} | " + " | ".join(f"{k} | {c}" for k, c in entries) + " |")
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, _notes(list(rows.values()))]) + "\n"


def plot(cells: Sequence[Cell], results: Results) -> bytes:
    """A PNG file with KID and clustered LPIPS of all methods, defect by defect; hollow marks are the paper's numbers.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    rows = {cell: row_of(cell, result) for cell, result in results.items()}
    groups = list(dict.fromkeys((cell.category, cell.defect) for cell in cells))
    methods = list(dict.fromkeys(cell.method for cell in cells))
    figure = Figure(figsize=(10, max(3.0, 1.2 + 0.28 * (len(methods) + 1.5) * len(groups))), layout="constrained")
    panels = (
        ("KID x 1000 (lower is closer)", "kid_x1000", "paper_kid_x1000"),
        ("clustered LPIPS (higher is more varied)", "clustered_lpips", "paper_clustered_lpips"),
    )
    for axes, (title, measured, published) in zip(figure.subplots(1, 2, sharey=True), panels, strict=True):
        ticks: list[tuple[float, str]] = []
        for g, (category, defect) in enumerate(groups):
            for m, name in enumerate(methods):
                y = g * (len(methods) + 1.5) + m
                ticks.append((y, get_method(name).title))
                row = rows.get(Cell(category, defect, name))
                if row is None or row[measured] is None:
                    continue
                axes.plot(row[measured], y, "o", color=f"C{m}")
                if measured == "kid_x1000" and row["kid_low_x1000"] is not None:
                    axes.hlines(y, row["kid_low_x1000"], row["kid_high_x1000"], color=f"C{m}")
                if row[published] is not None:
                    axes.plot(row[published], y, "o", color=f"C{m}", markerfacecolor="none")
            top = g * (len(methods) + 1.5) - 0.9
            axes.text(0.01, top, f"{category}, {defect}", transform=axes.get_yaxis_transform(), weight="bold", size=9)
        axes.set_yticks([y for y, _ in ticks], [label for _, label in ticks], size=8)
        axes.set_xlabel(title)
        found = [row[n] for row in rows.values() for n in (measured, published, "kid_low_x1000") if row[n] is not None]
        if measured == "kid_x1000" and found and min(found) > 0 and max(found) > _LOGARITHMIC * min(found):
            # One method that has learnt nothing would press all others together.
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
            axes.xaxis.set_major_formatter(ScalarFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(axis="x", alpha=0.3)
        axes.set_ylim(len(groups) * (len(methods) + 1.5) - 1.5, -1.8)
    return _png(figure.savefig, dpi=130)


def _entries(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "-", "-"
    return (
        _entry(row["kid_x1000"], row["paper_kid_x1000"], 2),
        _entry(row["clustered_lpips"], row["paper_clustered_lpips"], 4),
    )


def _entry(measured: float | None, published: float | None, digits: int) -> str:
    text = "-" if measured is None else f"{measured:.{digits}f}"
    return text if published is None else f"{text} ({published:.{digits}f})"


def _notes(rows: list[dict[str, Any]]) -> str:
    """What the numbers are, under the tables."""
    if not rows:
        return "Nothing has been measured yet."

    def values(name: str) -> str:
        found = sorted({row[name] for row in rows if row[name] is not None})
        return f"{found[0]:g} to {found[-1]:g}" if len(found) > 1 else f"{found[0]:g}" if found else "-"

    notes = [
        f"{values('generated')} images a cell ({values('generated_lpips')} for LPIPS) against {values('real')} "
        f"photographs, {values('resolution')} pixels wide; models trained on {values('training_images')} photographs "
        f"for {values('trained_kimg')} kimg. KID from all images on "
        f"{', '.join(sorted({row['features'] for row in rows if row['features']}))} features; CSV has its intervals.",
    ]
    if any(row["compared_with"] == "held_out" for row in rows):
        notes.append("These are photographs of other parts than the models were trained on.")
    if any(row["reconstruction"] for row in rows):
        notes.append("\\* A reconstruction: filled in here where no source says how it is.")
    if any(row["paper_clustered_lpips"] is not None for row in rows):
        notes.append("In brackets: the paper (Inception features, 256 pixels, 400 kimg for DFMGAN).")
    return "\n\n".join(notes)


def _png(save: Callable[..., object], **options: Any) -> bytes:
    stream = io.BytesIO()
    save(stream, format="png", **options)
    return stream.getvalue()


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all, also beside other jobs that write the same table."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_bytes(content)
    os.replace(aside, path)


def _times_1000(value: float | None) -> float | None:
    return None if value is None else 1000 * value
