"""The command line: subcommands start, a user's mistake exits with its message and status 2, bugs keep a traceback."""

import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch

from dfmgan_hf import cli
from dfmgan_hf.data import DataError
from dfmgan_hf.training import CheckpointError
from tests.training.test_scripts import run_script

MODEL = Path(__file__).parents[1] / "models" / "dfmgan-magnetic-tile"


@pytest.mark.parametrize(
    "error",
    [
        CheckpointError("what and where"),
        DataError("mask", "a.png", found="nothing", expected="a mask", advice="Draw one."),
        FileNotFoundError("what and where"),
        ImportError("what and where"),
        ValueError("what and where"),
        torch.OutOfMemoryError("what and where"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_user_error_exits_with_its_message(error, capsys, monkeypatch):
    monkeypatch.delenv("DFMGAN_TRACEBACK", raising=False)
    with pytest.raises(SystemExit) as end, cli.exit_on_user_error():
        raise error
    assert end.value.code == 2
    is_own = isinstance(error, (CheckpointError, DataError))
    hint = "" if is_own else "Set DFMGAN_TRACEBACK=1 to see where this was raised.\n"
    assert capsys.readouterr().err == f"Error: {error}\n{hint}"
    monkeypatch.setenv("DFMGAN_TRACEBACK", "1")
    with pytest.raises(type(error)), cli.exit_on_user_error():
        raise error


@pytest.mark.parametrize("kind", [TypeError, RuntimeError, AssertionError, KeyError])
def test_faults_of_the_program_pass(kind):
    with pytest.raises(kind), cli.exit_on_user_error():
        raise kind("a bug")


def test_what_the_package_warns_of_is_words_alone(capsys):
    def warn(arguments):
        for file in (cli.__file__, __file__):
            print(warnings.formatwarning("look here", UserWarning, file, 1, "code"))

    usual = warnings.formatwarning
    with pytest.raises(SystemExit):
        cli.run(warn, [])
    assert capsys.readouterr().out.startswith(f"Warning: look here\n\n{__file__}:1: UserWarning: look here")
    assert warnings.formatwarning is usual


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_subcommand_lists_its_options(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, "--help"])
    assert end.value.code == 0
    assert f"dfmgan {name}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "headings"),
    [
        ("train stage2", "run method augmentation recipe data score hub"),
        ("train stage1", "run augmentation recipe data score hub"),
        ("evaluate", "evaluation data hub"),
        ("paint", "painting"),
        ("generate", "export"),
    ],
)
def test_headings_of_the_help_say_what_is_below_them(command, headings, capsys):
    with pytest.raises(SystemExit):
        cli.main([*command.split(), "--help"])
    text = capsys.readouterr().out
    assert re.findall(r"^\W+(\w+) options\W*$", text, re.MULTILINE) == headings.split()
    assert "What to train on" not in text


def test_help_imports_nothing_that_trains_measures_or_publishes():
    parts = ["training", "data", "metrics", "methods", "export", "hub"]
    code = f"""
import sys
from dfmgan_hf import cli
cli.main(["--help"])
assert not {{f"dfmgan_hf.{{part}}" for part in {parts}}} & set(sys.modules)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    assert all(name in run.stdout for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["drow"], "no subcommand 'drow'"),
        (["train", "stage3"], "must be one of stage1, stage2,"),
        (["draw", "--model", "nowhere"], "Error: There is no folder nowhere here, and a repository"),
        (["draw", "--model", str(MODEL), "--device", "gpu"], "`device` is 'gpu'"),
        (["draw", "--model", str(MODEL), "--device", "cuda:9"], "`device` is 'cuda:9'"),
        (
            ["draw", "--model", str(MODEL), "--output_dir", "/proc/nowhere/demo", "--num_images", "1"],
            "'/proc/nowhere'",
        ),
        (["draw", "--model", str(MODEL), "--output_dir", __file__], "test_cli.py is a file, but a folder is needed"),
        (["card", "--model", "no/such/folder"], "no/such/folder has no model_index.json"),
        (["check", "nowhere"], "nowhere"),
        (["evaluate"], "--model, --generated and --method"),
        (["push", "--folder", "x"], "Nothing to do"),
        (["convert", "--snapshot", "nowhere.pkl", "--output_dir", "x"], "nowhere.pkl"),
        (["sample", "--method", "cdc", "--output_dir", "x"], "trained"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_argument_is_explained(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        cli.main(arguments)
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert words in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("train_stage1.py", []),
        ("train_stage2.py", ["--pretrained_backbone", "nowhere"]),
        ("train_baseline.py", ["diffaug"]),
    ],
)
def test_scripts_say_what_is_wrong_without_a_traceback(script, options, tmp_path):
    missing = tmp_path / "photographs"
    run = run_script(script, *options, "--data_dir", missing, "--output_dir", tmp_path / "run", check=False)
    assert run.returncode == 2
    assert "Error: " in run.stderr
    assert (str(missing) if "--pretrained_backbone" not in options else "nowhere") in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()
