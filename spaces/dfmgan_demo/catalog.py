"""The models that the operator configured: loaded once, known by name; a visitor cannot add any."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from device import gpu_is_borrowed
from huggingface_hub.utils import HfHubHTTPError

from dfmgan_hf import DFMGANPipeline

HERE = Path(__file__).resolve().parent
MODELS_VARIABLE = "DFMGAN_MODELS"


class CatalogError(ValueError):
    """The operator's list cannot be used; the message says why and what to write instead."""


@dataclass(frozen=True)
class Model:
    """A model of the list, or one of the kinds of defect that a model of several draws.

    Args:
        name: as the page shows it.
        source: folder or Hub id.
        pipe: the loaded pipeline.
        defect: kind of defect; None of a model that draws one.
    """

    name: str
    source: str
    pipe: DFMGANPipeline
    defect: str | None = None


class Catalog:
    """The models by name, in the operator's order; the first one is shown first."""

    def __init__(self, models: Iterable[Model]) -> None:
        self._models = {model.name: model for model in models}

    def __getitem__(self, name: str) -> Model:
        return self._models[name]

    @property
    def names(self) -> list[str]:
        """The models' names, in the operator's order."""
        return list(self._models)


def configured_sources(given: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of name and source: what was given, else the environment's list, else the models that came along.

    Args:
        given: entries `SOURCE` or `NAME=SOURCE`, a source being a folder or a Hub id. If empty, the variable
            DFMGAN_MODELS holds such entries, separated by commas; without it, every model in a folder `models` beside
            the app or at the top of the checkout is taken.

    Raises:
        CatalogError: no model anywhere, an entry without a source, or a name given twice.
    """
    entries = list(given) or [entry for entry in os.environ.get(MODELS_VARIABLE, "").split(",") if entry.strip()]
    if not entries:
        entries = [str(folder) for root in (HERE, *HERE.parents[1:2]) for folder in _models_in(root / "models")]
    if not entries:
        raise CatalogError(
            "No model to show. Give one with --model FOLDER_OR_HUB_ID, set the variable "
            f'{MODELS_VARIABLE}="Name=org/model,Other name=org/other", or put its folder into a folder "models" '
            "beside app.py."
        )
    sources = [_name_and_source(entry) for entry in entries]
    names = [name for name, _ in sources]
    for name in names:
        if names.count(name) > 1:
            raise CatalogError(f'Two models are called "{name}": give them different names, as NAME=SOURCE.')
    return sources


def load_catalog(sources: Sequence[tuple[str, str]]) -> Catalog:
    """Load every model now, so that a wrong list is known at start-up and not by a visitor.

    Of a model that draws several kinds of defect, each is an entry: "Pill: crack".

    Raises:
        CatalogError: a source that cannot be loaded, or that draws no defects.
    """
    return Catalog(model for name, source in sources for model in _load(name, source))


def _models_in(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/model_index.json"))


def _name_and_source(entry: str) -> tuple[str, str]:
    name, separator, source = (part.strip() for part in entry.rpartition("="))
    if not source or (separator and not name):
        raise CatalogError(f'"{entry}" names no model: write FOLDER_OR_HUB_ID or NAME=FOLDER_OR_HUB_ID.')
    own = Path(source).name.removeprefix("dfmgan-").removeprefix("mvtec-")
    return name or re.sub("[-_]", " ", own).capitalize(), source


def _load(name: str, source: str) -> list[Model]:
    try:
        # A repository of pickles is refused: only tensors are read, nothing in a model is run.
        pipe = DFMGANPipeline.from_pretrained(source)
    except (OSError, ValueError, RuntimeError, HfHubHTTPError) as error:
        raise CatalogError(f'The model "{name}" cannot be loaded from {source}: {error}') from error
    if not pipe.has_defects:
        raise CatalogError(f'The model "{name}" ({source}) is a backbone that draws no defects: give one of stage 2.')
    pipe.set_progress_bar_config(disable=True)
    if torch.cuda.is_available():
        pipe = pipe.to("cuda")
        if not gpu_is_borrowed():  # graphs would be made anew for every visitor
            pipe.enable_cuda_graphs()
    kinds = pipe.defect_names
    return [Model(f"{name}: {kind.replace('_', ' ')}", source, pipe, kind) for kind in kinds] or [
        Model(name, source, pipe)
    ]
