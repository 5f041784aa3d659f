"""The operators of Triton kernels against the plain layers.

On a machine with a GPU it is called by its name; `test_kernels.py` runs it in Triton's interpreter, on the CPU.
"""

import os

import pytest
import torch

from dfmgan_hf.models import fused, kernels, operators
from dfmgan_hf.models.dfmgan import DFMGANGenerator, gate
from dfmgan_hf.models.layers import (
    ACTIVATION_GAIN,
    activate,
    downsample2d,
    finish,
    fir_filter2d,
    scale_channels,
    upsample2d,
    with_downsampled,
)
from dfmgan_hf.models.operators import Convolved, Reading, filtered_epilogue, pointwise_epilogue, wrong_kernels
from dfmgan_hf.models.stylegan2 import StyleGAN2Generator, hold_weights

TOLERANCES = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}


DEVICE = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"


@pytest.fixture(autouse=True)
def _seed_and_device():
    torch.manual_seed(0)
    torch.set_default_device(DEVICE)
    # The plain layers are the reference, and a GPU rounds their convolutions to ten bits if it may.
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield
    torch.set_default_device(None)


def randomised(generator):
    """With noise and biases, which new networks do not have."""
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
            elif name.endswith("bias") and "affine" not in name:
                parameter.normal_(0, 0.1)
    return generator.eval().requires_grad_(False)


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
    x = x.double() * (convolved.demodulation[samples, :, None, None] / ACTIVATION_GAIN)
    x = x + convolved.bias[:, None, None]
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


@pytest.mark.parametrize(
    ("m", "n", "channels", "size", "limit", "dtype", "noise"),
    [
        (2, 2, 8, (8, 8), 2.0, torch.float16, "shared"),
        (4, 2, 12, (7, 11), None, torch.float32, "own"),
        (1, 1, 72, (4, 4), 2.0, torch.bfloat16, "none"),
        (2, 1, 1, (9, 18), 2.0, torch.float16, "own"),
        (3, 3, 33, (5, 1), 2.0, torch.float32, "own"),
        (1, 1, 100, (1, 3), None, torch.float32, "shared"),
    ],
)
def test_filtered_epilogue(m, n, channels, size, limit, dtype, noise):
    made = convolved(m, n, channels, size, dtype, noise)
    x = torch.randn(m, channels, size[0] + 1, size[1] + 1).to(dtype)
    style = torch.randn(n, channels)
    ours = filtered_epilogue(made._replace(x=x.contiguous(memory_format=torch.channels_last)), style, limit, dtype)
    plain = plain_activation(made, fir_filter2d(x.double(), padding=1, gain=4.0), limit)
    assert ours.is_contiguous(memory_format=torch.channels_last)
    check(ours, plain * style[torch.arange(m) % n, :, None, None], dtype)


PARTS = ("4x4", "trunk", "last of the trunk", "first residual", "next", "last", "no twins")


@pytest.mark.parametrize(
    ("part", "channels", "size", "limit", "dtype", "outputs"),
    [
        *((part, 12, (6, 10), 2.0, torch.float16, 3) for part in PARTS),
        ("trunk", 8, (4, 4), None, torch.float32, 1),
        ("first residual", 160, (4, 4), None, torch.bfloat16, 3),
        ("next", 2, (2, 66), 2.0, torch.float32, 1),
        ("4x4", 33, (7, 1), None, torch.float32, 3),
        ("first residual", 17, (10, 2), 2.0, torch.float32, 3),
        ("last", 1, (2, 2), 2.0, torch.float32, 1),
        ("no twins", 100, (6, 18), None, torch.float32, 3),
    ],
)
def test_pointwise_epilogue(part, channels, size, limit, dtype, outputs):
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
        plain[:n] = gate(plain[:n], other, ours.mask - threshold)
    rgb = plain_reading(to_rgb, plain, limit)
    check(ours.image, rgb if image is None else rgb + upsample2d(image.double()), torch.float32)
    assert ours.image.is_contiguous()
    for scaled, factors in ((ours.scaled, style), (ours.defect_scaled, defect_style)):
        if factors is None:
            assert scaled is None
            continue
        total = n if scaled is ours.defect_scaled else len(plain)
        check(scaled, plain[:total] * factors[torch.arange(total) % n, :, None, None], dtype)


