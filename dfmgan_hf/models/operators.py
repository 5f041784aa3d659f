"""Operators of Triton kernels: FIR filters, activations, and all that follows a convolution, each in one pass.

PyTorch knows them as `torch.ops.dfmgan_hf`, with shapes for meta tensors and `torch.compile`. They run on CUDA, and on
the CPU in Triton's interpreter, for tests. Maps are channels last. With the environment variable DFMGAN_TRITON=0 they
are left out.
"""

from __future__ import annotations

import functools
import math
import os
import textwrap
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

_Implementation = TypeVar("_Implementation", bound=Callable[..., Any])

SWITCH = "DFMGAN_TRITON"
"""Environment variable; 0 leaves the kernels out."""


def _short(error: Exception) -> str:
    """Return what an error says; a compiler may say pages."""
    return f"{type(error).__name__}: {textwrap.shorten(str(error), 300)}"


def _operator(schema: str) -> Callable[[_Implementation], _Implementation]:
    """Register a function as the operator of `schema`; `torch.library.custom_op` would take four times as long."""
    name = "dfmgan_hf::" + schema[: schema.index("(")]
    torch.library.define(name, schema[schema.index("(") :])

    def register(function: _Implementation) -> _Implementation:
        def run(x: Tensor, *arguments: Any) -> Any:
            try:
                with torch.cuda.device_of(x):  # Triton would launch on the current device
                    return function(x, *arguments)
            except torch.OutOfMemoryError:
                raise
            except Exception as error:  # a size, say, whose tile the GPU has no room for
                raise RuntimeError(
                    f"Triton's kernel for {name} failed on a map of {tuple(x.shape)} in {x.dtype}. Set {SWITCH}=0 to "
                    f"do without these kernels, and please report this: {_short(error)}"
                ) from error

        torch.library.impl(name, ("cuda", "cpu"), run)
        return function

    return register


class Convolved(NamedTuple):
    """Output of a styled convolution, before what follows it.

    Args:
        x: (M, C, H, W), channels last, of a convolution without demodulation. M is N, or 2 N where the second half are
            the defect-free twins of the first.
        demodulation: (N, C), with the gain sqrt(2) of the activation in it.
        bias: (C,).
        strength: of the noise, a scalar.
        noise: (N, 1, r, r), or (r, r) for all samples, or None.
    """

    x: Tensor
    demodulation: Tensor
    bias: Tensor
    strength: Tensor
    noise: Tensor | None


class Reading(NamedTuple):
    """ToRGB or ToMask: style (N, C), weight (K, C, 1, 1) and bias (K,)."""

    style: Tensor
    weight: Tensor
    bias: Tensor


def filtered_epilogue(convolved: Convolved, style: Tensor, limit: float | None, dtype: torch.dtype) -> Tensor:
    """Finish a transposed convolution of stride 2, and scale the result for the next convolution.

    Args:
        convolved: of (M, C, H + 1, W + 1).
        style: of the next convolution, (N, C).
        limit: clamp of the activations, or None.
        dtype: of the result.

    Returns:
        style * clamp(lrelu(demodulation * FIR(x) + (noise + bias) sqrt(2))), (M, C, H, W), channels last.
    """
    return torch.ops.dfmgan_hf.filtered_epilogue(*convolved, style, limit, dtype)


class Finished(NamedTuple):
    """What `pointwise_epilogue` makes.

    Args:
        image: (M, K, H, W), float32.
        mask: logits (N, 1, H, W), float32; None without a residual.
        scaled: (M, C, H, W), the features for the next convolution of the backbone, or None.
        defect_scaled: (N, C, H, W), those of the defect images for the next residual block, or None.
    """

    image: Tensor
    mask: Tensor | None
    scaled: Tensor | None
    defect_scaled: Tensor | None


