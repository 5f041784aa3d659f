"""The layers against the formulae they implement, written out the slow way."""

import math

import pytest
import torch
import torch.nn.functional as F

from dfmgan_hf.models import layers
from dfmgan_hf.models.layers import (
    EqualizedConv2d,
    EqualizedLinear,
    activate,
    conv2d,
    conv_transpose2d,
    downsample2d,
    fir_filter2d,
    scale_and_cast,
    scaled_together,
    upsample2d,
    upsampling_conv2d,
)


@pytest.fixture(params=["depthwise", "pooling"])
def filtering(request, monkeypatch):
    """Filters as on a CPU, and as on a GPU."""
    monkeypatch.setattr(layers, "_is_gpu", lambda device: request.param == "pooling")


def second_derivatives(function, x, weight):
    """Of what R1 and the path length are: the squared gradient of the input."""
    (gradient,) = torch.autograd.grad(function(x, weight).tanh().sum(), x, create_graph=True)
    return torch.autograd.grad(gradient.square().sum(), (x, weight))


@pytest.mark.parametrize("size", [(6, 6), (7, 8)], ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs", "kernel"),
    [
        (lambda x, w: conv2d(x, w, padding=1), lambda x, w: F.conv2d(x, w, padding=1), 3),
        (lambda x, w: conv2d(x, w, stride=2), lambda x, w: F.conv2d(x, w, stride=2), 3),
        (conv2d, F.conv2d, 1),
        (lambda x, w: conv_transpose2d(x, w, stride=2), lambda x, w: F.conv_transpose2d(x, w, stride=2), 3),
    ],
    ids=["same", "down", "1x1", "up"],
)
def test_derivatives_of_convolutions(ours, theirs, kernel, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x, weight), theirs(x, weight))
    for a, b in zip(second_derivatives(ours, x, weight), second_derivatives(theirs, x, weight), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(ours, (x, weight))


def test_derivatives_of_biases():
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5, 5), (4, 3, 3, 3), 4)
    ]
    assert torch.autograd.gradcheck(lambda *a: conv2d(*a, padding=1), tensors)
    assert torch.autograd.gradgradcheck(lambda *a: conv2d(*a, padding=1), tensors)


def test_the_first_pass_of_a_gradient_penalty_computes_no_gradients_of_weights(monkeypatch):
    calls = []
    forward = layers._WeightGradient.forward
    monkeypatch.setattr(
        layers._WeightGradient, "forward", staticmethod(lambda *args: calls.append(1) or forward(*args))
    )
    x, parameter = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(2, 2, 3, 3, requires_grad=True)
    output = conv2d(x, parameter * 2, padding=1).tanh().sum()
    (gradient,) = torch.autograd.grad(output, x, create_graph=True)
    assert not calls
    gradient.square().sum().backward()
    assert calls
    assert parameter.grad is not None


def fir(x: torch.Tensor, gain: float = 1.0) -> torch.Tensor:
    """Depthwise [1, 3, 3, 1] x [1, 3, 3, 1] / 64 without padding."""
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = torch.outer(taps, taps) / 64 * gain
    return F.conv2d(x, kernel.repeat(x.shape[1], 1, 1, 1), groups=x.shape[1])


def zero_insertion(x: torch.Tensor) -> torch.Tensor:
    n, c, h, w = x.shape
    y = x.new_zeros(n, c, 2 * h, 2 * w)
    y[:, :, ::2, ::2] = x
    return y


def test_upsampling_is_zero_insertion_filter_and_gain_four():
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64)
    expected = fir(F.pad(zero_insertion(x), (2, 1, 2, 1)), gain=4)
    torch.testing.assert_close(upsample2d(x), expected)


