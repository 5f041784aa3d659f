"""Table 2 on drawn photographs and a tiny classifier: splits, trials, resuming, tables."""

from __future__ import annotations

import csv
import json
import re
import shutil
import unicodedata
from dataclasses import replace

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from torch import nn

from benchmarks.paper import classification
from benchmarks.paper.classification import (
    ClassificationBenchmark,
    ClassificationConfig,
    ClassifierConfig,
    Start,
    batches,
    load_start,
    make_classifier,
    train_classifier,
    write_tables,
)
from benchmarks.paper.downstream import LabelledImages, Trial, adam
from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import DataConfig, read_file_list
from dfmgan_hf.metrics import MissingWeightsError, draw
from tests.benchmarks.drawn_downstream import (
    KINDS,
    SIDE,
    draw_pair,
    save,
    save_generated,
    save_kind,
    save_photographs,
)
from tests.prove.several_kinds import save_labelled

pytest.importorskip("timm", reason="the benchmarks extra is not installed")


STATISTICS = {"mean": (0.5,) * 3, "std": (0.25,) * 3}


@pytest.fixture(autouse=True)
def tiny_classifier(monkeypatch):
    """Mean brightness of the middle is enough for drawn defects."""

    def make(start: Start, num_classes: int, seed: int) -> nn.Module:
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Conv2d(3, 8, 5, stride=2), nn.ReLU(), nn.AdaptiveMaxPool2d(1), nn.Flatten())
        return nn.Sequential(classification._Normalize(STATISTICS), head, nn.Linear(8, num_classes))

    monkeypatch.setattr(classification, "make_classifier", make)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ClassificationConfig:
    root = tmp_path_factory.mktemp("data")
    generated = save_generated(root / "generated")
    return ClassificationConfig(
        output_dir=root / "unused",
        generated=(f"dfmgan={generated}/{{defect}}",),
        methods=("crop_paste",),
        images_per_defect=10,
        seeds=(0, 1),
        resolution=SIDE,
        partitions=2,
        data=DataConfig(data_dir=save_photographs(root / "photographs"), category="plate"),
        classifier=ClassifierConfig(init="scratch", steps=10, batch_size=8, lr=0.01),
    )


def start(config: ClassificationConfig, **changes) -> ClassificationBenchmark:
    return ClassificationBenchmark(replace(config, **changes), Accelerator(cpu=True))


def test_all_training_sets_of_all_splits_are_tested_and_tabulated(config, tmp_path):
    benchmark = start(config, output_dir=tmp_path, partitions=1)
    names = ["real", "dfmgan", "dfmgan+real", "crop_paste", "crop_paste+real"]
    assert len(benchmark.all_trials) == 5 * 2
    assert "10 trials to do, 0 done" in benchmark.describe_estimate()
    assert not list(tmp_path.rglob("seed_*.json"))
    benchmark.run()
    results = benchmark.read_results()
    assert list(dict.fromkeys(trial.training_set for trial in results)) == names
    for trial, result in results.items():
        assert result["defects"] == list(KINDS)
        # A third of 6 and of 7 is 2 each, and 4 and 5 are left to test on.
        assert result["tested"] == 9
        assert result["training_images"] == {"real": 4, "dfmgan": 20, "crop_paste": 20}.get(trial.training_set, 24)
        assert result["accuracy"] == result["correct"] / 9
        bright, dark = result["confusion"]
        assert (sum(bright), sum(dark)) == (4, 5)
        assert result["balanced_accuracy"] == pytest.approx((bright[0] / 4 + dark[1] / 5) / 2)
        assert result["start"] == "scratch"
    assert max(result["accuracy"] for result in results.values()) > 0.8
    origin = results[Trial("plate", "P1", "crop_paste", False, 0)]["generated"]
    # Crop&Paste cuts from the photographs of the split's third alone.
    assert origin["dark"]["num_defects"] == 2
    assert origin["dark"]["num_good"] == 8

    rows = list(csv.DictReader((tmp_path / "table.csv").open()))
    assert [(row["training_set"], row["split"]) for row in rows] == [(n, "P1") for n in names]
    mean = 50 * sum(results[Trial("plate", "P1", "real", True, seed)]["accuracy"] for seed in (0, 1))
    assert float(rows[0]["accuracy_percent"]) == pytest.approx(mean)
    assert json.loads((tmp_path / "table.json").read_text())[0]["accuracy_percent"] == pytest.approx(mean)
    text = (tmp_path / "table.md").read_text()
    assert "| DFMGAN + photographs |" in text
    # The folders of images have no record of `dfmgan generate`; Crop&Paste draws from the split's own photographs.
    assert re.search(r"^Of unknown origin, .* may have seen those that are tested on: dfmgan\.$", text, re.MULTILINE)
    # 5 of the 9 are dark.
    assert "one is 11.1 points; always naming the most frequent kind gives 55.6 %" in text
    assert Image.open(tmp_path / "table.png").width > 300


