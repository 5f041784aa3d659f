"""The golden networks' outputs, losses and gradients are reproduced."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.losses import (
    logistic_loss,
    path_lengths,
    r1_penalty,
)
from dfmgan_hf.models import layers
from dfmgan_hf.models.dfmgan import DFMGANGenerator, soft_mask
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.layers import downsample2d, upsample2d
from tests.models.golden import (
    assert_close_to_golden,
    golden_discriminator,
    golden_generator,
    golden_match_discriminator,
    load_numbers,
)
from tests.parameters import backbone_parameters, defect_parameters


@pytest.fixture(scope="module")
def numbers():
    return load_numbers()


@pytest.fixture(scope="module")
def generator():
    return golden_generator()


@pytest.fixture(scope="module")
def discriminator():
    return golden_discriminator()


@pytest.fixture(scope="module")
def match_discriminator():
    return golden_match_discriminator()


def test_fir_resampling(numbers):
    assert_close_to_golden(upsample2d(numbers["fir_in"]), numbers["fir_up2"])
    assert_close_to_golden(downsample2d(numbers["fir_in"]), numbers["fir_down2"])


@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_mapping_and_truncation(numbers, generator, psi):
    assert_close_to_golden(generator.mapping(numbers["z_object"], psi), numbers[f"ws_psi{psi}"])
    assert_close_to_golden(generator.defect_mapping(numbers["z_defect"], psi), numbers[f"defect_ws_psi{psi}"])


@pytest.mark.parametrize("pooling", [False, True], ids=["depthwise", "pooling"])
@pytest.mark.parametrize("noise_mode", ["const", "none"])
def test_triplet(numbers, generator, noise_mode, pooling, monkeypatch):
    monkeypatch.setattr(layers, "_is_gpu", lambda device: pooling)
    out = generator(numbers["z_object"], numbers["z_defect"], noise_mode=noise_mode, return_defect_free=True)
    assert_close_to_golden(out.images, numbers[f"image_{noise_mode}"])
    assert_close_to_golden(out.mask_logits, numbers[f"mask_logits_{noise_mode}"])
    assert_close_to_golden(out.defect_free_images, numbers[f"defect_free_{noise_mode}"])


def test_triplet_from_w(numbers, generator):
    out = generator(
        numbers["ws_psi1.0"],
        numbers["defect_ws_psi1.0"],
        noise_mode="const",
        object_latent_space="w",
        defect_latent_space="w",
    )
    assert_close_to_golden(out.images, numbers["image_const"])


def test_mixed_latents(numbers, generator):
    out = generator(
        numbers["mixed_ws"],
        numbers["mixed_defect_ws"],
        noise_mode="const",
        object_latent_space="w+",
        defect_latent_space="w+",
    )
    assert_close_to_golden(out.images, numbers["mixed_image"])
    assert_close_to_golden(out.mask_logits, numbers["mixed_mask_logits"])


def test_discriminators(numbers, discriminator, match_discriminator):
    real = torch.cat([numbers["real_image"], numbers["real_mask"]], dim=1)
    fake_mask = soft_mask(numbers["mask_logits_const"])
    fake = torch.cat([numbers["image_const"], fake_mask], dim=1)
    assert_close_to_golden(discriminator(numbers["real_image"]).logits, numbers["logits_real"])
    assert_close_to_golden(discriminator(numbers["image_const"]).logits, numbers["logits_fake"])
    assert_close_to_golden(match_discriminator(real).logits, numbers["match_logits_real"])
    assert_close_to_golden(match_discriminator(fake).logits, numbers["match_logits_fake"])


def test_r1(numbers, discriminator, match_discriminator):
    image = numbers["real_image"].clone().requires_grad_()
    assert_close_to_golden(r1_penalty(discriminator(image).logits, image), numbers["r1_penalty"])
    pair = torch.cat([numbers["real_image"], numbers["real_mask"]], dim=1).requires_grad_()
    assert_close_to_golden(r1_penalty(match_discriminator(pair).logits, pair), numbers["match_r1_penalty"])


def test_path_lengths(numbers, generator):
    ws = generator.mapping(numbers["z_object"]).unsqueeze(1).repeat(1, generator.num_latents, 1)
    out = generator(ws, numbers["z_defect"], noise_mode="const", object_latent_space="w+", defect_latent_space="z")
    assert_close_to_golden(path_lengths(out.images, ws, numbers["pl_noise"]), numbers["pl_lengths"], tolerance=1e-4)


def test_generator_loss_and_gradients(numbers, generator, discriminator, match_discriminator):
    out = generator(numbers["z_object"], numbers["z_defect"], noise_mode="const")
    pair = torch.cat([out.images, soft_mask(out.mask_logits)], dim=1)
    loss = logistic_loss(discriminator(out.images).logits, 1) + logistic_loss(match_discriminator(pair).logits, 1)
    assert_close_to_golden(loss, numbers["g_adv_loss"])
    weights = {
        "synthesis.res_b32.conv0.weight": generator.defect_blocks["32"].conv0.weight,
        "synthesis.res_b32.torgb.weight": generator.to_mask.weight,
        "synthesis.res_b64.conv1.affine.weight": generator.defect_blocks["64"].conv1.affine.weight,
    }
    gradients = torch.autograd.grad(loss, list(weights.values()))
    for name, gradient in zip(weights, gradients, strict=True):
        assert_close_to_golden(gradient, numbers[f"grad:{name}"])


def test_parameter_counts():
    """Table of sizes at the default 256x256 configuration, to the unit."""

    def count(parameters) -> int:
        return sum(p.numel() for p in parameters)

    generator = DFMGANGenerator()
    assert count(backbone_parameters(generator)) == 23_191_522
    assert count(defect_parameters(generator)) == 3_669_703
    assert count(StyleGAN2Discriminator().parameters()) == 24_001_089
    match = StyleGAN2Discriminator(image_channels=4, channel_base=4096, channel_max=128)
    assert count(match.parameters()) == 1_502_113
