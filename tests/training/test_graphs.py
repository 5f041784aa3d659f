"""Nothing in a training step makes the host wait for the device, and what CUDA graphs need of a phase."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dfmgan_hf.augmentation import AdaController, DiffAugment
from dfmgan_hf.methods.cdc import CDCTask
from dfmgan_hf.methods.method import Target
from dfmgan_hf.models.projected import FrozenFeatures
from dfmgan_hf.training import BatchStream, ProcessGroup, Trainer
from dfmgan_hf.training.checkpointing import collect_tensors, list_checkpoints, read_checkpoint
from dfmgan_hf.training.graphs import PhaseGraphs, why_not_captured
from dfmgan_hf.training.task import TrainingWarning
from tests import replay
from tests.meta import META
from tests.training import tiny


class NoReading(TorchDispatchMode):
    """Refuses values read back, sizes that depend on values, copies, and random numbers that the host draws.

    Meta tensors stand for a GPU's. Nothing is computed, but all that is asked of the device is seen.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, given = func.overloadpacket.__name__, tree_leaves((args, kwargs))
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal") and any(map(is_ours, given)):
            raise AssertionError(f"{func} waits for the device.")
        if name.startswith("index") and any(is_ours(t) and t.dtype == torch.bool for t in tree_leaves(args[1])):
            raise AssertionError(f"{func} waits for the device, which counts what a mask chooses.")
        if any(map(is_ours, given)) and (kwargs or {}).get("device") not in (None, META):
            raise AssertionError(f"{func} copies from the device to the host.")
        result = func(*args, **(kwargs or {}))
        tensors = [t for t in [*given, *tree_leaves(result)] if isinstance(t, Tensor)]
        if any(map(is_ours, tensors)) and not all(map(is_ours, tensors)):
            raise AssertionError(f"{func} copies between the host and the device.")
        if name.startswith(("rand", "normal", "uniform", "bernoulli")) and not all(map(is_ours, tensors)):
            raise AssertionError(f"{func} draws on the host, not on the device.")
        return result