@pytest.mark.parametrize(
    ("padding", "stride", "gain", "channels", "size", "dtype"),
    [
        (1, 1, 4.0, 8, (8, 8), torch.float16),
        (2, 1, 1.0, 72, (7, 5), torch.float32),
        (3, 1, 1.0, 3, (9, 20), torch.bfloat16),
        (0, 1, 1.0, 8, (5, 8), torch.float32),
        (1, 2, 1.0, 8, (18, 6), torch.float16),
        (1, 2, 1.0, 5, (7, 9), torch.float32),
        (2, 1, 1.0, 33, (1, 12), torch.float32),
        (2, 2, 1.0, 1, (9, 1), torch.float32),
    ],
)
def test_filter2d(padding, stride, gain, channels, size, dtype):
    x = torch.randn(2, channels, *size).to(dtype)
    ours = torch.ops.dfmgan_hf.filter2d(x, padding, stride, gain)
    check(ours, fir_filter2d(x.double(), padding=padding, gain=gain)[:, :, ::stride, ::stride], dtype)
    assert ours.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(
    ("gain", "channels", "size", "dtype"),
    [(4.0, 8, (8, 8), torch.float16), (1.0, 72, (7, 5), torch.float32), (1.0, 3, (3, 40), torch.bfloat16)],
)
def test_upsample2d(gain, channels, size, dtype):
    x = torch.randn(2, channels, *size).to(dtype)
    check(torch.ops.dfmgan_hf.upsample2d(x, gain), upsample2d(x.double()) * gain / 4, dtype)


def with_its_half(x):
    x, low = with_downsampled(x)
    return torch.cat([x.flatten(1), low.sin().flatten(1)], dim=1)


LAYOUTS = {
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "contiguous": lambda x: x.contiguous(),
    "every other": lambda x: torch.stack([x, x], dim=-1).flatten(-2)[..., ::2],
    "transposed": lambda x: x.mT.contiguous().mT,
    "one for all": lambda x: x[:1].expand(len(x), -1, -1, -1),
}


@pytest.mark.parametrize(
    ("function", "shape", "layout", "gradient_layout"),
    [
        (fir_filter2d, (2, 3, 6, 8), "channels last", "contiguous"),
        (fir_filter2d, (1, 33, 3, 1), "every other", "transposed"),
        (downsample2d, (2, 3, 6, 8), "contiguous", "channels last"),
        (downsample2d, (1, 17, 2, 12), "transposed", "every other"),
        (upsample2d, (2, 3, 6, 8), "channels last", "contiguous"),
        (upsample2d, (3, 33, 1, 5), "every other", "one for all"),
        (upsample2d, (1, 1, 4, 1), "transposed", "every other"),
        (with_its_half, (2, 3, 6, 8), "channels last", "contiguous"),
        (with_its_half, (1, 33, 2, 4), "every other", "contiguous"),
        (activate, (2, 3, 6, 8), "channels last", "contiguous"),
        (activate, (2, 3, 6, 8), "contiguous", "channels last"),
        (activate, (3, 17, 5, 1), "every other", "transposed"),
        (activate, (3, 1, 1, 7), "transposed", "one for all"),
    ],
)
def test_derivatives(function, shape, layout, gradient_layout, monkeypatch):
    """Of layers that are made of the operators: first and second, as R1 and the path length need them."""
    x = torch.randn(shape)
    arguments = {fir_filter2d: {"padding": 2}, activate: {"clamp": 1.0}}.get(function, {})

    def derivatives(x):
        x = x.detach().requires_grad_()
        # The product is not a leaf, and may be overwritten.
        y = function(LAYOUTS[layout](x * 1.5), **arguments)
        gradient_of_y = y.cos() if y.dim() == 2 else LAYOUTS[gradient_layout](y.cos())
        gradient = torch.autograd.grad(y, x, gradient_of_y, create_graph=True)[0]
        return y, gradient, torch.autograd.grad(gradient.square().sum(), x)[0]

    plain = derivatives(x.double())
    served = []
    monkeypatch.setattr(operators, "serve", lambda x: served.append(x) or True)
    for a, b in zip(derivatives(x), plain, strict=True):
        check(a, b, torch.float32)
    assert len(served) >= 3


