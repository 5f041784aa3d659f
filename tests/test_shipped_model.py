"""The model in this repository: its card, its numbers and README's table are of its weights and of each other."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.files import module_sha256
from dfmgan_hf.hub import CardConfig, CardError, CardFacts, make_card
from dfmgan_hf.hub.cards import look_up

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "models" / "dfmgan-magnetic-tile"
# What a reader judges the numbers by.
REFERENCES = {
    "real blowhole": "real patches with blowholes",
    "real good": "real good patches",
    "real images copied": "training images copied",
}
AGAIN = "Measure it again and make its card again: docs/measuring.md."


def read(name: str) -> dict:
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def readme_table() -> list[str]:
    """README's table as the records have it."""
    results, references = read("results.json"), read("reference_results.json")
    columns = [results["metrics"], *(references[name]["metrics"] for name in REFERENCES)]

    def row(name: str, path: str, text: str, factor: float = 1) -> str:
        values = [look_up(metrics, path) for metrics in columns]
        return f"| {name} | " + " | ".join("-" if v is None else text.format(factor * v) for v in values) + " |"

    real_area = results["metrics"]["masks"]["real"]["area_mean"]
    return [
        "| | shipped model | " + " | ".join(REFERENCES.values()) + " |",
        "|---" * (len(columns) + 1) + "|",
        row("KID x 1000 (lower is closer)", "kid.kid", "{:.0f}", 1000),
        row("clustered LPIPS (higher is more varied)", "clustered_lpips.clustered_lpips", "{:.3f}"),
        row("LPIPS to the nearest training image, median", "nearest.median", "{:.3f}"),
        row("copies of training images", "nearest.copy_rate", "{:.1f} %", 100),
        row(f"mean area of the masks (real breaks: {real_area:.1%})".replace("%)", " %)"),
            "masks.generated.area_mean", "{:.1f} %", 100),
        row("empty masks", "masks.generated.empty_rate", "{:.1f} %", 100),
    ]  # fmt: skip


def test_the_numbers_are_of_these_weights():
    measured = read("results.json")
    generator = DFMGANPipeline.from_pretrained(FOLDER).generator
    assert measured["settings"]["sampler"]["weights_sha256"] == module_sha256(generator), AGAIN
    assert set(read("reference_results.json")) == set(REFERENCES)
    for record in (measured, *read("reference_results.json").values()):
        assert record["metrics"]["clustered_lpips"]["network"] == "lpips-alex-v0.1"
        assert record["metrics"]["kid"]["features"]
        assert record["settings"]["real_sha256"] == measured["settings"]["real_sha256"]


def test_the_card_is_made_of_the_folders_records(tmp_path: Path):
    folder = tmp_path / FOLDER.name
    shutil.copytree(FOLDER, folder)
    (folder / "README.md").unlink()
    again = make_card(CardConfig(CardFacts(), folder, num_samples=0))
    assert again.read_text(encoding="utf-8") == (FOLDER / "README.md").read_text(encoding="utf-8"), AGAIN
    assert ModelCard.load(FOLDER / "README.md").data.eval_results


def test_other_weights_do_not_get_these_numbers(tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "model")
    path = tmp_path / "model" / "generator" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(path)
    # In half precision they are the same model.
    save_file({name: tensor.half() for name, tensor in tensors.items()}, path)
    before = read("results.json")
    before["settings"]["sampler"]["weights_sha256"] = module_sha256(
        DFMGANPipeline.from_pretrained(tmp_path / "model").generator
    )
    (tmp_path / "model" / "results.json").write_text(json.dumps(before))
    make_card(CardConfig(CardFacts("org/same"), tmp_path / "model", num_samples=0))

    tensors["mapping.w_avg"] += 1
    save_file(tensors, path)
    files = {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}
    with pytest.raises(CardError, match=r"not those of the model in .*Measure this one: `dfmgan evaluate --model"):
        make_card(CardConfig(CardFacts("org/other"), tmp_path / "model", num_samples=0))
    assert files == {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}


def test_readme_shows_the_numbers_of_the_records():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Measured\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table == readme_table(), "README's table is not that of results.json. Paste this:\n" + "\n".join(
        readme_table()
    )
