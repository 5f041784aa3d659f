"""From what the user names to files: sets on the Hub."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
import torch
from datasets.table import embed_table_storage

from dfmgan_hf.data import DataConfig, DataError, DataSource, find_listing, load_mvtec_ad, load_training_set
from dfmgan_hf.data.hub import make_features
from dfmgan_hf.data.sources import check_place
from tests.data.conftest import draw_category, draw_mask, draw_photograph, save


def test_names_of_a_set_on_the_hub_that_are_not_of_mvtec_ad_stay_apart(tmp_path: Path, monkeypatch) -> None:
    """As in an imagefolder that was pushed: its folders say neither split nor defect."""
    for folder, seed in (("a", 0), ("b", 1)):
        save(draw_photograph(seed), tmp_path / "set" / folder / "000.png")
        save(draw_mask(seed), tmp_path / "set" / "masks" / folder / "000.png")
    rows = [f"{folder}/000.png,masks/{folder}/000.png,dent" for folder in ("a", "b")]
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(["file_name,mask,defect", *rows]))
    made = load_mvtec_ad(tmp_path / "set", "plate", cache_dir=tmp_path / "cache")
    # As pushing does: the files' content goes into the rows.
    pushed = made.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    monkeypatch.setattr("dfmgan_hf.data.hub.load_mvtec_ad", lambda *arguments, **options: pushed)
    again = load_training_set(DataConfig("me/plates", "plate", cache_dir=tmp_path / "cache"), "dent", resolution=32)
    assert again.file_names == ["test/dent/a_000.png", "test/dent/b_000.png"]
    here = load_training_set(DataConfig(tmp_path / "set"), "dent", resolution=32)
    assert torch.equal(again.images, here.images)
    assert torch.equal(again.masks, here.masks)


def test_a_misspelt_path_that_looks_like_a_hub_id_is_explained_without_a_connection(monkeypatch) -> None:
    def unreachable(*arguments, **options):
        raise ConnectionError("Couldn't reach 'data/magnetc_tile' on the Hub")

    monkeypatch.setattr("datasets.get_dataset_config_names", unreachable)
    with pytest.raises(DataError, match=r"data/magnetc_tile: neither a folder nor an archive here, and no connection"):
        find_listing(DataSource("data/magnetc_tile"))


def _hostile(tmp_path: Path, row: dict[str, object]) -> datasets.DatasetDict:
    """A set as it may come from the Hub: `row` beside a harmless one."""
    secret = save(draw_photograph(7), tmp_path / "secret.png")
    harmless = save(draw_photograph(8), tmp_path / "harmless.png").read_bytes()
    rows = [
        {
            "image": {"bytes": harmless, "path": "a.png"},
            "mask": None,
            "label": 0,
            "defect": 0,
            "category": 0,
            "file_name": "train/good/a.png",
            **change,
        }
        for change in ({}, {"image": {"bytes": None, "path": str(secret)}, "file_name": "train/good/b.png"} | row)
    ]
    features = make_features(["plate"], ["dent"])
    return datasets.DatasetDict({"train": datasets.Dataset.from_list(rows, features=features)})


def _on_the_hub(monkeypatch, loaded: datasets.DatasetDict, config: str = "plate") -> None:
    monkeypatch.setattr("datasets.get_dataset_config_names", lambda *arguments, **options: [config])
    monkeypatch.setattr("datasets.load_dataset", lambda *arguments, **options: loaded)


def _image(path: Path) -> dict[str, object]:
    return {"bytes": path.read_bytes(), "path": "b.png"}


@pytest.mark.parametrize("column", ["image", "mask"])
def test_a_path_that_a_remote_row_names_is_never_read(tmp_path: Path, monkeypatch, column: str) -> None:
    loaded = _hostile(tmp_path, {})
    path = {"bytes": None, "path": str(tmp_path / "secret.png")}
    if column == "mask":
        loaded = _hostile(tmp_path, {"image": _image(tmp_path / "harmless.png"), "mask": path, "defect": 1})
    _on_the_hub(monkeypatch, loaded)
    with pytest.raises(DataError, match=r"a row whose image is the path '.*secret\.png', without its content"):
        load_mvtec_ad("me/plates", "plate")
    with pytest.raises(DataError, match="without its content"):
        load_training_set(DataConfig("me/plates", "plate", cache_dir=tmp_path / "cache"), resolution=32)
    assert not list((tmp_path).rglob("b.png"))


def test_a_path_is_not_written_where_it_comes_past_the_loader_either(tmp_path: Path, monkeypatch) -> None:
    loaded = _hostile(tmp_path, {})
    monkeypatch.setattr("dfmgan_hf.data.hub.load_mvtec_ad", lambda *arguments, **options: loaded)
    with pytest.raises(DataError, match="without its content"):
        load_training_set(DataConfig("me/plates", "plate", cache_dir=tmp_path / "cache"), resolution=32)
    assert not list((tmp_path).rglob("b.png"))


def test_a_set_with_other_columns_is_told_which_are_expected(tmp_path: Path, monkeypatch) -> None:
    _on_the_hub(monkeypatch, _hostile(tmp_path, {}).rename_columns({"image": "image_path", "mask": "mask_path"}))
    expected = "Expected image, mask, label, defect, category, file_name"
    with pytest.raises(DataError, match=rf"me/plates: the columns category, .*, image_path, .*\. {expected}\."):
        load_mvtec_ad("me/plates", "plate")


def test_a_category_that_a_set_names_but_does_not_hold_is_refused_with_those_that_are_there(tmp_path, monkeypatch):
    folder = draw_category(tmp_path / "set", "hazelnut", good=2, defects={"crack": 1})
    loaded = load_mvtec_ad(folder.parent, "hazelnut", cache_dir=tmp_path / "cache")
    loaded = loaded.with_format("arrow").map(embed_table_storage, batched=True).with_format(None)
    _on_the_hub(monkeypatch, loaded, "default")
    source = DataConfig("me/nuts", "bottle", cache_dir=tmp_path / "cache")
    with pytest.raises(DataError, match=r"me/nuts: no category 'bottle'\. Expected one of hazelnut\. Say --category"):
        load_training_set(source, resolution=32)
    empty = loaded.filter(lambda _: False)
    for config in ("default", "bottle"):
        _on_the_hub(monkeypatch, empty, config)
        with pytest.raises(DataError, match=r"me/nuts: a data set without a row"):
            load_training_set(source, resolution=32)


@pytest.mark.parametrize("name", ["train/good/a.png", "train/good/..", "train/good/\x1b[2J.png", "../../b.png"])
def test_rows_that_overwrite_or_whose_names_are_none_are_refused(tmp_path: Path, monkeypatch, name: str) -> None:
    save(draw_photograph(8), tmp_path / "harmless.png")
    _on_the_hub(monkeypatch, _hostile(tmp_path, {"image": _image(tmp_path / "harmless.png"), "file_name": name}))
    with pytest.raises(DataError, match=r"two rows that would be one file|no plain file name") as raised:
        load_training_set(DataConfig("me/plates", "plate", cache_dir=tmp_path / "cache"), resolution=32)
    assert "\x1b" not in str(raised.value)


@pytest.mark.parametrize("source", [DataSource(Path("exp"), "part"), DataSource(Path("exp/instances.json"))])
def test_nothing_is_written_among_labelled_photographs(source: DataSource, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("exp").mkdir()
    Path("exp/instances.json").write_text("{}")
    with pytest.raises(ValueError, match=r"exp/check is or lies in a folder of photographs"):
        check_place(Path("exp/check"), source)
    check_place(Path("check"), source)


def test_output_may_lie_beside_the_folder_of_a_category(tmp_path: Path) -> None:
    (tmp_path / "part").mkdir()
    check_place(tmp_path / "runs", DataSource(tmp_path, "part"))
    with pytest.raises(ValueError, match="folder of photographs"):
        check_place(tmp_path / "part/runs", DataSource(tmp_path, "part"))
