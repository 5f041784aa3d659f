"""The protocol of AnomalyDiffusion on drawn photographs and a small U-Net."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from benchmarks.paper import localization
from benchmarks.paper.downstream import LabelledImages, Trial, load_listed
from benchmarks.paper.localization import (
    MEASURES,
    LocalizationBenchmark,
    LocalizationConfig,
    SegmenterConfig,
    find_defects,
    make_segmenter,
    train_segmenter,
    write_tables,
)
from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import DataConfig, read_file_list
from dfmgan_hf.models.projected import FeatureWeightsError
from dfmgan_hf.prove.detector import Detector
from tests.benchmarks.drawn_downstream import KINDS, SIDE, draw_pair, save_generated, save_photographs
from tests.prove.several_kinds import save_labelled

pytest.importorskip("segmentation_models_pytorch", reason="the benchmarks extra is not installed")


class TinySegmenter(nn.Module):
    """How far a pixel is from grey is enough for drawn defects."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))

    def forward(self, images):
        return self.layers(images - 0.5)


@pytest.fixture
def tiny_segmenter(monkeypatch):
    def make(config, seed):
        torch.manual_seed(seed)
        return TinySegmenter()

    monkeypatch.setattr(localization, "make_segmenter", make)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> LocalizationConfig:
    root = tmp_path_factory.mktemp("data")
    generated = save_generated(root / "generated")
    return LocalizationConfig(
        output_dir=root / "unused",
        generated=(f"dfmgan={generated}/{{defect}}",),
        methods=("crop_paste",),
        images_per_defect=10,
        seeds=(0,),
        resolution=SIDE,
        data=DataConfig(data_dir=save_photographs(root / "photographs"), category="plate"),
        segmenter=SegmenterConfig(steps=15, lr=0.02),
    )


def start(config: LocalizationConfig, **changes) -> LocalizationBenchmark:
    return LocalizationBenchmark(replace(config, **changes), Accelerator(cpu=True))


def test_networks_are_trained_on_pairs_and_tested_on_photographs(config, tiny_segmenter, tmp_path):
    benchmark = start(config, output_dir=tmp_path)
    assert "5 trials to do" in benchmark.describe_estimate()
    benchmark.run()
    results = benchmark.read_results()
    assert [trial.training_set for trial in results] == [
        "real", "dfmgan", "dfmgan+real", "crop_paste", "crop_paste+real",
    ]  # fmt: skip
    for result in results.values():
        assert tuple(result["measures"]) == MEASURES
        assert (result["tested"], result["tested_good"]) == (9, 4)
        assert result["measures"]["pixel_auroc"] > 0.6
    assert results[Trial("plate", "first_third", "dfmgan", False, 0)]["training_images"] == 20
    text = (tmp_path / "table.md").read_text()
    assert "| Crop&Paste * + photographs |" in text
    assert "\\* A reconstruction" in text
    assert results[Trial("plate", "first_third", "crop_paste", True, 0)]["reconstruction"]
    assert not results[Trial("plate", "first_third", "dfmgan", True, 0)]["reconstruction"]
    assert "Tested on 9 photographs with defects and 4 without." in text
    assert "AnomalyDiffusion 99.1 / 81.4" in text
    [row] = [row for row in json.loads((tmp_path / "table.json").read_text()) if row["training_set"] == "dfmgan"]
    trial = Trial("plate", "first_third", "dfmgan", False, 0)
    assert row["pro_percent"] == pytest.approx(100 * results[trial]["measures"]["pro"])
    assert Image.open(tmp_path / "table.png").width > 500
    assert start(config, output_dir=tmp_path).pending == []


def test_a_model_of_strips_is_compared_in_its_shape(config, make_generator, tmp_path):
    DFMGANPipeline(make_generator(aspect=(1, 4))).save_pretrained(tmp_path / "strips")
    drawn = {"generated": (), "methods": ("dfmgan",), "trained": (str(tmp_path / "strips"),), "images_per_defect": 2}
    benchmark = start(
        config, **drawn, aspect=(1, 4), output_dir=tmp_path / "table", segmenter=SegmenterConfig("mobilenet_v2", 1)
    )
    assert "3 trials to do" in benchmark.describe_estimate()
    benchmark.run()
    assert "8 images at 128x32 pixels" in (tmp_path / "table" / "table.md").read_text()


def test_the_first_third_by_name_may_be_trained_on(config, tmp_path):
    lists = start(config, output_dir=tmp_path).subjects["plate"].lists
    assert read_file_list(lists["first_third"][0]) == [f"test/{kind}/00{i}.png" for kind in KINDS for i in (0, 1)]
    assert len(read_file_list(lists["first_third"][1])) == 9
    assert list(start(config, output_dir=tmp_path, split="P2").subjects["plate"].lists) == ["P2"]


