"""Phases, statistics, the guard against diverged runs, and what a run writes while it trains."""

from __future__ import annotations

import json
import os
import shutil
import signal

import pytest
import torch
from accelerate import Accelerator

from dfmgan_hf.training import Batch, NonFiniteLossError, Phase, RunningStatistics, lazy_adam
from dfmgan_hf.training.checkpointing import list_checkpoints
from dfmgan_hf.training.task import PATIENCE, TrainingWarning
from dfmgan_hf.training.trainer import describe_length
from tests.training import tiny
from tests.training.test_task import HEALTHY


def test_means_are_over_all_values_of_an_interval():
    statistics = RunningStatistics()
    statistics.report("a", torch.tensor([1.0, 2.0, 3.0]))
    statistics.report("a", 10.0)
    statistics.report("b", torch.ones(2, 2))
    assert statistics.collect() == {"a": 4.0, "b": 1.0}
    assert statistics.collect() == {}


def test_statistics_of_several_processes_are_summed():
    """As if two more processes had reported the same."""
    statistics = RunningStatistics(lambda table: table * 3)
    statistics.report("a", torch.tensor([1.0, 3.0]))
    assert statistics.collect() == {"a": 2.0}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_one_bad_loss_is_remembered_until_the_interval_is_over(value):
    statistics = RunningStatistics()
    for loss in (1.0, value, 1.0):
        statistics.report("loss/generator", torch.tensor(loss))
        statistics.report("loss/r1", torch.tensor([0.5, 0.5]))
        statistics.report("logits/real", torch.tensor(loss))
    assert statistics.non_finite("loss/") == ["generator"]
    statistics.collect()
    assert statistics.non_finite("loss/") == []


def break_loss(trainer, at_step: int) -> None:
    phase = trainer.task.phases[2]
    loss = phase.loss

    def broken(batch, statistics):
        value = loss(batch, statistics)
        return value * float("nan") if trainer.progress.step == at_step else value

    phase.loss = broken


def test_non_finite_loss_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    """Logs are far apart: the checkpoint itself must notice."""
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, checkpoint_steps=2, log_steps=100)
    break_loss(trainer, at_step=2)
    with pytest.raises(
        NonFiniteLossError, match=r"At 0\.02 kimg the loss of discriminator .*checkpoint-0000000008, is"
    ):
        trainer.train()
    assert [path.name for path in list_checkpoints(trainer.checkpoints_dir)] == ["checkpoint-0000000008"]
    assert not (tmp_path / "model_index.json").exists()


def test_non_finite_loss_is_noticed_by_the_log(tmp_path):
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, checkpoint_steps=100, log_steps=2)
    break_loss(trainer, at_step=0)
    with pytest.raises(
        NonFiniteLossError, match=r"At 0\.01 kimg .* There is no checkpoint yet\. .*--precision float32"
    ):
        trainer.train()
    (row,) = [json.loads(line) for line in trainer.log.path.read_text().splitlines()]
    assert row["loss/discriminator"] is None
    assert row["non_finite_gradients"] > 0
    assert list_checkpoints(trainer.checkpoints_dir) == []


@pytest.mark.parametrize("where", ["weight", "optimizer"])
def test_no_checkpoint_of_a_non_finite_state(tmp_path, where):
    task = tiny.make_stage1()
    trainer = tiny.make_trainer(task, tmp_path, steps=1, checkpoint_steps=0)
    trainer.train()
    with torch.no_grad():
        if where == "weight":
            task.generator.synthesis.blocks["8"].conv0.weight[0, 0, 1, 1] = float("inf")
        else:
            next(iter(task.optimizers["discriminator"].state.values()))["exp_avg_sq"].view(-1)[3] = float("nan")
    trainer.progress.images_seen += 4
    with pytest.raises(NonFiniteLossError, match="weight or an optimiser's state is not finite"):
        trainer.save()
    assert len(list_checkpoints(trainer.checkpoints_dir)) == 1


