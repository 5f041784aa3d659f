"""D2GAN on two small distributions, where the best discriminators and the value of the game are known."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dfmgan_hf.methods.sdgan import D2GANLoss, D2LSGANLoss

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
