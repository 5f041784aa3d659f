"""Subsets of a data set: k shots, the paper's 1/3 and 2/3 partitions, and file lists that fix either."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .errors import DataError
from .records import GOOD, ImageRecord, shorten


def shuffled(records: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    """The records in an order that depends on their names and the seed alone, not on the order given."""
    ordered = sorted(records, key=lambda record: record.name)
    random.Random(seed).shuffle(ordered)
    return ordered


def read_file_list(path: Path | str) -> list[str]:
    """Reads names of files, one a line; empty lines and lines that begin with `#` are skipped.

    Raises:
        DataError: (`file_list`) if there is no such file, or no name in it.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    names = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if not names:
        raise DataError(
            "file_list",
            path,
            found="no names" if path.is_file() else "there is no such file",
            expected="a text file with one name a line, such as test/crack/000.png",
            advice="Write one with save_file_list, or by hand.",
        )
    return names


def select_listed(
    candidates: Sequence[ImageRecord], known: Iterable[ImageRecord], names: Sequence[str], source: Path | str
) -> list[ImageRecord]:
    """The candidates that are listed, in the candidates' order.

    Args:
        candidates: Records of one kind.
        known: All records of the data set; a list may name several kinds.
        names: Content of the file list.
        source: The file list, named in errors.

    Raises:
        DataError: (`file_list`) if a name is listed that no record has, or if no candidate is listed.
    """
    listed = set(names)
    unknown = sorted(listed - {record.name for record in known})
    selected = [record for record in candidates if record.name in listed]
    if unknown or not selected:
        raise DataError(
            "file_list",
            source,
            found=f"{len(unknown)} names that are not in the data set ({shorten(unknown, 3)})"
            if unknown
            else f"{len(listed)} names, none of them among the {len(candidates)} photographs asked for",
            expected=f"names such as {candidates[0].name}",
            advice="Give the list that was written for this data set and this kind of defect.",
        )
    return selected


def save_file_list(path: Path | str, names: Iterable[str], comment: str | None = None) -> Path:
    """Writes names of files, one a line, in such a way that the file is whole or absent.

    Args:
        path: Text file; its folder is made if need be.
        names: Names as in `ImageMaskDataset.file_names`.
        comment: Written above them, after `#`.

    Returns:
        The path.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    header = [f"# {line}" for line in (comment or "").splitlines()]
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    aside.write_text("\n".join([*header, *names]) + "\n", encoding="utf-8")
    os.replace(aside, path)
    return path


@dataclass(frozen=True)
class Partition:
    """One division of the defect photographs of a category (paper, section 4.3).

    Attributes:
        base: Names of one third of each kind of defect, rounded down: what a generator is trained on.
        test: Names of the rest: what a classifier is tested on.
    """

    base: tuple[str, ...]
    test: tuple[str, ...]

    @staticmethod
    def paths(folder: Path | str, index: int | str) -> tuple[Path, Path]:
        """`partition_<index>_base.txt` and `partition_<index>_test.txt`; the index is a number or a name."""
        return Path(folder) / f"partition_{index}_base.txt", Path(folder) / f"partition_{index}_test.txt"

    def save(self, folder: Path | str, index: int | str) -> tuple[Path, Path]:
        """Writes both lists to `paths`."""
        base, test = self.paths(folder, index)
        return (
            save_file_list(base, self.base, "one third of each kind of defect"),
            save_file_list(test, self.test, "two thirds of each kind of defect"),
        )

    @classmethod
    def load(cls, folder: Path | str, index: int | str) -> Partition:
        """Reads what `save` wrote.

        Raises:
            DataError: (`file_list`) if one of the files is missing or empty.
        """
        base, test = (read_file_list(path) for path in cls.paths(folder, index))
        return cls(tuple(base), tuple(test))


def make_partitions(records: Iterable[ImageRecord], count: int = 3, seed: int = 0) -> list[Partition]:
    """Divides defect photographs at random into 1/3 (rounded down) and 2/3 of each kind, `count` times.

    The division of a kind depends on its own file names, the seed and the partition's number alone.

    Args:
        records: Photographs of one category; the defect-free ones are left aside.
        count: Number of independent divisions; the paper uses three.
        seed: Seed of the first; the next have `seed + 1`, ...

    Raises:
        ValueError: if a kind has fewer than three photographs, since its base set would be empty.
    """
    kinds = _by_kind(records)
    partitions = []
    for index in range(count):
        base: list[str] = []
        test: list[str] = []
        for _, members in sorted(kinds.items()):
            names = [record.name for record in shuffled(members, seed + index)]
            third = len(names) // 3
            base += sorted(names[:third])
            test += sorted(names[third:])
        partitions.append(Partition(tuple(base), tuple(test)))
    return partitions


def first_third_partition(records: Iterable[ImageRecord]) -> Partition:
    """The division that AnomalyDiffusion and its successors test localisation on: nothing about it is random.

    Args:
        records: Photographs of one category; the defect-free ones are left aside.

    Returns:
        The first third (rounded down) of each kind of defect in the order of the names, and the rest.

    Raises:
        ValueError: if a kind has fewer than three photographs, since its base set would be empty.
    """
    base: list[str] = []
    test: list[str] = []
    for members in _by_kind(records).values():
        names = sorted(record.name for record in members)
        third = len(names) // 3
        base += names[:third]
        test += names[third:]
    return Partition(tuple(sorted(base)), tuple(sorted(test)))


def _by_kind(records: Iterable[ImageRecord]) -> dict[str, list[ImageRecord]]:
    """Photographs of each kind of defect, at least three."""
    kinds: dict[str, list[ImageRecord]] = {}
    for record in records:
        if record.defect != GOOD:
            kinds.setdefault(record.defect, []).append(record)
    for kind, members in kinds.items():
        if len(members) < 3:
            raise ValueError(
                f"'{kind}' has {len(members)} photographs; a partition into 1/3 and 2/3 needs at least 3."
            )
    return kinds
