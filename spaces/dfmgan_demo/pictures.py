"""What the page shows of a triplet: picture files, outlines, an animation."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from drawing import Triplet
from PIL import Image
from PIL.PngImagePlugin import PngInfo

# Small pictures are enlarged in files that are looked at elsewhere.
FRAME_PIXELS = 256
GAP_PIXELS = 6
FRAME_MILLISECONDS = 80


def enlarge(image: Image.Image, pixels: int, resampling: Image.Resampling) -> Image.Image:
    """`image` with a shorter side of `pixels`; a smaller one grows by a whole factor, to that or a little more."""
    shorter = min(image.size)
    return scaled(image, pixels if shorter >= pixels else -(-pixels // shorter) * shorter, resampling)


def scaled(image: Image.Image, shorter: int, resampling: Image.Resampling) -> Image.Image:
    """`image` with a shorter side of so many pixels."""
    return image.resize([side * shorter // min(image.size) for side in image.size], resampling)


def outline_path(mask: Image.Image) -> str:
    """The mask's outline as an SVG path in pixels: the border between on and off, exact at any magnification."""
    on = np.pad(np.asarray(mask) > 0, 1)
    steps = []
    # An edge between two rows runs along x, one between two columns along y; neighbours are joined into one line.
    for y, row in enumerate(on[1:] != on[:-1]):
        steps += [f"M{start - 1} {y}H{stop - 1}" for start, stop in _runs(row)]
    for x, column in enumerate((on[:, 1:] != on[:, :-1]).T):
        steps += [f"M{x} {start - 1}V{stop - 1}" for start, stop in _runs(column)]
    return "".join(steps)


def png(image: Image.Image, about: dict[str, str] | None = None) -> bytes:
    """A PNG file that says how it was made, in text entries that image viewers show."""
    text = PngInfo()
    for name, value in (about or {}).items():
        text.add_itxt(name, value)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True, pnginfo=text)
    return buffer.getvalue()


def data_uri(content: bytes, format: Literal["png", "webp"] = "png") -> str:
    """A picture's file inside a URI."""
    return f"data:image/{format};base64," + base64.b64encode(content).decode()


def webp(image: Image.Image) -> bytes:
    """A WebP file to look at."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()


def stretch(image: Image.Image) -> tuple[float, float]:
    """Slope and intercept (levels from 0 to 1) that spread a dark or flat picture over all levels."""
    low, high = np.percentile(np.asarray(image.convert("L")), (1, 99)) / 255
    slope = 1 / max(high - low, 0.05)
    return round(float(slope), 3), round(float(-low * slope), 3)


def save_animation(triplets: Sequence[Triplet], path: Path) -> None:
    """An endless animation there and back, defect image beside mask, as lossless WebP."""
    frames = []
    for triplet in triplets:
        image = enlarge(triplet.image, FRAME_PIXELS, Image.Resampling.BICUBIC)
        mask = enlarge(triplet.mask, FRAME_PIXELS, Image.Resampling.NEAREST)
        frame = Image.new("RGB", (2 * image.width + GAP_PIXELS, image.height), (127, 127, 127))
        frame.paste(image, (0, 0))
        frame.paste(mask, (image.width + GAP_PIXELS, 0))
        frames.append(frame)
    frames += frames[-2:0:-1]
    frames[0].save(
        path,
        format="WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=FRAME_MILLISECONDS,
        loop=0,
        lossless=True,
        method=0,
    )


def _runs(changes: np.ndarray) -> list[tuple[int, int]]:
    """Starts and ends of the runs of True."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], changes, [False])).astype(np.int8)))
    return [(int(start), int(stop)) for start, stop in edges.reshape(-1, 2)]
