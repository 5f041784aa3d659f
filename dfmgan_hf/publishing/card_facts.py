"""What a model card says that no file of the run knows: the product, the data's source and licence, known limits."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from .records import FACTS_FILE, TRAINING_FILE, CardError, read_record


@dataclass(frozen=True)
class CardFacts:
    """Facts for a model card; what is None or empty is left out of the card, never guessed.

    Args:
        model_name: Hub id of the model, "org/name", as users will load it; None before it has one.
        title: Heading of the card; None for the model's name.
        product: What the images show, in words: "hazelnuts".
        defect: What the defect is, in words: "cracks in the shell". None for a defect-free backbone.
        base_model: Hub id of the model that training started from.
        dataset_name: Name of the data set.
        dataset_id: Hub id of the data set, for the card's metadata.
        dataset_url: Where it can be had.
        dataset_license: The data's licence; models trained on it inherit the question.
        dataset_note: What else to say of the data.
        dataset_citation: BibTeX entry.
        license: SPDX identifier of the model's own licence.
        machine: What it was trained on.
        limits: What the model does not do well.
        picture_caption: What the picture of samples shows.
    """

    model_name: str | None = None
    title: str | None = None
    product: str | None = None
    defect: str | None = None
    base_model: str | None = None
    dataset_name: str | None = None
    dataset_id: str | None = None
    dataset_url: str | None = None
    dataset_license: str | None = None
    dataset_note: str | None = None
    dataset_citation: str | None = None
    license: str | None = None
    machine: str | None = None
    limits: tuple[str, ...] = ()
    picture_caption: str | None = None

    def filled_from(self, other: CardFacts) -> CardFacts:
        """These facts, and those of `other` where nothing is known here."""
        missing = {f.name: getattr(other, f.name) for f in fields(self) if not getattr(self, f.name)}
        return replace(self, **missing)

    def to_record(self) -> dict[str, Any]:
        """What is known, as the JSON object that `read_facts` reads."""
        known = {f.name: getattr(self, f.name) for f in fields(self) if getattr(self, f.name)}
        return known | ({"limits": list(self.limits)} if self.limits else {})


def read_facts(path: Path) -> CardFacts:
    """Read facts from a JSON object whose keys are the fields of `CardFacts`.

    Raises:
        CardError: there is no such file, or it has another key, or a value of another type.
    """
    record = read_record(path)
    if record is None:
        raise CardError(f"There is no file {path} with facts for the model card.")
    known = [field.name for field in fields(CardFacts)]
    for key, value in record.items():
        if key not in known:
            raise CardError(f"{path} has an unknown key {key!r}. Known are {', '.join(known)}.")
        texts = value if key == "limits" and isinstance(value, list) else [value]
        if (key == "limits") != isinstance(value, list) or not all(isinstance(text, str) for text in texts):
            expected = "a list of texts" if key == "limits" else "a text"
            raise CardError(f"{path}: {key} must be {expected}, but is {value!r}.")
    return CardFacts(**{**record, "limits": tuple(record.get("limits", ()))})


def stored_facts(model_dir: Path) -> CardFacts:
    """Return the facts of the last card that was written in a model's folder; none if it has none."""
    path = model_dir / FACTS_FILE
    return read_facts(path) if path.exists() else CardFacts()


def facts_from_folder(model_dir: Path) -> CardFacts:
    """Return what a model's folder says: the facts of its last card, then what its training's record tells.

    These are category and defect in words, and the Hub id of the backbone if it has one.

    Raises:
        CardError: a record cannot be read.
    """
    record = read_record(model_dir / TRAINING_FILE) or {}
    category, defect = record.get("config", {}).get("data", {}).get("category"), record.get("defect")
    of_training = CardFacts(
        product=category.replace("_", " ") if category else None,
        defect=f'the defect "{defect.replace("_", " ")}"' if defect else None,
        base_model=record.get("base_model"),
    )
    return stored_facts(model_dir).filled_from(of_training)
