"""The Hugging Face data set: features, sources, freshness, and the Hub by the real client."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import textwrap
from pathlib import Path
from unittest.mock import MagicMock

import datasets
import numpy as np
import pytest
import tifffile
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError
from PIL import Image

from dfmgan_hf.data import DataError, DataWarning
from dfmgan_hf.data.hub import load_mvtec_ad, make_dataset_card
from dfmgan_hf.data.layouts import MVTEC_AD_DEFECTS
from tests.data.conftest import draw_category, draw_mask, draw_photograph, save
from tests.hub.client import environment
from tests.hub.repositories import WRITE_TOKEN
from tests.hub.server import local_hub

datasets.disable_progress_bars()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "hf_cache"


def test_features_and_rows(tmp_path: Path, cache: Path) -> None:
    folder = draw_category(tmp_path / "mvtec", "hazelnut", good=4, defects={"crack": 2, "hole": 1})
    dataset = load_mvtec_ad(tmp_path / "mvtec", "hazelnut", cache_dir=cache)
    assert isinstance(dataset, datasets.DatasetDict)
    assert {split: rows.num_rows for split, rows in dataset.items()} == {"train": 4, "test": 5}
    features = dataset["test"].features
    assert features["image"] == datasets.Image(mode="RGB")
    assert features["mask"] == datasets.Image(mode="L")
    assert features["label"].names == ["normal", "anomalous"]
    assert features["defect"].names == ["good", "crack", "cut", "hole", "print"]
    assert features["category"].names == list(MVTEC_AD_DEFECTS)
    assert features["file_name"] == datasets.Value("string")
    assert dataset["train"].features == features
    for split in dataset.values():
        for row in split:
            name = row["file_name"]
            assert name.split("/")[1] == features["defect"].int2str(row["defect"])
            assert (row["label"] == 0) == (row["mask"] is None) == ("good" in name)
            expected = np.array(Image.open(folder / name).convert("RGB"))
            np.testing.assert_array_equal(np.array(row["image"]), expected)
            if row["mask"] is not None:
                kind, stem = name.split("/")[1], Path(name).stem
                np.testing.assert_array_equal(
                    np.array(row["mask"]), np.array(Image.open(folder / "ground_truth" / kind / f"{stem}_mask.png"))
                )


def test_16_bit_and_transparent_photographs_are_not_clipped(tmp_path: Path, cache: Path) -> None:
    folder = draw_category(tmp_path, good=1, defects={"dent": 1}, test_good=0)
    grey = draw_photograph(3)
    save(grey.astype(np.uint16) * 257, folder / "train" / "good" / "deep.png")
    save(
        np.dstack([grey, grey, grey, np.where(draw_mask(3), 0, 255).astype(np.uint8)]), folder / "train/good/alpha.png"
    )
    colour = np.dstack([grey, 255 - grey, grey])
    tifffile.imwrite(folder / "train/good/planes.tif", np.moveaxis(colour, -1, 0) * np.uint16(257), photometric="rgb")
    rows = {row["file_name"]: np.array(row["image"]) for row in load_mvtec_ad(folder, cache_dir=cache)["train"]}
    np.testing.assert_array_equal(rows["train/good/deep.png"][:, :, 0], grey)
    np.testing.assert_array_equal(rows["train/good/planes.tif"], colour)
    np.testing.assert_array_equal(rows["train/good/alpha.png"][:, :, 1], np.where(draw_mask(3), 0, grey))


def test_all_categories_at_once_and_unknown_ones(tmp_path: Path, cache: Path) -> None:
    draw_category(tmp_path, "hazelnut", good=2, defects={"crack": 1})
    draw_category(tmp_path, "bottle", good=3, defects={"broken_large": 1})
    both = load_mvtec_ad(tmp_path, cache_dir=cache)
    assert both["train"].num_rows == 5
    names = both["train"].features["category"].int2str(both["train"]["category"])
    assert sorted(set(names)) == ["bottle", "hazelnut"]
    one = load_mvtec_ad(tmp_path, "bottle", cache_dir=cache)
    joined = datasets.concatenate_datasets(
        [one["train"].remove_columns("defect"), both["train"].remove_columns("defect")]
    )
    assert joined.num_rows == 8
    with pytest.raises(
        DataError, match=r"no category 'bottel'. Expected one of bottle, hazelnut. Say --category bottle"
    ):
        load_mvtec_ad(tmp_path, "bottel", cache_dir=cache)
    draw_category(tmp_path / "mine", "bracket", good=2, defects={"bend": 1})
    own = load_mvtec_ad(tmp_path / "mine", "bracket", cache_dir=cache)
    assert own["test"].features["category"].names == ["bracket"]
    assert own["test"].features["defect"].names == ["good", "bend"]


def test_the_archive_is_a_source(tmp_path: Path, cache: Path) -> None:
    folder = draw_category(tmp_path, "hazelnut", good=2, defects={"crack": 1})
    with tarfile.open(archive := tmp_path / "hazelnut.tar.xz", "w:xz") as tar:
        tar.add(folder, arcname="hazelnut")
    from_archive = load_mvtec_ad(archive, "hazelnut", cache_dir=cache)
    from_folder = load_mvtec_ad(folder, cache_dir=cache)
    assert from_archive["test"]["file_name"] == from_folder["test"]["file_name"]
    np.testing.assert_array_equal(
        np.array(from_archive["test"][0]["image"]), np.array(from_folder["test"][0]["image"])
    )


def test_a_changed_folder_never_serves_stale_rows(category_folder: Path, cache: Path, monkeypatch) -> None:
    def load():
        return load_mvtec_ad(category_folder, cache_dir=cache)["test"]

    first = load()
    from dfmgan_hf.data import hub as rows

    with monkeypatch.context() as context:
        context.setattr(rows, "read_pair", None)  # unchanged: rows come from the cache
        assert load().num_rows == first.num_rows
    mask = category_folder / "ground_truth" / "scratch" / "001_mask.png"
    save(draw_mask(555).astype(np.uint8), mask)
    index = list(first["file_name"]).index("test/scratch/001.png")
    np.testing.assert_array_equal(np.array(load()[index]["mask"]) > 0, draw_mask(555))
    (category_folder / "test" / "dent" / "000.png").unlink()
    assert load().num_rows == first.num_rows - 1
    save(draw_photograph(9), category_folder / "test" / "good" / "new.png")
    assert load().num_rows == first.num_rows
    (category_folder / "test" / "good" / "new.png").rename(category_folder / "test" / "good" / "renamed.png")
    assert "test/good/renamed.png" in list(load()["file_name"])


def test_masks_that_change_places_are_noticed(category_folder: Path, cache: Path) -> None:
    """Files of the same size and time, as bitmaps out of one archive are: only the time of change tells."""
    folder = category_folder / "ground_truth" / "scratch"
    for index in (0, 1):
        (folder / f"{index:03d}_mask.png").unlink()
        save(np.where(draw_mask(index), 255, 0).astype(np.uint8), folder / f"{index:03d}_mask.bmp")
        os.utime(folder / f"{index:03d}_mask.bmp", (1, 1))

    def masks() -> list[np.ndarray]:
        rows = load_mvtec_ad(category_folder, cache_dir=cache)["test"]
        return [np.array(row["mask"]) > 0 for row in rows if row["file_name"].startswith("test/scratch/")][:2]

    for loaded, seed in zip(masks(), (0, 1), strict=True):
        np.testing.assert_array_equal(loaded, draw_mask(seed))
    (folder / "000_mask.bmp").rename(folder / "aside")
    (folder / "001_mask.bmp").rename(folder / "000_mask.bmp")
    (folder / "aside").rename(folder / "001_mask.bmp")
    for loaded, seed in zip(masks(), (1, 0), strict=True):
        np.testing.assert_array_equal(loaded, draw_mask(seed))


def test_turned_tiff_photographs_are_stored_upright(category_folder: Path, cache: Path) -> None:
    """Given the path, `datasets` would have Pillow scramble the pixels of an uncompressed one."""
    upright = draw_photograph(0)
    exif = Image.Exif()
    exif[0x0112] = 6
    (category_folder / "train" / "good" / "000.png").unlink()
    turned = Image.fromarray(np.ascontiguousarray(np.rot90(upright)))
    turned.save(category_folder / "train" / "good" / "000.tif", exif=exif)
    row = load_mvtec_ad(category_folder, cache_dir=cache)["train"][0]
    assert row["file_name"] == "train/good/000.tif"
    np.testing.assert_array_equal(np.array(row["image"])[:, :, 0], upright)


def test_one_bad_file_stops_with_its_name_or_is_skipped(category_folder: Path, cache: Path) -> None:
    (category_folder / "ground_truth" / "dent" / "001_mask.png").unlink()
    image = category_folder / "test" / "scratch" / "004.png"
    image.write_bytes(image.read_bytes()[:400])
    with pytest.raises(DataError, match=r"dent/001\.png: an image without a mask"):
        load_mvtec_ad(category_folder, cache_dir=cache)
    with pytest.warns(DataWarning, match=r"2 of 10 files were left out(.|\n)*dent/001\.png(.|\n)*004\.png: 400 bytes"):
        dataset = load_mvtec_ad(category_folder, cache_dir=cache, skip_bad_files=True)
    assert dataset["test"].num_rows == 8


def test_a_category_without_training_photographs_loads(tmp_path: Path, cache: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 2})
    dataset = load_mvtec_ad(folder, cache_dir=cache)
    assert dataset["train"].num_rows == 0
    assert dataset["train"].features == dataset["test"].features


def test_the_card_states_licence_counts_and_how_to_load(tmp_path: Path, cache: Path) -> None:
    draw_category(tmp_path, "hazelnut", good=4, defects={"crack": 2})
    card = make_dataset_card(load_mvtec_ad(tmp_path, "hazelnut", cache_dir=cache), "me/nuts")
    assert card.data.license == "cc-by-nc-sa-4.0"
    assert "image-segmentation" in card.data.task_categories
    assert "| hazelnut | good | 4 | 2 |" in card.text
    assert "| hazelnut | crack | 0 | 2 |" in card.text
    assert 'load_dataset("me/nuts", "hazelnut")' in card.text
    assert "Bergmann" in card.text
    own = load_mvtec_ad(draw_category(tmp_path / "mine"), cache_dir=cache)
    assert make_dataset_card(own, "me/plates").data.license == "unknown"
    assert "MVTec" not in make_dataset_card(own, "me/plates", "mit").text.replace("layout of MVTec AD", "")
    assert make_dataset_card(own, "me/plates", "mit").data.license == "mit"


CLIENT = """
import json, sys
import numpy as np
from dfmgan_hf.data import DataConfig, DataError, DataSource, find_listing, load_training_set
from dfmgan_hf.data.hub import load_mvtec_ad
from pathlib import Path

