"""List the models that are at hand, with what their cards say of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from huggingface_hub import HfApi, ModelCard, snapshot_download

from ..hub_errors import HubError, clear_errors

CARD, INDEX, GENERATOR = "README.md", "model_index.json", "generator/config.json"


@dataclass(frozen=True)
class ZooConfig:
    """Where to look for models.

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
        size: Pixels of the shorter side.
        megabytes: Of its weights.
        licence: SPDX identifier; None if the card names none.
        kid: KID x 1000 and the network of its features; None if the card has no numbers.
        clustered_lpips: None likewise.
    """

    name: str
    title: str
    size: int
    megabytes: float
    licence: str | None = None
    kid: tuple[float, str] | None = None
    clustered_lpips: float | None = None


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
        [64, 256]
    """
    if Path(where).is_dir():
        folders = [Path(where), *sorted(Path(where).iterdir())]
        return [_describe(str(f), f, _bytes_here(f)) for f in folders if _is_ours(f)]
    if "/" in where:
        raise HubError(f"There is no folder {where}. Give one with models in it, or a name on the Hub such as org.")
    with clear_errors(f"There is no folder {where} here, and the Hub did not list models of {where!r}", where):
        return list(_models_on_the_hub(where))


def _models_on_the_hub(author: str) -> Iterator[ListedModel]:
    api = HfApi()
    for found in sorted(api.list_models(author=author, filter="dfmgan"), key=lambda model: model.id):
        info = api.model_info(found.id, files_metadata=True)
        weights = [f.size or 0 for f in info.siblings or [] if f.rfilename.startswith("generator/") and _is_main(f)]
        folder = Path(snapshot_download(found.id, allow_patterns=[CARD, INDEX, GENERATOR]))
        if _is_ours(folder):
            yield _describe(found.id, folder, sum(weights))


def _is_main(file: Any) -> bool:
    """Return whether a file of the Hub holds weights, and not a variant of them in half precision."""
    return str(file.rfilename).endswith(".safetensors") and not {"fp16", "bf16"} & set(file.rfilename.split("."))


def _bytes_here(folder: Path) -> int:
    files = (folder / "generator").glob("*.safetensors")
    return sum(file.stat().st_size for file in files if not {"fp16", "bf16"} & set(file.name.split(".")))


def _is_ours(folder: Path) -> bool:
    index = folder / INDEX
    return (
        index.is_file()
        and json.loads(index.read_text(encoding="utf-8")).get("_class_name") == "DFMGANPipeline"
        and (folder / GENERATOR).is_file()
    )


def _describe(name: str, folder: Path, num_bytes: int) -> ListedModel:
    size = json.loads((folder / GENERATOR).read_text(encoding="utf-8"))["resolution"]
    if not (folder / CARD).is_file():
        return ListedModel(name, "(no card)", size, num_bytes / 1e6)
    card = ModelCard.load(folder / CARD)
    heading = next((line[2:] for line in card.text.splitlines() if line.startswith("# ")), folder.name)
    results = {result.metric_type: result for result in card.data.eval_results or []}
    kid, lpips = results.get("kid"), results.get("lpips")
    network = "" if kid is None else str(kid.metric_name).rpartition("(")[2].rstrip(")")
    return ListedModel(
        name,
        heading,
        size,
        num_bytes / 1e6,
        card.data.license,
        None if kid is None else (float(kid.metric_value), network),
        None if lpips is None else float(lpips.metric_value),
    )


def format_models(models: list[ListedModel]) -> str:
    """Return a table, a line for each model, and how to read it."""
    heading = ("model", "what its card says", "pixels", "MB", "licence", "KID x 1000", "clustered LPIPS")
    rows = [heading]
    for m in models:
        kid = "-" if m.kid is None else f"{m.kid[0]:.0f} ({m.kid[1]})"
        lpips = "-" if m.clustered_lpips is None else f"{m.clustered_lpips:.3f}"
        rows.append((m.name, m.title, f"{m.size}", f"{m.megabytes:.1f}", m.licence or "-", kid, lpips))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    note = (
        "KID tells how far from the photographs (lower is closer); it can be compared only between models of the same "
        "photographs, size and network. Clustered LPIPS is variety (higher is more)."
    )
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:], "", note])
