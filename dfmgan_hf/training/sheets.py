"""Sample sheets: batches of images and masks as one picture."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

MARGIN = 2
BACKGROUND = 255


def to_pixels(images: Tensor) -> Tensor:
    """Network output around [-1, 1] to uint8: (N, C, H, W) -> uint8 (N, 3, H, W) on the CPU."""
    pixels = ((images.detach().to("cpu", torch.float32) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


def tile(columns_of_images: list[Tensor], *, columns: int, min_side: int = 96) -> Image.Image:
    """Place samples in a grid; what belongs to one sample stands side by side.

    Args:
        columns_of_images: k tensors uint8 (N, 3, H, W): the k pictures of each of N samples.
        columns: samples a row.
        min_side: small pictures are enlarged, without smoothing, by the least whole factor that reaches this.
    """
    n, _, height, width = columns_of_images[0].shape
    factor = max(1, -(-min_side // max(height, width)))
    height, width = height * factor, width * factor
    rows = -(-n // columns)
    k = len(columns_of_images)
    cell_width = k * width + (k - 1) * MARGIN + 3 * MARGIN
    cell_height = height + 3 * MARGIN
    sheet = torch.full((3, rows * cell_height, columns * cell_width), BACKGROUND, dtype=torch.uint8)
    for i in range(n):
        top = (i // columns) * cell_height + MARGIN
        for j, images in enumerate(columns_of_images):
            left = (i % columns) * cell_width + j * (width + MARGIN) + MARGIN
            picture = images[i].repeat_interleave(factor, 1).repeat_interleave(factor, 2)
            sheet[:, top : top + height, left : left + width] = picture
    return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())


def save_sheet(sheet: Image.Image, path: Path) -> None:
    """Write a sheet as PNG, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        sheet.save(partial, format="PNG")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
