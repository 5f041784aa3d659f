"""Paint a generated defect into a photograph, and leave every other pixel as it was.

The generator draws a defect and its defect-free twin from the same latents: their difference is the defect alone.
Added to a photograph at its place, it changes nothing elsewhere, at any resolution.

`paint` is the whole; each step is one function, in this order: the photograph, the mask and where it may be, the
window, the nearest twin, the difference, how it is laid on, and which pixels changed.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, get_args

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from diffusers.utils import BaseOutput
from huggingface_hub import constants
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor
from tqdm import tqdm

from .arguments import as_integer, check_number, shown
from .data.parts import Box, Part, bounding_box, parts_of
from .data.preparation import Fit, fitting_size, resize_mask
from .data.reading import Array
from .files import TRAINING_FILE, module_sha256, tensors_sha256, whole_file
from .models.base import image_size, sides
from .models.stylegan2 import StyleGAN2Generator, hold_weights
from .photograph import PaintError, Photograph, Picture, Region, crop

VISIBLE = 2
"""A pixel has visibly changed if one of its channels has by so many of 255 levels."""

NUM_TWINS = 512
"""Twins that the nearest one is looked for among."""

COMPARED_SIZE = 32
"""Pixels of the shorter side at which photographs and twins are compared, or the model's if these are fewer."""

EDGE = 1.0
"""Pixels of the model over which a defect fades in from the outline of its mask."""

HIDES = 15
"""Levels of 255 by which a defect changes its twin where it hides all that was there."""

FAR = 0.5
"""Share of a photograph's standard deviation by which the nearest twin may differ from it."""

LARGEST_GAIN = 2.0
MAX_STRENGTH = 4.0
MAX_DEFECTS = 1000
TRIES = 64
"""Masks, or places for one, that are tried until one serves."""

MAX_CUT_OFF = 8
"""Masks that the image's border cuts off are passed over so often before one is taken all the same."""

OF_DRAWN_MASKS = ("num_defects", "size", "rotation", "flip")
"""Options that say what becomes of masks that the model draws."""


@dataclass(frozen=True)
class Placement:
    """Where one defect is in a photograph, and how it was put there. Boxes are (left, top, right, bottom) in pixels.

    Attributes:
        box: around the mask; right and bottom are just outside.
        window: the part of the photograph that one image of the model stands for, likewise.
        twin: seed of the twin that the defect was drawn on.
        distance: root mean square difference of twin and photograph around the defect, in levels of 255.
        gain: how much brighter the photograph is than the twin there; the defect was multiplied by it.
        defect: its kind, of a model that knows several.
    """

    box: Box
    window: Box
    twin: int
    distance: float
    gain: float
    defect: str | None = None


@dataclass
class PaintOutput(BaseOutput):
    """Output of `DFMGANPipeline.paint`: entry i of all four is of photograph i.

    Attributes:
        images: the painted photographs, of the size, depth and kind that came in: arrays of arrays, else PIL images;
            arrays too of files in colour with 16 bits, which Pillow has no images for.
        labels: 255 where a pixel has visibly changed and 0 elsewhere, 8-bit grey PIL images. Where they are 0, images
            and photographs are equal bit for bit.
        masks: what was asked for, or drawn by the model and put into its place, likewise.
        placements: of each photograph's defects.
    """

    images: list[Any]
    labels: list[Image.Image]
    masks: list[Image.Image]
    placements: list[tuple[Placement, ...]]


