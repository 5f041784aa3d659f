"""Training scripts and evaluate.py with --push_to_hub, from photographs to a repository that draws."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import ModelCard

from tests.metrics.drawn import write_alexnet
from tests.training.test_scripts import COMMON, SIZES, save_drawn_category

from . import actions
from .client import ROOT, ActionFailed, environment
from .repositories import READ_TOKEN, WRITE_TOKEN
from .server import Fault


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_drawn_category(tmp_path_factory.mktemp("data") / "plate")


def stage1_options(category: Path, output: Path) -> list[str]:
    return ["--data_dir", str(category), "--output_dir", str(output), *SIZES, *COMMON]


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(write_alexnet(tmp_path_factory.mktemp("weights") / "alexnet.safetensors"))


@pytest.mark.slow
def test_from_photographs_to_measured_models(hub, client, new_name, category, alexnet, tmp_path):
    """Stage 1, stage 2 for two defects on what stage 1 published, and the numbers of one of them."""
    backbone, model = new_name(), new_name()
    options = ["--push_to_hub", "--hub_private_repo", "--hub_training_networks", "--hub_model_id", backbone]
    printed = client(actions.run_script, "train_stage1.py", *stage1_options(category, tmp_path / "stage1"), *options)
    assert f"Published: {hub.address}/{backbone}/commit/{hub.repository(backbone).branches['main']}" in printed
    assert hub.repository(backbone).private
    files = hub.files(backbone)
    assert {"discriminator/diffusion_pytorch_model.safetensors", "samples.png", "training_config.json"} <= set(files)
    assert not any(str(tmp_path).encode() in content for content in files.values())
    assert "Draws images of defect-free" in files["README.md"].decode()

    options = ["--push_to_hub", "--hub_model_id", model, "--hub-variant", "fp16", "--defect", "dot", "spot"]
    options += ["--eval_every_kimg", "0.008", "--eval_images", "6", "--lpips_weights", alexnet]
    stage2 = ["--pretrained_backbone", backbone, "--data_dir", str(category), "--output_dir", str(tmp_path / "stage2")]
    printed = client(actions.run_script, "train_stage2.py", *stage2, *COMMON, *options)
    for defect in ("dot", "spot"):
        name = f"{model}-{defect}"
        assert f"Published: {hub.address}/{name}/commit/" in printed
        card = ModelCard(hub.files(name)["README.md"].decode())
        assert f'with the defect "{defect}"' in card.text
        assert "Stage 2: 4 photographs, 0.016 kimg (4 steps of batch 4)" in card.text
        assert re.search(
            r"Checkpoint: the one after 0.0(08|16) kimg, by the lowest KID on AlexNet features", card.text
        )
        assert card.data.base_model == backbone
        assert "generator/diffusion_pytorch_model.fp16.safetensors" in hub.files(name)
        best = str(tmp_path / "stage2" / defect / "best")
        assert client(actions.pull, name) == client(actions.pull, best)
    assert set(hub.repositories.of) >= {("model", f"{model}-dot"), ("model", f"{model}-spot")}
    assert ("model", model) not in hub.repositories.of

    measure = ["--data_dir", str(category), "--defect", "dot", "--references", "spot", "good", "copies"]
    measure += [
        "--kid_features",
        "alexnet",
        "--lpips_weights",
        alexnet,
        "--num_images",
        "8",
        "--num_lpips_images",
        "8",
    ]
    output = ["--output_dir", str(tmp_path / "measured")]
    printed = client(actions.run_script, "evaluate.py", "--model", f"{model}-dot", *measure, *output, "--push_to_hub")
    assert f"Published: {hub.address}/{model}-dot/commit/" in printed
    assert hub.repository(f"{model}-dot").messages["main"][-1] == "Add measured results"
    card = ModelCard(hub.files(f"{model}-dot")["README.md"].decode())
    assert "| | this model | real spot | real good | real images copied |" in card.text
    assert "| Images | 8 | 4 | 6 | 4 |" in card.text
    results = json.loads((tmp_path / "measured" / "results.json").read_text())
    kid = next(r for r in card.data.eval_results if r.metric_type == "kid")
    assert kid.metric_value == pytest.approx(1000 * results["metrics"]["kid"]["kid"], abs=1e-4)
    assert kid.metric_name == "KID x 1000, lower is closer (alexnet-relu1to5-mean)"
    assert client(actions.pull, f"{model}-dot") == client(actions.pull, str(tmp_path / "stage2" / "dot" / "best"))


@pytest.mark.parametrize(
    ("token", "options", "message"),
    [
        ("hf_mistyped", ["--hub_model_id", "me/plates"], "Stopped: me/plates cannot be written to: the Hub does not"),
        (READ_TOKEN, ["--hub_model_id", "me/plates"], "Stopped: me/plates cannot be written to: the token has no"),
        (None, ["--hub_model_id", "a//b"], "Stopped: .*Expected org/name"),
        (None, ["--hub_card", "missing.json"], "Stopped: .*There is no file missing.json"),
    ],
)
def test_nothing_is_trained_that_could_not_be_published(client, category, tmp_path, token, options, message):
    arguments = [*stage1_options(category, tmp_path / "run"), "--push_to_hub", *options]
    with pytest.raises(ActionFailed, match=message):
        client(actions.run_script, "train_stage1.py", *arguments, token=token)
    assert not (tmp_path / "run").exists()


def test_a_failed_push_keeps_the_model_and_says_how_to_push_it_again(hub, client, new_name, category, tmp_path):
    name, folder = new_name(), tmp_path / "run"
    hub.faults.append(Fault("POST", "/commit/", 100, times=1000))
    with pytest.raises(ActionFailed, match=rf"Stopped: .*The model is in {folder}, but was not published") as caught:
        client(
            actions.run_script,
            "train_stage1.py",
            *stage1_options(category, folder),
            *("--push_to_hub", "--hub_model_id", name, "--hub_commit_message", "Small plates"),
        )
    assert set(hub.files(name)) == set()
    hub.faults.clear()
    (line,) = (line for line in str(caught.value).splitlines() if "examples/push_to_hub.py" in line)
    program, script, *arguments = shlex.split(line.partition(": ")[2])
    assert (program, script) == ("python", "examples/push_to_hub.py")
    client(actions.run_script, "push_to_hub.py", *arguments)
    assert hub.repository(name).messages["main"][-1] == "Small plates"
    assert client(actions.pull, name) == client(actions.pull, str(folder))


def test_numbers_that_could_not_be_published_can_be_later(hub, client, new_name, category, alexnet, tmp_path):
    name = new_name()
    client(actions.push, name)
    hub.faults.append(Fault("POST", "/commit/", 100, times=1000))
    arguments = ["--data_dir", str(category), "--defect", "dot", "--metrics", "kid", "--num_images", "4"]
    arguments += ["--kid_features", "alexnet", "--lpips_weights", alexnet, "--output_dir", str(tmp_path)]
    with pytest.raises(ActionFailed, match=r"Not published: Nothing was published .*") as caught:
        client(actions.run_script, "evaluate.py", "--model", name, *arguments, "--push_to_hub")
    assert (tmp_path / "results.json").is_file()
    hub.faults.clear()
    (line,) = (line for line in str(caught.value).splitlines() if line.startswith("Once that is mended: "))
    client(actions.run_script, "push_to_hub.py", *shlex.split(line.partition(": ")[2])[2:])
    assert "results.json" in hub.files(name)
    with pytest.raises(ActionFailed, match=r"--push_to_hub publishes numbers with their model: give --model"):
        client(actions.run_script, "evaluate.py", "--generated", str(tmp_path), *arguments, "--push_to_hub")


@pytest.mark.slow
def test_only_one_of_several_processes_publishes(hub, new_name, category, tmp_path):
    name = new_name()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    script = [str(ROOT / "examples" / "train_stage1.py"), *stage1_options(category, tmp_path / "run")]
    variables = environment(hub.address, tmp_path / "home", WRITE_TOKEN)
    run = subprocess.run(
        [sys.executable, *launcher, *script, "--push_to_hub", "--hub_model_id", name],
        env={**os.environ, **variables, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.count("Published: ") == 1
    assert len([1 for method, path in hub.requests if path.endswith("/commit/main")]) == 1
    assert [1 for method, path in hub.requests if path == "/api/repos/create"] == [1, 1]  # before and at the end
    assert json.loads(hub.files(name)["training_config.json"])["environment"]["num_processes"] == 2
