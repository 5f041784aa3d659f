import copy

import pytest
import torch
from torch import nn

from dfmgan_hf.training import ExponentialMovingAverage
from dfmgan_hf.training.task import ema_decay


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.trained = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.frozen = nn.Parameter(torch.tensor([3.0]))
        self.register_buffer("w_avg", torch.tensor([4.0]))


def test_half_life():
    """After half-life images a weight counts half, in steps of any size."""
    for batch in (1, 8, 32):
        assert ema_decay(batch, 10**9, 10.0, None) ** (10_000 / batch) == pytest.approx(0.5)


def test_ramp_up_limits_the_half_life():
    assert ema_decay(8, 1000, 10.0, 0.05) == pytest.approx(0.5 ** (8 / 50))
    assert ema_decay(8, 10**6, 10.0, 0.05) == ema_decay(8, 10**6, 10.0, None)
    assert ema_decay(8, 0, 10.0, 0.05) == 0.0


def test_update_is_the_formula():
    model = Network()
    average = ExponentialMovingAverage(model, half_life_kimg=0.016)
    start = copy.deepcopy(average.averaged)
    with torch.no_grad():
        model.trained += 1
        model.frozen += 1
        model.w_avg += 1
    average.update(8, 8)
    decay = 0.5**0.5
    assert torch.allclose(average.averaged.trained, decay * start.trained + (1 - decay) * model.trained)
    assert torch.allclose(average.averaged.frozen, decay * start.frozen + (1 - decay) * model.frozen)
    assert torch.equal(average.averaged.w_avg, model.w_avg)


def test_frozen_parameters_are_not_averaged():
    """The official averaging pulls a frozen backbone towards other weights; ours must not touch it."""
    model = Network()
    average = ExponentialMovingAverage(model, trained={"trained"}, half_life_kimg=0.001)
    with torch.no_grad():
        average.averaged.frozen += 0.1
        model.trained += 1
    before = average.averaged.frozen.clone()
    for step in range(3):
        average.update(8, 8 * step)
    assert torch.equal(average.averaged.frozen, before)
    assert torch.allclose(average.averaged.trained, model.trained, atol=1e-4)


def test_average_is_for_drawing():
    average = ExponentialMovingAverage(Network().train(), half_life_kimg=1.0)
    assert not average.averaged.training
    assert not any(p.requires_grad for p in average.averaged.parameters())
