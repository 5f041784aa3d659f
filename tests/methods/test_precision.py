"""The precision of regularisers."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.losses import path_lengths, r1_penalty
from dfmgan_hf.methods.stylegan2 import regularizer_precision
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.stylegan2 import NoiseInput, StyleGAN2Generator

SIZES = {"resolution": 32, "channel_base": 512, "channel_max": 32}


@pytest.mark.parametrize(("dtype", "inside"), [(torch.bfloat16, torch.bfloat16), (torch.float16, None), (None, None)])
def test_regularisers_run_in_bfloat16_but_not_in_float16(dtype, inside):
    network = StyleGAN2Discriminator(**SIZES)
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
