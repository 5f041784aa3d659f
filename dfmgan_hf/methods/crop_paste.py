"""Crop&Paste (Lin et al. 2021): the defect's pixels, cut out along its mask, laid over a good photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..arguments import require
from ..data.foreground import find_foreground
from ..data.parts import bounding_box
from ..data.preparation import Size, fit_to_size, height_and_width, resize_mask
from ..data.reading import Array
from ..data.training_set import ImageMaskDataset
from ..metrics.sampler import Samples
from .method import Method, SamplerRequest, register

PLACE_TRIES = 100
"""Random places that are tried for a defect that has to lie on the product."""


@dataclass(frozen=True)
class CropPasteOptions:
    """Options of Crop&Paste; by default the defect stays where it was, with a sharp edge.

    Args:
        region: What is cut out: the defect along its mask, or the mask's bounding box (box), with some of the good
            surface around the defect. The mask that comes with the image is the defect's in both cases.
        paste_resolution: Side at which the photographs are pasted, before the result is brought to the final size;
            None for the final size.
        blend: Replace the pixels (paste), or match the surface at the edge (poisson, Perez et al. 2003), for which
            OpenCV is needed: pip install 'dfmgan-hf[poisson]'.
        feather: Standard deviation in pixels of a soft edge; it lies inside of the region, so the mask stays exact.
        max_shift: Largest random shift, as a share of the side. The defect stays whole.
        max_rotation: Largest random rotation about the defect's middle, in degrees.
        foreground: Where a defect that is shifted or turned may go: anywhere (none); onto the product, as found by its
            difference to a plain background (auto, for which OpenCV is needed), or as masks in a folder of this name
            say, named like the good photographs. A defect for which chance finds no place on the product, all of it,
            in 100 tries stays where it was, on the product or not.
        image_channels: 1 (grey) or 3 (RGB).
    """

    region: Literal["mask", "box"] = "mask"
    paste_resolution: int | None = None
    blend: Literal["paste", "poisson"] = "paste"
    feather: float = 0.0
    max_shift: float = 0.0
    max_rotation: float = 0.0
    foreground: str = "none"
    image_channels: Literal[1, 3] = 3


class CropPasteSampler:
    """Paste the defects onto the good photographs: every pair, once each.

    Args:
        good: defect-free photographs.
        defects: photographs of the defect with masks, of the same size.
        options: see `CropPasteOptions`.
        resolution: side of the images, or height and width; None for those of the photographs.
        foregrounds: where the product is on each good photograph, bool (N, H, W); None for no constraint.

    Raises:
        ValueError: the defects have no masks, or other sizes or channels than the good photographs; these are smaller
            than `resolution`; there are foregrounds for defects that stay where they are, or not as many as
            photographs.
        ImportError: OpenCV is needed and not installed.
    """

    def __init__(
        self,
        good: ImageMaskDataset,
        defects: ImageMaskDataset,
        options: CropPasteOptions | None = None,
        resolution: Size | None = None,
        foregrounds: Tensor | None = None,
    ) -> None:
        self.options = options or CropPasteOptions()
        if defects.masks is None:
            raise ValueError("Crop&Paste cuts defects out along their masks, but the photographs have none.")
        if good.images.shape[1:] != defects.images.shape[1:]:
            raise ValueError(
                f"Good photographs are {tuple(good.images.shape[1:])} and those of the defect "
                f"{tuple(defects.images.shape[1:])}; load both with the same resolution and channels."
            )
        height, width = good.images.shape[-2:]
        self.size = (height, width) if resolution is None else height_and_width(resolution)
        if min(height, width) < min(self.size):
            raise ValueError(
                f"`paste_resolution` is {min(height, width)}, less than the {min(self.size)} pixels of the images; "
                "leave it out, or give a larger one."
            )
        if self.options.blend == "poisson":
            require("cv2", purpose="blend='poisson'", extra="poisson")
        if foregrounds is not None and not self._moves:
            raise ValueError(
                "`foreground` says where a defect may be moved to, but it stays where it is: give --max_shift or "
                "--max_rotation too, or leave it out."
            )
        if foregrounds is not None and foregrounds.shape != (len(good), *good.images.shape[2:]):
            raise ValueError(
                f"Foregrounds are {tuple(foregrounds.shape)}, but should be {(len(good), *good.images.shape[2:])}, "
                "one of each good photograph."
            )
        self.foregrounds = foregrounds
        self.good, self.defects, self.masks = good.images, defects.images, defects.masks

    @property
    def _moves(self) -> bool:
        return self.options.max_shift > 0 or self.options.max_rotation > 0

    def __len__(self) -> int:
        """Pairs, and thus images."""
        return len(self.good) * len(self.defects)

    @property
    def settings(self) -> dict[str, Any]:
        numbers = {"num_good": len(self.good), "num_defects": len(self.defects), "num_available": len(self)}
        return {**numbers, **asdict(self.options)}

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draw the pairs of these numbers, in the order that `seed` decides; it decides on shift and rotation too.

        Raises:
            ValueError: a number is not below that of the pairs.
        """
        if len(indices) and max(indices) >= len(self):
            raise ValueError(
                f"Crop&Paste makes one image of each pair: {len(self.good)} good photographs and {len(self.defects)} "
                f"of the defect are {len(self)} pairs, so image number {max(indices)} does not exist. Ask for at most "
                f"{len(self)} images."
            )
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(seed))
        pairs = [self._paste(*divmod(int(order[i]), len(self.defects)), seed + i) for i in indices]
        if not pairs:
            none = torch.empty((0, self.good.shape[1], *self.size), dtype=torch.uint8)
            return none, none[:, :1]
        images, masks = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(masks)

    def _paste(self, good_index: int, defect_index: int, seed: int) -> tuple[Tensor, Tensor]:
        """Return one pair: uint8 (C, H, W) and (1, H, W)."""
        good = _to_array(self.good[good_index])
        defect, mask = _to_array(self.defects[defect_index]), self.masks[defect_index, 0].numpy() > 0
        if mask.any():
            if self._moves:
                allowed = None if self.foregrounds is None else self.foregrounds[good_index].numpy()
                defect, mask = self._move(defect, mask, allowed, np.random.default_rng(seed))
            region = mask
            if self.options.region == "box":
                left, top, right, bottom = bounding_box(mask)
                region = np.zeros_like(mask)
                region[top:bottom, left:right] = True
            join = blend_poisson if self.options.blend == "poisson" else self._blend
            good = join(good, defect, region)
        if mask.shape != self.size:
            good, mask = fit_to_size(good, None, self.size)[0], resize_mask(mask, self.size)
        image = torch.from_numpy(good.transpose(2, 0, 1).copy())
        return image, torch.from_numpy(mask)[None].to(torch.uint8) * 255

    def _blend(self, good: Array, defect: Array, mask: Array) -> Array:
        """Return (1 - M) g + M d, with M, what is cut out, softened inwards by `feather`."""
        weight = mask.astype(np.float32)
        if self.options.feather > 0:
            soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(self.options.feather))
            weight *= np.asarray(soft, dtype=np.float32) / 255
        weight = weight[:, :, None]
        return np.round((1 - weight) * good + weight * defect).astype(np.uint8)

    def _move(
        self, defect: Array, mask: Array, allowed: Array | None, random: np.random.Generator
    ) -> tuple[Array, Array]:
        """Return the defect and its mask turned about its middle, then shifted as far as it stays in the picture.

        With `allowed`, bool (H, W), the first of some random places that lies wholly in it; unmoved if there is none.
        """
        left, top, right, bottom = bounding_box(mask)
        centre = ((left + right) / 2, (top + bottom) / 2)
        for _ in range(1 if allowed is None else PLACE_TRIES):
            angle = random.uniform(-self.options.max_rotation, self.options.max_rotation)
            turned = Image.fromarray(mask.astype(np.uint8)).rotate(angle, Image.Resampling.NEAREST, center=centre)
            turned_mask = np.asarray(turned).astype(bool)
            turns = bool(turned_mask.any())
            base = turned_mask if turns else mask
            shift = self._shift(base, random)
            placed = np.roll(base, shift, (0, 1))
            if allowed is None or not (placed & ~allowed).any():
                if turns:
                    image = _from_array(defect).rotate(angle, Image.Resampling.BICUBIC, center=centre)
                    defect = np.asarray(image).reshape(defect.shape)
                return np.roll(defect, shift, (0, 1)), placed
        return defect, mask

    def _shift(self, mask: Array, random: np.random.Generator) -> tuple[int, int]:
        """Return pixels down and to the right, as far as the mask stays in the picture."""
        left, top, right, bottom = bounding_box(mask)
        height, width = mask.shape
        rows, columns = (round(self.options.max_shift * side) for side in (height, width))
        down = int(random.integers(-min(top, rows), min(height - bottom, rows) + 1))
        return down, int(random.integers(-min(left, columns), min(width - right, columns) + 1))


