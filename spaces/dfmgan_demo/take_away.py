"""What is taken home: ZIP files in the layouts that `dfmgan_hf.export` writes, and what each file says of itself."""

from __future__ import annotations

import io
import json
import re
import tempfile
import zipfile
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from card import Facts
from catalog import Model
from drawing import Drawer, Recipe, Triplet, at_strength
from pictures import png
from PIL import Image

from dfmgan_hf import __version__
from dfmgan_hf.export import ExportConfig, ExportFormat, Sample, make_writer
from dfmgan_hf.export.writers import SETTINGS_FILE, Record
from dfmgan_hf.files import write_json

NAMES = {
    "mvtec": ("MVTec AD", "test/defect with ground_truth, twins in test/good"),
    "anomalib": ("anomalib", "folders that its Folder loader reads"),
    "imagefolder": ("Image folder", "images, masks, twins and metadata.csv, as load_dataset reads it"),
    "coco": ("COCO", "images and one JSON file of outlines"),
    "yolo": ("YOLO", "images and a text file of outlines for each"),
    "parquet": ("Parquet", "one table that holds the pictures too, as the Hub shows it"),
}
LAYOUTS: dict[str, ExportFormat] = {name: format for format, (name, _) in NAMES.items()}
LAYOUTS_IN_WORDS = dict(NAMES.values())
# A model that rarely draws a defect at the chosen threshold must not be asked for ever.
MAX_DRAWS_PER_IMAGE = 40


def export_config(
    model: Model, count: int, layout: str, seed: int, truncation_psi: float, mask_threshold: float
) -> ExportConfig:
    """What `examples/generate.py` would be given for the same files."""
    return ExportConfig(
        output_dir=Path(folder_name(model.name)),
        num_images=count,
        format=LAYOUTS[layout],
        seed=seed,
        batch_size=1,
        truncation_psi=truncation_psi,
        mask_threshold=mask_threshold,
        max_attempts=MAX_DRAWS_PER_IMAGE,
        category=folder_name(model.name),
        defect=model.defect or "defect",
    )


def write_archive(
    path: Path, drawer: Drawer, model: str, config: ExportConfig, facts: Facts, strength: float = 1.0
) -> Generator[int, None, None]:
    """Write new triplets that have a defect to a ZIP file, and yield how many are drawn so far.

    Args:
        path: file to write. It appears when it is whole; an iterator that fails or is closed leaves nothing behind.
        drawer: draws.
        model: name in the catalog.
        config: what to draw and how to lay it out; its folder is the one inside the ZIP.
        facts: of the model, for the README.
        strength: of the defects.

    Raises:
        gr.Error: the model draws no defect at this threshold.
    """
    settings = {name: getattr(config, name) for name in ("seed", "truncation_psi", "mask_threshold", "num_images")}
    with closing(drawer.samples(model, config)) as samples:
        settings["strength"] = strength
        origin = {"model": model, "model_sha256": facts.sha256, **settings}
        yield from _archive(
            path,
            (_at_strength(sample, strength) for sample in samples),
            config,
            readme(model, facts, settings),
            origin,
        )


def write_shown(
    path: Path, model: Model, recipe: Recipe, triplets: Sequence[Triplet], layout: str, facts: Facts
) -> None:
    """Write exactly these triplets to a ZIP file, those without a defect too, and say in it what they were drawn from.

    Args:
        path: file to write.
        model: the recipe's.
        recipe, triplets: what was drawn.
        layout: name of one of `LAYOUTS`.
        facts: of the model.
    """
    config = export_config(model, len(triplets), layout, 0, recipe.truncation_psi, recipe.mask_threshold)
    samples = (_sample(i, recipe, triplet, facts) for i, triplet in enumerate(triplets))
    settings = {name: getattr(recipe, name) for name in ("truncation_psi", "mask_threshold", "strength")}
    rows = [
        f"| {i:06d} | {triplet.part_seed} | {triplet.defect_seed} | {triplet.defect_percent:.2f} % |"
        for i, triplet in enumerate(triplets)
    ]
    table = "\n".join(["| file | seed of the part | seed of the defect | defect |", "|---|---|---|---|", *rows])
    # File i is of entry i of both lists. No one number stands for all of them, but YOLO's writer asks for it.
    seeds = {"seed": None, "part_seeds": recipe.part_seeds, "defect_seeds": recipe.defect_seeds}
    origin = {"model": recipe.model, "model_sha256": facts.sha256, **seeds, **settings}
    text = f"{readme(recipe.model, facts, settings)}\n{table}\n"
    deque(_archive(path, samples, config, text, origin), maxlen=0)


