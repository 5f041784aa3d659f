"""ZIP files of drawn pictures, in the layouts that `dfmgan_hf.export` writes."""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections import deque
from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from drawing import Drawer

from dfmgan_hf.export import ExportConfig, ExportFormat, make_writer

LAYOUTS: dict[str, ExportFormat] = {"MVTec AD": "mvtec", "Image folder": "imagefolder", "Parquet": "parquet"}
LAYOUTS_IN_WORDS = {
    "MVTec AD": "test/good, test/defect and ground_truth/defect, as anomalib reads it",
    "Image folder": "images, masks and metadata.csv, as load_dataset reads it",
    "Parquet": "one table that holds the pictures too, as the Hub shows it",
}
# A model that rarely draws a defect at the chosen threshold must not be asked for ever.
MAX_DRAWS_PER_IMAGE = 40


def export_config(
    model: str, count: int, layout: str, seed: int, truncation_psi: float, mask_threshold: float
) -> ExportConfig:
    """What `examples/generate.py` would be given for the same files."""
    return ExportConfig(
        output_dir=Path(folder_name(model)),
        num_images=count,
        format=LAYOUTS[layout],
        seed=seed,
        batch_size=1,
        truncation_psi=truncation_psi,
        mask_threshold=mask_threshold,
        max_attempts=MAX_DRAWS_PER_IMAGE,
        category=folder_name(model),
    )


def write_archive(path: Path, drawer: Drawer, model: str, config: ExportConfig) -> Generator[int, None, None]:
    """Write triplets that have a defect to a ZIP file, and yield how many are drawn so far.

    Args:
        path: file to write. It appears when it is whole; an iterator that fails or is closed leaves nothing behind.
        drawer: draws.
        model: name in the catalog.
        config: what to draw and how to lay it out; its folder is the one inside the ZIP.

    Raises:
        gr.Error: the model draws no defect at this threshold.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        folder = Path(scratch) / config.output_dir
        written = replace(config, output_dir=folder)
        writer = make_writer(written)
        with closing(drawer.samples(model, written)) as samples, closing(writer.write(samples)) as records:
            for done, _ in enumerate(records, start=1):
                yield done
        deque(writer.finish(), maxlen=0)
        aside = Path(scratch) / "whole.zip"
        _zip(folder, aside)
        aside.replace(path)


def folder_name(model: str) -> str:
    """The model's name as a folder name: lower case letters, digits and underscores."""
    return re.sub(r"[^a-z0-9]+", "_", model.lower()).strip("_") or "model"


def _zip(folder: Path, path: Path) -> None:
    # PNG is compressed already, so nothing is deflated. A fixed date: the same request gives the same bytes.
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                name = file.relative_to(folder.parent).as_posix()
                archive.writestr(zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0)), file.read_bytes())
