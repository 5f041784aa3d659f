"""Measures of localisation as Markdown, CSV, JSON and a figure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import trial_tables
from .downstream import Trial
from .localization_measures import MEASURES
from .published import LOCALIZATION
from .trial_tables import Results

_TITLES = dict(
    zip(
        MEASURES,
        ("pixel AUROC", "pixel AP", "pixel F1-max", "PRO", "image AUROC", "image AP", "image F1-max"),
        strict=True,
    )
)


def write_tables(output_dir: Path, trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> str:
    """Write table.md, table.csv, table.json and table.png.

    Args:
        output_dir: of the benchmark.
        trials: all, done or not.
        results: of those that are done.
        title: of a training set.

    Returns:
        The Markdown.
    """
    categories = list(dict.fromkeys(trial.category for trial in trials))
    parts = [_markdown(category, [category], trials, results, title) for category in categories]
    if len(categories) > 1:
        parts.append(_markdown(f"mean of {len(categories)} categories", categories, trials, results, title))
    rows = [row for category in categories for row in _rows(category, trials, results)]
    text = "\n\n".join([*parts, _notes(results)]) + "\n"
    trial_tables.write_files(output_dir, text, rows, lambda: _plot(categories, trials, results, title))
    return text


def values_of(results: Results, categories: Sequence[str], training_set: str, name: str) -> list[float]:
    """A measure in %, of each seed, on average over the categories that have it."""
    by_seed: dict[int, list[float]] = {}
    for trial, result in results.items():
        if trial.category in categories and trial.training_set == training_set:
            by_seed.setdefault(trial.seed, []).append(100 * result["measures"][name])
    # A mean over some of the categories would look like one over all.
    return [sum(values) / len(values) for values in by_seed.values() if len(values) == len(categories)]


def _rows(category: str, trials: Sequence[Trial], results: Results) -> list[dict[str, Any]]:
    """A row for each training set."""
    rows = []
    for training_set in trial_tables.row_names(trials):
        row: dict[str, Any] = {"category": category, "training_set": training_set}
        for name in MEASURES:
            values = values_of(results, [category], training_set, name)
            row[f"{name}_percent"], row[f"{name}_deviation"] = trial_tables.spread(values)
            row["seeds"] = len(values)
        rows.append(row)
    return rows


def _markdown(
    name: str, categories: Sequence[str], trials: Sequence[Trial], results: Results, title: Callable[[str], str]
) -> str:
    rows = [
        [title(n), *(trial_tables.entry(values_of(results, categories, n, measure)) for measure in MEASURES)]
        for n in trial_tables.row_names(trials)
    ]
    table = trial_tables.markdown_table(["in %, trained on", *_TITLES.values()], rows)
    return f"### {name.replace('_', ' ')}\n\n{table}"


def _notes(results: Results) -> str:
    """What the numbers are, under the tables."""
    if not results:
        return "Nothing has been measured yet."
    result = next(iter(results.values()))
    settings = result["settings"]
    segmenter = settings["segmenter"]
    notes = [
        f"{result['network']}, {segmenter['steps']} steps of {segmenter['batch_size']} images at "
        f"{settings['resolution']} pixels, {settings['images_per_defect']} generated pairs of each of "
        f"{len(result['defects'])} kinds, and the good photographs for training. "
        f"{trial_tables.seeds_note(results)} Tested on {result['tested']} photographs with defects "
        f"and {result['tested_good']} without."
    ]
    if settings["compat"] != "none":
        notes.append(f"Pixel F1 and PRO at the coarse thresholds of {settings['compat']}'s script.")
    if segmenter["select"] != "last":
        notes.append("The best of ten tests on the way is reported: the test set has been looked at.")
    notes += trial_tables.reconstruction_note(results)
    published = "; ".join(
        f"{method} {' / '.join(f'{value:.1f}' for value in numbers.values())}"
        for method, numbers in LOCALIZATION.items()
    )
    names = ", ".join(_TITLES[name] for name in next(iter(LOCALIZATION.values())))
    notes.append(
        f"Published means over MVTec AD at 256 pixels, the epoch chosen on the test set ({names}): {published}."
    )
    return "\n\n".join(notes)


def _plot(categories: Sequence[str], trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> bytes:
    panels = {
        _TITLES[name]: {title(n): values_of(results, categories, n, name) for n in trial_tables.row_names(trials)}
        for name in MEASURES
    }
    return trial_tables.plot_points(panels, "%")
