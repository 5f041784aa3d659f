"""Every entry of a data folder is used, ignored or unresolved; the doctor and training say which, and refuse alike."""

from __future__ import annotations

import json
import unicodedata
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.data import DataConfig, DataError, DataSource, DataWarning, find_listing, load_training_set
from dfmgan_hf.data.doctor import CheckConfig, Report, check_dataset, examine
from dfmgan_hf.data.hub import load_mvtec_ad
from dfmgan_hf.data.records import LeftOver, is_folder_name, printable
from tests.data.conftest import draw_category, draw_mask, draw_photograph, save


def left_over(folder: Path, **options: Path) -> dict[str, str]:
    source = DataSource(**options) if options else DataSource(folder)
    return {entry.path.relative_to(folder).as_posix(): entry.kind for entry in find_listing(source).left_over}


def check(folder: Path, **options: object) -> Report:
    return examine(CheckConfig(folder, resolution=32, **options))[0]


def findings(folder: Path, **options: object) -> dict[str, str]:
    return {finding.code: finding.severity for finding in check(folder, **options).findings}


def test_each_entry_has_its_reason(category_folder: Path) -> None:
    root = category_folder
    save(draw_photograph(1), root / "lost.png")
    save(draw_photograph(1), root / "extra" / "deeper" / "a.png")
    save(draw_photograph(1), root / "train" / "good" / "monday" / "a.png")
    save(draw_photograph(1), root / "train" / "loose.png")
    save(draw_photograph(1), root / "validation" / "good" / "a.png")
    save(draw_mask(1), root / "ground_truth" / "loose_mask.png")
    save(draw_mask(1), root / "ground_truth" / "good" / "000_mask.png")
    save(draw_mask(1), root / "ground_truth" / "hole" / "000_mask.png")
    save(draw_mask(1), root / "ground_truth" / "dent" / "777_mask.png")
    save(draw_mask(1), root / "ground_truth" / "dent" / "888" / "000.png")
    (root / "readme.txt").touch()
    for hidden in (".ipynb_checkpoints", "@eaDir", "__MACOSX"):
        save(draw_photograph(1), root / "test" / hidden / "a.png")
    (root / "test" / "dent" / "Thumbs.db").touch()
    (root / "train" / "good" / "fetched").symlink_to("/nowhere")
    assert left_over(root) == {
        "lost.png": "not_found", "extra": "not_found", "train/good/monday": "not_found",
        "train/loose.png": "not_found",
        "train/good/fetched": "not_found", "validation": "unused", "ground_truth/good": "unused",
        "ground_truth/loose_mask.png": "orphan_masks", "ground_truth/hole": "orphan_masks",
        "ground_truth/dent/777_mask.png": "orphan_masks", "ground_truth/dent/888": "orphan_masks",
        "readme.txt": "ignored_files", "test/.ipynb_checkpoints": "hidden", "test/@eaDir": "hidden",
        "test/__MACOSX": "hidden", "test/dent/Thumbs.db": "hidden",
    }  # fmt: skip
    found = findings(root)
    assert (found["not_found"], found["orphan_masks"]) == ("warning", "warning")
    assert (found["hidden"], found["ignored_files"], found["unused"]) == ("note", "note", "note")


