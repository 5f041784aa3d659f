"""The JSON files of a model's folder: what a run was, what was measured, and what of them is fit for strangers."""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

TRAINING_FILE = "training_config.json"
BACKBONE_TRAINING_FILE = "backbone_training_config.json"
RESULTS_FILE = "results.json"
REFERENCES_FILE = "reference_results.json"
# Beside the best model of a run: which of its checkpoints it is.
SCORE_FILE = "score.json"
# What the card says that no other record knows, so that it can be made again.
FACTS_FILE = "card_facts.json"
RECORD_FILES = (TRAINING_FILE, BACKBONE_TRAINING_FILE, SCORE_FILE, RESULTS_FILE, REFERENCES_FILE, FACTS_FILE)

_LEFT_OUT = ("_name_or_path", "real_file_names", "training_file_names")


class CardError(ValueError):
    """A model card cannot be made, or a model not be published, from these files; the message says why."""


def read_record(path: Path) -> dict[str, Any] | None:
    """A JSON object, or None if there is no such file.

    Raises:
        CardError: the file holds something else.
    """
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CardError(f"{path} is not valid JSON ({error}); write it again or remove it.") from error
    if not isinstance(record, dict):
        raise CardError(f"{path} holds a JSON {type(record).__name__}, but an object is expected.")
    return record


def origin(backbone: str) -> dict[str, Any]:
    """What a training record says of the model that it started from: stage 1's own record, or its Hub id.

    Args:
        backbone: folder that stage 1 wrote, or its repository.
    """
    if Path(backbone).is_dir():
        return {"backbone": read_record(Path(backbone) / TRAINING_FILE)}
    return {"base_model": backbone}


def without_local_paths(record: Any) -> Any:
    """The record with absolute paths cut to their last part: they name users, customers and machines.

    diffusers' note of where a model was loaded from, and the photographs' names, go altogether.
    """
    if isinstance(record, dict):
        return {key: without_local_paths(value) for key, value in record.items() if key not in _LEFT_OUT}
    if isinstance(record, list):
        return [without_local_paths(value) for value in record]
    if isinstance(record, str):
        for path in (PurePosixPath(record), PureWindowsPath(record)):
            if path.is_absolute():
                return path.name
    return record
