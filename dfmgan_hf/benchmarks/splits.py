"""Lists of the photographs to train on and to test on, kept beside the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..data import DataConfig, Partition, make_partitions, read_groups

SPLITS_FOLDER = "splits"


def keep_lists(folder: Path, splits: Mapping[str, Partition]) -> dict[str, tuple[Path, Path]]:
    """Write the lists of splits, but for those that lie there already: of an earlier start, or the user's own.

    Args:
        folder: of a category.
        splits: by name.

    Returns:
        Of each split, the files with the names to train on and to test on.
    """
    lists = {}
    for split, partition in splits.items():
        lists[split] = Partition.paths(folder / SPLITS_FOLDER, split)
        if not all(path.is_file() for path in lists[split]):
            partition.save(folder / SPLITS_FOLDER, split)
    return lists


def split_by_groups(
    folder: Path, data: DataConfig, defects: Sequence[str], groups: Mapping[str, str]
) -> tuple[Path, Path]:
    """A third of each kind of defect to train on and the rest to test on, as P1 of Table 2; whole parts on one side.

    Good photographs of parts that are tested on are not trained on either.

    Args:
        folder: of the category, for the lists.
        data: photographs of the category.
        defects: kinds to divide.
        groups: which part each photograph shows; a good one that is not in it shows a part of its own.

    Returns:
        The files with the names to train on and to test on.

    Raises:
        ValueError: see `make_partitions`; every good photograph shows a part that is tested on.
    """
    listing = data.listing()
    (partition,) = make_partitions([r for r in listing.records if r.defect in defects], 1, seed=1, groups=groups)
    good = [record.name for record in listing.select(None, "train")]
    kept = [good[index] for index in of_other_parts(good, partition.test, groups)]
    return keep_lists(folder, {"P1": Partition((*partition.base, *kept), partition.test)})["P1"]


def of_other_parts(names: Sequence[str], tested: Sequence[str], groups: Mapping[str, str] | None) -> list[int]:
    """Numbers of the `names` that show a part that none of `tested` shows; of all of them without groups.

    Raises:
        ValueError: there are none.
    """
    if groups is None:
        return list(range(len(names)))
    parts = {groups.get(name, name) for name in tested}
    kept = [index for index, name in enumerate(names) if groups.get(name, name) not in parts]
    if not kept:
        raise ValueError(f"All {len(names)} good photographs to train on show parts that are tested on.")
    return kept


def read_category_groups(template: str | None, category: str) -> dict[str, str] | None:
    """Which part each photograph of a category shows; {category} in the path stands for it. None for no path.

    Raises:
        DataError: see `read_groups`.
    """
    return None if template is None else read_groups(template.format(category=category))
