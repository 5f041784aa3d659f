"""Subsets of a data set: k shots, partitions into what is trained on and tested on, and file lists that fix either."""

from __future__ import annotations

import random
import sys
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import numpy as np
import tyro

from ..arguments import check_effect
from ..files import lock_folder, write_text
from .duplicates import find_duplicates, group_duplicates
from .preparation import Fit, Inspection, Size, inspect_all
from .records import GOOD, WHERE_GOOD, DataError, ImageRecord, Listing, normalised, read_csv, shorten
from .sources import DataSource, find_listing


def shuffled(records: Sequence[ImageRecord], seed: int) -> list[ImageRecord]:
    """Shuffle records in a way that depends on their names and the seed alone, not on the order given."""
    ordered = sorted(records, key=lambda record: record.name)
    random.Random(seed).shuffle(ordered)
    return ordered


def read_file_list(path: Path | str) -> list[str]:
    """Read names of files, one a line, perhaps after `./`; empty lines and those that begin with `#` are skipped.

    Raises:
        DataError: (`file_list`) if there is no such file, no name in it, or if it is no text.
    """
    names: list[str] = []
    found, advice = "no names", "Write one with save_file_list, or by hand."
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
        lines = [line.strip() for line in lines]
        names = [normalised(line.removeprefix("./")) for line in lines if line and not line.startswith("#")]
    except OSError as error:
        found = error.strerror or str(error)
    except UnicodeDecodeError as error:
        found, advice = f"what is no text in UTF-8 ({error})", "Save it as UTF-8."
    if not names:
        expected = "a text file with one name a line, such as test/crack/000.png"
        raise DataError("file_list", path, found, expected, advice)
    return names


def select_listed(
    candidates: Sequence[ImageRecord], known: Sequence[ImageRecord], path: Path | str, *, must_name: bool = False
) -> list[ImageRecord]:
    """Return the candidates that a list names, in the candidates' order; it may name others that are known.

    A list that names defects alone, such as that of a partition, does not restrict good photographs.

    Args:
        candidates: Photographs to choose from.
        known: All photographs of the data set.
        path: The list.
        must_name: Also refuse a list that names no photograph of a set without defects.

    Raises:
        DataError: (`file_list`) as `read_file_list`; if a name is listed that no record has, or if no candidate is.
    """
    listed = set(read_file_list(path))
    names_good = any(record.defect == GOOD and record.name in listed for record in known)
    unknown = sorted(listed - {record.name for record in known})
    # Beside good photographs alone, the defects of a partition are unknown. Any other name is one that went wrong.
    is_of_defects = all(name.startswith(("train/", "test/")) and f"/{GOOD}/" not in name for name in unknown)
    only_good = all(record.defect == GOOD for record in candidates)
    selected = [r for r in candidates if r.name in listed or (r.defect == GOOD and not names_good)]
    if only_good and is_of_defects and selected and not must_name:
        return selected
    if unknown or not selected:
        raise DataError(
            "file_list",
            path,
            found=f"{len(unknown)} names that are not in the data set ({shorten(unknown, 3)})"
            if unknown
            else f"{len(listed)} names, none of them among the {len(candidates)} photographs asked for",
            expected=f"names such as {candidates[0].name}",
            advice="Give the list that was written for this data set and this kind of defect.",
        )
    return selected


def save_file_list(path: Path | str, names: Iterable[str], comment: str | None = None) -> Path:
    """Write names as in `ImageMaskDataset.file_names`, one a line, below a comment; return the path."""
    header = [f"# {line}" for line in (comment or "").splitlines()]
    # By itself, `#2.png` would be read as a comment, and ` 2.png` without its space.
    lines = [f"./{name}" if name.startswith(("#", "./")) or name[:1].isspace() else name for name in names]
    write_text(path, "\n".join([*header, *lines]) + "\n")
    return Path(path)


@dataclass(frozen=True)
class Partition:
    """One division of the defect photographs of a category (paper, section 4.3).

    Attributes:
        base: Names of one third of each kind of defect, rounded down: what a generator is trained on.
        test: Names of the rest: what a classifier is tested on.

    Either may name good photographs, too: then these, and no others, are for that side.
    """

    base: tuple[str, ...]
    test: tuple[str, ...]

    @staticmethod
    def paths(folder: Path | str, index: int | str) -> tuple[Path, Path]:
        """Return `partition_<index>_base.txt` and `partition_<index>_test.txt`; the index is a number or a name."""
        return Path(folder) / f"partition_{index}_base.txt", Path(folder) / f"partition_{index}_test.txt"

    def save(self, folder: Path | str, index: int | str) -> tuple[Path, Path]:
        """Write both lists to `paths`; stopped in between, it leaves no list to test on, and no other base's."""
        base, test = self.paths(folder, index)
        test.unlink(missing_ok=True)
        return (
            save_file_list(base, self.base, "to train on: one third of each kind of defect"),
            save_file_list(test, self.test, "to test on: two thirds of each kind of defect"),
        )

    @classmethod
    def load(cls, folder: Path | str, index: int | str) -> Partition:
        """Read what `save` wrote.

        Raises:
            DataError: (`file_list`) if one of the files is missing or empty.
        """
        base, test = (read_file_list(path) for path in cls.paths(folder, index))
        return cls(tuple(base), tuple(test))


