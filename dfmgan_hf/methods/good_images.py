"""The defect-free images that SDGAN and Defect-GAN draw defects on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..pipelines import DFMGANPipeline


class Photographs:
    """Photographs as the networks see them.

    Args:
        pixels: uint8 (N, C, R, R).
        device: where they are wanted.
    """

    def __init__(self, pixels: Tensor, device: torch.device) -> None:
        self.pixels = pixels
        self.device = device

    def __len__(self) -> int:
        return len(self.pixels)

    def at(self, indices: Tensor | Sequence[int]) -> Tensor:
        """The photographs of these numbers: (n, C, R, R) in [-1, 1]."""
        index = torch.as_tensor(indices, device=self.pixels.device)
        return self.pixels[index].to(self.device).to(torch.float32) / 127.5 - 1.0

    def draw(self, n: int) -> Tensor:
        """Random ones, with replacement, by torch's global generator."""
        return self.at(torch.randint(len(self), (n,)))


class GoodImages(Protocol):
    """Defect-free images by number."""

    def pick(self, indices: Sequence[int], seed: int) -> Tensor:
        """Images (n, C, R, R) in [-1, 1], on the CPU or where they are used; image i depends on seed and i alone."""
        ...


class ShuffledPhotographs:
    """Photographs in an order that the seed decides, all of them before any comes again."""

    def __init__(self, photographs: Photographs) -> None:
        self.photographs = photographs

    def pick(self, indices: Sequence[int], seed: int) -> Tensor:
        order = torch.randperm(len(self.photographs), generator=torch.Generator().manual_seed(seed))
        return self.photographs.at([int(order[i % len(order)]) for i in indices])


class GeneratedGoodImages:
    """What a backbone of stage 1 draws with the seeds `seed + i`, so that no two are the same.

    Args:
        pipe: of stage 1.
        resolution, image_channels: what is expected of it.

    Raises:
        ValueError: it draws something else.
    """

    def __init__(self, pipe: DFMGANPipeline, resolution: int, image_channels: int) -> None:
        config = pipe.generator.config
        if (config["resolution"], config["image_channels"]) != (resolution, image_channels):
            raise ValueError(
                f"`good_model` draws {config['image_channels']} channels of {config['resolution']}x"
                f"{config['resolution']} pixels, but the model to draw defects with takes {image_channels} of "
                f"{resolution}x{resolution}; train stage 1 at that size."
            )
        self.pipe = pipe
        self.pipe.set_progress_bar_config(disable=True)

    def pick(self, indices: Sequence[int], seed: int) -> Tensor:
        pipe: Any = self.pipe  # its output's type depends on its arguments
        output = pipe(seeds=[seed + i for i in indices], batch_size=len(indices), output_type="pt")
        return output.defect_free_images * 2.0 - 1.0