def pointwise_epilogue(
    features: Convolved,
    to_rgb: Reading,
    image: Tensor | None,
    limit: float | None,
    dtype: torch.dtype,
    *,
    style: Tensor | None = None,
    defect_style: Tensor | None = None,
    residual: Convolved | None = None,
    to_mask: Reading | None = None,
    mask: Tensor | None = None,
    mask_threshold: float = 0.0,
    twins: bool = False,
) -> Finished:
    """Finish a block: activation, gated residual, ToRGB, the sum of images, and the scaled maps for what comes next.

    Args:
        features: of the backbone's second convolution. Where the twins begin (`twins`, M = N), they have the same.
        to_rgb: of the backbone.
        image: (M or N, K, H/2, W/2), float32, which is upsampled and added; None at 4x4.
        limit: clamp of the activations, of ToRGB and of ToMask, or None.
        dtype: of the scaled maps.
        style: of the backbone's next convolution, (N, C); None for no such map.
        defect_style: likewise of the next residual block.
        residual: of the residual block's second convolution, (N, C, H, W).
        to_mask, mask: with a residual, either what reads the logits off it, or logits (N, 1, H/2, W/2) to upsample.
        mask_threshold: the residual is added where the logits are at least this.
        twins: draw the twins of all samples too, in a second half of image and scaled map.
    """
    none: tuple[None, ...] = (None,) * 5
    outputs = torch.ops.dfmgan_hf.pointwise_epilogue(
        *features, *to_rgb, image, style, defect_style,
        *(none if residual is None else residual), *(none[:3] if to_mask is None else to_mask), mask,
        limit, mask_threshold, twins, dtype,
    )  # fmt: skip
    made = iter(outputs)
    return Finished(
        next(made),
        None if residual is None else next(made),
        None if style is None else next(made),
        None if defect_style is None else next(made),
    )


def serve(x: Tensor) -> bool:
    """Return whether the operators are to be used for a map: floating-point numbers of up to 32 bits on a GPU.

    Meta tensors stand for a GPU's, so that its costs can be counted without one.
    """
    if x.dtype == torch.float64:
        return False
    return x.device.type == "meta" or (x.device.type == "cuda" and kernels_run(x.dtype))


@torch.compiler.assume_constant_result
def kernels_run(dtype: torch.dtype) -> bool:
    """Return whether to use the kernels for maps of a type; they are tried once in a process."""
    return _kernels_run(dtype)  # of a cache alone, the compiler would see what is in it, and compile that


@functools.cache
def _kernels_run(dtype: torch.dtype) -> bool:
    """Return whether kernels run on the GPU and compute what the layers do; that they do not is a warning."""
    if os.environ.get(SWITCH) == "0":
        return False
    slower = (
        f"Drawing and training in {str(dtype).removeprefix('torch.')} are slower than they could be: Triton's kernels"
    )
    try:
        with torch.device("cpu"):  # the definitions are computed there, whatever device is the default
            wrong = wrong_kernels(torch.device("cuda"), dtype)
    except Exception as error:  # without Triton, or a C compiler for what starts kernels, or on a GPU that is too old
        warnings.warn(
            f"{slower} do not run here ({_short(error)}). They need the package triton, a C compiler, and a GPU of "
            f"compute capability 7.0 or more, 8.0 for bfloat16. {SWITCH}=0 in the environment leaves them out.",
            stacklevel=2,
        )
        return False
    if wrong:
        warnings.warn(
            f"{slower} are not used, because {', '.join(wrong)} came out wrong on a small map, with torch "
            f"{torch.__version__} on {torch.cuda.get_device_name()}. Please report this.",
            stacklevel=2,
        )
    return not wrong


