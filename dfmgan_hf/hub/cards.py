"""Write model cards from recorded facts: a run's configuration, its training record, what was measured."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any

import tyro
from diffusers import DiffusionPipeline
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..files import tensors_sha256, whole_file, whole_folder, write_json, write_text
from ..models.base import VARIANTS, refuse_pickles
from ..models.dfmgan import DFMGANGenerator
from ..models.discriminator import StyleGAN2Discriminator
from ..models.stylegan2 import StyleGAN2Generator
from ..sheets import contact_sheet

# --- The JSON files of a model's folder: what a run was, what was measured, and what of them is fit for strangers.

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


# --- What a model card says that no file of the run knows: the product, the data's source and licence, known
# limits.


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


# --- Which files of a model's folder are for others: the pipeline, its card and its records, nothing else.

CARD_FILE = "README.md"
INDEX_FILE = "model_index.json"
SAMPLES_FILE = "samples.png"
# Of a training's output folder.
BEST_FOLDER = "best"

_NETWORKS = {cls.__name__: cls for cls in (StyleGAN2Generator, DFMGANGenerator, StyleGAN2Discriminator)}
_FULL_PRECISION = re.compile(r"diffusion_pytorch_model(-\d{5}-of-\d{5})?\.safetensors")
_CARD_PICTURE = re.compile(r"!\[[^\]]*\]\(([^):]+)\)")


def full_precision_weights(folder: Path) -> list[Path]:
    """The weight files of a network's folder, one or several shards, without its half-precision variants."""
    return sorted(path for path in folder.glob("*.safetensors") if _FULL_PRECISION.fullmatch(path.name))


def component_names(model_dir: Path) -> list[str]:
    """Folders of the networks that the pipeline is made of.

    Raises:
        CardError: no pipeline was saved there.
    """
    index = read_record(model_dir / INDEX_FILE)
    if index is None:
        raise CardError(f"{model_dir} has no {INDEX_FILE}; give a folder that DFMGANPipeline or a training has saved.")
    return [name for name, value in index.items() if isinstance(value, list) and not name.startswith("_") and value[0]]


def published_files(
    model_dir: Path,
    aside: Path,
    *,
    variant: str | None = None,
    max_shard_size: str | int | None = None,
    with_training_networks: bool = False,
) -> dict[str, Path]:
    """The files to publish, by their path in the repository. `model_dir` stays as it is.

    These are the pipeline's networks, the card with the pictures that it shows, and the records without local paths.
    Checkpoints, logs and photographs are not among them.

    Args:
        model_dir: folder of a pipeline.
        aside: empty folder for files that are made here.
        variant: name in `VARIANTS`: the generator also in this precision, for `from_pretrained(variant=...)`.
        max_shard_size: split the generator's weights into files of at most this size, such as "5GB".
        with_training_networks: also discriminators and whatever other networks lie beside the pipeline's.

    Raises:
        CardError: the folder is no pipeline's, or not whole.
        PickledWeightsError: a network's folder holds pickles.
        ValueError: an unknown variant.
    """
    if variant is not None and variant not in VARIANTS:
        raise ValueError(f"`variant` must be one of {', '.join(VARIANTS)}, but is {variant!r}.")
    components = component_names(model_dir)
    files = {INDEX_FILE: model_dir / INDEX_FILE}
    for name in components:
        folder = model_dir / name
        if not full_precision_weights(folder):
            raise CardError(f"{folder} holds no weights as safetensors; save the pipeline again.")
        if variant is not None or max_shard_size is not None:
            _save_again(folder, aside / name, variant, max_shard_size)
            folder = aside / name
        files |= _network_files(folder)
    training_files: dict[str, Path] = {}
    if with_training_networks:
        for config in sorted(model_dir.glob("*/config.json")):
            if config.parent.name not in components and _class_name(config.parent) in _NETWORKS:
                training_files |= _network_files(config.parent)
    files |= {**training_files, **companion_files(model_dir)}
    for name in files:
        if name.endswith(".json"):
            record = without_local_paths(read_record(files[name]))
            if name == INDEX_FILE and training_files:
                # Those who draw need not download what those who train need.
                record["_ignore_files"] = sorted(training_files)
            write_json(aside / name, record)
            files[name] = aside / name
    return files


