"""Writes a model folder's card, and beside it the records that it is made from, so that it can be made again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..files import whole_file, write_json, write_text
from ..pipelines import DFMGANPipeline, contact_sheet
from .card import build_model_card
from .card_facts import CardFacts, facts_from_folder, read_facts, stored_facts
from .model_folder import CARD_FILE, SAMPLES_FILE
from .records import (
    BACKBONE_TRAINING_FILE,
    FACTS_FILE,
    REFERENCES_FILE,
    RESULTS_FILE,
    TRAINING_FILE,
    CardError,
    read_record,
    without_local_paths,
)

# Of a reference only what its numbers mean; the names of its images are not the model's.
_OF_REFERENCES = ("metrics", "networks", "settings")


def write_model_card(
    model_dir: Path | str,
    facts: CardFacts,
    *,
    results: Path | None = None,
    references: Mapping[str, Path] | None = None,
    backbone_dir: Path | None = None,
    picture: Image.Image | None = None,
    caption: str = "",
) -> Path:
    """Write README.md of a pipeline's folder.

    Args:
        model_dir: folder that `DFMGANPipeline.save_pretrained` or a training wrote.
        facts: what no file knows. They are kept in the folder as card_facts.json and, with the training's record,
            fill the gaps the next time.
        results: results.json of the model's evaluation; None for the folder's.
        references: results.json by name of what the numbers are to be compared with; None for those that lie beside
            `results`, or that the folder has from the last time.
        backbone_dir: folder of stage 1, for its training record; None for the folder's own copy of it.
        picture: samples of the model; None keeps the picture that the folder has.
        caption: what `picture` shows.

    Returns:
        The card's path.

    Raises:
        CardError: the folder is no pipeline's, a record is missing or cannot be read, or the results are those of
            other weights. Nothing was written.
    """
    model_dir = Path(model_dir)
    records: dict[str, Any] = {}
    if results is not None:
        records[RESULTS_FILE] = _results(results)
    measured: dict[str, Any] | None = None
    if references is not None:
        measured = {name: _results(path) for name, path in references.items()}
    elif results is not None:
        measured = read_record(results.with_name(REFERENCES_FILE))
    if measured is not None:
        records[REFERENCES_FILE] = {
            name: {key: value for key, value in record.items() if key in _OF_REFERENCES}
            for name, record in measured.items()
        }
    if backbone_dir is not None:
        records[BACKBONE_TRAINING_FILE] = read_record(backbone_dir / TRAINING_FILE)
        if records[BACKBONE_TRAINING_FILE] is None:
            raise CardError(f"{backbone_dir} has no {TRAINING_FILE}; give the folder that stage 1 wrote.")
    facts = facts.filled_from(stored_facts(model_dir))
    if picture is not None:
        facts = replace(facts, picture_caption=caption or None)
    records[FACTS_FILE] = facts.to_record()
    facts = facts.filled_from(facts_from_folder(model_dir))
    has_picture = picture is not None or (model_dir / SAMPLES_FILE).exists()
    card = build_model_card(
        model_dir,
        facts,
        results=records.get(RESULTS_FILE),
        references=records.get(REFERENCES_FILE),
        backbone_training=records.get(BACKBONE_TRAINING_FILE),
        grid_file=SAMPLES_FILE if has_picture else None,
    )
    for name, record in records.items():
        write_json(model_dir / name, without_local_paths(record))
    if picture is not None:
        with whole_file(model_dir / SAMPLES_FILE) as aside:
            picture.save(aside, format="PNG", optimize=True)
    write_text(model_dir / CARD_FILE, str(card))
    return model_dir / CARD_FILE


def _results(path: Path) -> dict[str, Any]:
    record = read_record(path)
    if record is None or "metrics" not in record:
        raise CardError(f"{path} holds no results. Expected the results.json that examples/evaluate.py writes.")
    return record


@dataclass(frozen=True)
class CardConfig:
    """Write the model card of a trained model into its folder.

    Args:
        model: Folder that a training or save_pretrained wrote.
        card: JSON file with facts, the keys being the options from model_name on; options come first, and what
            neither says is as in the last card.
        results: results.json of the model's evaluation. None: the one in the model's folder.
        reference: "name=results.json" of what the numbers are to be compared with, for example real images of
            another defect; may be repeated. None: those given the last time.
        backbone: Folder of stage 1, for its training record.
        num_samples: Samples in the picture; 0 keeps the picture that there is.
        first_seed: Sample i is drawn from seed first_seed + i.
    """

    facts: CardFacts
    model: Path
    card: Path | None = None
    results: Path | None = None
    reference: tuple[str, ...] = ()
    backbone: Path | None = None
    num_samples: int = 8
    first_seed: int = 0


def make_card(config: CardConfig) -> Path:
    """Draw samples and write a model's card with them.

    Returns:
        The card's path.

    Raises:
        OSError, ValueError: as `write_model_card`, or a reference without a name. Nothing was written.
    """
    facts, references = config.facts, dict(entry.partition("=")[::2] for entry in config.reference)
    if not all(references.values()):
        raise ValueError(f"`reference` must be name=results.json, but is {', '.join(config.reference)}.")
    if config.card is not None:
        facts = facts.filled_from(read_facts(config.card))
    picture, caption = None, ""
    if config.num_samples:
        pipe = DFMGANPipeline.from_pretrained(config.model)
        seeds = range(config.first_seed, config.first_seed + config.num_samples)
        output: Any = pipe(seeds=seeds)
        columns = {"defect-free": output.defect_free_images}
        if pipe.has_defects:
            columns |= {"mask": output.masks, "defect": output.images}
        picture = contact_sheet(columns, picture_size=128)
        caption = facts.picture_caption or (
            f"Not selected: seeds {seeds[0]} to {seeds[-1]}. Nothing here is a photograph."
        )
    return write_model_card(
        config.model,
        facts,
        results=config.results,
        references={name: Path(path) for name, path in references.items()} or None,
        backbone_dir=config.backbone,
        picture=picture,
        caption=caption,
    )