@torch.no_grad()
def wrong_kernels(device: torch.device, dtype: torch.dtype) -> list[str]:
    """Return the operators that differ from their definition on a small map: a wrong picture is worse than a slow one.

    The definitions are computed in float64 on the CPU.

    Args:
        device: to run the kernels on.
        dtype: of the maps.
    """
    source = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source).to(dtype).to(torch.float32)

    def there(*tensors: Tensor) -> list[Tensor]:
        return [t.to(device) for t in tensors]

    channels, limit = 8, 1.5
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64) / 8
    fir = torch.outer(taps, taps).expand(channels, 1, 4, 4)
    x, y, low = randn(2, channels, 9, 11), randn(2, channels, 8, 10), randn(2, 3, 4, 5)
    factor, bias, strength, noise, style = (
        randn(2, channels),
        randn(channels),
        randn(),
        randn(8, 10),
        randn(2, channels),
    )
    weight, mask_weight, offsets, mask_offset = randn(3, channels, 1, 1), randn(1, channels, 1, 1), randn(3), randn(1)
    on = there(factor, bias, strength, noise, style, weight, mask_weight, offsets, mask_offset, low)
    x_, y_ = there(x.to(dtype), y.to(dtype))
    factor_, bias_, strength_, noise_, style_, weight_, mask_weight_, offsets_, mask_offset_, low_ = on

    def activated(z: Tensor) -> Tensor:
        z = z * factor.double()[:, :, None, None] + (noise.double() * strength + bias[:, None, None]) * math.sqrt(2.0)
        return F.leaky_relu(z, 0.2).clamp(-limit, limit)

    def read(z: Tensor, by: Tensor, offset: Tensor) -> Tensor:
        z = F.conv2d(z * style.double()[:, :, None, None], by.double(), offset.double())
        return z.clamp(-limit, limit)

    def upsampled(z: Tensor) -> Tensor:
        return F.conv_transpose2d(z.double(), 4 * fir[: z.shape[1]], stride=2, padding=1, groups=z.shape[1])

    features = activated(y.double())
    mask = read(features, mask_weight, mask_offset)
    changed = features + (mask >= 0) * features
    image = torch.cat([read(z, weight, offsets) + upsampled(low) for z in (changed, features)])
    of_y, clamped = Convolved(y_, factor_, bias_, strength_, noise_), y_.clone()
    torch.ops.dfmgan_hf.clamped_leaky_relu_(clamped, limit)
    finished = pointwise_epilogue(
        of_y, Reading(style_, weight_, offsets_), low_, limit, dtype, style=style_, defect_style=style_,
        residual=of_y, to_mask=Reading(style_, mask_weight_, mask_offset_), twins=True,
    )  # fmt: skip
    assert finished.mask is not None
    assert finished.scaled is not None
    assert finished.defect_scaled is not None
    scales, passing = style.double()[:, :, None, None], (clamped.cpu().abs() < limit).double()
    slope = y.double() * passing * torch.where(y > 0, 1.0, 0.2)
    shift_, pixel_noise_ = bias_.to(dtype), noise_.to(dtype).expand(2, 1, -1, -1)
    styled = y.double() * factor.double()[:, :, None, None] + bias[:, None, None] + noise
    found = {
        "filter2d": (
            torch.ops.dfmgan_hf.filter2d(x_, 2, 1, 1.0), F.conv2d(x.double(), fir, padding=2, groups=channels)
        ),
        "filter2d, stride 2": (
            torch.ops.dfmgan_hf.filter2d(y_, 1, 2, 1.0),
            F.conv2d(y.double(), fir, padding=1, stride=2, groups=channels),
        ),
        "upsample2d": (torch.ops.dfmgan_hf.upsample2d(y_, 4.0), upsampled(y)),
        "clamped_leaky_relu": (clamped, F.leaky_relu(y.double(), 0.2).clamp(-limit, limit)),
        "clamped_leaky_relu_gradient": (
            torch.ops.dfmgan_hf.clamped_leaky_relu_gradient(y_, clamped, limit),
            slope,
        ),
        "styled_activation": (
            torch.ops.dfmgan_hf.styled_activation(y_, factor_, shift_, pixel_noise_, limit),
            F.leaky_relu(styled, 0.2).clamp(-limit, limit),
        ),
        **{
            f"styled_gradient, {name}": pair
            for name, *pair in zip(
                ("x", "factor", "shift", "noise"),
                torch.ops.dfmgan_hf.styled_gradient(y_, clamped, y_, style_, limit, [True] * 4),
                (slope * scales, (slope * y).sum((2, 3)), slope.sum((2, 3)), slope.sum(1, keepdim=True)),
                strict=True,
            )
        },
        "filtered_epilogue": (
            filtered_epilogue(Convolved(x_, *of_y[1:]), style_, limit, dtype),
            activated(F.conv2d(x.double(), 4 * fir, padding=1, groups=channels)) * scales,
        ),
        "pointwise_epilogue, image": (finished.image, image),
        "pointwise_epilogue, mask": (finished.mask, mask),
        "pointwise_epilogue, maps": (finished.scaled, torch.cat([changed, features]) * scales.repeat(2, 1, 1, 1)),
        "pointwise_epilogue, defect maps": (finished.defect_scaled, changed * scales),
    }  # fmt: skip
    near = max(1e-3, 4 * torch.finfo(dtype).eps)
    return [
        name for name, (ours, right) in found.items() if not torch.allclose(ours.cpu().double(), right, near, near)
    ]


