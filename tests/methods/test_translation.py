"""Learning rates that fall."""

from __future__ import annotations

import pytest
import torch
from torch.optim import lr_scheduler

from dfmgan_hf.methods.translation import Photographs, decayed_lr

STEPS = 20


def test_falls_on_a_line_after_the_constant_part():
    rates = [decayed_lr(progress, 0.2, constant_until=0.5) for progress in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)]
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.0, 0.0])
    assert decayed_lr(0.5, 0.2, final_lr=0.1) == pytest.approx(0.15)
    assert decayed_lr(1.0, 0.2, final_lr=0.1) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("decay", "schedule"),
    [
        ("linear", lambda optimizer: lr_scheduler.LinearLR(optimizer, 1.0, 0.01 / 0.2, STEPS)),
        ("cosine", lambda optimizer: lr_scheduler.CosineAnnealingLR(optimizer, STEPS, 0.01)),
        ("exponential", lambda optimizer: lr_scheduler.ExponentialLR(optimizer, (0.01 / 0.2) ** (1 / STEPS))),
        ("constant", lambda optimizer: lr_scheduler.ConstantLR(optimizer, 1.0)),
    ],
)
def test_shapes_are_those_of_torchs_schedulers(decay, schedule):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.2)
    scheduler = schedule(optimizer)
    for step in range(STEPS + 1):
        assert decayed_lr(step / STEPS, 0.2, decay=decay, final_lr=0.01) == pytest.approx(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()


def test_impossible_falls_are_refused():
    with pytest.raises(ValueError, match=r"ends above 0, but `final_lr` is 0\.0: give one such as 1e-6"):
        decayed_lr(0.0, 0.2, decay="exponential")
    with pytest.raises(ValueError, match=r"not from 1\.0; for one that does not fall choose --lr_decay constant"):
        decayed_lr(0.0, 0.2, constant_until=1.0)


def test_good_photographs_are_mirrored_as_defects_are():
    torch.manual_seed(0)
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[..., 0] = 255
    shown = {mirror: Photographs(pixels, torch.device("cpu"), mirror).choose(64) for mirror in (False, True)}
    assert shown[False][..., 0].eq(1).all()
    assert 16 < shown[True][:, 0, 0, 7].eq(1).sum() < 48
