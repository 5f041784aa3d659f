"""What a user can mend ends a training script with a sentence; what only we can mend keeps its traceback."""

import pytest
import torch

from dfmgan_hf.data import DataError
from dfmgan_hf.training import CheckpointError
from dfmgan_hf.training.run import end_in_words
from tests.training.test_scripts import run_script


@pytest.mark.parametrize("kind", [CheckpointError, FileNotFoundError, ImportError, ValueError, torch.OutOfMemoryError])
def test_the_message_is_all(kind):
    with pytest.raises(SystemExit) as end, end_in_words():
        raise kind("what, where and what to do")
    assert end.value.code == "Stopped: what, where and what to do"


@pytest.mark.parametrize("kind", [TypeError, RuntimeError, AssertionError])
def test_faults_of_the_program_pass(kind):
    with pytest.raises(kind), end_in_words():
        raise kind("a bug")


def test_data_errors_are_of_a_kind_that_ends_in_words():
    assert issubclass(DataError, ValueError)


@pytest.mark.parametrize(
    ("script", "options"),
    [
        ("train_stage1.py", []),
        ("train_stage2.py", ["--pretrained_backbone", "nowhere"]),
        ("train_baseline.py", ["--method", "diffaug"]),
    ],
)
def test_scripts_say_what_is_wrong_without_a_traceback(script, options, tmp_path):
    missing = tmp_path / "photographs"
    run = run_script(script, *options, "--data_dir", missing, "--output_dir", tmp_path / "run", check=False)
    assert run.returncode == 1
    assert "Stopped: " in run.stderr
    assert (str(missing) if "--pretrained_backbone" not in options else "nowhere") in run.stderr
    assert "Traceback" not in run.stderr
    assert not (tmp_path / "run").exists()
