"""examples/evaluate.py as a user runs it, on a folder and on a tiny model."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline
from dfmgan_hf.data import DataConfig
from dfmgan_hf.evaluation import MeasureConfig, make_sampler
from dfmgan_hf.hub import CardConfig, CardError, CardFacts, make_card
from dfmgan_hf.hub.zoo import list_models
from dfmgan_hf.metrics import draw
from dfmgan_hf.metrics.evaluate import METRICS, EvaluationConfig, load_networks
from tests.metrics.drawn import draw_images, draw_masks, random_inception, write_vgg
from tests.metrics.test_sampler import SIZES, save_images

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def nut(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set with the category `nut` and its defect `hole`."""
    root = tmp_path_factory.mktemp("data")
    save_images(root / "nut" / "train" / "good", draw_images(5, seed=3))
    save_images(root / "nut" / "test" / "hole", draw_images(4, seed=4))
    save_images(root / "nut" / "ground_truth" / "hole", draw_masks(4), "_mask")
    return root


@pytest.fixture
def two_defects(nut: Path, tmp_path: Path) -> Path:
    """The same with the defect `cut` as well."""
    root = Path(shutil.copytree(nut, tmp_path / "data"))
    save_images(root / "nut" / "test" / "cut", draw_images(3, seed=5))
    save_images(root / "nut" / "ground_truth" / "cut", draw_masks(3), "_mask")
    return root


