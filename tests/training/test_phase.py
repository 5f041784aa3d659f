"""The rule of lazy regularisation, in its one place."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.training import Batch, Phase, lazy_adam
from tests.training import tiny


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
    trainer._run_phase(phase, batch)
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
