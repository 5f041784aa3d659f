"""Defect-GAN's networks: composition, control map, noise, shapes, gradients, files."""

from __future__ import annotations

import json

import pytest
import torch

from dfmgan_hf.models.defect_gan import DefectGANDiscriminator, DefectGANGenerator, control_map
from tests.parameters import set_noise_strength

SIZES = {"resolution": 32, "base_channels": 4}
BLOCKS = {"encoder_blocks": 1, "decoder_blocks": 1, "spade_channels": 8}


def make_generator(**config) -> DefectGANGenerator:
    torch.manual_seed(0)
    return DefectGANGenerator(**{**SIZES, **BLOCKS, **config})


def images_of(n: int = 2, channels: int = 3) -> torch.Tensor:
    return torch.rand(n, channels, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


DEFECT = control_map(torch.tensor([1, 1]), 2)
NORMAL = control_map(torch.tensor([0, 0]), 2)


def test_composition():
    images = images_of()
    output = make_generator()(images, DEFECT)
    m = output.distribution
    torch.testing.assert_close(output.images, images * (1 - m) + output.foreground * m)


def test_generator_gives_back_its_input_where_the_distribution_is_zero():
    generator = make_generator()
    with torch.no_grad():
        generator.to_distribution.weight.zero_()
        generator.to_distribution.bias.fill_(-200.0)
    images = images_of()
    output = generator(images, DEFECT)
    assert output.distribution.max() == 0
    assert torch.equal(output.images, images)


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_ranges_and_gradients(channels):
    generator = make_generator(image_channels=channels)
    discriminator = DefectGANDiscriminator(**SIZES, image_channels=channels)
    images = images_of(channels=channels)
    output = generator(images, DEFECT)
    assert output.images.shape == output.foreground.shape == images.shape
    assert output.distribution.shape == (2, 1, 32, 32)
    assert 0 <= output.distribution.min() <= output.distribution.max() <= 1
    assert output.foreground.abs().max() <= 1
    judged = discriminator(output.images)
    assert judged.scores.shape == (2, 1, 4, 4)
    assert judged.class_logits.shape == (2, 2)
    (judged.scores.sum() + judged.class_logits[:, 1].sum() + output.distribution.sum()).backward()
    for network in (generator, discriminator):
        missing = [n for n, p in network.named_parameters() if p.grad is None or p.grad.abs().sum() == 0]
        assert not missing


def test_published_discriminator():
    """Six layers from 64 to 2048 channels, and a class head as large as the 4x4 map that they leave."""
    with torch.device("meta"):
        discriminator = DefectGANDiscriminator()
    convolutions = [m for m in discriminator.layers if isinstance(m, torch.nn.Conv2d)]
    assert [m.out_channels for m in convolutions] == [64, 128, 256, 512, 1024, 2048]
    assert discriminator.to_classes.kernel_size == (4, 4)


def test_control_map_decides_and_may_be_local():
    generator = make_generator()
    images = images_of()
    assert not torch.equal(generator(images, DEFECT).images, generator(images, NORMAL).images)
    # The same at every position is the same as the label alone.
    spread = generator(images, DEFECT.expand(-1, -1, 32, 32)).images
    assert torch.equal(spread, generator(images, DEFECT).images)
    half = NORMAL.repeat(1, 1, 32, 32)
    half[..., 16:] = DEFECT
    assert not torch.equal(generator(images, half).images, spread)


def test_noise_starts_without_strength_and_then_follows_its_generator():
    generator = make_generator()
    images = images_of()

    def draw(*seeds: int) -> torch.Tensor:
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        with torch.no_grad():
            return generator(images[: len(seeds)], DEFECT[: len(seeds)], generators).images

    assert torch.equal(draw(1, 2), draw(3, 4))
    set_noise_strength(generator, 0.5)
    assert torch.equal(draw(1, 2), draw(1, 2))
    torch.testing.assert_close(draw(1, 2)[:1], draw(1), rtol=0, atol=1e-5)
    assert (draw(1, 2) - draw(1, 3))[0].abs().max() < 1e-5
    assert (draw(1, 2) - draw(1, 3))[1].abs().max() > 1e-3


def test_wrong_arguments():
    with pytest.raises(ValueError, match="`num_classes` must be at least 2"):
        make_generator(num_classes=1)
    with pytest.raises(ValueError, match="`image_channels` must be 1 or 3, but is 2"):
        make_generator(image_channels=2)
    with pytest.raises(ValueError, match=r"`control` must be \(2, 2, h, w\), but is \(2, 3, 1, 1\)"):
        make_generator()(images_of(), control_map(torch.tensor([1, 1]), 3))
    with pytest.raises(ValueError, match="`resolution` must be at least 8, but is 4"):
        DefectGANDiscriminator(**{**SIZES, "resolution": 4})


def test_configuration_with_an_option_that_is_gone_loads(tmp_path):
    discriminator = DefectGANDiscriminator(**SIZES).eval()
    discriminator.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_layers": None}))
    older = DefectGANDiscriminator.from_pretrained(tmp_path)
    assert torch.equal(older(images_of()).scores, discriminator(images_of()).scores)
