"""A page of generated images, each beside its nearest real one: a person sees at once whether a model copies."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

_MARGIN = 8
_GAP = 2
_TEXT_HEIGHT = 14
_OUTLINE = (255, 64, 0)


def nearest_sheet(
    images: Tensor,
    masks: Tensor | None,
    real: Tensor,
    indices: Tensor,
    distances: Tensor,
    file_names: Sequence[str],
    *,
    pairs: int = 12,
    columns: int = 3,
    min_side: int = 128,
    note: str = "",
) -> Image.Image:
    """Draws generated images beside their nearest real ones.

    The upper half of the page has the images that are closest to a real one, the worst suspects; the lower half has
    the first images as they were drawn. Masks are outlined on the generated images.

    Args:
        images: generated, uint8 (K, 3, H, W).
        masks: of the generated images, uint8 (K, 1, H, W), or None.
        real: uint8 (M, 3 or 1, H, W).
        indices: nearest real image of each generated one, (K,).
        distances: its LPIPS distance, (K,).
        file_names: M names, written under the real images.
        pairs: pairs in each half.
        columns: pairs in a row.
        min_side: smaller images are enlarged by a whole factor to at least this.
        note: a line at the top.

    Returns:
        The page, RGB.
    """
    pairs = min(pairs, len(images))
    side = max(images.shape[2:])
    scale = -(-min_side // side) if side < min_side else 1
    width, height = scale * images.shape[3], scale * images.shape[2]
    cell_width, cell_height = 2 * width + _GAP + 2 * _MARGIN, height + _TEXT_HEIGHT + _MARGIN
    rows = -(-pairs // columns)
    header = _TEXT_HEIGHT + _MARGIN
    first = _MARGIN + (header if note else 0)
    page = Image.new(
        "RGB", (columns * cell_width + _MARGIN, first + 2 * (header + rows * cell_height)), (255, 255, 255)
    )
    pen = ImageDraw.Draw(page)
    pen.text((_MARGIN, _MARGIN), _shorten(pen, note, page.width - 2 * _MARGIN), fill=(0, 0, 0))
    halves = (
        (
            f"The {pairs} generated images (left) that are nearest to a real one (right)",
            torch.argsort(distances)[:pairs],
        ),
        (f"The first {pairs} generated images (left) and their nearest real ones (right)", torch.arange(pairs)),
    )
    for half, (title, chosen) in enumerate(halves):
        top = first + half * (header + rows * cell_height)
        pen.text((_MARGIN, top), title, fill=(0, 0, 0))
        for position, index in enumerate(chosen.tolist()):
            x = _MARGIN + position % columns * cell_width
            y = top + header + position // columns * cell_height
            neighbour = int(indices[index])
            page.paste(_picture(images[index], None if masks is None else masks[index], scale), (x, y))
            page.paste(_picture(real[neighbour], None, scale), (x + width + _GAP, y))
            label = f"{index}: LPIPS {float(distances[index]):.3f}  {file_names[neighbour]}"
            pen.text((x, y + height), _shorten(pen, label, 2 * width + _GAP), fill=(0, 0, 0))
    return page


def _picture(image: Tensor, mask: Tensor | None, scale: int) -> Image.Image:
    pixels = image.expand(3, -1, -1).permute(1, 2, 0).numpy()
    pixels = np.repeat(np.repeat(pixels, scale, axis=0), scale, axis=1)
    if mask is not None:
        pixels = pixels.copy()
        pixels[_outline(np.repeat(np.repeat(mask[0].numpy() != 0, scale, axis=0), scale, axis=1))] = _OUTLINE
    return Image.fromarray(np.ascontiguousarray(pixels))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Pixels of a mask that have a neighbour outside it."""
    padded = np.pad(mask, 1)
    inner = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    outline: np.ndarray = mask & ~inner
    return outline


def _shorten(pen: ImageDraw.ImageDraw, text: str, width: int) -> str:
    if pen.textlength(text) <= width:
        return text
    while text and pen.textlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
