"""What is written, read by others' loaders and by our own: folders of PNG files, parquet shards and their card."""

import csv
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import yaml
from PIL import Image

from dfmgan_hf.data import DataConfig, load_mvtec_ad, load_training_set
from dfmgan_hf.export import ExportConfig, generate_dataset
from dfmgan_hf.export.writers import record_of

TABLE_COLUMNS = [
    "file_name",
    "mask_file_name",
    "defect_free_file_name",
    "index",
    "seed",
    "mask_area",
    "dropped_empty",
    "dropped_too_small",
    "dropped_too_large",
    "photograph",
    "gate",
    "category",
    "defect",
]


def rows(table: Path) -> list[dict[str, str]]:
    with table.open(newline="") as stream:
        return list(csv.DictReader(stream))


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("[!.]*") if path.is_file())


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_mvtec_files(export, pipe, tmp_path):
    summary = export(format="mvtec", category="nut", defect="deep scratch")
    out = tmp_path / "out"
    stems = [f"{i:06d}" for i in range(12)]
    assert files(out) == sorted(
        [f"nut/test/deep scratch/{stem}.png" for stem in stems]
        + [f"nut/ground_truth/deep scratch/{stem}_mask.png" for stem in stems]
        + [f"nut/test/good/{stem}.png" for stem in stems]
        + ["seeds.csv"]
        + [f"generation/{name}" for name in ("settings.json", "summary.json", "contact_sheet.png")]
    )
    table = rows(out / "seeds.csv")
    assert list(table[0]) == TABLE_COLUMNS
    assert [int(row["index"]) for row in table] == list(range(12))
    for row in table:
        output = pipe(seeds=[int(row["seed"])])
        assert np.array_equal(pixels(out / row["file_name"]), output.images[0])
        assert np.array_equal(pixels(out / row["mask_file_name"]), output.masks[0])
        assert np.array_equal(pixels(out / row["defect_free_file_name"]), output.defect_free_images[0])
        mask = Image.open(out / row["mask_file_name"])
        assert mask.mode == "L"
        assert set(np.unique(mask)) <= {0, 255}
        assert float(row["mask_area"]) == (np.asarray(mask) != 0).mean() > 0
        assert (row["category"], row["defect"]) == ("nut", "deep scratch")
        record = record_of(out / row["file_name"])
        assert (str(record.index), str(record.seed)) == (row["index"], row["seed"])
    assert summary.num_images == summary.num_drawn == 12
    assert summary.dropped["empty"] == sum(int(row["dropped_empty"]) for row in table) > 0


def anomalib_mvtec_samples(root: Path, split: str) -> list[tuple[str, Path, Path | None]]:
    """What anomalib 2's MVTecAD takes from `root/category`, in its own steps.

    Every .png below the category is a row of its last three path parts, (split, label, file). Rows of the split
    "ground_truth" are masks. Sorted by path, the masks are put beside the rows of "test" whose label is not "good";
    each must hold its image's stem in its own.
    """
    found = [path for path in root.glob("**/*") if path.suffix in (".png", ".PNG")]
    masks = sorted(str(path) for path in found if path.parts[-3] == "ground_truth")
    others = sorted(str(path) for path in found if path.parts[-3] != "ground_truth")
    abnormal = [path for path in map(Path, others) if path.parts[-3] == "test" and path.parts[-2] != "good"]
    assert len(masks) == len(abnormal)
    mask_of = dict(zip(abnormal, map(Path, masks), strict=True))
    assert all(image.stem in mask.stem for image, mask in mask_of.items())
    return [(path.parts[-2], path, mask_of.get(path)) for path in map(Path, others) if path.parts[-3] == split]


def anomalib_folder_samples(normal_dir: Path, abnormal_dir: Path, mask_dir: Path) -> list[tuple[Path, Path]]:
    """What anomalib 2's Folder takes: all files of the folders in the order of their paths, paired by that order."""
    images, masks = (sorted(path for path in folder.glob("**/*")) for folder in (abnormal_dir, mask_dir))
    assert all(path.suffix == ".png" for folder in (normal_dir, abnormal_dir, mask_dir) for path in folder.iterdir())
    assert all(image.stem in mask.stem for image, mask in zip(images, masks, strict=True))
    return list(zip(images, masks, strict=True))


