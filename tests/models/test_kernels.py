"""The fused operators against the plain layers: in Triton's interpreter, which runs kernels on the CPU."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch

from dfmgan_hf.models.dfmgan import gate
from dfmgan_hf.models.layers import ACTIVATION_GAIN, activate, fir_filter2d, upsample2d
from dfmgan_hf.models.operators import Convolved, Reading, filtered_epilogue, pointwise_epilogue

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
in_the_interpreter = pytest.mark.skipif(
    not INTERPRETED, reason="runs in the process that test_kernels_in_the_interpreter starts"
)
TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


@pytest.mark.skipif(INTERPRETED, reason="is what runs this")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_in_the_interpreter():
    """In a process of its own: Triton reads the variable when it is imported."""
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", __file__],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def convolved(m, n, channels, size, dtype, noise="shared"):
    """What a convolution leaves, with values of which some reach a clamp of 2."""
    noise = {"shared": torch.randn(size), "own": torch.randn(n, 1, *size), "none": None}[noise]
    x = torch.randn(m, channels, *size).to(dtype).contiguous(memory_format=torch.channels_last)
    return Convolved(x, torch.rand(2 * n, channels)[::2] + 0.5, torch.randn(channels), torch.tensor(0.3), noise)


def reading(n, channels, outputs):
    return Reading(
        torch.randn(n, channels) / channels**0.5, torch.randn(outputs, channels, 1, 1), 0.1 * torch.randn(outputs)
    )


def plain_activation(convolved, x, limit):
    """In float64, from `x`, what the convolution or the filter made."""
    samples = torch.arange(len(x)) % len(convolved.demodulation)
    x = x.double() * convolved.demodulation[samples, :, None, None] + convolved.bias[:, None, None]
    if convolved.noise is not None:
        noise = convolved.noise.double() * convolved.strength
        x = x + (noise if noise.dim() == 2 else noise[samples])
    return activate(x * ACTIVATION_GAIN, limit)


def plain_reading(reading, x, limit):
    samples = torch.arange(len(x)) % len(reading.style)
    x = torch.einsum("nchw,nc,kc->nkhw", x, reading.style[samples].double(), reading.weight[:, :, 0, 0].double())
    x = x + reading.bias[:, None, None]
    return x if limit is None else x.clamp(-limit, limit)


def check(ours, theirs, dtype):
    assert ours.dtype == dtype
    torch.testing.assert_close(ours.double(), theirs, rtol=TOLERANCES[dtype], atol=TOLERANCES[dtype])


@in_the_interpreter
@pytest.mark.parametrize("noise", ["shared", "own", "none"])
@pytest.mark.parametrize(
    ("m", "n", "channels", "size", "limit", "dtype"),
    [
        (2, 2, 8, (8, 8), 2.0, torch.float16),
        (4, 2, 12, (7, 11), None, torch.float32),
        (1, 1, 72, (4, 4), 2.0, torch.bfloat16),
        (2, 1, 1, (33, 18), 2.0, torch.float16),
    ],
)
def test_filtered_epilogue(m, n, channels, size, limit, dtype, noise):
    torch.manual_seed(0)
    made = convolved(m, n, channels, size, dtype, noise)
    x = torch.randn(m, channels, size[0] + 1, size[1] + 1).to(dtype)
    style = torch.randn(n, channels)
    ours = filtered_epilogue(made._replace(x=x.contiguous(memory_format=torch.channels_last)), style, limit, dtype)
    plain = plain_activation(made, fir_filter2d(x.double(), padding=1, gain=4.0), limit)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    check(ours, plain * style[torch.arange(m) % n, :, None, None], dtype)


@in_the_interpreter
@pytest.mark.parametrize(
    ("channels", "size", "limit", "dtype", "outputs"),
    [
        (8, (8, 8), 2.0, torch.float16, 3),
        (12, (6, 10), None, torch.float32, 1),
        (160, (4, 4), 2.0, torch.bfloat16, 3),
        (2, (18, 34), 2.0, torch.float16, 3),
    ],
)
@pytest.mark.parametrize("part", ["4x4", "trunk", "last of the trunk", "first residual", "next", "last", "no twins"])
def test_pointwise_epilogue(part, channels, size, limit, dtype, outputs):
    torch.manual_seed(0)
    n, threshold = 2, 0.0
    twins = part in ("first residual", "next", "last")
    features = convolved(2 * n if part in ("next", "last") else n, n, channels, size, dtype)
    to_rgb = reading(n, channels, outputs)
    half = (size[0] // 2, size[1] // 2)
    image = None if part == "4x4" else torch.randn(len(features.x), outputs, *half)
    style = None if part in ("last", "no twins") else torch.randn(n, channels)
    defect_style = torch.randn(n, channels) if part in ("last of the trunk", "first residual", "next") else None
    residual = to_mask = mask = None
    if part in ("first residual", "no twins"):
        residual, to_mask = convolved(n, n, channels, size, dtype, "own"), reading(n, channels, 1)
    elif part in ("next", "last"):
        residual, mask = convolved(n, n, channels, size, dtype, "own"), torch.randn(n, 1, *half)
    plain = plain_activation(features, features.x, limit)
    if residual is not None:
        other = plain_activation(residual, residual.x, limit)
        logits = upsample2d(mask.double()) if to_mask is None else plain_reading(to_mask, other, limit)
        threshold = float(logits.median())
    ours = pointwise_epilogue(
        features, to_rgb, image, limit, dtype, style=style, defect_style=defect_style, residual=residual,
        to_mask=to_mask, mask=mask, mask_threshold=threshold, twins=twins,
    )  # fmt: skip

    if twins and len(plain) == n:
        plain, image = torch.cat([plain, plain]), torch.cat([image, image])
    if residual is None:
        assert ours.mask is None
    else:
        check(ours.mask, logits, torch.float32)
        # The gate is that of the logits that are given back: close to the threshold rounding decides.
        plain[:n] = gate(plain[:n], other, ours.mask, threshold)
    rgb = plain_reading(to_rgb, plain, limit)
    check(ours.image, rgb if image is None else rgb + upsample2d(image.double()), torch.float32)
    assert ours.image.is_contiguous()
    for scaled, factors in ((ours.scaled, style), (ours.defect_scaled, defect_style)):
        if factors is None:
            assert scaled is None
            continue
        total = n if scaled is ours.defect_scaled else len(plain)
        check(scaled, plain[:total] * factors[torch.arange(total) % n, :, None, None], dtype)


@in_the_interpreter
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize(("channels", "size"), [(8, (8, 8)), (72, (7, 12)), (3, (20, 35))])
@pytest.mark.parametrize(
    ("padding", "stride", "gain"), [(1, 1, 4.0), (2, 1, 1.0), (0, 1, 1.0), (1, 2, 1.0), (3, 1, 1.0)]
)
def test_filter2d(padding, stride, gain, channels, size, dtype):
    torch.manual_seed(0)
    x = torch.randn(2, channels, *size).to(dtype)
    ours = torch.ops.dfmgan_hf.filter2d(x, padding, stride, gain)
    plain = fir_filter2d(x.double(), padding=padding, gain=gain)[:, :, ::stride, ::stride]
    check(ours, plain, dtype)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    check(torch.ops.dfmgan_hf.upsample2d(x, gain), upsample2d(x.double()) * gain / 4, dtype)


@in_the_interpreter
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_clamped_leaky_relu(layout):
    x = torch.randn(3, 5, 32, 9).contiguous(memory_format=layout).requires_grad_()
    y = activate(x * 2, 1.0)
    gradient = torch.randn(3, 5, 32, 9)
    ours = (x * 2).detach()
    torch.ops.dfmgan_hf.clamped_leaky_relu_(ours, 1.0)
    check(ours, y.detach().double(), torch.float32)
    y.backward(gradient)
    check(torch.ops.dfmgan_hf.clamped_leaky_relu_gradient(gradient, ours, 1.0) * 2, x.grad.double(), torch.float32)
