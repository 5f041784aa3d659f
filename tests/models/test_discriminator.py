"""The discriminator: sizes, groups of the minibatch statistic, precision, second derivatives."""

import pytest
import torch

from dfmgan_hf import StyleGAN2Discriminator
from dfmgan_hf.models.discriminator import minibatch_stddev


def tiny(**config) -> StyleGAN2Discriminator:
    torch.manual_seed(0)
    return StyleGAN2Discriminator(**{"resolution": 32, "channel_base": 128, "channel_max": 4, **config})


@pytest.mark.parametrize("image_channels", [1, 2, 3, 4])
@pytest.mark.parametrize("resolution", [32, 64, 128, 256, 512, 1024])
def test_every_resolution(resolution, image_channels):
    model = tiny(resolution=resolution, image_channels=image_channels, channel_base=2 * resolution)
    with torch.no_grad():
        logits = model(torch.randn(1, image_channels, resolution, resolution)).logits
    assert logits.shape == (1, 1)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolution": 40}, "`resolution` must be a power of two from 32 to 1024, but is 40"),
        ({"image_channels": 5}, "`image_channels` must be from 1 to 4, but is 5"),
        ({"channel_base": 8}, "`channel_base` must be at least the resolution 32, but is 8"),
    ],
)
def test_impossible_configurations(config, message):
    with pytest.raises(ValueError, match=message):
        tiny(**config)


def test_wrong_images():
    with pytest.raises(ValueError, match=r"`images` must be \(N, 3, 32, 32\), but is \(2, 4, 32, 32\)"):
        tiny()(torch.zeros(2, 4, 32, 32))


def test_minibatch_statistic_groups():
    """Sample i is in group i mod (N / G), and G is the largest divisor of N up to the group size."""
    x = torch.randn(8, 3, 4, 4, dtype=torch.float64)
    y = minibatch_stddev(x, 4)
    assert y.shape == (8, 1, 4, 4)
    for i in range(8):
        group = x[i % 2 :: 2]
        expected = (group.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(y[i], expected.expand(1, 4, 4))
    assert (minibatch_stddev(x[:1], 4) == 1e-4).all(), "one sample alone: the root of the epsilon"
    torch.testing.assert_close(minibatch_stddev(x[:6], 4)[0], minibatch_stddev(x[[0, 2, 4]], 3)[0])


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8])
def test_any_batch_size(n):
    assert tiny()(torch.randn(n, 3, 32, 32)).logits.shape == (n, 1)


def test_mixed_precision():
    model = tiny()
    x = torch.randn(4, 3, 32, 32)
    exact = model(x).logits
    model.set_mixed_precision(torch.bfloat16, num_resolutions=2)
    mixed = model(x).logits
    assert mixed.dtype == torch.float32
    assert not torch.equal(mixed, exact)
    assert (mixed - exact).abs().max() < 0.1
    mixed.sum().backward()
    assert {p.grad.dtype for p in model.parameters()} == {torch.float32}
    model.set_mixed_precision(None)
    assert torch.equal(model(x).logits, exact)


def test_r1_has_a_second_derivative():
    """The gradient of the penalty with respect to a weight, against finite differences."""
    model = tiny().double()
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)).double().requires_grad_()
    weight = model.blocks["16"].conv1.weight

    def penalty():
        (gradient,) = torch.autograd.grad(model(x).logits.sum(), x, create_graph=True)
        return gradient.square().sum()

    (gradient,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)).double()
    step = 1e-6
    ends = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(sign * step * direction)
        ends.append(penalty().detach())
        with torch.no_grad():
            weight.sub_(sign * step * direction)
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=0)
