"""Both training scripts, from drawn photographs to pipelines that load, as users run them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from dfmgan_hf import DFMGANPipeline, StyleGAN2Discriminator
from dfmgan_hf.cli import main
from dfmgan_hf.data import DataConfig, DataError
from dfmgan_hf.files import lock_folder
from dfmgan_hf.methods import get_method
from dfmgan_hf.methods import train as train_method
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig
from dfmgan_hf.methods.train import TrainingConfig, prepare, train
from dfmgan_hf.metrics import MissingWeightsError
from dfmgan_hf.training import CheckpointError, NonFiniteLossError, RunConfig, Trainer
from tests.training import tiny

ROOT = Path(__file__).parents[2]
COMMON = [
    "--log_every_kimg=0.008",
    "--sample_every_kimg=0",
    "--checkpoint_every_kimg=0.008",
    "--report_to=none",
    "--batch_size=4",
    "--total_kimg=0.016",
]
SIZES = [f"--{name}={value}" for name, value in {**tiny.SIZES, "z_dim": 16, "w_dim": 16, "image_channels": 1}.items()]


def save_drawn_category(folder: Path) -> Path:
    """Six good photographs and the kinds of defect "dot" and "spot" with four each, in the layout of MVTec AD."""
    good, bad = tiny.drawn_set(6, 1, masks=False), tiny.drawn_set(8, 1)
    for i, image in enumerate(good.images):
        write(image, folder / "train" / "good" / f"{i:03d}.png")
    for i in range(8):
        kind = ("dot", "spot")[i % 2]
        write(bad.images[i], folder / "test" / kind / f"{i:03d}.png")
        write(bad.masks[i], folder / "ground_truth" / kind / f"{i:03d}_mask.png")
    return folder


def write(image: torch.Tensor, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image[0].contiguous().numpy()).save(path)


def run_script(
    script: str, *arguments: object, check: bool = True, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    environment = {**os.environ, **own, **(environment or {})}
    run = subprocess.run(
        [sys.executable, ROOT / "examples" / script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=environment,
        check=False,
    )
    assert not check or run.returncode == 0, run.stderr
    return run


@pytest.fixture(scope="module")
def category(tmp_path_factory) -> Path:
    return save_drawn_category(tmp_path_factory.mktemp("data") / "plate")


@pytest.fixture(scope="module")
def backbone(category, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("backbone")
    run_script("train_stage1.py", "--data_dir", category, "--output_dir", output, *SIZES, *COMMON)
    return output


def test_stage1_script(backbone):
    pipe = DFMGANPipeline.from_pretrained(str(backbone))
    pipe.set_progress_bar_config(disable=True)
    assert not pipe.has_defects
    assert pipe(seeds=[1]).images[0].size == (32, 32)
    assert StyleGAN2Discriminator.from_pretrained(backbone, subfolder="discriminator").config["image_channels"] == 1
    record = json.loads((backbone / "training_config.json").read_text())
    assert record["method"] == "stage1"
    assert record["images"] == 6
    assert record["recipe"]["resolution"] == 32
    assert record["result"]["images_seen"] == 16
    assert [path.name for path in sorted((backbone / "samples").iterdir())] == ["0000000000.png", "0000000016.png"]


def test_stage2_script_with_several_defects(backbone, category, tmp_path):
    """One command, two pipelines, and the backbone in both as it was."""
    run = run_script(
        "train_stage2.py",
        *("--pretrained_backbone", backbone, "--data_dir", category, "--defect", "dot", "spot"),
        *("--output_dir", tmp_path, "--precision", "float32"),
        *COMMON,
    )
    assert "Memory so far: " in run.stdout + run.stderr
    before = DFMGANPipeline.from_pretrained(str(backbone)).generator.state_dict()
    for defect in ("dot", "spot"):
        folder = tmp_path / defect
        pipe = DFMGANPipeline.from_pretrained(str(folder))
        pipe.set_progress_bar_config(disable=True)
        output = pipe(seeds=[1, 2])
        assert len(output.images) == len(output.masks) == len(output.defect_free_images) == 2
        after = pipe.generator.state_dict()
        for name, value in before.items():
            assert torch.equal(after[name], value), f"stage 2 changed {name} of the backbone"
        record = json.loads((folder / "training_config.json").read_text())
        assert (record["method"], record["defect"], record["images"]) == ("dfmgan", defect, 4)
        assert record["settings"]["mode_seeking_weight"] == 0.1
        assert (folder / "match_discriminator").is_dir()
        assert (folder / "report.html").is_file()


def call_script(name: str, *arguments: object) -> None:
    """What a script does, in this process, with its command line."""
    train([name.removeprefix("train_"), *map(str, arguments)])


def stage2_options(backbone: Path, category: Path, output: Path) -> list[object]:
    return ["--pretrained_backbone", backbone, "--data_dir", category, "--output_dir", output, *COMMON]


@pytest.mark.parametrize(
    "options",
    [
        ["--match_discriminator=none", "--mode_seeking_weight=0", "--preset=paper256", "--batch_size=4", "--mirror"],
        ["--mode_seeking_weight=1", "--mode_seeking_on=image", "--mode_seeking_latents=z", "--shots=1"],
        ["--match_discriminator=large", "--residual_resolution=8", "--shots=3", "--augmentation=diffaugment"],
        ["--match_discriminator=medium", "--low_vram", "--batch_size=8", "--augmentation=none"],
        ["--match_discriminator=joint", "--mode_seeking_latents=z"],
    ],
    ids=" ".join,
)
def test_options_of_stage2(backbone, category, tmp_path, options):
    call_script("train_stage2", *stage2_options(backbone, category, tmp_path), "--defect=dot", *options)
    # A single defect goes to the output folder itself.
    assert DFMGANPipeline.from_pretrained(str(tmp_path)).has_defects
    record = json.loads((tmp_path / "training_config.json").read_text())
    shots = [int(option.split("=")[1]) for option in options if option.startswith("--shots")]
    assert record["images"] == (shots[0] if shots else 4)
    assert record["run"]["accumulation_steps"] == (2 if "--low_vram" in options else 1)
    has_none = {"--match_discriminator=none", "--match_discriminator=joint"} & set(options)
    assert (tmp_path / "match_discriminator").is_dir() == (not has_none)


def test_a_defect_that_diverges_does_not_keep_others_from_being_trained(backbone, category, tmp_path, monkeypatch):
    fit = train_method.fit

    def diverge(prepared, *options):
        if prepared.record["defect"] == "dot":
            raise NonFiniteLossError("At 0.01 kimg the loss of r1 is not finite.")
        return fit(prepared, *options)

    monkeypatch.setattr(train_method, "fit", diverge)
    options = [*stage2_options(backbone, category, tmp_path), "--defect", "dot", "spot"]
    with pytest.raises(SystemExit, match=r"dot: At 0\.01 kimg the loss of r1 is not finite"):
        call_script("train_stage2", *options)
    assert DFMGANPipeline.from_pretrained(str(tmp_path / "spot")).has_defects
    assert not (tmp_path / "dot" / "model_index.json").exists()


def test_errors_are_about_what_the_user_did(backbone, category, tmp_path):
    record = (backbone / "training_config.json").read_text()
    stage1 = ["--data_dir", category, *SIZES, *COMMON]
    with pytest.raises(CheckpointError, match="--resume_from_checkpoint latest"):
        call_script("train_stage1", *stage1, "--output_dir", backbone)
    assert (backbone / "training_config.json").read_text() == record, "the old run's record was overwritten"
    with pytest.raises(ValueError, match="Stage 1 learns the good product: leave --defect out"):
        call_script("train_stage1", *stage1, "--output_dir", tmp_path, "--defect=dot")
    with pytest.raises(DataError, match=r"dot.*spot"):
        call_script("train_stage2", *stage2_options(backbone, category, tmp_path))
    with pytest.raises(ValueError, match="`resolution` is 32 in the pretrained backbone and cannot be 64"):
        call_script("train_stage2", *stage2_options(backbone, category, tmp_path), "--defect=dot", "--resolution=64")
    with pytest.raises(ValueError, match="choose a multiple of their product"):
        call_script("train_stage1", *stage1, "--output_dir", tmp_path, "--accumulation_steps=3")
    assert not list(tmp_path.iterdir()), "something was written before the mistake was noticed"


@pytest.fixture
def stop_after(monkeypatch):
    """Make a run stop after so many steps, by a signal or killed."""

    def stop(steps: int, *, killed: bool = False) -> None:
        train_step = Trainer._train_step

        def step(trainer, batch):
            train_step(trainer, batch)
            if trainer.progress.step == steps:
                if killed:
                    raise KeyboardInterrupt
                os.kill(os.getpid(), signal.SIGTERM)

        monkeypatch.setattr(Trainer, "_train_step", step)

    return stop


def test_a_stopped_run_leaves_a_model_that_says_it_is_not_finished(
    category, tmp_path, stop_after, monkeypatch, capsys
):
    stop_after(3)
    folder = tmp_path / "stage1"
    stage1 = ["--data_dir", category, "--output_dir", folder, *SIZES, *COMMON]
    with pytest.raises(SystemExit) as left:
        call_script("train_stage1", *stage1)
    assert left.value.code == 143
    assert f"What is learnt so far is a model: {folder}" in capsys.readouterr().out
    assert not DFMGANPipeline.from_pretrained(str(folder)).has_defects
    assert "<p>not finished, 0.01 of 0.016 kimg" in (folder / "report.html").read_text()
    monkeypatch.undo()
    stage2 = stage2_options(folder, category, tmp_path / "stage2")
    with pytest.warns(UserWarning, match=r"stage1 is not finished: 0\.012 of 0\.016 kimg.*--resume_from_checkpoint l"):
        call_script("train_stage2", *stage2, "--defect=dot")
    call_script("train_stage1", *stage1, "--resume_from_checkpoint=latest")
    assert json.loads((folder / "training_config.json").read_text())["result"]["images_seen"] == 16
    assert "<p>finished, " in (folder / "report.html").read_text()


def test_a_killed_stage1_is_not_a_backbone_until_it_is_resumed(category, tmp_path, stop_after, monkeypatch):
    folder = tmp_path / "stage1"
    stage1 = ["--data_dir", category, "--output_dir", folder, *SIZES, *COMMON]
    stage2 = [*stage2_options(folder, category, tmp_path / "stage2"), "--defect=dot"]
    stop_after(1, killed=True)
    with pytest.raises(KeyboardInterrupt):
        call_script("train_stage1", *stage1)
    with pytest.raises(CheckpointError, match="has not reached its first checkpoint"):
        call_script("train_stage2", *stage2)
    monkeypatch.undo()
    stop_after(3, killed=True)
    with pytest.raises(KeyboardInterrupt):
        call_script("train_stage1", *stage1)
    monkeypatch.undo()
    with pytest.raises(
        CheckpointError, match=r"no model yet: .*after 0\.008 of 0\.016 kimg.* --total_kimg 0\.008 besides"
    ):
        call_script("train_stage2", *stage2)
    call_script("train_stage1", *stage1, "--resume_from_checkpoint=latest", "--total_kimg=0.008")
    call_script("train_stage2", *stage2)
    assert DFMGANPipeline.from_pretrained(str(tmp_path / "stage2")).has_defects


@pytest.mark.parametrize("content", ["", "{", "[]", '{"recipe": null}', '{"result": 5}'])
def test_a_damaged_record_of_a_backbone_is_told(category, tmp_path, content):
    (tmp_path / "stage1").mkdir()
    (tmp_path / "stage1" / "training_config.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"training_config\.json is (damaged|not what a training wrote)"):
        call_script("train_stage2", *stage2_options(tmp_path / "stage1", category, tmp_path / "out"), "--defect=dot")


@pytest.mark.parametrize("place", ["", "train/good", "runs/plate", "..", "link"])
def test_a_run_does_not_write_among_the_photographs(tmp_path, place):
    data = save_drawn_category(tmp_path / "data" / "plate")
    (data / "link").symlink_to(data / "test")
    before = sorted(tmp_path.rglob("*"))
    where = ["--data_dir", tmp_path / "data", "--category", "plate"]
    for source in (where, ["--data_dir", data], ["--good_dir", data / "train" / "good"]):
        if source is not where and place not in ("", "train/good"):
            continue
        output = data / "train" / "good" / place if "--good_dir" in source else data / place
        with pytest.raises(ValueError, match="is or lies in a folder of photographs"):
            call_script("train_stage1", *source, "--output_dir", output, *SIZES, *COMMON)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_only_kind_of_a_data_set_is_known_without_being_named(tmp_path):
    folder = save_drawn_category(tmp_path / "plate")
    shutil.rmtree(folder / "test" / "spot")
    run, method = RunConfig(output_dir=tmp_path / "run", report_to="none"), get_method("diffaug")
    data, recipe = DataConfig(folder), RecipeConfig(resolution=32)
    prepared = prepare(method, TrainingConfig(run, method.options(), AugmentationConfig(), recipe=recipe, data=data))
    assert prepared.record["defect"] == "dot"
    assert prepared.record["config"].defect == ("dot",)


def test_two_runs_do_not_write_to_one_folder(category, tmp_path):
    with lock_folder(tmp_path), pytest.raises(BlockingIOError, match="Another run is writing to"):
        call_script("train_stage1", "--data_dir", category, "--output_dir", tmp_path, *SIZES, *COMMON)
    assert not list(tmp_path.iterdir())


def test_settings_of_accelerate_that_do_nothing_are_named(category, tmp_path):
    environment = {
        "ACCELERATE_USE_CPU": "true",
        "ACCELERATE_MIXED_PRECISION": "bf16",
        "ACCELERATE_GRADIENT_ACCUMULATION_STEPS": "4",
        "ACCELERATE_DYNAMO_BACKEND": "inductor",
    }
    options = ["--data_dir", category, "--output_dir", tmp_path, *SIZES, *COMMON]
    said = run_script("train_stage1.py", *options, environment=environment).stderr
    assert (
        "no effect here: mixed_precision bf16 (give --precision); gradient_accumulation_steps 4 (give --accum" in said
    )
    assert "dynamo_backend" in said


def test_ctrl_c_before_the_first_step_is_one_line(tmp_path, monkeypatch, capsys):
    def interrupted(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(train_method, "train", interrupted)
    with pytest.raises(SystemExit) as left:
        main(["train", "stage1"])
    assert left.value.code == 130
    assert capsys.readouterr().err == "Stopped.\n"


def test_missing_weights_are_an_error_before_training_starts(category, tmp_path, monkeypatch):
    monkeypatch.delenv("DFMGAN_LPIPS_WEIGHTS", raising=False)
    options = ["--data_dir", category, "--output_dir", tmp_path, *SIZES, *COMMON, "--eval_every_kimg=1"]
    with pytest.raises(MissingWeightsError, match="--lpips_weights or DFMGAN_LPIPS_WEIGHTS"):
        call_script("train_stage1", *options, "--lpips_weights", tmp_path / "none.safetensors")
    assert not list(tmp_path.iterdir())


def test_scores_and_best_model_of_a_script(backbone, category, tmp_path):
    weights = os.environ.get("DFMGAN_LPIPS_WEIGHTS")
    if not weights:
        pytest.skip("DFMGAN_LPIPS_WEIGHTS does not name AlexNet's weights with LPIPS's")
    options = ["--eval_every_kimg=0.008", "--eval_images=6", "--lpips_weights", weights]
    call_script("train_stage2", *stage2_options(backbone, category, tmp_path), "--defect=dot", *options)
    assert DFMGANPipeline.from_pretrained(str(tmp_path / "best")).has_defects
    record = json.loads((tmp_path / "training_config.json").read_text())
    assert record["checkpoint_rule"].startswith("lowest KID on AlexNet features of 6 generated images")
    assert record["best"]["images_seen"] in (8, 16)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = {row["images_seen"]: row["score/kid"] for row in rows if "score/kid" in row}
    assert scores.keys() == {8, 16}
    assert "best checkpoint" in (tmp_path / "report.html").read_text()
