"""Table 1 on drawn photographs and tiny networks: cells, resuming, tables."""

from __future__ import annotations

import csv
import json
import shutil
import unicodedata
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import load_file, save_file

from benchmarks.paper import generation
from benchmarks.paper.cells import Cell, check_learnt, list_cells, read_results, trained_template
from benchmarks.paper.generation import GenerationBenchmark, GenerationConfig, plot, to_markdown, write_tables
from dfmgan_hf import DFMGANPipeline, StyleGAN2Generator
from dfmgan_hf.data import DataConfig, read_file_list
from dfmgan_hf.files import write_json
from dfmgan_hf.methods.method import RecipeConfig
from dfmgan_hf.metrics import EvaluationConfig, Networks
from dfmgan_hf.training import NonFiniteLossError
from tests.metrics.drawn import random_lpips, tiny_extractor
from tests.training import tiny
from tests.training.test_scripts import save_drawn_category

METHODS = ("finetune", "diffaug", "crop_paste")


@pytest.fixture(autouse=True)
def _no_report(monkeypatch):
    """The page about a run has tests of its own, and takes longer than these runs."""
    monkeypatch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)


@pytest.fixture(scope="module")
def networks(tmp_path_factory) -> Networks:
    pytest.importorskip("torchvision", reason="the metrics extra is not installed")
    return Networks(tiny_extractor(), random_lpips(tmp_path_factory.mktemp("weights")))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> GenerationConfig:
    """Three methods on one kind of defect of one category."""
    root = tmp_path_factory.mktemp("data")
    save_drawn_category(root / "plate")
    torch.manual_seed(0)
    generator, discriminator = tiny.make_networks(channels=1)
    DFMGANPipeline(generator).save_pretrained(root / "stage1" / "plate")
    discriminator.save_pretrained(root / "stage1" / "plate" / "discriminator")
    return GenerationConfig(
        output_dir=root,
        methods=METHODS,
        categories=("plate",),
        defects=("dot",),
        pretrained_backbone=str(root / "stage1" / "{category}"),
        kimg=0.008,
        recipe=RecipeConfig(batch_size=4, channel_base=128, channel_max=16, z_dim=16, w_dim=16),
        data=DataConfig(data_dir=root, shots=2),
        evaluation=EvaluationConfig(
            metrics=("kid", "clustered_lpips", "nearest", "masks"), num_images=6, num_lpips_images=6, num_bootstrap=3
        ),
    )


