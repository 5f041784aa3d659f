"""Crop&Paste (Lin et al. 2021): the defect's pixels, cut out along its mask, laid over a good photograph.

Nothing is trained. A reconstruction: the paper is about segmentation, and this is its augmentation alone, as far as
DFMGAN describes it: each pair of a good photograph and one of a defect gives one image, so nothing about the place is
random. Whether the authors paste the mask or its bounding box, and at which size, is not known: by default it is the
mask, at the final size (`region`, `paste_resolution`). The other options are ours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor

from ..data import ImageMaskDataset
from ..data.transforms import fit_to_square, resize_mask
from ..metrics.sampler import Samples
from .method import Method, SamplerRequest

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class CropPasteOptions:
    """What Crop&Paste lets choose; by default the defect stays where it was, with a sharp edge.

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
        image_channels: 1 (grey) or 3 (RGB).
    """

    region: Literal["mask", "box"] = "mask"
    paste_resolution: int | None = None
    blend: Literal["paste", "poisson"] = "paste"
    feather: float = 0.0
    max_shift: float = 0.0
    max_rotation: float = 0.0
    image_channels: Literal[1, 3] = 3


class CropPasteSampler:
    """Every pair of a good photograph and one of a defect, once each.

    Args:
        good: defect-free photographs.
        defects: photographs of the defect with masks, of the same size.
        options: see `CropPasteOptions`.
        resolution: side of the images; None for that of the photographs.

    Raises:
        ValueError: the defects have no masks, or other sizes or channels than the good photographs; these are smaller
            than `resolution`.
        ImportError: OpenCV is needed and not installed.
    """

    def __init__(
        self,
        good: ImageMaskDataset,
        defects: ImageMaskDataset,
        options: CropPasteOptions | None = None,
        resolution: int | None = None,
    ) -> None:
        self.options = options or CropPasteOptions()
        if defects.masks is None:
            raise ValueError("Crop&Paste cuts defects out along their masks, but the photographs have none.")
        if good.images.shape[1:] != defects.images.shape[1:]:
            raise ValueError(
                f"Good photographs are {tuple(good.images.shape[1:])} and those of the defect "
                f"{tuple(defects.images.shape[1:])}; load both with the same resolution and channels."
            )
        self.resolution = resolution or good.images.shape[-1]
        if good.images.shape[-1] < self.resolution:
            raise ValueError(
                f"`paste_resolution` is {good.images.shape[-1]}, less than the {self.resolution} pixels of the "
                "images; leave it out, or give a larger one."
            )
        if self.options.blend == "poisson":
            _import_cv2()
        self.good, self.defects, self.masks = good.images, defects.images, defects.masks

    def __len__(self) -> int:
        """Pairs, and thus images."""
        return len(self.good) * len(self.defects)

    @property
    def settings(self) -> dict[str, Any]:
        """For results."""
        numbers = {"num_good": len(self.good), "num_defects": len(self.defects), "num_available": len(self)}
        return {**numbers, **asdict(self.options)}

    def sample(self, n: int, generator: torch.Generator) -> Samples:
        """Draws n different pairs, in an order that follows from a seed drawn from `generator`.

        Raises:
            ValueError: there are fewer pairs.
        """
        seed = int(torch.randint(2**31, (), generator=generator, device=generator.device))
        return self.sample_at(range(n), seed)

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draws the pairs of these numbers, in the order that `seed` decides; it decides on shift and rotation too.

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
            none = torch.empty((0, self.good.shape[1], self.resolution, self.resolution), dtype=torch.uint8)
            return none, none[:, :1]
        images, masks = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(masks)

    def _paste(self, good_index: int, defect_index: int, seed: int) -> tuple[Tensor, Tensor]:
        """One pair: uint8 (C, R, R) and (1, R, R)."""
        good = _to_array(self.good[good_index])
        defect, mask = _to_array(self.defects[defect_index]), self.masks[defect_index, 0].numpy() > 0
        if mask.any():
            if self.options.max_shift > 0 or self.options.max_rotation > 0:
                defect, mask = self._move(defect, mask, np.random.default_rng(seed))
            region = _fill_box(mask) if self.options.region == "box" else mask
            join = _poisson if self.options.blend == "poisson" else self._blend
            good = join(good, defect, region)
        if len(mask) != self.resolution:
            good, mask = fit_to_square(good, None, self.resolution)[0], resize_mask(mask, self.resolution)
        image = torch.from_numpy(good.transpose(2, 0, 1).copy())
        return image, torch.from_numpy(mask)[None].to(torch.uint8) * 255

    def _blend(self, good: Array, defect: Array, mask: Array) -> Array:
        """(1 - M) g + M d, with M, what is cut out, softened inwards by `feather`."""
        weight = mask.astype(np.float32)
        if self.options.feather > 0:
            soft = Image.fromarray(mask.astype(np.uint8) * 255).filter(ImageFilter.GaussianBlur(self.options.feather))
            weight *= np.asarray(soft, dtype=np.float32) / 255
        weight = weight[:, :, None]
        return np.round((1 - weight) * good + weight * defect).astype(np.uint8)

    def _move(self, defect: Array, mask: Array, random: np.random.Generator) -> tuple[Array, Array]:
        """The defect and its mask turned about its middle, then shifted as far as it stays in the picture."""
        angle = random.uniform(-self.options.max_rotation, self.options.max_rotation)
        top, bottom, left, right = _box(mask)
        centre = ((left + right) / 2, (top + bottom) / 2)
        turned = _from_array(defect).rotate(angle, Image.Resampling.BICUBIC, center=centre)
        turned_mask = np.asarray(
            Image.fromarray(mask.astype(np.uint8)).rotate(angle, Image.Resampling.NEAREST, center=centre)
        ).astype(bool)
        if turned_mask.any():
            defect, mask = np.asarray(turned).reshape(defect.shape), turned_mask
        top, bottom, left, right = _box(mask)
        side = len(mask)
        limit = round(self.options.max_shift * side)
        down = int(random.integers(-min(top, limit), min(side - bottom, limit) + 1))
        across = int(random.integers(-min(left, limit), min(side - right, limit) + 1))
        return np.roll(defect, (down, across), (0, 1)), np.roll(mask, (down, across), (0, 1))


def _box(mask: Array) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a mask's bounding box; bottom and right are outside."""
    rows, columns = np.nonzero(mask.any(axis=1))[0], np.nonzero(mask.any(axis=0))[0]
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


