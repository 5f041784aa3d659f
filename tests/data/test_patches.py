"""Patches: the same pixels as in the photograph, around the defect, every one traceable."""

from __future__ import annotations

import csv
import dataclasses
import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFile, ImageFilter

from dfmgan_hf.data import DataConfig, DataError, DataSource, DataWarning, find_listing, load_training_set
from dfmgan_hf.data.doctor import CheckConfig, examine
from dfmgan_hf.data.patches import TABLE_FILE, PatchConfig, covering_places, cut_patches, defect_places
from dfmgan_hf.files import whole_folder
from tests.data.conftest import draw_category, draw_mask, draw_photograph, save

CONFIG = PatchConfig(patch_size=24, good_patches=0, image_channels=1, output_dir=Path())


def _cut(source: Path, output: Path, config: PatchConfig = CONFIG) -> dict[str, int]:
    return cut_patches(dataclasses.replace(config, data_dir=source, output_dir=output))[0]


def _table(folder: Path) -> list[dict[str, str]]:
    with (folder / TABLE_FILE).open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def _pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_only_what_a_list_names_is_cut(category_folder: Path, tmp_path: Path) -> None:
    _cut(category_folder, tmp_path / "all")
    rows = _table(tmp_path / "all")
    names = sorted({row["photograph"] for row in rows})
    good = [name for name in names if name.startswith("train/good")]
    defects = [name for name in names if "/good/" not in name]
    file_list = tmp_path / "list.txt"
    for listed, cut in (
        ((good[0], defects[0]), {good[0], defects[0]}),
        (defects[:1], {defects[0], *(name for name in names if "/good/" in name)}),
    ):
        file_list.write_text("\n".join(listed))
        output = tmp_path / str(len(listed))
        _cut(category_folder, output, dataclasses.replace(CONFIG, file_list=file_list))
        # Their patches are those that are cut of them without a list.
        assert _table(output) == [{**row, "same_view": ""} for row in rows if row["photograph"] in cut]
    (tmp_path / "empty/train/good").mkdir(parents=True)
    with pytest.raises(DataError, match="no photographs"):
        _cut(tmp_path / "empty", tmp_path / "none", dataclasses.replace(CONFIG, file_list=file_list))
    file_list.write_text("test/elsewhere/0.png")
    with pytest.raises(DataError, match="1 names that are not in the data set"):
        _cut(category_folder, tmp_path / "none", dataclasses.replace(CONFIG, file_list=file_list))
    (tmp_path / "good_only/train").mkdir(parents=True)
    shutil.copytree(category_folder / "train/good", tmp_path / "good_only/train/good")
    with pytest.raises(DataError, match="1 names that are not in the data set"):
        _cut(tmp_path / "good_only", tmp_path / "none", dataclasses.replace(CONFIG, file_list=file_list))
    assert not (tmp_path / "none").exists()


def test_patches_are_the_photograph_s_own_pixels(category_folder: Path, tmp_path: Path) -> None:
    counts = _cut(category_folder, tmp_path / "patches")
    rows = _table(tmp_path / "patches")
    assert len(rows) == sum(counts.values()) == 6 * 4 + 2 * 4 + 5 + 3
    for row in rows:
        x, y = int(row["x"]), int(row["y"])
        window = np.s_[y : y + 24, x : x + 24]
        assert np.array_equal(
            _pixels(tmp_path / "patches" / row["file"]), _pixels(category_folder / row["photograph"])[window]
        )
        split, kind, name = row["file"].split("/")
        if kind == "good":
            continue
        stem, photograph = name.removesuffix(".png"), Path(row["photograph"])
        mask = _pixels(tmp_path / "patches" / "ground_truth" / kind / f"{stem}_mask.png")
        whole = _pixels(category_folder / "ground_truth" / kind / f"{photograph.stem}_mask.png")
        assert np.array_equal(mask, whole[window])
        assert split == "test"
        assert set(np.unique(mask)) == {0, 255}


def test_the_patches_load_for_training(category_folder: Path, tmp_path: Path) -> None:
    counts = _cut(category_folder, tmp_path / "patches", dataclasses.replace(CONFIG, defect_patches=2))
    good = load_training_set(DataConfig(tmp_path / "patches"), resolution=32, image_channels=1)
    dents = load_training_set(DataConfig(tmp_path / "patches"), "dent", resolution=32, image_channels=1)
    assert (len(good), len(dents)) == (counts["train/good"], 6)
    assert dents.masks is not None
    assert (dents.masks > 0).flatten(1).any(1).all()
    assert DataConfig(tmp_path / "patches").patch_size() == 24
    assert DataConfig(category_folder).patch_size() is None


