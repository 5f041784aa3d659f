"""Mapping, modulated convolutions and noise of StyleGAN2, against the formulae they implement."""

import math

import pytest
import torch
import torch.nn.functional as F

from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.layers import EqualizedLinear
from dfmgan_hf.models.stylegan2 import (
    MappingNetwork,
    NoiseInput,
    StyledConv2d,
    StyleGAN2Generator,
    ToChannels,
    modulate,
    object_codes,
)
from tests.models.test_layers import fir


def modulation(layer, w, dtype):
    """How latents (N, w_dim) modulate a layer alone."""
    return modulate([(layer, dtype, w)])[layer]


@pytest.mark.parametrize("up", [False, True])
def test_modulated_conv_is_convolution_with_weights_of_each_sample(up):
    layer = StyledConv2d(5, 4, w_dim=6, size=(8 * (1 + up),) * 2, up=up).double()
    x, w = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 6).double()
    expected = []
    for i in range(3):
        weight = layer.weight * layer.affine(w[i : i + 1])[0][None, :, None, None]
        weight = weight * (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        y = x[i : i + 1]
        if up:
            y = F.conv_transpose2d(y, weight.transpose(0, 1), stride=2)
            y = fir(F.pad(y, (1, 1, 1, 1)), gain=4)
        else:
            y = F.conv2d(y, weight, padding=1)
        expected.append(F.leaky_relu(y, 0.2) * math.sqrt(2))
    torch.testing.assert_close(layer(x, modulation(layer, w, x.dtype), NoiseInput("none", 3)), torch.cat(expected))


def test_to_channels_is_a_convolution_with_weights_of_each_sample():
    layer = ToChannels(5, 3, w_dim=6, conv_clamp=0.5).double()
    with torch.no_grad():
        layer.bias.normal_()
    x, w = torch.randn(3, 5, 8, 8).double(), torch.randn(3, 6).double()
    weights = layer.weight * layer.affine(w)[:, None, :, None, None] / math.sqrt(5)
    expected = torch.cat([F.conv2d(x[i : i + 1], weights[i], layer.bias) for i in range(3)])
    torch.testing.assert_close(layer(x, modulation(layer, w, x.dtype)), expected.clamp(-0.5, 0.5))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("mode", ["const", "random"])
def test_styled_conv_adds_noise_before_bias_and_activates_after(n, mode):
    layer = StyledConv2d(5, 4, w_dim=6, size=(8, 8), conv_clamp=0.7).double()
    with torch.no_grad():
        layer.noise_strength.fill_(0.3)
        layer.bias.normal_()
    x, w = torch.randn(n, 5, 8, 8).double(), torch.randn(n, 6).double()
    noise = NoiseInput(mode, n)
    weight = layer.weight * layer.affine(w)[:, None, :, None, None]
    weight = weight * (weight.square().sum(dim=(2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    y = torch.cat([F.conv2d(x[i : i + 1], weight[i], padding=1) for i in range(n)])
    y = y + 0.3 * noise(layer, torch.float64) + layer.bias[:, None, None]
    expected = (F.leaky_relu(y, 0.2) * math.sqrt(2)).clamp(-0.7, 0.7)
    torch.testing.assert_close(layer(x, modulation(layer, w, x.dtype), noise), expected)


def test_start_values():
    torch.manual_seed(0)
    assert EqualizedLinear(512, 512).weight.std().item() == pytest.approx(1, abs=0.01)
    assert EqualizedLinear(512, 512, lr_multiplier=0.01).weight.std().item() == pytest.approx(100, abs=1)
    layer = StyledConv2d(64, 64, w_dim=8, size=(8, 8))
    assert layer.weight.std().item() == pytest.approx(1, abs=0.02)
    assert (layer.affine.bias == 1).all()
    assert layer.noise_strength == 0
    assert (layer.bias == 0).all()


def test_mapping_normalises_and_truncates():
    mapping = MappingNetwork(16, 8, 2).double()
    z = torch.randn(4, 16).double()
    w = mapping(z)
    torch.testing.assert_close(mapping(5 * z), w)
    mapping.update_w_avg(w.mean(dim=0))
    torch.testing.assert_close(mapping.w_avg, 0.005 * w.mean(dim=0))
    torch.testing.assert_close(mapping(z, 0.3), mapping.w_avg + 0.3 * (w - mapping.w_avg))


@pytest.mark.parametrize("up", [False, True])
def test_styled_conv_second_derivatives(up):
    torch.manual_seed(0)
    layer = StyledConv2d(2, 3, w_dim=4, size=(8, 8) if up else (4, 4), up=up, conv_clamp=256.0).double()
    x = torch.randn(1, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)

    def function(x, w):
        return layer(x, modulation(layer, w, x.dtype), NoiseInput("none", 1))

    assert torch.autograd.gradcheck(function, (x, w))
    assert torch.autograd.gradgradcheck(function, (x, w))


def test_to_channels_second_derivatives():
    torch.manual_seed(0)
    layer = ToChannels(3, 2, w_dim=4, conv_clamp=256.0).double()
    x = torch.randn(1, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    w = torch.randn(1, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x, w: layer(x, modulation(layer, w, x.dtype)), (x, w))


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize(
    "make_layer",
    [lambda: StyledConv2d(512, 8, 8, (8, 8), conv_clamp=256.0), lambda: ToChannels(512, 3, 8, conv_clamp=256.0)],
    ids=["styled", "to_rgb"],
)
def test_half_precision_does_not_overflow(make_layer, n):
    """Styles of 500 on activations at the clamp: their plain product is above 65504, the largest half."""
    torch.manual_seed(0)
    layer = make_layer()
    with torch.no_grad():
        layer.affine.bias.fill_(500.0)
    x, w = torch.full((n, 512, 8, 8), 256.0), torch.randn(n, 8)
    assert torch.isinf(x.half() * layer.affine(w).half()[:, :, None, None]).any(), "nothing would overflow here"
    extra = [NoiseInput("none", n)] if isinstance(layer, StyledConv2d) else []
    exact, half = (layer(y, modulation(layer, w, y.dtype), *extra) for y in (x, x.half()))
    assert torch.isfinite(half).all()
    assert (half.float() - exact).abs().max() < 0.01 * exact.abs().max()


def test_noise_of_one_pass_is_drawn_once():
    layer = StyledConv2d(2, 2, w_dim=4, size=(8, 8))
    noise = NoiseInput("random", 3, torch.Generator().manual_seed(0))
    first = noise(layer, torch.float32)
    assert first.shape == (3, 1, 8, 8)
    assert torch.equal(noise(layer, torch.float32), first)
    assert torch.equal(noise.samples(slice(2))(layer, torch.float32), first[:2])
    assert not torch.equal(noise(StyledConv2d(2, 2, w_dim=4, size=(8, 8)), torch.float32), first)


def test_noise_of_a_list_of_generators_is_each_samples_own():
    layer = StyledConv2d(2, 2, w_dim=4, size=(8, 8))

    def noise(*seeds):
        return NoiseInput("random", len(seeds), [torch.Generator().manual_seed(s) for s in seeds])(
            layer, torch.float32
        )

    assert torch.equal(noise(1, 2)[1], noise(2)[0])


@pytest.mark.parametrize("size", [(4, 4), (32, 32), (16, 64)])
def test_stored_noise_is_mixed_to_normal_noise_of_each_objects_own(size):
    torch.manual_seed(0)
    codes = object_codes(torch.randn(50, 512))
    torch.testing.assert_close(codes.norm(dim=1), torch.ones(50))
    noise = NoiseInput("const", 50, codes=codes)(StyledConv2d(2, 2, w_dim=4, size=size), torch.float32)
    assert noise.shape == (50, 1, *size)
    assert noise.std() == pytest.approx(1, abs=0.15 if size != (4, 4) else 0.4)
    if size != (4, 4):
        between = torch.corrcoef(noise.flatten(1)) - torch.eye(50)
        assert between.abs().mean() < 0.15
        at_two_pixels = torch.corrcoef(noise.flatten(1).t()[:100]) - torch.eye(100)
        assert at_two_pixels.abs().mean() < 0.15
    assert not object_codes(torch.zeros(1, 512)).any(), "the average has no noise"
    assert object_codes(torch.randn(2, 10)).shape == (2, 10)
    assert object_codes(torch.randn(2, 100)).shape == (2, 64)


@torch.no_grad()
def test_noise_of_an_object_follows_from_its_latents():
    torch.manual_seed(0)
    sizes = {"resolution": 32, "z_dim": 8, "w_dim": 8, "channel_base": 128, "channel_max": 8}
    backbone = StyleGAN2Generator(**sizes, object_noise=True)
    backbone.mapping.w_avg.normal_()
    for name, parameter in backbone.named_parameters():
        if name.endswith("noise_strength"):
            parameter.fill_(1.0)
    z = torch.randn(3, 8)
    images = backbone(z, noise_mode="const").images
    torch.testing.assert_close(backbone(z[1:], noise_mode="const").images, images[1:])
    ws = backbone.mapping(z)
    torch.testing.assert_close(backbone(ws, noise_mode="const", latent_space="w").images, images)
    # A defect's twin is its object, whatever the defect.
    generator = DFMGANGenerator.from_backbone(backbone)
    assert generator.config["object_noise"]
    twins = generator(z, torch.randn(3, 8), noise_mode="const", return_defect_free=True).defect_free_images
    torch.testing.assert_close(twins, images)
    # Without: the stored noise, for all.
    backbone.register_to_config(object_noise=False)
    stored = backbone(z, noise_mode="const").images
    assert not torch.allclose(stored, images, atol=0.01)
    layer = backbone.block(32).conv1
    assert torch.equal(backbone.noise("const", ws[:, None])(layer, torch.float32), layer.noise_const)


def test_noise_errors():
    with pytest.raises(ValueError, match="`noise_mode` must be one of random, const, none, but is 'fixed'"):
        NoiseInput("fixed", 1)
    with pytest.raises(ValueError, match="`generator` lists 2 generators for a batch of 3"):
        NoiseInput("random", 3, [torch.Generator(), torch.Generator()])


@pytest.mark.parametrize("up", [False, True])
def test_one_sample_is_what_it_is_in_a_batch(up):
    """A single sample modulates the weights, a batch the activations."""
    layer = StyledConv2d(5, 4, w_dim=6, size=(16, 16), up=up, conv_clamp=256.0).double()
    x, w = torch.randn(2, 5, 16 // (1 + up), 16 // (1 + up)).double(), torch.randn(2, 6).double()
    both = layer(x, modulation(layer, w, x.dtype), NoiseInput("const", 2))
    torch.testing.assert_close(layer(x[1:], modulation(layer, w[1:], x.dtype), NoiseInput("const", 1)), both[1:])
