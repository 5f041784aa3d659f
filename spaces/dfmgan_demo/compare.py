"""Two pictures under a divider: a part, or a photograph, with and without its defect.

The divider is a range input of the browser's own, because gradio's ImageSlider cannot be moved by keyboard.
"""

from __future__ import annotations

import html
from typing import Literal

import numpy as np
from pictures import data_uri, outline_path, png, stretch, webp
from PIL import Image

# What can be done to see more; `page.js` does it. All hold for whatever is shown next.
TOOLS = {
    "outline": ("Outline", "Draws a line around the defect"),
    "blink": ("Blink", "Shows it with and without the defect in turn"),
    "stretch": ("Contrast", "Spreads dark or flat pictures over all grey levels"),
}


def toolbar(*more: tuple[str, str, str]) -> str:
    """HTML of the switches above a comparison; `more`: name, text and explanation of others."""
    tools = [(name, *words) for name, words in TOOLS.items()] + list(more)
    switches = "".join(
        f'<button type="button" class="tool" data-tool="{name}" aria-pressed="false" title="{html.escape(title)}">'
        f"{text}</button>"
        for name, text, title in tools
    )
    zoom = (
        '<button type="button" class="tool" data-act="closer" aria-label="Zoom in" '
        'title="Every pixel as it is, larger; drag or scroll to move">+</button>'
        '<button type="button" class="tool" data-act="farther" aria-label="Zoom out" title="Smaller">−</button>'
    )
    full = (
        '<button type="button" class="tool" data-act="full" title="Fills the screen; Esc ends it">Full screen</button>'
    )
    return f'<div class="tools" role="group" aria-label="How to look at it">{switches}{zoom}{full}</div>'


def stage(
    before: Image.Image,
    after: Image.Image,
    mask: Image.Image,
    what: str,
    tags: tuple[str, str],
    format: Literal["png", "webp"] = "png",
) -> str:
    """HTML of two pictures under a divider, with the outline of what differs.

    Args:
        before, after, mask: of one size.
        what: the pictures show, as in "part".
        tags: on the left and on the right of the divider.
        format: in which the pictures travel.
    """
    cut = first_cut(mask)
    encode = png if format == "png" else webp
    slope, intercept = stretch(before)
    path = outline_path(mask)
    return f"""
  <div class="stage" data-slope="{slope}" data-intercept="{intercept}"
    style="--cut: {cut}%; --ratio: {before.width / before.height:.4f}; --width: {before.width}px">
    <div class="scope" role="group" aria-label="The {what}"><div class="sheet">
      <img class="after" src="{data_uri(encode(after), format)}" alt="The {what} with its defect">
      <img class="before" src="{data_uri(encode(before), format)}" alt="The same {what} without the defect">
      <svg class="outline" viewBox="0 0 {mask.width} {mask.height}" aria-hidden="true"><path class="halo" d="{path}"/>
        <path class="line" d="{path}"/></svg>
      <span class="divider" aria-hidden="true"></span>
      <input class="divider-position" type="range" min="0" max="100" value="{cut}" step="1"
        aria-label="Divider" aria-valuetext="{cut} % shows the {what} without its defect" data-what="{what}">
    </div></div>
    <span class="tag left">{tags[0]}</span><span class="tag right">{tags[1]}</span>
    <span class="tag scale" aria-hidden="true"></span>
  </div>"""


def first_cut(mask: Image.Image) -> int:
    """Where the divider stands at first, in percent: through the defect's middle, so that it is seen at once."""
    pixels_by_column = np.count_nonzero(np.asarray(mask), axis=0)
    if not pixels_by_column.any():
        return 50
    centre = np.average(np.arange(mask.width) + 0.5, weights=pixels_by_column)
    # Not where its handle would hang over the picture's edge.
    return round(float(np.clip(100 * centre / mask.width, 10, 90)))
