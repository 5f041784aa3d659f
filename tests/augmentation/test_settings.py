"""The named sets contain what their names promise."""

from __future__ import annotations

import pytest

from dfmgan_hf.augmentation import AUGMENTATION_SETS, TRANSFORMS, AugmentPipe, AugmentSettings
from dfmgan_hf.augmentation import ada as settings

TURNS = {"rotate90", "rotate"}
HUES = {"lumaflip", "hue", "saturation"}


@pytest.mark.parametrize("name", sorted(AUGMENTATION_SETS))
def test_a_set_switches_on_its_transforms_and_no_other(name: str):
    chosen = AUGMENTATION_SETS[name]
    assert len(set(chosen)) == len(chosen)
    strengths = AugmentPipe.from_set(name).settings
    assert {t: getattr(strengths, t) for t in TRANSFORMS} == {t: float(t in chosen) for t in TRANSFORMS}


def test_sets_leave_out_what_the_product_forbids_and_nothing_else():
    left_out = {name: set(AUGMENTATION_SETS["bgc"]) - set(chosen) for name, chosen in AUGMENTATION_SETS.items()}
    assert len(AUGMENTATION_SETS["bgc"]) == 12
    assert left_out["keep_mirror"] == {"xflip"}
    assert left_out["keep_upright"] == TURNS
    assert left_out["keep_orientation"] == {"xflip"} | TURNS
    assert left_out["keep_color"] == HUES
    assert left_out["keep_intensity"] == HUES | {"brightness", "contrast"}
    assert left_out["keep_orientation_and_color"] == {"xflip"} | TURNS | HUES
    assert left_out["keep_orientation_and_intensity"] == {"xflip"} | TURNS | HUES | {"brightness", "contrast"}


def test_every_set_is_in_the_table():
    for name in AUGMENTATION_SETS:
        assert f"`{name}`" in (settings.__doc__ or "")


def test_an_unknown_set_is_answered_with_the_names():
    with pytest.raises(ValueError, match=r"'bcg'.*bgc.*keep_orientation"):
        AugmentPipe.from_set("bcg")


@pytest.mark.parametrize("strengths", [{"xflip": -1.0}, {"noise_std": float("nan")}])
def test_a_negative_or_undefined_setting_is_named(strengths):
    with pytest.raises(ValueError, match=f"`{next(iter(strengths))}`"):
        AugmentSettings(**strengths)
