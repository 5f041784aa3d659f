"""The table of measured numbers: a model's results beside those of trivial references."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult
from safetensors.torch import load_file
from torch import Tensor

from ..files import tensors_sha256
from .model_folder import full_precision_weights
from .records import CardError


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Args:
        name: what is measured.
        path: where the value stands in the metrics of results.json.
        show: the value as text.
        measured_with: where the name of the network stands that the value depends on; None if there is none.
        metric_type: Hub name of the metric for the card's metadata; None keeps the row out of it.
    """

    name: str
    path: tuple[str, ...]
    show: Callable[[float], str]
    measured_with: tuple[str, ...] | None = None
    metric_type: str | None = None


def _plain(value: float) -> str:
    return f"{value:.4f}"


def _percent(value: float) -> str:
    return f"{value:.2%}"


_FEATURES = ("kid", "features")
_LPIPS = ("clustered_lpips", "network")

ROWS = (
    Row("KID x 1000, lower is closer", ("kid", "kid"), lambda value: f"{1000 * value:.2f}", _FEATURES, "kid"),
    Row(
        "KID x 1000, mean of subsets",
        ("kid", "subsets", "kid"),
        lambda value: f"{1000 * value:.2f}",
        _FEATURES,
    ),
    Row("FID, lower is closer", ("fid", "fid"), lambda value: f"{value:.2f}", ("fid", "features"), "fid"),
    Row("Precision", ("precision_recall", "precision"), _plain, ("precision_recall", "features")),
    Row("Recall", ("precision_recall", "recall"), _plain, ("precision_recall", "features")),
    Row("Inception Score", ("inception_score", "mean"), _plain, ("inception_score", "features"), "inception_score"),
    Row("Clustered LPIPS, higher is more varied", ("clustered_lpips", "clustered_lpips"), _plain, _LPIPS, "lpips"),
    Row("Clustered LPIPS, clusters of 2 and more", ("clustered_lpips", "clustered_lpips_nonempty"), _plain, _LPIPS),
    Row("Pairwise LPIPS", ("clustered_lpips", "pairwise_lpips"), _plain, _LPIPS),
    Row("IC-LPIPS, higher is more varied", ("ic_lpips", "ic_lpips"), _plain, ("ic_lpips", "network"), "ic_lpips"),
    Row("LPIPS to the nearest real image, median", ("nearest", "median"), _plain, ("nearest", "network")),
    Row("Share of copies of real images", ("nearest", "copy_rate"), _percent, ("nearest", "network")),
    Row("Mask area, mean", ("masks", "generated", "area_mean"), _percent),
    Row("Empty masks", ("masks", "generated", "empty_rate"), _percent),
)


def look_up(metrics: dict[str, Any], path: tuple[str, ...]) -> float | None:
    """The number at `path`, or None if it was not measured."""
    value = _at(metrics, path)
    return value if isinstance(value, (int, float)) else None


def _at(metrics: dict[str, Any], path: tuple[str, ...] | None) -> Any:
    value: Any = None if path is None else metrics
    for key in path or ():
        value = value.get(key) if isinstance(value, dict) else None
    return value