def readme(model: str, facts: Facts, settings: dict[str, float]) -> str:
    """What a person finds beside the pictures, years later."""
    shows = f" It draws {facts.shows}." if facts.shows else ""
    trained = f" (of the photographs that it was trained on: {facts.note})" if facts.note else ""
    how = "\n".join(f"- {name}: {value}" for name, value in settings.items())
    return (
        f"# Generated pictures: {model}\n\n"
        "Nothing here is a photograph: image, mask and defect-free twin were drawn by a model of DFMGAN "
        f"(https://arxiv.org/abs/2303.02389) with {software()}.{shows}\n\n"
        f"Licence of the model: {facts.license or 'not known'}{trained}.\n\n"
        f"Drawn with:\n\n{how}\n"
    )


def about_picture(recipe: Recipe, triplet: Triplet, license: str) -> dict[str, str]:
    """What a single picture's file says of itself."""
    return {
        "Title": "Generated, not a photograph",
        "Software": software(),
        "Model": recipe.model,
        "License": license or "not known",
        "Settings": json.dumps(
            {
                "part_seed": triplet.part_seed,
                "defect_seed": triplet.defect_seed,
                "truncation_psi": recipe.truncation_psi,
                "mask_threshold": recipe.mask_threshold,
                "strength": recipe.strength,
            }
        ),
    }


def file_names(model: str, triplet: Triplet) -> dict[str, str]:
    """How the three pictures of a triplet are called, by kind."""
    stem = f"{folder_name(model)}_part_{triplet.part_seed}_defect_{triplet.defect_seed}"
    return {"image": f"{stem}.png", "mask": f"{stem}_mask.png", "defect_free": f"{stem}_without.png"}


def folder_name(model: str) -> str:
    """The model's name as a folder name: lower case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", model.lower()).strip("_") or "model"


def software() -> str:
    """The package and its version."""
    return f"dfmgan-hf {__version__}"


def _sample(i: int, recipe: Recipe, triplet: Triplet, facts: Facts) -> Sample:
    # A seed in the table draws the image again; where part and defect have one each, no single seed does.
    seed = triplet.part_seed if triplet.part_seed == triplet.defect_seed else None
    record = Record(i, seed, triplet.defect_percent / 100)
    about = about_picture(recipe, triplet, facts.license)
    pictures = {kind: png(getattr(triplet, kind), about) for kind in ("mask", "defect_free")}
    # The record by which the writers know their own files.
    image = png(triplet.image, {**about, "dfmgan_hf": json.dumps(asdict(record))})
    return Sample(record, image, **pictures)


def _at_strength(sample: Sample, strength: float) -> Sample:
    if strength == 1:
        return sample
    with Image.open(io.BytesIO(sample.defect_free)) as twin, Image.open(io.BytesIO(sample.image)) as image:
        return replace(sample, image=png(at_strength(twin, image, strength), image.info))


def _archive(
    path: Path, samples: Iterable[Sample], config: ExportConfig, text: str, origin: dict[str, Any]
) -> Generator[int, None, None]:
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        folder = Path(scratch) / config.output_dir
        # Some layouts say in files of their own what drew them.
        write_json(folder / SETTINGS_FILE, {**origin, "dfmgan-hf": __version__})
        writer = make_writer(replace(config, output_dir=folder))
        with closing(writer.write(samples)) as records:
            for done, _ in enumerate(records, start=1):
                yield done
        deque(writer.finish(), maxlen=0)
        (folder / "README.md").write_text(text, encoding="utf-8")
        aside = Path(scratch) / "whole.zip"
        _zip(folder, aside)
        aside.replace(path)


def _zip(folder: Path, path: Path) -> None:
    # PNG is compressed already, so nothing is deflated. A fixed date: the same request gives the same bytes.
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = file.relative_to(folder.parent).as_posix()
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), file.read_bytes())
