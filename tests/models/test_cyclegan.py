"""SDGAN's networks: published sizes, shapes, gradients, files."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.models.cyclegan import CycleGANGenerator, PatchDiscriminator


def test_published_sizes():
    """Counted from the layers of CycleGAN's appendix 7.2, without the biases that the norms take away."""
    with torch.device("meta"):
        generator, discriminator = CycleGANGenerator(), PatchDiscriminator()
    weights = (
        49 * 3 * 64 + 9 * (64 * 128 + 128 * 256) + 9 * 2 * 9 * 256**2 + 9 * (256 * 128 + 128 * 64) + 49 * 64 * 3 + 3
    )
    assert sum(p.numel() for p in generator.parameters()) == weights
    weights = 16 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512 + 512) + 64 + 1
    assert sum(p.numel() for p in discriminator.parameters()) == weights
    assert discriminator(torch.zeros(1, 3, 256, 256, device="meta")).logits.shape == (1, 1, 30, 30)


def test_weights_start_with_the_published_spread():
    torch.manual_seed(0)
    for network in (CycleGANGenerator(resolution=32), PatchDiscriminator()):
        for name, parameter in network.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
            else:
                assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name


def test_a_logit_judges_70_pixels():
    discriminator = PatchDiscriminator(image_channels=1, base_channels=2)
    for module in discriminator.modules():
        if isinstance(module, torch.nn.InstanceNorm2d):
            module.forward = lambda x: x  # the norm's statistics reach over the whole image
    images = torch.randn(1, 1, 128, 128, requires_grad=True)
    logits = discriminator(images).logits
    (gradient,) = torch.autograd.grad(logits[0, 0, 7, 7], images)
    rows = gradient[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("channels", [1, 3])
def test_shapes_range_and_gradients(channels):
    generator = CycleGANGenerator(resolution=32, image_channels=channels, base_channels=4, residual_blocks=2)
    discriminator = PatchDiscriminator(image_channels=channels, base_channels=4)
    images = torch.rand(2, channels, 32, 32) * 2 - 1
    drawn = generator(images).images
    assert drawn.shape == images.shape
    assert drawn.abs().max() <= 1
    discriminator(drawn).logits.sum().backward()
    for network in (generator, discriminator):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())


def test_wrong_arguments():
    with pytest.raises(ValueError, match="`image_channels` must be 1 or 3, but is 4"):
        CycleGANGenerator(image_channels=4)
    with pytest.raises(ValueError, match="multiple of 4, but is 30"):
        CycleGANGenerator(resolution=30)
    generator = CycleGANGenerator(resolution=32, base_channels=2, residual_blocks=1)
    with pytest.raises(ValueError, match=r"`images` must be \(N, 3, 32, 32\), but is \(1, 3, 64, 64\)"):
        generator(torch.zeros(1, 3, 64, 64))
