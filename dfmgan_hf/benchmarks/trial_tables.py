"""Trials of several seeds as means and deviations, and tables of them as Markdown, CSV and JSON."""

from __future__ import annotations

import csv
import io
import json
import math
import statistics
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .downstream import Trial, is_reconstruction, write_whole

Results = Mapping[Trial, dict[str, Any]]
_MAX_COLUMNS = 4


def spread(values: Sequence[float]) -> tuple[float | None, float | None]:
    """Mean, and standard deviation from two values on; None where there are too few."""
    if not values:
        return None, None
    return statistics.mean(values), statistics.stdev(values) if len(values) > 1 else None


def entry(values: Sequence[float], digits: int = 1) -> str:
    """ "81.3 ± 2.1", "81.3" of a single value, "-" of none."""
    mean, deviation = spread(values)
    if mean is None:
        return "-"
    return f"{mean:.{digits}f}" if deviation is None else f"{mean:.{digits}f} ± {deviation:.{digits}f}"


def seeds_note(results: Results) -> str:
    """How many networks a number stands for."""
    count = len({trial.seed for trial in results})
    return f"Mean and standard deviation of {count} networks." if count > 1 else "A single network."


def reconstruction_note(results: Results) -> list[str]:
    """What the star behind a method says, if there is one."""
    starred = any(is_reconstruction(trial.source) for trial in results)
    return ["\\* A reconstruction: filled in here where no source says how it is."] if starred else []


def row_names(trials: Sequence[Trial]) -> list[str]:
    """Training sets in the order of the trials."""
    return list(dict.fromkeys(trial.training_set for trial in trials))


def markdown_row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    return "\n".join(
        [markdown_row(header), markdown_row(["---", *["---:"] * (len(header) - 1)]), *map(markdown_row, rows)]
    )


def write_files(output_dir: Path, markdown: str, rows: Sequence[dict[str, Any]], plot: Callable[[], bytes]) -> None:
    """Write table.md, table.csv, table.json and table.png; without matplotlib no figure, which a warning says.

    Args:
        output_dir: of the benchmark.
        markdown: the tables as text.
        rows: the same as numbers, one dictionary for each row of the CSV.
        plot: draws the figure, a PNG file.
    """
    write_whole(output_dir / "table.md", markdown.encode())
    write_whole(output_dir / "table.json", (json.dumps(list(rows), indent=2) + "\n").encode())
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_whole(output_dir / "table.csv", stream.getvalue().encode())
    try:
        write_whole(output_dir / "table.png", plot())
    except ImportError as error:
        warnings.warn(f"No figure was drawn: {error}. `pip install dfmgan-hf[train]`.", stacklevel=2)


def plot_points(
    panels: Mapping[str, Mapping[str, Sequence[float]]],
    label: str,
    published: Mapping[tuple[str, str], float] | None = None,
    chance: float | None = None,
) -> bytes:
    """A PNG file: a panel for each of `panels`, in it a line of points for each row, one for each seed.

    Args:
        panels: values by row, by title of the panel.
        label: of the axis, which goes from 0 to 100.
        published: numbers of the paper by panel and row, as hollow marks.
        chance: what a trivial answer would score, as a dotted line.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    rows = list(dict.fromkeys(name for values in panels.values() for name in values))
    columns = min(len(panels), _MAX_COLUMNS)
    lines = math.ceil(len(panels) / columns)
    size = (max(6.5, 1.8 + 2.2 * columns), lines * (1.0 + 0.26 * len(rows)))
    figure = Figure(figsize=size, layout="constrained")
    places = list(figure.subplots(lines, columns, sharey=True, squeeze=False).flat)
    for axes in places[len(panels) :]:
        axes.set_axis_off()
    for axes, (title, values) in zip(places, panels.items(), strict=False):
        for y, name in enumerate(rows):
            points = values.get(name, ())
            axes.plot(points, [y] * len(points), "o", color=f"C{y % 10}", alpha=0.5, markersize=4)
            if points:
                axes.plot(statistics.mean(points), y, "|", color=f"C{y % 10}", markersize=14, markeredgewidth=2)
            if published and (title, name) in published:
                axes.plot(published[title, name], y, "D", color=f"C{y % 10}", markerfacecolor="none", markersize=6)
        if chance is not None:
            axes.axvline(chance, linestyle=":", color="0.5")
        axes.set_title(title, fontsize=10)
        axes.set_yticks(range(len(rows)), rows, fontsize=8)
        axes.set_xlabel(label)
        axes.grid(axis="x", alpha=0.3)
        # All of the scale, so that small differences look small.
        axes.set_xlim(0, 102)
        # From the top down, with as little above and below as between two rows.
        axes.set_ylim(len(rows) - 0.4, -0.6)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    return stream.getvalue()
