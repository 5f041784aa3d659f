"""The command line of examples/generate.py, in this process."""

import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

from dfmgan_hf import DFMGANPipeline

SCRIPT = Path(__file__).parents[2] / "examples" / "generate.py"


@pytest.fixture
def generate(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    pipe.save_pretrained(tmp_path / "model")

    def run(*options: str, model: str = str(tmp_path / "model")) -> None:
        monkeypatch.setattr(sys, "argv", ["generate.py", "--model", model, *options])
        runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def test_options_in_both_spellings(generate, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--output_dir", str(out), "--num-images", "5", "--format", "imagefolder", "--truncation_psi", "0.8"]
    generate(*options, "--max-mask-area", "0.2", "--noise_mode", "random", "--min_mask_area", "0.001")
    printed = capsys.readouterr().out
    assert f"5 triplets in {out}" in printed
    assert "empty" in printed
    assert len(list((out / "images").iterdir())) == 5
    assert Image.open(out / "masks/000004.png").size == (32, 32)
    settings = (out / "generation/settings.json").read_text()
    for setting in ('"truncation_psi": 0.8', '"noise_mode": "random"', '"min_mask_area": 0.001', '"model": "model"'):
        assert setting in settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_images", "0"], "Not finished: --num_images: 0. Expected a number from 1"),
        (["--push_to_hub", "me/set"], "Not finished: --push_to_hub: --format mvtec, thousands of small files"),
        (
            ["--format", "parquet", "--push_to_hub", "a/b/c"],
            "Not finished: a/b/c cannot be written to: 'a/b/c' is not",
        ),
    ],
)
def test_wrong_options_end_with_a_sentence(generate, tmp_path, options, message):
    with pytest.raises(SystemExit) as caught:
        generate("--output_dir", str(tmp_path / "out"), *options)
    assert str(caught.value.code).startswith(message)
    assert not (tmp_path / "out").exists()


def test_no_model(generate, tmp_path):
    with pytest.raises(SystemExit) as caught:
        generate("--output_dir", str(tmp_path / "out"), model=str(tmp_path / "nothing"))
    assert "Not finished: " in str(caught.value.code)
    assert str(tmp_path / "nothing") in str(caught.value.code)


def test_a_backbone(generate, make_backbone, tmp_path):
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path / "backbone")
    with pytest.raises(SystemExit, match="a backbone of stage 1, which draws no defects"):
        generate("--output_dir", str(tmp_path / "out"), model=str(tmp_path / "backbone"))
    assert not (tmp_path / "out").exists()
