"""Images that are not square: shapes, gradients, what is written and read, and what there is not."""

from __future__ import annotations

import json

import pytest
import torch

from dfmgan_hf import DFMGANGenerator, StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.models.base import DamagedModelError, image_size
from dfmgan_hf.models.discriminator import PatchHeadDiscriminator
from dfmgan_hf.models.projected import ProjectedDiscriminator

STRIPS = pytest.mark.parametrize(("aspect", "size"), [((1, 4), (32, 128)), ((2, 1), (64, 32))])
SIZES = {"resolution": 32, "channel_base": 256, "channel_max": 8}


def randn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@STRIPS
def test_the_generator_draws_images_masks_and_twins_of_the_shape(make_generator, aspect, size):
    generator = make_generator(aspect=aspect)
    height, width = aspect
    assert generator.block(4).const.shape == (8, 4 * height, 4 * width)
    assert generator.block(16).conv1.noise_const.shape == (16 * height, 16 * width)
    assert generator.num_latents == make_generator().num_latents
    for noise_mode in ("const", "random"):
        output = generator(randn(2, 16), randn(2, 16) + 1, noise_mode=noise_mode, return_defect_free=True)
        assert output.images.shape == output.defect_free_images.shape == (2, 3, *size)
        assert output.mask_logits.shape == (2, 1, *size)
    output.images.square().mean().backward()
    assert generator.block(4).const.grad.abs().min() > 0


@STRIPS
def test_a_given_mask_is_followed(make_generator, aspect, size):
    generator = make_generator(aspect=aspect)
    masks = torch.zeros(1, 1, *size)
    masks[..., :8, -8:] = 1
    with torch.no_grad():
        output = generator(randn(1, 16), randn(1, 16), noise_mode="const", return_defect_free=True, masks=masks)
    change = (output.images - output.defect_free_images).abs().amax(dim=(0, 1))
    assert change[:8, -8:].max() > 0
    assert change[-12:, :12].max() == 0
    with pytest.raises(ValueError, match=rf"must be a tensor \(1, 1, {size[0]}, {size[1]}\)"):
        generator(randn(1, 16), randn(1, 16), masks=masks[..., :32, :32])


@STRIPS
@pytest.mark.parametrize("make", [StyleGAN2Discriminator, PatchHeadDiscriminator])
def test_the_discriminator_reads_every_pixel(make, aspect, size):
    torch.manual_seed(0)
    discriminator = make(**SIZES, aspect=aspect)
    assert discriminator.head.fc.weight.shape == (8, 8 * 16 * aspect[0] * aspect[1])
    images = randn(2, 3, *size).requires_grad_()
    discriminator(images).logits.sum().backward()
    assert (images.grad.abs().sum(dim=(0, 1)) > 0).all()
    with pytest.raises(ValueError, match=rf"must be \(N, 3, {size[0]}, {size[1]}\)"):
        discriminator(images.mT)
    if make is PatchHeadDiscriminator:
        assert discriminator.judge_patches(images, 0).shape == (2, 1, size[0] // 8, size[1] // 8)


@STRIPS
def test_the_projected_discriminator_judges_more_patches(aspect, size):
    torch.manual_seed(0)
    discriminator = ProjectedDiscriminator(resolution=32, aspect=aspect)
    images = randn(2, 3, *size).tanh().requires_grad_()
    logits = discriminator(images).logits
    assert logits.shape == (2, 5, 256 * aspect[0] * aspect[1])
    logits.sum().backward()
    assert (images.grad.abs().amax(dim=1) > 0).float().mean() > 0.99


@STRIPS
def test_a_strip_is_saved_and_loaded(tmp_path, make_generator, aspect, size):
    generator = make_generator(aspect=aspect)
    generator.save_pretrained(tmp_path)
    loaded = DFMGANGenerator.from_pretrained(tmp_path)
    assert {name: loaded.config[name] for name in generator.config if name[0] != "_"} == {
        name: value for name, value in generator.config.items() if name[0] != "_"
    }
    assert image_size(loaded.config) == size
    with torch.no_grad():
        drawn = [model(randn(1, 16), randn(1, 16), noise_mode="const").images for model in (generator, loaded)]
    assert torch.equal(*drawn)


def test_a_configuration_without_the_field_is_square(tmp_path, make_backbone):
    backbone = make_backbone()
    backbone.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    config = json.loads(file.read_text())
    assert config.pop("aspect") == [1, 1]
    file.write_text(json.dumps(config))
    loaded = StyleGAN2Generator.from_pretrained(tmp_path)
    assert image_size(loaded.config) == image_size(config) == (32, 32)
    assert torch.equal(loaded.block(4).const, backbone.block(4).const)


def test_stage_2_takes_the_shape_over(make_backbone):
    backbone = make_backbone(aspect=(4, 1))
    generator = DFMGANGenerator.from_backbone(backbone)
    assert generator.config["aspect"] == [4, 1]
    with torch.no_grad():
        twin = generator(randn(1, 16), randn(1, 16), noise_mode="const", return_defect_free=True).defect_free_images
        assert torch.equal(twin, backbone(randn(1, 16), noise_mode="const").images)


@pytest.mark.parametrize("aspect", [(1, 3), (2, 2), (1, 8), (4,), (1, 1, 1), (0, 1), (2, 4)])
def test_other_shapes_are_refused(aspect):
    for make in (StyleGAN2Generator, StyleGAN2Discriminator, ProjectedDiscriminator):
        with pytest.raises(ValueError, match="`aspect` must be height and width as multiples of the shorter side"):
            make(resolution=32, aspect=aspect)


@pytest.mark.parametrize("aspect", ["14", [1, True], [1, "4"], [1, 4.0], [1, -4], [1, 512], [[1], 4], None, 4, [1, 3]])
def test_a_damaged_shape_is_refused_before_memory_is_taken(tmp_path, make_backbone, aspect):
    make_backbone().save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"aspect": aspect}))
    with pytest.raises(DamagedModelError, match="aspect"):
        StyleGAN2Generator.from_pretrained(tmp_path)
