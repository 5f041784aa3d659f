"""The quick start as a user runs it, on a tiny model."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf import DFMGANPipeline

SCRIPT = Path(__file__).parents[2] / "examples" / "quickstart.py"


def quickstart(*arguments: object) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(SCRIPT.parents[1])},
    )


def test_draws_triplets_and_a_contact_sheet(make_generator, tmp_path):
    pipe = DFMGANPipeline(make_generator())
    pipe.save_pretrained(tmp_path / "model")
    out = tmp_path / "pictures"
    run = quickstart("--model", tmp_path / "model", "--output_dir", out, "--num_images", 3, "--first-seed", 5)
    assert run.returncode == 0, run.stderr
    kinds = ("defect", "defect_free", "mask")
    expected = {f"{seed:05d}_{kind}.png" for seed in (5, 6, 7) for kind in kinds}
    assert {p.name for p in out.iterdir()} == expected | {"contact_sheet.png"}
    assert np.array_equal(np.asarray(Image.open(out / "00006_mask.png")), np.asarray(pipe(seeds=[6]).masks[0]))
    assert str(out / "contact_sheet.png") in run.stdout
    assert "3 samples (defect-free, mask, defect) of 32 x 32 pixels" in run.stdout


def test_backbone_alone_draws_defect_free_images(make_backbone, tmp_path):
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path / "model")
    run = quickstart("--model", tmp_path / "model", "--output_dir", tmp_path / "out", "--num_images", 2)
    assert run.returncode == 0, run.stderr
    assert "no defect branch" in run.stderr
    assert len(list((tmp_path / "out").glob("*_defect_free.png"))) == len(list((tmp_path / "out").iterdir())) - 1 == 2


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("--model", "/nowhere", "/nowhere"), ("--num_images", "0", "`num_images` must be")],
)
def test_wrong_options_leave_nothing_behind(make_generator, tmp_path, option, value, message):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    run = quickstart("--model", tmp_path / "model", "--output_dir", tmp_path / "out", option, value)
    assert run.returncode != 0
    assert message in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "out").exists()
