"""Every way to say where the photographs are, and what is said when it is wrong."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.data import DataConfig, DataError, DataSource, find_listing, load_training_set
from dfmgan_hf.data.layouts import MVTEC_AD_DEFECTS, split_images_and_masks
from tests.data.conftest import draw_category, draw_mask, draw_photograph, save


def test_all_mvtec_ad_categories_and_defects_are_known() -> None:
    assert len(MVTEC_AD_DEFECTS) == 15
    # 73 kinds of defect in all (Bergmann et al., table 1).
    assert sum(len(defects) for defects in MVTEC_AD_DEFECTS.values()) == 73
    assert MVTEC_AD_DEFECTS["hazelnut"] == ("crack", "cut", "hole", "print")


def test_root_and_category_folder_list_the_same(category_folder: Path) -> None:
    by_root = find_listing(DataSource(category_folder.parent, "plate"))
    by_folder = find_listing(DataSource(category_folder))
    only_one = find_listing(DataSource(category_folder.parent))
    assert by_root.records == by_folder.records == only_one.records
    assert by_root.defects == ["dent", "scratch"]
    assert [record.name for record in by_root.select("dent")] == [f"test/dent/{i:03d}.png" for i in range(3)]
    assert len(by_root.select(None, "train")) == 6
    assert not any(record.error for record in by_root.records)


def test_a_wrong_category_lists_the_right_ones(tmp_path: Path) -> None:
    draw_category(tmp_path, "hazelnut", good=1, defects={"crack": 1})
    draw_category(tmp_path, "bracket", good=1, defects={"crack": 1})
    with pytest.raises(
        DataError, match=r"no category 'hazlenut'. Expected one of bracket, hazelnut. Say --category haz"
    ):
        find_listing(DataSource(tmp_path, "hazlenut"))
    with pytest.raises(DataError, match=r"several categories and none was chosen. Expected one of bracket, hazelnut"):
        find_listing(DataSource(tmp_path))
    (empty := tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"MVTec AD has bottle, cable, .* zipper \(did you mean hazelnut\?\)"):
        find_listing(DataSource(empty, "hazelnutt"))
    with pytest.raises(DataError, match=r"nowhere: there is no such folder"):
        find_listing(DataSource(tmp_path / "nowhere", "hazelnut"))


def test_the_category_folder_itself_with_another_category_is_explained(category_folder: Path) -> None:
    with pytest.raises(
        DataError, match=r"This folder is itself a category: leave --category out, or say --category plate"
    ):
        find_listing(DataSource(category_folder, "hazelnut"))


def test_a_table_beside_a_named_category_is_none_of_its_metadata(category_folder: Path) -> None:
    expected = find_listing(DataSource(category_folder.parent, "plate")).records
    (category_folder.parent / "metadata.csv").write_text("id,source\n1,camera\n")
    assert find_listing(DataSource(category_folder.parent, "plate")).records == expected
    with pytest.raises(DataError, match=r"the columns id, source.* or move the file away if it does not list"):
        find_listing(DataSource(category_folder.parent))


@pytest.mark.parametrize("suffix", ["", "_mask", "-mask", ".gt", "_ground_truth", "_label"])
@pytest.mark.parametrize("ending", [".png", ".bmp", ".TIF"])
def test_own_folders_match_masks_by_stem(tmp_path: Path, suffix: str, ending: str) -> None:
    for index in (1, 12):
        save(draw_photograph(index), tmp_path / "parts" / "ok" / f"{index}.jpg")
        save(draw_photograph(index), tmp_path / "parts" / "scratched" / f"part {index}.jpg")
        save(draw_mask(index).astype(np.uint8), tmp_path / "annotations" / f"part {index}{suffix}{ending}")
    folders = {
        "good_dir": tmp_path / "parts" / "ok",
        "defect_dir": tmp_path / "parts" / "scratched",
        "mask_dir": tmp_path / "annotations",
    }
    listing = find_listing(DataSource(**folders))
    assert not any(record.error for record in listing.records)
    assert not listing.left_over
    assert listing.category == "parts"
    assert listing.defects == ["scratched"]
    good = load_training_set(DataConfig(**folders), resolution=32)
    assert good.file_names == ["train/good/1.jpg", "train/good/12.jpg"]
    assert good.masks is None
    bad = load_training_set(DataConfig(**folders), "scratch", resolution=32)
    assert bad.file_names == ["test/scratch/part 1.jpg", "test/scratch/part 12.jpg"]
    assert [float(mask.float().mean()) / 255 for mask in bad.masks] == pytest.approx(
        [draw_mask(1).mean(), draw_mask(12).mean()], rel=0.05
    )


def test_masks_beside_the_photographs_are_told_apart(tmp_path: Path) -> None:
    for index in range(2):
        save(draw_photograph(index), tmp_path / "dents" / f"{index}.png")
        save(draw_mask(index), tmp_path / "dents" / f"{index}_mask.png")
    listing = find_listing(DataSource(defect_dir=tmp_path / "dents"))
    assert [record.name for record in listing.records] == ["test/dents/0.png", "test/dents/1.png"]
    assert [record.mask_path.name for record in listing.records] == ["0_mask.png", "1_mask.png"]


def test_thousands_of_files_in_one_folder_are_told_apart_at_once() -> None:
    files = [Path(f"{index:05d}{ending}") for index in range(4000) for ending in (".png", "_mask.png")]
    started = time.monotonic()
    images, masks = split_images_and_masks(files)
    assert (images, masks) == (files[::2], files[1::2])
    assert time.monotonic() - started < 5


def test_numbers_are_no_suffix_and_the_longest_stem_wins(tmp_path: Path) -> None:
    for name in ("part", "part_b", "part_2"):
        save(draw_photograph(1), tmp_path / "images" / f"{name}.png")
    for name in ("part_mask", "part_b_mask", "part_3_mask"):
        save(draw_mask(1), tmp_path / "masks" / f"{name}.png")
    listing = find_listing(DataSource(defect_dir=tmp_path / "images", mask_dir=tmp_path / "masks"), "dent")
    masks = {record.image_path.stem: record.mask_path and record.mask_path.stem for record in listing.records}
    assert masks == {"part": "part_mask", "part_b": "part_b_mask", "part_2": None}
    assert [(entry.path.name, entry.kind) for entry in listing.left_over] == [("part_3_mask.png", "orphan_masks")]
    errors = [(record.name, record.error.code) for record in listing.records if record.error]
    assert errors == [("test/dent/part_2.png", "no_mask")]


def test_several_masks_for_one_photograph_are_an_error(tmp_path: Path) -> None:
    save(draw_photograph(1), tmp_path / "images" / "a.png")
    save(draw_mask(1), tmp_path / "masks" / "a.png")
    save(draw_mask(1), tmp_path / "masks" / "a_mask.png")
    with pytest.raises(
        DataError, match=r"a\.png: 2 files that could be its mask: a\.png, a_mask\.png. Expected one mask"
    ):
        load_training_set(
            DataConfig(defect_dir=tmp_path / "images", mask_dir=tmp_path / "masks"), "dent", resolution=32
        )


def test_own_folders_without_images_say_where_to_look(tmp_path: Path) -> None:
    save(draw_photograph(1), tmp_path / "photos" / "monday" / "a.png")
    with pytest.raises(DataError, match=r"photos: no images.*Give the folder that holds them, such as .*monday"):
        find_listing(DataSource(good_dir=tmp_path / "photos"))
    with pytest.raises(DataError, match=r"missing: there is no such folder.*--mask_dir"):
        find_listing(DataSource(defect_dir=tmp_path / "photos" / "monday", mask_dir=tmp_path / "missing"))
    with pytest.raises(ValueError, match=r"mask_dir=.* needs defect_dir"):
        find_listing(DataSource(mask_dir=tmp_path / "photos"))
    with pytest.raises(ValueError, match="not both"):
        find_listing(DataSource(tmp_path, good_dir=tmp_path))
    with pytest.raises(ValueError, match="Give data_dir"):
        find_listing(DataSource())


def test_metadata_of_spreadsheets_and_unquoted_commas(tmp_path: Path) -> None:
    save(draw_photograph(0), tmp_path / "ä 0.png")
    save(draw_mask(0), tmp_path / "m.png")
    (tmp_path / "metadata.csv").write_text("file_name;mask_file_name\r\nä 0.png;m.png\r\n;\r\n", encoding="utf-8-sig")
    assert [record.masks for record in find_listing(DataSource(tmp_path)).records] == [(tmp_path / "m.png",)]
    (tmp_path / "metadata.csv").write_text("file_name,mask_file_name\na,b.png,m.png\n")
    with pytest.raises(DataError, match="more cells than columns in line 2"):
        find_listing(DataSource(tmp_path))


@pytest.mark.parametrize("form", ["csv", "jsonl", "split_folders"])
def test_imagefolder_with_a_mask_column(tmp_path: Path, form: str) -> None:
    rows = []
    for index in range(4):
        folder = tmp_path / ("train" if index < 2 else "test") if form == "split_folders" else tmp_path
        save(draw_photograph(index), folder / f"{index}.png")
        row = {"file_name": f"{index}.png", "mask_file_name": ""}
        if index >= 2:
            save(draw_mask(index), folder / "masks" / f"{index}.png")
            row["mask_file_name"] = f"masks/{index}.png"
        rows.append((folder, row))
    for folder in {folder for folder, _ in rows}:
        own = [row for where, row in rows if where == folder]
        if form == "jsonl":
            (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in own))
        else:
            with (folder / "metadata.csv").open("w", newline="") as stream:
                writer = csv.DictWriter(stream, own[0])
                writer.writeheader()
                writer.writerows(own)
    listing = find_listing(DataSource(tmp_path))
    assert [(record.defect, record.split) for record in listing.records].count(("good", "train")) == 2
    assert [(record.defect, record.split) for record in listing.records].count(("defect", "test")) == 2
    assert len(load_training_set(DataConfig(tmp_path), resolution=32)) == 2
    defects = load_training_set(DataConfig(tmp_path), "defect", resolution=32)
    assert defects.masks.float().mean() / 255 == pytest.approx(
        (draw_mask(2).mean() + draw_mask(3).mean()) / 2, rel=0.05
    )

    if form == "split_folders":
        return  # datasets cannot read a column that is empty in one split
    # What is read here is what datasets reads there.
    import datasets

    rows = datasets.load_dataset("imagefolder", data_dir=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    assert sum(split.num_rows for split in rows.values()) == len(listing.records)


def test_imagefolder_with_named_defects_and_its_errors(tmp_path: Path) -> None:
    save(draw_photograph(0), tmp_path / "a.png")
    save(draw_mask(0), tmp_path / "m.png")
    metadata = tmp_path / "metadata.csv"
    metadata.write_text("file_name,mask,defect\na.png,m.png,dent\n")
    assert find_listing(DataSource(tmp_path)).defects == ["dent"]
    metadata.write_text("file_name,mask,defect\na.png,,dent\n")
    with pytest.raises(DataError, match=r"a row of .*metadata\.csv with defect 'dent' and without a mask"):
        load_training_set(DataConfig(tmp_path), "dent", resolution=32)
    assert (
        find_listing(DataSource(tmp_path.parent, tmp_path.name)).records == find_listing(DataSource(tmp_path)).records
    )
    metadata.write_text("file_name,label\na.png,1\n")
    with pytest.raises(DataError, match=r"metadata\.csv: the columns file_name, label. Expected .*mask_file_name"):
        find_listing(DataSource(tmp_path))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("../a.png,m.png,dent", r"the file name '\.\./a\.png'. Expected paths of files below its folder"),
        ("/etc/a.png,m.png,dent", r"the file name '/etc/a\.png'"),
        ("a.png,../../m.png,dent", r"the file name '\.\./\.\./m\.png'"),
        ("a.png,m.png,../../../dent", r"the defect '\.\./\.\./\.\./dent'. Expected a name that a folder can have"),
        ("a.png,m.png,..", r"the defect '\.\.'"),
        ("a.png,m.png,dent\na.png,m.png,dent", r"a\.png in two rows"),
    ],
)
def test_imagefolder_rows_that_point_outside_or_come_twice_are_refused(tmp_path: Path, row: str, message: str) -> None:
    """A kind of defect becomes the name of a folder where patches are cut, and metadata may come out of an archive."""
    root = tmp_path / "set"
    save(draw_photograph(0), root / "a.png")
    save(draw_mask(0), root / "m.png")
    (root / "metadata.csv").write_text(f"file_name,mask,defect\n{row}\n")
    with pytest.raises(DataError, match=rf"metadata\.csv: {message}"):
        find_listing(DataSource(root))


@pytest.mark.parametrize(
    "line", ["[1]", '"a.png"', '{"file_name": 3, "mask": ""}', '{"file_name": "a.png", "mask": {}']
)
def test_metadata_that_is_not_of_rows_is_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "metadata.jsonl").write_text(f"{line}\n")
    with pytest.raises(DataError, match=r"metadata\.jsonl: "):
        find_listing(DataSource(tmp_path))


def test_hidden_and_other_files_are_ignored_but_remembered(category_folder: Path) -> None:
    (category_folder / "train" / "good" / "Thumbs.db").write_bytes(b"x")
    (category_folder / "train" / "good" / "._000.png").write_bytes(b"x")
    (category_folder / "train" / "good" / "notes.txt").write_bytes(b"x")
    Image.fromarray(draw_photograph(9)).save(category_folder / "train" / "good" / "UPPER.PNG")
    listing = find_listing(DataSource(category_folder))
    assert len(listing.select(None, "train")) == 7
    assert {entry.path.name: entry.kind for entry in listing.left_over} == {
        "Thumbs.db": "hidden", "._000.png": "hidden", "notes.txt": "ignored_files",
    }  # fmt: skip