@dataclass(frozen=True, kw_only=True)
class PaintConfig:
    """How defects are painted.

    `num_defects`, `size`, `rotation` and `flip` are for masks that the model draws, and refused beside a given one.

    Attributes:
        strength: Factor on the defect, from 0 to 4: 1 as it was learnt.
        num_defects: Defects on a photograph, up to 1000.
        size: Factor on the size of masks that the model draws.
        rotation: Degrees, counter-clockwise, that they are turned by.
        flip: Whether to mirror each of them with a probability of one half.
        window: Shorter side, in pixels of the photograph, of what an image of the model shows; 0 for the whole
            photograph. None: what the model says of itself.
        bit_depth: Significant bits of 16-bit photographs: 16, or 12 for the raw values of many industrial cameras.
        grain: Whether to add the photograph's noise where the painted defect has less.
        any_product: Whether to paint even if no twin is near the photograph.

    Raises:
        ValueError: a value that is not possible.
    """

    strength: float = 1.0
    num_defects: int = 1
    size: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    window: int | None = None
    bit_depth: int = 16
    grain: bool = True
    any_product: bool = False

    def __post_init__(self) -> None:
        for name, lowest, highest in (
            ("strength", 0, MAX_STRENGTH),
            ("num_defects", 1, MAX_DEFECTS),
            ("size", 0.05, 20),
            ("rotation", -360, 360),
            ("window", 0, 2**16),
            ("bit_depth", 8, 16),
        ):
            value = getattr(self, name)
            if name == "window" and value is None:
                continue
            check_number(value, name, lowest, highest)
            if name in ("num_defects", "window", "bit_depth"):
                if as_integer(value) is None:
                    raise ValueError(f"`{name}` must be an integer, but is {shown(value)}.")
                object.__setattr__(self, name, as_integer(value))  # Python's, which JSON takes, of NumPy's

    def check_given_mask(self, name: str, **places: Any) -> None:
        """Check that nothing else says where a defect goes, beside a mask that does.

        Args:
            name: of the argument that the mask came with.
            places: the others that say where, by name; None for those that were not given.

        Raises:
            ValueError: one of these was given, or an option that is for masks that the model draws.
        """
        surplus = [place for place, value in places.items() if value is not None]
        surplus += [option for option in OF_DRAWN_MASKS if getattr(self, option) != getattr(PaintConfig, option)]
        if surplus:
            listed = ", ".join(f"`{each}`" for each in surplus)
            raise ValueError(f"`{name}` shows where a defect goes, and in which shape: leave out {listed}.")


@torch.no_grad()
def paint(
    network: Any,
    photograph: Photograph,
    codes: Sequence[tuple[Tensor, Tensor]],
    twins: TwinIndex,
    generator: np.random.Generator,
    config: PaintConfig,
    *,
    mask: Picture | None = None,
    region: Region | None = None,
    forbidden: Region | None = None,
    point: tuple[float, float] | None = None,
    defect: str | None = None,
) -> tuple[Any, Image.Image, Image.Image, tuple[Placement, ...]]:
    """Paint one photograph; see `DFMGANPipeline.paint`.

    Args:
        network: a `DFMGANGenerator`.
        photograph: opened.
        codes: at least `num_defects` object and defect z, (z_dim,) each.
        twins: of the network.
        generator: of what is left to chance: places, and flips.
        config: how.
        mask, region, forbidden, point: where; see there.
        defect: kind of defect, of a model that knows several.

    Returns:
        An entry of each field of `PaintOutput`.
    """
    side = window_side(network, config, photograph)
    shapes: Iterator[tuple[Array, Tensor]]
    if mask is not None:
        given = photograph.region(mask, "mask")
        if not given.any():
            raise PaintError("`mask` is empty: no pixel of it says where the defect goes.")
        shapes = ((group, codes[0][1]) for group in split_mask(given, side, network.config["aspect"]))
    else:
        allowed = photograph.allowed(region, forbidden)
        stays = not side and region is None and forbidden is None and point is None
        masks = draw_masks(network, codes, config, generator, whole_first=not stays, kind=defect)
        shapes = (
            (place_mask(drawn, photograph, side, allowed, point, generator, config, stays=stays), latent)
            for drawn, latent in islice(masks, config.num_defects)
        )
    painted, placements = photograph.pixels.astype(np.float32), []
    asked = np.zeros(photograph.size, dtype=bool)
    for shape, latent in shapes:
        placements.append(_paint_defect(network, photograph, painted, shape, latent, side, twins, config, defect))
        asked |= shape
    image, label = keep_visible(photograph, painted, [placement.window for placement in placements])
    mask_image = Image.fromarray(asked.astype(np.uint8) * 255)
    return photograph.restore(image), Image.fromarray(label.astype(np.uint8) * 255), mask_image, tuple(placements)


