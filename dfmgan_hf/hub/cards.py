"""Write model cards from recorded facts: a run's configuration, its training record, what was measured."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Annotated, Any, Literal, NamedTuple

import tyro
import yaml
from diffusers import DiffusionPipeline
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from ..files import SCORE_FILE, TRAINING_FILE, tensors_sha256, write_json, write_text
from ..models.base import image_size
from ..sheets import contact_sheet, save_sheet

CARD_FILE = "README.md"
INDEX_FILE = "model_index.json"
SAMPLES_FILE = "samples.png"
BACKBONE_TRAINING_FILE = "backbone_training_config.json"
RESULTS_FILE = "results.json"
REFERENCES_FILE = "reference_results.json"
"""File of a model's folder with what its numbers are compared with."""
# What the card says that no other record knows, so that it can be made again.
FACTS_FILE = "card_facts.json"
RECORD_FILES = (TRAINING_FILE, BACKBONE_TRAINING_FILE, SCORE_FILE, RESULTS_FILE, REFERENCES_FILE, FACTS_FILE)

TEMPLATE = Path(__file__).with_name("model_card.md")
TAGS = ["diffusers", "dfmgan", "gan", "stylegan2", "defect-generation", "anomaly-detection", "industrial-inspection"]
# What a card loads before the model has a name on the Hub.
THIS_FOLDER = "path/to/this/folder"

# Of a reference only what its numbers mean; the names of its images are not the model's.
_OF_REFERENCES = ("metrics", "networks", "settings")
_NOT_PUBLISHED = ("_name_or_path", "real_file_names", "training_file_names", "trained_on")
_MEASURE_AGAIN = (
    f"Save and measure this one (`dfmgan evaluate`), and write its card from that (`dfmgan card --results`). To do "
    f"without numbers, remove {RESULTS_FILE} and {CARD_FILE}."
)
_FULL_PRECISION = re.compile(r"diffusion_pytorch_model(-\d{5}-of-\d{5})?\.safetensors")


class CardError(ValueError):
    """A model card cannot be made, or a model not be published, from these files; the message says why."""


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

    def known(self) -> dict[str, Any]:
        """Return the facts that are known, by name."""
        return {name: value for name, value in vars(self).items() if value}

    def filled_from(self, other: CardFacts) -> CardFacts:
        """Return these facts, and those of `other` where nothing is known here."""
        return CardFacts(**other.known() | self.known())


def read_facts(path: Path) -> CardFacts:
    """Read facts from a JSON object whose keys are the fields of `CardFacts`; none if there is no such file.

    Raises:
        CardError: it has another key, or a value of another type.
    """
    record = read_record(path) or {}
    known = [field.name for field in fields(CardFacts)]
    for key, value in record.items():
        if key not in known:
            raise CardError(f"{path} has an unknown key {key!r}. Known are {', '.join(known)}.")
        texts = value if key == "limits" and isinstance(value, list) else [value]
        if (key == "limits") != isinstance(value, list) or not all(isinstance(text, str) for text in texts):
            expected = "a list of texts" if key == "limits" else "a text"
            raise CardError(f"{path}: {key} must be {expected}, but is {value!r}.")
    return CardFacts(**{**record, "limits": tuple(record.get("limits", ()))})


def facts_from_folder(model_dir: Path) -> CardFacts:
    """Return what a model's folder says: the facts of its last card, then what its training's record tells."""
    record = read_record(model_dir / TRAINING_FILE) or {}
    category, defect = record.get("config", {}).get("data", {}).get("category"), record.get("defect")
    of_training = CardFacts(
        product=category.replace("_", " ") if category else None,
        defect=_in_words(defect) if defect else None,
        base_model=record.get("base_model"),
    )
    return read_facts(model_dir / FACTS_FILE).filled_from(of_training)


def _in_words(defect: str) -> str:
    """Return what a record says of the kinds of defect, in words."""
    kinds = [f'"{kind.replace("_", " ")}"' for kind in defect.split(", ")]
    return f"the defect {kinds[0]}" if len(kinds) == 1 else f"the defects {', '.join(kinds[:-1])} and {kinds[-1]}"


