"""The cells of a comparison, methods x categories x defects, and which of them this job does."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from ..data import DataConfig, read_file_list
from ..methods.registry import METHODS
from ..training.run import CONFIG_FILE

Part = TypeVar("Part")
RESULTS_FILE = "results.json"
SHEET_FILE = "samples.png"
PHOTOGRAPHS_FILE = "photographs.png"


@dataclass(frozen=True)
class Cell:
    """One method on one kind of defect.

    Args:
        category, defect, method: names; the category is "object" where the data has none.
    """

    category: str
    defect: str
    method: str

    def folder(self, output_dir: Path) -> Path:
        """Where its model, results and samples are."""
        return output_dir / self.category / self.defect / self.method

    def is_done(self, output_dir: Path) -> bool:
        """Whether it has been measured."""
        return (self.folder(output_dir) / RESULTS_FILE).is_file()

    def fill(self, template: str) -> str:
        """A path in which {category}, {defect} and {method} stand for the cell's."""
        return template.format(category=self.category, defect=self.defect, method=self.method)


def list_cells(
    data: DataConfig, methods: Sequence[str], categories: Sequence[str], defects: Sequence[str]
) -> list[Cell]:
    """All cells, category by category and defect by defect.

    Args:
        data: the photographs.
        methods: names.
        categories: names; empty for the only one.
        defects: kinds to take where a category has them; empty for all.

    Raises:
        DataError: see `find_listing`.
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
    """Results of the cells that are done."""
    return {
        cell: json.loads((cell.folder(output_dir) / RESULTS_FILE).read_text())
        for cell in cells
        if cell.is_done(output_dir)
    }


def share(cells: Sequence[Part], part: str) -> list[Part]:
    """The cells of one job of an array: every n-th, so that each job gets of all methods.

    Args:
        cells: all.
        part: "i/n", from 1/n to n/n.

    Raises:
        ValueError: `part` is not of this form.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", part)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise ValueError(f"`cells` must be i/n with i from 1 to n, such as 1/4, but is {part!r}.")
    return list(cells[int(match[1]) - 1 :: int(match[2])])


def trained_template(trained: Sequence[str], method: str) -> str | None:
    """Where the trained models of a method are.

    Args:
        trained: templates of folders: METHOD=FOLDER for one method, FOLDER alone for all without one of their own.
        method: its name.

    Returns:
        The template, or None if there is none.

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
    """See that a model that is taken for several kinds of defect has learnt this one.

    Args:
        source: folder that training wrote; without a record nothing is known.
        defect: what it is to draw.
        template: what names the folder; if it names {defect}, the user has said which model draws what.

    Raises:
        ValueError: it was trained on others.
    """
    path = source / CONFIG_FILE
    if "{defect}" in template or not path.is_file():
        return
    learnt = json.loads(path.read_text()).get("defect")
    if learnt is not None and defect not in learnt.split(", "):
        raise ValueError(
            f"{source} has learnt {learnt}, but is to draw {defect} too. Put {{defect}} into --trained {template}, or "
            "name a model that has learnt all of them jointly (train_baseline.py --method defect_gan --joint)."
        )


def check_held_out(source: Path, test_list: Path) -> None:
    """See that a model has seen none of the photographs that its images are measured against.

    Args:
        source: folder that training wrote; without a record nothing is known.
        test_list: file with the names of those photographs.

    Raises:
        DataError: see `read_file_list`.
        ValueError: it was trained on some of them.
    """
    path = source / CONFIG_FILE
    record = json.loads(path.read_text()) if path.is_file() else {}
    seen = sorted(set(record.get("training_file_names", ())) & set(read_file_list(test_list)))
    if seen:
        raise ValueError(
            f"{source} was trained on {len(seen)} of the photographs that are tested on ({seen[0]}, for one): "
            f"{test_list} has them all. Train it with --file_list on the list of the other side, which lies beside it."
        )


def hash_of_names(file_list: Path) -> str:
    """What a list says, in short, so that results are known to be of other photographs.

    Raises:
        DataError: see `read_file_list`.
    """
    return hashlib.sha256("\n".join(sorted(read_file_list(file_list))).encode()).hexdigest()[:16]


def of_category(data: DataConfig, cell: Cell) -> DataConfig:
    """The photographs of a cell's category; one's own folders have no categories."""
    return data if data.data_dir is None else replace(data, category=cell.category)
