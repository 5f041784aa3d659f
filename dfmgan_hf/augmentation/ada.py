"""The augmentation pipeline of StyleGAN2-ADA (Karras et al., NeurIPS 2020, appendix B).

The discriminator sees augmented images only. Past a strength that depends on the product, the generator can no longer
tell an augmentation from the data, and rotated or colour-inverted samples *leak* into what it draws. Where the product
forbids a change, the safe choice is a set that does not make it:

| set | transforms | for products |
|---|---|---|
| `none` | none | plenty of data |
| `b`, `bg`, `bgc` | the paper's: blitting; + geometry; + colour | textures, parts in any pose: carpet, hazelnut |
| `bgcf`, `bgcfn`, `bgcfnc` | + filtering; + noise; + cutout | any sharpness and grain; rarely better than `bgc` |
| `keep_mirror` | `bgc` without x-flip | turned freely, never mirrored: screws, printed pills |
| `keep_upright` | `bgc` without rotations | upright, as good mirrored: standing bottles, transistors |
| `keep_orientation` | `bgc` without x-flip and rotations | one pose only: capsules with print, circuit boards |
| `keep_color` | `bg`, brightness, contrast | hue tells good from bad: fruit, cables, coatings |
| `keep_intensity` | `bg` | the grey level itself counts: X-ray, thermal images |
| `keep_orientation_and_color` | shift, scale, aspect, brightness, contrast | one pose, hue tells good from bad |
| `keep_orientation_and_intensity` | shift, scale, aspect | one pose, the grey level itself counts |
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..precision import convolutions_round, matrix_products, without_autocast
from .draws import Draws, check_images
from .wavelets import SYM6_DELAY, doubling_matrix, halving_matrix, octave_matrices

BLITTING = ("xflip", "rotate90", "xint")
GEOMETRY = ("scale", "rotate", "aniso", "xfrac")
COLOR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
TRANSFORMS = (*BLITTING, *GEOMETRY, *COLOR, "imgfilter", "noise", "cutout")
"""All transforms of `AugmentPipe`, in the order in which they are applied."""

_ROTATIONS = ("rotate90", "rotate")
_HUES = ("lumaflip", "hue", "saturation")
_BG = (*BLITTING, *GEOMETRY)
_BGC = (*_BG, *COLOR)


def _without(names: tuple[str, ...], *dropped: str) -> tuple[str, ...]:
    return tuple(name for name in names if name not in dropped)


AUGMENTATION_SETS: dict[str, tuple[str, ...]] = {
    "b": BLITTING,
    "bg": _BG,
    "bgc": _BGC,
    "bgcf": (*_BGC, "imgfilter"),
    "bgcfn": (*_BGC, "imgfilter", "noise"),
    "bgcfnc": (*_BGC, "imgfilter", "noise", "cutout"),
    "keep_mirror": _without(_BGC, "xflip"),
    "keep_upright": _without(_BGC, *_ROTATIONS),
    "keep_orientation": _without(_BGC, "xflip", *_ROTATIONS),
    "keep_color": _without(_BGC, *_HUES),
    "keep_intensity": _BG,
    "keep_orientation_and_color": _without(_BGC, "xflip", *_ROTATIONS, *_HUES),
    "keep_orientation_and_intensity": _without(_BG, "xflip", *_ROTATIONS),
}
"""Transforms by the name of their set: StyleGAN2-ADA's, and those that leave out what a product forbids."""