def test_what_stage2_logs(tmp_path):
    tiny.run("stage2", tmp_path, steps=2, log_steps=2, checkpoint_steps=0)
    (row,) = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    real = tiny.drawn_set().masks
    areas = (real > 0).float().mean(dim=(1, 2, 3))
    assert areas.min() <= row["mask_area/real"] <= areas.max()
    assert row["mask_empty/real"] == 0
    for kind in ("real", "fake"):
        assert 0 <= row[f"mask_border/{kind}"] <= 1
    for name in ("loss/match", "loss/mode_seeking", "match/accuracy/fake", "gradient_norm/r1", "ada/at_cap"):
        assert name in row
    assert row["seconds_per_kimg"] > 0
    assert 0.01 < row["resident_memory_gib"] < 64
    assert 0 <= row["defect_change/mask"] <= 1
    assert row["warnings"] == {}
    assert HEALTHY.keys() <= row.keys(), "a rule looks at what is not logged under this name"


def test_tensorboard_gets_numbers_and_sheets_and_forgets_what_is_trained_again(tmp_path):
    reading = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")

    def run(steps: int, resume: str | None) -> None:
        accelerator = Accelerator(cpu=True, log_with="tensorboard", project_dir=str(tmp_path / "logs"))
        trainer = tiny.make_trainer(tiny.make_stage2(), tmp_path, steps=steps, log_steps=1, accelerator=accelerator)
        trainer.train(resume)
        for tracker in accelerator.trackers:
            tracker.finish()

    run(3, None)
    (newest,) = list_checkpoints(tmp_path / "checkpoints")[-1:]
    shutil.rmtree(newest)  # as if it had been killed: it goes on after step 2
    (tmp_path / "samples" / "0000000012 copy.png").write_bytes(b"")  # somebody's own
    run(4, "latest")
    log = reading.EventAccumulator(str(tmp_path / "logs" / "dfmgan")).Reload()
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    numbers = {name for name, value in rows[-1].items() if isinstance(value, float)}
    assert numbers <= set(log.Tags()["scalars"])
    assert {"mask_area/real", "loss/generator", "ada/p", "resident_memory_gib"} <= numbers
    assert [event.step for event in log.Scalars("loss/generator")] == [4, 8, 12, 16]
    assert log.Tags()["images"] == ["samples"]


def test_warnings_are_given_once_and_logged(tmp_path, monkeypatch):
    """ToMask that is far below zero everywhere draws no defect at all."""
    task = tiny.make_stage2()
    with torch.no_grad():
        for generator in (task.generator, task.generator_ema):
            generator.to_mask.bias.fill_(-100.0)
    trainer = tiny.make_trainer(task, tmp_path, steps=PATIENCE + 2, log_steps=1, checkpoint_steps=0)
    with pytest.warns(TrainingWarning, match="masks are empty: no defect is learnt") as record:
        trainer.train()
    assert len([w for w in record if issubclass(w.category, TrainingWarning) and "empty" in str(w.message)]) == 1
    rows = [json.loads(line) for line in trainer.log.path.read_text().splitlines()]
    assert ["masks_empty" in row["warnings"] for row in rows] == [False] * (PATIENCE - 1) + [True] * 3


def test_without_a_regulariser_adam_is_plain():
    optimizer = lazy_adam([torch.nn.Parameter(torch.zeros(2))], lr=0.002)
    (group,) = optimizer.param_groups
    assert group["lr"] == 0.002
    assert group["betas"] == (0.0, 0.99)
    assert group["eps"] == 1e-8


@pytest.mark.parametrize("interval", [4, 16])
def test_learning_rate_and_betas_make_up_for_the_extra_step(interval):
    """lr k/(k+1) and beta^(k/(k+1)): k + 1 steps then move and decay as k did."""
    optimizer = lazy_adam([torch.nn.Parameter(torch.zeros(2))], lr=0.0025, betas=(0.5, 0.99), interval=interval)
    (group,) = optimizer.param_groups
    assert group["lr"] * (interval + 1) == pytest.approx(0.0025 * interval)
    assert group["betas"][0] ** (interval + 1) == pytest.approx(0.5**interval)
    assert group["betas"][1] ** (interval + 1) == pytest.approx(0.99**interval)


def test_intervals():
    phase = Phase("r1", [], torch.optim.SGD([torch.zeros(1)]), lambda batch, statistics: torch.zeros(()), interval=3)
    assert [step for step in range(8) if phase.is_due(step)] == [0, 3, 6]


