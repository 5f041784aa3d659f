"""Model cards: what is known stands in them, what is not is left out, and the Hub's own parser reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.hub import CardConfig, CardError, CardFacts, build_model_card, make_card
from dfmgan_hf.hub.cards import add_results, loaded_from, read_facts

FACTS = CardFacts(model_name="org/plates", title="Plates", product="steel plates", defect="scratches")
RESULTS = {
    "metrics": {
        "kid": {
            "kid": 0.0125,
            "features": "AlexNet",
            "unbiased": {"interval": [0.01, 0.02], "confidence": 0.95},
        },
        "clustered_lpips": {
            "clustered_lpips": 0.25,
            "pairwise_lpips": 0.5,
            "network": "LPIPS",
            "num_empty": 1,
            "num_clusters": 4,
        },
        "nearest": {"median": 0.3, "copy_rate": None},
    },
    "settings": {"num_generated": 1000, "num_generated_lpips": 100, "num_real": 4, "resolution": [32, 32]},
}


def parse(card) -> ModelCard:
    return ModelCard(str(card))


def test_minimal_card_leaves_out_what_is_not_known(model_dir):
    card = parse(build_model_card(model_dir, FACTS))
    assert card.data.library_name == "diffusers"
    assert card.data.pipeline_tag == "unconditional-image-generation"
    assert card.data.license is None
    assert card.data.eval_results is None
    assert "steel plates with scratches" in card.text
    assert 'from_pretrained("org/plates")' in card.text
    for absent in ("## Measured", "## Data and licence", "## Limits", "None", "Stage", "{{", "{%", "\n\n\n"):
        assert absent not in card.text


def test_full_card(model_dir):
    (model_dir / "results.json").write_text(json.dumps(RESULTS))
    record = {
        "method": "dfmgan",
        "images": 32,
        "recipe": {"batch_size": 16},
        "result": {"images_seen": 20000, "training_seconds": 600.0},
    }
    (model_dir / "training_config.json").write_text(json.dumps(record))
    facts = CardFacts(
        **{**FACTS.__dict__, "license": "apache-2.0", "dataset_name": "Plates 2020", "dataset_license": "CC BY 4.0"},
    )
    card = parse(
        build_model_card(
            model_dir,
            facts,
            records={
                "backbone_training_config.json": {**record, "method": "stage1", "images": 400},
                "reference_results.json": {
                    "another defect": {"metrics": {"kid": {"kid": 0.1, "features": "AlexNet"}}},
                    "another network": {"metrics": {"kid": {"kid": 0.2, "features": "Inception"}}},
                },
            },
            with_picture=True,
        )
    )
    assert {(r.metric_type, r.metric_value) for r in card.data.eval_results} == {("kid", 12.5), ("lpips", 0.25)}
    assert "| KID x 1000, lower is closer | 12.50 | 100.00 | - |" in card.text
    assert "| Clustered LPIPS, higher is more varied | 0.2500 | - | - |" in card.text
    assert "copies" not in card.text  # not measured
    assert "Stage 1: 400 photographs, 20 kimg (1,250 steps of batch 16), 10 minutes." in card.text
    assert "Stage 2: 32 photographs" in card.text
    assert "![Generated samples](samples.png)" in card.text
    assert "1 of 4 clusters empty" in card.text
    assert "CC BY 4.0" in card.text


def test_how_it_was_measured_is_said(model_dir):
    copies = {"metrics": {"kid": {"kid": -0.1, "features": "AlexNet"}}, "settings": {"num_generated": 4}}
    records = {"results.json": RESULTS, "reference_results.json": {"copies": copies}}
    card = parse(build_model_card(model_dir, FACTS, records=records))
    assert "| Images | 1,000 | 4 |" in card.text
    assert "for the same images twice it lies below" in card.text
    names = {r.metric_type: r.metric_name for r in card.data.eval_results}
    assert names["kid"] == "KID x 1000, lower is closer (AlexNet)"
    plain = parse(build_model_card(model_dir, FACTS, records={"results.json": RESULTS})).text
    assert "unbiased" not in plain


@pytest.mark.parametrize("order", [("dent", "crack"), ("crack", "dent")])
def test_a_kind_may_lack_a_metric(model_dir, order):
    """Of a single photograph there is no KID, and no other real image that is nearest to it."""
    lpips = {"clustered_lpips": RESULTS["metrics"]["clustered_lpips"]}
    of_one = {"metrics": lpips | {"nearest": {"median": 0.3, "real_median": None}}}
    kinds = {"dent": RESULTS, "crack": {**of_one, "settings": {**RESULTS["settings"], "num_real": 1}}}
    results = {"kinds": {kind: kinds[kind] for kind in order}}
    text = parse(build_model_card(model_dir, FACTS, records={"results.json": results})).text
    values = {"dent": "12.50", "crack": "-"}
    assert f"| KID x 1000, lower is closer | {values[order[0]]} | {values[order[1]]} |" in text
    assert "KID on the features of AlexNet; 95% interval 10.00 to 20.00 (dent)." in text
    assert "| Clustered LPIPS, higher is more varied | 0.2500 | 0.2500 |" in text
    reals = ", ".join({"dent": "4 (dent)", "crack": "1 (crack)"}[kind] for kind in order)
    assert f"of each kind against {reals} real ones" in text


def test_images_are_counted_where_only_lpips_was_measured(model_dir):
    settings = RESULTS["settings"]
    for counts, number, note in (
        ({"num_generated": 0, "num_generated_lpips": 100}, "100", "100 generated images (100 for LPIPS) against"),
        ({"num_generated": 1000, "num_generated_lpips": 0}, "1,000", "1,000 generated images against"),
    ):
        records = {"results.json": {**RESULTS, "settings": settings | counts}}
        text = parse(build_model_card(model_dir, FACTS, records=records)).text
        assert f"| Images | {number} |" in text
        assert f"- {note} 4 real ones" in text


def test_the_best_checkpoint_is_named(model_dir):
    (model_dir / "score.json").write_text('{"images_seen": 12500}')
    training = {"method": "dfmgan", "images": 32, "backbone": {"method": "stage1", "images": 400}}
    (model_dir / "training_config.json").write_text(json.dumps({**training, "checkpoint_rule": "lowest KID"}))
    text = build_model_card(model_dir, FACTS).text
    assert "- Stage 1: 400 photographs.\n- Stage 2: 32 photographs.\n" in text
    assert "- Checkpoint: the one after 12.5 kimg, by the lowest KID.\n" in text
    (model_dir / "score.json").unlink()
    assert "Checkpoint" not in build_model_card(model_dir, FACTS).text


def test_backbone_card_promises_no_defects(make_backbone, tmp_path):
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path)
    card = build_model_card(tmp_path, FACTS)
    assert "defect-free steel plates" in card.text
    assert "out.masks" not in card.text


def test_errors_name_the_file(tmp_path, model_dir):
    with pytest.raises(CardError, match=r"no generator/config.json"):
        build_model_card(tmp_path, FACTS)
    (model_dir / "results.json").write_text("{")
    with pytest.raises(CardError, match=r"results.json is not valid JSON"):
        build_model_card(model_dir, FACTS)


def test_card_without_any_fact_invents_none(model_dir):
    card = parse(build_model_card(model_dir, CardFacts()))
    assert card.text.startswith("# model\n")
    assert 'from_pretrained("path/to/this/folder")' in card.text
    assert 'from_pretrained("org/plates")' in loaded_from(card.text, "org/plates")
    assert "pip install dfmgan-hf" not in card.text
    assert "Draws images of objects of one kind with a defect." in card.text


def test_records_of_the_folder_are_used(model_dir):
    (model_dir / "results.json").write_text(json.dumps(RESULTS))
    (model_dir / "reference_results.json").write_text(json.dumps({"copies": RESULTS}))
    (model_dir / "backbone_training_config.json").write_text(json.dumps({"images": 400}))
    card = parse(build_model_card(model_dir, FACTS))
    assert "| | this model | copies |" in card.text
    assert "Stage 1: 400 photographs." in card.text


def test_parameters_are_counted_once(model_dir):
    before = build_model_card(model_dir, FACTS).text
    DFMGANPipeline.from_pretrained(model_dir).save_pretrained(model_dir, variant="fp16")
    assert "million parameters" in before
    assert build_model_card(model_dir, FACTS).text == before


def test_new_results_replace_the_old_ones_and_nothing_else(model_dir):
    facts = CardFacts(**{**FACTS.__dict__, "dataset_name": "Plates 2020", "dataset_id": "org/plates2020"})
    (model_dir / "results.json").write_text(json.dumps(RESULTS))
    card = parse(build_model_card(model_dir, facts))
    before, _, after = card.text.partition("## Measured")
    add_results(card, {"metrics": {"fid": {"fid": 3.0, "features": "Inception"}}}, {}, "org/plates")
    again = parse(card)
    assert (
        again.text
        == f"{before}## Measured\n\n| | this model |\n|---|---|\n| FID, lower is closer | 3.00 |\n\n"
        + (after[after.index("## Citation") :])
    )
    (entry,) = again.data.eval_results
    assert (entry.metric_type, entry.metric_value) == ("fid", 3.0)
    assert (entry.dataset_name, entry.dataset_type) == ("Plates 2020", "org/plates2020")


def test_results_join_a_card_written_by_hand():
    card = ModelCard("---\nlicense: mit\n---\n# Mine\n\nText.\n")
    add_results(card, RESULTS, {}, "org/plates")
    again = parse(card)
    assert again.data.license == "mit"
    assert again.data.model_name == "plates"
    assert again.text.lstrip().startswith("# Mine\n\nText.\n\n## Measured\n\n| | this model |")


def test_facts_from_a_file(tmp_path):
    path = tmp_path / "facts.json"
    path.write_text(json.dumps({"title": "Plates", "limits": ["Scratches only."]}))
    facts = read_facts(path)
    assert facts == CardFacts(title="Plates", limits=("Scratches only.",))
    assert facts.filled_from(CardFacts("x/y", title="No", license="mit")) == CardFacts(
        "x/y", title="Plates", license="mit", limits=("Scratches only.",)
    )


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", r"facts.json is not valid JSON"),
        ("[]", r"facts.json holds a JSON list"),
        ('{"licence": "mit"}', r"unknown key 'licence'. Known are .*license"),
        ('{"title": 3}', r"title must be a text, but is 3"),
        ('{"limits": "none"}', r"limits must be a list of texts"),
    ],
)
def test_facts_that_cannot_be_used(tmp_path, content, message):
    path = tmp_path / "facts.json"
    path.write_text(content)
    with pytest.raises(CardError, match=message):
        read_facts(path)


MEASURED = {
    "metrics": {"kid": {"kid": 0.01}},
    "settings": {"real_file_names": ["a.png"]},
    "options": {"data_dir": "/home/alice/plates"},
}


def test_card_with_references_and_samples(model_dir, tmp_path):
    for name, kid in (("own", 0.01), ("cracks", 0.09)):
        (tmp_path / f"{name}.json").write_text(json.dumps({**MEASURED, "metrics": {"kid": {"kid": kid}}}))
    (tmp_path / "training_config.json").write_text(json.dumps({"images": 300}))
    make_card(
        CardConfig(
            CardFacts("org/plates", title="Plates", product="plates", defect="scratches", license="mit"),
            model=model_dir,
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
    (tmp_path / "results.json").write_text(json.dumps(MEASURED))
    references = {"real images copied": {**MEASURED, "metrics": {"kid": {"kid": -0.2}}, "versions": {"torch": "2"}}}
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
        ({"reference": ("=cracks.json",)}, r"`reference` must be name=results.json"),
        ({"results": Path("missing.json")}, r"missing.json holds no results"),
        ({"reference": ("cracks=missing.json",)}, r"missing.json holds no results"),
        ({"backbone": Path("missing")}, r"missing has no training_config.json"),
        ({"model": Path("missing")}, r"missing "),
    ],
)
def test_nothing_is_written_if_something_is_missing(model_dir, options, message):
    before = sorted(model_dir.rglob("*"))
    with pytest.raises((OSError, ValueError), match=message):
        make_card(CardConfig(CardFacts("org/plates"), **{"model": model_dir, "num_samples": 0, **options}))
    assert sorted(model_dir.rglob("*")) == before