@pytest.mark.parametrize(("height", "width"), [(24, 24), (25, 48), (40, 73), (100, 24)])
def test_a_photograph_is_covered(height: int, width: int) -> None:
    seen = np.zeros((height, width), bool)
    places = covering_places(height, width, 24)
    for x, y in places:
        assert seen[y : y + 24, x : x + 24].shape == (24, 24)
        seen[y : y + 24, x : x + 24] = True
    assert seen.all()
    assert len(places) == -(-height // 24) * -(-width // 24)


def test_a_small_defect_is_whole_and_anywhere_in_its_patch() -> None:
    mask = np.zeros((100, 120), bool)
    mask[50:56, 70:80] = True
    rng = np.random.default_rng(0)
    places = defect_places(mask, 32, 60, 0.5, rng)
    assert all(mask[y : y + 32, x : x + 32].sum() >= 0.95 * mask.sum() for x, y in places)
    assert np.ptp([x for x, _ in places]) > 15
    assert np.ptp([y for _, y in places]) > 15
    assert len(set(places)) == 60


def test_of_a_large_defect_the_rim_is_shown() -> None:
    mask = np.zeros((100, 120), bool)
    mask[10:90, 10:110] = True
    areas = [
        mask[y : y + 32, x : x + 32].mean() for x, y in defect_places(mask, 32, 40, 0.5, np.random.default_rng(0))
    ]
    assert min(areas) >= 0.47
    assert max(areas) <= 0.5


def test_a_defect_that_fills_every_patch_is_still_shown() -> None:
    (place,) = defect_places(np.ones((32, 32), bool), 32, 5, 0.5, np.random.default_rng(0))
    assert place == (0, 0)


def test_the_places_depend_on_the_seed_and_the_photograph_alone(category_folder: Path, tmp_path: Path) -> None:
    config = dataclasses.replace(CONFIG, good_patches=2)
    _cut(category_folder, tmp_path / "a", config)
    for file in (category_folder / "train" / "good").glob("00[01].png"):
        file.unlink()
    _cut(category_folder, tmp_path / "b", config)
    _cut(category_folder, tmp_path / "c", dataclasses.replace(config, seed=1))
    first, fewer, other = (_table(tmp_path / name) for name in "abc")
    assert fewer == [
        row
        for row in first
        if row["photograph"][-7:] not in ("000.png", "001.png") or "train" not in row["photograph"]
    ]
    assert {row["file"] for row in other} != {row["file"] for row in fewer}


def test_photographs_of_one_stem_keep_their_own_patches(category_folder: Path, tmp_path: Path) -> None:
    good = category_folder / "train" / "good"
    save(draw_photograph(77), good / "000.bmp")
    patches = _cut(category_folder, tmp_path / "cut", dataclasses.replace(CONFIG, image_channels=3))
    folder = tmp_path / "cut" / "train" / "good"
    assert len(list(folder.iterdir())) == patches["train/good"] == 7 * 4
    first, second = (np.asarray(Image.open(folder / f"{stem}_x00000_y00000.png")) for stem in ("000", "000_2"))
    np.testing.assert_array_equal(first[:, :, 0], draw_photograph(77)[:24, :24])  # .bmp comes before .png
    np.testing.assert_array_equal(second[:, :, 0], draw_photograph(0)[:24, :24])


def test_masks_of_train_and_test_keep_apart(tmp_path: Path) -> None:
    for split in ("train", "test"):
        save(draw_photograph(0), tmp_path / "set" / split / "000.png")
        save(draw_mask(0), tmp_path / "set" / split / "masks" / "000.png")
        (tmp_path / "set" / split / "metadata.csv").write_text("file_name,mask\n000.png,masks/000.png\n")
    _cut(tmp_path / "set", tmp_path / "patches", dataclasses.replace(CONFIG, patch_size=40, defect_patches=9))
    listing = find_listing(DataSource(tmp_path / "patches"))
    assert {record.split for record in listing.records} == {"train", "test"}
    assert not any(record.error for record in listing.records)


def test_what_cannot_be_cut_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    folder = draw_category(tmp_path / "dataset")
    small = save(draw_photograph(1, 50, 10), folder / "train" / "good" / "zz.png")
    with pytest.raises(DataError, match=r"zz\.png: 50x10 pixels\. Expected at least 24x24.*--patch_size") as raised:
        _cut(folder, tmp_path / "patches")
    assert raised.value.code == "too_small"
    assert [path.name for path in tmp_path.iterdir()] == ["dataset"]

    patches, skipped = cut_patches(
        dataclasses.replace(CONFIG, data_dir=folder, output_dir=tmp_path / "patches", skip_bad_files=True)
    )
    assert [error.path for error in skipped] == [str(small)]
    assert patches["train/good"] == 24

    with pytest.raises(FileExistsError, match="patches exists already"):
        _cut(folder, tmp_path / "patches")


@pytest.mark.parametrize(
    "values", [{"patch_size": 4}, {"good_patches": -1}, {"defect_patches": 0}, {"max_defect_area": 0.0}, {"seed": -1}]
)
def test_impossible_options_are_refused(values: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        PatchConfig(output_dir=Path(), **values)  # type: ignore[arg-type]


@pytest.mark.slow
def test_the_table_is_utf_8_whatever_the_system_s_encoding(tmp_path: Path) -> None:
    """On Windows, names are Unicode and files are opened in a code page unless told otherwise."""
    folder = draw_category(tmp_path / "dataset", defects={"划痕": 2})
    program = (
        "import sys; from pathlib import Path; from unittest.mock import patch\n"
        "import locale, _pyio, io, builtins\n"
        "def narrow(file, mode='r', buffering=-1, encoding=None, *rest, **options):\n"
        "    text = 'b' not in mode and encoding in (None, 'locale')\n"
        "    return real(file, mode, buffering, 'cp1252' if text else encoding, *rest, **options)\n"
        "real = io.open; io.open = builtins.open = narrow\n"
        "from dfmgan_hf.data.patches import PatchConfig, cut_patches\n"
        "cut_patches(PatchConfig(Path(sys.argv[1]), output_dir=Path(sys.argv[2]), patch_size=24))\n"
    )
    command = [sys.executable, "-c", program, str(folder), str(tmp_path / "patches")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run(command, check=True, env=environment, timeout=300)
    assert any(row["photograph"] == "test/划痕/000.png" for row in _table(tmp_path / "patches"))


def test_leaks_of_the_photographs_are_told_and_still_known_of_the_patches(tmp_path: Path) -> None:
    folder = draw_category(tmp_path / "dataset", good=20)
    shared = np.asarray(Image.open(folder / "train" / "good" / "003.png"))
    save(np.roll(np.clip(shared * 1.1, 0, 255).astype(np.uint8), 0, axis=0), folder / "test" / "good" / "000.png")
    with pytest.warns(
        DataWarning, match=r"1 pair .* in train and the other in test.*train/good/003\.png = test/good/000"
    ):
        _cut(folder, tmp_path / "patches")
    report = examine(CheckConfig(tmp_path / "patches", resolution=32))[0]
    leak = next(finding for finding in report.findings if finding.code == "train_test_leak")
    assert "train/good/003.png = test/good/000.png" in leak.files


def test_a_photograph_is_decoded_once(category_folder: Path, tmp_path: Path, monkeypatch) -> None:
    decoded: list[str] = []
    load = ImageFile.ImageFile.load

    def counted(self):
        if getattr(self, "fp", None) is not None and self.tile:
            decoded.append(str(self.fp.name))
        return load(self)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counted)
    _cut(category_folder, tmp_path / "patches")
    assert len(decoded) == len(set(decoded)) == 6 + 2 + 2 * (5 + 3)


def test_patches_of_nothing_are_not_cut(tmp_path: Path) -> None:
    folder = draw_category(tmp_path / "dataset")
    image = np.full((72, 72), 255, np.uint8)
    image[:24, :24] = draw_photograph(1, 24, 24)
    save(image, folder / "train" / "good" / "corner.png")
    _cut(folder, tmp_path / "patches")
    places = [(row["x"], row["y"]) for row in _table(tmp_path / "patches") if "corner" in row["photograph"]]
    assert places == [("0", "0")]


def test_a_photograph_without_a_patch_is_told_and_a_set_without_any_is_an_error(tmp_path: Path) -> None:
    folder = draw_category(tmp_path / "dataset", good=2)
    save(np.full((40, 48), 200, np.uint8) - np.eye(40, 48, 20, np.uint8), folder / "train/good/000.png")
    corner = dataclasses.replace(CONFIG, region=(0, 0.5, 0.4, 1))
    with pytest.warns(DataWarning, match=r"1 photograph without a patch.*train/good/000\.png"):
        assert _cut(folder, tmp_path / "some", corner)["train/good"] == 1
    small = dataclasses.replace(CONFIG, patch_size=64, skip_bad_files=True)
    with pytest.raises(DataError, match=r"48x40 pixels\. Expected at least 64x64"):  # of the first one left out
        _cut(folder, tmp_path / "none", small)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dataset", "some"]


def test_entries_that_are_not_cut_are_told(category_folder: Path, tmp_path: Path) -> None:
    save(draw_photograph(1), category_folder / "train" / "good" / "monday" / "a.png")
    with pytest.warns(DataWarning, match="folders of images where none are looked for"):
        _cut(category_folder, tmp_path / "patches")


def _object(x: int, y: int, seed: int) -> np.ndarray:
    """A small textured object at (x, y) on a plain, noisy table of 300x200 pixels."""
    image = np.full((200, 300), 190) + np.random.default_rng(seed).normal(0, 3, (200, 300))
    image[y : y + 30, x : x + 90] = draw_photograph(seed, 90, 30) * 0.6
    return image.clip(0, 255).astype(np.uint8)


def test_patches_of_good_photographs_show_the_product(tmp_path: Path) -> None:
    folder = draw_category(tmp_path / "dataset")
    objects = {f"object{i}.png": (20 + 40 * i, 10 + 35 * i) for i in range(5)}
    for number, (name, corner) in enumerate(objects.items()):
        save(_object(*corner, number), folder / "train" / "good" / name)
    _cut(folder, tmp_path / "patches", dataclasses.replace(CONFIG, patch_size=32))
    rows = [row for row in _table(tmp_path / "patches") if "object" in row["photograph"]]
    assert len(rows) == 5 * 3  # they cover 90 pixels
    for row in rows:
        x, y = objects[Path(row["photograph"]).name]
        assert x - 4 <= int(row["x"]) <= x + 62
        assert y - 4 <= int(row["y"]) <= y + 2
    _cut(folder, tmp_path / "region", dataclasses.replace(CONFIG, patch_size=32, region=(0.0, 0.5, 0.3, 1.0)))
    rows = [row for row in _table(tmp_path / "region") if "object" in row["photograph"]]
    assert {(row["x"], row["y"]) for row in rows} == {
        (x, y) for x in ("0", "29", "58") for y in ("100", "123", "145", "168")
    }


def test_the_size_is_proposed_from_the_masks_and_what_is_torn_is_said(tmp_path: Path, capsys) -> None:
    folder = draw_category(tmp_path / "dataset", defects={"dent": 2})
    for index, length in enumerate((10, 12)):
        save(draw_photograph(index, 120, 100), folder / "test" / "dent" / f"{index:03d}.png")
        mask = np.zeros((100, 120), dtype=np.uint8)
        mask[50:54, 30 : 30 + length] = 255
        save(mask, folder / "ground_truth" / "dent" / f"{index:03d}_mask.png")
    for path in (folder / "train" / "good").iterdir():
        save(draw_photograph(3, 60, 50), path)
    with warnings.catch_warnings(record=True) as caught:
        _cut(folder, tmp_path / "whole", dataclasses.replace(CONFIG, patch_size=None))
    assert _table(tmp_path / "whole")[0]["patch_size"] == "40"  # 44, but test/good has no more
    assert "Patches of 40 pixels" in capsys.readouterr().err
    assert "edge of a patch" not in " ".join(str(warning.message) for warning in caught)
    with pytest.warns(
        DataWarning, match="2 of 2 masks go on beyond the edge of a patch of 8 pixels.*larger --patch_size"
    ):
        _cut(folder, tmp_path / "torn", dataclasses.replace(CONFIG, patch_size=8))


def _screw(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A screw in any rotation on a plain table of uneven light, 1024x1024; where it is, and a defect of its thread."""
    rng, side = np.random.default_rng(seed), 1024
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j].astype(np.float32)
    table = 205 - 20 * (x**2 + y**2) + rng.normal(0, 3, (side, side))
    upright, damage = Image.new("L", (side, side)), Image.new("L", (side, side))
    pen = ImageDraw.Draw(upright)
    for box in ((252, 490, 712, 534), (712, 457, 752, 567)):
        pen.rectangle(box, fill=255)
    pen.polygon([(192, 512), (252, 490), (252, 534)], fill=255)
    start = int(rng.integers(260, 690))
    ImageDraw.Draw(damage).ellipse((start, 500, start + 45, 524), fill=255)
    turn = {"angle": float(rng.uniform(0, 360)), "translate": tuple(rng.integers(-120, 120, 2).tolist())}
    screw, defect = upright.rotate(**turn), np.asarray(damage.rotate(**turn)) > 0
    share = np.asarray(screw.filter(ImageFilter.GaussianBlur(2)), np.float32) / 255
    metal = 60 + 25 * np.sin(np.arange(side) / 4) + rng.normal(0, 6, (side, side))
    image = (table * (1 - share) + metal * share).clip(0, 255).astype(np.uint8)
    return image, np.asarray(screw) > 0, defect


def test_patches_of_a_thin_product_in_any_rotation(tmp_path: Path, capsys) -> None:
    folder, screws, defects = tmp_path / "screw", {}, {}
    for index in range(4):
        image, screws[f"train/good/{index:03d}.png"], _ = _screw(index)
        save(image, folder / "train" / "good" / f"{index:03d}.png")
    for index in range(3):
        image, _, defects[f"test/thread/{index:03d}.png"] = _screw(100 + index)
        defect = defects[f"test/thread/{index:03d}.png"]
        save(np.where(defect, 255 - image, image), folder / "test" / "thread" / f"{index:03d}.png")
        save(np.where(defect, 255, 0).astype(np.uint8), folder / "ground_truth" / "thread" / f"{index:03d}_mask.png")
    for size in (None, 24):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _cut(folder, tmp_path / f"patches{size}", dataclasses.replace(CONFIG, patch_size=size, good_patches=4))
        shares, torn = [], set()
        for row in _table(tmp_path / f"patches{size}"):
            name, side = row["photograph"], int(row["patch_size"])
            window = np.s_[int(row["y"]) : int(row["y"]) + side, int(row["x"]) : int(row["x"]) + side]
            if name in screws:
                shares.append(screws[name][window].mean())
            elif defects[name][window].sum() < defects[name].sum():
                torn.add(name)
        assert len(shares) == 16
        assert np.mean(np.array(shares) > 0.02) >= 0.9
        assert len(torn) == (3 if size else 0)
        told = [str(w.message) for w in caught if "edge of a patch" in str(w.message)]
        assert [text.partition(" masks")[0] for text in told] == (["3 of 3"] if size else [])
    assert re.search(r"Patches of (144|160|176) pixels", capsys.readouterr().err)  # four times the length


def test_the_size_is_proposed_beside_photographs_that_are_too_large(
    category_folder: Path, tmp_path: Path, monkeypatch
) -> None:
    save(draw_photograph(0, 100, 100), category_folder / "train/good/large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    config = PatchConfig(category_folder, output_dir=tmp_path / "patches", skip_bad_files=True)
    assert [error.code for error in cut_patches(config)[1]] == ["unreadable"]


def test_of_two_runs_into_one_folder_the_second_is_refused(category_folder: Path, tmp_path: Path) -> None:
    with (
        whole_folder(tmp_path / "patches"),
        pytest.raises(BlockingIOError, match=r"Another run is writing to .*patches"),
    ):
        _cut(category_folder, tmp_path / "patches")


def test_a_region_is_checked() -> None:
    with pytest.raises(ValueError, match="`region` must be left, top, right and bottom from 0 to 1"):
        PatchConfig(output_dir=Path(), region=(0.5, 0.0, 0.4, 1.0))


def test_patches_are_not_cut_among_the_photographs(category_folder: Path) -> None:
    """The next run would take them for a kind of defect."""
    before = sorted(category_folder.rglob("*"))
    for inside in ("", "test/patches", "train/good/patches"):
        with pytest.raises(ValueError, match="is or lies in a folder of photographs"):
            cut_patches(PatchConfig(category_folder, output_dir=category_folder / inside, patch_size=24))
    assert sorted(category_folder.rglob("*")) == before


def test_a_table_of_patches_that_is_damaged_is_told(category_folder: Path) -> None:
    (category_folder / "patches.csv").write_bytes(b"\xff\xfe\x00")
    for read in (DataConfig(category_folder).patch_size, DataConfig(category_folder).load_good):
        with pytest.raises(DataError, match=r"patches\.csv: no table in UTF-8 .*Cut the patches again"):
            read()
