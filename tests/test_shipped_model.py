"""The models in this repository: cards, numbers and README's table are of their weights and of each other."""

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
from dfmgan_hf.hub.cards import look_up, of_kinds, read_record, same_photographs
from dfmgan_hf.hub.push import HubConfig, published_files
from dfmgan_hf.metrics import PipelineSampler

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "models" / "dfmgan-magnetic-tile"
# What a reader judges the numbers by.
REFERENCES = {
    "real blowhole": "real patches with blowholes",
    "real good": "real good patches",
    "real images copied": "training images copied",
}
each_model = pytest.mark.parametrize("model", sorted(FOLDER.parent.iterdir()), ids=lambda model: model.name)
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


@each_model
def test_the_numbers_are_of_these_weights(model: Path):
    measured, references = (read_record(model / name) or {} for name in ("results.json", "reference_results.json"))
    generator = DFMGANPipeline.from_pretrained(model).generator
    assert set(of_kinds(measured)) == {*(generator.config.get("defect_names") or [""])}
    if model == FOLDER:
        assert set(references) == set(REFERENCES)
    for record in of_kinds(measured).values():
        assert record["settings"]["sampler"]["weights_sha256"] == module_sha256(generator), AGAIN
        assert all(same_photographs(record, reference) for reference in references.values())
    for record in (*of_kinds(measured).values(), *references.values()):
        assert record["metrics"]["clustered_lpips"]["network"] == "lpips-alex-v0.1"
        assert record["metrics"]["kid"]["features"]


@each_model
def test_the_card_is_made_of_the_folders_records(model: Path, tmp_path: Path):
    folder = tmp_path / model.name
    shutil.copytree(model, folder)
    (folder / "README.md").unlink()
    again = make_card(CardConfig(CardFacts(), folder, num_samples=0))
    assert again.read_text(encoding="utf-8") == (model / "README.md").read_text(encoding="utf-8"), AGAIN
    card = ModelCard.load(model / "README.md")
    assert card.data.eval_results
    # What was made from photographs under a licence has this licence, and a text of it.
    assert (card.data.license == "cc-by-nc-sa-4.0") == (model / "LICENSE").is_file() == ("mvtec" in model.name)
    assert (model / "generator" / "diffusion_pytorch_model.safetensors").stat().st_size < 20e6


@each_model
def test_what_is_pushed_has_the_licence_and_the_card(model: Path, tmp_path: Path):
    files = published_files(model, tmp_path, HubConfig())
    assert {"README.md", "samples.png"} <= files.keys()
    assert ("LICENSE" in files) == (model / "LICENSE").is_file()


@each_model
def test_models_draw_what_they_have_learnt(model: Path):
    output = DFMGANPipeline.from_pretrained(model)(seeds=range(8))
    assert sum(mask.getbbox() is not None for mask in output.masks) >= 4


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
    with pytest.raises(CardError, match=r"not those of this model: .*measure this one \(`dfmgan evaluate`\)"):
        make_card(CardConfig(CardFacts("org/other"), tmp_path / "model", num_samples=0))
    assert files == {p: p.read_bytes() for p in (tmp_path / "model").rglob("*") if p.is_file()}


def test_another_gate_does_not_get_these_numbers(tmp_path: Path):
    shutil.copytree(FOLDER, tmp_path / "model")
    config = tmp_path / "model" / "generator" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "soft_gate": True}))
    assert PipelineSampler(DFMGANPipeline.from_pretrained(tmp_path / "model")).settings["soft_gate"]
    with pytest.raises(CardError, match=r"measured with `soft_gate` False .*, where it is True\. Save and measure"):
        make_card(CardConfig(CardFacts("org/other"), tmp_path / "model", num_samples=0))


def test_readme_shows_the_numbers_of_the_records():
    section = (ROOT / "README.md").read_text(encoding="utf-8").split("\n## Measured\n", 1)[1].split("\n## ", 1)[0]
    table = [line for line in section.splitlines() if line.startswith("|")]
    assert table == readme_table(), "README's table is not that of results.json. Paste this:\n" + "\n".join(
        readme_table()
    )
