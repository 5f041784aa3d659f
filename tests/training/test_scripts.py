"""Both training scripts, from drawn photographs to pipelines that load, as users run them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from dfmgan_hf import DFMGANPipeline, StyleGAN2Discriminator

from . import tiny

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


def run_script(script: str, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
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


def test_stage2_script(backbone, category, tmp_path):
    run_script(
        "train_stage2.py",
        *("--pretrained_backbone", backbone, "--data_dir", category, "--defect", "dot", "--output_dir", tmp_path),
        *("--precision", "float32"),
        *COMMON,
    )
    pipe = DFMGANPipeline.from_pretrained(str(tmp_path))
    pipe.set_progress_bar_config(disable=True)
    output = pipe(seeds=[1, 2])
    assert len(output.images) == len(output.masks) == len(output.defect_free_images) == 2
    before = DFMGANPipeline.from_pretrained(str(backbone)).generator.state_dict()
    after = pipe.generator.state_dict()
    for name, value in before.items():
        assert torch.equal(after[name], value), f"stage 2 changed {name} of the backbone"
    record = json.loads((tmp_path / "training_config.json").read_text())
    assert record["images"] == 4
    assert (tmp_path / "match_discriminator").is_dir()


def test_errors_are_about_what_the_user_did(backbone, category, tmp_path):
    run = run_script("train_stage1.py", "--data_dir", category, "--output_dir", backbone, *SIZES, *COMMON, check=False)
    assert run.returncode == 1
    assert "--resume_from_checkpoint latest" in run.stderr