@pytest.mark.parametrize(
    ("samples", "channels", "size", "noisy", "dtype", "wanted", "layout", "factors"),
    [
        (3, 5, (6, 10), True, torch.float32, (0, 1, 2, 3, 4), "contiguous", "rows"),
        (2, 72, (13, 20), False, torch.float32, (0, 1, 2, 3), "channels last", "rows"),
        (2, 8, (8, 8), True, torch.bfloat16, (0, 1, 2, 3, 4), "contiguous", "columns"),
        (2, 5, (6, 10), True, torch.float32, (0, 2), "contiguous", "one for all"),
        (2, 3, (6, 10), False, torch.float32, (0, 1, 3), "every other", "rows"),
        (1, 33, (7, 1), True, torch.float32, (0, 1, 2, 3, 4), "transposed", "columns"),
        (3, 1, (1, 5), True, torch.float32, (0, 1, 2, 3, 4), "one for all", "columns"),
        (1, 1, (1, 1), True, torch.float32, (0, 1, 2, 3, 4), "contiguous", "one for all"),
    ],
)
def test_derivatives_of_a_styled_layer(samples, channels, size, noisy, dtype, wanted, layout, factors, monkeypatch):
    """First derivatives of inputs of which not all are wanted, and second ones, after a convolution with a style."""
    style_and_factor = [
        {
            "rows": torch.randn(samples, channels + 3)[:, i : channels + i],
            "columns": torch.randn(channels, samples + i).T[:samples],
            "one for all": torch.randn(1, 1).expand(samples, channels),
        }[factors]
        for i in range(2)
    ]
    inputs = [
        torch.randn(samples, channels, *size),
        *style_and_factor,
        torch.randn(channels, 2)[:, 1],
        torch.randn(samples, 1, *size),
    ]

    def derivatives(dtype):
        leaves = [t.to(dtype).requires_grad_(i in wanted) for i, t in enumerate(inputs)]
        chosen = [leaves[i] for i in wanted]
        x, style, factor, shift, noise = leaves
        factor = factor if {2, 4} & set(wanted) else None  # as in a discriminator
        y = finish(
            scale_channels(LAYOUTS[layout](x * 1.0), style),
            factor,
            shift[:, None, None],
            LAYOUTS[layout](noise) if noisy else None,
            2.0,
        )
        first = torch.autograd.grad((y * y.detach().cos()).sum(), chosen, retain_graph=True)
        again = torch.autograd.grad(y.sin().sum(), chosen, create_graph=True)
        second = torch.autograd.grad(sum(g.square().sum() for g in again), chosen)
        return [y, *first, *again, *second]

    plain = derivatives(torch.float64)
    monkeypatch.setattr(operators, "serve", lambda x: True)
    for ours, theirs in zip(derivatives(dtype), plain, strict=True):
        assert ours.dtype == dtype
        apart = (ours.double() - theirs).norm() / theirs.norm()
        assert apart < (1e-5 if dtype == torch.float32 else 0.1)


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_kernels_are_looked_at_before_they_are_used(dtype, monkeypatch):
    torch.set_default_device(None)
    assert operators.wrong_kernels(torch.device(DEVICE), dtype) == []
    monkeypatch.setattr(operators, "filtered_epilogue", lambda *arguments: filtered_epilogue(*arguments) * 1.1)
    assert operators.wrong_kernels(torch.device(DEVICE), dtype) == ["filtered_epilogue"]


class Broken:
    """In a kernel's place: writes nonsense where that would write, or cannot be compiled."""

    def __init__(self, writes: bool) -> None:
        self.writes = writes

    def __getitem__(self, grid):
        return self

    def __call__(self, x, out, *arguments, **settings):
        if not self.writes:
            raise ValueError("no such instruction " + 1000 * "and more ")
        out.fill_(torch.nan)


