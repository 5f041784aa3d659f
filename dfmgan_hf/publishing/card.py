"""Fills the model card's template from what a run wrote: its configuration, its training record and its results."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from safetensors import safe_open

from .card_facts import CardFacts
from .measured import eval_results, measured_table, measuring_notes

TEMPLATE = Path(__file__).with_name("model_card.md")
TRAINING_FILE = "training_config.json"
RESULTS_FILE = "results.json"
TAGS = ["diffusers", "dfmgan", "gan", "stylegan2", "defect-generation", "anomaly-detection", "industrial-inspection"]


class CardError(ValueError):
    """A model card cannot be made from this folder; the message says what is missing."""


def build_model_card(
    model_dir: Path | str,
    facts: CardFacts,
    *,
    backbone_training: dict[str, Any] | None = None,
    references: dict[str, dict[str, Any]] | None = None,
    grid_file: str | None = None,
    grid_caption: str = "",
) -> ModelCard:
    """Fill the template for a pipeline folder.

    Args:
        model_dir: folder that `DFMGANPipeline.save_pretrained` wrote. Its training_config.json and results.json are
            used if they are there.
        facts: what these files do not know.
        backbone_training: stage 1's training record, for a model of stage 2.
        references: results.json by name of what the model's numbers are to be compared with.
        grid_file: picture of samples, relative to the card.
        grid_caption: what the picture shows.

    Returns:
        The card; `save` it as README.md of the folder. Facts that are missing are left out.

    Raises:
        CardError: the folder holds no generator, or a JSON file in it cannot be read.
    """
    model_dir = Path(model_dir)
    config = _read_json(model_dir / "generator" / "config.json")
    if config is None:
        raise CardError(f"{model_dir} has no generator/config.json; give a folder that DFMGANPipeline has saved.")
    training = _read_json(model_dir / TRAINING_FILE)
    results = _read_json(model_dir / RESULTS_FILE)
    draws_defects = config["_class_name"] == "DFMGANGenerator"
    entries = eval_results(results, facts.dataset_id, facts.dataset_name or facts.product) if results else []
    card_data = ModelCardData(
        license=facts.license,
        library_name="diffusers",
        pipeline_tag="unconditional-image-generation",
        tags=TAGS,
        datasets=facts.dataset_id,
        metrics=sorted({entry.metric_type for entry in entries}) or None,
        model_name=facts.model_name.split("/")[-1],
        eval_results=entries or None,
    )
    card = ModelCard.from_template(
        card_data,
        template_path=str(TEMPLATE),
        title=facts.title,
        model_name=facts.model_name,
        product_sentence=_product_sentence(facts, draws_defects),
        draws_defects=draws_defects,
        grid_file=grid_file,
        grid_caption=grid_caption,
        architecture="DFMGAN (StyleGAN2 backbone with defect-aware residual blocks)"
        if draws_defects
        else "StyleGAN2 generator, the defect-free backbone of DFMGAN",
        resolution=config["resolution"],
        image_channels=config["image_channels"],
        parameters=_parameters(model_dir),
        training_lines=_training_lines(training, backbone_training, facts),
        checkpoint_rule=(training or {}).get("checkpoint_rule"),
        data_lines=_data_lines(facts),
        measured=measured_table(results, references or {}) if results else None,
        measuring_notes=measuring_notes(results) if results else [],
        limits=facts.limits,
        citations=[facts.dataset_citation] if facts.dataset_citation else [],
    )
    # Sections that were left out leave runs of blank lines behind.
    card.text = re.sub(r"\n{3,}", "\n\n", card.text).strip() + "\n"
    return card


def _read_json(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise CardError(f"{path} is not valid JSON ({error}); write it again or remove it.") from error


def _product_sentence(facts: CardFacts, draws_defects: bool) -> str:
    if draws_defects and facts.defect:
        return f"Draws images of {facts.product} with {facts.defect}."
    return f"Draws images of defect-free {facts.product}."


def _parameters(model_dir: Path) -> str:
    count = 0
    for path in sorted((model_dir / "generator").glob("*.safetensors")):
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
        stage = name or {"stage1": "Stage 1", "stage2": "Stage 2"}.get(record.get("method", ""), "Training")
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