def _fill_box(mask: Array) -> Array:
    top, bottom, left, right = _box(mask)
    filled = np.zeros_like(mask)
    filled[top:bottom, left:right] = True
    return filled


def _to_array(image: Tensor) -> Array:
    return image.permute(1, 2, 0).numpy()


def _from_array(image: Array) -> Image.Image:
    return Image.fromarray(image[:, :, 0] if image.shape[2] == 1 else np.ascontiguousarray(image))


def _import_cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise ImportError("blend='poisson' needs OpenCV: `pip install 'dfmgan-hf[poisson]'`.") from error
    return cv2


def _poisson(good: Array, defect: Array, mask: Array) -> Array:
    """The defect's gradients inside of the mask, the good photograph's values at its edge (Perez et al. 2003)."""
    cv2 = _import_cv2()
    # OpenCV wants colours and a mask that is clear of the border, and places the middle of the mask's bounding box.
    padded = [np.pad(np.broadcast_to(x, (*x.shape[:2], 3)), ((2, 2), (2, 2), (0, 0)), "edge") for x in (defect, good)]
    inside = np.pad(mask.astype(np.uint8) * 255, 2)
    top, bottom, left, right = _box(inside > 0)
    centre = (left + (right - left) // 2, top + (bottom - top) // 2)
    blended = cv2.seamlessClone(*map(np.ascontiguousarray, padded), inside, centre, cv2.NORMAL_CLONE)
    return np.where(mask[:, :, None], blended[2:-2, 2:-2, : good.shape[2]], good)


def open_sampler(request: SamplerRequest) -> CropPasteSampler:
    """Draws with the photographs of the request, at its resolution."""
    options: CropPasteOptions = request.options
    size = (options.paste_resolution or request.resolution, options.image_channels)
    return CropPasteSampler(request.load_good(*size), request.load_defects(*size), options, request.resolution)


METHOD = Method(
    name="crop_paste",
    title="Crop&Paste",
    citation=(
        "D. Lin, Y. Cao, W. Zhu, Y. Li: Few-Shot Defect Segmentation Leveraging Abundant Defect-Free Training Samples "
        "Through Normal Background Regularization and Crop-and-Paste Operation. ICME 2021."
    ),
    open_sampler=open_sampler,
    drawing=CropPasteOptions,
    has_masks=True,
    needs_masks=True,
    is_reconstruction=True,
)
