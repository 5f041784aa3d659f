"""Equalised layers, FIR resampling, and convolutions that are cheap to differentiate twice (StyleGAN2)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import operators

ACTIVATION_GAIN = math.sqrt(2.0)
LEAKY_SLOPE = 0.2

wider = lru_cache(torch.promote_types)
"""The type that two types fit in; `torch.promote_types` itself is an operator, which profiles and counts show."""


class EqualizedLayer(nn.Module):
    """A layer that multiplies its parameters by constants in the forward pass (Progressive GAN, section 4.1).

    Attributes:
        scales: by what, by the parameter's name.
        kept: what has been computed of the parameters alone, while `scaled_together` or `hold_weights` keeps it.
        held: whether `hold_weights` does, for many passes.
    """

    scales: dict[str, float]
    kept: dict[tuple[str, torch.dtype], Tensor] | None = None
    held = False

    def keep(self, name: str, dtype: torch.dtype, compute: Callable[[], Tensor]) -> Tensor:
        """Return what `compute` makes of the parameters, computed once while it is kept."""
        kept = self.kept
        if kept is None:
            return compute()
        if (name, dtype) not in kept:
            kept[name, dtype] = compute()
        return kept[name, dtype]

    def runs_in(self, dtype: torch.dtype) -> torch.dtype:
        """Return the type that the layer runs in inside of a block that runs in `dtype`."""
        return dtype

    def scale(self, name: str, dtype: torch.dtype) -> float:
        """Return the factor of the parameter `name` for a layer that runs in `dtype`."""
        return self.scales[name]

    def scaled(self, name: str, dtype: torch.dtype) -> Tensor:
        """Return the parameter `name`, scaled, in `dtype`."""

        def compute() -> Tensor:
            return scale_and_cast([getattr(self, name)], [self.scale(name, dtype)], [dtype])[0]

        return self.keep(name, dtype, compute)


@contextmanager
def scaled_together(layers: Iterable[tuple[nn.Module, torch.dtype]]) -> Iterator[None]:
    """Inside, all layers' parameters have been scaled at once, which takes a GPU a few launches instead of hundreds.

    Args:
        layers: layers, and the types that their blocks run in.
    """
    typed = [(layer, layer.runs_in(dtype)) for layer, dtype in layers if isinstance(layer, EqualizedLayer)]
    entered = [layer for layer, _ in typed if layer.kept is None]
    for layer in entered:
        layer.kept = {}
    try:
        missing = [
            (layer, name, dtype)
            for layer, dtype in typed
            for name in layer.scales
            if layer.kept is not None and (name, dtype) not in layer.kept
        ]
        results = scale_and_cast(
            [getattr(layer, name) for layer, name, _ in missing],
            [layer.scale(name, dtype) for layer, name, dtype in missing],
            [dtype for _, _, dtype in missing],
        )
        for (layer, name, dtype), result in zip(missing, results, strict=True):
            if layer.kept is not None:
                layer.kept[name, dtype] = result
        yield
    finally:
        for layer in entered:
            layer.kept = None


def scale_and_cast(tensors: Sequence[Tensor], scales: Sequence[float], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Multiply each tensor by its number and cast it to its type: one operator for all of them where there is one."""
    results = list(tensors)
    changed = [i for i, t in enumerate(tensors) if scales[i] != 1.0 or t.dtype != dtypes[i]]
    if changed:
        arguments = ([values[i] for i in changed] for values in (scales, dtypes, tensors))
        factors, types, sources = arguments
        for i, result in zip(changed, _ScaleAndCast.apply(factors, types, *sources), strict=True):
            results[i] = result
    return results


