"""Subsets of a data set: k shots, the paper's 1/3 and 2/3 partitions, and file lists that fix either."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from pathlib import Path

from .errors import DataError
from .records import ImageRecord


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


def select_listed(records: Iterable[ImageRecord], names: Sequence[str], source: Path | str) -> list[ImageRecord]:
    """The records that are listed, in the records' order.

    Raises:
        DataError: (`file_list`) if a name is listed that no record has.
    """
    by_name = {record.name: record for record in records}
    unknown = [name for name in names if name not in by_name]
    if unknown:
        raise DataError(
            "file_list",
            source,
            found=f"{len(unknown)} names that are not in the data set, the first of them {unknown[0]}",
            expected=f"names such as {next(iter(by_name), 'test/crack/000.png')}",
            advice="Give the list that was written for this data set and this kind of defect.",
        )
    listed = set(names)
    return [record for record in by_name.values() if record.name in listed]
