"""Parquet shards: what datasets loads, and the card."""

from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import yaml


def load(source: str, tmp_path: Path, **options):
    return datasets.load_dataset(source, cache_dir=str(tmp_path / "cache"), split="train", **options)


def test_shards_load(export, pipe, tmp_path):
    summary = export(format="parquet", images_per_shard=5, category="hazelnut", defect="hole")
    out = tmp_path / "out"
    names = sorted(path.name for path in (out / "data").iterdir())
    assert names == [f"train-{shard:05d}-of-00003.parquet" for shard in range(3)]
    assert [pyarrow.parquet.read_metadata(out / "data" / name).num_rows for name in names] == [5, 5, 2]

    train = load("parquet", tmp_path, data_files=str(out / "data" / "*.parquet"))
    assert isinstance(train.features["image"], datasets.Image)
    assert train.features["mask"].mode == "L"
    assert train["index"][:] == list(range(12))
    dropped = 0
    for entry in train:
        output = pipe(seeds=[entry["seed"]])
        assert np.array_equal(entry["image"], output.images[0])
        assert np.array_equal(entry["mask"], output.masks[0])
        assert np.array_equal(entry["defect_free"], output.defect_free_images[0])
        assert entry["mask_area"] == (np.asarray(entry["mask"]) != 0).mean()
        assert train.features["defect"].int2str(entry["defect"]) == "hole"
        assert train.features["category"].int2str(entry["category"]) == "hazelnut"
        assert train.features["label"].int2str(entry["label"]) == "anomalous"
        dropped += entry["dropped_empty"]
    assert summary.dropped == {"empty": dropped, "too_small": 0, "too_large": 0}
    assert dropped > 0
    # The folder itself loads by its card, whatever else lies in it.
    assert load(str(out), tmp_path).features == train.features


def test_row_groups_are_small(export, tmp_path, monkeypatch):
    monkeypatch.setattr("dfmgan_hf.export.writers.ROW_GROUP_SIZE", 4)
    export(format="parquet", images_per_shard=10)
    metadata = pyarrow.parquet.read_metadata(tmp_path / "out/data/train-00000-of-00002.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 2]


def test_card(export, tmp_path):
    summary = export(format="parquet", license="cc-by-nc-sa-4.0", max_mask_area=0.1, truncation_psi=0.9)
    card = (tmp_path / "out/README.md").read_text()
    _, front, text = card.split("---\n", 2)
    metadata = yaml.safe_load(front)
    assert metadata["license"] == "cc-by-nc-sa-4.0"
    assert metadata["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    assert metadata["size_categories"] == ["n<1K"]
    assert "| truncation_psi | 0.9 |" in text
    assert "| model | tiny |" in text
    dropped = summary.dropped
    assert dropped["too_large"] > 0
    assert f"were dropped: {dropped['empty']} empty, 0 too small, {dropped['too_large']} too large." in text
    assert "from one pixel to 0.1 of the image" in text