def test_the_splits_are_those_of_classification(config, tmp_path):
    from benchmarks.paper.classification import ClassificationBenchmark, ClassificationConfig, ClassifierConfig

    other = ClassificationBenchmark(
        ClassificationConfig(tmp_path / "a", data=config.data, classifier=ClassifierConfig(init="scratch")),
        Accelerator(cpu=True),
    )
    lists = start(config, output_dir=tmp_path / "b", split="P3").subjects["plate"].lists["P3"]
    for ours, theirs in zip(lists, other.subjects["plate"].lists["P3"], strict=True):
        assert ours.read_text() == theirs.read_text()


def test_no_part_is_trained_on_and_tested(config, tiny_segmenter, tmp_path):
    """Good photographs 0 and 1 show the part of the good test photograph 2, and 2 that of all dark ones from 3 on."""
    names = [f"train/good/{i:03d}.png" for i in range(8)] + [f"test/good/{i:03d}.png" for i in range(4)]
    names += [f"test/bright/{i:03d}.png" for i in range(6)] + [f"test/dark/{i:03d}.png" for i in range(7)]
    groups = {name: name for name in names}
    groups |= dict.fromkeys([*names[:2], "test/good/002.png"], "a")
    groups |= dict.fromkeys(["train/good/002.png", *(f"test/dark/{i:03d}.png" for i in range(3, 7))], "b")
    (tmp_path / "plate.csv").write_text("file,group\n" + "".join(f"{k},{v}\n" for k, v in groups.items()))
    changes = {"output_dir": tmp_path / "out", "groups": f"{tmp_path}/{{category}}.csv", "training_sets": ("real",)}
    benchmark = start(config, **changes)
    base, test = (set(read_file_list(path)) for path in benchmark.subjects["plate"].lists["first_third"])
    assert {f"test/dark/{i:03d}.png" for i in range(3, 7)} <= test
    assert not {groups[name] for name in base} & {groups[name] for name in test}
    benchmark.run()
    (result,) = benchmark.read_results().values()
    assert (result["trained_good"], result["tested_good"]) == (5, 4)


def test_lists_that_divide_a_part_are_an_error(config, tmp_path):
    """Lists of a start without groups, which say then that bright photographs 1 and 2 show one part."""
    names = [f"test/{kind}/{i:03d}.png" for kind, count in (("bright", 6), ("dark", 7)) for i in range(count)]
    groups = {name: name for name in names} | dict.fromkeys(names[1:3], "a")
    (tmp_path / "groups.csv").write_text("file,group\n" + "".join(f"{k},{v}\n" for k, v in groups.items()))
    grouped = {"output_dir": tmp_path / "out", "groups": str(tmp_path / "groups.csv")}
    lists = start(config, output_dir=tmp_path / "out").subjects["plate"].lists["first_third"]
    with pytest.raises(ValueError, match=r"base\.txt and .*test\.txt divide parts of .*\(1; a, .*001\.png .*002"):
        start(config, **grouped)
    for path in lists:
        path.unlink()
    start(config, **grouped)
    assert start(config, **grouped).subjects["plate"].lists["first_third"] == lists
    base, test = (set(read_file_list(path)) for path in lists)
    assert not {groups[name] for name in base} & {groups[name] for name in test}


def test_photographs_of_several_kinds_come_once_with_all_masks(config, tiny_segmenter, tmp_path):
    """Nine photographs show a crack, and all but the first three a hole, too. The first three by name, which are a
    third of the cracks, would leave none of the holes to train on."""
    root = save_labelled(tmp_path / "export", [["crack"]] * 3 + [["crack", "hole"]] * 6, good=4)
    for number in (2, 3):
        (root / "test/good").mkdir(parents=True, exist_ok=True)
        (root / f"good/g0{number}.png").rename(root / f"test/good/g0{number}.png")
    changes = {"data": DataConfig(root, cache_dir=tmp_path / "cache"), "training_sets": ("real",), "generated": ()}
    changes |= {"output_dir": tmp_path / "out", "methods": (), "segmenter": SegmenterConfig(steps=2)}
    benchmark = start(config, **changes)
    (trial,) = benchmark.pending
    (subject,) = benchmark.subjects.values()
    base, test = map(read_file_list, subject.lists["first_third"])
    shown = [f"test/{kind}/d0{i}.png" for kind, numbers in (("crack", (0, 3, 4)), ("hole", (3, 4))) for i in numbers]
    assert sorted(base) == shown
    assert not {name[-7:] for name in base} & {name[-7:] for name in test}
    training, tested = benchmark._training_set(trial, subject), benchmark.test_set(trial, subject)
    assert len(training) + len(tested) == 9
    for images in (training, tested):
        assert images.masks[:, :, :16, :16].flatten(1).any(dim=1).all()
        assert 0 < images.masks[:, :, 16:, 16:].flatten(1).any(dim=1).sum() < len(images)
        assert not images.labels.any()
    benchmark.run()
    (result,) = benchmark.read_results().values()
    assert (result["tested"], result["training_images"]) == (len(tested), len(training))

    lists = subject.lists["first_third"]
    lists[1].write_text("\n".join(name for name in test if name != "test/hole/d08.png"))
    load_listed.cache_clear()
    with pytest.raises(ValueError, match=r"names test/crack/d08\.png, but not test/hole/d08\.png"):
        benchmark.test_set(trial, subject)


