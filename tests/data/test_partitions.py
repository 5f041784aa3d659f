"""Divisions into base and test sets in which photographs of one part stay together."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfmgan_hf.data import (
    DataConfig,
    DataError,
    DataSource,
    Partition,
    find_listing,
    first_third_partition,
    load_training_set,
    make_partitions,
    read_file_list,
    read_groups,
    save_file_list,
)
from dfmgan_hf.data.partitions import SplitConfig, find_usable, split_dataset, unite_kinds
from dfmgan_hf.data.records import ImageRecord
from tests.data.conftest import draw_category
from tests.prove.several_kinds import save_labelled

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


def test_a_photograph_that_is_listed_under_two_kinds_lies_on_one_side():
    """All of twelve photographs show a crack and every other one a hole; groups call each of its names a part."""
    records = [
        ImageRecord(f"test/{kind}/{i:02d}.png", Path(f"{i:02d}.png"), Path(f"{i:02d}_{kind}.png"), kind, "test")
        for kind, step in (("crack", 1), ("hole", 2))
        for i in range(0, 12, step)
    ]
    names = {record.name: record.name for record in records}
    divided = [*make_partitions(records, 10), *make_partitions(records, 3, groups=names)]
    assert divided[:10] == make_partitions(records[::-1], 10)
    for partition in (*divided, first_third_partition(records)):
        base, test = ({Path(name).name for name in side} for side in (partition.base, partition.test))
        assert not base & test
        assert len(base | test) == 12
        assert sorted(partition.base + partition.test) == sorted(names)
    united = unite_kinds(records)
    assert len(united) == 12
    assert [path.name for path in united[2].masks] == ["02_crack.png", "02_hole.png"]
    assert [path.name for path in united[3].masks] == ["03_crack.png"]


def test_a_photograph_of_which_one_label_is_bad_is_left_out_of_all_kinds(tmp_path):
    root = save_labelled(tmp_path / "export", [["crack", "hole"]] * 3, wrong="hole")
    source = DataSource(root, skip_bad_files=True, cache_dir=tmp_path / "cache")
    names = [record.name for record in find_usable(source).records if record.defect != "good"]
    assert names == [f"test/{kind}/d0{i}.png" for kind in ("crack", "hole") for i in (1, 2)]
    of_cracks = [record.name for record in find_usable(source, ["crack"]).records if record.defect == "crack"]
    assert of_cracks == [f"test/crack/d0{i}.png" for i in range(3)]


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
        (None, "No such file or directory"),
        ("", "no lines"),
        ("file,part\ntest/crack/000.png,a\n", "the columns file, part"),
        ("group,file\na\n", "a line of file '' and group 'a'"),
        ("file,group\ntest/crack/000.png,\n", "a line of file 'test/crack/000.png' and group ''"),
        ("file,group\na.png,a\na.png,b\n", "a.png in the groups 'a' and 'b'"),
        ("file,group\na,b.png,a\n", "more cells than columns in line 2"),
        ("file,group\n\udce9.png,a\n", r"no table in UTF-8 \(.*\)"),
    ],
)
def test_groups_that_cannot_be_read(tmp_path, content, message):
    path = tmp_path / "groups.csv"
    if content is not None:
        path.write_text(content, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(DataError, match=f"{message}. Expected a CSV file with the columns file and group"):
        read_groups(path)


@pytest.mark.parametrize("separator", [",", ";", "\t", ", "])
def test_groups_are_read_as_spreadsheets_write_them(tmp_path, separator):
    path = tmp_path / "groups.csv"
    rows = [
        ["file", "original", "group"],
        ["test/crack/ä 0.png", "x", "a"],
        ["", "", ""],
        ["test/crack/1.png", "", "b"],
    ]
    path.write_text("\r\n".join(map(separator.join, rows)), encoding="utf-8-sig")
    assert read_groups(path) == {"test/crack/ä 0.png": "a", "test/crack/1.png": "b"}


def test_partitions_are_a_third_and_two_thirds_and_load_again(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, defects={"crack": 7, "hole": 6})
    listing = find_listing(DataSource(folder))
    partitions = make_partitions(listing.records, seed=3)
    assert len(partitions) == 3
    assert partitions == make_partitions(list(reversed(listing.records)), seed=3)
    assert len(set(partitions)) > 1
    for partition in partitions:
        assert [sum(f"/{kind}/" in name for name in partition.base) for kind in ("crack", "hole")] == [2, 2]
        assert [sum(f"/{kind}/" in name for name in partition.test) for kind in ("crack", "hole")] == [5, 4]
        assert not set(partition.base) & set(partition.test)
    base, test = partitions[1].save(tmp_path / "lists", 1)
    assert Partition.load(tmp_path / "lists", 1) == partitions[1]
    trained_on = load_training_set(DataConfig(folder, file_list=base), "crack", resolution=32)
    tested_on = load_training_set(DataConfig(folder, file_list=test), "crack", resolution=32)
    assert len(trained_on) == 2
    assert len(tested_on) == 5
    assert trained_on.file_names == [name for name in partitions[1].base if "crack" in name]
    with pytest.raises(ValueError, match="'crack' has 2 photographs"):
        make_partitions(listing.select("crack")[:2])


def test_file_lists_that_do_not_fit_are_explained(category_folder: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.txt"
    listed.write_text("# comment\n\ntest/scratch/001.png\ntest/scratch/777.png\n")
    assert read_file_list(listed) == ["test/scratch/001.png", "test/scratch/777.png"]
    with pytest.raises(DataError, match=r"list\.txt: 1 names that are not in the data set \(test/scratch/777\.png\)"):
        load_training_set(DataConfig(category_folder, file_list=listed), "scratch")
    listed.write_text("test/dent/001.png\n")
    with pytest.raises(DataError, match="1 names, none of them among the 5 photographs asked for"):
        load_training_set(DataConfig(category_folder, file_list=listed), "scratch")
    with pytest.raises(DataError, match=r"Is a directory\. Expected a text file with one name a line"):
        read_file_list(tmp_path)
    with pytest.raises(DataError, match="No such file or directory"):
        load_training_set(DataConfig(category_folder, file_list=tmp_path / "none.txt"), "scratch")


def test_lists_keep_names_that_look_like_comments(tmp_path: Path) -> None:
    names = ["#2.png", " 3.png", "./#4.png", "a #5.png", "#/6.png"]
    path = save_file_list(tmp_path / "list.txt", names, "a comment")
    assert read_file_list(path) == names
    path.write_text("./test/dent/000.png\n  # a comment\n #2.png\n")
    assert read_file_list(path) == ["test/dent/000.png"]


def test_file_lists_of_text_editors(category_folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufefftest/scratch/003.png\r\n".encode())
    names = load_training_set(DataConfig(category_folder, file_list=path), "scratch", resolution=32).file_names
    assert names == ["test/scratch/003.png"]
    path.write_bytes("test/scratch/003.png".encode("utf-16"))
    with pytest.raises(DataError, match=r"names\.txt: what is no text in UTF-8.*Save it as UTF-8"):
        load_training_set(DataConfig(category_folder, file_list=path), "scratch", resolution=32)


def test_a_list_of_defects_does_not_restrict_the_defect_free(category_folder: Path, tmp_path: Path) -> None:
    listed = save_file_list(tmp_path / "list.txt", ["test/dent/001.png"])
    assert len(load_training_set(DataConfig(category_folder, file_list=listed), resolution=32)) == 6
    save_file_list(listed, ["test/dent/001.png", "train/good/003.png", "train/good/004.png"])
    good = load_training_set(DataConfig(category_folder, file_list=listed), resolution=32)
    assert good.file_names == ["train/good/003.png", "train/good/004.png"]
    own = DataConfig(good_dir=category_folder / "train/good", file_list=save_file_list(listed, ["test/dent/001.png"]))
    assert len(load_training_set(own, resolution=32)) == 6  # whose defects are not known here
    save_file_list(listed, ["test/dent/001.png", "train/good/003.png", "train/good/004.png"])
    assert len(load_training_set(own, resolution=32)) == 2


@pytest.mark.parametrize("name", ["003.png", "train/good/003.PNG", "ok/003.png"])
def test_a_list_whose_names_have_changed_is_not_taken_for_one_of_defects(category_folder: Path, tmp_path: Path, name):
    data = DataConfig(good_dir=category_folder / "train/good", file_list=save_file_list(tmp_path / "list.txt", [name]))
    with pytest.raises(DataError, match=rf"1 names that are not in the data set \({name}\)"):
        load_training_set(data, resolution=32)


def test_a_split_is_made_by_parts_once_and_kept(tmp_path: Path, capsys) -> None:
    folder = draw_category(tmp_path, good=7, defects={"dent": 9})
    good = folder / "train" / "good"
    # Three dents are one photograph, of which a good one shows the part too.
    for number in (1, 2):
        (folder / "test/dent" / f"00{number}.png").write_bytes((folder / "test/dent/000.png").read_bytes())
    (good / "000.png").write_bytes((folder / "test/dent/000.png").read_bytes())
    # What is tested as good is not trained on either.
    (folder / "test/good").mkdir(exist_ok=True)
    (folder / "test/good/000.png").write_bytes((good / "006.png").read_bytes())
    config = SplitConfig(folder, output_dir=tmp_path / "splits", seed=2)
    split = split_dataset(config)
    sides = [{f"test/dent/00{n}.png" in names for n in range(3)} for names in (split.base, split.test)]
    assert sorted(map(sorted, sides)) == [[False], [True]]
    assert ("train/good/000.png" in split.base) is ("test/dent/000.png" in split.base)
    assert {f"train/good/00{n}.png" for n in range(1, 6)} <= set(split.base)
    assert "train/good/006.png" not in split.base
    assert sum(kind_of(name) == "dent" for name in split.base) == 3
    assert Partition.load(tmp_path / "splits", "P1") == split
    assert f"partition_P1_base.txt: {len(split.base)} photographs to train on" in capsys.readouterr().out
    with pytest.raises(FileExistsError, match=r"partition_P1_base\.txt is there already and is kept"):
        split_dataset(config)
    assert Partition.load(tmp_path / "splits", "P1") == split
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"test/dent/00{n}.png,{n // 3}\n" for n in range(9)))
    by_hand = split_dataset(SplitConfig(folder, output_dir=tmp_path / "other", groups=tmp_path / "groups.csv"))
    assert len({int(name[-5]) // 3 for name in by_hand.base if kind_of(name) == "dent"}) == 1
    assert len({int(name[-5]) // 3 for name in by_hand.test}) == 2


def test_a_split_holds_good_photographs_back_where_there_are_none_to_test_on(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=12, defects={"dent": 6}, test_good=0)
    for number in range(4):  # good photographs of parts with a dent
        (folder / f"train/good/00{number}.png").write_bytes((folder / f"test/dent/00{number}.png").read_bytes())
    split = split_dataset(SplitConfig(folder, output_dir=tmp_path / "lists"))
    good = [[name for name in names if kind_of(name) == "good"] for names in (split.base, split.test)]
    assert len(good[1]) == 2
    assert set(good[1]) <= {f"train/good/{number:03d}.png" for number in range(4, 12)}
    assert not set(good[0]) & set(good[1])
    listed = DataConfig(folder, file_list=tmp_path / "lists" / "partition_P1_base.txt")
    assert load_training_set(listed, resolution=32).file_names == good[0]


def test_a_split_calls_the_defect_of_own_folders_as_training_does(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=8, defects={"scratch": 6})
    places = {"good_dir": "train/good", "defect_dir": "test/scratch", "mask_dir": "ground_truth/scratch"}
    own = {name: folder / place for name, place in places.items()}
    split = split_dataset(SplitConfig(**own, defect="dent", output_dir=tmp_path / "lists"))
    file_list = Partition.paths(tmp_path / "lists", "P1")[0]
    learnt = DataConfig(**own, file_list=file_list).load_defects("dent", resolution=32)
    assert set(learnt.file_names) <= set(split.base)
    with pytest.raises(ValueError, match="`defect` has no effect"):
        SplitConfig(folder, defect="dent", output_dir=tmp_path / "lists")


def test_a_split_without_good_photographs_says_what_there_is(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=1, defects={"dent": 3})
    (folder / "train" / "good" / "000.png").unlink()
    with pytest.raises(ValueError, match=r"no good photographs to train on\. .*: 5 photographs listed; .*--good_dir"):
        split_dataset(SplitConfig(folder, output_dir=tmp_path / "lists"))
    assert not (tmp_path / "lists").exists()


def test_a_split_leaves_out_bad_files_or_stops_at_the_first(tmp_path: Path, capsys) -> None:
    folder = draw_category(tmp_path, good=5, defects={"dent": 6})
    (folder / "ground_truth/dent/000_mask.png").unlink()
    (folder / "test/dent/001.png").write_bytes(b"cut short")
    (folder / "test/dent/002.png").rename(folder / "test/dent/caf\udce9.png")  # not in UTF-8
    with pytest.raises(DataError, match=r"000\.png: an image without a mask"):
        split_dataset(SplitConfig(folder, output_dir=tmp_path / "splits"))
    split = split_dataset(SplitConfig(folder, output_dir=tmp_path / "splits", skip_bad_files=True))
    dents = {name for name in (*split.base, *split.test) if kind_of(name) == "dent"}
    assert dents == {f"test/dent/00{n}.png" for n in (3, 4, 5)}
    assert capsys.readouterr().err.count("LEFT OUT") == 3


@pytest.mark.parametrize("has_groups", [False, True])
def test_a_split_stops_at_what_only_opening_a_file_shows(tmp_path: Path, has_groups: bool) -> None:
    folder = draw_category(tmp_path, good=5, defects={"dent": 6})
    (folder / "test/dent/001.png").write_bytes(b"cut short")
    groups = tmp_path / "groups.csv" if has_groups else None
    (tmp_path / "groups.csv").write_text("\n".join(["file,group", *(f"test/dent/00{n}.png,{n}" for n in range(6))]))
    with pytest.raises(DataError, match=r"dent/001\.png"):
        split_dataset(SplitConfig(folder, output_dir=tmp_path / "lists", groups=groups))
    assert not (tmp_path / "lists").exists()


def test_a_partition_that_was_not_written_to_its_end_has_nothing_to_test_on(tmp_path, monkeypatch):
    """What is tested on never stands beside another base."""
    Partition(("test/dent/1.png",), ("test/dent/2.png",)).save(tmp_path, 1)
    written = save_file_list

    def stop_at_the_second(path, names, comment=None):
        if path.name.endswith("_test.txt"):
            raise KeyboardInterrupt
        return written(path, names, comment)

    monkeypatch.setattr("dfmgan_hf.data.partitions.save_file_list", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        Partition(("test/dent/2.png",), ("test/dent/1.png",)).save(tmp_path, 1)
    with pytest.raises(DataError, match=r"partition_1_test\.txt"):
        Partition.load(tmp_path, 1)
