"""The controller's arithmetic, its limits, and its state."""

from __future__ import annotations

import math

import pytest
import torch

from dfmgan_hf.augmentation import AdaController


def run(controller: AdaController, steps: int, logits: torch.Tensor) -> None:
    for _ in range(steps):
        controller.observe(logits)
        controller.step()


def start_at(p: float, controller: AdaController) -> AdaController:
    controller.p.fill_(p)
    return controller


def test_p_moves_by_batch_times_interval_over_the_ramp_every_interval():
    controller = AdaController(16, interval=4, ramp_kimg=500)
    overfitted = torch.full((16, 1), 3.0)
    run(controller, 3, overfitted)
    assert controller.p == 0
    assert math.isnan(controller.r_t)
    run(controller, 1, overfitted)
    assert controller.p.item() == pytest.approx(16 * 4 / 500_000)
    assert controller.r_t == 1
    run(controller, 8, overfitted)
    assert controller.p.item() == pytest.approx(3 * 16 * 4 / 500_000)
    run(controller, 4, -overfitted)
    assert controller.r_t == -1
    assert controller.p.item() == pytest.approx(2 * 16 * 4 / 500_000)


def test_p_needs_the_ramp_to_go_from_0_to_1():
    controller = AdaController(50, interval=1, ramp_kimg=1, p_max=1.0)
    run(controller, 20, torch.ones(50))
    assert controller.p.item() == pytest.approx(1.0)


@pytest.mark.parametrize(("positive", "direction"), [(79, -1), (81, 1)])
def test_the_target_is_the_mean_sign_of_the_interval(positive: int, direction: int):
    # 80 of 100 positive: mean sign 0.6. Sizes of the logits do not matter, nor how they are spread over the interval.
    controller = start_at(0.5, AdaController(10, interval=2))
    logits = torch.cat([torch.full((positive,), 1e-3), torch.full((100 - positive,), -50.0)])
    controller.observe(logits[:90])
    controller.step()
    controller.observe(logits[90:])
    controller.step()
    assert controller.r_t.item() == pytest.approx(2 * positive / 100 - 1)
    assert controller.p.item() == pytest.approx(0.5 + direction * 10 * 2 / 500_000)


@pytest.mark.parametrize("p_max", [0.7, 0.8, 1.0])
def test_p_stays_between_0_and_the_cap(p_max: float):
    controller = AdaController(300, interval=1, ramp_kimg=1, p_max=p_max)
    run(controller, 1, -torch.ones(4))
    assert controller.p == 0
    run(controller, 2, torch.ones(4))
    run(controller, 3, torch.ones(4))
    assert controller.p.item() == pytest.approx(p_max)
    run(controller, 1, -torch.ones(4))


@pytest.mark.parametrize("logits", [torch.full((4,), torch.nan), torch.zeros(0)])
def test_p_stays_without_usable_observations(logits: torch.Tensor):
    controller = start_at(0.5, AdaController(16, interval=1))
    run(controller, 1, logits)
    assert controller.p == 0.5
    run(controller, 1, torch.ones(4))
    assert controller.p > 0.5


def test_processes_agree_on_the_sum_of_their_observations():
    shares = [torch.ones(8), torch.cat([torch.ones(2), -torch.ones(6)])]  # together 10 of 16: mean sign 0.25
    total = torch.stack([torch.stack([x.sign().sum(), torch.tensor(float(len(x)))]) for x in shares]).sum(0)
    for share in shares:
        controller = start_at(0.5, AdaController(16, interval=1))
        controller.observe(share)
        controller.step(reduce=lambda sums: total)
        assert controller.r_t == 0.25
        assert controller.p < 0.5


def test_resuming_goes_on_bit_for_bit():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(23, 16, generator=generator) + torch.linspace(2.5, -1, 23)[:, None]

    def go(controller: AdaController, steps: range) -> list[float]:
        trace = []
        for step in steps:
            controller.observe(logits[step])
            controller.step()
            trace.append(controller.p.item())
        return trace

    straight = AdaController(16, ramp_kimg=1)
    whole = go(straight, range(23))
    first = AdaController(16, ramp_kimg=1)
    trace = go(first, range(9))  # in the middle of an interval
    state = first.state_dict()
    go(first, range(9, 12))  # the state is a copy
    second = AdaController(16, ramp_kimg=1)
    second.load_state_dict(state)
    assert trace + go(second, range(9, 23)) == whole
    assert len(set(whole)) > 3
    assert torch.equal(second.r_t, straight.r_t)
