"""List the models that are at hand, with what their cards say of them."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from huggingface_hub import HfApi, snapshot_download

from ..hub_errors import HubError, clear_errors
from ..models.base import image_size
from .cards import CARD_FILE, INDEX_FILE, full_precision_weights, is_full_precision, read_card, read_record

GENERATOR_FILE = "generator/config.json"


@dataclass(frozen=True)
class ZooConfig:
    """List the models at hand, or those of a user or an organisation on the Hub.

    Attributes:
        where: A folder of model folders, a model folder, or the name of a user or organisation on the Hub.
    """

    where: Annotated[str, tyro.conf.Positional] = "models"


@dataclass(frozen=True)
class ListedModel:
    """What a model's card and config say.

    Attributes:
        name: What `from_pretrained` takes: a folder, or org/name.
        title: Heading of its card.
        size: Height and width of its images in pixels.
        megabytes: Of its weights.
        licence: SPDX identifier; None if the card names none.
        kid: KID x 1000 of each kind of defect; empty if the card has no numbers.
        features: The network of KID's features.
        clustered_lpips: Clustered LPIPS of each kind of defect.
    """

    name: str
    title: str
    size: tuple[int, int]
    megabytes: float
    licence: str | None = None
    kid: tuple[float, ...] = ()
    features: str = ""
    clustered_lpips: tuple[float, ...] = ()


def print_models(config: ZooConfig) -> None:
    """Print a table of the models of a folder, or of a user or organisation on the Hub: what `dfmgan models` does.

    Raises:
        HubError: `where` is no folder, and the Hub knows no such name or cannot be asked.
    """
    found = list_models(config.where)
    print(format_models(found) if found else f"{config.where}: no model of this package is there.")


def list_models(where: str) -> list[ListedModel]:
    """Return the models of a folder, or of a user or organisation on the Hub, by name. No weights are loaded.

    Args:
        where: As in `ZooConfig`.

    Raises:
        HubError: `where` is no folder, and the Hub knows no such name or cannot be asked.

    Example:
        >>> [model.size for model in list_models("models")]
        [(64, 64), (256, 256), (128, 128)]
    """
    if Path(where).is_dir():
        folders = [Path(where), *sorted(Path(where).iterdir())]
        return [
            _describe(
                str(folder), folder, sum(file.stat().st_size for file in full_precision_weights(folder / "generator"))
            )
            for folder in folders
            if _is_ours(folder)
        ]
    if "/" in where:
        raise HubError(f"There is no folder {where}. Give one with models in it, or a name on the Hub such as org.")
    with clear_errors(f"There is no folder {where} here, and the Hub did not list models of {where!r}", where):
        return list(_models_on_the_hub(where))


def _models_on_the_hub(author: str) -> Iterator[ListedModel]:
    api = HfApi()
    for found in sorted(api.list_models(author=author, filter="dfmgan"), key=lambda model: model.id):
        info = api.model_info(found.id, files_metadata=True)
        networks = (file for file in info.siblings or [] if file.rfilename.startswith("generator/"))
        num_bytes = sum(file.size or 0 for file in networks if is_full_precision(Path(file.rfilename).name))
        folder = Path(snapshot_download(found.id, allow_patterns=[CARD_FILE, INDEX_FILE, GENERATOR_FILE]))
        if _is_ours(folder):
            yield _describe(found.id, folder, num_bytes)


def _is_ours(folder: Path) -> bool:
    index = read_record(folder / INDEX_FILE) or {}
    return index.get("_class_name") == "DFMGANPipeline" and (folder / GENERATOR_FILE).is_file()


def _describe(name: str, folder: Path, num_bytes: int) -> ListedModel:
    size = image_size(read_record(folder / GENERATOR_FILE) or {})
    if not (folder / CARD_FILE).is_file():
        return ListedModel(name, "(no card)", size, num_bytes / 1e6)
    try:
        card: Any = read_card(folder / CARD_FILE)
        results = card.data.eval_results or []
        kid, lpips = (
            tuple(float(each.metric_value) for each in results if each.metric_type == metric)
            for metric in ("kid", "lpips")
        )
    except (TypeError, ValueError):  # cards are edited by hand
        return ListedModel(name, "(no readable card)", size, num_bytes / 1e6)
    heading = next((line[2:] for line in card.text.splitlines() if line.startswith("# ")), folder.name)
    features = next((str(each.metric_name) for each in results if each.metric_type == "kid"), "")
    return ListedModel(
        name,
        heading,
        size,
        num_bytes / 1e6,
        card.data.license,
        kid,
        features.rpartition("(")[2].rstrip(")"),
        lpips,
    )


def format_models(models: list[ListedModel]) -> str:
    """Return a table, two lines for each model, and how to read it."""
    heading = ("model", "pixels", "MB", "licence", "KID x 1000", "clustered LPIPS")
    rows = [heading]
    for m in models:
        scores = _range(m.kid, ".0f"), _range(m.clustered_lpips, ".3f")
        rows.append((m.name, f"{m.size[1]}x{m.size[0]}", f"{m.megabytes:.1f}", m.licence or "-", *scores))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    described = [line for row, m in zip(lines[1:], models, strict=True) for line in (row, f"  {m.title}")]
    features = dict.fromkeys(m.features for m in models if m.features)
    on = f" (on {', '.join(features)})" if features else ""
    note = (
        f"KID{on} tells how far from the photographs (lower is closer); it can be compared only between models of the "
        "same photographs, size and network. Clustered LPIPS is variety (higher is more). Two numbers are the least "
        "and the greatest of several kinds of defect."
    )
    table = [lines[0], "  ".join("-" * width for width in widths), *described]
    return "\n".join([*table, "", *textwrap.wrap(note, 88)])


def _range(values: tuple[float, ...], form: str) -> str:
    """Return the least and the greatest of some values, once if they are written alike; "-" if there are none."""
    ends = (format(end(values), form) for end in (min, max)) if values else "-"
    return " to ".join(dict.fromkeys(ends))
