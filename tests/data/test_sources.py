"""From what the user names to files: sets on the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfmgan_hf.data import DataConfig, DataError, DataSource, find_listing, load_mvtec_ad, load_training_set
from tests.data.conftest import draw_mask, draw_photograph, save


def test_names_of_a_set_on_the_hub_that_are_not_of_mvtec_ad_stay_apart(tmp_path: Path, monkeypatch) -> None:
    """As in an imagefolder that was pushed: its folders say neither split nor defect."""
    for folder, seed in (("a", 0), ("b", 1)):
        save(draw_photograph(seed), tmp_path / "set" / folder / "000.png")
        save(draw_mask(seed), tmp_path / "set" / "masks" / folder / "000.png")
    rows = [f"{folder}/000.png,masks/{folder}/000.png,dent" for folder in ("a", "b")]
    (tmp_path / "set" / "metadata.csv").write_text("\n".join(["file_name,mask,defect", *rows]))
    pushed = load_mvtec_ad(tmp_path / "set", "plate", cache_dir=tmp_path / "cache")
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
