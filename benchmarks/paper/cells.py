"""What the comparisons share: published numbers, cells (method x category x defect), models, splits of photographs."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dfmgan_hf.data import DataConfig, Partition, read_file_list, read_groups
from dfmgan_hf.data.records import normalised
from dfmgan_hf.export.generate import SETTINGS_FILE
from dfmgan_hf.files import TRAINING_FILE, file_sha256, write_bytes, write_json, write_text
from dfmgan_hf.methods import METHODS
from dfmgan_hf.training.checkpointing import changed_settings


@dataclass(frozen=True)
class Published:
    """What the paper reports of one method on one defect: KID x 1000 of 5,000 images on Inception features (None where
    it is left out), and the clustered LPIPS of 1,000 images."""

    kid: float | None
    clustered_lpips: float


_TABLE_1: dict[str, tuple[tuple[float | None, ...], tuple[float, ...]]] = {
    "finetune": ((41.64, 21.80, 30.54, 28.75), (0.1541, 0.1192, 0.1263, 0.1526)),
    "diffaug": ((24.69, 19.84, 22.43, 39.03), (0.0570, 0.0456, 0.0466, 0.0604)),
    "cdc": ((206.14, 213.98, 271.72, 355.37), (0.0437, 0.0390, 0.0566, 0.0500)),
    "crop_paste": ((None, None, None, None), (0.1894, 0.2045, 0.2108, 0.2185)),
    "sdgan": ((148.86, 161.16, 152.86, 176.09), (0.1607, 0.1474, 0.1689, 0.1748)),
    "defect_gan": ((30.98, 32.69, 36.30, 33.35), (0.1905, 0.1734, 0.2007, 0.2007)),
    "dfmgan": ((19.73, 16.88, 20.78, 27.25), (0.2600, 0.2073, 0.2391, 0.2649)),
}

TABLE_1: dict[tuple[str, str, str], Published] = {
    ("hazelnut", defect, method): Published(kid, lpips)
    for method, (kids, lpips_values) in _TABLE_1.items()
    for defect, kid, lpips in zip(("crack", "cut", "hole", "print"), kids, lpips_values, strict=True)
}
"""By category, defect and name of the method."""

_TABLE_2: dict[str, tuple[float, float, float]] = {
    "finetune": (70.83, 72.91, 70.83),
    "diffaug": (64.58, 62.50, 68.75),
    "cdc": (58.33, 64.58, 41.67),
    "crop_paste": (66.67, 52.08, 58.33),
    "sdgan": (56.25, 31.25, 43.75),
    "defect_gan": (60.42, 68.75, 54.17),
    "dfmgan": (83.33, 81.25, 81.25),
}

TABLE_2: dict[tuple[str, str, str], float] = {
    ("hazelnut", f"P{number}", method): accuracy
    for method, accuracies in _TABLE_2.items()
    for number, accuracy in enumerate(accuracies, 1)
}
"""Accuracy in % on 48 photographs, by category, partition and name of the method; generated images only. Which
photographs the paper's partitions hold is not known."""

LOCALIZATION_MEASURES = ("pixel_auroc", "pixel_ap", "pixel_f1", "image_auroc", "image_ap", "image_f1")
LOCALIZATION: dict[str, tuple[float, ...]] = {
    "DFMGAN": (90.0, 62.7, 62.1, 87.2, 94.8, 94.7),
    "AnomalyDiffusion": (99.1, 81.4, 76.3, 99.2, 99.7, 98.7),
}
"""Means over MVTec AD in %, as AnomalyDiffusion (AAAI 2024) reports them of its U-Net."""

UNKNOWN_NOTE = (
    "Of unknown origin, since nothing says which photographs their generator was trained on, so that it may have seen "
    "those that are tested on: "
)
RECONSTRUCTION_NOTE = "\\* A reconstruction: filled in here where no source says how it is."
SPLITS_FOLDER = "splits"
RESULTS_FILE = "results.json"
SHEET_FILE = "samples.png"
PHOTOGRAPHS_FILE = "photographs.png"