def read_record(path: Path) -> dict[str, Any] | None:
    """Read a JSON object; None if there is no such file, `CardError` if it holds something else."""
    if not path.exists():
        return None
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CardError(f"{path} is not valid JSON ({error}); write it again or remove it.") from error
    if not isinstance(record, dict):
        raise CardError(f"{path} holds a JSON {type(record).__name__}, but an object is expected.")
    return record


def read_card(path: Path) -> ModelCard:
    """Read a model card; `CardError` if its metadata cannot be read."""
    try:
        return ModelCard.load(path)
    except (TypeError, ValueError, yaml.YAMLError) as error:
        raise CardError(
            f"{path}: the metadata between the two lines --- at its top cannot be read ({error}). Correct it, or "
            "write the card again with `dfmgan card`."
        ) from error


def origin(source: str, name: Literal["backbone", "other_product"]) -> dict[str, Any]:
    """Return what a training record says of the folder or repository that it started from.

    The record of a local one is kept under `name`: a backbone has learnt from this data set, another product's stage 1
    has not.
    """
    if Path(source).is_dir():
        return {name: read_record(Path(source) / TRAINING_FILE)}
    return {"base_model" if name == "backbone" else name: source}


def without_local_paths(record: Any) -> Any:
    """Return a record with absolute paths cut to their last part: they name users, customers and machines.

    diffusers' note of where a model was loaded from, and the photographs' names, go altogether.
    """
    if isinstance(record, dict):
        return {key: without_local_paths(value) for key, value in record.items() if key not in _NOT_PUBLISHED}
    if isinstance(record, list):
        return [without_local_paths(value) for value in record]
    if isinstance(record, str):
        for path in (PurePosixPath(record), PureWindowsPath(record)):
            if path.is_absolute():
                return path.name
    return record


def build_model_card(
    model_dir: Path | str,
    facts: CardFacts,
    *,
    records: Mapping[str, dict[str, Any]] | None = None,
    with_picture: bool = False,
) -> ModelCard:
    """Return the card of a pipeline's folder, the template filled; `save` it as README.md there.

    Args:
        model_dir: folder that `DFMGANPipeline.save_pretrained` wrote, with those of `RECORD_FILES` that it has.
        facts: what these files do not know; what is missing here too is left out of the card.
        records: contents of `RECORD_FILES` by name, in the place of the folder's.
        with_picture: show samples.png.

    Raises:
        CardError: the folder holds no generator, a JSON file in it cannot be read, or the results are those of other
            weights.
    """
    model_dir = Path(model_dir)
    config = read_record(model_dir / "generator" / "config.json")
    if config is None:
        raise CardError(f"{model_dir} has no generator/config.json; give a folder that DFMGANPipeline has saved.")
    found = {name: read_record(model_dir / name) or {} for name in RECORD_FILES} | dict(records or {})
    name = (facts.model_name or model_dir.resolve().name).split("/")[-1]
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
        facts=facts,
        title=facts.title or name,
        source=facts.model_name or THIS_FOLDER,
        draws_defects=config["_class_name"] == "DFMGANGenerator",
        picture=SAMPLES_FILE if with_picture else None,
        config=config,
        size=image_size(config),
        parameters=_count_parameters(model_dir),
        training_lines=_training_lines(found, facts.machine),
        checkpoint=_checkpoint(found),
    )
    # Sections that were left out leave runs of blank lines behind.
    card.text = re.sub(r"\n{3,}", "\n\n", card.text).strip() + "\n"
    if results := found[RESULTS_FILE]:
        check_measured(results, model_dir)
        dataset_name = facts.dataset_name or facts.product
        add_results(
            card, results, found[REFERENCES_FILE], name, dataset_id=facts.dataset_id, dataset_name=dataset_name
        )
    return card


def loaded_from(text: str, model_name: str) -> str:
    """Return a card's text that loads the model from the Hub where it was made to load it from its folder."""
    return text.replace(f'from_pretrained("{THIS_FOLDER}")', f'from_pretrained("{model_name}")')


def is_full_precision(name: str) -> bool:
    """Return whether a file of this name in a network's folder holds weights, and no variant in half precision."""
    return _FULL_PRECISION.fullmatch(name) is not None


def full_precision_weights(folder: Path) -> list[Path]:
    """Return the weight files of a network's folder, one or several shards, without its half-precision variants."""
    return sorted(path for path in folder.glob("*.safetensors") if is_full_precision(path.name))