def test_lists_that_divide_a_photograph_by_its_kinds_are_an_error(config, tmp_path):
    root = save_labelled(tmp_path / "export", [["crack", "hole"]] * 9, good=4)
    changes = {"data": DataConfig(root, cache_dir=tmp_path / "cache"), "output_dir": tmp_path / "out"}
    (subject,) = start(config, **changes).subjects.values()
    base, test = subject.lists["first_third"]
    moved = next(name for name in read_file_list(base) if name.startswith("test/hole/"))
    test.write_text(test.read_text() + moved)
    base.write_text(base.read_text().replace(moved, ""))
    with pytest.raises(ValueError, match="divide parts of --groups, or photographs that are listed twice"):
        start(config, **changes)


def test_lists_that_name_good_photographs_mean_these_and_no_others(config, tmp_path):
    (subject,) = start(config, output_dir=tmp_path).subjects.values()
    base, test = subject.lists["first_third"]
    base.write_text(base.read_text() + "".join(f"train/good/00{i}.png\n" for i in (0, 1, 2, 3)))
    good = start(config, output_dir=tmp_path)._good("plate", subject)
    assert (len(good["train"]), len(good["test"])) == (4, 4)
    test.write_text(test.read_text() + "".join(f"train/good/00{i}.png\n" for i in (5, 6)))
    good = start(config, output_dir=tmp_path)._good("plate", subject)
    assert (len(good["train"]), len(good["test"])) == (4, 2)


def test_results_of_other_photographs_are_an_error(config, tiny_segmenter, tmp_path):
    changes = {"output_dir": tmp_path, "training_sets": ("real",)}
    start(config, **changes).run()
    assert start(config, **changes).pending == []
    path = tmp_path / "plate" / "splits" / "partition_first_third_test.txt"
    path.write_text("\n".join(read_file_list(path)[1:]))
    with pytest.raises(ValueError, match=r"seed_0\.json was measured with other settings: lists\.test"):
        start(config, **changes)


def test_best_of_ten_tests_is_reported_if_asked_for(config, tiny_segmenter, tmp_path, monkeypatch):
    tested = []

    def worse_and_worse(maps, masks, scores):
        if len(masks) == 13:  # all kinds of defect
            tested.append(len(masks))
        return dict.fromkeys(MEASURES, 1 / max(len(tested), 1))

    monkeypatch.setattr("benchmarks.paper.localization.measure", worse_and_worse)
    for select, count, step in (("last", 1, 20), ("best_on_test", 10, 2)):
        tested.clear()
        chosen = replace(config.segmenter, steps=20, select=select)
        benchmark = start(config, output_dir=tmp_path / select, training_sets=("real",), segmenter=chosen)
        benchmark.run()
        (result,) = benchmark.read_results().values()
        assert (len(tested), result["step"]) == (count, step)
        looked = "the test set has been looked at" in (tmp_path / select / "table.md").read_text()
        assert looked == (select == "best_on_test")


def test_methods_without_masks_are_refused(config, tmp_path):
    with pytest.raises(ValueError, match=r"Finetune has no masks to learn from; these have: crop_paste"):
        start(config, output_dir=tmp_path, methods=("finetune",), trained=("x",))


def test_images_without_masks_are_refused(config, tiny_segmenter, tmp_path):
    for kind in KINDS:
        for index in range(10):
            path = tmp_path / "plain" / kind / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_pair(kind, index)[0]).save(path)
    template = f"plain={tmp_path}/plain/{{defect}}"
    benchmark = start(
        config, output_dir=tmp_path / "out", generated=(template,), methods=(), training_sets=("generated",)
    )
    with pytest.raises(ValueError, match="The images of plain have no masks to learn from"):
        benchmark.run()


