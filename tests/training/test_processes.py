"""Two processes are one run: the same networks on both, and the gradients of one process with the whole batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from dfmgan_hf.methods import drawing, latents, stage2
from dfmgan_hf.methods.latents import LatentDraw
from dfmgan_hf.models import NoiseInput
from dfmgan_hf.training import Batch, ProcessGroup, trainer
from dfmgan_hf.training.checkpointing import list_checkpoints, read_checkpoint

from . import launch, tiny
from .test_resume import assert_same_end
from .test_scripts import COMMON, ROOT, SIZES, save_drawn_category

WHOLE = 8


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


# --- gradients ---


def parts_of_the_batch(count: int) -> list[list[int]]:
    """Samples of each part, so that groups of the minibatch standard deviation (of 2) and pairs of the mode-seeking
    loss are the same as in the whole: i and i + WHOLE / 2 stay together."""
    size = WHOLE // 2 // count
    first_halves = [list(range(i * size, (i + 1) * size)) for i in range(count)]
    return [[*half, *(i + WHOLE // 2 for i in half)] for half in first_halves]


def table(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(WHOLE, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class FixedDraws:
    """Gives sample i of the whole batch the same random numbers, whichever process and micro-batch draws it."""

    def __init__(self, parts: list[list[int]]) -> None:
        self.parts = parts
        self.reset()

    def reset(self) -> None:
        self._turns: dict[str, cycle] = {}

    def _rows(self, what: str, n: int) -> list[int]:
        """The samples that this kind of draw is for now: it comes once for each micro-batch, in order."""
        part = next(self._turns.setdefault(what, cycle(self.parts)))
        return part[:n]

    def install(self) -> None:
        draws = self

        def draw_latents(mapping, n, num_latents, mixing_probability):
            rows = draws._rows(f"latents {num_latents}", n)
            z, mixed = (table(mapping.z_dim, seed=seed + num_latents)[rows] for seed in (0, 100))
            return LatentDraw(z, mixed, cut=2)

        def noise_init(self, mode, batch_size, generator=None):
            self.rows = draws._rows("noise", batch_size)

        def noise_call(self, layer, dtype):
            return table(1, *layer.noise_const.shape, seed=layer.noise_const.shape[0])[self.rows].to(dtype)

        def noise_first(self, n):
            part = object.__new__(NoiseInput)
            part.rows = self.rows[:n]
            return part

        def randn_like(images):
            return table(*images.shape[1:], seed=7)[draws._rows("image noise", len(images))]

        latents.draw_latents = drawing.draw_latents = draw_latents
        NoiseInput.__init__, NoiseInput.__call__, NoiseInput.first = noise_init, noise_call, noise_first
        torch.randn_like = randn_like


VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "stage1": ("stage1", {}),
    "stage2": ("stage2", {}),
    "stage2 on images": ("stage2", {"mode_seeking_on": "image", "mode_seeking_latents": "z"}),
    "stage2 joint": ("stage2", {"match": "joint"}),
    "stage2 outside": ("stage2", {"outside_weight": 10.0, "match": "none", "mode_seeking_weight": 0.0}),
}
"""Every loss of both stages."""


def save_gradients(variant: str, accumulation_steps: int, folder: Path) -> None:
    """Every phase's gradients as its optimiser gets them, and the averages that follow from the step."""
    accelerator = Accelerator(cpu=True)
    count = accelerator.num_processes
    parts = parts_of_the_batch(count * accumulation_steps)
    mine = parts[accelerator.process_index * accumulation_steps :][:accumulation_steps]
    draws = FixedDraws(mine)
    draws.install()
    stage2.PAIRS = 1

    stage, options = VARIANTS[variant]
    task = tiny.MAKE[stage](processes_mean=ProcessGroup(accelerator).mean, **options)
    task.augment = task.ada = None
    for network in task.networks.values():
        network.double()
        for module in network.modules():
            if hasattr(module, "mbstd_group_size"):
                module.mbstd_group_size = 2
        for name, parameter in network.named_parameters():
            if name.endswith("noise_strength"):
                parameter.data.fill_(0.3)
    task.path_length.mean = torch.tensor(0.1, dtype=torch.float64)

    data = tiny.drawn_set(WHOLE)
    rows = [i for part in mine for i in part]
    batch = Batch(data.images[rows].double() / 127.5 - 1, data.masks[rows].double() / 127.5 - 1)
    run = tiny.make_trainer(
        task, folder, accelerator=accelerator, accumulation_steps=accumulation_steps, batch_size=WHOLE
    )
    result: dict[str, torch.Tensor] = {}
    for phase in task.phases:
        names = {id(p): f"{n}.{k}" for n, network in task.networks.items() for k, p in network.named_parameters()}

        def keep(phase=phase, names=names):
            for parameter in phase.parameters:
                if parameter.grad is not None:
                    result[f"{phase.name}: {names[id(parameter)]}"] = parameter.grad.contiguous().clone()

        phase.optimizer.step = keep
        draws.reset()
        run._run_phase(phase, batch)
    result["path length mean"] = task.path_length.mean
    result["w_avg"] = task.w_average.mapping.w_avg
    save_file(result, folder / f"gradients{accelerator.process_index}.safetensors")


@pytest.fixture(scope="module", params=list(VARIANTS))
def whole_batch(request, tmp_path_factory) -> tuple[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("whole")
    launch.launch(save_gradients, request.param, 1, folder, processes=1)
    return request.param, load_file(folder / "gradients0.safetensors")


@pytest.mark.parametrize(("processes", "accumulation_steps"), [(2, 1), (1, 2), (2, 2)])
def test_gradients_are_those_of_the_whole_batch(whole_batch, tmp_path, processes, accumulation_steps):
    """Every loss of both stages, in double precision: k processes with m micro-batches each against one batch."""
    variant, expected = whole_batch
    launch.launch(save_gradients, variant, accumulation_steps, tmp_path, processes=processes)
    for rank in range(processes):
        actual = load_file(tmp_path / f"gradients{rank}.safetensors")
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(actual[name], value, rtol=1e-7, atol=1e-12), f"{name} on rank {rank}"
    assert {name.split(":")[0] for name in expected} >= {"generator", "path_length", "discriminator", "r1"}
    assert all(
        value.abs().max() > 0 for name, value in expected.items() if name.startswith("generator: ") and "conv" in name
    )


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