@dataclass(frozen=True)
class Cell:
    """One method on one kind of defect; the category is "object" where the data has none."""

    category: str
    defect: str
    method: str

    def folder(self, output_dir: Path) -> Path:
        """Return where its model, results and samples are."""
        return output_dir / self.category / self.defect / self.method

    def is_done(self, output_dir: Path) -> bool:
        """Return whether its results are there."""
        return (self.folder(output_dir) / RESULTS_FILE).is_file()

    def fill(self, template: str) -> str:
        """Return a path in which {category}, {defect} and {method} stand for the cell's."""
        return template.format(category=self.category, defect=self.defect, method=self.method)


def list_cells(
    data: DataConfig, methods: Sequence[str], categories: Sequence[str], defects: Sequence[str]
) -> list[Cell]:
    """List the cells, category by category and defect by defect: without `defects` all, without `categories` the only.

    Raises:
        ValueError: no category has one of `defects`.
    """
    cells: list[Cell] = []
    known: set[str] = set()
    for category in categories or (data.category,):
        listing = replace(data, category=category).listing()
        known |= set(listing.defects)
        chosen = [defect for defect in listing.defects if not defects or defect in defects]
        name = category or listing.category or "object"
        cells += [Cell(name, defect, method) for defect in chosen for method in methods]
    missing = set(defects) - known
    if missing:
        raise ValueError(f"`defects`: there is no {', '.join(sorted(missing))}; there are {', '.join(sorted(known))}.")
    return cells


def read_results(output_dir: Path, cells: Sequence[Cell]) -> dict[Cell, dict[str, Any]]:
    """Read the results of the cells that are done."""
    return {
        cell: json.loads((cell.folder(output_dir) / RESULTS_FILE).read_text("utf-8"))
        for cell in cells
        if cell.is_done(output_dir)
    }


def trained_template(trained: Sequence[str], method: str) -> str | None:
    """Find where the trained models of a method are, or None.

    `trained` has templates of folders: METHOD=FOLDER for one method, FOLDER alone for all without one of their own.

    Raises:
        ValueError: two templates are for the same.
    """
    templates: dict[str, str] = {}
    for entry in trained:
        name, separator, folder = entry.partition("=")
        name, folder = (name, folder) if separator and name in METHODS else ("", entry)
        if name in templates:
            who = f"{METHODS[name].title} has" if name else "Methods without a folder of their own have"
            raise ValueError(f"`trained`: {who} two folders, {templates[name]} and {folder}: give one.")
        templates[name] = folder
    return templates.get(method, templates.get(""))


def check_learnt(source: Path, defect: str, template: str) -> None:
    """See that a model that is taken for several kinds of defect has learnt this one, as far as its record says.

    If the template of its folder names {defect}, the user has said which model draws what.

    Raises:
        ValueError: it was trained on others.
    """
    path = source / TRAINING_FILE
    if "{defect}" in template or not path.is_file():
        return
    learnt = json.loads(path.read_text("utf-8")).get("defect")
    if learnt is not None and defect not in normalised(learnt).split(", "):
        raise ValueError(
            f"{source} has learnt {learnt}, but is to draw {defect} too. Put {{defect}} into --trained {template}, or "
            "name a model that has learnt all of them jointly (dfmgan train defect_gan --joint)."
        )


def learnt_from(source: Path) -> list[str] | None:
    """Return the photographs that a model was trained on, or the model that drew a folder of images.

    None if there is no record of it: neither that of a training, nor that of `dfmgan generate` or `dfmgan paint` in
    the folder or one of the three above it.
    """
    places = [source / TRAINING_FILE, *(folder / SETTINGS_FILE for folder in (source, *source.absolute().parents[:3]))]
    for path in places:
        if path.is_file():
            record = json.loads(path.read_text("utf-8"))
            names: list[str] | None = record.get("training_file_names", record.get("trained_on"))
            return names
    return None


def check_held_out(source: Path, test_list: Path) -> None:
    """See that a model, or what drew a folder of images, has seen none of the photographs that a list names, as far as
    its record says.

    Raises:
        ValueError: it was trained on some of them.
    """
    seen = sorted(set(learnt_from(source) or ()) & set(read_file_list(test_list)))
    if seen:
        raise ValueError(
            f"{source} was trained on {len(seen)} of the photographs that are tested on ({seen[0]}, for one): "
            f"{test_list} has them all. Train it with --file_list on the list of the other side, which lies beside it."
        )


