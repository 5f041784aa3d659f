"""What `dfmgan prove` and `dfmgan split` refuse: groups of other photographs, models of other kinds of defect or of
another shape; and which photographs lists and names of kinds stand for."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("segmentation_models_pytorch")
pytest.importorskip("scipy")
pytest.importorskip("onnx")

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import Partition
from dfmgan_hf.data.partitions import SplitConfig, split_dataset
from dfmgan_hf.data.records import DataError
from dfmgan_hf.prove.experiment import Experiment, ProveConfig, ProveError


@pytest.fixture
def product(tmp_path):
    """A data set of 12 photographs of scratches and 12 good ones, and groups.csv: two scratches are on each part."""
    folder, rng, lines = tmp_path / "product", np.random.default_rng(0), ["file,group"]
    for i in range(12):
        for name in (f"{'train' if i < 6 else 'test'}/good/{i}.png", f"test/scratch/{i}.png"):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (32, 32)).astype(np.uint8)).save(folder / name)
        lines.append(f"test/scratch/{i}.png,part {i // 2}")
        mask = np.zeros((32, 32), dtype=bool)
        mask[i : i + 4, 4:14] = True
        (folder / "ground_truth/scratch").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(folder / f"ground_truth/scratch/{i}_mask.png")
    (tmp_path / "groups.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture
def settings(product, tmp_path, monkeypatch):
    # So few parts are too few for an answer, which is not asked for here.
    monkeypatch.setattr("dfmgan_hf.prove.experiment.LEAST_PARTS", 2)
    return {"data_dir": product, "output_dir": tmp_path / "out", "side": 32, "device": "cpu"}


def test_groups_of_other_photographs_are_refused(product, settings, tmp_path):
    good, other = tmp_path / "groups.csv", tmp_path / "other.csv"
    split_dataset(SplitConfig(data_dir=product, output_dir=tmp_path / "lists", groups=good))
    settings["split_dir"] = tmp_path / "lists"
    other.write_text(good.read_text().replace("test/scratch/", "scratch/"))
    said = r"other\.csv: no line for 12 photographs \(test/scratch/0\.png"
    with pytest.raises(DataError, match=said):
        split_dataset(SplitConfig(data_dir=product, output_dir=tmp_path / "lists2", groups=other))
    with pytest.raises(DataError, match=said):
        Experiment(ProveConfig(**settings, groups=other))
    # Good photographs need no line.
    found = Experiment(ProveConfig(**settings, groups=good))
    assert found._parts_of(found.train_defects).isdisjoint(found._parts_of(found.test))


def test_a_model_that_draws_none_of_the_tested_kinds_is_refused(settings, make_generator, tmp_path):
    for name, kinds in (("others", ["dent", "hole"]), ("several", ["dent", "scratch"])):
        DFMGANPipeline(make_generator(window=0, defect_names=kinds)).save_pretrained(tmp_path / name)
    settings["groups"] = tmp_path / "groups.csv"
    with pytest.raises(ProveError, match=r"others draws the defects dent, hole, but none .* \(scratch\)"):
        Experiment(ProveConfig(**settings, models=(str(tmp_path / "others"),)))
    found = Experiment(ProveConfig(**settings, models=(str(tmp_path / "several"),)))
    (pipe,) = found.pipes.values()
    assert found._kind_of(pipe, np.random.default_rng(0)) == "scratch"


def test_photographs_that_came_later_are_compared_too(product, settings):
    """A copy of a tested photograph among the good ones would be trained on if it were taken for a part of its own."""
    begun = Experiment(ProveConfig(**settings))
    tested = next(record.name for record in begun.test if record.defect)
    shutil.copyfile(product / tested, product / "train/good/later.png")
    later = Experiment(ProveConfig(**settings))
    assert later.parts["train/good/later.png"] == later.parts[tested]
    assert "train/good/later.png" not in {record.name for record in later.train_good}


def good_of(found):
    """Return the numbers of the good photographs that are trained on, and of those that are tested on."""
    test = [record for record in found.test if record.defect == "good"]
    return [sorted(int(record.image_path.stem) for record in side) for side in (found.train_good, test)]


def test_lists_that_name_good_photographs_mean_these_and_no_others(settings, tmp_path):
    """Good photographs 0 to 5 lie in train/good, and 6 to 11 in test/good."""

    def listed(base, test):
        defects = [tuple(f"test/scratch/{i}.png" for i in range(*side)) for side in ((4,), (4, 12))]
        sides = ([f"{'train' if i < 6 else 'test'}/good/{i}.png" for i in side] for side in (base, test))
        Partition(*((*d, *good) for d, good in zip(defects, sides, strict=True))).save(tmp_path / "lists", "P1")
        settings["output_dir"] = tmp_path / f"out {base} {test}"
        return good_of(Experiment(ProveConfig(**settings, split_dir=tmp_path / "lists")))

    assert listed([], []) == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert listed([0, 2], []) == [[0, 2], [6, 7, 8, 9, 10, 11]]
    assert listed([], [1, 6, 7]) == [[0, 2, 3, 4, 5], [1, 6, 7]]
    assert listed([0, 1, 8], [1, 3, 7]) == [[0, 8], [1, 3, 7]]


def test_a_model_of_another_shape_does_not_go_on(settings, make_generator, tmp_path):
    for name, aspect in (("square", (1, 1)), ("other", (1, 1)), ("wide", (1, 2))):
        DFMGANPipeline(make_generator(window=0, aspect=aspect)).save_pretrained(tmp_path / name)
    Experiment(ProveConfig(**settings, models=(str(tmp_path / "square"),)))
    Experiment(ProveConfig(**settings, models=(str(tmp_path / "other"),)))
    with pytest.raises(ProveError, match="was begun with another size"):
        Experiment(ProveConfig(**settings, models=(str(tmp_path / "wide"),)))


def test_photographs_are_painted_into_as_the_model_has_learnt_them(product, settings, make_generator, tmp_path):
    for path in product.rglob("*.png"):  # made twice as wide as high
        picture = Image.open(path)
        wide = Image.new(picture.mode, (64, 32), 0 if "ground_truth" in path.parts else 255)
        wide.paste(picture, (0, 0))
        wide.save(path)
    DFMGANPipeline(make_generator(window=0)).save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "training_config.json").write_text(json.dumps({"config": {"data": {"fit": "pad"}}}))
    settings["models"] = (str(tmp_path / "model"),)
    with pytest.raises(ProveError, match=r"model was trained with --fit pad, .* --fit resize, .*: give --fit pad"):
        Experiment(ProveConfig(**settings))
    found = Experiment(ProveConfig(**settings, fit="pad"))
    (image, mask), *_ = found.make("painted", 0, 1)[0]
    assert (image.shape, mask.shape) == ((32, 32, 3), (32, 32))


def test_kinds_are_found_in_either_form_of_unicode(product, settings, make_generator, tmp_path):
    for folder in ("test", "ground_truth"):
        (product / folder / "scratch").rename(product / folder / "\xe9clat")
    typed = unicodedata.normalize("NFD", "\xe9clat")
    DFMGANPipeline(make_generator(window=0, defect_names=["dent", typed])).save_pretrained(tmp_path / "model")
    found = Experiment(ProveConfig(**settings, defects=(typed,), models=(str(tmp_path / "model"),)))
    (pipe,) = found.pipes.values()
    assert found._kind_of(pipe, np.random.default_rng(0)) == typed  # as the model calls it
    assert found.kinds == ["\xe9clat"]
