"""The function that makes a card, and what it leaves in the model's folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.hub import CardConfig, CardFacts, make_card

RESULTS = {
    "metrics": {"kid": {"kid": 0.01}},
    "settings": {"real_file_names": ["a.png"]},
    "options": {"data_dir": "/home/alice/plates"},
}


@pytest.fixture
def model_dir(make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_card_with_references_and_samples(model_dir, tmp_path):
    for name, kid in (("own", 0.01), ("cracks", 0.09)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**RESULTS, "metrics": {"kid": {"kid": kid}}}))
    (tmp_path / "facts.json").write_text(json.dumps({"product": "plates", "defect": "dents", "license": "mit"}))
    (tmp_path / "training_config.json").write_text(json.dumps({"images": 300}))
    make_card(
        CardConfig(
            CardFacts("org/plates", title="Plates", defect="scratches"),
            model=model_dir,
            card=tmp_path / "facts.json",
            results=tmp_path / "own.json",
            reference=(f"real cracks={tmp_path}/cracks.json",),
            backbone=tmp_path,
            num_samples=2,
        )
    )
    card = ModelCard.load(model_dir / "README.md")
    assert card.data.license == "mit"
    assert "Draws images of plates with scratches." in card.text
    assert "| | this model | real cracks |" in card.text
    assert "| KID x 1000, lower is closer | 10.00 | 90.00 |" in card.text
    assert "Stage 1: 300 photographs." in card.text
    assert "*Not selected: seeds 0 to 1." in card.text
    assert Image.open(model_dir / "samples.png").width > 300
    assert not any(b"/home/alice" in path.read_bytes() for path in model_dir.iterdir() if path.is_file())
    assert not list(model_dir.glob(".*"))

    # Once more, from what the folder has by now.
    make_card(CardConfig(CardFacts("org/plates", license="apache-2.0"), model=model_dir, num_samples=0))
    card = ModelCard.load(model_dir / "README.md")
    assert card.data.license == "apache-2.0"
    assert "| KID x 1000, lower is closer | 10.00 | 90.00 |" in card.text
    assert "Stage 1: 300 photographs." in card.text
    assert "![Generated samples](samples.png)" in card.text
    assert "*Not selected: seeds 0 to 1." in card.text
    # What was said the first time need not be said again; what is said again is new.
    assert "Draws images of plates with scratches." in card.text
    assert json.loads((model_dir / "card_facts.json").read_text()) == {
        "model_name": "org/plates",
        "title": "Plates",
        "product": "plates",
        "defect": "scratches",
        "license": "apache-2.0",
        "picture_caption": "Not selected: seeds 0 to 1. Nothing here is a photograph.",
    }


def test_facts_of_the_training_are_not_kept(model_dir):
    """A folder that is trained again for another defect must not keep the old one's name."""
    for defect in ("dent", "cut"):
        (model_dir / "training_config.json").write_text(json.dumps({"defect": defect}))
        make_card(CardConfig(CardFacts("org/plates"), model=model_dir, num_samples=0))
        assert f'with the defect "{defect}"' in (model_dir / "README.md").read_text()


def test_references_beside_the_results_are_taken(model_dir, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(RESULTS))
    references = {"real images copied": {**RESULTS, "metrics": {"kid": {"kid": -0.2}}, "versions": {"torch": "2"}}}
    (tmp_path / "reference_results.json").write_text(json.dumps(references))
    facts = CardFacts("org/plates")
    make_card(CardConfig(facts, model=model_dir, results=tmp_path / "results.json", num_samples=0))
    text = (model_dir / "README.md").read_text()
    assert "| KID x 1000, lower is closer | 10.00 | -200.00 |" in text
    assert "- The estimate of KID is unbiased" in text
    written = (model_dir / "reference_results.json").read_text()
    assert json.loads(written)["real images copied"].keys() == {"metrics", "settings"}
    assert "a.png" not in written


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reference": ("cracks.json",)}, r"`reference` must be name=results.json"),
        ({"results": Path("missing.json")}, r"missing.json holds no results"),
        ({"reference": ("cracks=missing.json",)}, r"missing.json holds no results"),
        ({"backbone": Path("missing")}, r"missing has no training_config.json"),
        ({"card": Path("missing.json")}, r"There is no file missing.json"),
        ({"model": Path("missing")}, r"missing "),
    ],
)
def test_nothing_is_written_if_something_is_missing(model_dir, options, message):
    before = sorted(model_dir.rglob("*"))
    with pytest.raises((OSError, ValueError), match=message):
        make_card(CardConfig(CardFacts("org/plates"), **{"model": model_dir, "num_samples": 0, **options}))
    assert sorted(model_dir.rglob("*")) == before