def _count_parameters(model_dir: Path) -> int:
    count = 0
    for path in full_precision_weights(model_dir / "generator"):
        with safe_open(path, framework="pt") as tensors:
            names = [name for name in tensors.keys() if not name.endswith(("noise_const", "w_avg"))]  # noqa: SIM118
            count += sum(math.prod(tensors.get_slice(name).get_shape()) for name in names)
    return count


def _training_lines(records: Mapping[str, Any], machine: str | None) -> list[str]:
    training = records[TRAINING_FILE]
    stage = {"stage1": "Stage 1", "dfmgan": "Stage 2"}.get(training.get("method"), "Training")
    backbone = records[BACKBONE_TRAINING_FILE] or training.get("backbone")
    lines = []
    for name, record in (("Stage 1", backbone), (stage, training)):
        if not record:
            continue
        parts = [f"{record['images']} photographs"] if "images" in record else []
        parts += ["on networks that had learnt another product"] if "other_product" in record else []
        result, batch_size = record.get("result", {}), record.get("recipe", {}).get("batch_size")
        if "images_seen" in result and batch_size:
            steps = result["images_seen"] // batch_size
            parts.append(f"{result['images_seen'] / 1000:g} kimg ({steps:,} steps of batch {batch_size})")
        if "training_seconds" in result:
            parts.append(f"{result['training_seconds'] / 60:.0f} minutes")
        lines.append(f"{name}: {', '.join(parts)}.")
    return [*lines, f"Machine: {machine}."] if machine and lines else lines


def _checkpoint(records: Mapping[str, Any]) -> str | None:
    """Say which of a run's checkpoints its best model is; None for the last one."""
    if not records[SCORE_FILE]:
        return None
    rule = records[TRAINING_FILE].get("checkpoint_rule")
    return f"the one after {records[SCORE_FILE]['images_seen'] / 1000:g} kimg" + (f", by the {rule}" if rule else "")


class Row(NamedTuple):
    """One line of the table of measured numbers."""

    name: str
    path: str  # of the value in the metrics of results.json
    form: str = ".4f"
    metric_type: str | None = None  # its name on the Hub; None keeps it out of the card's metadata
    factor: float = 1


ROWS = (
    Row("KID x 1000, lower is closer", "kid.kid", ".2f", "kid", 1000),
    Row("KID x 1000, mean of subsets", "kid.subsets.kid", ".2f", None, 1000),
    Row("FID, lower is closer", "fid.fid", ".2f", "fid"),
    Row("Precision", "precision_recall.precision"),
    Row("Recall", "precision_recall.recall"),
    Row("Inception Score", "inception_score.mean", ".4f", "inception_score"),
    Row("Clustered LPIPS, higher is more varied", "clustered_lpips.clustered_lpips", ".4f", "lpips"),
    Row("Clustered LPIPS, clusters of 2 and more", "clustered_lpips.clustered_lpips_nonempty"),
    Row("Pairwise LPIPS", "clustered_lpips.pairwise_lpips"),
    Row("IC-LPIPS, higher is more varied", "ic_lpips.ic_lpips", ".4f", "ic_lpips"),
    Row("LPIPS to the nearest real image, median", "nearest.median"),
    Row("Share of copies of real images", "nearest.copy_rate", ".2%"),
    Row("Mask area, mean", "masks.generated.area_mean", ".2%"),
    Row("Empty masks", "masks.generated.empty_rate", ".2%"),
)


def look_up(metrics: dict[str, Any], path: str) -> float | None:
    """Return the number at a path such as "kid.kid", or None if it was not measured."""
    value = _value_at(metrics, path)
    return value if isinstance(value, (int, float)) else None


def _value_at(record: dict[str, Any], path: str) -> Any:
    value: Any = record
    for key in path.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value


def measured_with(metrics: dict[str, Any], row: Row) -> str | None:
    """Return the name of the network that a value depends on; None if there is none."""
    family = metrics.get(row.path.split(".")[0], {})
    return family.get("features") or family.get("network")