def test_splits_are_saved_as_lists_that_can_be_given_back(config, tmp_path):
    benchmark = start(config, output_dir=tmp_path)
    base, test = (benchmark.subjects["plate"].lists["P1"][part] for part in (0, 1))
    assert base == tmp_path / "plate" / "splits" / "partition_P1_base.txt"
    names = read_file_list(base) + read_file_list(test)
    assert len(names) == len(set(names)) == 13
    assert len(config.data.load_defects("dark", resolution=SIDE)) == 7
    assert len(replace(config.data, file_list=base).load_defects("dark", resolution=SIDE)) == 2
    other = start(config, output_dir=tmp_path / "other").subjects["plate"].lists["P1"][0]
    assert other.read_text() == base.read_text()
    # The user's own lists are kept, unless both have a photograph.
    own = ["test/bright/000.png", "test/dark/000.png"]
    base.write_text("\n".join(own))
    test.write_text("\n".join(names))
    with pytest.raises(ValueError, match=r"photographs that are listed twice \(2; test/bright/000\.png, for one"):
        start(config, output_dir=tmp_path, partitions=1)
    test.write_text("\n".join(set(names) - set(own)))
    again = start(config, output_dir=tmp_path, seeds=(0,), training_sets=("real",), partitions=1)
    again.run()
    assert [result["training_images"] for result in again.read_results().values()] == [2]


def test_it_goes_on_where_it_stopped(config, tmp_path):
    small = {"output_dir": tmp_path, "training_sets": ("real", "generated"), "methods": (), "partitions": 1}
    first = start(config, **small)
    rest = first.pending[2:]
    del first.pending[2:]
    first.run()
    everything = start(config, **small)
    assert everything.pending == rest
    done = {trial: trial.path(tmp_path).read_bytes() for trial in first.pending}
    everything.run()
    assert {trial: trial.path(tmp_path).read_bytes() for trial in done} == done
    assert start(config, **small).pending == []
    with pytest.raises(ValueError, match=r"measured with other settings: images_per_defect: 10 -> 9"):
        start(config, **small, images_per_defect=9)


def test_results_of_another_model_are_an_error(config, make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    images = f"folder={save_generated(tmp_path / 'images')}/{{defect}}"
    sources = {"generated": (images,), "methods": ("dfmgan",), "trained": (str(tmp_path / "model"),)}
    small = {"output_dir": tmp_path / "table", "images_per_defect": 2, "partitions": 1, "seeds": (0,)}
    small["training_sets"] = ("real", "generated")
    start(config, **small, **sources).run()
    assert start(config, **small, **sources).pending == []
    better = images.replace("images", "better")
    with pytest.raises(ValueError, match=r"folder/seed_0\.json .*generated: \S+/images/\S+ -> \S+/better/"):
        start(config, **small, **sources | {"generated": (better,)})
    with pytest.raises(ValueError, match=r"dfmgan/seed_0\.json .*trained: \S+/model -> runs/better\."):
        start(config, **small, **sources | {"trained": ("runs/better",)})
    # Under a name of its own it is one more.
    more = start(config, **small, **sources | {"generated": (images, better.replace("folder=", "new="))})
    assert [trial.source for trial in more.pending] == ["new"]


def test_results_of_what_has_been_replaced_are_an_error(config, make_generator, tmp_path):
    folder = save_generated(tmp_path / "images")
    sources = {"generated": (f"folder={folder}/{{defect}}",), "methods": ("dfmgan",), "training_sets": ("generated",)}
    sources |= {"trained": (str(tmp_path / "model"),), "images_per_defect": 2, "partitions": 1, "seeds": (0,)}
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    start(config, output_dir=tmp_path / "table", **sources).run()

    def pending():
        return start(config, output_dir=tmp_path / "table", **sources).pending

    save_kind(folder / "dark" / "object", "dark", 1, 5000)
    with pytest.raises(
        ValueError, match=r"folder/seed_0\.json was measured with other settings: files\.dark: \w+ -> \w+"
    ):
        pending()
    # A result stays after its images are gone, and one of an earlier version, which did not keep what they were.
    path = tmp_path / "table/plate/P1/folder/seed_0.json"
    result = json.loads(path.read_text())
    shutil.rmtree(folder / "dark")
    assert pending() == []
    save_generated(folder)
    del result["settings"]["files"]
    path.write_text(json.dumps(result))
    assert pending() == []
    DFMGANPipeline(make_generator(residual_resolution=32)).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match=r"dfmgan/seed_0\.json was measured with other settings: files\.bright: "):
        pending()