@pytest.fixture(scope="module")
def finished(config, networks, tmp_path_factory) -> GenerationConfig:
    """The whole comparison, done."""
    done = replace(config, output_dir=tmp_path_factory.mktemp("done"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)
        assert GenerationBenchmark(done, networks, Accelerator(cpu=True)).run() == []
    return done


def result_of(config: GenerationConfig, method: str) -> dict:
    return json.loads((config.output_dir / "plate" / "dot" / method / "results.json").read_text())


def test_each_cell_is_trained_on_the_shots_and_measured_against_all_photographs(finished):
    for method in METHODS:
        result = result_of(finished, method)
        assert result["settings"]["num_real"] == 4
        assert result["metrics"]["clustered_lpips"]["num_clusters"] == 4
        assert ("masks" in result["metrics"]) == (method == "crop_paste")
        if method != "crop_paste":
            assert result["training"]["images"] == 2
            assert result["training"]["result"]["images_seen"] == 8
    # From scratch, images have the backbone's size and channels.
    assert result_of(finished, "diffaug")["training"]["recipe"]["resolution"] == 32
    assert result_of(finished, "diffaug")["training"]["recipe"]["image_channels"] == 1
    # Crop&Paste has 6 good photographs and 2 shots to make pairs of.
    assert result_of(finished, "crop_paste")["settings"]["sampler"]["num_available"] == 12


def test_tables_figure_and_pages(finished):
    folder = finished.output_dir
    rows = list(csv.DictReader((folder / "table.csv").open()))
    assert [row["method"] for row in rows] == list(METHODS)
    for row in rows:
        measured = result_of(finished, row["method"])["metrics"]
        assert float(row["kid_x1000"]) == pytest.approx(1000 * measured["kid"]["kid"])
        assert float(row["clustered_lpips"]) == pytest.approx(measured["clustered_lpips"]["clustered_lpips"])
        assert row["paper_kid_x1000"] == ""
    text = (folder / "table.md").read_text()
    lpips = result_of(finished, "finetune")["metrics"]["clustered_lpips"]["clustered_lpips"]
    assert f"| {lpips:.4f} |" in text
    assert "| Crop&Paste * |" in text
    assert Image.open(folder / "table.png").width > 500
    page = Image.open(folder / "plate" / "dot" / "page.png")
    sheets = [Image.open(path) for path in folder.glob("plate/dot/*/samples.png")]
    assert len(sheets) == 3
    assert page.height > sum(sheet.height for sheet in sheets)


def test_what_is_done_is_not_done_again(finished, networks, monkeypatch):
    monkeypatch.setattr(generation, "train_method", None)
    before = result_of(finished, "diffaug")
    benchmark = GenerationBenchmark(finished, networks, Accelerator(cpu=True))
    assert benchmark.pending == []
    assert benchmark.run() == []
    assert result_of(finished, "diffaug") == before


def test_cells_of_other_settings_are_an_error(finished, networks):
    with pytest.raises(ValueError, match=r"results\.json was measured with other settings: kimg: 0\.008 -> 0\.016"):
        GenerationBenchmark(replace(finished, kimg=0.016), networks, Accelerator(cpu=True))


def test_cells_of_other_photographs_are_an_error(finished, networks, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("test/dot/000.png\n")
    data = replace(finished.data, file_list=names)
    with pytest.raises(ValueError, match=r"was measured with other settings: data\.file_list: None -> [0-9a-f]{16}"):
        GenerationBenchmark(replace(finished, data=data), networks, Accelerator(cpu=True))


@pytest.fixture(scope="module")
def grouped(config, networks, tmp_path_factory) -> GenerationConfig:
    """The comparison with parts: dots 000 and 006 are single, 002 and 004 show one that good photograph 000 shows too;
    good photograph 005 shows that of dot 000, and 004 that of dot 006."""
    folder = tmp_path_factory.mktemp("grouped")
    parts = {"test/dot/000.png": "a", "test/dot/002.png": "b", "test/dot/004.png": "b", "test/dot/006.png": "c"}
    parts |= {"train/good/000.png": "b", "train/good/005.png": "a", "train/good/004.png": "c"}
    (folder / "parts_plate.csv").write_text("file,group\n" + "".join(f"{k},{v}\n" for k, v in parts.items()))
    grouped = replace(
        config,
        output_dir=folder / "table",
        methods=("diffaug", "crop_paste"),
        groups=str(folder / "parts_{category}.csv"),
        data=replace(config.data, shots=None),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)
        assert GenerationBenchmark(grouped, networks, Accelerator(cpu=True)).run() == []
    return grouped


def test_parts_are_trained_on_or_measured_against(grouped):
    base, test = (
        read_file_list(grouped.output_dir / "plate" / "splits" / f"partition_P1_{side}.txt")
        for side in ("base", "test")
    )
    dots = {f"test/dot/{i:03d}.png" for i in (0, 2, 4, 6)}
    assert dots & set(base) in ({"test/dot/000.png"}, {"test/dot/006.png"})
    assert set(test) == dots - set(base)
    tested_parts = {"000": "005", "006": "004"}["006" if "test/dot/000.png" in base else "000"]
    good = {f"train/good/{i:03d}.png" for i in range(6)} - {"train/good/000.png", f"train/good/{tested_parts}.png"}
    assert set(base) - dots == good
    for method in grouped.methods:
        result = result_of(grouped, method)
        assert result["settings"]["num_real"] == 3
        assert result["benchmark"]["compared_with"] == "held_out"
    assert result_of(grouped, "diffaug")["training"]["images"] == 1
    sampler = result_of(grouped, "crop_paste")["settings"]["sampler"]
    assert (sampler["num_good"], sampler["num_defects"]) == (4, 1)
    assert "of other parts than the models were trained on" in (grouped.output_dir / "table.md").read_text()
    assert [row["compared_with"] for row in csv.DictReader((grouped.output_dir / "table.csv").open())] == [
        "held_out"
    ] * 2


def test_all_photographs_can_be_compared_with_in_spite_of_parts(grouped, finished, networks, tmp_path):
    everything = replace(grouped, output_dir=tmp_path, methods=("crop_paste",), compared_with="all")
    GenerationBenchmark(everything, networks, Accelerator(cpu=True)).run()
    result = result_of(everything, "crop_paste")
    assert result["settings"]["num_real"] == 4
    assert result["settings"]["sampler"]["num_defects"] == 1
    assert "of other parts" not in (tmp_path / "table.md").read_text()
    assert result_of(finished, "crop_paste")["benchmark"]["compared_with"] is None
    with pytest.raises(ValueError, match=r"compared_with: held_out -> all"):
        GenerationBenchmark(replace(grouped, compared_with="all"), networks, Accelerator(cpu=True))
    lists = grouped.output_dir / "plate" / "splits" / "partition_P1_base.txt"
    listed = replace(grouped, data=replace(grouped.data, file_list=lists))
    with pytest.raises(ValueError, match="leave --file_list out"):
        GenerationBenchmark(listed, networks, Accelerator(cpu=True))


def test_models_that_saw_what_they_are_measured_against_are_refused(grouped, networks, tmp_path):
    model = tmp_path / "models" / "diffaug"
    (model / "generator").mkdir(parents=True)
    own = grouped.output_dir / "plate" / "dot" / "diffaug" / "model" / "training_config.json"
    record = json.loads(own.read_text())
    base, test = (grouped.output_dir / "plate" / "splits" / f"partition_P1_{side}.txt" for side in ("base", "test"))
    assert set(record["training_file_names"]) == {n for n in read_file_list(base) if n.startswith("test/dot/")}
    again = replace(
        grouped, output_dir=tmp_path / "table", methods=("diffaug",), trained=(str(tmp_path / "models" / "{method}"),)
    )
    shutil.copy(own, model)
    GenerationBenchmark(again, networks, Accelerator(cpu=True))
    record["training_file_names"] += [next(n for n in read_file_list(test) if n.startswith("test/dot/"))]
    (model / "training_config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"trained on 1 of the photographs that are tested on \(test/dot/00\d.png"):
        GenerationBenchmark(again, networks, Accelerator(cpu=True))
    GenerationBenchmark(replace(again, compared_with="all"), networks, Accelerator(cpu=True))


def test_one_method_can_have_a_folder_of_its_own():
    folders = ("runs/{method}/{defect}", "defect_gan=runs/joint", "cdc=a=b")
    names = ("finetune", "defect_gan", "cdc")
    assert [trained_template(folders, name) for name in names] == ["runs/{method}/{defect}", "runs/joint", "a=b"]
    assert trained_template(folders[1:], "finetune") is None
    assert trained_template(("run=3/{method}",), "cdc") == "run=3/{method}"
    with pytest.raises(ValueError, match="CDC has two folders, a=b and c: give one"):
        trained_template((*folders, "cdc=c"), "finetune")
    with pytest.raises(ValueError, match="without a folder of their own have two folders"):
        trained_template((*folders, "x"), "finetune")


def test_trained_models_are_taken(finished, networks, monkeypatch, tmp_path):
    monkeypatch.setattr(generation, "train_method", None)
    template = str(finished.output_dir / "{category}" / "{defect}" / "{method}" / "model")
    again = replace(finished, output_dir=tmp_path, trained=(template,), methods=("finetune",))
    GenerationBenchmark(again, networks, Accelerator(cpu=True)).run()
    assert result_of(again, "finetune")["metrics"] == result_of(finished, "finetune")["metrics"]
    assert "unknown origin" not in (tmp_path / "table.md").read_text()


def test_results_of_weights_that_have_been_replaced_are_an_error(finished, networks, tmp_path, monkeypatch):
    template = str(tmp_path / "models" / "{method}")
    shutil.copytree(finished.output_dir / "plate/dot/diffaug/model", tmp_path / "models" / "diffaug")
    begun = {"output_dir": tmp_path / "table", "methods": ("diffaug",), "trained": (template,)}
    GenerationBenchmark(replace(finished, **begun), networks, Accelerator(cpu=True)).run()

    def pending(**changes):
        return GenerationBenchmark(replace(finished, **changes), networks, Accelerator(cpu=True)).pending

    assert pending(**begun) == []
    (path,) = (tmp_path / "models" / "diffaug" / "generator").glob("*.safetensors")
    save_file({name: tensor + 1 for name, tensor in load_file(path).items()}, path)
    with pytest.raises(ValueError, match=r"measured with other settings: files\.trained: \w+ -> \w+\."):
        pending(**begun)
    shutil.rmtree(tmp_path / "models")
    assert pending(**begun) == []
    # What is trained here starts from the backbone, or from scratch.
    monkeypatch.setattr(generation, "hash_of_weights", lambda _: "of another backbone")
    assert pending(methods=("diffaug", "crop_paste")) == []
    with pytest.raises(ValueError, match=r"finetune/results\.json .*: files\.pretrained_backbone: \w+ -> of another"):
        pending(methods=("finetune",))


def test_models_that_do_not_say_what_they_saw_are_named_under_the_table(finished, networks, tmp_path):
    copied = shutil.copytree(
        finished.output_dir, tmp_path / "models", ignore=shutil.ignore_patterns("training_config.json")
    )
    template = str(copied / "{category}" / "{defect}" / "{method}" / "model")
    again = replace(finished, output_dir=tmp_path / "table", trained=(template,), methods=("finetune",))
    GenerationBenchmark(again, networks, Accelerator(cpu=True)).run()
    assert "may have seen those that are tested on: Finetune." in (tmp_path / "table" / "table.md").read_text()


def test_estimate_comes_before_and_changes_nothing(config, networks, tmp_path):
    benchmark = GenerationBenchmark(replace(config, output_dir=tmp_path), networks, Accelerator(cpu=True))
    estimates = benchmark.estimate()
    assert estimates.keys() == set(METHODS)
    assert estimates["crop_paste"].training == 0
    assert all(estimate.measuring > 0 for estimate in estimates.values())
    assert estimates["finetune"].training > 0
    text = benchmark.describe(estimates)
    assert text.startswith("3 cells to do, 0 done: about ")
    assert "Crop&Paste" in text
    assert not list(tmp_path.iterdir())


def test_a_training_that_diverges_leaves_its_cell_out(config, networks, tmp_path, monkeypatch):
    def diverge(method, training):
        raise NonFiniteLossError("the loss of generator is not finite")

    monkeypatch.setattr(generation, "train_method", diverge)
    two = replace(config, output_dir=tmp_path, methods=("finetune", "crop_paste"))
    failures = GenerationBenchmark(two, networks, Accelerator(cpu=True)).run()
    assert failures == ["plate, dot, Finetune: the loss of generator is not finite"]
    assert "| Finetune | - | - |" in (tmp_path / "table.md").read_text()
    pending = GenerationBenchmark(two, networks, Accelerator(cpu=True)).pending
    assert [cell.method for cell in pending] == ["finetune"]


def test_kinds_are_known_in_either_form_of_unicode(tmp_path):
    typed = unicodedata.normalize("NFD", "\xe9clat")
    assert GenerationConfig(tmp_path, defects=(typed,)).defects == ("\xe9clat",)
    (tmp_path / "training_config.json").write_text(json.dumps({"defect": f"dent, {typed}"}))
    check_learnt(tmp_path, "\xe9clat", "runs/joint")


def test_records_are_read_as_utf_8_whatever_the_locale(tmp_path, monkeypatch):
    read_text, cell = Path.read_text, Cell("plate", "\xe9clat", "cdc")
    monkeypatch.setattr(Path, "read_text", lambda path, encoding="ascii": read_text(path, encoding))
    write_json(cell.folder(tmp_path) / "results.json", {"defect": "\xe9clat"})
    write_json(tmp_path / "training_config.json", {"defect": "\xe9clat"})
    assert read_results(tmp_path, [cell]) == {cell: {"defect": "\xe9clat"}}
    check_learnt(tmp_path, "\xe9clat", "runs/joint")


def test_cells_are_all_methods_on_all_defects(config):
    cells = list_cells(config.data, ("cdc", "sdgan"), ("plate",), ())
    assert cells == [Cell("plate", defect, method) for defect in ("dot", "spot") for method in ("cdc", "sdgan")]
    with pytest.raises(ValueError, match="there is no scratch; there are dot, spot"):
        list_cells(config.data, ("cdc",), ("plate",), ("dot", "scratch"))


def test_a_missing_backbone_is_said_before_anything_starts(config, networks):
    with pytest.raises(ValueError, match="Finetune starts from stage 1: give its folder with --pretrained_backbone"):
        GenerationBenchmark(replace(config, pretrained_backbone=None), networks, Accelerator(cpu=True))


def test_strips_are_trained_drawn_and_compared_in_their_shape(config, networks, tmp_path):
    sizes = {**tiny.SIZES, "aspect": (1, 4), "image_channels": 1}
    DFMGANPipeline(StyleGAN2Generator(**sizes, z_dim=16, w_dim=16)).save_pretrained(tmp_path / "stage1")
    chosen = replace(config, output_dir=tmp_path / "out", pretrained_backbone=str(tmp_path / "stage1"))
    strips = replace(chosen, methods=("diffaug", "crop_paste"))
    assert GenerationBenchmark(strips, networks, Accelerator(cpu=True)).run() == []
    for row in csv.DictReader((tmp_path / "out" / "table.csv").open()):
        assert result_of(strips, row["method"])["settings"]["resolution"] == [32, 128]
        assert (row["width"], row["height"]) == ("128", "32")
    assert "128 pixels wide and 32 high" in (tmp_path / "out" / "table.md").read_text()
    with pytest.raises(ValueError, match="SDGAN draws squares only, and 128x32 pixels are compared: leave it out"):
        GenerationBenchmark(replace(chosen, methods=("sdgan",)), networks, Accelerator(cpu=True))


def test_the_papers_numbers_stand_beside_the_measured_ones(tmp_path):
    result = {
        "metrics": {
            "kid": {"features": "inception", "unbiased": {"kid": 0.02, "interval": [0.01, 0.03]}, "subsets": {}},
            "clustered_lpips": {"clustered_lpips": 0.25},
        },
        "settings": {
            "unique_share": 1.0, "num_generated": 5000, "num_generated_lpips": 1000, "num_real": 18,
            "resolution": [256, 256],
        },
        "reconstruction": False,
    }  # fmt: skip
    cells = [Cell("hazelnut", "crack", name) for name in ("dfmgan", "crop_paste")]
    text = to_markdown(cells, dict.fromkeys(cells, result))
    assert "| DFMGAN | 20.00 (19.73) | 0.2500 (0.2600) |" in text
    assert "| Crop&Paste * | 20.00 | 0.2500 (0.1894) |" in text
    assert "In brackets: the paper" in text
    assert "Nothing has been measured yet." in write_tables(tmp_path, cells)


@pytest.mark.parametrize(
    ("kids", "scale"), [((0.02, 0.3), "linear"), ((0.02, 30.0), "log"), ((-0.002, 30.0), "linear"), ((), "linear")]
)
def test_kids_of_several_decades_get_a_logarithmic_axis(kids, scale, monkeypatch):
    from matplotlib.figure import Figure

    figures = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_, **__: figures.append(figure))
    cells = [Cell("plate", "dot", name) for name in ("dfmgan", "crop_paste")[: len(kids)]]
    results = {
        cell: {
            "metrics": {"kid": {"unbiased": {"kid": kid, "interval": [kid * 0.9, kid * 1.1]}}},
            "settings": {
                "unique_share": 1.0, "num_generated": 9, "num_generated_lpips": 9, "num_real": 9,
                "resolution": [64, 64],
            },
            "reconstruction": False,
        }
        for cell, kid in zip(cells, kids, strict=True)
    }  # fmt: skip
    plot(cells or [Cell("plate", "dot", "dfmgan")], results)
    kid_axes, lpips_axes = figures[0].axes
    assert kid_axes.get_xscale() == scale
    assert lpips_axes.get_xscale() == "linear"
