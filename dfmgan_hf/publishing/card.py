"""Fills the model card's template from what a run wrote: its configuration, its training record and its results."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open

from .card_facts import CardFacts
from .measured import check_measured, eval_results, measured_section
from .model_folder import full_precision_weights
from .records import (
    BACKBONE_TRAINING_FILE,
    REFERENCES_FILE,
    RESULTS_FILE,
    SCORE_FILE,
    TRAINING_FILE,
    CardError,
    read_record,
)

TEMPLATE = Path(__file__).with_name("model_card.md")
# What a card loads before the model has a name on the Hub.
THIS_FOLDER = "path/to/this/folder"
TAGS = ["diffusers", "dfmgan", "gan", "stylegan2", "defect-generation", "anomaly-detection", "industrial-inspection"]
STAGES = {"stage1": "Stage 1", "dfmgan": "Stage 2", "stage2": "Stage 2"}


def build_model_card(
    model_dir: Path | str,
    facts: CardFacts,
    *,
    backbone_training: dict[str, Any] | None = None,
    results: dict[str, Any] | None = None,
    references: dict[str, dict[str, Any]] | None = None,
    grid_file: str | None = None,
    grid_caption: str = "",
) -> ModelCard:
    """Fill the template for a pipeline folder.

    Args:
        model_dir: folder that `DFMGANPipeline.save_pretrained` wrote. Its records (see `records.RECORD_FILES`) are
            used if they are there.
        facts: what these files do not know.
        backbone_training: stage 1's training record, for a model of stage 2; None for the folder's.
        results: results.json of the model's evaluation; None for the folder's.
        references: results.json by name of what the model's numbers are to be compared with; None for the folder's.
        grid_file: picture of samples, relative to the card.
        grid_caption: what the picture shows; "" for what the facts say.

    Returns:
        The card; `save` it as README.md of the folder. Facts that are missing are left out.

    Raises:
        CardError: the folder holds no generator, a JSON file in it cannot be read, or the results are those of other
            weights.
    """
    model_dir = Path(model_dir)
    config = read_record(model_dir / "generator" / "config.json")
    if config is None:
        raise CardError(f"{model_dir} has no generator/config.json; give a folder that DFMGANPipeline has saved.")
    training = read_record(model_dir / TRAINING_FILE)
    if results is None:
        results = read_record(model_dir / RESULTS_FILE)
    if backbone_training is None:
        backbone_training = read_record(model_dir / BACKBONE_TRAINING_FILE) or (training or {}).get("backbone")
    if references is None:
        references = read_record(model_dir / REFERENCES_FILE)
    name = (facts.model_name or model_dir.resolve().name).split("/")[-1]
    draws_defects = config["_class_name"] == "DFMGANGenerator"
    card = ModelCard.from_template(
        ModelCardData(
            license=facts.license,
            library_name="diffusers",
            pipeline_tag="unconditional-image-generation",
            tags=TAGS,
            base_model=facts.base_model,
            datasets=facts.dataset_id,
            model_name=name,
        ),
        template_path=str(TEMPLATE),
        title=facts.title or name,
        source=facts.model_name or THIS_FOLDER,
        product_sentence=_product_sentence(facts, draws_defects),
        draws_defects=draws_defects,
        grid_file=grid_file,
        grid_caption=grid_caption or facts.picture_caption or "",
        architecture="DFMGAN (StyleGAN2 backbone with defect-aware residual blocks)"
        if draws_defects
        else "StyleGAN2 generator, the defect-free backbone of DFMGAN",
        resolution=config["resolution"],
        image_channels=config["image_channels"],
        parameters=_parameters(model_dir),
        training_lines=_training_lines(training, backbone_training, facts),
        checkpoint=_checkpoint(read_record(model_dir / SCORE_FILE), training),
        data_lines=_data_lines(facts),
        limits=facts.limits,
        citations=[facts.dataset_citation] if facts.dataset_citation else [],
    )
    # Sections that were left out leave runs of blank lines behind.
    card.text = re.sub(r"\n{3,}", "\n\n", card.text).strip() + "\n"
    if results is not None:
        check_measured(results, model_dir)
        dataset_name = facts.dataset_name or facts.product
        add_results(card, results, references or {}, name, dataset_id=facts.dataset_id, dataset_name=dataset_name)
    return card


def add_results(
    card: ModelCard,
    results: dict[str, Any],
    references: dict[str, dict[str, Any]],
    model_name: str,
    *,
    dataset_id: str | None = None,
    dataset_name: str | None = None,
) -> None:
    """Put measured numbers into a card, in place of those that it had: its section "Measured" and its metadata.

    Args:
        card: any model card; the rest of it stays as it is.
        results: a results.json.
        references: results by name of what the numbers are to be compared with.
        model_name: Hub id of the model.
        dataset_id: Hub id of the data they were measured on; None for the card's.
        dataset_name: its name in words; None for what the card says, or "photographs".
    """
    data: Any = card.data
    dataset_id = dataset_id or next(iter(_as_list(data.get("datasets"))), None)
    dataset_name = dataset_name or next((r.dataset_name for r in data.get("eval_results", [])), "photographs")
    entries = eval_results(results, dataset_id, dataset_name)
    data.eval_results = entries or None
    data.metrics = sorted({entry.metric_type for entry in entries}) or None
    data.model_name = data.get("model_name") or model_name.split("/")[-1]
    section = measured_section(results, references)
    card.text = put_section(card.text, "Measured", section, before=("Limits", "Citation"))


def loaded_from(text: str, model_name: str) -> str:
    """Return a card's text that loads the model from the Hub where it was made to load it from its folder."""
    return text.replace(f'from_pretrained("{THIS_FOLDER}")', f'from_pretrained("{model_name}")')