class NoListsToTheDevice(TorchFunctionMode):
    """Refuses Python numbers that become tensors on the device, of which the dispatcher sees nothing."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in (torch.tensor, torch.as_tensor, Tensor.new_tensor) and is_ours(result) and args[0] is not result:
            raise AssertionError(f"{func.__name__} copies {args[-1]} to the device.")
        if func is Tensor.__getitem__ and any(isinstance(index, list) for index in (args[1], *as_tuple(args[1]))):
            raise AssertionError(f"The index {args[1]} is copied to the device.")
        return result


def as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else ()


def is_ours(value: Any) -> bool:
    return isinstance(value, Tensor) and value.device == META


@contextmanager
def no_waiting() -> Iterator[None]:
    with NoReading(), NoListsToTheDevice():
        yield


@pytest.mark.parametrize(
    "wait",
    [
        lambda x: x.to("cpu"),
        lambda x: x + torch.ones(()),
        lambda x: torch.zeros(2).to(META),
        lambda x: torch.tensor([1.0, 2.0], device=META),
        lambda x: x.new_tensor(3.0),
        lambda x: x[[0, -1]],
        lambda x: x[..., [0, -1]],
        lambda x: torch.rand(()) < 0.9,
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), x),
        lambda x: bool(x.sum()),
    ],
)
def test_waiting_is_seen(wait):
    with pytest.raises(AssertionError, match="device"), no_waiting():
        wait(torch.empty(2, device=META))


def on_meta(stage: str, folder: Path, accumulation_steps: int) -> Trainer:
    """A trainer whose networks are on the meta device, with ADA, every phase of whose task is due in every step."""
    with META:
        task = tiny.MAKE[stage](path_length_interval=1, r1_interval=1)
    task.ada = AdaController(tiny.BATCH, interval=1, device=META)
    assert task.augment is not None
    return tiny.make_trainer(task, folder, accumulation_steps=accumulation_steps)


@pytest.mark.parametrize(("stage", "accumulation_steps"), [("stage1", 1), ("stage2", 1), ("stage2", 2)])
def test_a_step_never_waits_for_the_device(tmp_path, stage, accumulation_steps):
    trainer = on_meta(stage, tmp_path, accumulation_steps)
    stream = BatchStream(tiny.drawn_set(), batch_size=tiny.BATCH, seed=0, device=META, mirror=True)
    trainer._train_step(stream.at(0))  # sets up constants, statistics and the order of the photographs
    with no_waiting():
        trainer._train_step(stream.at(tiny.BATCH))


@pytest.mark.usefixtures("meta_stands_for_gpu")
@pytest.mark.parametrize("dtype", [None, torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    ("stage", "kinds", "options"),
    [
        ("stage1", (), {}),
        ("stage2", (), {}),
        ("stage2", ("dot", "spot"), {}),
        ("stage2", ("dot", "spot"), {"given_masks": 0.5, "outside_weight": 1.0, "mode_seeking_weight": 0.1}),
        ("stage2", (), {"match_discriminator": "small", "mode_seeking_weight": 0.1, "mode_seeking_on": "image"}),
    ],
)
def test_a_step_of_the_quick_preset_never_waits_for_the_device(tmp_path, stage, kinds, options, dtype):
    """Imitation and the phases after it, all in one step; in stage 1 with noise that stands for details."""
    task = tiny.make_quick(stage, scale=2, kinds=kinds, options=options, target=Target(META, dtype))
    assert task.phases[0].name == "imitation"
    assert (task.details is not None) == (stage == "stage1")
    for phase in task.phases:
        phase.begins, phase.ends, phase.interval = 0, None, 1
    trainer, data = tiny.make_trainer(task, tmp_path), tiny.drawn_set(scale=2, kinds=kinds)
    stream = BatchStream(data, batch_size=tiny.BATCH, seed=0, device=META, mirror=True, balanced=True)
    trainer._train_step(stream.at(0))
    with no_waiting():
        trainer._train_step(stream.at(tiny.BATCH))


# --- phases that are replayed ---


def make(stage: str) -> Any:
    """A task that decides nothing on a CPU either: DiffAugment instead of ADA's transforms, beside ADA's counts."""
    task = tiny.MAKE[stage]()
    task.augment = DiffAugment()
    return task


def train(stage: str, folder: Path, accumulation_steps: int, graphs: bool) -> tuple[Trainer, dict[str, Tensor]]:
    trainer = tiny.make_trainer(make(stage), folder, accumulation_steps=accumulation_steps)
    if graphs:
        trainer._run_phase = PhaseGraphs(trainer.run_phase, torch.device("cpu"))
    for _ in range(8):
        trainer._train_step(trainer.stream.at(trainer.images_seen))
    groups = collect_tensors(trainer.task, trainer.processes)
    return trainer, {f"{group}.{name}": value for group, state in groups.items() for name, value in state.items()}


@pytest.mark.parametrize(("stage", "accumulation_steps"), [("stage1", 1), ("stage2", 1), ("stage2", 2)])
def test_replayed_phases_are_the_phases(tmp_path, monkeypatch, stage, accumulation_steps):
    """Weights, optimisers, averages, random numbers and statistics after 8 steps, of which Python ran two."""
    replay.install(monkeypatch, "dfmgan_hf.training.graphs")
    eager, expected = train(stage, tmp_path / "eager", accumulation_steps, graphs=False)
    trainer, tensors = train(stage, tmp_path / "graphs", accumulation_steps, graphs=True)
    replays = {name: graph.replays for name, graph in trainer._run_phase.captured.items()}
    assert replays == {"generator": 7, "path_length": 3, "discriminator": 7, "r1": 2}
    tiny.assert_same_tensors(tensors, expected)
    assert trainer.statistics.collect() == eager.statistics.collect()


@pytest.mark.parametrize(("stage", "kinds"), [("stage1", ()), ("stage2", ("dot", "spot"))])
def test_replayed_phases_of_the_quick_preset_are_the_phases(tmp_path, monkeypatch, stage, kinds):
    """Also after imitation, which ends when the others begin; all in bfloat16."""
    replay.install(monkeypatch, "dfmgan_hf.training.graphs")
    monkeypatch.setattr(FrozenFeatures, "load_pretrained", lambda *_: None)
    ends = []
    for folder in ("eager", "graphs"):
        target = Target(torch.device("cpu"), torch.bfloat16)
        task = tiny.make_quick(stage, scale=2, kinds=kinds, target=target, imitation_kimg=0.012)
        trainer = tiny.make_trainer(task, tmp_path / folder)
        trainer.stream = BatchStream(tiny.drawn_set(scale=2, kinds=kinds), batch_size=tiny.BATCH, seed=5)
        for phase in task.phases:
            phase.interval = min(phase.interval, 2)
        if folder == "graphs":
            trainer._run_phase = PhaseGraphs(trainer.run_phase, torch.device("cpu"))
        for _ in range(8):
            trainer._train_step(trainer.stream.at(trainer.images_seen))
        groups = collect_tensors(task, trainer.processes)
        tensors = {f"{group}.{name}": value for group, state in groups.items() for name, value in state.items()}
        ends.append((tensors, trainer.statistics.collect()))
    replays = {name: graph.replays for name, graph in trainer._run_phase.captured.items()}
    assert replays == {"imitation": 2, "generator": 4, "path_length": 1, "discriminator": 4}
    tiny.assert_same_tensors(ends[1][0], ends[0][0])
    assert ends[1][1] == ends[0][1]


def test_a_phase_that_cannot_be_captured_is_run_as_it_is(tmp_path, monkeypatch):
    """And so are all others from then on; it is said once."""
    replay.install(monkeypatch, "dfmgan_hf.training.graphs")
    task = make("stage1")
    loss = task.phases[2].loss
    task.phases[2].loss = lambda batch, statistics: loss(batch, statistics) * (1 if batch.images.sum() > -1e9 else 2)
    trainer = tiny.make_trainer(task, tmp_path)
    graphs = trainer._run_phase = PhaseGraphs(trainer.run_phase, torch.device("cpu"))
    trainer._train_step(trainer.stream.at(0))
    with pytest.warns(TrainingWarning, match=r"phase discriminator cannot be captured .*a value was read back"):
        trainer._train_step(trainer.stream.at(trainer.images_seen))
    with warnings.catch_warnings(action="error"):
        trainer._train_step(trainer.stream.at(trainer.images_seen))
    assert graphs.captured == {}
    assert not any(p.requires_grad or p.grad is not None for phase in task.phases for p in phase.parameters)
    assert not any(group["capturable"] for o in task.optimizers.values() for group in o.param_groups)
    assert all(math.isfinite(value) for value in trainer.statistics.collect().values())


def test_why_phases_are_not_captured(tmp_path):
    """Said once at the start; the run goes on without."""
    task, here, gpu = tiny.make_stage1(), ProcessGroup(), ProcessGroup()
    gpu.device = torch.device("cuda")
    assert why_not_captured(task, here) == "they need a CUDA device, and this one is cpu"
    assert why_not_captured(task, gpu) is None
    gpu.count = 2
    assert "for one process, and there are 2" in why_not_captured(task, gpu)
    gpu.count = 1
    task.__class__ = CDCTask
    assert "decides anew" in why_not_captured(task, gpu)


def test_the_option_is_without_effect_on_a_cpu(tmp_path, capsys):
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=1, checkpoint_steps=0)
    trainer.run = replace(trainer.run, cuda_graphs=True)
    trainer.train()
    assert trainer.progress.step == 1
    assert "No CUDA graphs: they need a CUDA device" in "".join(capsys.readouterr())


def test_a_run_with_graphs_resumes_bit_for_bit(tmp_path, monkeypatch):
    """As the whole run without them: optimisers, averages and random numbers get new places after the checkpoint."""
    replay.install(monkeypatch, "dfmgan_hf.training.graphs")
    monkeypatch.setattr("dfmgan_hf.training.trainer.why_not_captured", lambda *_: None)
    ends = []
    for folder, lengths in {"whole": [8], "graphs": [5, 8]}.items():
        for steps in lengths:
            trainer = tiny.make_trainer(
                make("stage2"), tmp_path / folder, steps=steps, checkpoint_steps=1, log_steps=1
            )
            trainer.run = replace(trainer.run, cuda_graphs=folder == "graphs")
            trainer.train("latest")
        assert isinstance(trainer._run_phase, PhaseGraphs) == (folder == "graphs")
        rows = [
            {k: v for k, v in row.items() if "seconds" not in k and "memory" not in k} for row in trainer.log.rows()
        ]
        ends.append((read_checkpoint(list_checkpoints(trainer.checkpoints_dir)[-1])[0], rows))
    (whole, rows), (resumed, resumed_rows) = ends
    for group, tensors in whole.items():
        tiny.assert_same_tensors(tensors, resumed[group], f"{group} ")
    assert rows == resumed_rows
