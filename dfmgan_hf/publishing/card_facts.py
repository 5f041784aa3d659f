"""What a model card says that no file of the run knows: the product, the data's source and licence, known limits."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class CardFacts:
    """Facts for a model card; what is None or empty is left out of the card, never guessed.

    Args:
        model_name: Hub id of the model, "org/name", as users will load it.
        title: Heading of the card.
        product: What the images show, in words: "hazelnuts".
        defect: What the defect is, in words: "cracks in the shell". None for a defect-free backbone.
        dataset_name: Name of the data set.
        dataset_id: Hub id of the data set, for the card's metadata.
        dataset_url: Where it can be had.
        dataset_license: The data's licence; models trained on it inherit the question.
        dataset_note: What else to say of the data.
        dataset_citation: BibTeX entry.
        license: SPDX identifier of the model's own licence.
        machine: What it was trained on.
        limits: What the model does not do well.
    """

    model_name: str
    title: str
    product: str
    defect: str | None = None
    dataset_name: str | None = None
    dataset_id: str | None = None
    dataset_url: str | None = None
    dataset_license: str | None = None
    dataset_note: str | None = None
    dataset_citation: str | None = None
    license: str | None = None
    machine: str | None = None
    limits: tuple[str, ...] = ()