# How far each transform goes (appendix B).
XINT_MAX = 0.125  # shift by whole pixels, up to this share of the size per axis
SCALE_STD = 0.2  # scale by 2^N(0, std)
ROTATE_MAX = math.pi
ANISO_STD = 0.2  # scale x by 2^N(0, std) and y by its inverse
XFRAC_STD = 0.125  # shift by N(0, std) of the size per axis, not rounded
BRIGHTNESS_STD = 0.2  # add N(0, std)
CONTRAST_STD = 0.5  # multiply by 2^N(0, std), about the mid grey 0
HUE_MAX = math.pi  # turn the colours about the grey axis
SATURATION_STD = 1.0  # scale the distance from the grey axis by 2^N(0, std)
IMGFILTER_STD = 1.0  # amplify each of four octave bands by 2^N(0, std), each with p, at constant power
NOISE_STD = 0.1  # add Gaussian noise of the standard deviation |N(0, std)|
CUTOUT_SIZE = 0.5  # set a rectangle of this share of the size per axis to mid grey

# Share of a natural image's power in the four octave bands, after its 1/f spectrum.
BAND_POWER = (10 / 13, 1 / 13, 1 / 13, 1 / 13)

# Doubled samples held at once. On a CPU they stay in the cache this way, which is up to twice as fast; elsewhere this
# only bounds the memory (1 GiB).
_CPU_SAMPLES_AT_ONCE = 2**20
_DEVICE_SAMPLES_AT_ONCE = 2**28

_BILINEAR = (0, 0, True)  # zero outside; align_corners: -1 and 1 are the centres of the outermost pixels