def test_photographs_of_several_kinds_are_refused(config, tmp_path):
    root = save_labelled(tmp_path / "export", [["crack"], ["hole"]] * 4 + [["crack", "hole"]] * 2)
    data = DataConfig(root, cache_dir=tmp_path / "cache")
    with pytest.raises(
        ValueError, match=r"2 photographs show several .*d08\.png \(test/crack/d08\.png, test/hole/d08"
    ):
        start(config, output_dir=tmp_path / "table", data=data)
    assert not (tmp_path / "table").exists()


def test_kinds_are_found_in_either_form_of_unicode(config, tmp_path):
    root = save_photographs(tmp_path / "photographs")
    for folder in ("test", "ground_truth"):
        (root / "plate" / folder / "dark").rename(root / "plate" / folder / "\xe9clat")
    typed = (unicodedata.normalize("NFD", "\xe9clat"), "bright")
    data = replace(config.data, data_dir=root)
    assert start(config, output_dir=tmp_path / "out", data=data, defects=typed).subjects["plate"].defects == (
        "\xe9clat",
        "bright",
    )


def test_a_result_can_be_repeated(config, tmp_path):
    results = []
    for name in ("a", "b"):
        benchmark = start(config, output_dir=tmp_path / name, methods=(), partitions=1, seeds=(3,))
        benchmark.run()
        results.append([result["confusion"] for result in benchmark.read_results().values()])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generated": ("dfmgan",)}, r"`generated` must be NAME=FOLDER, such as .*but is 'dfmgan'"),
        ({"methods": ("finetune",)}, r"Finetune is trained: name the folders with --trained.*--generated finetune="),
        ({"methods": ("magic",)}, r"`method` must be one of finetune.*but is 'magic'"),
        ({"generated": ("a=x", "a=y"), "methods": ()}, r"a name of its own, but they are a, a"),
        ({"defects": ("dark", "bent")}, r"plate has no bent; it has bright, dark"),
        ({"defects": ("dark",)}, r"one kind of defect, dark: there is nothing to tell apart"),
    ],
)
def test_wrong_options_are_said_before_anything_starts(config, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        start(config, output_dir=tmp_path, **changes)


def test_a_model_that_saw_what_is_tested_on_is_refused_before_anything_starts(config, tmp_path):
    lists = start(config, output_dir=tmp_path / "table").subjects["plate"].lists["P2"]
    base, test = map(read_file_list, lists)
    trained = {"methods": ("finetune",), "trained": (str(tmp_path / "{split}" / "{defect}"),), "generated": ()}

    def record(*names: str) -> None:
        for split in ("P1", "P2"):
            (tmp_path / split / "dark").mkdir(parents=True, exist_ok=True)
            kept = names if split == "P2" else ()
            (tmp_path / split / "dark" / "training_config.json").write_text(json.dumps({"training_file_names": kept}))

    record(*base)
    start(config, output_dir=tmp_path / "table", **trained)
    record(*base, test[0])
    with pytest.raises(ValueError, match=r"P2/dark was trained on 1 of the photographs that are tested on"):
        start(config, output_dir=tmp_path / "table", **trained)
    start(config, output_dir=tmp_path / "table", **trained, training_sets=("real",))


def test_a_model_of_strips_is_compared_in_its_shape(config, make_generator, tmp_path):
    DFMGANPipeline(make_generator(aspect=(1, 4))).save_pretrained(tmp_path / "strips")
    drawn = {"generated": (), "methods": ("dfmgan",), "trained": (str(tmp_path / "strips"),), "images_per_defect": 2}
    drawn |= {"partitions": 1, "seeds": (0,), "output_dir": tmp_path / "table"}
    with pytest.raises(ValueError, match=r"128x32 pixels, but those of 32x32.*give --resolution 32 --aspect 1 4"):
        start(config, **drawn)
    benchmark = start(config, **drawn, aspect=(1, 4))
    assert "3 trials to do" in benchmark.describe_estimate()
    benchmark.run()
    assert benchmark._training_set(benchmark.all_trials[-1], benchmark.subjects["plate"]).images.shape[1:] == (
        3,
        32,
        128,
    )
    assert "8 images at 128x32 pixels" in (tmp_path / "table" / "table.md").read_text()


def test_images_say_what_their_generator_saw(config, tmp_path):
    lists = start(config, output_dir=tmp_path / "table", partitions=1).subjects["plate"].lists["P1"]
    base, test = map(read_file_list, lists)
    generated = save_generated(tmp_path / "generated")
    drawn = {"generated": (f"other={generated}/{{defect}}",), "methods": (), "partitions": 1, "seeds": (0,)}

    def record(*names: str) -> None:
        for kind in KINDS:
            (generated / kind / "generation").mkdir(exist_ok=True)
            (generated / kind / "generation" / "settings.json").write_text(json.dumps({"trained_on": names}))

    record(*base, test[0])
    with pytest.raises(ValueError, match="was trained on 1 of the photographs that are tested on"):
        start(config, output_dir=tmp_path / "table", **drawn)
    record(*base)
    benchmark = start(config, output_dir=tmp_path / "table", **drawn, training_sets=("generated",))
    benchmark.run()
    assert "unknown origin" not in (tmp_path / "table" / "table.md").read_text()


def test_images_are_read_with_the_bit_depth_of_the_photographs(config, tmp_path):
    for kind in KINDS:
        save(np.full((SIDE, SIDE), 2048, dtype=np.uint16), tmp_path / "raw" / kind / "0.png")
    data = replace(config.data, bit_depth=12)
    benchmark = start(
        config, output_dir=tmp_path / "table", generated=(f"raw={tmp_path}/raw/{{defect}}",), methods=(), data=data
    )
    trial = Trial("plate", "P1", "raw", False, 0)
    images, _ = draw(benchmark.open_source(trial, benchmark.subjects["plate"], "dark"), [0], seed=0)
    assert images.unique().tolist() == [128]


def test_too_few_or_other_images_are_explained(config, tmp_path):
    with pytest.raises(ValueError, match=r"There are 12 images, but 13 are asked for.*--images_per_defect 12"):
        start(config, output_dir=tmp_path, methods=(), training_sets=("generated",), images_per_defect=13).run()


def test_the_papers_numbers_stand_beside_the_measured_ones(config, tmp_path):
    result = {
        "accuracy": 0.75, "balanced_accuracy": 0.7, "confusion": [[12] * 2] * 2, "tested": 48,
        "network": "resnet34.tv_in1k", "start": "scratch", "defects": ["a"] * 4,
        "settings": {"classifier": {"steps": 9, "batch_size": 8, "select": "best_on_test"}, "resolution": 256,
                     "images_per_defect": 1000},
    }  # fmt: skip
    trials = [Trial("hazelnut", "P1", "dfmgan", with_real, 0) for with_real in (False, True)]
    text = write_tables(tmp_path, trials, dict.fromkeys(trials, result), str)
    assert "| dfmgan | 75.0 (83.33) | 70.0 |" in text
    assert "| dfmgan+real | 75.0 | 70.0 |" in text
    assert "the test set has been looked at" in text
    assert "partitions that are not known" in text


def images_of(count: int) -> LabelledImages:
    pairs = [draw_pair(KINDS[i % 2], i)[0] for i in range(count)]
    images = torch.stack([torch.from_numpy(image).permute(2, 0, 1) for image in pairs])
    return LabelledImages(images, torch.arange(count) % 2)


def test_the_best_test_on_the_way_is_reported_only_if_asked_for(monkeypatch):
    found, tested = [], classification.confusion_matrix
    monkeypatch.setattr(classification, "confusion_matrix", lambda *given: found.append(tested(*given)) or found[-1])
    training, test = images_of(8), images_of(20)
    runs = {
        select: train_classifier(
            training, test, 2, ClassifierConfig(steps=20, batch_size=4, lr=0.05, select=select),
            Start("none", "scratch"), 1, torch.device("cpu"),
        )
        for select in ("last", "best_on_test")
    }  # fmt: skip
    last, *on_the_way = [float(each.diagonal().sum()) / 20 for each in found]
    assert runs["last"]["step"] == 20
    assert runs["last"]["accuracy"] == last == on_the_way[-1]
    assert len(on_the_way) == 10
    assert runs["best_on_test"]["accuracy"] == max(on_the_way)
    confusion = torch.tensor(runs["last"]["confusion"])
    assert confusion.sum(dim=1).tolist() == [10, 10]


def test_the_classifier_starts_from_weights_by_path_or_from_scratch(tmp_path, monkeypatch):
    monkeypatch.undo()
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(5)
    save_file(timm.create_model("resnet18").state_dict(), path := tmp_path / "weights.safetensors")
    given = load_start(ClassifierConfig("resnet18", weights=path))
    assert given.name.startswith("ImageNet (weights.safetensors, SHA-256 ")
    network = make_classifier(given, 3, seed=0)[1]
    assert torch.equal(network.conv1.weight, given.tensors["conv1.weight"])
    assert network.fc.weight.shape == (3, 512)
    assert load_start(ClassifierConfig("resnet18", "scratch", weights=path)).name == "scratch"
    scratch = [make_classifier(Start("resnet18", "scratch"), 3, seed)[1].conv1.weight for seed in (0, 0, 1)]
    assert torch.equal(scratch[0], scratch[1])
    assert not torch.equal(scratch[0], scratch[2])
    with pytest.raises(ValueError, match=r"weights\.safetensors: not the weights of --classifier\.network resnet34"):
        load_start(ClassifierConfig("resnet34", weights=path))
    with pytest.raises(MissingWeightsError, match=r"--classifier\.weights .*nothing\.pth: there is no such file"):
        load_start(ClassifierConfig(weights=tmp_path / "nothing.pth"))
    with pytest.raises(ValueError, match=r"--classifier\.network resnet35: timm .* has no such model"):
        load_start(ClassifierConfig("resnet35"))


def test_without_a_network_it_says_where_to_get_the_weights(monkeypatch):
    def no_network(name, pretrained):
        raise OSError("no network")

    monkeypatch.setattr("timm.create_model", no_network)
    with pytest.raises(MissingWeightsError, match=r"no network.*hf download timm/resnet34\.tv_in1k.*init scratch"):
        load_start(ClassifierConfig())


def test_small_images_are_enlarged_for_the_network():
    images = torch.full((2, 3, 64, 64), 255, dtype=torch.uint8)
    normalized = classification._Normalize(STATISTICS)(images)
    assert normalized.shape == (2, 3, 128, 128)
    assert torch.allclose(normalized, torch.full_like(normalized, 2.0), atol=1e-5)
    assert classification._Normalize(STATISTICS)(images.repeat(1, 1, 4, 4)).shape[-1] == 256
    assert classification._Normalize(STATISTICS)(images.repeat(1, 1, 1, 2)).shape[2:] == (128, 256)


def test_batches_show_every_image_equally_often():
    shown = torch.cat(list(batches(5, batch_size=3, steps=10, seed=0)))
    assert torch.bincount(shown).tolist() == [6] * 5
    assert [len(batch) for batch in batches(2, batch_size=8, steps=2, seed=0)] == [8, 8]


def test_the_rate_falls_to_a_fifth_twice():
    optimizer, schedule = adam(nn.Linear(1, 1), lr=1.0, steps=10)
    rates = []
    for _ in range(10):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([1.0] * 8 + [0.2, 0.04])