def pairs(count: int) -> LabelledImages:
    drawn = [draw_pair(KINDS[i % 2], i) for i in range(count)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image, _ in drawn])
    masks = torch.stack([torch.from_numpy(mask)[None].to(torch.uint8) * 255 for _, mask in drawn])
    return LabelledImages(images, torch.arange(count) % 2, masks)


def test_half_of_the_images_are_good_and_kinds_have_equal_chances(monkeypatch):
    shown = []

    class Watch(TinySegmenter):
        def forward(self, images):
            shown.append(images.mean(dim=(1, 2, 3)))
            return super().forward(images)

    monkeypatch.setattr(localization, "make_segmenter", lambda config, seed: Watch())
    flat = LabelledImages(
        torch.cat([torch.full((9, 3, SIDE, SIDE), 60), torch.full((1, 3, SIDE, SIDE), 240)]).to(torch.uint8),
        torch.tensor([0] * 9 + [1]),
        torch.full((10, 1, SIDE, SIDE), 255, dtype=torch.uint8),
    )
    good = torch.zeros(3, 3, SIDE, SIDE, dtype=torch.uint8)
    train_segmenter(flat, good, SegmenterConfig(steps=100, batch_size=8), 0, torch.device("cpu"))
    values = (torch.cat(shown) * 255).round().to(int)
    shares = {value: float((values == value).float().mean()) for value in (0, 60, 240)}
    assert shares[0] == pytest.approx(0.5, abs=0.06)
    assert shares[60] == pytest.approx(0.25, abs=0.05)
    assert shares[240] == pytest.approx(0.25, abs=0.05)


def test_a_real_unet_learns_and_can_be_repeated():
    config = SegmenterConfig(encoder="resnet18", steps=2, batch_size=4)
    training, good = pairs(6), torch.full((2, 3, SIDE, SIDE), 128, dtype=torch.uint8)
    outputs = []
    for seed in (0, 0, 1):
        model, seconds = train_segmenter(training, good, config, seed, torch.device("cpu"))
        assert seconds > 0
        assert not model.training
        outputs.append(find_defects(model, training.images, torch.device("cpu")))
    maps, scores = outputs[0]
    assert maps.shape == (6, SIDE, SIDE)
    assert scores.shape == (6,)
    assert 0 <= maps.min() <= maps.max() <= 1
    assert np.array_equal(maps, outputs[1][0])
    assert not np.array_equal(maps, outputs[2][0])
    before = make_segmenter(config, 0).state_dict()
    assert any(not torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_a_network_from_imagenet_needs_its_weights_and_follows_from_its_seed(tmp_path, monkeypatch):
    config = SegmenterConfig("imagenet")
    monkeypatch.setenv("DFMGAN_FEATURE_WEIGHTS", str(tmp_path / "none.safetensors"))
    with pytest.raises(FeatureWeightsError, match=r"none\.safetensors"):
        make_segmenter(config, 0)
    monkeypatch.setattr(localization, "Detector", partial(Detector, pretrained=False))
    images = torch.rand(2, 3, 64, 128)
    once, again, other = (make_segmenter(config, seed).eval()(images) for seed in (0, 0, 1))
    assert once.shape == (2, 1, 64, 128)
    assert torch.equal(once, again)
    assert not torch.equal(once, other)


def test_the_score_of_an_image_is_the_largest_local_average():
    class Spots(nn.Module):
        def forward(self, images):
            return torch.logit(images[:, :1] * 0.98 + 0.01)

    images = torch.zeros(2, 3, 256, 256, dtype=torch.uint8)
    images[0, :, 100, 100] = 255
    images[1, :, 100:121, 100:121] = 255
    _, scores = find_defects(Spots(), images, torch.device("cpu"))
    assert scores == pytest.approx([0.01 + 0.98 / 441, 0.99], abs=1e-4)
    _, of_strips = find_defects(Spots(), torch.nn.functional.pad(images, (0, 768)), torch.device("cpu"))
    assert of_strips == pytest.approx(scores)


def test_the_mean_over_categories_needs_all_of_them(tmp_path):
    def result(value):
        return {
            "measures": dict.fromkeys(MEASURES, value), "network": "U-Net", "defects": ["a"], "tested": 3,
            "tested_good": 2,
            "settings": {
                "segmenter": {"steps": 1, "batch_size": 1, "select": "last"}, "resolution": 64,
                "images_per_defect": 10,
            },
        }  # fmt: skip

    trials = [Trial(c, "first_third", source, False, 0) for c in ("nut", "tile") for source in ("a", "b")]
    results = {trials[0]: result(0.5), trials[1]: result(0.4), trials[2]: result(0.7)}
    text = write_tables(tmp_path, trials, results, str)
    mean = text.split("### mean of 2 categories")[1]
    assert "| a | 60.0 |" in mean
    assert "| b | - |" in mean
