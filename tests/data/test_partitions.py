"""Divisions into base and test sets in which photographs of one part stay together."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfmgan_hf.data import DataError, first_third_partition, make_partitions, read_groups
from dfmgan_hf.data.records import ImageRecord

# Parts a, b, ... and how many photographs of each kind show them; part b has both kinds of defect.
PARTS = {"crack": {"a": 3, "b": 4, "c": 2, "d": 3}, "hole": {"b": 3, "e": 5, "f": 2, "g": 1}}


def photographs() -> tuple[list[ImageRecord], dict[str, str]]:
    records, groups = [], {}
    for kind, parts in PARTS.items():
        for part in (part for part, count in parts.items() for _ in range(count)):
            name = f"test/{kind}/{len(records):03d}.png"
            records.append(ImageRecord(name, Path(name), None, kind, "test"))
            groups[name] = part
    return records, groups


def kind_of(name: str) -> str:
    return name.split("/")[1]


def test_no_part_is_on_both_sides():
    records, groups = photographs()
    partitions = make_partitions(records, 20, seed=1, groups=groups)
    for partition in partitions:
        assert sorted(partition.base + partition.test) == sorted(groups)
        assert not {groups[name] for name in partition.base} & {groups[name] for name in partition.test}
        for kind, parts in PARTS.items():
            assert 0 < sum(kind_of(name) == kind for name in partition.base) <= sum(parts.values()) // 3
            assert any(kind_of(name) == kind for name in partition.test)
    assert len(set(partitions)) > 3
    assert partitions == make_partitions(records[::-1], 20, seed=1, groups=groups)


def test_without_groups_every_photograph_is_a_part_of_its_own():
    records, _ = photographs()
    names = {record.name: record.name for record in records}
    assert make_partitions(records, 3, seed=5) == make_partitions(records, 3, seed=5, groups=names)
    assert first_third_partition(records) == first_third_partition(records, names)


def test_first_parts_by_name():
    records, groups = photographs()
    base = first_third_partition(records, groups).base
    # Room for four cracks and three holes. b does not fit after a, and then it is not in the base set of holes either.
    assert sorted({groups[name] for name in base}) == ["a", "f", "g"]


def test_what_cannot_be_divided_is_an_error():
    records, groups = photographs()
    one = dict.fromkeys(groups, "a")
    with pytest.raises(ValueError, match=r"The 12 photographs of 'crack' are of 1 parts \(12 photographs\)"):
        make_partitions(records, groups=one)
    del groups["test/crack/004.png"]
    with pytest.raises(ValueError, match=r"`groups` has no line for 1 photographs \(test/crack/004\.png\)"):
        make_partitions(records, groups=groups)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        ("", "no lines"),
        ("file,part\ntest/crack/000.png,a\n", "the columns file, part"),
    ],
)
def test_groups_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "groups.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=f"{message}. Expected a CSV file with the columns file and group"):
        read_groups(path)


def test_groups_are_read(tmp_path):
    path = tmp_path / "groups.csv"
    path.write_text("file,original,group\ntest/crack/000.png,x,a\ntest/crack/001.png,y,b\n")
    assert read_groups(path) == {"test/crack/000.png": "a", "test/crack/001.png": "b"}