@pytest.mark.parametrize(
    ("writes", "said"),
    [(True, r"filter2d, filter2d, stride 2 came out wrong"), (False, "filter2d .* no such")],
)
def test_broken_kernels_are_left_out(writes, said, monkeypatch):
    torch.set_default_device(None)
    monkeypatch.setattr(kernels, "filter_kernel", Broken(writes))
    monkeypatch.setattr(operators, "wrong_kernels", lambda device, dtype: wrong_kernels(torch.device(DEVICE), dtype))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    with pytest.warns(UserWarning, match=said) as caught:
        assert not operators._kernels_run.__wrapped__(torch.float32)
    assert len(str(caught[0].message)) < 1000


def test_activation_of_a_part_of_a_map():
    whole = torch.randn(2, 3, 6, 8)
    ours = whole.clone()
    torch.ops.dfmgan_hf.clamped_leaky_relu_(ours[..., 1:5], 1.0)
    whole[..., 1:5] = activate(whole[..., 1:5].clone(), 1.0)
    check(ours, whole.double(), torch.float32)


def test_what_torch_is_told_of_the_operators():
    x = torch.randn(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)
    for operator, arguments in (
        (torch.ops.dfmgan_hf.filter2d, (x, 1, 2, 1.0)),
        (torch.ops.dfmgan_hf.upsample2d, (x, 1.0)),
        (torch.ops.dfmgan_hf.clamped_leaky_relu_, (x.clone(), 1.0)),
        (torch.ops.dfmgan_hf.clamped_leaky_relu_gradient, (x, x, 1.0)),
        (torch.ops.dfmgan_hf.styled_activation, (x, x[:, :, 0, 0], x[0, :, 0, 0], x[:, :1], 1.0)),
        (torch.ops.dfmgan_hf.styled_gradient, (x, x, x, x[:, :, 0, 0], 1.0, [True] * 4)),
        (torch.ops.dfmgan_hf.styled_gradient, (x, None, x, None, 0.0, [False, True, False, False])),
    ):
        torch.library.opcheck(operator.default, arguments, test_utils=("test_schema", "test_faketensor"))


@pytest.mark.parametrize(
    ("noise_mode", "dtype", "samples", "return_defect_free"),
    [("random", torch.float16, 2, True), ("none", torch.float32, 1, False)],
)
def test_a_whole_triplet(noise_mode, dtype, samples, return_defect_free, monkeypatch):
    sizes = {"resolution": 32, "channel_base": 128, "z_dim": 16, "w_dim": 16}
    generator = randomised(DFMGANGenerator(**sizes, residual_resolution=16))
    latents = torch.randn(2, samples, 16)

    def draw():
        noise = [torch.Generator("cpu").manual_seed(i) for i in range(samples)]
        output = generator(
            *latents, noise_mode=noise_mode, generator=noise, return_defect_free=return_defect_free, mask_threshold=0.1
        )
        return output.to_tuple()

    with torch.no_grad():
        plain = draw()
        share = (plain[1] >= 0.1).float().mean()
        assert 0.01 < share < 0.99
        generator.set_mixed_precision(dtype, 5)
        monkeypatch.setattr(fused, "applies", lambda network, ws: True)
        with hold_weights(generator):
            held = draw()
    assert len(held) == len(plain) == (3 if return_defect_free else 2)
    for a, b in zip(held[1:], plain[1:], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 if dtype == torch.float32 else 2e-2)
    # Where rounding moves a logit over the threshold, the residual comes or goes.
    apart = (held[0] - plain[0]).abs()
    assert (apart < 1e-4).all() if dtype == torch.float32 else (apart < 2e-2).float().mean() > 0.99


def test_a_backbone_alone(monkeypatch):
    sizes = {"resolution": 32, "aspect": (1, 2), "channel_base": 64, "z_dim": 16, "w_dim": 16}
    generator = randomised(StyleGAN2Generator(**sizes, image_channels=1))
    z = torch.randn(1, 16)
    with torch.no_grad():
        plain = generator(z, noise_mode="const").images
        generator.set_mixed_precision(torch.bfloat16, 2)
        monkeypatch.setattr(fused, "applies", lambda network, ws: True)
        ours = generator(z, noise_mode="const").images
    torch.testing.assert_close(ours, plain, rtol=0, atol=0.1)