def test_mvtec_is_what_anomalib_expects(export, tmp_path):
    export(format="mvtec", category="nut", defect="scratch", twins="train")
    root = tmp_path / "out" / "nut"
    train, test = anomalib_mvtec_samples(root, "train"), anomalib_mvtec_samples(root, "test")
    assert [(label, mask) for label, _, mask in train] == [("good", None)] * 12
    assert [label for label, _, _ in test] == ["scratch"] * 12
    pairs = anomalib_folder_samples(root / "train/good", root / "test/scratch", root / "ground_truth/scratch")
    assert pairs == [(image, mask) for _, image, mask in test]
    for (_, image, mask), (_, twin, _) in zip(test, train, strict=True):
        assert image.stem == twin.stem
        with_defect, without, where = (pixels(path).astype(int) for path in (image, twin, mask))
        assert (with_defect != without).any(), "the mask is not empty, so there is a defect"
        assert where.any()


def test_twins_for_testing(export, tmp_path):
    """With photographs in train/good, nothing that a detector is trained on comes again in its test."""
    export(format="mvtec", category="nut", defect="scratch")
    root = tmp_path / "out" / "nut"
    assert not (root / "train").exists()
    (root / "train/good").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(root / "train/good/photograph.png")
    assert [path.name for _, path, _ in anomalib_mvtec_samples(root, "train")] == ["photograph.png"]
    test = anomalib_mvtec_samples(root, "test")
    assert [(label, mask is None) for label, _, mask in test] == [("good", True)] * 12 + [("scratch", False)] * 12
    assert rows(tmp_path / "out/seeds.csv")[3]["defect_free_file_name"] == "nut/test/good/000003.png"


def test_mvtec_is_what_our_own_loaders_read(export, tmp_path):
    export(format="mvtec", category="nut", defect="scratch", twins="train")
    out = tmp_path / "out"
    training = load_training_set(DataConfig(out), "scratch", resolution=32)
    assert training.file_names == [f"test/scratch/{i:06d}.png" for i in range(12)]
    for i, row in enumerate(rows(out / "seeds.csv")):
        assert np.array_equal(training[i]["image"].permute(1, 2, 0), pixels(out / row["file_name"]))
        assert np.array_equal(training[i]["mask"][0], pixels(out / row["mask_file_name"]))
    assert len(load_training_set(DataConfig(out), resolution=32)) == 12
    hub_form = load_mvtec_ad(out, "nut", cache_dir=tmp_path / "cache")
    assert {name: len(split) for name, split in hub_form.items()} == {"train": 12, "test": 12}


def test_imagefolder_is_what_datasets_reads(export, tmp_path):
    export(format="imagefolder", category="nut", defect="scratch")
    out = tmp_path / "out"
    loaded = datasets.load_dataset("imagefolder", data_dir=str(out), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    train = loaded["train"]
    assert train.column_names == ["image", "mask", "defect_free", *TABLE_COLUMNS[3:]]
    assert train["index"][:] == list(range(12))
    for row, entry in zip(rows(out / "metadata.csv"), train, strict=True):
        for column in ("image", "mask", "defect_free"):
            name = row["file_name" if column == "image" else f"{column}_file_name"]
            assert np.array_equal(entry[column], pixels(out / name))
        assert entry["seed"] == int(row["seed"])
        assert entry["mask_area"] == float(row["mask_area"])
        assert entry["defect"] == "scratch"
    training = load_training_set(DataConfig(out), "scratch", resolution=32)
    assert len(training) == 12
    assert bool((training.masks.flatten(1) != 0).any(1).all())


@pytest.mark.parametrize("format", ["mvtec", "imagefolder", "parquet"])
def test_grey_images(make_pipe, tmp_path, format):
    grey = make_pipe(image_channels=1)
    generate_dataset(grey, ExportConfig(tmp_path, num_images=3, format=format), model_name="grey")
    if format == "parquet":
        entry = datasets.load_dataset(str(tmp_path), cache_dir=str(tmp_path / "cache"))["train"][0]
        assert entry["image"].mode == entry["defect_free"].mode == "L"
    else:
        name = "object/test/defect/000000.png" if format == "mvtec" else "images/000000.png"
        assert Image.open(tmp_path / name).mode == "L"


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


def test_the_card_knows_every_column_and_the_gate(export, gate, tmp_path):
    summary = export(format="parquet", gate=gate)
    card = (tmp_path / "out/README.md").read_text()
    for column in pyarrow.parquet.read_schema(tmp_path / "out/data/train-00000-of-00001.parquet").names:
        assert f"`{column}`" in card
    assert f"0 too large. The quality gate refused {sum(summary.refused.values())} more.\n" in card


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