class AugmentPipe(nn.Module):
    """Augments what a discriminator sees, each transform of each image with probability p.

    Differentiable any number of times in the images, so that gradients reach the generator and R1 can run through it.
    It has no parameters and no state.

    Args:
        transforms: names out of `TRANSFORMS`; they are applied in that order.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> augment = AugmentPipe.from_set("keep_orientation")
        >>> logits = discriminator(augment(images, p=controller.p))
    """

    def __init__(self, transforms: Iterable[str]) -> None:
        super().__init__()
        self.transforms = frozenset(transforms)
        if unknown := self.transforms.difference(TRANSFORMS):
            raise ValueError(f"Unknown transforms {sorted(unknown)}; choose of: {', '.join(TRANSFORMS)}.")

    @classmethod
    def from_set(cls, name: str) -> AugmentPipe:
        """Make the pipeline of a set of `AUGMENTATION_SETS`.

        Raises:
            ValueError: no set has this name; the message lists the names.
        """
        if name not in AUGMENTATION_SETS:
            raise ValueError(f"Unknown augmentation set {name!r}; choose one of: {', '.join(AUGMENTATION_SETS)}.")
        return cls(AUGMENTATION_SETS[name])

    def forward(self, images: Tensor, p: float | Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Augment a batch.

        The parameters of the transforms are computed where `p` is. A float, or a tensor on the CPU, lets the pipeline
        skip what an image was not chosen for, and return at once the images themselves for p = 0; a tensor on an
        accelerator is never read back, so that the host does not wait for it.

        Args:
            images: (N, C, H, W), C = 1 or 3, floating point, mid grey at 0 (range -1..1). Half precision is computed
                in float32. Mixed precision (autocast) is switched off inside.
            p: probability, a float or a 0-dim tensor in [0, 1]. The range of a tensor is not checked.
            generator: source of randomness, on the CPU or on the images' device; the same state gives the same
                augmentations. None takes the default generator of the device that `p` is on (a float: of the CPU).

        Returns:
            (N, C, H, W), dtype of `images`; may exceed -1..1.

        Raises:
            ValueError: wrong shape or dtype of `images`; a float `p` out of range.
        """
        check_images(images)
        if isinstance(p, Tensor):
            if p.ndim != 0:
                raise ValueError(f"`p` must be a number or a 0-dim tensor, not a tensor of shape {tuple(p.shape)}.")
            p = p.detach()
        elif not 0 <= p <= 1:
            raise ValueError(f"`p` must be a probability in [0, 1], not {p}.")

        device = p.device if isinstance(p, Tensor) else torch.device("cpu")
        if not self.transforms or (device.type == "cpu" and float(p) == 0):
            return images
        if device.type == "cpu" and generator is not None:
            device = generator.device
        draws = Draws(len(images), p, device, generator)
        with without_autocast(images) as augmented:
            return self._augment(augmented, draws).to(images.dtype)

    def _augment(self, images: Tensor, draws: Draws) -> Tensor:
        names = self.transforms
        if not names.isdisjoint(BLITTING + GEOMETRY + COLOR):
            parameters = draw_parameters(names, draws, *images.shape[-2:])
            if not names.isdisjoint(BLITTING + GEOMETRY):
                images = warp(images, inverse_maps(parameters))
            if not names.isdisjoint(COLOR):
                images = jitter_color(images, parameters)
        if "imgfilter" in names:
            images = filter_bands(images, draws)
        if "noise" in names:
            images = add_noise(images, draws)
        if "cutout" in names:
            images = cut_out(images, draws)
        return images


class _Table(NamedTuple):
    """How the random parameters of blitting, geometry and colour follow from uniform and normal numbers.

    One column for each parameter, in the order of `_COLUMNS`; those of transforms that are not wanted are 0.
    """

    span: Tensor  # of the uniform ones
    offset: Tensor
    std: Tensor  # of the normal ones
    parts: Tensor  # see `Draws.happens`; one for each chance
    chance: Tensor  # which of them a column shares


# First those that are rounded down and then the other uniform ones; the normal ones are last.
_COLUMNS = (
    *("xflip", "lumaflip", "rotate90", "xint_x", "xint_y", "rotate_before", "rotate_after", "hue"),
    *("scale", "aniso", "xfrac_x", "xfrac_y", "brightness", "contrast", "saturation"),
)
_ROUNDED, _UNIFORM = 5, 8


@lru_cache(maxsize=16)
def _table(names: frozenset[str], height: int, width: int, device: torch.device) -> _Table:
    shift_x, shift_y = XINT_MAX * width, XINT_MAX * height
    # Rounded down, so that these are 0..count - 1, or whole numbers whose distance from 0 is at most the shift.
    # Shifts and scales are those of the inverse map: their signs are turned.
    uniform = {
        **{"xflip": (2.0, 0.0), "lumaflip": (2.0, 0.0), "rotate90": (4.0 if height == width else 2.0, 0.0)},
        **{"xint_x": (-2 * shift_x, 0.5 + shift_x), "xint_y": (-2 * shift_y, 0.5 + shift_y)},
        **{"rotate_before": (2 * ROTATE_MAX, -ROTATE_MAX), "rotate_after": (2 * ROTATE_MAX, -ROTATE_MAX)},
        "hue": (2 * HUE_MAX, -HUE_MAX),
    }
    normal = {
        **{"scale": -SCALE_STD, "aniso": -ANISO_STD, "xfrac_x": -XFRAC_STD * width, "xfrac_y": -XFRAC_STD * height},
        **{"brightness": BRIGHTNESS_STD, "contrast": CONTRAST_STD, "saturation": SATURATION_STD},
    }
    # Both axes of a shift share a chance. The rotations before and after `aniso` have two, of which at least one
    # comes true with p.
    sharing = [name.removesuffix("_x").removesuffix("_y") for name in _COLUMNS]
    chances = list(dict.fromkeys(sharing))
    wanted = [float(name.split("_")[0] in names) for name in _COLUMNS]
    # Built outside inference mode, whose tensors could not take part in a later training step.
    with torch.inference_mode(False):
        keep = torch.tensor(wanted)
        span, offset = torch.tensor([uniform[name] for name in _COLUMNS[:_UNIFORM]]).T * keep[:_UNIFORM]
        std = torch.tensor([normal[name] for name in _COLUMNS[_UNIFORM:]]) * keep[_UNIFORM:]
        parts = torch.tensor([2.0 if name.startswith("rotate_") else 1.0 for name in chances])
        chance = torch.tensor([chances.index(name) for name in sharing])
        return _Table(*(tensor.to(device) for tensor in (span, offset, std, parts, chance)))


def draw_parameters(names: frozenset[str], draws: Draws, height: int, width: int) -> dict[str, Tensor]:
    """Draw the parameters of blitting, geometry and colour, all transforms of all images at once.

    Quarter turns are for square images; others are turned by half.

    Returns:
        By the names of `_COLUMNS`, (batch_size,): flips 0 or 1, quarter turns 0 to 3, angles in radians, shifts in
        pixels and binary logarithms of scales, both of the inverse map, the brightness to add, and binary logarithms
        of contrast and saturation. 0 changes nothing; it is what images have that a transform does not happen to.
    """
    table = _table(names, height, width, draws.device)
    uniform = torch.addcmul(table.offset, draws.uniform(_UNIFORM), table.span)
    uniform[:, :_ROUNDED].floor_()
    if height != width:
        uniform[:, _COLUMNS.index("rotate90")] *= 2
    normal = draws.normal(len(table.std)) * table.std
    happens = draws.happens(table.parts)[:, table.chance]
    return dict(zip(_COLUMNS, (torch.cat([uniform, normal], dim=1) * happens).unbind(1), strict=True))


def inverse_maps(parameters: dict[str, Tensor]) -> Tensor:
    """Return where each output pixel comes from, from parameters as of `draw_parameters`.

    Returns:
        (batch_size, 3, 3): maps a homogeneous (x, y), in pixels from the centre of the output, to the same of the
        input. The product of the steps' inverses, first step leftmost.
    """
    p = parameters
    zero = torch.zeros_like(p["xflip"])
    one = torch.ones_like(zero)
    angles = torch.stack([p["rotate90"] * (math.pi / 2), p["rotate_before"], p["rotate_after"]])
    cos, sin = angles.cos(), angles.sin()
    for quarter_turns in (cos[0], sin[0]):
        quarter_turns.round_()
    minus_sin = -sin
    mirror = 1 - 2 * p["xflip"]
    zoom, x_scale, y_scale = torch.stack([p["scale"], p["aniso"], -p["aniso"]]).exp2()

    def scaling(x: Tensor, y: Tensor) -> list[Tensor]:
        return [x, zero, zero, zero, y, zero, zero, zero, one]

    def rotation(i: int) -> list[Tensor]:
        return [cos[i], minus_sin[i], zero, sin[i], cos[i], zero, zero, zero, one]

    def translation(x: Tensor, y: Tensor) -> list[Tensor]:
        return [one, zero, x, zero, one, y, zero, zero, one]

    steps = [
        scaling(mirror, one),
        rotation(0),
        translation(p["xint_x"], p["xint_y"]),
        scaling(zoom, zoom),
        rotation(1),
        scaling(x_scale, y_scale),
        rotation(2),
        translation(p["xfrac_x"], p["xfrac_y"]),
    ]
    # Three batches of products instead of seven: in this order the left factors of each are its first half.
    ordered = [steps[i] for i in (0, 4, 2, 6, 1, 5, 3, 7)]
    maps = torch.stack([entry for step in ordered for entry in step]).unflatten(0, (8, 3, 3)).permute(0, 3, 1, 2)
    while len(maps) > 1:
        left, right = maps.chunk(2)
        maps = left @ right
    return maps[0]


def warp(images: Tensor, maps: Tensor) -> Tensor:
    """Resample images through affine maps: reflection, doubling, bilinear lookup, halving.

    The reflection never ends; the official implementation's ends in black two image sizes from the centre.

    Args:
        images: (N, C, H, W), float32 or float64, sides of at least 2.
        maps: (N, 3, 3) as of `inverse_maps`. On the CPU, wherever the images are, those images are left alone
            whose map is the identity; on an accelerator its values are never read back.
    """
    if maps.device.type != "cpu":
        return _warp_all(images, maps)
    moved = (maps != torch.eye(3)).flatten(1).any(1).nonzero()[:, 0]
    if len(moved) == 0:
        return images
    if len(moved) == len(images):
        return _warp_all(images, maps)
    chosen = moved.to(images.device, non_blocking=True)
    return images.index_copy(0, chosen, _warp_all(images.index_select(0, chosen), maps[moved]))


def _warp_all(images: Tensor, maps: Tensor) -> Tensor:
    limit = _CPU_SAMPLES_AT_ONCE if images.device.type == "cpu" else _DEVICE_SAMPLES_AT_ONCE
    count = max(1, limit // (16 * images.shape[1:].numel()))
    parts = [_warp_part(*part) for part in zip(images.split(count), maps.split(count), strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _warp_part(images: Tensor, maps: Tensor) -> Tensor:
    double_columns, grid_x = _plan_axis(images, maps, axis=0)
    double_rows, grid_y = _plan_axis(images, maps, axis=1)
    doubled = _Resample.apply(images, double_rows, double_columns)
    looked_up = lookup_bilinear(doubled, torch.stack([grid_x, grid_y], dim=-1))
    halve_rows, halve_columns = (halving_matrix(n, images.dtype, images.device) for n in images.shape[-2:])
    return _Resample.apply(looked_up, halve_rows, halve_columns)


class _Resample(torch.autograd.Function):
    """Multiply the columns, then the rows of (N, C, H, W) images by matrices, which get no gradient: (rows, H) for all
    images, or one of each image, (N, 1, rows, H). Linear; its adjoint multiplies by the transposed matrices.

    On a GPU the products are in TF32 (ten bits of fraction) if torch allows that for convolutions, as it does by
    default: the discriminator's first one reads no more of an image, and tensor cores are many times as fast.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
        ctx.save_for_backward(rows, columns)
        with _products_as_convolutions(images.device):
            images = images @ columns.mT
            if rows.ndim == 4:
                return rows @ images
            # As `rows @ images`, which copies the images first.
            pixels = images.flatten(0, 1)
            return torch.bmm(rows.expand(len(pixels), *rows.shape), pixels).unflatten(0, images.shape[:2])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        rows, columns = ctx.saved_tensors
        return _Resample.apply(grad, rows.mT, columns.mT), None, None


def _products_as_convolutions(device: torch.device) -> AbstractContextManager[None]:
    """Inside, matrix products on a GPU round as convolutions do; meta tensors stand for a GPU's."""
    return matrix_products(tf32=True) if device.type in ("cuda", "meta") and convolutions_round() else nullcontext()


def _plan_axis(images: Tensor, maps: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Make the doubling matrix of an axis (0 is x), its rows limited to what is looked up, and where to look.

    Returns:
        (rows, size) or (N, 1, rows, size); and (N, h, w), -1 and 1 being the first and the last of the rows.
    """
    height, width = images.shape[-2:]
    size = (width, height)[axis]
    period = 4 * size - 4
    matrix = doubling_matrix(size, images.dtype, images.device)
    # Doubled index u is the pixel position u / 2; the centre of n pixels is at (n - 1) / 2, so at n - 1 here.
    centre = 2 * maps[:, axis, 2] + (size - 1)

    if maps.device.type == "cpu":
        reach = maps[:, axis, 0].abs() * (width + SYM6_DELAY) + maps[:, axis, 1].abs() * (height + SYM6_DELAY)
        first = (centre - reach).floor() - 1
        rows = int(2 * reach.max()) + 5  # the far end, the neighbour that interpolation reads, and rounding
        if rows < len(matrix):
            index = (first.long()[:, None] + torch.arange(rows)).remainder(period)
            matrix = matrix[index.to(images.device, non_blocking=True)][:, None]
            centre = centre - first

    maps = maps.to(images.device, images.dtype, non_blocking=True)
    centre = centre.to(images.device, images.dtype, non_blocking=True)
    column, row = (_doubled_positions(n, images.dtype, images.device) for n in (width, height))
    along_row = torch.addcmul(centre[:, None], maps[:, axis, 0, None], column)
    source = torch.addcmul(along_row[:, None, :], maps[:, axis, 1, None, None], row[:, None])
    return matrix, source.remainder_(period).mul_(2 / (matrix.shape[-2] - 1)).sub_(1)


@lru_cache(maxsize=16)
def _doubled_positions(size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Where the doubled samples that `halving_matrix` reads lie, in doubled pixels from the centre."""
    with torch.inference_mode(False):
        return torch.arange(-SYM6_DELAY, 2 * size + SYM6_DELAY, dtype=dtype, device=device) - (size - 1)


def jitter_color(images: Tensor, parameters: dict[str, Tensor]) -> Tensor:
    """Apply the colour transforms to (N, C, H, W) images, C = 3 or 1, as one affine map per image.

    With the grey axis v = (1, 1, 1)/sqrt(3), brightness b, contrast c, luma flip i, hue angle t and saturation s, the
    paper's product of 4x4 matrices is x -> L (x + b) with
    L = c (1 - 2i) v v^T + c s (cos t (I - v v^T) + sin t [v]_x), as each step is a polynomial in v v^T and [v]_x.
    A grey image is mapped as the colour image of three equal channels: it has no chroma, so that hue and saturation
    leave it alone, and the luma flip inverts it.

    Args:
        parameters: as of `draw_parameters`.
    """
    p = parameters
    contrast, chroma = torch.stack([p["contrast"], p["contrast"] + p["saturation"]]).exp2()
    luma = contrast * (1 - 2 * p["lumaflip"])
    factors = torch.stack([p["brightness"], luma, chroma * p["hue"].cos(), chroma * p["hue"].sin()])
    brightness, luma, chroma_cos, chroma_sin = factors.to(images.device, images.dtype, non_blocking=True)[
        ..., None, None
    ]
    if images.shape[1] == 1:
        return ((images[:, 0] + brightness) * luma)[:, None]
    grey, rest, cross = _colour_axes(images.dtype, images.device)
    linear = torch.addcmul(torch.addcmul(luma * grey, chroma_cos, rest), chroma_sin, cross)
    return torch.baddbmm(luma * brightness, linear, images.flatten(2)).unflatten(2, images.shape[2:])


@lru_cache(maxsize=16)
def _colour_axes(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """v v^T, I - v v^T and [v]_x of `jitter_color`."""
    with torch.inference_mode(False):
        identity = torch.eye(3, dtype=dtype, device=device)
        grey = torch.full_like(identity, 1 / 3)
        return grey, identity - grey, (identity.roll(1, dims=0) - identity.roll(-1, dims=0)) / math.sqrt(3)


def filter_bands(images: Tensor, draws: Draws) -> Tensor:
    """Amplify four octave bands of (N, C, H, W) images along both axes, at constant expected power."""
    power, parts = _band_power(draws.device)
    own = (draws.normal(4) * IMGFILTER_STD * draws.happens(parts)).exp2()
    # What a band gains all bands lose, so that the expected power stays 1.
    expected_power = (1 + power * (own.square() - 1)).prod(dim=1, keepdim=True)
    gains = (own * expected_power.rsqrt()).to(images.device, images.dtype, non_blocking=True)
    rows, columns = (
        torch.tensordot(gains, octave_matrices(size, images.dtype, images.device), dims=1)[:, None]
        for size in images.shape[-2:]
    )
    return rows @ (images @ columns.mT)


@lru_cache(maxsize=16)
def _band_power(device: torch.device) -> tuple[Tensor, Tensor]:
    with torch.inference_mode(False):
        return torch.tensor(BAND_POWER, device=device), torch.ones(len(BAND_POWER), device=device)


def add_noise(images: Tensor, draws: Draws) -> Tensor:
    """Add Gaussian noise of a standard deviation drawn per image to (N, C, H, W) images."""
    std = draws.normal(1).abs() * NOISE_STD * draws.happens(torch.ones(1, device=draws.device))
    # Without a generator the noise is drawn where the images are: a whole batch of it is slow to copy.
    source = images.device if draws.generator is None else draws.generator.device
    noise = torch.randn(images.shape, dtype=images.dtype, device=source, generator=draws.generator)
    std = std.to(images.device, images.dtype, non_blocking=True)
    return images + noise.to(images.device, non_blocking=True) * std[:, :, None, None]


def cut_out(images: Tensor, draws: Draws) -> Tensor:
    """Set a rectangle, its centre uniform over the image, to 0 in (N, C, H, W) images."""
    half = draws.happens(torch.ones(1, device=draws.device)) * (CUTOUT_SIZE / 2)
    centre = draws.uniform(2)
    height, width = images.shape[-2:]
    half, centre = (value.to(images.device, images.dtype, non_blocking=True) for value in (half, centre))
    x = (torch.arange(width, device=images.device) + 0.5) / width
    y = (torch.arange(height, device=images.device) + 0.5) / height
    inside_x, inside_y = (x - centre[:, :1]).abs() < half, (y - centre[:, 1:]).abs() < half
    return images.masked_fill(inside_y[:, None, :, None] & inside_x[:, None, None, :], 0.0)


def lookup_bilinear(images: Tensor, grid: Tensor) -> Tensor:
    """Interpolate between the four nearest pixels; differentiable in the images any number of times.

    torch's own grid_sample has no second derivative in every supported release, nor a first one on every device.

    Args:
        images: (N, C, H, W), sides of at least 2.
        grid: (N, h, w, 2), the (x, y) to look at in [-1, 1], where -1 and 1 are the centres of the outermost pixels;
            it gets no gradient.
    """
    if images.device.type == "mps":
        return lookup_by_gathering(images, grid)
    return _GridSample.apply(images, grid)


class _GridSample(torch.autograd.Function):
    # The lookup is linear in the image: its derivative is its adjoint, whose derivative is the lookup again.

    @staticmethod
    def forward(ctx: Any, images: Tensor, grid: Tensor) -> Tensor:
        ctx.save_for_backward(grid)
        ctx.images_shape = images.shape
        return torch.ops.aten.grid_sampler_2d(images, grid, *_BILINEAR)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return _GridSampleAdjoint.apply(grad, grid, ctx.images_shape), None


class _GridSampleAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, grid: Tensor, images_shape: torch.Size) -> Tensor:
        ctx.save_for_backward(grid)
        # The pixels matter to the grid's gradient only, which is not asked for: they need no values.
        pixels, wanted = grad.new_empty(images_shape), (True, False)
        return torch.ops.aten.grid_sampler_2d_backward(grad, pixels, grid, *_BILINEAR, wanted)[0]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grad, grid), None, None


def lookup_by_gathering(images: Tensor, grid: Tensor) -> Tensor:
    """`lookup_bilinear` made of operations that every device can differentiate; slower on a CPU."""
    channels, height, width = images.shape[1:]
    x, y = ((grid[..., axis] + 1) * ((size - 1) / 2) for axis, size in enumerate((width, height)))
    left, top = x.floor().clamp(0, width - 2), y.floor().clamp(0, height - 2)
    right_share, bottom_share = (x - left)[:, None], (y - top)[:, None]
    corner = (top * width + left).long().flatten(1)[:, None].expand(-1, channels, -1)
    pixels = images.flatten(2)
    top_left, top_right, bottom_left, bottom_right = (
        pixels.gather(2, corner + offset).unflatten(2, x.shape[1:]) for offset in (0, 1, width, width + 1)
    )
    upper = torch.lerp(top_left, top_right, right_share)
    return torch.lerp(upper, torch.lerp(bottom_left, bottom_right, right_share), bottom_share)