def companion_files(model_dir: Path, *, with_card: bool = True) -> dict[str, Path]:
    """What belongs to a model besides its networks: records, and the card with the pictures that it shows."""
    files = {name: model_dir / name for name in RECORD_FILES if (model_dir / name).exists()}
    card = model_dir / CARD_FILE
    if with_card and card.exists():
        files[card.name] = card
        for name in _CARD_PICTURE.findall(card.read_text(encoding="utf-8")):
            picture = Path(os.path.normpath(model_dir / name.strip()))
            if model_dir in picture.parents and picture.is_file():
                files[picture.relative_to(model_dir).as_posix()] = picture
    return files


def copy_published(model_dir: Path | str, output_dir: Path | str, **options: Any) -> Path:
    """Write the files that are published to a folder of their own: to look at, to commit or to copy.

    Args:
        model_dir: folder of a pipeline.
        output_dir: folder to write; it appears whole or not at all.
        options: those of `published_files`.

    Returns:
        `output_dir`.

    Raises:
        FileExistsError: `output_dir` exists and is not empty.
        and what `published_files` raises.
    """
    with whole_folder(output_dir) as whole, tempfile.TemporaryDirectory() as aside:
        for name, path in published_files(Path(model_dir), Path(aside), **options).items():
            (whole / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, whole / name)
    return Path(output_dir)


def last_sample_sheet(model_dir: Path) -> Path | None:
    """The sheet that a training drew last, or for its best model the nearest to that model; None if there is none."""
    score = read_record(model_dir / SCORE_FILE)
    if score is None:
        return max((model_dir / "samples").glob("*.png"), default=None)
    sheets = sorted((model_dir.parent / "samples").glob("*.png"), reverse=True)
    return min(sheets, key=lambda sheet: abs(int(sheet.stem) - score["images_seen"]), default=None)


def _class_name(folder: Path) -> Any:
    return (read_record(folder / "config.json") or {}).get("_class_name")


def _network_files(folder: Path) -> dict[str, Path]:
    refuse_pickles(str(folder), (path.name for path in folder.iterdir()))
    wanted = [folder / "config.json", *folder.glob("*.safetensors"), *folder.glob("*.safetensors.index*.json")]
    return {f"{folder.name}/{path.name}": path for path in wanted}


def _save_again(folder: Path, target: Path, variant: str | None, max_shard_size: str | int | None) -> None:
    """Save a network in shards, and in another precision: `save_pretrained(variant=...)` alone only renames."""
    class_name = _class_name(folder)
    if class_name not in _NETWORKS:
        raise CardError(f"{folder}/config.json names the class {class_name!r}. Known are {', '.join(_NETWORKS)}.")
    options = {} if max_shard_size is None else {"max_shard_size": max_shard_size}
    network = _NETWORKS[class_name].from_pretrained(folder)
    network.save_pretrained(target, **options)
    if variant is not None:
        VARIANTS[variant](network)
        network.save_pretrained(target, variant=variant, **options)


# --- The table of measured numbers: a model's results beside those of trivial references.


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


# --- Fills the model card's template from what a run wrote: its configuration, its training record and its
# results.

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


# --- Writes a model folder's card, and beside it the records that it is made from, so that it can be made again.

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
    reference: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
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
        # By the base class: the pipeline imports this module, to publish itself.
        pipe: Any = DiffusionPipeline.from_pretrained(config.model)
        seeds = range(config.first_seed, config.first_seed + config.num_samples)
        output: Any = pipe(seeds=seeds)
        columns = {"defect-free": output.defect_free_images}
        if pipe.has_defects:
            columns |= {"mask": output.masks, "defect": output.images}
        samples = list(zip(*columns.values(), strict=True))
        picture = contact_sheet(samples, headings=tuple(columns), picture_size=128)
        caption = facts.picture_caption or (
            f"Not selected: seeds {seeds[0]} to {seeds[-1]}. Nothing here is a photograph."
        )
    path = write_model_card(
        config.model,
        facts,
        results=config.results,
        references={name: Path(path) for name, path in references.items()} or None,
        backbone_dir=config.backbone,
        picture=picture,
        caption=caption,
    )
    print(f"Wrote {path}")
    return path