def _paint_defect(
    network: Any,
    photograph: Photograph,
    painted: Array,
    mask: Array,
    latent: Tensor,
    side: int,
    twins: TwinIndex,
    config: PaintConfig,
    defect: str | None,
) -> Placement:
    """Add a defect to `painted`, float32 (H, W, C) in the photograph's own levels, in place."""
    channels, shown_size = network.config["image_channels"], image_size(network.config)
    box = bounding_box(mask)
    candidates = []
    for window in windows_around(box, photograph.size, side, network.config["aspect"]):
        view = photograph.view(window, shown_size, channels)
        small = resize_mask(crop(mask, window), shown_size)
        # Twins of a product that lies alike differ little; those of a texture are as many as there are places.
        far = max(twins.spread, FAR * 255 * float(view.std()))
        candidates.append((*twins.nearest(view, small), far, window, view, small))
    distance, number, gain, far, window, view, small = min(candidates, key=lambda candidate: candidate[0])
    if distance > far and not config.any_product:
        raise PaintError(
            f"The nearest of {len(twins.images)} twins differs from the photograph by {distance:.0f} of 255 levels, "
            f"more than twins differ from each other and than half of the photograph's own contrast ({far:.0f}): the "
            "model does not know this product, or not at this scale. Check the photograph and `window`, or paint all "
            "the same with `any_product`."
        )
    image, twin = draw_defect(network, twins.latents[number], latent, small, defect)
    difference = config.strength * (image - twin)
    if not side:
        # The twin is this product as it lies, down to what the defect hides: the photograph's must not shine through.
        # Of a texture it shows a place of its own, which would be seen as a patch.
        difference += hidden(difference) * (twin - view / gain)
    left, top, right, bottom = window
    size = (bottom - top, right - left)
    enlarged = F.interpolate(difference[None], size=size, mode="bicubic", align_corners=False, antialias=True)[0]
    weight = faded(crop(mask, window), EDGE * size[0] / shown_size[0])
    change = enlarged.numpy().transpose(1, 2, 0) * weight[:, :, None] * (gain * photograph.highest)
    part = painted[top:bottom, left:right]
    if channels == 1 and part.shape[2] == 3:
        change = change * colour_cast(crop(photograph.pixels, window), weight)
    elif channels == 3 and part.shape[2] == 1:
        change = change @ np.array([[0.299], [0.587], [0.114]], dtype=np.float32)  # luma, ITU-R BT.601
    part += change
    if config.grain:
        add_grain(part, crop(photograph.pixels, window), weight)
    return Placement(box, window, number, round(float(distance), 2), round(float(gain), 3), defect)


# --- The mask, if the model draws it, and where it goes ---


