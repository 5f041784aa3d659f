"""Batches, the moving average, and the rules that warn."""

from __future__ import annotations

import copy
from collections import Counter

import pytest
import torch
from torch import nn

from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.methods.dfmgan import Stage2Task
from dfmgan_hf.methods.stylegan2 import Stage1Task
from dfmgan_hf.training import Batch, BatchStream, ExponentialMovingAverage
from dfmgan_hf.training.task import PATIENCE, ema_decay
from dfmgan_hf.training.task import examine as examine_with
from tests.training import tiny


def numbered(n: int, masks: bool = False) -> ImageMaskDataset:
    """Image i is filled with the value i; its left column is 0."""
    images = torch.arange(n, dtype=torch.uint8)[:, None, None, None].repeat(1, 1, 2, 2)
    return ImageMaskDataset(images, (images % 2) * 255 if masks else None, [str(i) for i in range(n)])


def numbers(batch: Batch) -> list[int]:
    return ((batch.images[:, 0, 0, 0] + 1) * 127.5).round().to(torch.int).tolist()


def stream(n: int = 7, **options) -> BatchStream:
    return BatchStream(numbered(n), **{"batch_size": 4, "seed": 1, **options})


def test_every_pass_shows_every_image_once_in_another_order():
    shown = [number for step in range(7) for number in numbers(stream().at(4 * step))]
    passes = [shown[i : i + 7] for i in range(0, 28, 7)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert len({tuple(p) for p in passes}) == 4


def test_order_depends_on_seed_and_position_alone():
    whole, resumed, other = stream(), stream(), stream(seed=2)
    expected = [numbers(whole.at(4 * step)) for step in range(6)]
    assert [numbers(resumed.at(4 * step)) for step in range(3, 6)] == expected[3:]
    assert [numbers(other.at(4 * step)) for step in range(6)] != expected


@pytest.mark.parametrize("world_size", [2, 4])
def test_processes_share_the_batch_of_one(world_size):
    for seen in (0, 4, 24):
        parts = [numbers(stream(rank=rank, world_size=world_size).at(seen)) for rank in range(world_size)]
        assert [number for part in parts for number in part] == numbers(stream().at(seen))


def test_batches_larger_than_the_data():
    shown = Counter(number for number in numbers(stream(n=3, batch_size=32).at(0)))
    assert sum(shown.values()) == 32
    assert max(shown.values()) - min(shown.values()) <= 1


def test_values_and_masks():
    data = tiny.drawn_set(3)
    batch = BatchStream(data, batch_size=2, seed=0).at(0)
    assert batch.images.dtype == torch.float32
    assert batch.images.min() >= -1
    assert batch.images.max() <= 1
    assert set(batch.masks.unique().tolist()) == {-1.0, 1.0}
    # What is bright in the drawn images is the disc, and the disc is the mask.
    assert torch.equal(batch.masks[:, 0] > 0, batch.images[:, 0] > 0.8)
    assert BatchStream(numbered(3), batch_size=2, seed=0).at(0).masks is None


def test_mirror_shows_every_other_pass_flipped_with_its_masks():
    data = tiny.drawn_set(3)
    plain, mirrored = (BatchStream(data, batch_size=3, seed=0, mirror=mirror) for mirror in (False, True))
    assert torch.equal(plain.at(0).images, mirrored.at(0).images)
    assert torch.equal(plain.at(3).images.flip(3), mirrored.at(3).images)
    assert torch.equal(plain.at(3).masks.flip(3), mirrored.at(3).masks)
    assert not torch.equal(plain.at(3).images, mirrored.at(3).images)
    for start in (0, 2, 3):
        for ours, theirs in zip(plain.at(start).tensors, mirrored.at(start).as_photographed().tensors, strict=True):
            assert ours is theirs is None or torch.equal(ours, theirs)


def test_split_into_micro_batches():
    batch = BatchStream(tiny.drawn_set(4), batch_size=4, seed=0).at(0)
    parts = batch.split(2)
    assert [len(part) for part in parts] == [2, 2]
    assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
    assert torch.equal(torch.cat([part.masks for part in parts]), batch.masks)


def test_labels_stay_with_their_images():
    data = numbered(7)
    data.labels = torch.arange(7) * 10
    batch = BatchStream(data, batch_size=4, seed=0).at(4)
    assert batch.labels.tolist() == [10 * number for number in numbers(batch)]
    for part in batch.split(2):
        assert part.labels.tolist() == [10 * number for number in numbers(part)]
    assert stream().at(0).labels is None


def test_a_set_that_is_too_large_for_the_device_stays_where_it_is(monkeypatch):
    device = torch.device("meta")
    assert BatchStream(tiny.drawn_set(), batch_size=4, seed=0, device=device).images.device == device
    monkeypatch.setattr("dfmgan_hf.training.task.RESIDENT_BYTES", 6 * 4 * 32 * 32 - 1)
    stream = BatchStream(tiny.drawn_set(), batch_size=4, seed=0, device=device)
    assert stream.images.device == stream.masks.device == torch.device("cpu")
    assert stream.at(0).images.device == stream.at(0).masks.device == device


def test_more_passes_than_one_table_holds():
    """Batches across the end of the table of the order, and far behind it, as after a resumption."""
    whole, resumed = stream(n=3), stream(n=3)
    size = 3 * whole._passes
    starts = [size - 6, size - 2, 5 * size + 1, 5 * size + 5, 0]
    for start in starts:
        passes = range(start // 3, (start + 3) // 3 + 1)
        orders = [torch.randperm(3, generator=torch.Generator().manual_seed(1_000_003 + p)) for p in passes]
        expected = torch.cat(orders)[start % 3 :][:4].tolist()
        assert numbers(whole.at(start)) == expected
    assert numbers(resumed.at(starts[2])) == numbers(whole.at(starts[2]))


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


def test_advice_holds_for_the_quick_preset_too():
    """It has neither a matching discriminator nor mode seeking, which could be made larger or smaller."""
    advice = {rule.name: rule.advice for rule in Stage2Task.rules}
    assert not any(o in advice[name] for name in ("masks_empty", "masks_full") for o in ("--mode_seeking", "--match"))
    assert "--match_discriminator small if the run has none (as with --preset quick)" in advice["area_far_from_real"]
    assert "(0.1 if it is 0, as with --preset quick)" in advice["defects_do_not_change"]


def test_stage1_has_no_rules_about_masks():
    assert {rule.name for rule in Stage1Task.rules} == {"ada_at_cap", "discriminator_memorised"}
    rows = [{k: v for k, v in HEALTHY.items() if k.startswith(("ada", "accuracy", "logits"))}] * PATIENCE
    assert examine(rows) == {}, "a rule that misses its numbers is silent"