def _empty_map(like: Tensor, samples: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
    shape = (samples, like.shape[1], height, width)
    return torch.empty(shape, dtype=dtype, device=like.device, memory_format=torch.channels_last)


def _channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)


def _dense(x: Tensor) -> Tensor:
    """Return `x`, whose numbers lie without gaps in it or in its copy."""
    if x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last):
        return x
    return x.contiguous()


def _rows(factors: Tensor | None) -> Tensor | None:
    """Return (N, C) factors, or their copy, whose rows may lie anywhere, but without gaps in them."""
    return factors if factors is None or factors.stride(1) == 1 else factors.contiguous()


def _noise_stride(noise: Tensor | None) -> int:
    return 0 if noise is None or noise.dim() == 2 or len(noise) == 1 else noise[0].numel()


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def _filtered_tile(height: int, width: int, channels: int) -> tuple[int, int, int, int]:
    """Return rows, columns, channels and warps of a tile."""
    tile = min(_power_of_two(channels), 64)
    return min(_power_of_two(height), 4), min(_power_of_two(width), 1024 // tile), tile, 4


def _pointwise_tile(width: int, channels: int) -> tuple[int, int, int]:
    """Return columns, channels (all of them) and warps of a tile."""
    tile = _power_of_two(channels)
    return min(_power_of_two(width), max(1, 2048 // tile)), tile, 4


@_operator("filter2d(Tensor x, int padding, int stride, float gain) -> Tensor")
def _filter2d(x: Tensor, padding: int, stride: int, gain: float) -> Tensor:
    """Filter with the outer product of [1, 3, 3, 1] / 8 with itself, times `gain`; keep every `stride`th sample."""
    from .kernels import filter_kernel

    x = _channels_last(x)
    height, width = _filtered_size(x, padding, stride)
    out = _empty_map(x, len(x), height, width, x.dtype)
    rows, columns, tile, warps = _filtered_tile(height, width, x.shape[1])
    grid = len(x) * -(-height // rows) * -(-width // columns) * -(-x.shape[1] // tile)
    filter_kernel[(grid,)](
        x, out, *x.shape[2:], height, width, x.shape[1], padding, gain,
        STRIDE=stride, ROWS=rows, COLUMNS=columns, CHANNELS=tile, num_warps=warps,
    )  # fmt: skip
    return out


@torch.library.register_fake("dfmgan_hf::filter2d")
def _(x, padding, stride, gain):  # type: ignore[no-untyped-def]
    return _empty_map(x, len(x), *_filtered_size(x, padding, stride), x.dtype)


def _filtered_size(x: Tensor, padding: int, stride: int) -> tuple[int, int]:
    height, width = ((size + 2 * padding - 4) // stride + 1 for size in x.shape[2:])
    return height, width


@_operator("upsample2d(Tensor x, float gain, Tensor? onto=None) -> Tensor")
def _upsample2d(x: Tensor, gain: float, onto: Tensor | None = None) -> Tensor:
    """Insert zeros and filter: the adjoint of `filter2d` with padding 1 and stride 2. Add `onto`, if given."""
    from .kernels import upsample_kernel

    x = _channels_last(x)
    height, width, channels = 2 * x.shape[2], 2 * x.shape[3], x.shape[1]
    out = _empty_map(x, len(x), height, width, x.dtype)
    tile = min(_power_of_two(channels), 64)
    columns = min(_power_of_two(width), 2048 // tile)
    grid = len(x) * height * -(-width // columns) * -(-channels // tile)
    onto = None if onto is None else _channels_last(onto)
    upsample_kernel[(grid,)](x, onto, out, height, width, channels, gain, COLUMNS=columns, CHANNELS=tile)
    return out


@torch.library.register_fake("dfmgan_hf::upsample2d")
def _(x, gain, onto=None):  # type: ignore[no-untyped-def]
    return _empty_map(x, len(x), 2 * x.shape[2], 2 * x.shape[3], x.dtype)


@_operator("clamped_leaky_relu_(Tensor(a!) x, float limit) -> ()")
def _clamped_leaky_relu_(x: Tensor, limit: float) -> None:
    """Apply leaky ReLU and clamp to +-`limit` in place."""
    from .kernels import clamped_leaky_relu_kernel

    y = _dense(x)
    clamped_leaky_relu_kernel[(-(-x.numel() // 2048),)](y, x.numel(), limit=limit, SIZE=2048)
    if y is not x:
        x.copy_(y)


@torch.library.register_fake("dfmgan_hf::clamped_leaky_relu_")
def _(x, limit):  # type: ignore[no-untyped-def]
    return None


@_operator("clamped_leaky_relu_gradient(Tensor gradient, Tensor y, float limit) -> Tensor")
def _clamped_leaky_relu_gradient(gradient: Tensor, y: Tensor, limit: float) -> Tensor:
    """Return the gradient of the input of `clamped_leaky_relu_` from that of its result `y`."""
    from .kernels import clamped_leaky_relu_gradient_kernel

    y = _dense(y)
    out = torch.empty_like(y)
    gradient = gradient if gradient.stride() == y.stride() else out.copy_(gradient)
    clamped_leaky_relu_gradient_kernel[(-(-y.numel() // 2048),)](gradient, y, out, y.numel(), limit=limit, SIZE=2048)
    return out


@torch.library.register_fake("dfmgan_hf::clamped_leaky_relu_gradient")
def _(gradient, y, limit):  # type: ignore[no-untyped-def]
    return torch.empty_like(y)


@_operator("styled_activation(Tensor x, Tensor? factor, Tensor shift, Tensor? noise, float limit) -> Tensor")
def _styled_activation(x: Tensor, factor: Tensor | None, shift: Tensor, noise: Tensor | None, limit: float) -> Tensor:
    """Return the leaky ReLU, clamped to +-`limit`, of x * factor + shift + noise.

    Args:
        x: (N, C, H, W).
        factor: (N, C); None for 1.
        shift: (C,).
        noise: (N, 1, H, W) or None.
        limit: of the clamp.
    """
    from .kernels import styled_activation_kernel

    x, factor = _channels_last(x), _rows(factor)
    out = torch.empty_like(x)
    size, tile = x[0, 0].numel(), _power_of_two(x.shape[1])
    pixels = min(_power_of_two(size), max(1, 2048 // tile))
    styled_activation_kernel[(len(x) * -(-size // pixels),)](
        x, factor, shift.contiguous(), None if noise is None else noise.contiguous(), out, size, x.shape[1],
        0 if factor is None else factor.stride(0),
        limit=limit, PIXELS=pixels, CHANNELS=tile,
    )  # fmt: skip
    return out


@torch.library.register_fake("dfmgan_hf::styled_activation")
def _(x, factor, shift, noise, limit):  # type: ignore[no-untyped-def]
    return torch.empty_like(x, memory_format=torch.channels_last)


def _gradient_outputs(gradient: Tensor, wanted: list[bool], parts: int) -> list[Tensor | None]:
    samples, channels, height, width = gradient.shape
    return [
        torch.empty_like(gradient, memory_format=torch.channels_last) if wanted[0] else None,
        *(gradient.new_empty(samples, parts, channels, dtype=torch.float32) if w else None for w in wanted[1:3]),
        gradient.new_empty(samples, 1, height, width) if wanted[3] else None,
    ]


@_operator(
    "styled_gradient(Tensor gradient, Tensor? y, Tensor? x, Tensor? factor, float limit, bool[] wanted) -> Tensor[]"
)
def _styled_gradient(
    gradient: Tensor, y: Tensor | None, x: Tensor | None, factor: Tensor | None, limit: float, wanted: list[bool]
) -> list[Tensor]:
    """Return the gradients of `styled_activation` in one pass, or those of a product with a factor alone.

    Args:
        gradient: of the result, (N, C, H, W).
        y: the result; None if nothing was activated.
        x: the input, for what is wanted second.
        factor: (N, C), for what is wanted first; None for 1.
        limit: of the clamp.
        wanted: the gradients of x, of the factor (N, C), of the shift for each sample (N, C), and of the noise
            (N, 1, H, W). The second and third are in float32.
    """
    from .kernels import styled_gradient_kernel

    maps, factor = [None if t is None else _channels_last(t) for t in (gradient, y, x)], _rows(factor)
    size, channels, steps = gradient[0, 0].numel(), gradient.shape[1], 8
    tile = _power_of_two(channels)
    pixels = min(_power_of_two(size), max(1, 2048 // tile))
    parts = -(-size // (steps * pixels))
    outputs = _gradient_outputs(gradient, wanted, parts)
    styled_gradient_kernel[(len(gradient) * parts,)](
        *maps, factor, *outputs, size, channels, 0 if factor is None else factor.stride(0),
        limit=limit, STEPS=steps, PIXELS=pixels, CHANNELS=tile,
    )  # fmt: skip
    return [y.sum(dim=1) if i in (1, 2) else y for i, y in enumerate(outputs) if y is not None]


@torch.library.register_fake("dfmgan_hf::styled_gradient")
def _(gradient, y, x, factor, limit, wanted):  # type: ignore[no-untyped-def]
    outputs = _gradient_outputs(gradient, wanted, 1)
    return [y[:, 0] if i in (1, 2) else y for i, y in enumerate(outputs) if y is not None]


@_operator(
    "filtered_epilogue(Tensor x, Tensor demodulation, Tensor bias, Tensor strength, Tensor? noise, Tensor style, "
    "float? limit, ScalarType dtype) -> Tensor"
)
def _filtered_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    strength: Tensor,
    noise: Tensor | None,
    style: Tensor,
    limit: float | None,
    dtype: torch.dtype,
) -> Tensor:
    from .kernels import filtered_kernel

    x = _channels_last(x)
    height, width, channels = x.shape[2] - 1, x.shape[3] - 1, x.shape[1]
    out = _empty_map(x, len(x), height, width, dtype)
    rows, columns, tile, warps = _filtered_tile(height, width, channels)
    grid = len(x) * -(-height // rows) * -(-width // columns) * -(-channels // tile)
    filtered_kernel[(grid,)](
        x, demodulation, noise, strength, bias, style, out, len(demodulation), height, width, channels,
        demodulation.stride(0), _noise_stride(noise), style.stride(0),
        limit=limit, ROWS=rows, COLUMNS=columns, CHANNELS=tile, num_warps=warps,
    )  # fmt: skip
    return out


@torch.library.register_fake("dfmgan_hf::filtered_epilogue")
def _(x, demodulation, bias, strength, noise, style, limit, dtype):  # type: ignore[no-untyped-def]
    return _empty_map(x, len(x), x.shape[2] - 1, x.shape[3] - 1, dtype)


def _outputs(
    x: Tensor,
    demodulation: Tensor,
    to_rgb: Tensor,
    gated: bool,
    scaled: bool,
    defect: bool,
    twins: bool,
    dtype: torch.dtype,
) -> list[Tensor | None]:
    samples, (height, width) = len(demodulation), x.shape[2:]
    total = 2 * samples if twins else samples
    return [
        x.new_empty(total, len(to_rgb), height, width, dtype=torch.float32),
        x.new_empty(samples, 1, height, width, dtype=torch.float32) if gated else None,
        _empty_map(x, total, height, width, dtype) if scaled else None,
        _empty_map(x, samples, height, width, dtype) if defect else None,
    ]


@_operator(
    "pointwise_epilogue(Tensor x, Tensor demodulation, Tensor bias, Tensor strength, Tensor? noise, Tensor rgb_style, "
    "Tensor rgb_weight, Tensor rgb_bias, Tensor? low_image, Tensor? style, Tensor? defect_style, Tensor? residual, "
    "Tensor? residual_demodulation, Tensor? residual_bias, Tensor? residual_strength, Tensor? residual_noise, "
    "Tensor? mask_style, Tensor? mask_weight, Tensor? mask_bias, Tensor? low_mask, float? limit, float threshold, "
    "bool twins, ScalarType dtype) -> Tensor[]",
)
def _pointwise_epilogue(
    x: Tensor,
    demodulation: Tensor,
    bias: Tensor,
    strength: Tensor,
    noise: Tensor | None,
    rgb_style: Tensor,
    rgb_weight: Tensor,
    rgb_bias: Tensor,
    low_image: Tensor | None,
    style: Tensor | None,
    defect_style: Tensor | None,
    residual: Tensor | None,
    residual_demodulation: Tensor | None,
    residual_bias: Tensor | None,
    residual_strength: Tensor | None,
    residual_noise: Tensor | None,
    mask_style: Tensor | None,
    mask_weight: Tensor | None,
    mask_bias: Tensor | None,
    low_mask: Tensor | None,
    limit: float | None,
    threshold: float,
    twins: bool,
    dtype: torch.dtype,
) -> list[Tensor]:
    from .kernels import pointwise_kernel

    x = _channels_last(x)
    outputs = _outputs(
        x, demodulation, rgb_weight, residual is not None, style is not None, defect_style is not None, twins, dtype
    )
    channels, height, width = x.shape[1:]
    columns, tile, warps = _pointwise_tile(width, channels)
    grid = len(demodulation) * (2 if twins else 1) * height * -(-width // columns)

    def stride(factors: Tensor | None) -> int:
        return 0 if factors is None else factors.stride(0)

    pointwise_kernel[(grid,)](
        x, demodulation, noise, strength, bias,
        None if residual is None else _channels_last(residual),
        residual_demodulation, residual_noise, residual_strength, residual_bias,
        mask_style, mask_weight, mask_bias, low_mask, rgb_style, rgb_weight, rgb_bias, low_image, style, defect_style,
        *outputs, len(demodulation), len(x), 0 if low_image is None else len(low_image), height, width, channels,
        stride(demodulation), _noise_stride(noise), stride(residual_demodulation), _noise_stride(residual_noise),
        stride(mask_style), stride(rgb_style), stride(style), stride(defect_style), threshold,
        limit=limit, IMAGE_CHANNELS=len(rgb_weight), COLUMNS=columns, CHANNELS=tile, num_warps=warps,
    )  # fmt: skip
    return [y for y in outputs if y is not None]


@torch.library.register_fake("dfmgan_hf::pointwise_epilogue")
def _(
    x,
    demodulation,
    bias,
    strength,
    noise,
    rgb_style,
    rgb_weight,
    rgb_bias,
    low_image,
    style,
    defect_style,
    residual,
    *rest,
):  # type: ignore[no-untyped-def]
    outputs = _outputs(
        x, demodulation, rgb_weight, residual is not None, style is not None, defect_style is not None, *rest[-2:]
    )
    return [y for y in outputs if y is not None]