def draw_masks(
    network: Any,
    codes: Sequence[tuple[Tensor, Tensor]],
    config: PaintConfig,
    generator: np.random.Generator,
    *,
    whole_first: bool = False,
    kind: str | None = None,
) -> Iterator[tuple[Array, Tensor]]:
    """Yield the model's own masks, bool (h, w), of those of these latents that it draws one for, and the defect's z.

    Args:
        network, codes, config, generator: see `paint`.
        whole_first: keep up to `MAX_CUT_OFF` masks that the image's border cuts off for the end: moved into the middle
            of a photograph, they show its straight line.
        kind: of defect, of a model that knows several.

    Raises:
        PaintError: there is none left.
    """
    cut_off: list[tuple[Array, Tensor]] = []
    kinds = None if kind is None else network.numbers_of([kind])
    for latent, defect in codes:
        inputs = (x[None].to(network.device) for x in (latent, defect))
        output = network(*inputs, kinds=kinds, noise_mode="const")
        mask = (output.mask_logits[0, 0] >= 0).cpu().numpy()
        is_mirrored = config.flip and generator.integers(2)
        found = (mask[:, ::-1] if is_mirrored else mask), defect
        is_cut_off = mask[[0, -1]].any() or mask[:, [0, -1]].any()
        if is_cut_off and whole_first and len(cut_off) < MAX_CUT_OFF:
            cut_off.append(found)
        elif mask.any():
            yield found
    yield from cut_off
    raise PaintError(
        f"The model drew fewer than {config.num_defects} masks that are not empty in {len(codes)} tries: give a "
        "`mask`, or train the model longer."
    )


