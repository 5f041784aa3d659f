"""Two processes are one run: the same networks and state on both, which stop, resume and start as documented."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from dfmgan_hf.training import ProcessGroup, trainer
from dfmgan_hf.training.checkpointing import list_checkpoints, read_checkpoint
from tests.training import launch, tiny
from tests.training.test_checkpointing import assert_same_end
from tests.training.test_scripts import COMMON, ROOT, SIZES, save_drawn_category


def train_ranks(stage: str, folder: Path, steps: int, resume: str | None = None) -> None:
    """One rank's run; afterwards each leaves what it ended with."""
    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    processes = ProcessGroup(accelerator)
    task = tiny.MAKE[stage](seed=accelerator.process_index, processes_mean=processes.mean)
    tiny.make_trainer(task, folder, steps=steps, accelerator=accelerator).train(resume)
    tensors = {f"task.{name}": value for name, value in task.state_dict().items()}
    for name, network in task.networks.items():
        tensors.update({f"{name}.{key}": value.contiguous() for key, value in network.state_dict().items()})
    tensors["random"] = torch.get_rng_state()
    save_file(tensors, folder / f"rank{accelerator.process_index}.safetensors")


@pytest.fixture(scope="module", params=["stage1", "stage2"])
def two_process_run(request, tmp_path_factory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp(request.param)
    launch.launch(train_ranks, request.param, folder, 4)
    return request.param, folder


def test_networks_and_state_are_identical_on_all_ranks(two_process_run):
    """They start from different seeds: the main process's weights must reach the other."""
    _, folder = two_process_run
    first, second = (load_file(folder / f"rank{rank}.safetensors") for rank in range(2))
    assert not torch.equal(first.pop("random"), second.pop("random")), "both draw the same latents"
    tiny.assert_same_tensors(first, second)


def test_two_processes_train(two_process_run):
    stage, folder = two_process_run
    groups, state = read_checkpoint(list_checkpoints(folder / "checkpoints")[-1])
    assert state["num_processes"] == 2
    assert {"random_0", "random_1"} <= groups.keys()
    start = tiny.MAKE[stage](seed=0).networks["generator_ema"].state_dict()
    moved = [name for name, value in groups["network_generator_ema"].items() if not torch.equal(value, start[name])]
    assert len(moved) > 10


def test_two_processes_resume_bit_for_bit(two_process_run, tmp_path):
    stage, expected = two_process_run
    launch.launch(train_ranks, stage, tmp_path, 2)
    launch.launch(train_ranks, stage, tmp_path, 4, "latest")
    assert_same_end(tmp_path, expected)


def test_one_process_goes_on_from_two(two_process_run, tmp_path):
    """Not the same run, but neither an error nor a repetition of latents."""
    stage, folder = two_process_run
    newest = list_checkpoints(folder / "checkpoints")[-1]
    resumed = tiny.run(stage, tmp_path, steps=5, resume=str(newest))
    assert resumed.progress.step == 5


def told_to_stop(folder: Path) -> None:
    trainer.STOP_CHECK_STEPS = 2
    accelerator = Accelerator(cpu=True)
    run = tiny.make_trainer(tiny.make_stage1(), folder, steps=100, accelerator=accelerator, checkpoint_steps=0)
    step = run._train_step

    def interrupted(batch):
        step(batch)
        if run.progress.step == 1 and accelerator.process_index == 1:
            os.kill(os.getpid(), signal.SIGTERM)

    run._train_step = interrupted
    run.train()


def test_a_signal_to_one_process_stops_all(tmp_path):
    codes = launch.join(launch.start_ranks(told_to_stop, tmp_path))
    assert codes[1] == 143
    assert codes[0] == 143
    assert [path.name for path in list_checkpoints(tmp_path / "checkpoints")] == ["checkpoint-0000000008"]


@pytest.mark.parametrize(
    "launcher",
    [
        ["torch.distributed.run", "--nproc_per_node=2", "--standalone"],
        ["accelerate.commands.launch", "--multi_gpu", "--num_processes=2", "--main_process_port=0"],
    ],
    ids=["torchrun", "accelerate launch"],
)
def test_documented_commands_start_two_processes(tmp_path, launcher):
    """On the CPU, with ACCELERATE_USE_CPU=true: without it, accelerate starts one process or looks for GPUs."""
    category = save_drawn_category(tmp_path / "plate")
    output = tmp_path / "run"
    script = str(ROOT / "examples" / "train_stage1.py")
    options = [*SIZES, *COMMON, "--data_dir", str(category), "--output_dir", str(output)]
    command = [sys.executable, "-m", *launcher, script, *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true"}
    run = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)
    assert run.returncode == 0, run.stderr
    record = (output / "training_config.json").read_text()
    assert '"num_processes": 2' in record
    assert (output / "model_index.json").is_file()
