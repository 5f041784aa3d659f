"""WGAN-GP on critics whose gradient is known."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.methods.defect_gan import critic_loss, gradient_penalty


def test_critic_loss_is_zero_for_equal_distributions_and_negative_for_a_good_critic():
    scores = torch.randn(5, 1, 2, 2)
    assert critic_loss(scores, scores) == 0
    assert critic_loss(scores + 3, scores).item() == pytest.approx(-3, abs=1e-5)


@pytest.mark.parametrize("slope", [0.0, 0.5, 1.0, 3.0])
def test_penalty_of_a_linear_critic(slope):
    """D(x) = slope <v, x> with |v| = 1 has gradients of norm `slope`; a map of scores counts by its mean."""
    v = torch.randn(3, 4, 4)
    v = v / v.norm()

    def critic(images: torch.Tensor) -> torch.Tensor:
        score = slope * (images * v).sum(dim=(1, 2, 3))
        return score[:, None, None, None].expand(-1, 1, 2, 2)

    penalty = gradient_penalty(critic, torch.randn(5, 3, 4, 4), torch.randn(5, 3, 4, 4))
    torch.testing.assert_close(penalty, torch.full((5,), (slope - 1) ** 2), rtol=0, atol=1e-5)


def test_penalty_lies_between_the_images_and_trains_the_critic():
    seen = []
    weight = torch.ones((), requires_grad=True)

    def critic(images: torch.Tensor) -> torch.Tensor:
        seen.append(images.detach())
        return weight * images.square().sum(dim=(1, 2, 3))[:, None]

    real, fake = torch.zeros(64, 1, 2, 2), torch.ones(64, 1, 2, 2)
    gradient_penalty(critic, real, fake).mean().backward()
    (points,) = seen
    # One point a pair: all pixels the same share of the way, which differs from pair to pair.
    shares = points.flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand(-1, 4))
    assert shares.min() > 0
    assert shares.max() < 1
    assert shares.std() > 0.2
    assert weight.grad is not None
    assert weight.grad != 0