def place_mask(
    drawn: Array,
    photograph: Photograph,
    side: int,
    allowed: Array,
    point: tuple[float, float] | None,
    generator: np.random.Generator,
    config: PaintConfig,
    *,
    stays: bool,
) -> Array:
    """Bring a mask that the model drew to the photograph's scale, and to a place where it is allowed.

    Args:
        drawn: bool (h, w), not empty.
        side: see `window_side`; 0 for the whole photograph.
        allowed: bool (H, W).
        point: (x, y) to centre it on.
        stays: whether it is best where it was drawn: a model of whole photographs knows where its defects are.

    Returns:
        bool (H, W).

    Raises:
        PaintError: it does not fit.
    """
    height, width = photograph.size
    shown_size, drawn_size = ((side, side), 2 * (min(drawn.shape),)) if side else ((width, height), drawn.shape[::-1])
    scale = config.size * np.array(shown_size) / drawn_size
    left, top, right, bottom = bounding_box(drawn)
    centre = (np.array((left + right, top + bottom)) / 2 * scale / config.size).round().astype(int)
    picture = Image.fromarray(drawn[top:bottom, left:right].astype(np.uint8) * 255)
    new_size = [max(round(n * factor), 1) for n, factor in zip(picture.size, scale, strict=True)]
    picture = picture.resize(new_size, Image.Resampling.BILINEAR)  # type: ignore[arg-type]
    picture = picture.rotate(config.rotation, Image.Resampling.BILINEAR, expand=True)
    shape = np.asarray(picture) >= 128
    if not shape.any():
        shape = np.ones((1, 1), dtype=bool)
    if shape.shape[0] > height or shape.shape[1] > width:
        raise PaintError(
            f"The mask is {shape.shape[1]}x{shape.shape[0]} pixels, larger than the photograph ({width}x{height}): "
            "choose a smaller `size`."
        )
    if point is not None:
        if not isinstance(point, (tuple, list, np.ndarray)) or len(point) != 2:
            raise PaintError(f"`point` must be (x, y) in pixels of the photograph, but is {shown(point)}.")
        check_number(point[0], "point[0]", 0, width)
        check_number(point[1], "point[1]", 0, height)
    places = np.flatnonzero(allowed)
    best, best_share = None, 0.0
    for attempt in range(TRIES):
        if point is not None:
            x, y = point
        elif stays and attempt == 0:
            x, y = centre
        else:
            y, x = divmod(int(places[generator.integers(len(places))]), width)
        x0 = int(np.clip(round(x) - shape.shape[1] // 2, 0, width - shape.shape[1]))
        y0 = int(np.clip(round(y) - shape.shape[0] // 2, 0, height - shape.shape[0]))
        fits = shape & allowed[y0 : y0 + shape.shape[0], x0 : x0 + shape.shape[1]]
        share = fits.sum() / shape.sum()
        if share > best_share:
            best, best_share = (x0, y0, fits), share
        if share == 1 or point is not None:
            break
    if best is None or best_share < 0.5:
        raise PaintError(
            f"The mask ({shape.shape[1]}x{shape.shape[0]} pixels) does not fit into the region: at the best of "
            f"{TRIES} places {best_share:.0%} of it is inside. Choose a smaller `size` or a larger `region`."
        )
    x0, y0, fits = best
    placed = np.zeros(photograph.size, dtype=bool)
    placed[y0 : y0 + fits.shape[0], x0 : x0 + fits.shape[1]] = fits
    return placed


# --- The window, and the twin that is nearest to what it shows ---


def window_side(network: Any, config: PaintConfig, photograph: Photograph) -> int:
    """Return the shorter side of what an image of the model shows, in pixels of the photograph; 0 for all of it.

    Warns:
        UserWarning: nobody has said it.

    Raises:
        PaintError: the photograph is smaller, or of another shape than training left the whole ones.
    """
    known = network.config.get("window")
    side = config.window if config.window is not None else known
    if side is None:
        warnings.warn(
            "The model does not say how large a part of a photograph it was trained on: the whole is assumed. If it "
            "was trained on patches, give their side in pixels as `window`.",
            stacklevel=2,
        )
    (height, width), needed = photograph.size, sides(side or 0, network.config["aspect"])
    if height < needed[0] or width < needed[1]:
        raise PaintError(
            f"The photograph is {width}x{height} pixels, smaller than the {needed[1]}x{needed[0]} that an image of "
            "the model shows. Give a larger photograph or, if its scale is another one, the right `window`."
        )
    if not side:
        _check_shape(network, photograph)
    return side or 0


def _check_shape(network: Any, photograph: Photograph) -> None:
    """Refuse a photograph that training would have cut or given a border: here it would be stretched instead."""
    height, width = photograph.size
    rows, columns = network.config["aspect"]
    # Of the same shape, up to the rounding of less than a pixel.
    if abs(height * columns - width * rows) < max(rows, columns) or (fit := trained_fit(network)) == "resize":
        return
    fitting_height, fitting_width = fitting_size(height, width, image_size(network.config), fit)
    advice = "give it a border of its rim's colour" if fit == "pad" else "cut out its middle"
    raise PaintError(
        f"The photograph is {width}x{height} pixels, but the model was trained with --fit {fit}: it has not seen "
        f"photographs stretched to its images. Expected what training makes of it, {fitting_width}x{fitting_height} "
        f"pixels: {advice}, and paint into that."
    )


def trained_fit(network: Any) -> Fit:
    """Return how training brought photographs to the shape of its images, as the record beside the model says it.

    Without a record (the Hub's cache has none), that is `resize`, training's default.
    """
    folder = Path(network.config.get("_name_or_path") or "")  # where diffusers has loaded it from
    folder = folder.parent if folder.name == "generator" else folder
    if folder.name:
        with suppress(OSError, ValueError, LookupError, TypeError):  # none, or of something else
            record = json.loads((folder / TRAINING_FILE).read_text(encoding="utf-8"))
            if (fit := record["config"]["data"]["fit"]) in get_args(Fit):
                return fit
    return "resize"


def split_mask(mask: Array, side: int, aspect: Sequence[int] = (1, 1)) -> Iterator[Array]:
    """Yield what is painted at once of a mask, bool (H, W): all, or if no window holds it the parts that one holds.

    Args:
        mask: bool (H, W), not empty.
        side: shorter one of the window; 0 for the whole photograph. A part that is larger comes alone.
        aspect: of the window, see `StyleGAN2Generator`.
    """

    def fits(box: Box) -> bool:
        return _shorter_side(box, aspect) <= side

    if not side or fits(bounding_box(mask)):
        yield mask
        return
    groups: list[tuple[Box, list[Part]]] = []
    for part in parts_of(mask):
        left, top, width, height = part.box
        box = (left, top, left + width, top + height)
        for i, (other, members) in enumerate(groups):
            (left, top), (right, bottom) = map(min, box[:2], other[:2]), map(max, box[2:], other[2:])
            joint = (left, top, right, bottom)
            if fits(joint):
                groups[i] = joint, [*members, part]
                break
        else:
            groups.append((box, [part]))
    for _, members in groups:
        group = np.zeros_like(mask)
        for left, top, pixels in members:
            group[top : top + pixels.shape[0], left : left + pixels.shape[1]] |= pixels
        yield group


def _shorter_side(box: Box, aspect: Sequence[int]) -> int:
    """Return the shorter side of the smallest window that holds a box."""
    left, top, right, bottom = box
    return max(math.ceil((bottom - top) / aspect[0]), math.ceil((right - left) / aspect[1]))


def windows_around(box: Box, size: tuple[int, int], side: int, aspect: Sequence[int] = (1, 1)) -> list[Box]:
    """Return windows of the photograph that hold a mask: of several, the one with the nearest twin serves best.

    Args:
        box: around the mask.
        size: height and width of the photograph.
        side: shorter one of the window; 0 for the whole photograph. A window is enlarged if the mask needs it.
        aspect: of the window, see `StyleGAN2Generator`.

    Warns:
        UserWarning: it was enlarged.
    """
    height, width = size
    left, top, right, bottom = box
    if not side:
        return [(0, 0, width, height)]
    needed, largest = _shorter_side(box, aspect), min(height // aspect[0], width // aspect[1])
    if needed > largest:
        raise PaintError(
            f"The mask is {right - left}x{bottom - top} pixels, but the largest part of the photograph that has the "
            f"shape of the model's images is {largest * aspect[1]}x{largest * aspect[0]}, and a defect is painted in "
            "one: choose a smaller mask."
        )
    if needed > side:
        warnings.warn(
            f"The mask is {right - left}x{bottom - top} pixels, but the model was trained on "
            f"{side * aspect[1]}x{side * aspect[0]}: the defect is enlarged to it.",
            stacklevel=2,
        )
        side = min(math.ceil(needed * 1.25), largest)
    (around_y, around_x), (slack_y, slack_x) = sides(needed, aspect), sides(side - needed, aspect)
    window_height, window_width = sides(side, aspect)
    windows = []
    for shift_y in (0.5, 0.25, 0.75):
        for shift_x in (0.5, 0.25, 0.75):
            x = int(np.clip((left + right - around_x) // 2 - slack_x * shift_x, 0, width - window_width))
            y = int(np.clip((top + bottom - around_y) // 2 - slack_y * shift_y, 0, height - window_height))
            windows.append((x, y, x + window_width, y + window_height))
    return list(dict.fromkeys(windows))


@dataclass
class TwinIndex:
    """Twins of a model, among which a photograph's nearest is looked up.

    Attributes:
        latents: object z of seeds 0, 1, ..., (N, z_dim).
        images: their twins in [0, 1], (N, C h w).
        size: (h, w), of which the shorter side is the model's or `COMPARED_SIZE`.
        squares: of them.
        spread: root mean square difference of two random ones, in levels of 255.
    """

    latents: Tensor
    images: Tensor
    size: tuple[int, int]
    squares: Tensor
    spread: float

    @classmethod
    def of(cls, network: Any, latents: Tensor) -> TwinIndex:
        """Draw the twins of latents (N, z_dim), or load those that were drawn before.

        They lie beside what was loaded from the Hub, by the hash of the model's tensors. What does not fit or is
        damaged is drawn anew; where nothing can be written, it is drawn each time.
        """
        path = (
            Path(constants.HF_HOME) / "dfmgan_hf" / f"twins-{module_sha256(network)[:32]}-{len(latents)}.safetensors"
        )
        size = sides(min(network.config["resolution"], COMPARED_SIZE), network.config["aspect"])
        images = _load_twins(path, (len(latents), network.config["image_channels"], *size))
        if images is None:
            images = _draw_twins(network, latents, size)
            with suppress(OSError, SafetensorError), whole_file(path) as aside:
                safetensors.torch.save_file({"images": images}, aside, {"sha256": tensors_sha256({"images": images})})
        images = images.flatten(1).to(torch.float32) / 255
        apart = (images - images.roll(1, 0)).square().mean(dim=1).sqrt()
        return cls(latents, images, size, images.square(), 255 * float(apart.median()))

    def nearest(self, view: Tensor, mask: Array) -> tuple[float, int, float]:
        """Find the twin that differs least from a photograph around a mask, once it is as bright.

        Args:
            view: (C, H, W) in [0, 1].
            mask: bool (H, W).

        Returns:
            The root mean square difference in levels of 255, the twin's number, and the photograph's brightness
            divided by the twin's (the least squares factor, from 1/2 to 2).
        """
        shorter = min(self.size)
        near = torch.from_numpy(mask)[None, None].to(torch.float32)
        near = F.interpolate(near, size=self.size, mode="area")
        near = F.max_pool2d((near > 0).to(torch.float32), shorter // 4 + 1, 1, shorter // 8)
        weight = (0.1 + near).expand(1, len(view), -1, -1).flatten()  # the rest of the product says how it lies
        photograph = F.interpolate(view[None], size=self.size, mode="area").flatten()
        # |g t - p|^2 of all twins t at once
        products, squares = self.images @ (weight * photograph), self.squares @ weight
        gains = (products / squares.clamp_min(1e-6)).clamp(1 / LARGEST_GAIN, LARGEST_GAIN)
        errors = gains.square() * squares - 2 * gains * products + (weight * photograph.square()).sum()
        distances = 255 * (errors.clamp_min(0) / weight.sum()).sqrt()
        number = int(distances.argmin())
        return float(distances[number]), number, float(gains[number])


def _load_twins(path: Path, shape: tuple[int, ...]) -> Tensor | None:
    try:
        with safetensors.safe_open(path, "pt") as file:
            images, digest = file.get_tensor("images"), (file.metadata() or {}).get("sha256")
    except (OSError, SafetensorError):
        return None
    fits = tuple(images.shape) == shape and images.dtype == torch.uint8
    return images if fits and tensors_sha256({"images": images}) == digest else None


def _draw_twins(network: Any, latents: Tensor, size: tuple[int, int]) -> Tensor:
    parts = []
    with hold_weights(network):
        for latent in tqdm(latents.to(network.device), desc="Drawing twins, once for this model", disable=None):
            image = StyleGAN2Generator.forward(network, latent[None], noise_mode="const").images
            image = F.interpolate(image.to(torch.float32), size=size, mode="area")
            parts.append(((image.clamp(-1, 1) + 1) * 127.5).round().to("cpu", torch.uint8))
    return torch.cat(parts)


# --- The difference, and how it is laid on ---


def draw_defect(
    network: Any, latent: Tensor, defect: Tensor, mask: Array, kind: str | None = None
) -> tuple[Tensor, Tensor]:
    """Return an image with a defect and its twin, float32 (C, H, W) in [0, 1].

    Args:
        latent, defect: z of the twin and of the defect, (z_dim,).
        mask: where it goes, bool (H, W).
        kind: of defect, of a model that knows several.
    """
    device = network.device
    output = network(
        latent[None].to(device),
        defect[None].to(device),
        kinds=None if kind is None else network.numbers_of([kind]),
        noise_mode="const",
        return_defect_free=True,
        masks=torch.from_numpy(mask)[None, None].to(device),
    )
    pictures = (output.images, output.defect_free_images)
    image, twin = ((x[0].to("cpu", torch.float32).clamp(-1, 1) + 1) / 2 for x in pictures)
    return image, twin


def hidden(difference: Tensor) -> Tensor:
    """Return how much a defect hides of what was there, (1, H, W) from 0 to 1, from what it changes, (C, H, W)."""
    largest = F.pad(difference.abs().amax(dim=0)[None, None], (1, 1, 1, 1), mode="replicate")
    return (F.avg_pool2d(largest, 3, 1)[0] * 255 / HIDES).clamp(max=1)


def faded(mask: Array, width: float) -> Array:
    """Return weights, float32 (H, W): 0 beside the mask, rising over `width` pixels to 1 in it."""
    weight = np.zeros(mask.shape, dtype=np.float32)
    if not mask.any():
        return weight
    reach = max(round(width), 1)
    left, top, right, bottom = bounding_box(mask)
    around = np.pad(mask, reach, mode="edge")[top : bottom + 2 * reach, left : right + 2 * reach]
    x = torch.from_numpy(around)[None, None].to(torch.float32)
    share = F.avg_pool2d(F.avg_pool2d(x, (2 * reach + 1, 1), 1), (1, 2 * reach + 1), 1)[0, 0]
    # The root leaves a scratch that is thinner than the edge more than its share.
    weight[top:bottom, left:right] = share.sqrt().numpy() * mask[top:bottom, left:right]
    return weight


def colour_cast(pixels: Array, weight: Array) -> Array:
    """Return each channel's mean over that of all three, (3,): a grey defect takes on the product's colour."""
    means = (pixels * weight[:, :, None]).sum(axis=(0, 1)) / max(weight.sum(), 1e-6) + 1e-6  # black has no colour
    return (means / means.mean()).astype(np.float32)


def add_grain(painted: Array, photograph: Array, weight: Array) -> None:
    """Add noise to a painted part where it has less of it than the photograph beside it had.

    Args:
        painted: float32 (H, W, C), changed in place.
        photograph: (H, W, C).
        weight: see `faded`.
    """
    inside = weight >= 1
    wanted, there = _noise(photograph, inside), _noise(painted, inside)
    missing = np.sqrt(np.maximum(wanted**2 - there**2, 0))
    if missing.any():
        generator = np.random.default_rng(int(photograph[inside].sum()) % 2**32)  # the same photograph, the same noise
        painted += generator.standard_normal(painted.shape, dtype=np.float32) * missing * weight[:, :, None]


def _noise(pixels: Array, where: Array) -> Array:
    """Return the standard deviation of each channel's noise (Immerkaer 1996: what a second difference leaves)."""
    x = pixels.astype(np.float32)
    lines = x[:-2] - 2 * x[1:-1] + x[2:]
    second = lines[:, :-2] - 2 * lines[:, 1:-1] + lines[:, 2:]
    chosen = second[where[1:-1, 1:-1]]
    if len(chosen) == 0:
        return np.zeros(x.shape[2], dtype=np.float32)
    return (np.median(np.abs(chosen), axis=0) / 0.6745 / 6).astype(np.float32)


def keep_visible(photograph: Photograph, painted: Array, windows: Sequence[Box]) -> tuple[Array, Array]:
    """Return the painted photograph, and its label: the pixels that have visibly changed. All others are as before.

    Args:
        photograph: as it was.
        painted: float32 (H, W, C), in its levels.
        windows: that have been painted into.

    Returns:
        Pixels like the photograph's, and bool (H, W).
    """
    image, label = photograph.pixels.copy(), np.zeros(photograph.size, dtype=bool)
    least = max(VISIBLE * photograph.highest / 255, 1)
    for window in windows:
        before = crop(photograph.pixels, window)
        rounded = crop(painted, window).round().clip(0, photograph.highest).astype(before.dtype)
        visible = np.abs(rounded.astype(np.int32) - before.astype(np.int32)).max(axis=2) >= least
        crop(label, window)[:] = visible
        crop(image, window)[:] = np.where(visible[:, :, None], rounded, before)
    return image, label
