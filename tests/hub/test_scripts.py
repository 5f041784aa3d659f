"""The script that publishes, as a user runs it."""

from __future__ import annotations

import pytest

from . import actions
from .client import ActionFailed

SCRIPT = "push_to_hub.py"


def test_model_and_standalone_copy(hub, client, new_name, trained_folder, tmp_path):
    model, standalone, copy = new_name(), new_name(), tmp_path / "copy"
    folder = str(trained_folder)
    push = ("--push_to_hub", "--hub_model_id")
    printed = client(actions.run_script, SCRIPT, "--folder", folder, *push, model, "--hub-variant", "fp16")
    assert f"{hub.address}/{model}/commit/{hub.repository(model).branches['main']}" in printed
    assert "generator/diffusion_pytorch_model.fp16.safetensors" in hub.files(model)
    expected = client(actions.pull, model)

    arguments = ("--kind", "standalone", "--output_dir", str(copy))
    client(actions.run_script, SCRIPT, "--folder", folder, *arguments, *push, standalone)
    assert {name for name in hub.files(standalone) if name.endswith(".py")} == {
        "pipeline_dfmgan.py",
        "generator/modeling_dfmgan.py",
    }
    assert client(actions.pull, standalone, generic=True, trust_remote_code=True) == expected
    with pytest.raises(ActionFailed, match=r"(?s)ValueError.*trust_remote_code=True"):
        client(actions.pull, standalone, generic=True)


def test_files_can_be_looked_at_before(hub, client, trained_folder, tmp_path):
    copy = tmp_path / "copy"
    assert str(copy) in client(actions.run_script, SCRIPT, "--folder", str(trained_folder), "--output_dir", str(copy))
    assert {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} == {
        "model_index.json",
        "generator/config.json",
        "generator/diffusion_pytorch_model.safetensors",
        "training_config.json",
    }
    assert "/home/alice" not in (copy / "training_config.json").read_text()
    assert hub.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), r"Nothing to do: give --push_to_hub, or --output_dir"),
        (("--hub_model_id", "a/b", "--output_dir", "x"), r"`hub_model_id` has no effect without"),
        (("--kind", "space", "--output_dir", "x"), r"--output_dir has no effect on a Space"),
        (("--kind", "space", "--push_to_hub"), r"Not done: .*has no README.md; give the folder of a Gradio Space"),
        (("--push_to_hub", "--hub_model_id", "a//b"), r"Not done: .*Expected org/name"),
    ],
)
def test_wrong_options(client, tmp_path, trained_folder, arguments, message):
    with pytest.raises(ActionFailed, match=message):
        client(actions.run_script, SCRIPT, "--folder", str(trained_folder), *arguments)
