"""Parquet shards: what datasets loads, the card, and the way to the Hub."""

import io
import json
import subprocess
import sys
from pathlib import Path

import datasets
import numpy as np
import pyarrow.parquet
import pytest
import yaml

from tests.hub.client import environment as hub_environment
from tests.hub.repositories import WRITE_TOKEN
from tests.hub.server import local_hub


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
    monkeypatch.setattr("dfmgan_hf.export.parquet._ROW_GROUP_SIZE", 4)
    export(format="parquet", images_per_shard=10)
    metadata = pyarrow.parquet.read_metadata(tmp_path / "out/data/train-00000-of-00002.parquet")
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [4, 4, 2]


def test_card(export, tmp_path):
    summary = export(format="parquet", license="cc-by-nc-sa-4.0", max_mask_area=0.2, truncation_psi=0.9)
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
    assert "from one pixel to 0.2 of the image" in text


CLIENT = """
import contextlib, io, json, os, runpy, sys
from pathlib import Path

import datasets
from dfmgan_hf.data import load_mvtec_ad
from dfmgan_hf.export import ExportError, push_to_hub

model, work, script = sys.argv[1], Path(sys.argv[2]), sys.argv[3]
result = {}

def generate(name, num_images, *options):
    sys.argv = ["generate.py", "--model", model, "--output_dir", str(work / name), "--num_images", str(num_images),
                "--format", "parquet", "--images_per_shard", "3", "--defect", "hole", "--push_to_hub", *options]
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            runpy.run_path(script, run_name="__main__")
    except SystemExit as end:
        return str(end.code)
    return printed.getvalue()

@contextlib.contextmanager
def mistyped_token():
    token, os.environ["HF_TOKEN"] = os.environ["HF_TOKEN"], "hf_mistyped"
    yield
    os.environ["HF_TOKEN"] = token

def refusal(folder, repo):
    try:
        return push_to_hub(folder, repo)
    except ExportError as error:
        return str(error)

generate("nine", 9, "me/holes", "--private")
result["printed"] = generate("four", 4, "me/holes")
result["again"] = generate("four", 4, "me/holes")
with mistyped_token():
    result["refused before"] = generate("five", 5, "me/holes")
    result["refused after"] = refusal(work / "four", "me/holes")
(work / "four/generation/summary.json").rename(work / "summary.json")
result["unfinished"] = refusal(work / "four", "me/other")
loaded = datasets.load_dataset("me/holes", split="train")
ours = load_mvtec_ad("me/holes", cache_dir=work / "cache")["train"]
result |= {"index": loaded["index"][:], "seed": loaded["seed"][:], "mode": loaded[0]["mask"].mode,
           "names": ours["file_name"][:]}
(work / "answer.json").write_text(json.dumps(result))
"""


@pytest.mark.slow
def test_push_and_load_by_the_real_client(pipe, tmp_path, environment):
    pipe.save_pretrained(tmp_path / "model")
    script = Path(__file__).parents[2] / "examples" / "generate.py"
    with local_hub() as hub:
        environment |= {**hub_environment(hub.address, tmp_path / "home", WRITE_TOKEN), "HF_HUB_OFFLINE": "0"}
        run = subprocess.run(
            [sys.executable, "-c", CLIENT, str(tmp_path / "model"), str(tmp_path), str(script)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert run.returncode == 0, run.stderr[-3000:]
        pushed = hub.files("me/holes", "dataset")
    result = json.loads((tmp_path / "answer.json").read_text())
    # The second export has fewer shards: those of the first are gone.
    assert sorted(name for name in pushed if not name.startswith(".")) == [
        "README.md",
        "data/train-00000-of-00002.parquet",
        "data/train-00001-of-00002.parquet",
        "generation/contact_sheet.png",
        "generation/settings.json",
        "generation/summary.json",
    ]
    for name in ("README.md", "data/train-00001-of-00002.parquet"):
        assert pushed[name] == (tmp_path / "four" / name).read_bytes()
    table = pyarrow.parquet.read_table(io.BytesIO(pushed["data/train-00000-of-00002.parquet"]))
    assert result["index"] == [0, 1, 2, 3]
    assert result["seed"][:3] == table["seed"].to_pylist()
    assert result["mode"] == "L"
    assert result["names"][0] == "test/hole/000000.png"

    for printed in (result["printed"], result["again"]):
        assert "4 triplets in" in printed
        assert f"pushed  {hub.address}/datasets/me/holes/commit/" in printed
    assert "drew    0 in" in result["again"]
    assert "Not finished: me/holes cannot be written to: the Hub does not accept the token" in result["refused before"]
    assert not (tmp_path / "five").exists(), "drawn before it was known whether it can be pushed"
    assert "the Hub does not accept the token" in result["refused after"]
    assert f"All images are in {tmp_path / 'four'}: give the same command again" in result["refused after"]
    assert f"{tmp_path / 'four'}: no finished export in parquet. Expected README.md and" in result["unfinished"]
