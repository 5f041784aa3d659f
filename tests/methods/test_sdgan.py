"""SDGAN: its games, its cycle, the history, the schedule, and what it draws."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmgan_hf.files import module_sha256
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest
from dfmgan_hf.methods.sdgan import (
    METHOD,
    SMALLEST_IMAGE,
    D2GANLoss,
    D2LSGANLoss,
    ImageHistory,
    SDGANSampler,
)
from dfmgan_hf.methods.translation import Photographs
from dfmgan_hf.models.cyclegan import CycleGANGenerator, PatchDiscriminator, TranslationOutput
from dfmgan_hf.training import RunningStatistics
from tests.methods.translation import BATCH, batch_of, learning_rates, make_task, run_phase


class Negative(nn.Module):
    """Its own inverse."""

    def forward(self, images: Tensor) -> TranslationOutput:
        return TranslationOutput(images=-images)


def test_cycle_is_zero_for_translations_that_undo_each_other(category):
    task = make_task(METHOD, category)
    task.generator = task.restorer = Negative()
    statistics = RunningStatistics()
    loss = task.generators_loss(batch_of(category), statistics)
    assert statistics.collect()["cycle"] == 0
    # All that is left is what the discriminators say.
    _, fake_defect, fake_good = task._drawn.pop()
    fakes = {"defect": fake_defect, "good": fake_good}
    with torch.no_grad():
        judged = sum(task.game.generator(*task._judge(domain, fake)) for domain, fake in fakes.items())
    torch.testing.assert_close(loss, judged)


@pytest.mark.parametrize(("option", "value"), [("cycle_weight", 20.0), ("beta", 0.1)])
def test_options_change_the_loss(category, option, value):
    losses = []
    for options in ({}, {option: value}):
        task = make_task(METHOD, category, **options)
        torch.manual_seed(1)
        losses.append(task.generators_loss(batch_of(category), RunningStatistics()).item())
    assert losses[0] != pytest.approx(losses[1], rel=1e-4)


def test_history_keeps_and_gives_back():
    torch.manual_seed(0)
    history = ImageHistory(3)
    first = torch.arange(3.0)[:, None, None, None]
    assert torch.equal(history.exchange(first), first)
    new = torch.arange(3.0, 1003.0)[:, None, None, None]
    shown = history.exchange(new)
    old = shown < new
    assert 0.4 < old.float().mean() < 0.6
    assert history.images.shape == (3, 1, 1, 1)
    # Nothing is lost and nothing comes twice: what is not shown is kept.
    everything = torch.cat([shown, history.images]).flatten().sort().values
    assert torch.equal(everything, torch.arange(1003.0))
    assert torch.equal(ImageHistory(0).exchange(new), new)


def test_learning_rate_is_constant_for_half_of_the_run_and_then_falls_to_zero(category):
    task = make_task(METHOD, category, total_kimg=10 * BATCH / 1000)
    rates = {}
    for step in range(1, 11):
        task.after_step(step, RunningStatistics())
        rates[step] = learning_rates(task)
    assert rates[5] == [2e-4, 2e-4]
    assert rates[7] == pytest.approx([1.2e-4, 1.2e-4])
    assert rates[10] == [0.0, 0.0]
    resumed = make_task(METHOD, category, total_kimg=10 * BATCH / 1000)
    task.after_step(7, RunningStatistics())
    resumed.load_state_dict(task.state_dict())
    assert learning_rates(resumed) == rates[7]


def test_state_holds_the_history(category):
    task = make_task(METHOD, category, history_size=2)
    for name in ("generators", "discriminators"):
        run_phase(task, name, batch_of(category))
    resumed = make_task(METHOD, category, history_size=2)
    resumed.load_state_dict(task.state_dict())
    for domain, history in task.histories.items():
        assert len(history.images) == 2
        assert torch.equal(resumed.histories[domain].images, history.images)


def test_published_sizes(category):
    task = make_task(METHOD, category, device="meta", channel_base=64 * 32)
    assert (task.generator.config["base_channels"], task.generator.config["residual_blocks"]) == (64, 6)
    paper = METHOD.resolve("auto", RecipeConfig(), None, 1)
    assert (paper.resolution, paper.batch_size, paper.lr, paper.total_kimg) == (256, 4, 2e-4, 78.2)
    assert paper.channel_base // paper.resolution == 64


def test_images_that_are_too_small_for_the_discriminators_are_refused():
    network = PatchDiscriminator(1, base_channels=2)
    assert network(torch.zeros(1, 1, SMALLEST_IMAGE, SMALLEST_IMAGE)).logits.shape == (1, 1, 1, 1)
    with pytest.raises(ValueError, match="more than 1 spatial element"):
        network(torch.zeros(1, 1, SMALLEST_IMAGE - 1, SMALLEST_IMAGE - 1))
    recipe = METHOD.resolve("small", RecipeConfig(resolution=16), None, 1)
    target = Target(torch.device("meta"))
    with pytest.raises(ValueError, match="`resolution` must be at least 24 for SDGAN, but is 16"):
        METHOD.build(TaskRequest(recipe, METHOD.options(), AugmentationConfig("none"), target))


# --- drawing ---


@pytest.fixture
def generator() -> CycleGANGenerator:
    torch.manual_seed(0)
    return CycleGANGenerator(resolution=32, image_channels=1, base_channels=4, residual_blocks=1).eval()


def good_pixels(n: int = 6) -> Tensor:
    return torch.randint(0, 256, (n, 1, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_every_photograph_comes_before_any_comes_again(generator):
    sampler = SDGANSampler(generator, Photographs(good_pixels(), torch.device("cpu")))
    images, masks = sampler.sample_at(range(15), seed=4)
    assert masks is None
    assert images.shape == (15, 1, 32, 32)
    assert len(images[:6].flatten(1).unique(dim=0)) == 6
    assert torch.equal(images[:6], images[6:12])
    assert torch.equal(images[:3], images[12:])
    assert sampler.settings == {
        "weights_sha256": module_sha256(generator),
        "good_images": "photographs",
        "num_distinct": 6,
    }


def test_image_depends_on_its_number_and_the_seed_alone(generator):
    sampler = SDGANSampler(generator, Photographs(good_pixels(), torch.device("cpu")))
    images, _ = sampler.sample_at(range(6), seed=4)
    assert torch.equal(sampler.sample_at([5, 1], seed=4)[0], images[[5, 1]])
    assert not torch.equal(sampler.sample_at(range(6), seed=5)[0], images)


# Counts of four values among real and among generated images.
REAL = torch.tensor([4, 3, 2, 1])
FAKE = torch.tensor([1, 2, 3, 4])


def samples(outputs: Tensor, counts: Tensor) -> Tensor:
    """A discriminator's outputs, one a value, on images in which each value comes so often."""
    return outputs.repeat_interleave(counts)