def read_groups(path: Path | str, names: Iterable[str] = ()) -> dict[str, str]:
    """Read which photographs show the same part, from a CSV file with the columns file and group.

    Args:
        path: Of the file.
        names: Photographs that must have a line. Without it, each would count as a part of its own, and nothing would
            keep it apart from others of its part.

    Returns:
        What the part is called, by the photograph's name, such as test/crack/000.png.

    Raises:
        DataError: (`groups`) if there is no such file, or it has not these columns, or not one group for each file,
            or no line for one of `names`.
    """
    groups: dict[str, str] = {}
    try:
        rows = read_csv(path)
        if not rows or not {"file", "group"} <= rows[0].keys():
            raise ValueError(f"the columns {', '.join(rows[0])}" if rows else "no lines")
        for row in rows:
            name, group = normalised(row["file"]), row["group"].strip()
            if not name or not group:
                raise ValueError(f"a line of file {name!r} and group {group!r}")
            if groups.setdefault(name, group) != group:
                raise ValueError(f"{name} in the groups {groups[name]!r} and {group!r}")
        unknown = [name for name in names if name not in groups]
        if unknown:
            raise ValueError(f"no line for {len(unknown)} photographs ({shorten(unknown, 3)})")
        return groups
    except OSError as error:
        found = error.strerror or str(error)
    except ValueError as error:
        found = str(error)
    raise DataError(
        "groups",
        path,
        found=found,
        expected="a CSV file with the columns file and group, and one group for each file",
        advice="Write a line for each photograph, such as test/crack/000.png,part_17.",
    )


def make_partitions(
    records: Iterable[ImageRecord], count: int = 3, seed: int = 0, groups: Mapping[str, str] | None = None
) -> list[Partition]:
    """Divide defect photographs at random into 1/3 (rounded down) and 2/3 of each kind, `count` times.

    The division of a kind depends on its own file names, the seed and the partition's number alone, but for groups
    and photographs that other kinds share: a photograph lies on one side, whichever kinds it is listed under.

    Args:
        records: Photographs of one category; the defect-free ones are left aside.
        count: Number of independent divisions; the paper uses three.
        seed: Seed of the first; the next have `seed + 1`, ...
        groups: Which part each photograph shows, by name. Photographs of one part, of any kind of defect, then lie on
            the same side, so that the test set has no part that was trained on; the base set can be smaller than 1/3.

    Raises:
        ValueError: if a kind has fewer than three photographs, or its groups leave one side empty; if a photograph has
            no group.
    """
    kinds = _by_kind(records)
    parts = _parts_of(kinds, groups)
    return [_divide(kinds, parts, seed + index) for index in range(count)]


def first_third_partition(records: Iterable[ImageRecord], groups: Mapping[str, str] | None = None) -> Partition:
    """Make the division that AnomalyDiffusion and its successors test localisation on: nothing about it is random.

    The base set is the first third (rounded down) of each kind of defect in the order of the names. Arguments and
    errors are those of `make_partitions`; their protocol has no groups.
    """
    kinds = _by_kind(records)
    return _divide(kinds, _parts_of(kinds, groups), seed=None)


