"""A contact sheet: what belongs to one sample side by side, sample under sample, with titles over the columns."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from PIL import Image, ImageDraw, ImageFont

PAPER, INK, GREY = (255, 255, 255), (32, 32, 32), (128, 128, 128)
GAP = 6


def contact_sheet(
    columns: Mapping[str, Sequence[Image.Image]],
    *,
    title: str = "",
    labels: Sequence[str] | None = None,
    groups: int = 2,
    picture_size: int = 192,
) -> Image.Image:
    """Lay out the pictures of several samples on one page.

    Args:
        columns: title of each column and its N pictures, for example {"defect-free": ..., "mask": ..., "defect": ...}.
            Pictures of mode "1" and pictures that are black and white only are enlarged without smoothing, the others
            smoothly.
        title: a line over everything.
        labels: N short texts, written at the left of the samples.
        groups: sets of columns side by side; sample 0 is at the top of the first.
        picture_size: height and width of each picture on the page, in pixels.

    Returns:
        The page, RGB.

    Raises:
        ValueError: columns or labels of different lengths, no pictures, less than one group.
    """
    counts = {name: len(pictures) for name, pictures in columns.items()}
    n = max(counts.values(), default=0)
    if n == 0 or len(set(counts.values())) != 1:
        raise ValueError(f"`columns` must hold equally many pictures each, at least one, but holds {counts}.")
    if labels is not None and len(labels) != n:
        raise ValueError(f"`labels` must hold {n} texts, one for each sample, but holds {len(labels)}.")
    if groups < 1:
        raise ValueError(f"`groups` must be at least 1, but is {groups}.")

    small, large = ImageFont.load_default(picture_size // 13), ImageFont.load_default(picture_size // 9)
    margin, line = picture_size // 6, picture_size // 7
    label_width = int(max(map(small.getlength, labels))) + GAP if labels is not None else 0
    group_width = label_width + len(columns) * (picture_size + GAP) - GAP
    rows = math.ceil(n / groups)
    groups = math.ceil(n / rows)
    top = margin + (line + margin // 2 if title else 0) + line
    page = Image.new(
        "RGB",
        (2 * margin + groups * group_width + (groups - 1) * margin, top + rows * (picture_size + GAP) - GAP + margin),
        PAPER,
    )
    pen = ImageDraw.Draw(page)
    pen.text((margin, margin), title, fill=INK, font=large)
    for group in range(groups):
        samples = slice(group * rows, (group + 1) * rows)
        left = margin + group * (group_width + margin)
        for k, (name, pictures) in enumerate(columns.items()):
            x = left + label_width + k * (picture_size + GAP)
            pen.text((x + picture_size // 2, top - GAP), name, fill=INK, font=small, anchor="ms")
            for row, picture in enumerate(pictures[samples]):
                y = top + row * (picture_size + GAP)
                page.paste(_enlarged(picture, picture_size), (x, y))
                # A frame, because a white mask would vanish on the paper.
                pen.rectangle((x - 1, y - 1, x + picture_size, y + picture_size), outline=GREY)
        for row, label in enumerate(labels[samples] if labels is not None else ()):
            y = top + row * (picture_size + GAP) + picture_size // 2
            pen.text((left + label_width - GAP, y), label, fill=GREY, font=small, anchor="rm")
    return page


def _enlarged(picture: Image.Image, size: int) -> Image.Image:
    grey_levels = picture.convert("L").histogram()
    is_mask = picture.mode in ("1", "L") and not any(grey_levels[1:255])
    return picture.convert("RGB").resize(
        (size, size), Image.Resampling.NEAREST if is_mask else Image.Resampling.BICUBIC
    )