def test_downsampling_is_filter_and_decimation(filtering):
    x = torch.randn(2, 3, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(downsample2d(x), fir(F.pad(x, (1, 1, 1, 1)))[:, :, ::2, ::2])


def test_equalized_layers_scale_in_the_forward_pass():
    linear = EqualizedLinear(16, 8, lr_multiplier=0.01, activation=True).double()
    with torch.no_grad():
        linear.bias.normal_(std=100)
    x = torch.randn(3, 16).double()
    y = x @ (linear.weight.t() * 0.01 / 4) + linear.bias * 0.01
    torch.testing.assert_close(linear(x), F.leaky_relu(y, 0.2) * math.sqrt(2))

    conv = EqualizedConv2d(4, 6, 3, activation=True, gain=math.sqrt(0.5), clamp=1.0).double()
    x = 3 * torch.randn(2, 4, 8, 8).double()
    y = F.leaky_relu(F.conv2d(x, conv.weight / 6, conv.bias, padding=1), 0.2) * math.sqrt(2)
    torch.testing.assert_close(conv(x), (y * math.sqrt(0.5)).clamp(-math.sqrt(0.5), math.sqrt(0.5)))


def test_upsampling_conv_filters_last(filtering):
    x = torch.randn(2, 3, 5, 7, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64, requires_grad=True)
    expected = fir(F.pad(F.conv_transpose2d(x, weight.transpose(0, 1), stride=2), (1, 1, 1, 1)), gain=4)
    torch.testing.assert_close(upsampling_conv2d(x, weight), expected)
    assert torch.autograd.gradcheck(upsampling_conv2d, (x, weight))
    assert torch.autograd.gradgradcheck(upsampling_conv2d, (x, weight))


def test_parameters_are_scaled_and_cast_in_the_wider_type():
    tensors = [torch.randn(3, dtype=torch.float64), torch.full((2, 2), 1000.0), torch.full((2,), 3e-6).half()]
    results = scale_and_cast(tensors, [0.5, 100.0, 1000.0], [torch.float64, torch.float16, torch.float32])
    assert [r.dtype for r in results] == [torch.float64, torch.float16, torch.float32]
    torch.testing.assert_close(results[0], tensors[0] * 0.5)
    assert results[1].isinf().all()
    torch.testing.assert_close(results[2], tensors[2].float() * 1000)
    assert scale_and_cast(tensors[:1], [1.0], [torch.float64])[0] is tensors[0]


def test_derivatives_of_scaled_parameters():
    tensors = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3), (4,))]

    def function(*tensors):
        return tuple(scale_and_cast(tensors, [0.5, -2.0], [torch.float64] * 2))

    assert torch.autograd.gradcheck(function, tensors)
    assert torch.autograd.gradgradcheck(function, tensors)
    half = torch.randn(3, requires_grad=True)
    scale_and_cast([half], [2.0**-10], [torch.float16])[0].sum().backward()
    assert half.grad is not None
    assert (half.grad == 2.0**-10).all()


def test_parameters_scaled_together_are_those_scaled_alone():
    both = torch.nn.ModuleList([EqualizedLinear(4, 3), EqualizedLinear(3, 2, lr_multiplier=0.01)])
    both[0].weight.requires_grad_(False)
    x = torch.randn(2, 4)
    alone = both[1](both[0](x))
    with scaled_together((layer, torch.float32) for layer in both):
        assert not both[0].scaled("weight", torch.float32).requires_grad, (
            "a frozen weight's gradient would be computed"
        )
        together = both[1](both[0](x))
    assert torch.equal(together, alone)
    trained = [p for p in both.parameters() if p.requires_grad]
    for a, b in zip(
        torch.autograd.grad(alone.sum(), trained), torch.autograd.grad(together.sum(), trained), strict=True
    ):
        torch.testing.assert_close(a, b)
    assert all(layer.kept is None for layer in both)


def test_downsampling_conv_filters_first(filtering):
    conv = EqualizedConv2d(4, 6, 3, down=True, activation=True).double()
    x = torch.randn(2, 4, 8, 8).double()
    y = F.conv2d(fir(F.pad(x, (2, 2, 2, 2))), conv.weight / 6, conv.bias, stride=2)
    torch.testing.assert_close(conv(x), F.leaky_relu(y, 0.2) * math.sqrt(2))


@pytest.mark.parametrize(
    "function",
    [upsample2d, downsample2d, *(lambda x, padding=padding: fir_filter2d(x, padding=padding) for padding in range(4))],
    ids=["up", "down", *(f"filter{padding}" for padding in range(4))],
)
def test_resampling_derivatives(filtering, function):
    x = torch.randn(2, 2, 6, 8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)
    assert torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("padding", range(4))
def test_filter_pads_with_zeros(filtering, padding):
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(fir_filter2d(x, padding=padding, gain=4.0), fir(F.pad(x, [padding] * 4), gain=4))


def test_activation_derivatives_on_both_sides_of_the_clamp():
    x = torch.tensor([-9.0, -2.0, -0.5, 0.5, 0.9, 3.0], dtype=torch.float64, requires_grad=True)
    expected = F.leaky_relu(x, 0.2).clamp(-1, 1)
    actual = activate(x.clone(), 1.0)
    torch.testing.assert_close(actual, expected)
    weights = torch.arange(1.0, 7.0, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(actual, x, weights)
    (expected_gradient,) = torch.autograd.grad(expected, x, weights)
    torch.testing.assert_close(gradient, expected_gradient)
    assert torch.autograd.gradgradcheck(lambda x: activate(x.clone(), 1.0) * x, x)