def unite_files(records: Iterable[ImageRecord], groups: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the part that each photograph shows, by name: as `groups` says, and of all names of a file the same.

    Labels list a photograph under each kind of defect that it shows, so that one file has several names. A photograph
    that `groups` does not have shows a part of its own.
    """
    records = sorted(records, key=lambda record: record.name)  # what a part is called must not depend on the order
    parts = {record.name: (groups or {}).get(record.name, record.name) for record in records}
    joined = {part: part for part in parts.values()}

    def whole(part: str) -> str:
        while joined[part] != part:
            part = joined[part]
        return part

    of_file: dict[Path, str] = {}
    for record in records:
        joined[whole(parts[record.name])] = whole(of_file.setdefault(record.image_path, parts[record.name]))
    return {name: whole(part) for name, part in parts.items()}


def unite_kinds(records: Iterable[ImageRecord]) -> list[ImageRecord]:
    """Make one record of those of one file, with the masks of all: the name and kind are those of the first.

    In the mask of one kind alone, the other defects of a photograph would count as background.
    """
    found: dict[Path, ImageRecord] = {}
    for record in records:
        before = found.get(record.image_path)
        more = () if before is None else (*before.more_masks, *record.masks)
        found[record.image_path] = record if before is None else replace(before, more_masks=more)
    return list(found.values())


@dataclass(frozen=True)
class SplitConfig(DataSource):
    """Divide a data set, before anything is trained, into what to train on and what to test on, and keep the lists.

    Attributes:
        output_dir: Folder for partition_P1_base.txt, for --file_list of training, and partition_P1_test.txt, for that
            of evaluation. Lists that lie there are kept: a second division would test on what was trained on.
        groups: CSV file with the columns file and group, which says what shows the same part; each photograph of a
            defect needs a line. None compares the photographs, as `dfmgan check` does.
        seed: Seed of the division.
        defect: What to call the kind of defect in `defect_dir`, as in training; None: like the folder.
    """

    data_dir: Annotated[Path | None, tyro.conf.Positional] = None
    output_dir: Path = field(kw_only=True)
    groups: Path | None = None
    seed: int = 1
    defect: str | None = None

    def __post_init__(self) -> None:
        if self.defect_dir is None:
            check_effect(self, ["defect"], "`defect_dir`")


def split_dataset(config: SplitConfig) -> Partition:
    """Divide a data set by parts, write both lists, and print what they hold; see `split_by_parts`.

    Raises:
        FileExistsError: there are lists in the folder.
        DataError: as `find_listing`; or the first thing that is wrong with a photograph, unless `skip_bad_files`.
        ValueError: there is nothing to divide, or too few parts.
    """
    listing = find_listing(config, config.defect)
    found = inspect_all(listing.records, config.bit_depth)
    if config.skip_bad_files:
        found = _without_bad(found, {GOOD, *listing.defects})
        listing.records = [each.record for each in found]
    for each in found:  # lists are kept, so that they must not name what cannot be trained on
        if each.errors:
            raise each.errors[0]
    if config.groups:
        groups = read_groups(config.groups, [record.name for record in listing.records if record.defect != GOOD])
    else:
        groups = _parts_among(found)
    partition = split_by_parts(listing, groups, seed=config.seed)
    with lock_folder(config.output_dir):
        for path in Partition.paths(config.output_dir, "P1"):
            if path.exists():
                raise FileExistsError(f"{path} is there already and is kept. Use it, or name another --output_dir.")
        written = partition.save(config.output_dir, "P1")
    print(listing.account(), file=sys.stderr)
    for path, names, purpose in zip(written, (partition.base, partition.test), ("train", "test"), strict=True):
        print(f"{path}: {len(names)} photographs to {purpose} on (--file_list)")
    return partition


def find_usable(
    source: DataSource, defects: Sequence[str] = (), resolution: Size | None = None, fit: Fit = "resize"
) -> Listing:
    """List photographs as `find_listing` does; with `skip_bad_files`, open all, and leave out and name the bad ones.

    A photograph of which the label of one kind is bad is left out of all kinds that matter: the others are half of the
    truth. A defect that is cut off needs no label.

    Args:
        source: Where they are.
        defects: Kinds of defect that matter, or the name of the one in `defect_dir`; none for all.
        resolution, fit: What photographs will be brought to, if that matters: it may cut a defect off.

    Raises:
        DataError: as `find_listing`; or why a good photograph, or one of these kinds, cannot be used, as far as the
            names of the files say.
    """
    listing = find_listing(source, defects[0] if source.defect_dir is not None and defects else None)
    matter = {GOOD, *(map(normalised, defects) if defects else listing.defects)}
    if source.skip_bad_files:
        found = inspect_all(listing.records, source.bit_depth, resolution, fit)
        listing.records = [each.record for each in _without_bad(found, matter)]
    for record in listing.records:
        if record.error is not None and record.defect in matter:
            raise record.error
    return listing


def _without_bad(found: Sequence[Inspection], matter: Container[str]) -> list[Inspection]:
    """Leave out and name photographs that cannot be used, and those with a bad label of a kind that matters."""
    for each in found:
        if each.errors:
            print(f"LEFT OUT {each.errors[0]}", file=sys.stderr)
    bad = {
        each.record.image_path
        for each in found
        if each.record.defect in matter and any(error.code != "cropped_mask" for error in each.errors)
    }
    good = (each for each in found if not each.errors)
    return [each for each in good if each.record.defect not in matter or each.record.image_path not in bad]


def find_parts(listing: Listing, bit_depth: int = 16) -> dict[str, str]:
    """Find out by comparing them which photographs show the same part; one that cannot be read is a part by itself.

    Returns:
        The name of a photograph of the part, by the photograph's name.
    """
    return _parts_among(inspect_all(listing.records, bit_depth))


def _parts_among(found: Sequence[Inspection]) -> dict[str, str]:
    pairs = find_duplicates([each.small for each in found], [each.digest for each in found])
    parts = {each.record.name: each.record.name for each in found}
    for group in group_duplicates(pairs):
        for index in group:
            parts[found[index].record.name] = found[group[0]].record.name
    return parts


def split_by_parts(
    listing: Listing, groups: Mapping[str, str], *, seed: int = 1, defects: Sequence[str] = ()
) -> Partition:
    """Take a third of each kind of defect (or of those named) to train on and the rest to test on, by whole parts.

    Good photographs of parts that are tested on, among them those of test/good, are not trained on either; one that
    `groups` does not have shows a part of its own. Where no good photographs are there to test on (own folders and
    label files have one pile of them), a quarter of their parts is held back, of those without a defect to train on.

    Raises:
        ValueError: there are no good photographs; else as `make_partitions` and `of_other_parts`.
    """
    records = [record for record in listing.records if record.defect in (defects or listing.defects)]
    (partition,) = make_partitions(records, 1, seed, groups)
    good = [record.name for record in listing.select(None, "train")]
    if not good:
        raise ValueError(f"There are no good photographs to train on. {listing.account()} {WHERE_GOOD}")
    test_good = [record.name for record in listing.select(None, "test")]
    kept = [good[index] for index in of_other_parts(good, (*partition.test, *test_good), groups)]
    part_of = {name: groups.get(name, name) for name in kept}
    free = set(part_of.values()) - {groups.get(name, name) for name in partition.base}
    held_back = set() if test_good else quarter_of(free, seed)
    return Partition(
        (*partition.base, *(name for name in kept if part_of[name] not in held_back)),
        (*partition.test, *(name for name in kept if part_of[name] in held_back)),
    )


def quarter_of(parts: Iterable[str], seed: int = 0) -> set[str]:
    """Draw a quarter of the parts, rounded down, of which good photographs are held back to test on."""
    different = sorted(set(parts))
    return set(np.random.default_rng(seed).permutation(different)[: len(different) // 4].tolist())


def of_other_parts(names: Sequence[str], tested: Sequence[str], groups: Mapping[str, str] | None) -> list[int]:
    """Return the numbers of the `names` that show a part that none of `tested` shows; of all of them without groups.

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


def _divide(kinds: Mapping[str, Sequence[ImageRecord]], groups: Mapping[str, str], seed: int | None) -> Partition:
    """Put whole groups, in random order or by first names, into the base set as long as they fit into a third.

    Kinds come by name. If one then has a side without any, since its groups were all put there for other kinds, the
    rarest kinds come first.
    """
    try:
        return _divide_in_order(dict(sorted(kinds.items())), groups, seed)
    except ValueError:
        rarest_first = sorted(kinds.items(), key=lambda item: (len(item[1]), item[0]))
        with suppress(ValueError):
            return _divide_in_order(dict(rarest_first), groups, seed)
        raise


def _divide_in_order(
    kinds: Mapping[str, Sequence[ImageRecord]], groups: Mapping[str, str], seed: int | None
) -> Partition:
    in_base: dict[str, bool] = {}
    base: list[str] = []
    test: list[str] = []
    for kind, members in kinds.items():
        parts: dict[str, list[str]] = {}
        for name in sorted(record.name for record in members):
            parts.setdefault(groups[name], []).append(name)
        order = list(parts)
        if seed is not None:
            order.sort()
            random.Random(seed).shuffle(order)
        room = len(members) // 3 - sum(len(parts[group]) for group in order if in_base.get(group, False))
        for group in order:
            if group not in in_base:
                in_base[group] = len(parts[group]) <= room
                room -= len(parts[group]) if in_base[group] else 0
        sides = [sorted(name for g in order if in_base[g] is side for name in parts[g]) for side in (True, False)]
        if not all(sides):
            sizes = ", ".join(str(len(names)) for names in parts.values())
            raise ValueError(
                f"The {len(members)} photographs of '{kind}' are of {len(parts)} parts ({sizes} photographs), which "
                "cannot be divided into about 1/3 and 2/3; write the lists by hand."
            )
        base += sides[0]
        test += sides[1]
    return Partition(tuple(base), tuple(test))


def _parts_of(kinds: Mapping[str, Sequence[ImageRecord]], groups: Mapping[str, str] | None) -> dict[str, str]:
    """Return the parts of photographs as `unite_files` does; of groups, each has to have one."""
    records = [record for members in kinds.values() for record in members]
    unknown = sorted(record.name for record in records if groups is not None and record.name not in groups)
    if unknown:
        raise ValueError(f"`groups` has no line for {len(unknown)} photographs ({shorten(unknown, 3)}).")
    return unite_files(records, groups)


def _by_kind(records: Iterable[ImageRecord]) -> dict[str, list[ImageRecord]]:
    """Return the photographs of each kind of defect, at least three."""
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
