"""Learning rates that fall with the length of a run."""

import pytest

from dfmgan_hf.methods.learning_rate import decayed_lr


def test_falls_on_a_line_after_the_constant_part():
    rates = [decayed_lr(progress, 0.2, constant_until=0.5) for progress in (0.0, 0.25, 0.5, 0.75, 1.0, 1.5)]
    assert rates == pytest.approx([0.2, 0.2, 0.2, 0.1, 0.0, 0.0])
    assert decayed_lr(0.5, 0.2, final_lr=0.1) == pytest.approx(0.15)
    assert decayed_lr(1.0, 0.2, final_lr=0.1) == pytest.approx(0.1)