def test_where_nothing_is_odd_one_line_says_so(category_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    DataConfig(category_folder).load_good(resolution=32, image_channels=1)
    line = "plate: 16 photographs listed; nothing ignored; nothing unresolved."
    assert capsys.readouterr().err == f"{line} Loaded of 'good': 6.\n"
    assert line in check(category_folder).to_text().splitlines()


def test_training_says_what_the_doctor_says(category_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(draw_photograph(1), category_folder / "train" / "good" / "monday" / "a.png")
    save(draw_photograph(1), category_folder / "test" / ".ipynb_checkpoints" / "a.png")
    report = check(category_folder)
    for load in (
        DataConfig(category_folder).load_good,
        lambda resolution: DataConfig(category_folder).load_defects("dent", resolution=resolution),
        lambda resolution: DataConfig(category_folder).load_kinds(resolution=resolution),
    ):
        with pytest.warns(DataWarning) as caught:
            load(resolution=32)
        said = capsys.readouterr().err
        lines = [finding.to_line() for finding in report.findings if finding.code in ("not_found", "hidden")]
        assert report.account in said
        assert lines[0] in [str(warning.message) for warning in caught]
        assert lines[1] in said


def test_links_whose_target_is_missing_stop_the_doctor_and_training(category_folder: Path) -> None:
    """As git-annex, DVC and shares that are not mounted leave them."""
    for index in range(6, 60):
        (category_folder / f"train/good/{index:03d}.png").symlink_to(f"../../.git/annex/objects/{index}")
    report = check(category_folder)
    assert report.exit_status == 2
    assert sum(len(finding.files) for finding in report.findings if finding.code == "unreadable") == 54
    with pytest.raises(DataError, match=r"006\.png: a link to .*objects/6, which is not there.*git annex"):
        load_training_set(DataConfig(category_folder), resolution=32)
    with pytest.warns(DataWarning, match="54 of 60 files were left out"):
        assert len(load_training_set(DataConfig(category_folder, skip_bad_files=True), resolution=32)) == 6


def test_photographs_in_subfolders_are_counted(category_folder: Path) -> None:
    for lot in range(3):
        for index in range(19):
            save(draw_photograph(100 * lot + index), category_folder / f"train/good/lot{lot}/{index:03d}.png")
    with pytest.warns(DataWarning, match=r"3 entries: images or folders of images.*\(57 images in folders\)"):
        load_training_set(DataConfig(category_folder), resolution=32)


def test_hidden_folders_are_neither_kinds_nor_categories(category_folder: Path, tmp_path: Path) -> None:
    save(draw_photograph(1), category_folder / "test" / ".ipynb_checkpoints" / "000-checkpoint.png")
    draw_category(category_folder.parent, ".ipynb_checkpoints")
    assert find_listing(DataSource(category_folder.parent)).defects == ["dent", "scratch"]
    assert len(load_mvtec_ad(category_folder.parent, cache_dir=tmp_path / "cache")["test"]) == 10
    save(draw_photograph(1), category_folder / "train" / "good" / "monday" / "a.png")
    with pytest.warns(DataWarning, match="folders of images where none are looked for"):
        load_mvtec_ad(category_folder.parent, cache_dir=tmp_path / "cache")


def test_own_folders_and_imagefolders_account_too(tmp_path: Path) -> None:
    save(draw_photograph(0), tmp_path / "ok" / "a.png")
    save(draw_photograph(0), tmp_path / "ok" / "more" / "a.png")
    (tmp_path / "ok" / "notes.txt").touch()
    assert left_over(tmp_path, good_dir=tmp_path / "ok") == {"ok/more": "not_found", "ok/notes.txt": "ignored_files"}
    folder = tmp_path / "imagefolder"
    for name in ("a.png", "b.png", "sub/c.png", ".cache/d.png"):
        save(draw_photograph(0), folder / name)
    (folder / "metadata.csv").write_text("file_name,mask\na.png,\n")
    assert left_over(folder) == {"b.png": "not_found", "sub/c.png": "not_found", ".cache": "hidden"}


# Pairs


@pytest.mark.parametrize("second", ["000_mask_2.png", "000_mask2.png", "000_mask (1).png", "000_mask-2.bmp"])
def test_masks_of_several_instances_are_united(category_folder: Path, second: str) -> None:
    masks = category_folder / "ground_truth" / "scratch"
    other = np.zeros((40, 48), dtype=np.uint8)
    other[:4, :4] = 255
    save(other, masks / second)
    loaded = load_training_set(DataConfig(category_folder, fit="pad"), "scratch", resolution=48)
    united = np.pad(draw_mask(20_000 + 1000 * 0) | (other > 0), ((4, 4), (0, 0)))
    np.testing.assert_array_equal(loaded.masks[0, 0].numpy() > 0, united)
    assert "several_masks" not in findings(category_folder)


@pytest.mark.parametrize("second", ["000.png", "000_mask.bmp", "000_gt.png", "000_2.png", "000_2_mask.png"])
def test_a_second_mask_that_may_be_something_else_is_refused_by_both(category_folder: Path, second: str) -> None:
    masks = category_folder / "ground_truth" / "scratch"
    save(draw_mask(1), masks / second)
    assert findings(category_folder)["several_masks"] == "error"
    with pytest.raises(DataError, match=r"000\.png: 2 files that could be its mask"):
        load_training_set(DataConfig(category_folder), "scratch", resolution=32)


def test_one_mask_for_two_photographs_is_refused(category_folder: Path, tmp_path: Path) -> None:
    save(draw_photograph(0), category_folder / "train" / "scratch" / "000.png")
    report = check(category_folder)
    shared = next(finding for finding in report.findings if finding.code == "shared_mask")
    assert shared.files == ("train/scratch/000.png", "test/scratch/000.png")
    with pytest.raises(DataError, match="a mask that belongs to another photograph as well: 000_mask"):
        load_training_set(DataConfig(category_folder), "scratch", resolution=32)

    for name in ("i/a.jpg", "i/a.png"):
        save(draw_photograph(0), tmp_path / name)
    save(draw_mask(0), tmp_path / "m" / "a_mask.png")
    own = DataConfig(defect_dir=tmp_path / "i", mask_dir=tmp_path / "m")
    with pytest.raises(DataError, match=r"belongs to another photograph as well: a_mask\.png"):
        load_training_set(own, "i", resolution=32)
    (tmp_path / "m" / "a_mask.png").rename(tmp_path / "m" / "a.jpg_mask.png")
    save(draw_mask(1), tmp_path / "m" / "a.png_mask.png")
    assert [record.mask_path.name for record in find_listing(own).records] == ["a.jpg_mask.png", "a.png_mask.png"]

    save(draw_photograph(0), tmp_path / "set" / "a.png")
    save(draw_photograph(1), tmp_path / "set" / "b.png")
    save(draw_mask(0), tmp_path / "set" / "m.png")
    for rows, code in (("a.png,m.png\nb.png,m.png", "shared_mask"), ("a.png,a.png", "mask_is_photograph")):
        (tmp_path / "set" / "metadata.csv").write_text(f"file_name,mask\n{rows}\n")
        assert {record.error.code for record in find_listing(DataSource(tmp_path / "set")).records} == {code}


def test_a_photograph_and_its_mask_of_one_stem_are_a_pair(tmp_path: Path) -> None:
    """The magnetic tiles as published: x.jpg and its mask x.png in one folder."""
    for index in range(3):
        save(draw_photograph(index), tmp_path / "blowhole" / f"{index}.jpg")
        save(np.where(draw_mask(index), 255, 0).astype(np.uint8), tmp_path / "blowhole" / f"{index}.png")
    loaded = load_training_set(DataConfig(defect_dir=tmp_path / "blowhole"), "blowhole", resolution=32)
    assert loaded.file_names == [f"test/blowhole/{index}.jpg" for index in range(3)]
    # Two photographs of one stem are no such pair.
    save(draw_photograph(9), tmp_path / "blowhole" / "0.png")
    with pytest.raises(DataError, match=r"0\.png: many values and none that is 0.*Give masks, not photographs"):
        load_training_set(DataConfig(defect_dir=tmp_path / "blowhole"), "blowhole", resolution=32)


def test_a_mask_beside_its_photograph_is_offered_as_a_pair(category_folder: Path) -> None:
    """In the layout of MVTec AD masks have a folder of their own."""
    scratches = category_folder / "test" / "scratch"
    for index in range(5):
        (category_folder / "ground_truth" / "scratch" / f"{index:03d}_mask.png").unlink()
        save(draw_photograph(index), scratches / f"{index:03d}.jpg")
        save(draw_mask(index), scratches / f"{index:03d}.png")
    with pytest.raises(DataError, match=r"If 000\.png is its mask, give --defect_dir .*scratch alone"):
        load_training_set(DataConfig(category_folder), "scratch", resolution=32)
    assert len(load_training_set(DataConfig(defect_dir=scratches), "scratch", resolution=32)) == 5
    (mask := category_folder / "ground_truth" / "dent" / "000_mask.png").unlink()
    mask.symlink_to("/nowhere/000.png")
    with pytest.raises(DataError, match=r"a link to /nowhere/000\.png, which is not there"):
        load_training_set(DataConfig(category_folder), "dent", resolution=32)


def test_photographs_named_with_words_are_not_taken_for_masks(tmp_path: Path) -> None:
    for name in ("bolt", "bolt_left", "bolt_mask", "bolt_left_mask"):
        save(draw_mask(0) if name.endswith("mask") else draw_photograph(0), tmp_path / "bolts" / f"{name}.png")
    records = find_listing(DataSource(defect_dir=tmp_path / "bolts")).records
    assert {r.image_path.stem: r.mask_path.stem for r in records} == {
        "bolt": "bolt_mask", "bolt_left": "bolt_left_mask",
    }  # fmt: skip


def test_good_photographs_in_the_folder_of_the_defects_are_refused(tmp_path: Path) -> None:
    save(draw_photograph(0), tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"good_dir=.* is also the folder of the defects"):
        find_listing(DataSource(good_dir=tmp_path, defect_dir=tmp_path))


# What was decoded


def said(folder: Path, channels: int = 3, **options: object) -> list[str]:
    """The doctor's codes whose words training said as a warning; it must not be silent about one."""
    report = check(folder, image_channels=channels, **options)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_training_set(DataConfig(folder, **options), resolution=32, image_channels=channels)
    texts = [str(warning.message) for warning in caught]
    told = [finding.code for finding in report.findings if finding.to_line() in texts]
    return [code for code in told if code != "few_good"]  # of which a drawn category has few


@pytest.mark.parametrize("depth", [10, 12, 14])
def test_training_warns_of_samples_that_do_not_fill_their_file(category_folder: Path, depth: int) -> None:
    for path in (category_folder / "train" / "good").iterdir():
        samples = np.asarray(Image.open(path)).astype(np.uint16) << (depth - 8)
        Image.fromarray(samples).save(path)
    assert said(category_folder) == ["bit_depth"]
    assert said(category_folder, bit_depth=depth) == []


@pytest.mark.parametrize(("dtype", "ending"), [(np.int32, ".tif"), (np.uint16, ".png")])
def test_8_bit_samples_in_wider_files_are_refused_with_their_depth(category_folder: Path, dtype, ending: str) -> None:
    for path in sorted((category_folder / "train" / "good").iterdir()):
        Image.fromarray(draw_photograph(1).astype(dtype)).save(path.with_suffix(ending))
        if ending != ".png":
            path.unlink()
    with pytest.raises(DataError, match=r"samples up to \d+, which become black.*--bit_depth 8"):
        load_training_set(DataConfig(category_folder), resolution=32)
    assert findings(category_folder)["blank"] == "error"
    loaded = load_training_set(DataConfig(category_folder, bit_depth=8, fit="pad"), resolution=48, image_channels=1)
    np.testing.assert_array_equal(loaded.images[0, 0, 4:44], draw_photograph(1))


def test_transparent_and_dark_photographs_are_told(category_folder: Path) -> None:
    good = category_folder / "train" / "good"
    save(np.dstack([draw_photograph(1)] * 3 + [np.zeros((40, 48), np.uint8)]), good / "000.png")
    save(draw_photograph(2) // 16, good / "001.png")
    assert set(said(category_folder)) == {"transparent", "dark"}


def test_a_single_bright_pixel_hides_no_darkness(category_folder: Path) -> None:
    for path in (category_folder / "train" / "good").iterdir():
        samples = np.asarray(Image.open(path)).astype(np.uint16) << 4
        samples[0, 0] = 65535
        Image.fromarray(samples).save(path)
    assert said(category_folder) == ["dark"]


@pytest.mark.parametrize("value", [0, 90, 255])
def test_photographs_of_one_value_are_refused_by_both(category_folder: Path, value: int) -> None:
    save(np.full((40, 48), value, np.uint8), category_folder / "train" / "good" / "003.png")
    with pytest.raises(DataError, match=rf"003\.png: a photograph whose pixels are all {value}"):
        load_training_set(DataConfig(category_folder), resolution=32)
    assert findings(category_folder)["blank"] == "error"
    with pytest.raises(DataError, match=r"003\.png"):
        load_mvtec_ad(category_folder)


@pytest.mark.parametrize("is_empty", [True, False])
def test_masks_among_the_good_photographs_are_refused_by_both(tmp_path: Path, is_empty: bool) -> None:
    """The magnetic tiles as published: the masks of the good ones are black, and lie beside them."""
    for index in range(3):
        save(draw_photograph(index), tmp_path / "good" / f"{index}.jpg")
        save(draw_mask(index) * np.uint8(0 if is_empty else 255), tmp_path / "good" / f"{index}.png")
    with pytest.raises(DataError, match=r"0\.png: .*mask"):
        load_training_set(DataConfig(good_dir=tmp_path / "good"), resolution=32)
    report = examine(CheckConfig(good_dir=tmp_path / "good", resolution=32))[0]
    assert report.exit_status == 2
    assert {"blank", "mask_as_photograph"} & {finding.code for finding in report.findings}
    with pytest.warns(DataWarning, match="3 of 6 files were left out"):
        load_training_set(DataConfig(good_dir=tmp_path / "good", skip_bad_files=True), resolution=32)


def test_masks_that_are_mostly_white_are_told_by_both(category_folder: Path) -> None:
    for index in range(2):
        mask = category_folder / "ground_truth" / "scratch" / f"{index:03d}_mask.png"
        save(np.where(draw_mask(index), 0, 255).astype(np.uint8), mask)
    with pytest.warns(DataWarning, match=r"2 masks over more than half .* not inverted"):
        load_training_set(DataConfig(category_folder), "scratch", resolution=32)
    assert findings(category_folder)["large_mask"] == "warning"


def test_grey_photographs_in_three_channels_and_colours_in_one_are_told(
    category_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load_training_set(DataConfig(category_folder), resolution=32)
    assert "None of 6 photographs is coloured" in capsys.readouterr().err
    good = category_folder / "train" / "good"
    for index in range(6):
        grey = draw_photograph(index)
        save(np.dstack([grey, grey // 2, grey // 3]), good / f"{index:03d}.png")
    with pytest.warns(DataWarning, match="6 of 6 photographs are coloured and become grey"):
        load_training_set(DataConfig(category_folder), resolution=32, image_channels=1)
    assert "colour_lost" in findings(category_folder, image_channels=1)
    save(draw_photograph(0), good / "000.png")
    with pytest.warns(DataWarning, match=r"1 photograph grey among coloured .* train/good/000\.png"):
        load_training_set(DataConfig(category_folder), resolution=32)


# Names

NAMES = ["Kratzer_groß", "划痕", "éraflure", "царапина", "スクラッチ 2"]


@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", NAMES)
def test_names_of_any_script_in_either_form_of_unicode(tmp_path: Path, name: str, form: str) -> None:
    folder = tmp_path / "Schraube_größer"
    stored = unicodedata.normalize(form, name)
    composed = unicodedata.normalize("NFC", name)
    for index in range(2):
        save(draw_photograph(index), folder / f"train/good/{index}.png")
        save(draw_photograph(index + 5), folder / f"test/{stored}/{stored}{index}.png")
        # A mask from another system, in the other form.
        other = unicodedata.normalize("NFD" if form == "NFC" else "NFC", name)
        save(draw_mask(index), folder / f"ground_truth/{other}/{other}{index}_mask.png")
    for asked in (composed, stored):
        loaded = load_training_set(DataConfig(folder), asked, resolution=32)
        assert loaded.file_names == [f"test/{composed}/{composed}{index}.png" for index in range(2)]
    (listed := tmp_path / "list.txt").write_text(f"test/{stored}/{stored}1.png", encoding="utf-8")
    assert len(load_training_set(DataConfig(folder, file_list=listed), composed, resolution=32)) == 1
    own = DataSource(defect_dir=folder / "test" / stored, mask_dir=next((folder / "ground_truth").iterdir()))
    assert find_listing(own).defects == [composed]
    with pytest.raises(ValueError, match="a name that a folder can have"):
        find_listing(own, "a/b")
    by_other_form = DataSource(tmp_path, unicodedata.normalize("NFD", folder.name))
    assert find_listing(by_other_form).category == "Schraube_größer"
    rows = f"file_name,mask,defect\ntest/{composed}/{composed}0.png,,good\n"
    (folder / "metadata.csv").write_text(rows, encoding="utf-8")
    assert find_listing(DataSource(folder)).records[0].image_path.is_file()


def test_names_that_folders_can_have() -> None:
    assert all(is_folder_name(name) for name in [*NAMES, "crack", "bent.wire-2"])
    for name in (
        "",
        ".",
        "..",
        ".hidden",
        "a/b",
        "a\\b",
        "C:",
        "a?",
        "a\n",
        "a\x1b[2J",
        " a",
        "a.",
        "\udc80",
        "ß" * 101,
    ):
        assert not is_folder_name(name), name


@pytest.mark.parametrize("path", [".", "..", "absolute", "absolute as category", "../plate/."])
def test_a_path_gives_a_category_its_folder_s_name(category_folder: Path, monkeypatch, path: str) -> None:
    monkeypatch.chdir(category_folder / "train" if path == ".." else category_folder)
    source = {
        "absolute": DataSource(category_folder),
        "absolute as category": DataSource(category_folder.parent.parent, str(category_folder)),
        "../plate/.": DataSource(category_folder, "../plate/."),
    }.get(path, DataSource(Path(path)))
    assert find_listing(source).category == "plate"


def test_control_characters_are_printed_escaped_and_names_that_are_no_text_refused(category_folder: Path) -> None:
    nasty = "a\x1b[31m\nERROR fake.png"
    (category_folder / "train" / "good" / nasty).write_bytes(b"no image")
    report = check(category_folder)
    assert "\x1b" not in report.to_text()
    assert "a\\x1b[31m\\nERROR fake.png" in report.to_text()
    with pytest.raises(DataError, match=r"a\\x1b\[31m\\nERROR fake\.png"):
        load_training_set(DataConfig(category_folder), resolution=32)
    (category_folder / "train" / "good" / nasty).unlink()
    save(draw_photograph(1), category_folder / "train" / "good" / "b.png").rename(
        category_folder / "train" / "good" / "\udce9.png"
    )
    with pytest.raises(DataError, match=r"\\udce9\.png: a name with .* no text in UTF-8"):
        load_training_set(DataConfig(category_folder), resolution=32)
    (category_folder / "\udce9.txt").touch()
    assert check_dataset(CheckConfig(category_folder, output_dir=category_folder.parent.parent / "report")) == 2
    found = json.loads((category_folder.parent.parent / "report" / "report.json").read_text(encoding="utf-8"))[
        "findings"
    ]
    assert {"train/good/\\udce9.png", "\udce9.txt"} <= {name for finding in found for name in finding["files"]}
    assert printable("划痕 ß") == "划痕 ß"


def test_folders_that_nothing_is_in_are_ignored(category_folder: Path) -> None:
    (category_folder / "notes").mkdir()
    assert find_listing(DataSource(category_folder)).left_over == [
        LeftOver(category_folder / "notes", "ignored_files")
    ]


# Layouts of other published sets


def test_mvtec_loco_has_a_folder_of_masks_for_each_photograph(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, "juice_bottle", defects={"logical_anomalies": 2})
    save(draw_photograph(1), folder / "validation" / "good" / "000.png")
    (masks := folder / "ground_truth" / "logical_anomalies").joinpath("000_mask.png").unlink()
    parts = np.zeros((2, 40, 48), dtype=np.uint8)
    parts[0, :4, :4], parts[1, 20:24, 20:28] = 255, 17
    (masks / "001_mask.png").rename(masks / "moved.png")
    for index, part in enumerate(parts):
        save(part, masks / "000" / f"{index:03d}.png")
    (masks / "001").mkdir()
    (masks / "moved.png").rename(masks / "001" / "000.png")
    loaded = load_training_set(DataConfig(tmp_path, fit="pad"), "logical_anomalies", resolution=48)
    assert (loaded.masks[0] > 0).sum() == 4 * 4 + 4 * 8
    assert len(loaded) == 2
    assert left_over(folder) == {"validation": "unused"}


def test_mvtec_ad_2_keeps_masks_with_the_public_test_photographs(tmp_path: Path) -> None:
    drawn = draw_category(tmp_path, "can", defects={"bad": 3})
    (drawn / "test").rename(drawn / "test_public")
    (drawn / "ground_truth").rename(drawn / "test_public" / "ground_truth")
    save(draw_photograph(1), drawn / "test_private" / "000.png")
    save(draw_photograph(1), drawn / "validation" / "good" / "000.png")
    assert find_listing(DataSource(tmp_path, "can")).defects == ["bad"]
    assert load_training_set(DataConfig(tmp_path), "bad", resolution=32).masks.any()
    assert left_over(drawn) == {"test_private": "unused", "validation": "unused"}


def test_btad_calls_its_kinds_ok_and_ko(tmp_path: Path) -> None:
    drawn = draw_category(tmp_path, "01", defects={"ko": 3})
    (drawn / "train" / "good").rename(drawn / "train" / "ok")
    (drawn / "test" / "good").rename(drawn / "test" / "ok")
    for mask in sorted((drawn / "ground_truth" / "ko").iterdir()):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    assert len(load_training_set(DataConfig(tmp_path), resolution=32)) == 6
    assert len(load_training_set(DataConfig(tmp_path), "ko", resolution=32)) == 3
    assert left_over(drawn) == {}


def test_good_photographs_that_share_a_name_but_for_its_ending_are_told(category_folder: Path) -> None:
    """They are two photographs, versions of one, or a photograph and what nobody meant as one."""
    save(draw_photograph(99), category_folder / "train" / "good" / "000.jpg")
    report = check(category_folder)
    (told,) = (finding for finding in report.findings if finding.code == "same_stem")
    assert told.files == ("train/good/000.jpg = train/good/000.png",)
    assert told.severity == "warning"
    with pytest.warns(
        DataWarning, match="files that differ in their endings alone.*train/good/000.jpg = train/good/000"
    ):
        load_training_set(DataConfig(category_folder), resolution=32)


def test_photographs_in_formats_that_are_not_read_are_told_by_both(category_folder: Path) -> None:
    for name in ("a.heic", "b.JXL", "c.nef"):
        (category_folder / "train" / "good" / name).write_bytes(b"a photograph")
    report = check(category_folder)
    (told,) = (finding for finding in report.findings if finding.code == "unread_format")
    assert (told.severity, len(told.files)) == ("warning", 3)
    assert "unresolved: 3 photographs in a format that is not read" in report.account
    with pytest.warns(DataWarning, match=r"3 entries: photographs in a format that is not read.*Save them as PNG"):
        load_training_set(DataConfig(category_folder), resolution=32)


@pytest.mark.parametrize("name", ["train/good/000.tif", "train/good/000.gif", "ground_truth/scratch/000_mask.tif"])
def test_pages_that_are_not_used_are_told_by_both(category_folder: Path, name: str) -> None:
    """Such as the masks of several instances as the pages of one TIFF file."""
    path = category_folder / name
    draw = draw_mask if "mask" in name else draw_photograph
    pages = [Image.fromarray(draw(index)) for index in range(3)]
    path.with_suffix(".png").unlink()
    pages[0].save(path, save_all=True, append_images=pages[1:])
    defect = "scratch" if "mask" in name else None
    with pytest.warns(DataWarning, match=r"1 photograph in files of several pages.* the first page is used"):
        load_training_set(DataConfig(category_folder), defect, resolution=32)
    assert findings(category_folder)["more_pages"] == "warning"