root, work = Path(sys.argv[1]), Path(sys.argv[2])
result = {}
local = load_mvtec_ad(root, "hazelnut", cache_dir=work / "a")
local.push_to_hub("me/nuts")
load_mvtec_ad(root, "bottle", cache_dir=work / "a").push_to_hub("me/nuts")

def compare(loaded):
    for split in ("train", "test"):
        assert loaded[split].features == local[split].features, loaded[split].features
        for left, right in zip(loaded[split], local[split], strict=True):
            assert left["file_name"] == right["file_name"], (left, right)
            assert left["defect"] == right["defect"]
            assert (np.array(left["image"]) == np.array(right["image"])).all()
            assert (left["mask"] is None) == (right["mask"] is None)
            assert left["mask"] is None or (np.array(left["mask"]) == np.array(right["mask"])).all()
    return True

result["own"] = compare(load_mvtec_ad("me/nuts", "hazelnut", cache_dir=work / "b"))
for repo, category in (("me/nuts", "hazelnutt"), ("me/nuts", None), ("me/nothing", "hazelnut")):
    try:
        load_mvtec_ad(repo, category, cache_dir=work / "d")
    except DataError as error:
        result[f"{repo} {category}"] = str(error)

here = load_training_set(DataConfig(root, "hazelnut"), "crack", resolution=32)
there = load_training_set(DataConfig("me/nuts", "hazelnut", cache_dir=work / "e"), "crack", resolution=32)
result["training"] = bool((here.images == there.images).all() and (here.masks == there.masks).all())
result["names"] = here.file_names == there.file_names
again = find_listing(DataSource("me/nuts", "hazelnut", cache_dir=work / "e"))
result["folder"] = sorted(path.name for path in again.root.parent.glob("[!.]*"))
Path(sys.argv[3]).write_text(json.dumps(result))
"""


def test_a_connection_that_breaks_does_not_cost_the_repository_its_card(category_folder, tmp_path, monkeypatch):
    api = MagicMock()
    api.hf_hub_download.side_effect = LocalEntryNotFoundError("no connection")
    monkeypatch.setattr("dfmgan_hf.data.hub.HfApi", lambda token: api)
    with pytest.raises(LocalEntryNotFoundError):
        load_mvtec_ad(category_folder, cache_dir=tmp_path).push_to_hub("me/plates")
    api.upload_file.assert_not_called()


@pytest.mark.parametrize(
    ("options", "revision"),
    [({"revision": "draft"}, "draft"), ({"create_pr": True}, "refs/pr/1"), ({}, None)],
    ids=["branch", "pull request", "main"],
)
def test_the_card_goes_where_the_photographs_go(category_folder: Path, tmp_path: Path, monkeypatch, options, revision):
    api = MagicMock()
    api.hf_hub_download.side_effect = EntryNotFoundError("no card")
    api.upload_file.return_value.pr_revision = "refs/pr/1" if "create_pr" in options else None
    monkeypatch.setattr("dfmgan_hf.data.hub.HfApi", lambda token: api)
    pushed = MagicMock()
    monkeypatch.setattr(datasets.DatasetDict, "push_to_hub", pushed)
    load_mvtec_ad(category_folder, cache_dir=tmp_path).push_to_hub("me/plates", **options)
    assert api.create_branch.called is (revision == "draft")
    assert api.upload_file.call_args.kwargs["revision"] == options.get("revision")
    assert api.upload_file.call_args.kwargs["create_pr"] is ("create_pr" in options)
    assert pushed.call_args.kwargs.get("revision") == revision
    assert "create_pr" not in pushed.call_args.kwargs


@pytest.mark.slow
def test_push_and_load_by_the_real_client(tmp_path: Path) -> None:
    root = tmp_path / "mvtec"
    draw_category(root, "hazelnut", good=3, defects={"crack": 2, "hole": 1})
    draw_category(root, "bottle", good=2, defects={"contamination": 1})
    with local_hub() as hub:
        answer = tmp_path / "answer.json"
        run = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(CLIENT), str(root), str(tmp_path / "work"), str(answer)],
            env={**os.environ, **environment(hub.address, tmp_path / "home", WRITE_TOKEN)},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        card = hub.files("me/nuts", "dataset")["README.md"].decode()
        files = sorted(hub.files("me/nuts", "dataset"))
    result = json.loads(answer.read_text())
    for name in ("own", "training", "names"):
        assert result[name] is True, name
    assert "no category 'hazelnutt'. Expected one of bottle, hazelnut" in result["me/nuts hazelnutt"]
    assert "several categories and none was chosen. Expected one of bottle, hazelnut" in result["me/nuts None"]
    assert "neither a folder or archive here nor a data set on the Hub" in result["me/nothing hazelnut"]
    assert result["folder"] == ["hazelnut"], "unpacked once, and nothing left aside"
    # datasets has added sizes and file names, and kept our text and licence.
    assert "license: cc-by-nc-sa-4.0" in card
    assert "config_name: hazelnut" in card
    assert "config_name: bottle" in card
    assert "| hazelnut | crack | 0 | 2 |" in card
    assert "| bottle | contamination | 0 | 1 |" in card
    assert [name for name in files if name.endswith(".parquet")] == [
        f"{category}/{split}-00000-of-00001.parquet"
        for category in ("bottle", "hazelnut")
        for split in ("test", "train")
    ]