def _to_array(image: Tensor) -> Array:
    return image.permute(1, 2, 0).numpy()


def _from_array(image: Array) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image))


def blend_poisson(good: Array, defect: Array, mask: Array) -> Array:
    """Return the defect's gradients inside the mask, the good photograph's values at its edge (Perez et al. 2003)."""
    import cv2

    # OpenCV wants colours and a mask that is clear of the border, and places the middle of the mask's bounding box.
    source, target = (
        np.pad(np.broadcast_to(x, (*x.shape[:2], 3)), ((2, 2), (2, 2), (0, 0)), "edge") for x in (defect, good)
    )
    inside = np.pad(mask.astype(np.uint8) * 255, 2)
    left, top, right, bottom = bounding_box(inside)
    centre = (left + (right - left) // 2, top + (bottom - top) // 2)
    blended = cv2.seamlessClone(source, target, inside, centre, cv2.NORMAL_CLONE)
    return np.where(mask[:, :, None], blended[2:-2, 2:-2, : good.shape[2]], good)


def open_sampler(request: SamplerRequest) -> CropPasteSampler:
    """Draw with the photographs of the request, at its resolution."""
    options: CropPasteOptions = request.options
    data = request.photographs
    shape = height_and_width(request.resolution)
    shorter = options.paste_resolution or min(shape)
    size: dict[str, Any] = {
        "resolution": tuple(side * shorter // min(shape) for side in shape),
        "image_channels": options.image_channels,
    }
    good, foregrounds = data.load_good(**size), None
    if options.foreground == "auto":
        found = [find_foreground(_to_array(x), name) for x, name in zip(good.images, good.file_names, strict=True)]
        foregrounds = torch.from_numpy(np.stack(found))
    elif options.foreground != "none":
        foregrounds = data.load_foregrounds(Path(options.foreground), good.file_names, size["resolution"])
    defects = data.load_defects(request.defect, **size)
    return CropPasteSampler(good, defects, options, request.resolution, foregrounds)


METHOD = register(
    Method(
        name="crop_paste",
        title="Crop&Paste",
        citation=(
            "D. Lin, Y. Cao, W. Zhu, Y. Li: Few-Shot Defect Segmentation Leveraging Abundant Defect-Free Training "
            "Samples Through Normal Background Regularization and Crop-and-Paste Operation. ICME 2021."
        ),
        open_sampler=open_sampler,
        drawing=CropPasteOptions,
        has_masks=True,
        is_reconstruction=True,
    )
)