def test_stages_use_the_published_intervals():
    for task in (
        tiny.make_stage1(r1_interval=16, path_length_interval=4),
        tiny.make_stage2(r1_interval=16, path_length_interval=4),
    ):
        assert {phase.name: phase.interval for phase in task.phases} == {
            "generator": 1,
            "path_length": 4,
            "discriminator": 1,
            "r1": 16,
        }
        lr = task.settings.lr
        assert task.optimizers["generator"].param_groups[0]["lr"] == pytest.approx(lr * 4 / 5)
        assert task.optimizers["discriminator"].param_groups[0]["lr"] == pytest.approx(lr * 16 / 17)
        assert task.optimizers["discriminator"].param_groups[0]["betas"][1] == pytest.approx(0.99 ** (16 / 17))


def gradients_after(trainer, phase: Phase, batch: Batch) -> list[torch.Tensor]:
    """The gradients that the optimiser is given."""
    seen: list[torch.Tensor] = []

    def step():
        seen.extend(p.grad.clone() for p in phase.parameters)

    phase.optimizer.step = step
    trainer.run_phase(phase, batch)
    return seen


@pytest.mark.parametrize("interval", [1, 5])
def test_loss_is_multiplied_by_the_interval(tmp_path, interval):
    weight = torch.nn.Parameter(torch.tensor([1.0, 2.0]), requires_grad=False)
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path)
    phase = Phase("test", [weight], lazy_adam([weight], lr=0.1), lambda batch, _: (weight**2).sum(), interval=interval)
    (gradient,) = gradients_after(trainer, phase, Batch(torch.zeros(4, 1, 1, 1)))
    assert gradient.tolist() == [2.0 * interval, 4.0 * interval]
    assert not weight.requires_grad
    assert weight.grad is None
    assert trainer.statistics.collect()["loss/test"] == 5.0


def test_gradients_are_made_finite(tmp_path):
    weight = torch.nn.Parameter(torch.zeros(4), requires_grad=False)
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path)
    factors = torch.tensor([1.0, float("nan"), float("inf"), -float("inf")])
    phase = Phase("test", [weight], lazy_adam([weight], lr=0.1), lambda batch, _: ((weight + 1) * factors).sum())
    (gradient,) = gradients_after(trainer, phase, Batch(torch.zeros(4, 1, 1, 1)))
    assert gradient.tolist() == [1.0, 0.0, 1e5, -1e5]
    assert trainer.statistics.collect()["non_finite_gradients"] == 1.0


def test_a_run_says_after_two_steps_what_it_will_take(tmp_path, monkeypatch):
    """A clock that phases move: the generator's first run takes twice as long, and R1 begins with the fifth step."""
    clock = [0.0]
    monkeypatch.setattr("dfmgan_hf.training.trainer.time.perf_counter", lambda: clock[0])
    costs = {"generator": 100.0, "path_length": 40.0, "discriminator": 50.0, "r1": 30.0}
    trainer = tiny.make_trainer(tiny.make_stage1(), tmp_path, steps=1000, checkpoint_steps=0)
    trainer.task.phases[-1].begins = 4
    said: list[tuple[int, str]] = []

    def run_phase(phase, batch):
        clock[0] += costs[phase.name] * (2 if trainer.progress.step == 0 and phase.name == "generator" else 1)
        if trainer.progress.step == 8 and phase.name == "generator":
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(trainer, "run_phase", run_phase)
    monkeypatch.setattr(trainer.task, "after_step", lambda step, statistics: None)
    monkeypatch.setattr(trainer, "_say", lambda text: said.append((trainer.progress.step, text)))
    with pytest.raises(SystemExit):
        trainer.train()
    told = [(step, text) for step, text in said if text.startswith("The next")]
    assert [step for step, _ in told] == [2, 7], "after two steps, and when each phase of other steps has run"
    # Path length runs every 2nd step, R1 every 3rd: 2 steps of 100 + 50 + 40 / 2 s, 993 of 10 s more.
    assert told[0][1] == "The next 0.008 kimg take about 6 minutes, besides scores."
    assert told[1][1].startswith(
        "The next 3.972 kimg take about 2 days, besides scores. If that is too long: no GPU was"
    )


@pytest.mark.parametrize(
    ("seconds", "text"), [(100, "less than 2 minutes"), (3600, "about 60 minutes"), (100_000, "about 28 hours")]
)
def test_shorter_runs_are_told_in_their_units_and_without_advice(seconds, text):
    said = describe_length(seconds, 12_000, torch.device("cpu"))
    assert said == f"The next 12 kimg take {text}, besides scores."
