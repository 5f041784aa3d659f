"""Learning rates that fall."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.methods.translation import Photographs, decayed_lr


def test_falls_on_a_line_after_the_constant_part():
    rates = [decayed_lr(progress, 0.2, constant_until=0.5) for progress in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)]
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.0, 0.0])
    assert decayed_lr(0.5, 0.2, final_lr=0.1) == pytest.approx(0.15)
    assert decayed_lr(1.0, 0.2, final_lr=0.1) == pytest.approx(0.1)


def test_impossible_falls_are_refused():
    with pytest.raises(ValueError, match=r"not from 1\.0: choose a smaller --constant_part"):
        decayed_lr(0.0, 0.2, constant_until=1.0)


def test_good_photographs_are_mirrored_as_defects_are():
    torch.manual_seed(0)
    pixels = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    pixels[..., 0] = 255
    shown = {mirror: Photographs(pixels, torch.device("cpu"), mirror).choose(64) for mirror in (False, True)}
    assert shown[False][..., 0].eq(1).all()
    assert 16 < shown[True][:, 0, 0, 7].eq(1).sum() < 48
