"""Make pictures to look at: contact sheets of samples, with headings, captions and outlined masks."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import Tensor

from .files import whole_file

PAPER, INK, GREY = (255, 255, 255), (32, 32, 32), (128, 128, 128)
# Magenta: hardly any product has it, and it differs from grey in every kind of colour vision.
OUTLINE = (255, 0, 190)


def contact_sheet(
    samples: Sequence[Sequence[Image.Image]],
    *,
    title: str = "",
    headings: Sequence[str] = (),
    captions: Sequence[str] = (),
    columns: int = 2,
    picture_size: int = 192,
) -> Image.Image:
    """Lay out samples in a grid; the pictures of one sample stand side by side.

    Args:
        samples: N samples of k pictures each, any modes and sizes. Each picture is scaled to fit its cell; two-valued
            masks without smoothing.
        title: a line over everything.
        headings: k words over the pictures of the samples in the first row.
        captions: N short texts, written under the samples; what does not fit is cut.
        columns: samples in a row.
        picture_size: longer side of each picture, in pixels.

    Returns:
        The page, RGB.

    Raises:
        ValueError: no pictures, samples of different lengths, or as many headings or captions as fit neither.

    Example:
        >>> out = pipe(seeds=range(4))
        >>> triplets = zip(out.defect_free_images, out.masks, out.images, strict=True)
        >>> contact_sheet(list(triplets), headings=("twin", "mask", "defect"))
    """
    n, lengths = len(samples), {len(sample) for sample in samples}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(f"`samples` must hold equally many pictures each, at least one, but holds {sorted(lengths)}.")
    (k,) = lengths
    for name, texts, expected in (("headings", headings, k), ("captions", captions, n)):
        if len(texts) not in (0, expected):
            raise ValueError(f"`{name}` must hold {expected} texts or none, but holds {len(texts)}.")
    if columns < 1:
        raise ValueError(f"`columns` must be at least 1, but is {columns}.")

    size = max(11, picture_size // 13)
    font, title_font = ImageFont.load_default(size), ImageFont.load_default(18)
    gap, line = max(2, picture_size // 32), math.ceil(1.5 * size)
    columns, rows = min(columns, n), math.ceil(n / columns)
    fitted_samples = [[_fit(picture, picture_size) for picture in sample] for sample in samples]
    tallest = max(picture.height for sample in fitted_samples for picture in sample)
    width, height = k * (picture_size + gap) + gap, tallest + 2 * gap + (line if captions else 0)
    top = 2 * gap + (30 if title else 0) + (line if headings else 0)
    page = Image.new(
        "RGB",
        (max(columns * width + gap, math.ceil(title_font.getlength(title)) + 4 * gap), top + rows * height + gap),
        PAPER,
    )
    pen = ImageDraw.Draw(page)
    pen.text((2 * gap, 2 * gap), title, INK, title_font)
    for number, sample in enumerate(fitted_samples):
        y, left = top + number // columns * height, gap + number % columns * width
        for position, fitted in enumerate(sample):
            x = left + position * (picture_size + gap)
            corner = x + (picture_size - fitted.width) // 2, y + (tallest - fitted.height) // 2
            page.paste(fitted, corner)
            # A frame, because a white mask would vanish on the paper.
            far = corner[0] + fitted.width, corner[1] + fitted.height
            pen.rectangle((corner[0] - 1, corner[1] - 1, *far), outline=GREY)
            if headings and number < columns:
                pen.text((x + picture_size // 2, top - gap), headings[position], INK, font, anchor="ms")
        if captions:
            text = captions[number]
            while text != "..." and font.getlength(text) > width - 2 * gap:
                text = text.rstrip(".")[:-1] + "..."
            pen.text((left, y + tallest + gap), text, GREY, font)
    return page


def stack(pages: Sequence[Image.Image], title: str = "") -> Image.Image:
    """Put pages under each other, flush left, below a title for all of them."""
    font, top = ImageFont.load_default(24), 48 if title else 0
    width = max([math.ceil(font.getlength(title)) + 24, *(page.width for page in pages)])
    whole = Image.new("RGB", (width, top + sum(page.height for page in pages)), PAPER)
    ImageDraw.Draw(whole).text((12, 12), title, INK, font)
    for page in pages:
        whole.paste(page, (0, top))
        top += page.height
    return whole


def outlined(photograph: Image.Image, mask: Image.Image, size: int, pixels: int = 2) -> Image.Image:
    """Scale a photograph to fit `size` and draw a line just outside its mask, so that a tiny defect stays visible.

    Args:
        photograph: any mode.
        mask: of the same size; non-zero is defect.
        size: longer side of the result, in pixels.
        pixels: width of the line.
    """
    picture = _fit(photograph, size)
    # Any coverage at all counts: an outline may be too wide, a defect must not disappear.
    covered = mask.convert("L").point(lambda value: 255 * (value > 0)).resize(picture.size, Image.Resampling.BOX)
    covered = covered.point(lambda value: 255 * (value > 0))
    grown = covered.filter(ImageFilter.MaxFilter(2 * pixels + 1))
    grown.paste(0, mask=covered)
    picture.paste(OUTLINE, mask=grown)
    return picture


def save_sheet(sheet: Image.Image, path: Path | str) -> Path:
    """Write a sheet as PNG, whole or not at all, and return its path."""
    with whole_file(path) as aside:
        sheet.save(aside, "PNG")
    return Path(path)


def html_picture(picture: Image.Image, alt: str) -> str:
    """Return an HTML element that holds a picture itself, as JPEG; `alt` says what it shows."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    content = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img src="data:image/jpeg;base64,{content}" alt="{escape(alt)}">'


def html_page(title: str, body: str, style: str) -> str:
    """Return an HTML page of a title and a body, both HTML, and CSS."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
{style}
</style>
</head>
<body>
{body}
</body>
</html>
"""


def sheet_of(*images: Tensor, headings: Sequence[str] = (), columns: int = 8) -> Image.Image:
    """Lay out network output: k tensors around [-1, 1], (N, 1 or 3, H, W), one for each picture of a sample."""
    pictures = [to_pictures(to_pixels(batch)) for batch in images]
    height, width = images[0].shape[-2:]
    size = round(96 * math.sqrt(max(height, width) / min(height, width)))  # strips as large as squares
    return contact_sheet(list(zip(*pictures, strict=True)), headings=headings, columns=columns, picture_size=size)


def to_pixels(images: Tensor) -> Tensor:
    """Turn network output around [-1, 1], (N, C, H, W), to uint8 (N, 3, H, W) on the CPU; C is 1 or 3."""
    pixels = ((images.detach().to("cpu", torch.float32) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return pixels.expand(-1, 3, -1, -1)


def to_pictures(pixels: Tensor) -> list[Image.Image]:
    """Turn uint8 (N, 3 or 1, H, W) into N PIL images, RGB."""
    return [Image.fromarray(image.expand(3, -1, -1).permute(1, 2, 0).contiguous().numpy()) for image in pixels.cpu()]


def _fit(picture: Image.Image, size: int) -> Image.Image:
    is_mask = not any(picture.convert("L").histogram()[1:255])
    scale = size / max(picture.size)
    fitted = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    if scale < 1:
        resampling = Image.Resampling.BOX if is_mask else Image.Resampling.LANCZOS
    else:
        resampling = Image.Resampling.NEAREST if is_mask else Image.Resampling.BICUBIC
    return picture.convert("RGB").resize(fitted, resampling)