def of_kinds(results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results of each kind of defect; those of a model that was measured as one thing by the name ""."""
    return results.get("kinds") or {"": results}


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
        results: a results.json, of one kind of defect or of several.
        references: results by name of what the numbers are to be compared with.
        model_name: Hub id of the model.
        dataset_id, dataset_name: the data they were measured on; None for what the card says.

    Raises:
        CardError: a reference was measured against other photographs than the results.
    """
    for name, reference in references.items():
        if not same_photographs(results, reference):
            raise CardError(
                f'The reference "{name}" was measured against other photographs than the results: measure both '
                f"together (`dfmgan evaluate --references`), or remove it from {REFERENCES_FILE}."
            )
    data: Any = card.data
    listed = data.get("datasets")
    dataset_id = dataset_id or (listed[0] if isinstance(listed, list) and listed else listed)
    dataset_name = dataset_name or next((r.dataset_name for r in data.get("eval_results", [])), "photographs")
    entries = [
        EvalResult(
            task_type="unconditional-image-generation",
            dataset_type=dataset_id or "images",
            dataset_name=dataset_name,
            dataset_config=kind or None,
            metric_type=row.metric_type,
            metric_name=f"{row.name} ({network})" if (network := measured_with(each["metrics"], row)) else row.name,
            metric_value=round(row.factor * value, 4),
        )
        for kind, each in of_kinds(results).items()
        for row in ROWS
        if row.metric_type is not None and (value := look_up(each["metrics"], row.path)) is not None
    ]
    data.eval_results = entries or None
    data.metrics = sorted({entry.metric_type for entry in entries}) or None
    data.model_name = data.get("model_name") or model_name.split("/")[-1]
    card.text = _put_measured(card.text, measured_section(results, references))


def same_photographs(results: dict[str, Any], others: dict[str, Any]) -> bool:
    """Return whether two results were measured against the same photographs, as far as they tell."""
    every = [result for each in (results, others) for result in of_kinds(each).values()]
    hashes = {result.get("settings", {}).get("real_sha256") for result in every}
    return len(hashes - {None}) < 2


def measured_section(results: dict[str, Any], references: dict[str, dict[str, Any]]) -> str:
    """Return the numbers in Markdown: a table with a line a metric, and notes on how they were measured.

    There is a column for the model, or for each kind of defect, and for each reference. Metrics that the model has no
    value for are left out; what a kind or a reference has no value for, or has measured with another network, is "-".
    """
    kinds = of_kinds(results)
    every = {kind or "this model": each for kind, each in kinds.items()} | references
    columns = [r["metrics"] for r in every.values()]
    lines = ["| | " + " | ".join(every) + " |", "|---" * (len(columns) + 1) + "|"]
    counts = [_num_images(r.get("settings", {})) for r in every.values()]
    if all(counts):
        lines.append("| Images | " + " | ".join(f"{count:,}" for count in counts) + " |")
    for row in ROWS:
        # A kind with a single photograph has no KID, wherever it stands.
        known = [r["metrics"] for r in kinds.values() if look_up(r["metrics"], row.path) is not None]
        if known:
            network = measured_with(known[0], row)
            values = [look_up(m, row.path) if measured_with(m, row) == network else None for m in columns]
            cells = ["-" if value is None else format(row.factor * value, row.form) for value in values]
            lines.append(f"| {row.name} | " + " | ".join(cells) + " |")
    notes = [f"- {note}" for note in _measuring_notes(results, references)]
    return "\n".join([*lines, "", *notes]).strip()


def _num_images(settings: dict[str, Any]) -> int | None:
    """Return how many generated images were measured; where only LPIPS was, `num_generated` is 0."""
    return settings.get("num_generated") or settings.get("num_generated_lpips")


def _measuring_notes(results: dict[str, Any], references: dict[str, dict[str, Any]]) -> list[str]:
    """Return how the numbers were measured: counts, networks and intervals, as far as results.json tells."""
    kinds = of_kinds(results)
    settings = next(iter(kinds.values())).get("settings", {})

    def first(name: str) -> dict[str, Any]:
        """Return a metric of the first kind that has it."""
        return next((each["metrics"][name] for each in kinds.values() if name in each["metrics"]), {})

    def listed(path: str, form: Callable[[Any], str]) -> str:
        """Return the values at a path that are known, each with its kind of defect if there are several."""
        values = {kind: _value_at(each, path) for kind, each in kinds.items()}
        known = {kind: form(value) for kind, value in values.items() if value is not None}
        return ", ".join(f"{value} ({kind})" if kind else value for kind, value in known.items())

    notes = []
    if "num_generated" in settings and "num_real" in settings:
        lpips_count = settings.get("num_generated_lpips")
        notes.append(
            f"{_num_images(settings) or 0:,} generated images{f' ({lpips_count:,} for LPIPS)' if lpips_count else ''}"
            f"{' of each kind' if len(kinds) > 1 else ''} against {listed('settings.num_real', str)} real ones at "
            f"{settings['resolution'][1]}x{settings['resolution'][0]} pixels."
        )
    kid = first("kid")
    if "features" in kid:
        intervals = listed("metrics.kid.unbiased.interval", lambda i: f"{1000 * i[0]:.2f} to {1000 * i[1]:.2f}")
        notes.append(
            f"KID on the features of {kid['features']}; {kid['unbiased']['confidence']:.0%} interval {intervals}. "
            "Numbers on other features cannot be compared with it."
        )
    if any((look_up(r["metrics"], "kid.kid") or 0) < 0 for r in (*kinds.values(), *references.values())):
        notes.append(
            "The estimate of KID is unbiased: for two draws of the same kind of images it scatters around 0, and for "
            "the same images twice it lies below."
        )
    lpips = first("clustered_lpips")
    if "network" in lpips:
        empty = listed("metrics.clustered_lpips", lambda c: f"{c['num_empty']} of {c['num_clusters']}")
        notes.append(f"LPIPS with {lpips['network']}; {empty} clusters empty.")
    if medians := listed("metrics.nearest.real_median", "{:.4f}".format):
        thresholds = listed("metrics.nearest.copy_threshold", "{:.4f}".format)
        notes.append(
            f"From a real image to the nearest other one it is LPIPS {medians} (median); a generated image counts as "
            f"a copy below {thresholds}."
        )
    return notes


def _put_measured(text: str, content: str) -> str:
    """Return a card's text with `content` as its section "Measured", in the old one's place or before the limits."""
    parts = re.split(r"(?m)^(?=## )", text)
    titles = [part.splitlines()[0][3:].strip() if part.startswith("## ") else None for part in parts]
    section = f"## Measured\n\n{content}\n\n"
    if "Measured" in titles:
        parts[titles.index("Measured")] = section
    else:
        place = next((i for i, title in enumerate(titles) if title in ("Limits", "Citation")), len(parts))
        parts.insert(place, section if place < len(parts) else f"\n{section}")
    return "".join(parts).rstrip() + "\n"


def check_measured(results: dict[str, Any], model_dir: Path) -> None:
    """Raise `CardError` if numbers are not those of the model in a folder, as far as results.json tells."""
    samplers = [record.get("settings", {}).get("sampler", {}) for record in of_kinds(results).values()]
    samplers = [sampler for sampler in samplers if "weights_sha256" in sampler]
    if not samplers:
        return
    measured = {sampler["weights_sha256"] for sampler in samplers}
    is_soft = bool((read_record(model_dir / "generator" / "config.json") or {}).get("soft_gate"))
    if any(sampler.get("soft_gate", False) != is_soft for sampler in samplers):
        raise CardError(
            f"The results are not those of this model: they were measured with `soft_gate` {not is_soft} in "
            f"generator/config.json, where it is {is_soft}. {_MEASURE_AGAIN}"
        )
    tensors: dict[str, Tensor] = {}
    for path in full_precision_weights(model_dir / "generator"):
        tensors |= load_file(path)
    found = tensors_sha256(tensors)
    # Weights that were saved in half precision are measured in float32.
    full = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    if tensors and (others := measured - {found, tensors_sha256(full)}):
        raise CardError(
            "The results are not those of this model: they were measured of a generator whose tensors have the "
            f"SHA-256 {others.pop()[:12]}..., here it is {found[:12]}... {_MEASURE_AGAIN} If "
            "the model was loaded in half precision, load it in float32 (to publish half, give `variant='fp16'`)."
        )


@dataclass(frozen=True)
class CardConfig:
    """Write the model card of a trained model into its folder.

    Args:
        model: Folder that a training or save_pretrained wrote.
        results: results.json of the model's evaluation. None: the one in the model's folder.
        reference: "name=results.json" of what the numbers are to be compared with, for example real images of
            another defect; may be repeated. None: those beside the results, or given the last time.
        backbone: Folder of stage 1, for its training record.
        num_samples: Samples in the picture; 0 keeps the picture that there is.
    """

    facts: CardFacts
    model: Path
    results: Path | None = None
    reference: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    backbone: Path | None = None
    num_samples: int = 8


def make_card(config: CardConfig) -> Path:
    """Write README.md of a model's folder and return its path: what `dfmgan card` does.

    Beside it go the picture and the records that it is made of, so that it can be made again; the facts are kept as
    card_facts.json and, with the training's record, fill the gaps the next time.

    Raises:
        OSError, ValueError: the folder is no pipeline's, a record is missing or cannot be read, the results are those
            of other weights, or a reference has no name. Nothing was written.
    """
    model_dir, facts = config.model, config.facts
    records = _records_of(config)
    picture = None
    if config.num_samples:
        picture, caption = _draw_samples(config)
        facts = replace(facts, picture_caption=facts.picture_caption or caption)
    facts = facts.filled_from(read_facts(model_dir / FACTS_FILE))
    records[FACTS_FILE] = facts.known()
    card = build_model_card(
        model_dir,
        facts.filled_from(facts_from_folder(model_dir)),
        records=records,
        with_picture=picture is not None or (model_dir / SAMPLES_FILE).exists(),
    )
    for name, record in records.items():
        write_json(model_dir / name, without_local_paths(record))
    if picture is not None:
        save_sheet(picture, model_dir / SAMPLES_FILE)
    write_text(model_dir / CARD_FILE, str(card))
    print(f"Wrote {model_dir / CARD_FILE}")
    return model_dir / CARD_FILE


def _records_of(config: CardConfig) -> dict[str, Any]:
    """The records that come from elsewhere, by the name that they get in the model's folder."""
    records: dict[str, Any] = {}
    if config.backbone is not None:
        records[BACKBONE_TRAINING_FILE] = read_record(config.backbone / TRAINING_FILE)
        if records[BACKBONE_TRAINING_FILE] is None:
            raise CardError(f"{config.backbone} has no {TRAINING_FILE}; give the folder that stage 1 wrote.")
    references: dict[str, Any] | None = None
    if config.results is not None:
        records[RESULTS_FILE] = _read_results(config.results)
        references = read_record(config.results.with_name(REFERENCES_FILE))
    if config.reference:
        paths = dict(entry.partition("=")[::2] for entry in config.reference)
        if not all(name and path for name, path in paths.items()):
            raise ValueError(f"`reference` must be name=results.json, but is {', '.join(config.reference)}.")
        references = {name: _read_results(Path(path)) for name, path in paths.items()}
    if references is not None:
        records[REFERENCES_FILE] = {
            name: {key: value for key, value in record.items() if key in _OF_REFERENCES}
            for name, record in references.items()
        }
    return records


def _read_results(path: Path) -> dict[str, Any]:
    record = read_record(path)
    if record is None or not ({"metrics", "kinds"} & record.keys()):
        raise CardError(f"{path} holds no results. Expected the results.json that `dfmgan evaluate` writes.")
    return record


def _draw_samples(config: CardConfig) -> tuple[Image.Image, str]:
    if not (config.model / INDEX_FILE).is_file():
        raise CardError(f"{config.model} has no {INDEX_FILE}; give a folder that a training or save_pretrained wrote.")
    # By the base class: the pipeline imports this module, to publish itself.
    pipe: Any = DiffusionPipeline.from_pretrained(str(config.model))
    seeds = range(config.num_samples)
    output = pipe(seeds=seeds)
    columns = {"defect-free": output.defect_free_images}
    if pipe.has_defects:
        columns |= {"mask": output.masks, "defect": output.images}
    samples = list(zip(*columns.values(), strict=True))
    caption = f"Not selected: seeds {seeds[0]} to {seeds[-1]}. Nothing here is a photograph."
    return contact_sheet(samples, headings=tuple(columns), captions=output.defects or (), picture_size=128), caption
