"""Each warning fires on what it is about, and is silent on a healthy run and on one bad interval."""

from __future__ import annotations

import pytest

from dfmgan_hf.methods.dfmgan import Stage2Task
from dfmgan_hf.methods.stylegan2 import Stage1Task
from dfmgan_hf.training.task import PATIENCE
from dfmgan_hf.training.task import examine as examine_with

RULES = [rule.name for rule in Stage2Task.rules]

HEALTHY = {
    "mask_empty/fake": 0.02,
    "mask_empty/real": 0.0,
    "mask_full/fake": 0.0,
    "mask_full/real": 0.0,
    "mask_area/fake": 0.03,
    "mask_area/real": 0.02,
    "mask_border/fake": 0.2,
    "mask_border/real": 0.1,
    "ada/at_cap": 0.0,
    "ada/p": 0.3,
    "ada/r_t": 0.58,
    "accuracy/real": 0.8,
    "accuracy/fake": 0.75,
    "logits/real": 0.9,
    "logits/fake": -0.8,
    "defect_change/mask": 0.7,
    "defect_change/image": 0.2,
}
ILL = {
    "masks_empty": ({"mask_empty/fake": 0.97}, "97% of the generated masks are empty"),
    "masks_full": ({"mask_full/fake": 0.8}, "80% of the generated masks cover nearly the whole image"),
    "area_far_from_real": ({"mask_area/fake": 0.15}, "15.00% of the image on average, real ones 2.00%"),
    "masks_at_border": ({"mask_border/fake": 0.95}, "95% of the generated masks touch the border"),
    "ada_at_cap": ({"ada/at_cap": 1.0, "ada/p": 0.8, "ada/r_t": 0.9}, "limit 0.80"),
    "discriminator_memorised": (
        {"accuracy/real": 0.99, "accuracy/fake": 1.0, "logits/real": 4.0, "logits/fake": -5.0},
        "memorised",
    ),
    "defects_do_not_change": ({"defect_change/mask": 0.01, "defect_change/image": 0.005}, "--mode_seeking_weight"),
}
# Values that a rule must not mistake for its own case.
WELL = {
    "masks_empty": {"mask_empty/fake": 0.97, "mask_empty/real": 0.5},
    "masks_full": {"mask_full/fake": 0.8, "mask_full/real": 0.9},
    "area_far_from_real": {"mask_area/fake": 0.006},
    "masks_at_border": {"mask_border/fake": 0.95, "mask_border/real": 0.9},
    "ada_at_cap": {"ada/at_cap": 0.5, "ada/p": 0.8},
    "discriminator_memorised": {"accuracy/real": 0.99, "accuracy/fake": 0.9, "logits/real": 4.0, "logits/fake": -5.0},
    "defects_do_not_change": {"defect_change/mask": 0.01, "defect_change/image": 0.5},
}


def examine(rows) -> dict[str, str]:
    return examine_with(Stage2Task.rules, rows)


def test_every_rule_is_tested():
    assert set(RULES) == set(ILL) == set(WELL)


def test_healthy_run_has_no_warnings():
    assert examine([HEALTHY] * PATIENCE) == {}


@pytest.mark.parametrize("rule", RULES)
def test_rule_fires_alone_and_says_what_to_do(rule):
    change, says = ILL[rule]
    advice = examine([{**HEALTHY, **change}] * PATIENCE)
    assert list(advice) == [rule]
    assert says in advice[rule]


@pytest.mark.parametrize("rule", RULES)
def test_rule_is_silent_on_look_alikes(rule):
    assert examine([{**HEALTHY, **WELL[rule]}] * PATIENCE) == {}


@pytest.mark.parametrize("rule", RULES)
def test_rule_waits_until_it_is_sure(rule):
    ill = {**HEALTHY, **ILL[rule][0]}
    assert examine([ill] * (PATIENCE - 1)) == {}
    assert examine([*[ill] * (PATIENCE - 1), HEALTHY]) == {}
    assert list(examine([HEALTHY, *[ill] * PATIENCE])) == [rule]


def test_stage1_has_no_rules_about_masks():
    assert {rule.name for rule in Stage1Task.rules} == {"ada_at_cap", "discriminator_memorised"}
    rows = [{k: v for k, v in HEALTHY.items() if k.startswith(("ada", "accuracy", "logits"))}] * PATIENCE
    assert examine(rows) == {}, "a rule that misses its numbers is silent"