class EqualizedLinear(EqualizedLayer):
    """Linear layer with equalised learning rate (Progressive GAN, section 4.1; StyleGAN for `lr_multiplier`).

    Args:
        bias_init: initial value of the bias, as it acts in the forward pass.
        lr_multiplier: the layer's learning rate relative to the rest; 0.01 in the mapping network.
        activation: apply leaky ReLU with gain sqrt(2).

    Shapes: (..., in_features) -> (..., out_features).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        activation: bool = False,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_features, in_features) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))
        self.activation = activation
        gain = ACTIVATION_GAIN if activation else 1.0
        self.weight_scale = gain * lr_multiplier / math.sqrt(in_features)
        self.bias_scale = gain * lr_multiplier
        self.scales = {"weight": self.weight_scale, "bias": self.bias_scale}

    def runs_in(self, dtype: torch.dtype) -> torch.dtype:
        return wider(self.weight.dtype, torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        x = F.linear(x, self.scaled("weight", x.dtype), self.scaled("bias", x.dtype))
        return activate(x, None) if self.activation else x


class EqualizedConv2d(EqualizedLayer):
    """Convolution with equalised learning rate, optional FIR downsampling by 2, bias, activation and clamp.

    Args:
        in_channels, out_channels, kernel_size: as in `nn.Conv2d`; padding keeps the size.
        bias: whether there is one.
        down: filter with [1, 3, 3, 1] and halve height and width.
        activation: apply leaky ReLU with gain sqrt(2).
        gain: extra factor on the output, sqrt(1/2) on both branches of a residual discriminator block.
        clamp: clamp the output to +-`clamp` * `gain`; None for no clamp.

    Shapes: (N, in_channels, H, W) -> (N, out_channels, H, W), or half the size with `down`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        down: bool = False,
        activation: bool = False,
        gain: float = 1.0,
        clamp: float | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.down = down
        self.activation = activation
        self.kernel_size = kernel_size
        self.output_gain = gain * (ACTIVATION_GAIN if activation else 1.0)
        self.weight_scale = self.output_gain / math.sqrt(in_channels * kernel_size**2)
        self.scales = {"weight": self.weight_scale} | ({"bias": self.output_gain} if bias else {})
        self.clamp = None if clamp is None else clamp * gain

    def forward(self, x: Tensor) -> Tensor:
        weight = self.scaled("weight", x.dtype)
        bias = None if self.bias is None else self.scaled("bias", x.dtype)
        shift = None
        if self.activation and self.clamp is not None and bias is not None and operators.serve(x):
            # With the activation it takes no pass of its own.
            shift, bias = bias[:, None, None], None
        if not self.down:
            x = conv2d(x, weight, bias, padding=self.kernel_size // 2)
        else:
            # Pad for the filter and the convolution at once: padding between them would change the border.
            x = conv2d(fir_filter2d(x, padding=1 + self.kernel_size // 2), weight, bias, stride=2)
        if self.activation:
            return activate(x, self.clamp) if shift is None else finish(x, None, shift, None, self.clamp)
        return x if self.clamp is None else F.hardtanh(x, -self.clamp, self.clamp)


def finish(
    x: Tensor, factor: Tensor | None, shift: Tensor | None, noise: Tensor | None, clamp: float | None
) -> Tensor:
    """Return what follows a styled convolution: the clamped leaky ReLU of x * factor + shift + noise.

    Args:
        x: (N, C, H, W), overwritten where nothing needs it.
        factor: (N, C), the demodulation; None for 1. In the type of `x`, or in a wider one to be multiplied in.
        shift: (C, 1, 1) or (C, H, W), the bias, perhaps with noise that all samples share; None for 0.
        noise: (N, 1, H, W) or (H, W); None for 0. It and the shift are in the type of `x`.
        clamp: see `activate`.
    """
    dtype = x.dtype
    if shift is not None and shift.shape[1:] == (1, 1) and clamp is not None and operators.serve(x):
        return _StyledActivation.apply(x, factor, shift, noise, clamp)
    if factor is not None and shift is not None:
        x, shift, factor = x.to(factor.dtype), shift.to(factor.dtype), factor[:, :, None, None]
        # A new map, of memory that the system has to clear first, costs a CPU more than the arithmetic.
        in_place = not (_is_gpu(x.device) or x.requires_grad or shift.requires_grad or factor.requires_grad)
        x, shift = torch.addcmul(shift, x, factor, out=x if in_place else None).to(dtype), None
    for term in (shift, noise):
        # Two kinds of broadcasting in two passes: together they would make a full map in another memory layout.
        if term is not None:
            x = x + term if x.requires_grad or term.requires_grad else x.add_(term)
    return activate(x, clamp)


def activate(x: Tensor, clamp: float | None) -> Tensor:
    """Apply leaky ReLU (slope 0.2) and clamp to +-`clamp`; `x`, with the gain sqrt(2) in it, is overwritten."""
    if x.requires_grad:
        return F.leaky_relu(x, LEAKY_SLOPE) if clamp is None else _ClampedLeakyReLU.apply(x, clamp)
    return F.leaky_relu_(x, LEAKY_SLOPE) if clamp is None else _clamped_leaky_relu_(x, clamp)


def scale_channels(x: Tensor, style: Tensor) -> Tensor:
    """Return (N, C, H, W) times (N, C), in the wider of their types."""
    if operators.serve(x) and x.dtype == style.dtype:
        return _ScaledChannels.apply(x, style)
    return x * style[:, :, None, None]


def upsample2d(x: Tensor) -> Tensor:
    """Double height and width: zero insertion, FIR filter [1, 3, 3, 1] and gain 4.

    The polyphase form of that filter has the taps (1, 3) / 4 and (3, 1) / 4, which is bilinear interpolation of the
    zero-padded map: the padding makes the border fade as the FIR filter does instead of repeating the edge.
    (N, C, H, W) -> (N, C, 2 H, 2 W).
    """
    return _Upsample.apply(x, 4.0)


def downsample2d(x: Tensor) -> Tensor:
    """Halve height and width: FIR filter [1, 3, 3, 1], then every second sample. (N, C, H, W) -> (N, C, H/2, W/2)."""
    return _Downsample.apply(x, 1.0)


def with_downsampled(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return `x` and `downsample2d` of it: on a GPU their gradients are added as the second is upsampled."""
    return _WithDownsampled.apply(x) if operators.serve(x) else (x, downsample2d(x))


def fir_filter2d(x: Tensor, *, padding: int, gain: float = 1.0) -> Tensor:
    """Filter every channel with the outer product of [1, 3, 3, 1] / 8 with itself.

    Args:
        x: (N, C, H, W).
        padding: zeros added on every side, from 0 to 3.
        gain: factor on the filter, 4 after zero insertion by 2.

    Returns:
        (N, C, H + 2 padding - 3, W + 2 padding - 3).
    """
    return _Filter.apply(x, padding, gain)


def conv2d(x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0) -> Tensor:
    """Convolve as `F.conv2d` with square kernels, differentiable any number of times at a convolution's cost."""
    return _Convolution.apply(x, weight, bias, _Geometry(stride, padding, transposed=False))


def conv_transpose2d(x: Tensor, weight: Tensor, *, stride: int) -> Tensor:
    """Convolve as `F.conv_transpose2d` without padding, likewise; `weight` is (in_channels, out_channels, k, k)."""
    return _Convolution.apply(x, weight, None, _Geometry(stride, 0, transposed=True))


def upsampling_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Double height and width: convolve transposed with stride 2, then filter with [1, 3, 3, 1] and gain 4.

    Args:
        x: (N, in_channels, H, W).
        weight: (out_channels, in_channels, 3, 3).

    Returns:
        (N, out_channels, 2 H, 2 W).
    """
    if operators.serve(x) or not _is_gpu(x.device):
        return fir_filter2d(conv_transpose2d(x, weight.transpose(0, 1), stride=2), padding=1, gain=4.0)
    # The filter is three times [1, 1] / 2. The first goes into the weight, which spares a pass over the maps.
    weight = F.avg_pool2d(weight, 2, stride=1, padding=1, divisor_override=1)
    x = conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2, stride=1)


# --- Second derivatives ---
#
# R1 and the path length differentiate gradients, for which torch's own double backward of these operations is slow or
# keeps more maps than it needs. Below, the gradient of each operation is again one of them: that of a convolution is a
# convolution of the adjoint geometry, FIR up- and downsampling are each other's adjoints, and the gradient of the
# clamped activation is its own. A weight's gradient is computed only if the running backward pass asks for it, so that
# the first pass of R1, which asks for the image's alone, leaves it out.


class _ScaleAndCast(torch.autograd.Function):
    """See `scale_and_cast`. Linear, and its own adjoint but for the types."""

    @staticmethod
    def forward(ctx: Any, scales: list[float], dtypes: list[torch.dtype], *tensors: Tensor) -> tuple[Tensor, ...]:
        ctx.scales, ctx.dtypes = scales, [t.dtype for t in tensors]
        ctx.set_materialize_grads(False)
        # Multiplied in the wider of the two types: a half's range is small.
        wide = _cast(tensors, [wider(t.dtype, dtype) for t, dtype in zip(tensors, dtypes, strict=True)])
        results = _cast(torch._foreach_mul(wide, scales), dtypes)
        # Those of frozen parameters must not look as if somebody wanted their gradients.
        wanted = ctx.needs_input_grad[2:]
        ctx.mark_non_differentiable(*[r for r, is_wanted in zip(results, wanted, strict=True) if not is_wanted])
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Any, ...]:  # type: ignore[override]
        given = [i for i, gradient in enumerate(gradients) if gradient is not None]
        results: list[Tensor | None] = [None] * len(gradients)
        if given:
            scales, dtypes = [ctx.scales[i] for i in given], [ctx.dtypes[i] for i in given]
            scaled = _ScaleAndCast.apply(scales, dtypes, *[gradients[i] for i in given])
            for i, result in zip(given, scaled, strict=True):
                results[i] = result
        return None, None, *results


def _cast(tensors: Sequence[Tensor], dtypes: Sequence[torch.dtype]) -> list[Tensor]:
    """Cast each tensor to its type, those that have another one together."""
    results = [
        t if t.dtype == dtype else torch.empty_like(t, dtype=dtype) for t, dtype in zip(tensors, dtypes, strict=True)
    ]
    changed = [i for i, t in enumerate(tensors) if results[i] is not t]
    if changed:
        torch._foreach_copy_([results[i] for i in changed], [tensors[i] for i in changed])
    return results


class _Geometry(NamedTuple):
    """What a convolution does besides its weight."""

    stride: int
    padding: int
    transposed: bool
    output_padding: tuple[int, int] = (0, 0)

    def adjoint(self, x: Tensor, weight: Tensor) -> _Geometry:
        """Return the geometry of the convolution that carries the gradient back to `x`."""
        if self.transposed:
            return self._replace(transposed=False, output_padding=(0, 0))
        height, width = ((size + 2 * self.padding - weight.shape[-1]) % self.stride for size in x.shape[2:])
        return self._replace(transposed=True, output_padding=(height, width))


def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, g: _Geometry) -> Tensor:
    if g.transposed:
        return F.conv_transpose2d(x, weight, bias, g.stride, g.padding, g.output_padding)
    return F.conv2d(x, weight, bias, g.stride, g.padding)


def _is_wanted(ctx: Any, index: int, left_out: int = 0) -> bool:
    """Return whether the running backward pass asks for an input's gradient; `needs_input_grad` says if it has one.

    `left_out` of the inputs before it are None.
    """
    if not ctx.needs_input_grad[index]:
        return False
    node = ctx.next_functions[index - left_out][0]
    # Leaves cannot be asked about, and torch has no public function for it.
    if hasattr(node, "variable") or not hasattr(torch._C, "_will_engine_execute_node"):
        return True
    return torch._C._will_engine_execute_node(node)


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.geometry = geometry
        return _convolve(x, weight, bias, geometry)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        geometry: _Geometry = ctx.geometry
        wants_x, wants_weight, wants_bias = (_is_wanted(ctx, i) for i in range(3))
        x_gradient = weight_gradient = bias_gradient = None
        if wants_x:
            x_gradient = _Convolution.apply(gradient, weight, None, geometry.adjoint(x, weight))
        if wants_weight:
            weight_gradient = _WeightGradient.apply(x, gradient, weight.shape, geometry)
        if wants_bias:
            bias_gradient = gradient.sum(dim=(0, 2, 3))
        return x_gradient, weight_gradient, bias_gradient, None


class _WeightGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gradient: Tensor, shape: torch.Size, geometry: _Geometry) -> Tensor:
        ctx.save_for_backward(x, gradient)
        ctx.geometry = geometry
        stride, padding, output_padding = [geometry.stride] * 2, [geometry.padding] * 2, list(geometry.output_padding)
        _, weight_gradient, _ = torch.ops.aten.convolution_backward(
            *(gradient, x, x.new_empty(shape), None, stride, padding, [1, 1]),
            *(geometry.transposed, output_padding, 1, [False, True, False]),
        )
        return weight_gradient

    @staticmethod
    def backward(ctx: Any, direction: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, gradient = ctx.saved_tensors
        geometry: _Geometry = ctx.geometry
        x_gradient = gradient_gradient = None
        if _is_wanted(ctx, 0):
            x_gradient = _Convolution.apply(gradient, direction, None, geometry.adjoint(x, direction))
        if _is_wanted(ctx, 1):
            gradient_gradient = _Convolution.apply(x, direction, None, geometry)
        return x_gradient, gradient_gradient, None, None


def _filter(x: Tensor, padding: int, stride: int, gain: float) -> Tensor:
    if operators.serve(x):
        return torch.ops.dfmgan_hf.filter2d(x, padding, stride, gain)
    if _is_gpu(x.device):
        # [1, 3, 3, 1] / 8 is three times [1, 1] / 2: the mean of 2 x 2 pixels, and of those again.
        for i in range(3):
            last = i == 2
            x = F.avg_pool2d(
                x, 2, stride if last else 1, int(i < padding), divisor_override=round(4 / gain) if last else 4
            )
        return x
    kernel = _fir_kernel(gain, x.dtype, x.device).expand(x.shape[1], 1, 4, 4)
    return F.conv2d(x, kernel, padding=padding, stride=stride, groups=x.shape[1])


def _is_gpu(device: torch.device) -> bool:
    """Say whether to do what pays on a GPU; this is the one place where layers choose by it.

    Depthwise convolutions are fast on a CPU and slow on a GPU. Meta tensors stand for a GPU's, so that its costs can
    be counted without one.
    """
    return device.type in ("cuda", "meta")


@lru_cache(maxsize=16)
def _fir_kernel(gain: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # whose tensors could not take part in a later training step
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=dtype, device=device) / 8.0
        return torch.outer(taps, taps * gain)


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, padding: int, gain: float) -> Tensor:
        ctx.padding, ctx.gain = padding, gain
        return _filter(x, padding, 1, gain)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        return _Filter.apply(gradient, 3 - ctx.padding, ctx.gain), None, None


class _Upsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: float) -> Tensor:
        ctx.gain = gain
        if operators.serve(x):
            return torch.ops.dfmgan_hf.upsample2d(x, gain)
        y = F.interpolate(F.pad(x, (1, 1, 1, 1)), scale_factor=2.0, mode="bilinear", align_corners=False)
        y = y[:, :, 2:-2, 2:-2]
        return y if gain == 4.0 else y * (gain / 4.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Downsample.apply(gradient, ctx.gain), None


class _Downsample(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, gain: float) -> Tensor:
        ctx.gain = gain
        return _filter(x, 1, 2, gain)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return _Upsample.apply(gradient, ctx.gain), None


class _StyledActivation(torch.autograd.Function):
    """`finish` on a GPU: one pass over the map there, and one back for all gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor, shift: Tensor, noise: Tensor | None, clamp: float) -> Tensor:
        y = torch.ops.dfmgan_hf.styled_activation(x, factor, shift, noise, clamp)
        ctx.clamp, ctx.shift_shape = clamp, shift.shape
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, factor, y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, factor, y = ctx.saved_tensors
        wanted = [_is_wanted(ctx, i, left_out=int(i > 1 and factor is None)) for i in range(4)]
        if torch.is_grad_enabled():
            gradient, y = _ClampedLeakyReLUGradient.apply(gradient, y.detach(), ctx.clamp), None
        x_, factor_, shift, noise = _styled_gradient(gradient, y, x, factor, ctx.clamp, wanted)
        return x_, factor_, None if shift is None else shift.sum(dim=0).reshape(ctx.shift_shape), noise, None


class _ScaledChannels(torch.autograd.Function):
    """The product of maps with the factors of their channels, whose gradients take one pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: Tensor) -> Tensor:
        ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, factor)
        return x * factor[:, :, None, None]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, factor = ctx.saved_tensors
        wanted = [_is_wanted(ctx, 0), _is_wanted(ctx, 1), False, False]
        return tuple(_styled_gradient(gradient, None, x, factor, 0.0, wanted)[:2])


class _ChannelProducts(torch.autograd.Function):
    """Sums of the products of two maps (N, C, H, W) over their pixels, (N, C), without a map of the products."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a, b)
        (sums,) = torch.ops.dfmgan_hf.styled_gradient(a, None, b, None, 0.0, [False, True, False, False])
        return sums.to(a.dtype)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        a, b = ctx.saved_tensors
        return tuple(scale_channels(other, gradient) if _is_wanted(ctx, i) else None for i, other in enumerate((b, a)))


def _styled_gradient(
    gradient: Tensor, y: Tensor | None, x: Tensor | None, factor: Tensor | None, clamp: float, wanted: Sequence[bool]
) -> list[Tensor | None]:
    """Return the gradients of x, factor, shift for each sample, and noise that are wanted, see the operator.

    Those of a pass that is to be differentiated are made of operations that can be.
    """
    if not torch.is_grad_enabled():
        made = iter(torch.ops.dfmgan_hf.styled_gradient(gradient, y, x, factor, clamp, list(wanted)))
        return [next(made) if w else None for w in wanted]
    return [
        None if not wanted[0] else gradient if factor is None else scale_channels(gradient, factor),
        _ChannelProducts.apply(gradient, x) if wanted[1] else None,
        gradient.sum(dim=(2, 3)) if wanted[2] else None,
        gradient.sum(dim=1, keepdim=True) if wanted[3] else None,
    ]


class _WithDownsampled(torch.autograd.Function):
    """See `with_downsampled`; the adjoint of `_AddUpsampled`."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.set_materialize_grads(False)
        return x.view_as(x), _filter(x, 1, 2, 1.0)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor | None, low: Tensor | None) -> Tensor | None:  # type: ignore[override]
        if gradient is None or low is None:
            return gradient if low is None else _Upsample.apply(low, 1.0)
        return _AddUpsampled.apply(gradient, low)


class _AddUpsampled(torch.autograd.Function):
    """The sum of a map and the adjoint of `downsample2d` of a smaller one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, low: Tensor) -> Tensor:
        return torch.ops.dfmgan_hf.upsample2d(low, 1.0, x)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        return _WithDownsampled.apply(gradient)


def _clamped_leaky_relu_(x: Tensor, clamp: float) -> Tensor:
    if operators.serve(x):
        torch.ops.dfmgan_hf.clamped_leaky_relu_(x, clamp)
        return x
    return F.leaky_relu_(x, LEAKY_SLOPE).clamp_(-clamp, clamp)


class _ClampedLeakyReLU(torch.autograd.Function):
    """In place, and one map kept for the way back, where the two operations would make and keep three."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, clamp: float) -> Tensor:
        y = _clamped_leaky_relu_(x, clamp)
        ctx.mark_dirty(x)
        ctx.clamp = clamp
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return _ClampedLeakyReLUGradient.apply(gradient, y.detach(), ctx.clamp), None


class _ClampedLeakyReLUGradient(torch.autograd.Function):
    """Linear in the gradient, and its own adjoint; piecewise constant in the activations."""

    @staticmethod
    def forward(ctx: Any, gradient: Tensor, y: Tensor, clamp: float) -> Tensor:
        ctx.clamp = clamp
        ctx.save_for_backward(y)
        if operators.serve(y):
            return torch.ops.dfmgan_hf.clamped_leaky_relu_gradient(gradient, y, clamp)
        gradient = torch.ops.aten.hardtanh_backward(gradient, y, -clamp, clamp)
        return torch.ops.aten.leaky_relu_backward.grad_input(gradient, y, LEAKY_SLOPE, True, grad_input=gradient)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (y,) = ctx.saved_tensors
        return _ClampedLeakyReLUGradient.apply(gradient, y, ctx.clamp), None, None
