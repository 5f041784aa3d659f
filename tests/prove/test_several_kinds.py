"""`dfmgan prove` on photographs that show several kinds of defect, which labels list once under each kind."""

import json

import numpy as np
import pytest

pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("scipy")
pytest.importorskip("onnx")

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import Partition
from dfmgan_hf.prove import experiment
from dfmgan_hf.prove.experiment import Experiment, ProveConfig, ProveError
from dfmgan_hf.prove.statistics import Scores, measure
from tests.prove.several_kinds import save_labelled


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """All 18 photographs of defects show a crack, and all but the first six a hole, too."""
    monkeypatch.setattr("dfmgan_hf.prove.experiment.LEAST_PARTS", 2)
    root = save_labelled(tmp_path / "export", [["crack"]] * 6 + [["crack", "hole"]] * 12, good=12)
    return {
        "data_dir": root,
        "output_dir": tmp_path / "out",
        "cache_dir": tmp_path / "cache",
        "side": 32,
        "device": "cpu",
    }


def test_a_photograph_comes_once_with_the_masks_of_all_kinds(settings):
    found = Experiment(ProveConfig(**settings))
    defects = [record for record in (*found.train_defects, *found.test) if record.defect != "good"]
    files = [record.image_path.name for record in defects]
    assert sorted(files) == [f"d{i:02d}.png" for i in range(18)]
    examples = [*found.real, *found.held_back][: len(defects)]
    for name, (_, mask) in zip(files, examples, strict=True):
        # Two squares of 8x8 pixels, or one: LabelMe's outlines take in their last row and column.
        assert mask[:16, :16].sum() > 60
        assert mask[16:, 16:].any() == (name >= "d06.png")
    truth = [mask for _, mask in found.held_back]
    scores = Scores.of([np.where(mask, 10.0, -10.0) for mask in truth], truth, [float(m.any()) for m in truth])
    assert all(float(value[0]) == pytest.approx(1) for value in measure(scores, np.ones((1, len(truth)))).values())


def test_one_kind_alone_has_its_own_masks(settings):
    found = Experiment(ProveConfig(**settings, defects=("hole",)))
    assert len(found.train_defects) + sum(record.defect == "hole" for record in found.test) == 12
    assert not any(mask[:16, :16].any() for _, mask in found.real)


def test_the_gate_of_a_kind_takes_its_masks_from_all_photographs_to_train_on(settings, make_generator, monkeypatch):
    DFMGANPipeline(make_generator(window=0, defect_names=["crack", "hole"])).save_pretrained(
        settings["data_dir"].parent / "m"
    )
    name = str(settings["data_dir"].parent / "m")
    found = Experiment(ProveConfig(**settings, models=(name,)))
    made = []
    gate = type("Gate", (), {"from_photographs": lambda defects, *_, **how: made.append(defects)})
    monkeypatch.setattr(experiment, "QualityGate", gate)
    for kind, least in (("crack", "d00.png"), ("hole", "d06.png"), (None, "d00.png")):
        found.gate(name, kind)
        defects = made.pop()
        trained = {record.image_path for record in found.train_defects}
        assert {record.image_path for record in defects} == {path for path in trained if path.name >= least}
        assert {len(record.masks) for record in defects if record.image_path.name > "d06.png"} == {1 if kind else 2}


def test_a_model_that_learnt_another_kind_on_a_tested_photograph_is_refused(settings, make_generator, tmp_path):
    tested = [
        record for record in Experiment(ProveConfig(**settings, defects=("hole",))).test if record.defect == "hole"
    ]
    DFMGANPipeline(make_generator(window=0)).save_pretrained(tmp_path / "model")
    names = [record.name.replace("/hole/", "/crack/") for record in tested[:2]]
    (tmp_path / "model" / "training_config.json").write_text(json.dumps({"training_file_names": names}))
    with pytest.raises(ProveError, match="has learnt from 2 photographs of tested parts"):
        Experiment(ProveConfig(**settings, defects=("hole",), models=(str(tmp_path / "model"),)))


def test_lists_that_divide_a_photograph_by_its_kinds_are_refused(settings, tmp_path):
    Partition(
        tuple(f"test/crack/d{i:02d}.png" for i in range(9)), tuple(f"test/hole/d{i:02d}.png" for i in range(8, 18))
    ).save(tmp_path / "lists", "P1")
    with pytest.raises(ProveError, match="1 parts are in both lists"):
        Experiment(ProveConfig(**settings, split_dir=tmp_path / "lists"))