def game_value(game: D2GANLoss, outputs1: Tensor, outputs2: Tensor, real: Tensor, fake: Tensor) -> Tensor:
    return game.discriminators(
        samples(outputs1, real), samples(outputs1, fake), samples(outputs2, real), samples(outputs2, fake)
    )


def best_outputs(game: D2GANLoss, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    outputs = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([outputs], max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-14)

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = game_value(game, outputs[0], outputs[1], real, fake)
        loss.backward()
        return loss

    optimizer.step(closure)
    return outputs[0].detach(), outputs[1].detach()


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.2, 0.1)])
def test_best_discriminators_of_d2gan_are_the_density_ratios(alpha, beta):
    ratio = REAL / FAKE
    d1, d2 = map(F.softplus, best_outputs(D2GANLoss(alpha, beta), REAL, FAKE))
    torch.testing.assert_close(d1, (alpha * ratio).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(d2, (beta / ratio).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.2, 0.1)])
def test_best_discriminators_with_squared_errors(alpha, beta):
    d1, d2 = best_outputs(D2LSGANLoss(alpha, beta), REAL, FAKE)
    torch.testing.assert_close(d1, (alpha * REAL / (alpha * REAL + FAKE)).double(), rtol=1e-4, atol=0)
    torch.testing.assert_close(d2, (beta * FAKE / (REAL + beta * FAKE)).double(), rtol=1e-4, atol=0)


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.2, 0.1)])
@pytest.mark.parametrize("fake", [FAKE, REAL], ids=["other", "equal"])
def test_generator_minimises_both_divergences(alpha, beta, fake):
    """D2GAN, theorem 2: at the best discriminators the game is worth a constant plus alpha KL(p|q) + beta KL(q|p)."""
    game = D2GANLoss(alpha, beta)
    value = -game_value(game, *best_outputs(game, REAL, fake), REAL, fake).item()
    p, q = REAL / REAL.sum(), fake / fake.sum()
    divergences = alpha * (p * (p / q).log()).sum() + beta * (q * (q / p).log()).sum()
    constant = alpha * (math.log(alpha) - 1) + beta * (math.log(beta) - 1)
    assert value == pytest.approx(constant + divergences.item(), abs=1e-5)


@pytest.mark.parametrize("game", [D2GANLoss(), D2LSGANLoss()], ids=["d2gan", "d2lsgan"])
def test_generator_moves_towards_what_is_rarer_than_it_should_be(game):
    """The gradient of its loss with respect to how often it draws each value falls as p / q rises."""
    outputs1, outputs2 = best_outputs(game, REAL, FAKE)
    losses = torch.stack([game.generator(one[None], two[None]) for one, two in zip(outputs1, outputs2, strict=True)])
    assert losses.diff().gt(0).all(), losses
    d1, d2 = best_outputs(game, REAL, REAL)
    equal = torch.stack([game.generator(one[None], two[None]) for one, two in zip(d1, d2, strict=True)])
    torch.testing.assert_close(equal, equal[:1].expand(4), rtol=0, atol=1e-4)


def test_d2gan_stays_finite_where_a_discriminator_is_sure():
    game = D2GANLoss()
    outputs = torch.tensor([-1e4, -50.0, 0.0, 50.0], requires_grad=True)
    for loss in (game.generator(outputs, outputs), game.discriminators(outputs, outputs, outputs, outputs)):
        (gradient,) = torch.autograd.grad(loss, outputs)
        assert loss.isfinite()
        assert gradient.isfinite().all()


def test_losses_are_means_over_positions():
    game = D2LSGANLoss()
    maps = torch.randn(2, 1, 3, 3)
    assert game.generator(maps, maps) == pytest.approx(game.generator(maps.flatten(), maps.flatten()).item())
    assert game.generator(maps.repeat(2, 1, 1, 1), maps) == pytest.approx(game.generator(maps, maps).item())
