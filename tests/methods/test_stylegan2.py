"""Latents with style mixing, moving averages of w and of path lengths, and the precision of regularisers."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.losses import path_lengths, r1_penalty
from dfmgan_hf.methods.stylegan2 import (
    LatentAverage,
    PathLengthAverage,
    draw_latents,
    regularizer_precision,
    sample_latents,
)
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.stylegan2 import W_AVG_DECAY, MappingNetwork, NoiseInput, StyleGAN2Generator


@pytest.fixture
def mapping() -> MappingNetwork:
    torch.manual_seed(0)
    return MappingNetwork(4, 6, 2)


def test_without_mixing_all_layers_share_a_latent(mapping):
    ws = sample_latents(mapping, 3, 5, 0.0)
    assert ws.shape == (3, 5, 6)
    assert torch.equal(ws, ws[:, :1].expand_as(ws))
    assert not torch.equal(ws[0], ws[1])


def test_mixing_has_one_cut_for_the_batch(mapping):
    for _ in range(20):
        ws = sample_latents(mapping, 3, 5, 1.0)
        changes = (ws[:, 1:] != ws[:, :-1]).any(dim=2)
        assert changes.sum(dim=1).tolist() == [1, 1, 1]
        assert (changes == changes[:1]).all()


def test_mixing_probability_and_cuts(mapping):
    torch.manual_seed(1)
    drawn = torch.stack([draw_latents(mapping, 1, 4, 0.9).cut for _ in range(600)])
    *cuts, unmixed = drawn.bincount(minlength=5)[1:].tolist()
    assert sum(cuts) + unmixed == 600
    assert 0.06 < unmixed / 600 < 0.14
    assert min(cuts) > 130


def test_a_single_layer_cannot_be_mixed(mapping):
    assert draw_latents(mapping, 2, 1, 1.0).mixed_z is None


def test_w_average_moves_once_a_step_by_the_mean_of_its_parts(mapping):
    start = torch.full((6,), 2.0)
    mapping.w_avg.copy_(start)
    parts = [torch.randn(2, 6), torch.randn(2, 6)]
    average = LatentAverage(mapping, lambda tensor: tensor + 1)  # as if other processes had a larger mean
    for part in parts:
        average.observe(part)
    assert torch.equal(mapping.w_avg, start)
    average.update()
    expected = start * W_AVG_DECAY + (torch.cat(parts).mean(dim=0) + 1) * (1 - W_AVG_DECAY)
    assert torch.allclose(mapping.w_avg, expected)
    average.observe(torch.zeros(1, 6))
    average.update()
    assert torch.allclose(mapping.w_avg, expected * W_AVG_DECAY + (1 - W_AVG_DECAY))


def test_path_length_penalties_of_a_step_use_the_mean_before_it():
    average = PathLengthAverage(torch.device("cpu"), lambda tensor: tensor)
    average.mean.fill_(4.0)
    lengths = torch.tensor([5.0, 7.0], requires_grad=True)
    first, second = average.penalty(lengths[:1]), average.penalty(lengths[1:])
    assert (first.item(), second.item()) == (1.0, 9.0)
    (first + second).backward()
    assert lengths.grad.tolist() == [2.0, 6.0]
    assert average.mean == 4.0
    average.update()
    assert average.mean.item() == pytest.approx(4.0 + 0.01 * (6.0 - 4.0))
    assert not average.mean.requires_grad


SIZES = {"resolution": 32, "channel_base": 512, "channel_max": 32}


@pytest.mark.parametrize(
    ("dtype", "device", "inside"),
    [
        (torch.bfloat16, "cpu", torch.bfloat16),
        (torch.float16, "cpu", None),
        (torch.float16, "meta", torch.bfloat16),
        (None, "meta", None),
    ],
)
def test_regularisers_run_in_bfloat16_but_not_in_float16(dtype, device, inside):
    network = StyleGAN2Discriminator(**SIZES).to(device)
    network.set_mixed_precision(dtype)

    def interrupted() -> None:
        with regularizer_precision(network):
            assert network.low_precision_dtype is inside
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert network.low_precision_dtype is dtype


@pytest.mark.parametrize("penalty", ["r1", "path_length"])
def test_gradients_of_penalties_in_bfloat16_are_those_in_float32_but_for_rounding(penalty):
    torch.manual_seed(0)
    network = StyleGAN2Discriminator(**SIZES) if penalty == "r1" else StyleGAN2Generator(**SIZES)
    gradients = []
    for dtype in (None, torch.bfloat16):
        network.set_mixed_precision(dtype)
        torch.manual_seed(1)
        with regularizer_precision(network):
            if penalty == "r1":
                images = torch.randn(8, 3, 32, 32, requires_grad=True)
                loss = r1_penalty(network(images).logits, images).mean()
            else:
                ws = network.mapping(torch.randn(8, network.config["z_dim"]))
                ws = ws.unsqueeze(1).repeat(1, network.num_latents, 1)
                images = network.synthesize(ws, NoiseInput("random", 8))
                loss = path_lengths(images, ws, torch.randn_like(images)).square().mean()
        parameters = list(network.parameters())
        parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
        gradients.append(torch.cat([part.flatten() for part in parts]))
    exact, low = gradients
    apart = (low - exact).norm() / exact.norm()
    assert 1e-4 < apart < 0.1
