"""Accuracies as Markdown, CSV, JSON and a figure, the paper's numbers beside where there are any."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import trial_tables
from .downstream import Trial
from .published import TABLE_2
from .trial_tables import Results


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
    rows = [row for category in categories for row in _rows(category, trials, results)]
    parts = [_markdown(category, trials, results, title) for category in categories]
    text = "\n\n".join([*parts, _notes(results)]) + "\n"
    trial_tables.write_files(output_dir, text, rows, lambda: _plot(trials, results, title))
    return text


def accuracies(
    results: Results, category: str, split: str | None, training_set: str, name: str = "accuracy"
) -> list[float]:
    """In %, of all seeds (and all splits for None)."""
    return [
        100 * result[name]
        for trial, result in results.items()
        if trial.category == category and trial.training_set == training_set and split in (None, trial.split)
    ]


def _splits(category: str, trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(trial.split for trial in trials if trial.category == category))


def _published(category: str, split: str, training_set: str) -> float | None:
    """The paper's accuracy, of training sets without photographs."""
    return TABLE_2.get((category, split, training_set))


def _rows(category: str, trials: Sequence[Trial], results: Results) -> list[dict[str, Any]]:
    """A row for each training set and split."""
    rows = []
    for name in trial_tables.row_names(trials):
        for split in _splits(category, trials):
            values = accuracies(results, category, split, name)
            mean, deviation = trial_tables.spread(values)
            rows.append(
                {
                    "category": category,
                    "split": split,
                    "training_set": name,
                    "accuracy_percent": mean,
                    "deviation": deviation,
                    "balanced_percent": trial_tables.spread(
                        accuracies(results, category, split, name, "balanced_accuracy")
                    )[0],
                    "seeds": len(values),
                    "paper_percent": _published(category, split, name),
                }
            )
    return rows


def _markdown(category: str, trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> str:
    splits = _splits(category, trials)
    rows = []
    for name in trial_tables.row_names(trials):
        cells = []
        for split in splits:
            published = _published(category, split, name)
            text = trial_tables.entry(accuracies(results, category, split, name))
            cells.append(text if published is None else f"{text} ({published:.2f})")
        kinds = ("accuracy", "balanced_accuracy") if len(splits) > 1 else ("balanced_accuracy",)
        rows.append(
            [
                title(name),
                *cells,
                *(trial_tables.entry(accuracies(results, category, None, name, kind)) for kind in kinds),
            ]
        )
    means = ("all", "all, balanced") if len(splits) > 1 else ("balanced",)
    table = trial_tables.markdown_table(["accuracy in %, trained on", *splits, *means], rows)
    return f"### {category.replace('_', ' ')}\n\n{table}"


def _notes(results: Results) -> str:
    """What the numbers are, under the tables."""
    if not results:
        return "Nothing has been measured yet."
    result = next(iter(results.values()))
    settings = result["settings"]
    classifier, kinds = settings["classifier"], len(result["defects"])
    one = 100 / result["tested"]
    most = max(map(sum, result["confusion"])) / result["tested"]
    notes = [
        f"{result['network']}, {result['start']}, {classifier['steps']} steps of {classifier['batch_size']} images at "
        f"{settings['resolution']} pixels, {settings['images_per_defect']} generated images of each of {kinds} kinds. "
        f"{trial_tables.seeds_note(results)} Tested on {result['tested']} photographs, so that one "
        f"is {one:.1f} points; always naming the most frequent kind gives {100 * most:.1f} %. Balanced: the mean over "
        f"the {kinds} kinds, of which guessing gets {100 / kinds:.0f} %."
    ]
    if classifier["select"] != "last":
        notes.append("The best of ten tests on the way is reported: the test set has been looked at.")
    notes += trial_tables.reconstruction_note(results)
    if any(_published(trial.category, trial.split, trial.training_set) is not None for trial in results):
        notes.append("In brackets: the paper, a single classifier on partitions that are not known.")
    return "\n\n".join(notes)


def _plot(trials: Sequence[Trial], results: Results, title: Callable[[str], str]) -> bytes:
    panels: dict[str, dict[str, list[float]]] = {}
    published: dict[tuple[str, str], float] = {}
    for category in dict.fromkeys(trial.category for trial in trials):
        for split in _splits(category, trials):
            panel = f"{category}, {split}"
            panels[panel] = {title(n): accuracies(results, category, split, n) for n in trial_tables.row_names(trials)}
            for name in trial_tables.row_names(trials):
                number = _published(category, split, name)
                if number is not None:
                    published[panel, title(name)] = number
    most = {max(map(sum, result["confusion"])) / result["tested"] for result in results.values()}
    chance = 100 * most.pop() if len(most) == 1 else None
    return trial_tables.plot_points(panels, "accuracy in %", published, chance)
