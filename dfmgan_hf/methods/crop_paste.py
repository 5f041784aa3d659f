"""Crop&Paste (Lin et al. 2021): the defect's pixels, cut out along its mask, laid over a good photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..arguments import require
from ..data.parts import bounding_box
from ..data.reading import Array
from ..data.training_set import ImageMaskDataset
from ..metrics.sampler import Samples
from .method import Method, SamplerRequest, register


@dataclass(frozen=True)
class CropPasteOptions:
    """Options of Crop&Paste; the defect stays where it was, by default with a sharp edge.

    Args:
        blend: Replace the pixels (paste), or match the surface at the edge (poisson, Perez et al. 2003), for which
            OpenCV is needed: pip install 'dfmgan-hf[poisson]'.
        image_channels: 1 (grey) or 3 (RGB).
    """

    blend: Literal["paste", "poisson"] = "paste"
    image_channels: Literal[1, 3] = 3


class CropPasteSampler:
    """Paste the defects onto the good photographs: every pair, once each.

    Args:
        good: defect-free photographs.
        defects: photographs of the defect with masks, of the same size.
        options: see `CropPasteOptions`.

    Raises:
        ValueError: the defects have no masks, or other sizes or channels than the good photographs.
        ImportError: OpenCV is needed and not installed.
    """

    def __init__(
        self, good: ImageMaskDataset, defects: ImageMaskDataset, options: CropPasteOptions | None = None
    ) -> None:
        self.options = options or CropPasteOptions()
        if defects.masks is None:
            raise ValueError("Crop&Paste cuts defects out along their masks, but the photographs have none.")
        if good.images.shape[1:] != defects.images.shape[1:]:
            raise ValueError(
                f"Good photographs are {tuple(good.images.shape[1:])} and those of the defect "
                f"{tuple(defects.images.shape[1:])}; load both with the same resolution and channels."
            )
        if self.options.blend == "poisson":
            require("cv2", purpose="blend='poisson'", extra="poisson")
        self.good, self.defects, self.masks = good.images, defects.images, defects.masks

    def __len__(self) -> int:
        """Pairs, and thus images."""
        return len(self.good) * len(self.defects)

    @property
    def settings(self) -> dict[str, Any]:
        numbers = {"num_good": len(self.good), "num_defects": len(self.defects), "num_available": len(self)}
        return {**numbers, **asdict(self.options)}

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draw the pairs of these numbers, in the order that `seed` decides.

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
        pairs = [self._paste(*divmod(int(order[i]), len(self.defects))) for i in indices]
        if not pairs:
            none = torch.empty((0, *self.good.shape[1:]), dtype=torch.uint8)
            return none, none[:, :1]
        images, masks = zip(*pairs, strict=True)
        return torch.stack(images), torch.stack(masks)

    def _paste(self, good_index: int, defect_index: int) -> tuple[Tensor, Tensor]:
        """Return one pair: uint8 (C, H, W) and (1, H, W)."""
        good, defect, mask = self.good[good_index], self.defects[defect_index], self.masks[defect_index] > 0
        image = torch.where(mask, defect, good)
        if self.options.blend == "poisson" and mask.any():
            blended = blend_poisson(_to_array(good), _to_array(defect), mask[0].numpy())
            image = torch.from_numpy(blended).permute(2, 0, 1)
        return image, mask.to(torch.uint8) * 255


def _to_array(image: Tensor) -> Array:
    return image.permute(1, 2, 0).numpy()


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
    size: dict[str, Any] = {"resolution": request.resolution, "image_channels": request.options.image_channels}
    data = request.photographs
    good, defects = data.load_good(**size), data.load_defects(request.defect, **size)
    return CropPasteSampler(good, defects, request.options)


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
