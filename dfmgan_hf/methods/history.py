"""Earlier generated images, so that discriminators do not forget them (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor


class ImageHistory:
    """Keeps images, and gives half of the time an earlier one for a new one.

    Args:
        size: images to keep; 0 for none.

    Attributes:
        images: (n, C, R, R) with n up to `size`, or None before the first.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: Tensor | None = None

    def exchange(self, images: Tensor) -> Tensor:
        """Takes in new images (N, C, R, R) and returns as many.

        Until the history is full they are the new ones. Then each is, with probability 1/2, a random earlier one,
        whose place the new one takes.
        """
        shown = []
        for image in images.detach().split(1):
            kept = 0 if self.images is None else len(self.images)
            if kept < self.size:
                self.images = image.clone() if self.images is None else torch.cat([self.images, image])
                shown.append(image)
            elif self.images is not None and torch.rand(()).item() < 0.5:
                place = int(torch.randint(kept, ()))
                shown.append(self.images[place : place + 1].clone())
                self.images[place] = image[0]
            else:
                shown.append(image)
        return torch.cat(shown)