@pytest.fixture
def model(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    DFMGANPipeline(DFMGANGenerator(**SIZES, residual_resolution=16)).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Runs the script in `tmp_path` with these arguments."""

    def run_script(*arguments: str | Path, status: int = 0) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(ROOT / "examples" / "evaluate.py"), run_name="__main__")
        assert ended.value.code == status

    return run_script


@pytest.fixture
def refused(run, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    """Runs the script and sees that it ends with status 2 and words that match."""

    def run_script(pattern: str, *arguments: str | Path) -> None:
        capsys.readouterr()
        run(*arguments, status=2)
        assert re.search(f"^Error: {pattern}", capsys.readouterr().err, re.MULTILINE)

    return run_script


def test_several_kinds_of_one_model(tmp_path: Path, two_defects: Path, alexnet_file: Path, run, refused):
    """Each kind is measured as if it were alone; the card has a column for each, the list of models their mean."""
    torch.manual_seed(0)
    names = {"defect_names": ["cut", "hole", "dent"]}
    DFMGANPipeline(DFMGANGenerator(**SIZES, residual_resolution=16, **names)).save_pretrained(tmp_path / "joint")
    common = (
        *("--model", tmp_path / "joint", "--data_dir", two_defects, "--num_images", "8", "--kid_features", "alexnet"),
        *("--num_lpips_images", "8", "--lpips_weights", alexnet_file),
    )
    refused("--references and --defect_free go with one", *common, "--defect", "cut", "hole", "--references", "copies")
    refused(r".*no photographs with the defect 'dent'", *common, "--defect", "cut", "dent")
    run(*common, "--defect", "hole", "cut", "--output_dir", tmp_path / "both")
    run(*common, "--defect", "cut", "--output_dir", tmp_path / "one")
    written, alone = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("both", "one"))
    assert list(written["kinds"]) == ["hole", "cut"]
    assert written["kinds"]["cut"]["metrics"] == alone["metrics"]
    assert written["kinds"]["cut"]["settings"]["sampler"]["defect"] == "cut"
    assert (tmp_path / "both" / "hole" / "nearest.png").is_file()

    make_card(CardConfig(CardFacts(), tmp_path / "joint", results=tmp_path / "both" / "results.json", num_samples=0))
    card = ModelCard.load(tmp_path / "joint" / "README.md")
    assert "| | hole | cut |\n|---|---|---|\n| Images | 8 | 8 |" in card.text
    assert "of each kind against 4 (hole), 3 (cut) real ones" in card.text
    kids = {r.dataset_config: r.metric_value for r in card.data.eval_results if r.metric_type == "kid"}
    assert kids == {kind: round(1000 * written["kinds"][kind]["metrics"]["kid"]["kid"], 4) for kind in ("hole", "cut")}
    [listed] = list_models(str(tmp_path / "joint"))
    assert sorted(listed.kid) == sorted(kids.values())
    assert listed.features == "alexnet-relu1to5-mean"
    torch.manual_seed(1)
    DFMGANPipeline(DFMGANGenerator(**SIZES, residual_resolution=16, **names)).save_pretrained(tmp_path / "joint")
    with pytest.raises(CardError, match="not those of this model"):
        make_card(CardConfig(CardFacts(), tmp_path / "joint", num_samples=0))


def test_folder_of_images(tmp_path: Path, nut: Path, alexnet_file: Path, run, capsys: pytest.CaptureFixture[str]):
    save_images(tmp_path / "drawn", draw_images(12, seed=7))
    save_images(tmp_path / "drawn", draw_masks(12), "_mask")
    run(
        *("--generated", tmp_path / "drawn", "--data_dir", nut, "--category", "nut", "--defect", "hole"),
        *("--resolution", "32", "--kid_features", "alexnet", "--lpips_weights", alexnet_file),
    )
    assert "12 generated (12 for LPIPS) against 4 real images, 32x32" in capsys.readouterr().out
    written = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert written["metrics"]["kid"]["features"] == "alexnet-relu1to5-mean"
    assert written["metrics"]["masks"]["generated"]["num_masks"] == 12
    assert written["options"]["data"]["category"] == "nut"
    assert (tmp_path / "evaluation" / "nearest.png").is_file()


@pytest.mark.slow
def test_every_metric_with_weight_files(tmp_path: Path, two_defects: Path, model: Path, alexnet_file: Path, run):
    """All eight metrics from files alone, as where there is no network; the card then has all of them."""
    from safetensors.torch import save_file

    save_file(random_inception(), tmp_path / "inception.safetensors")
    write_vgg(tmp_path / "vgg.safetensors")
    run(
        *("--model", model, "--data_dir", two_defects, "--defect", "hole", "--references", "copies"),
        *("--metrics", *METRICS, "--num_images", "12", "--num_lpips_images", "8"),
        *("--inception_weights", tmp_path / "inception.safetensors", "--lpips_weights", alexnet_file),
        *("--lpips_vgg_weights", tmp_path / "vgg.safetensors", "--output_dir", tmp_path / "out"),
    )
    written = json.loads((tmp_path / "out" / "results.json").read_text())
    assert set(written["metrics"]) == set(METRICS)
    assert not written["not_measured"]
    names = {name: network["name"] for name, network in written["networks"].items()}
    assert names == {
        "extractor": "inception-v3-2015-12-05",
        "lpips": "lpips-alex-v0.1",
        "lpips_vgg": "lpips-vgg-v0.1",
    }
    files = [file["name"] for network in written["networks"].values() for file in network["files"]]
    assert files == ["inception.safetensors", "alexnet.safetensors", "vgg.safetensors"]
    assert written["metrics"]["fid"]["fid"] > 0
    assert written["metrics"]["inception_score"]["mean"] >= 1
    # 8 images in 4 clusters: one has at least two.
    assert written["metrics"]["ic_lpips"]["ic_lpips"] > 0
    copies = json.loads((tmp_path / "out" / "reference_results.json").read_text())["real images copied"]
    assert copies["metrics"]["fid"]["fid"] == pytest.approx(0, abs=1e-3)
    assert copies["metrics"]["ic_lpips"]["ic_lpips"] is None

    card = make_card(
        CardConfig(CardFacts("org/nuts"), model, results=tmp_path / "out" / "results.json", num_samples=0)
    )
    entries = {entry.metric_type: entry.metric_name for entry in ModelCard.load(card).data.eval_results}
    assert set(entries) == {"kid", "fid", "inception_score", "lpips", "ic_lpips"}
    assert entries["fid"] == "FID, lower is closer (inception-v3-2015-12-05)"
    assert entries["ic_lpips"] == "IC-LPIPS, higher is more varied (lpips-vgg-v0.1)"


def test_references(tmp_path: Path, two_defects: Path, model: Path, alexnet_file: Path, run, refused, capsys):
    """Photographs in the generated images' place, measured like them."""
    common = ("--data_dir", two_defects, "--defect", "hole", "--kid_features", "alexnet", "--num_images", "6")
    common += ("--metrics", "kid", "nearest", "masks", "--lpips_weights", alexnet_file)
    run("--model", model, *common, "--references", "cut", "good", "copies")
    references = json.loads((tmp_path / "evaluation" / "reference_results.json").read_text())
    assert list(references) == ["real cut", "real good", "real images copied"]
    assert [r["settings"]["num_generated"] for r in references.values()] == [3, 5, 4]
    assert all(r["settings"]["num_real"] == 4 for r in references.values())
    assert references["real images copied"]["metrics"]["nearest"]["median"] == pytest.approx(0, abs=1e-5)
    assert references["real cut"]["metrics"]["nearest"]["median"] > 0.01
    assert "masks" in references["real cut"]["metrics"]
    assert "masks" in references["real good"]["not_measured"]
    assert "\nreal images copied:\n4 generated (4 for LPIPS) against 4 real images" in capsys.readouterr().out

    # What another model of these photographs is compared with stays; beside numbers of others it would mislead.
    run("--model", model, *common)
    assert (tmp_path / "evaluation" / "reference_results.json").exists()
    run("--model", model, *common, "--defect", "cut")
    assert not (tmp_path / "evaluation" / "reference_results.json").exists()

    # The photographs alone, as a folder of generated images, give the same numbers.
    folder = ("--generated", two_defects / "nut" / "test" / "cut", "--resolution", "32", "--output_dir", "cut")
    run(*folder, "--generated_masks", two_defects / "nut" / "ground_truth" / "cut", *common)
    alone = json.loads((tmp_path / "cut" / "results.json").read_text())
    assert alone["metrics"] == references["real cut"]["metrics"]

    refused(".*dent", "--model", model, *common, "--references", "dent")


@pytest.mark.slow
def test_two_processes_write_the_results_of_one(
    tmp_path: Path, two_defects: Path, model: Path, alexnet_file: Path, run
):
    arguments = ["--model", model, "--data_dir", two_defects, "--defect", "hole", "--references", "cut"]
    arguments += ["--kid_features", "alexnet", "--lpips_weights", alexnet_file]
    arguments += ["--num_images", "12", "--num_lpips_images", "9", "--batch_size", "4"]
    run(*arguments, "--output_dir", "one")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [ROOT / "examples" / "evaluate.py", *arguments, "--output_dir", tmp_path / "two"]
    result = subprocess.run(
        [sys.executable, *map(str, launcher + script)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count("12 generated (9 for LPIPS)") == 1
    for name, metrics in (
        ("results.json", lambda written: written["metrics"]),
        ("reference_results.json", lambda written: written["real cut"]["metrics"]),
    ):
        one, two = (json.loads((tmp_path / folder / name).read_text()) for folder in ("one", "two"))
        assert metrics(one) == metrics(two)
    assert (tmp_path / "one" / "nearest.png").read_bytes() == (tmp_path / "two" / "nearest.png").read_bytes()


def test_defect_free_twins_against_good_photographs(tmp_path: Path, nut: Path, model: Path, alexnet_file: Path, run):
    run(
        *("--model", model, "--data_dir", nut, "--defect_free", "--num_lpips_images", "6"),
        *("--metrics", "nearest", "masks", "--num_images", "6", "--lpips_weights", alexnet_file),
    )
    written = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert written["settings"]["real_file_names"][0] == "train/good/000.png"
    assert "without masks" in written["not_measured"]["masks"]


def test_strips_are_measured_at_their_shape(tmp_path: Path):
    strips = DFMGANGenerator(**SIZES, residual_resolution=16, aspect=(1, 2))
    DFMGANPipeline(strips).save_pretrained(tmp_path)
    cpu = torch.device("cpu")
    for options in ({}, {"resolution": 32}, {"aspect": (1, 2)}, {"resolution": 32, "aspect": (1, 2)}):
        assert make_sampler(MeasureConfig(str(tmp_path), **options), cpu)[1] == (32, 64)
    for options in ({"resolution": 16}, {"aspect": (2, 1)}):
        with pytest.raises(ValueError, match="but the model draws 64x32"):
            make_sampler(MeasureConfig(str(tmp_path), **options), cpu)


def test_both_sides_are_read_with_the_same_bit_depth(tmp_path: Path):
    raw = np.linspace(0, 4095, 32 * 32).reshape(32, 32).astype(np.uint16)
    for name in ("drawn", "data/test/hole", "data/train/good"):
        (tmp_path / name).mkdir(parents=True)
        Image.fromarray(raw).save(tmp_path / name / "a.png")
    save_images(tmp_path / "data/ground_truth/hole", draw_masks(1))
    (tmp_path / "data/ground_truth/hole/000.png").rename(tmp_path / "data/ground_truth/hole/a_mask.png")
    data = DataConfig(tmp_path / "data", bit_depth=12)
    config = MeasureConfig(generated=tmp_path / "drawn", resolution=32, data=data)
    sampler, size = make_sampler(config, torch.device("cpu"))
    images, _ = draw(sampler, [0], 0)
    assert torch.equal(images, data.load_defects("hole", resolution=size).images)


def test_a_method_without_defect_free_images_is_not_compared_with_good_photographs(nut: Path, refused):
    common = ("--data_dir", nut, "--category", "nut", "--defect", "hole", "--resolution", "32", "--defect_free")
    refused("--defect_free: crop_paste draws no defect-free images", "--method", "crop_paste", *common)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"method": "crop_paste", "generated_masks": Path("x")},
            "`generated_masks` has no effect without `generated`",
        ),
        ({"generated": Path("x"), "revision": "main"}, "`revision` has no effect without `model`"),
        ({"generated": Path("x"), "truncation_psi": 0.7}, "`truncation_psi` has no effect without `model`"),
        ({"method": "crop_paste", "noise_mode": "random"}, "`noise_mode` has no effect without `model`"),
    ],
)
def test_options_without_effect_on_what_is_measured_are_refused(options: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        MeasureConfig(**options)


def test_a_model_of_one_kind_is_not_measured_as_several(nut: Path, model: Path, refused):
    common = ("--data_dir", nut, "--category", "nut", "--model", model)
    refused("--defect names hole, cut, but .* draws one kind of defect", *common, "--defect", "hole", "cut")


def test_method_without_training(tmp_path: Path, nut: Path, alexnet_file: Path, run, refused):
    common = ("--data_dir", nut, "--category", "nut", "--defect", "hole", "--resolution", "32")
    run(
        *("--method", "crop_paste", *common, "--num_images", "6", "--num_lpips_images", "4"),
        *("--metrics", "kid", "masks", "--kid_features", "alexnet", "--lpips_weights", alexnet_file),
    )
    written = json.loads((tmp_path / "evaluation" / "results.json").read_text())
    assert written["settings"]["sampler"]["type"] == "CropPasteSampler"
    assert written["metrics"]["masks"]["generated"]["num_masks"] == 6
    refused("Finetune is trained: give the folder", "--method", "finetune", *common)


def test_mistakes_end_with_a_sentence(tmp_path: Path, nut: Path, model: Path, alexnet_file: Path, refused):
    save_images(tmp_path / "drawn", draw_images(3))
    common = ("--data_dir", nut, "--category", "nut", "--resolution", "32", "--lpips_weights", alexnet_file)
    folder = ("--generated", tmp_path / "drawn", *common)
    refused(r"Give one of --model, --generated and --method\.$", *common)
    refused(r"nowhere\.pth: there is no such file\.", *folder, "--inception_weights", "nowhere.pth")
    refused(".*missing: there is no such folder", "--generated", tmp_path / "missing", *common)
    unfinished = tmp_path / "unfinished"
    (unfinished / "checkpoints" / "checkpoint-8000").mkdir(parents=True)
    (unfinished / "training_config.json").write_text(json.dumps({"recipe": {"total_kimg": 16}}))
    refused(".*unfinished holds no model yet: .* 8 of 16 kimg. To resume it, repeat", "--model", unfinished, *common)
    refused(".* holds no model: .* Give one of the folders in it: model,", "--model", model.parent, *common)
    elsewhere = ("--output_dir", tmp_path / "drawn" / "000.png" / "out")
    refused(r"--output_dir .*000\.png/out: .*000\.png is no folder that", "--model", model, *common, *elsewhere)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize(
    ("metric", "library", "options"),
    [
        ("kid", "torch_fidelity", ()),
        ("fid", "torch_fidelity", ("--kid_features", "alexnet")),
        ("kid", "torchvision", ("--kid_features", "alexnet")),
        ("nearest", "torchvision", ()),
        ("ic_lpips", "torchvision", ()),
    ],
)
def test_a_missing_library_is_told_before_anything_is_opened(metric, library, options, tmp_path, refused, monkeypatch):
    """Neither the model nor the photographs are there, which would be told first if one of them was looked for."""
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == library else find_spec(name))
    missing = ("--model", tmp_path / "nowhere", "--data_dir", tmp_path / "nothing", "--output_dir", tmp_path / "out")
    words = rf"Measuring {metric} needs {library}, which is not installed: pip install dfmgan-hf\[metrics\]"
    refused(words, *missing, *options, "--metrics", metric)
    with pytest.raises(ImportError, match=words):  # as a training that scores does, before its first step
        load_networks(EvaluationConfig((metric,), kid_features="alexnet" if options else "inception"))
    assert not (tmp_path / "out").exists()
