"""Convolutions with second derivatives of their own, against those of automatic differentiation."""

import pytest
import torch
import torch.nn.functional as F

from dfmgan_hf.models import layers as convolution
from dfmgan_hf.models.layers import conv2d, conv_transpose2d


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
def test_derivatives(ours, theirs, kernel, size):
    x = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 3, kernel, kernel, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(ours(x, weight), theirs(x, weight))
    for a, b in zip(second_derivatives(ours, x, weight), second_derivatives(theirs, x, weight), strict=True):
        torch.testing.assert_close(a, b)
    assert torch.autograd.gradgradcheck(ours, (x, weight))


def test_bias_derivatives():
    tensors = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5, 5), (4, 3, 3, 3), 4)
    ]
    assert torch.autograd.gradcheck(lambda *a: conv2d(*a, padding=1), tensors)
    assert torch.autograd.gradgradcheck(lambda *a: conv2d(*a, padding=1), tensors)


def test_the_first_pass_of_a_gradient_penalty_computes_no_gradients_of_weights(monkeypatch):
    calls = []
    forward = convolution._WeightGradient.forward
    monkeypatch.setattr(
        convolution._WeightGradient, "forward", staticmethod(lambda *args: calls.append(1) or forward(*args))
    )
    x, parameter = torch.randn(1, 2, 4, 4, requires_grad=True), torch.randn(2, 2, 3, 3, requires_grad=True)
    output = conv2d(x, parameter * 2, padding=1).tanh().sum()
    (gradient,) = torch.autograd.grad(output, x, create_graph=True)
    assert not calls
    gradient.square().sum().backward()
    assert calls
    assert parameter.grad is not None
