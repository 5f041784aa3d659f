"""The command line of examples/generate.py."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from dfmgan_hf import DFMGANPipeline

SCRIPT = Path(__file__).parents[2] / "examples" / "generate.py"


@pytest.fixture
def generate(pipe, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    pipe.save_pretrained(tmp_path / "model")

    def run(*options: str, model: str = str(tmp_path / "model")) -> None:
        monkeypatch.setattr(sys, "argv", ["generate.py", "--model", model, *options])
        try:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        except SystemExit as end:
            if end.code:
                raise

    return run


def test_options_in_both_spellings(generate, tmp_path, capsys):
    out = tmp_path / "out"
    options = ["--output_dir", str(out), "--num-images", "5", "--format", "imagefolder", "--truncation_psi", "0.8"]
    generate(*options, "--max-mask-area", "0.2", "--noise_mode", "random", "--min_mask_area", "0.001")
    printed = capsys.readouterr().out
    assert f"{out}:" in printed
    assert "drew    5 of 5 triplets" in printed
    assert len(list((out / "images").iterdir())) == 5
    settings = (out / "generation/settings.json").read_text()
    for setting in ('"truncation_psi": 0.8', '"noise_mode": "random"', '"min_mask_area": 0.001', '"model": "model"'):
        assert setting in settings


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num_images", "0"], "`num_images` must be an integer of at least 1"),
        (["--push_to_hub", "me/set"], "The format mvtec is thousands of small files"),
        (["--format", "parquet", "--push_to_hub", "a/b/c"], "a/b/c cannot be written to: 'a/b/c' is not"),
        (["--model", "nowhere/to/be/found"], "There is no folder nowhere/to/be/found here"),
        (["--model", "{backbone}"], "a backbone of stage 1, which draws no defects"),
        (["--model", "{joint}"], "draws the defects dent, hole, but not 'defect': say which with --defect"),
        (["--gate_groups", "parts.csv"], "`gate_groups` has no effect without `gate`"),
        (["--gate_bit_depth", "12"], "`gate_bit_depth` has no effect without `gate`"),
        (["--private"], "`private` has no effect without `push_to_hub`"),
        (["--format", "coco", "--twins", "train"], "`twins` has no effect without `format` mvtec or anomalib"),
        (["--license", "mit"], "`license` has no effect without `format` parquet"),
        (["--mask_threshold", "-1e9"], "`mask_threshold` must be a number from"),
    ],
)
def test_mistakes_exit_with_a_message(generate, make_backbone, make_pipe, tmp_path, capsys, options, message):
    DFMGANPipeline(make_backbone()).save_pretrained(tmp_path / "backbone")
    make_pipe(defect_names=["dent", "hole"]).save_pretrained(tmp_path / "joint")
    options = [option.format(backbone=tmp_path / "backbone", joint=tmp_path / "joint") for option in options]
    with pytest.raises(SystemExit) as end:
        generate("--output_dir", str(tmp_path / "out"), *options)
    assert end.value.code == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists(), "or the right command would be told that the folder has other settings"


@pytest.mark.slow
@pytest.mark.parametrize("format", ["mvtec", "parquet"])
def test_two_processes_share_the_work(generate, contents, tmp_path, environment, format, capsys):
    out = tmp_path / "out"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(SCRIPT)]
    options = ["--format", format, "--num_images", "11", "--images_per_shard", "3", "--batch_size", "1"]
    command = [*launcher, "--model", str(tmp_path / "model"), "--output_dir", str(out), *options]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert process.returncode == 0, process.stderr[-3000:]
    assert process.stdout.count("drew    11 of 11 triplets") == 1, "one process reports, of both"
    generate("--output_dir", str(tmp_path / "one"), *options)
    assert contents(out) == contents(tmp_path / "one")


def test_what_a_model_learnt_from_travels_with_what_it_draws(generate, tmp_path):
    record = {"training_file_names": ["test/dot/000.png", "test/dot/001.png"]}
    (tmp_path / "model" / "training_config.json").write_text(json.dumps(record), encoding="utf-8")
    generate("--output_dir", str(tmp_path / "out"), "--num-images", "2")
    settings = json.loads((tmp_path / "out" / "generation" / "settings.json").read_text(encoding="utf-8"))
    assert settings["trained_on"] == record["training_file_names"]