def hash_of_weights(source: Path) -> str | None:
    """Return what draws in a folder that training wrote, in short; None if there is nothing (yet)."""
    files = sorted((source / "generator").glob("*.safetensors"))
    text = "\n".join(f"{file.name} {file_sha256(file)}" for file in files)
    return hashlib.sha256(text.encode()).hexdigest()[:16] if files else None


def hash_of_names(file_list: Path) -> str:
    """Return what a list says, in short, so that results are known to be of other photographs."""
    return hashlib.sha256("\n".join(sorted(read_file_list(file_list))).encode()).hexdigest()[:16]


def of_category(data: DataConfig, cell: Cell) -> DataConfig:
    """Return the photographs of a cell's category; the user's own folders have no categories."""
    return data if data.data_dir is None else replace(data, category=cell.category)


def keep_lists(
    folder: Path, splits: Mapping[str, Partition], groups: Mapping[str, str]
) -> dict[str, tuple[Path, Path]]:
    """Write the lists of a category's splits, but for those that lie there: of an earlier start, or the user's own.

    Args:
        folder: of the category.
        splits: by name.
        groups: which part each photograph shows, see `unite_files`; lists that lie there have to keep to it.

    Returns:
        Of each split, the files with the names to train on and to test on.

    Raises:
        ValueError: lists that lie there have photographs of one part on both sides.
    """
    lists = {}
    for split, partition in splits.items():
        lists[split] = Partition.paths(folder / SPLITS_FOLDER, split)
        if not all(path.is_file() for path in lists[split]):
            partition.save(folder / SPLITS_FOLDER, split)
        else:
            _check_groups(lists[split], groups)
    return lists


def _check_groups(lists: tuple[Path, Path], groups: Mapping[str, str]) -> None:
    """Raise ValueError for a part on both sides; a photograph that `groups` does not have shows one of its own."""
    base, test = ({groups.get(name, name): name for name in read_file_list(path)} for path in lists)
    shared = sorted(base.keys() & test.keys())
    if shared:
        part = shared[0]
        raise ValueError(
            f"{lists[0]} and {lists[1].name} divide parts of --groups, or photographs that are listed twice "
            f"({len(shared)}; {part}, for one: {base[part]} would be trained on, {test[part]} tested on). They lie "
            "there from an earlier start, or are your own: delete both, so that they are made anew by whole parts, or "
            "name another --output_dir."
        )


def read_category_groups(template: str | None, category: str) -> dict[str, str] | None:
    """Read which part each photograph of a category shows; {category} in the path stands for it. None for no path."""
    return None if template is None else read_groups(template.format(category=category))


def check_unchanged(path: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """See that a result that lies there was measured with the settings of today.

    What `files` says of images and weights is compared where both do: an earlier version did not write it down, and
    results stay after what they came from is gone.

    Raises:
        ValueError: it was not.
    """
    known, files = old.get("files"), new.get("files", {})
    old, new = ({**old, "files": files}, new) if known is None else (old, {**new, "files": {**known, **files}})
    changes = changed_settings(old, new)
    if changes:
        raise ValueError(
            f"{path} was measured with other settings: {'; '.join(changes)}. Give those settings or another "
            "--output_dir, or delete the file to measure it again."
        )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table whose first column is text and whose others are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_files(output_dir: Path, markdown: str, rows: Sequence[dict[str, Any]], plot: Callable[[], bytes]) -> None:
    """Write table.md, table.csv and table.json of the same rows, and table.png, which `plot` draws.

    Without matplotlib there is no figure, which a warning says.
    """
    write_text(output_dir / "table.md", markdown)
    write_json(output_dir / "table.json", list(rows))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(output_dir / "table.csv", stream.getvalue())
    try:
        write_bytes(output_dir / "table.png", plot())
    except ImportError as error:
        warnings.warn(f"No figure was drawn: {error}. `pip install dfmgan-hf[benchmarks]`.", stacklevel=2)