def put_section(text: str, heading: str, content: str, before: tuple[str, ...] = ()) -> str:
    """A Markdown text with `content` as its section of level 2 called `heading`.

    Args:
        text: the text; a section of that name is replaced.
        heading: without the hashes.
        content: what stands under the heading.
        before: a new section goes before the first section that has one of these names, else to the end.
    """
    parts = re.split(r"(?m)^(?=## )", text)
    new = f"## {heading}\n\n{content.strip()}\n\n"
    titles = [part.splitlines()[0][3:].strip() if part.startswith("## ") else None for part in parts]
    if heading in titles:
        parts[titles.index(heading)] = new
    else:
        place = next((i for i, title in enumerate(titles) if title in before), len(parts))
        parts.insert(place, new if place < len(parts) else f"\n{new}")
    return "".join(parts).rstrip() + "\n"


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _product_sentence(facts: CardFacts, draws_defects: bool) -> str:
    if not draws_defects:
        return f"Draws images of defect-free {facts.product or 'objects of one kind'}."
    product = facts.product or "objects of one kind"
    return f"Draws images of {product} with {facts.defect or 'a defect'}."


def _parameters(model_dir: Path) -> str:
    count = 0
    for path in full_precision_weights(model_dir / "generator"):
        with safe_open(path, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - not a mapping
                if not name.endswith(("noise_const", "w_avg")):
                    size = 1
                    for side in tensors.get_slice(name).get_shape():
                        size *= side
                    count += size
    return f"{count / 1e6:.2f} million parameters." if count else ""


def _training_lines(
    training: dict[str, Any] | None, backbone_training: dict[str, Any] | None, facts: CardFacts
) -> list[str]:
    lines = []
    for name, record in (("Stage 1", backbone_training), (None, training)):
        if record is None:
            continue
        stage = name or STAGES.get(record.get("method", ""), "Training")
        parts = []
        if "images" in record:
            parts.append(f"{record['images']} photographs")
        result = record.get("result", {})
        recipe = record.get("recipe", {})
        if "images_seen" in result and "batch_size" in recipe:
            steps = result["images_seen"] // recipe["batch_size"]
            parts.append(f"{result['images_seen'] / 1000:g} kimg ({steps:,} steps of batch {recipe['batch_size']})")
        if "training_seconds" in result:
            parts.append(f"{result['training_seconds'] / 60:.0f} minutes")
        lines.append(f"{stage}: {', '.join(parts)}.")
    if facts.machine and lines:
        lines.append(f"Machine: {facts.machine}.")
    return lines


def _checkpoint(score: dict[str, Any] | None, training: dict[str, Any] | None) -> str | None:
    """Which of a run's checkpoints its best model is; None for the last one."""
    if score is None:
        return None
    rule = (training or {}).get("checkpoint_rule")
    return f"the one after {score['images_seen'] / 1000:g} kimg" + (f", by the {rule}" if rule else "")


def _data_lines(facts: CardFacts) -> list[str]:
    lines = []
    if facts.dataset_name:
        source = f" ({facts.dataset_url})" if facts.dataset_url else ""
        lines.append(f"Data: {facts.dataset_name}{source}.")
    if facts.dataset_license:
        lines.append(
            f"Licence of the data: {facts.dataset_license}. Whether a model trained on data inherits its licence is "
            "not settled; ask before commercial use."
        )
    if facts.dataset_note:
        lines.append(facts.dataset_note)
    return lines
