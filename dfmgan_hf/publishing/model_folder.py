"""Which files of a model's folder are for others: the pipeline, its card and its records, nothing else."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..files import whole_folder, write_json
from ..models import DFMGANGenerator, StyleGAN2Discriminator, StyleGAN2Generator
from ..models.safetensors_only import VARIANTS, refuse_pickles
from .records import RECORD_FILES, SCORE_FILE, CardError, read_record, without_local_paths

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
