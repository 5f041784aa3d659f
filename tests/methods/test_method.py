"""Which augmentation a method gets."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.augmentation import AugmentPipe, DiffAugment
from dfmgan_hf.methods.method import AugmentationConfig, build_augmentation

CPU = torch.device("cpu")


def build(**options):
    return build_augmentation(AugmentationConfig(**options), 16, 500.0, CPU)


def test_adaptive_set_with_the_published_target_and_a_cap():
    augment, ada = build()
    assert isinstance(augment, AugmentPipe)
    assert ada is not None
    assert (ada.target, ada.p_max) == (0.6, 0.8)
    assert ada.p_step == pytest.approx(16 * 4 / 500_000)
    _, ada = build(ada_kimg=20.0, ada_max=0.5)
    assert (ada.p_step, ada.p_max) == (pytest.approx(16 * 4 / 20_000), 0.5)


def test_others_have_no_probability():
    assert build(augmentation="none") == (None, None)
    augment, ada = build(augmentation="diffaugment")
    assert isinstance(augment, DiffAugment)
    assert ada is None


@pytest.mark.parametrize(
    "options", [{"ada_kimg": 0.0}, {"ada_kimg": -1.0}, {"ada_max": 1.5}, {"ada_target": 2.0}, {"augmentation": "bcg"}]
)
def test_what_makes_no_sense_is_refused(options):
    with pytest.raises(ValueError, match=r"`(ramp_kimg|p_max|target|augmentation)`"):
        build(**options)