def measured_table(results: dict[str, Any], references: dict[str, dict[str, Any]]) -> str:
    """Markdown table: a line a metric, a column for the model and for each reference.

    Args:
        results: the model's results.json.
        references: results by name, for example of real images of another defect.

    Returns:
        The table; metrics that the model has no value for are left out. What a reference has no value for, or has
        measured with another network, is "-".
    """
    model = results["metrics"]
    every = {"this model": results, **references}
    columns = {name: r["metrics"] for name, r in every.items()}
    lines = ["| | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    counts = [r.get("settings", {}).get("num_generated") for r in every.values()]
    if all(counts):
        lines.append("| Images | " + " | ".join(f"{count:,}" for count in counts) + " |")
    for row in ROWS:
        values = [
            look_up(metrics, row.path) if _at(metrics, row.measured_with) == _at(model, row.measured_with) else None
            for metrics in columns.values()
        ]
        if values[0] is not None:
            cells = ["-" if value is None else row.show(value) for value in values]
            lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def measured_section(results: dict[str, Any], references: dict[str, dict[str, Any]]) -> str:
    """Table and notes in Markdown; arguments as in `measured_table`."""
    notes = [f"- {note}" for note in measuring_notes(results, references)]
    return "\n".join([measured_table(results, references), "", *notes]).strip()


def measuring_notes(results: dict[str, Any], references: dict[str, dict[str, Any]]) -> list[str]:
    """How the numbers were measured: counts, networks and intervals, as far as results.json tells."""
    settings, metrics = results.get("settings", {}), results["metrics"]
    notes = []
    if "num_generated" in settings and "num_real" in settings:
        notes.append(
            f"{settings['num_generated']:,} generated images ({settings['num_generated_lpips']:,} for LPIPS) against "
            f"{settings['num_real']} real ones at {settings['resolution'][0]}x{settings['resolution'][1]} pixels."
        )
    kid = metrics.get("kid", {})
    if "features" in kid:
        low, high = kid["unbiased"]["interval"]
        notes.append(
            f"KID on the features of {kid['features']}; {kid['unbiased']['confidence']:.0%} interval "
            f"{1000 * low:.2f} to {1000 * high:.2f}. Numbers on other features cannot be compared with it."
        )
    if any((look_up(r["metrics"], ("kid", "kid")) or 0) < 0 for r in (results, *references.values())):
        notes.append(
            "The estimate of KID is unbiased: for two draws of the same kind of images it scatters around 0, and for "
            "the same images twice it lies below."
        )
    if "network" in metrics.get("clustered_lpips", {}):
        empty, clusters = (metrics["clustered_lpips"][key] for key in ("num_empty", "num_clusters"))
        notes.append(f"LPIPS with {metrics['clustered_lpips']['network']}; {empty} of {clusters} clusters empty.")
    if (nearest := metrics.get("nearest", {})).get("real_median") is not None:
        notes.append(
            f"From a real image to the nearest other one it is LPIPS {nearest['real_median']:.4f} (median); a "
            f"generated image counts as a copy below {nearest['copy_threshold']:.4f}."
        )
    return notes


def check_measured(results: dict[str, Any], model_dir: Path) -> None:
    """Find out whether numbers are those of the weights in a folder, as far as results.json tells.

    Raises:
        CardError: they were measured of other weights.
    """
    measured = results.get("settings", {}).get("sampler", {}).get("weights_sha256")
    if measured is None:
        return
    tensors: dict[str, Tensor] = {}
    for path in full_precision_weights(model_dir / "generator"):
        tensors |= load_file(path)
    found = tensors_sha256(tensors)
    # Weights that were saved in half precision are measured in float32.
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if tensors and measured not in (found, tensors_sha256(full)):
        raise CardError(
            f"The results are not those of the model in {model_dir}: they were measured of a generator whose tensors "
            f"have the SHA-256 {measured[:12]}..., here it is {found[:12]}... Measure this one: examples/evaluate.py "
            f"--model {model_dir}."
        )


def eval_results(results: dict[str, Any], dataset_id: str | None, dataset_name: str) -> list[EvalResult]:
    """Entries for the card's metadata."""
    entries = []
    for row in ROWS:
        value = look_up(results["metrics"], row.path)
        if row.metric_type is not None and value is not None:
            network = _at(results["metrics"], row.measured_with)
            entries.append(
                EvalResult(
                    task_type="unconditional-image-generation",
                    dataset_type=dataset_id or "images",
                    dataset_name=dataset_name,
                    metric_type=row.metric_type,
                    metric_name=f"{row.name} ({network})" if network else row.name,
                    metric_value=round(1000 * value if row.metric_type == "kid" else value, 4),
                )
            )
    return entries
