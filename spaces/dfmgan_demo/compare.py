"""The large view: a part with and without its defect under a divider, the defect's outline and its area.

The divider is a range input of the browser's own, because gradio's ImageSlider cannot be moved by keyboard.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from drawing import Triplet
from pictures import data_uri, outline_path
from PIL import Image
from words import seeds_in_words

# Runs once in the browser; every later view arrives inside the same element.
MOVE_DIVIDER = """
element.addEventListener("input", (event) => {
  if (event.target.matches(".divider-position")) {
    event.target.closest(".stage").style.setProperty("--cut", event.target.value + "%");
  }
});
"""

EMPTY_VIEW = '<div class="compare"><p class="stage empty">The part that you choose stands here, large.</p></div>'


def large_view(triplet: Triplet, position: int) -> str:
    """HTML of the large view.

    Args:
        triplet: what to show.
        position: its number in the gallery, from 1.
    """
    return f"""
<div class="compare">
  {stage(triplet.defect_free, triplet.image, triplet.mask, "part", ("without", "with defect"))}
  <div class="facts">
    {_area(triplet)}
    <p class="origin">Number {position} · {seeds_in_words(triplet)} ·
    {triplet.image.width} × {triplet.image.height} pixels</p>
    <p class="files">Save as PNG: {_file_link(triplet, "image", "with defect")}
    {_file_link(triplet, "defect_free", "without")} {_file_link(triplet, "mask", "mask")}</p>
    <img class="mask" src="{data_uri(triplet.mask)}" alt="The defect's mask: white where the defect is">
  </div>
</div>
"""


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
    cut = _first_cut(mask)
    return f"""
  <div class="stage" style="--cut: {cut}%; --ratio: {before.width / before.height:.4f}">
    <img src="{data_uri(after, format)}" alt="The {what} with its defect">
    <img class="before" src="{data_uri(before, format)}" alt="The same {what} without the defect">
    {_outline(mask)}
    <span class="tag left">{tags[0]}</span><span class="tag right">{tags[1]}</span>
    <span class="divider" aria-hidden="true"></span>
    <input class="divider-position" type="range" min="0" max="100" value="{cut}" step="1"
      aria-label="Divider: how much of the picture shows the {what} without its defect">
  </div>"""


def _first_cut(mask: Image.Image) -> int:
    """Where the divider stands at first, in percent: through the defect's middle, so that it is seen at once."""
    pixels_by_column = np.count_nonzero(np.asarray(mask), axis=0)
    if not pixels_by_column.any():
        return 50
    centre = np.average(np.arange(mask.width) + 0.5, weights=pixels_by_column)
    # Not where its handle would hang over the picture's edge.
    return round(float(np.clip(100 * centre / mask.width, 10, 90)))


def _area(triplet: Triplet) -> str:
    if triplet.defect_pixels == 0:
        return '<p class="none">This seed drew no defect at this threshold.</p>'
    return (
        f'<p class="area"><strong>{triplet.defect_percent:.2f} %</strong> of the picture is defect '
        f"({triplet.defect_pixels:,} of {triplet.mask.width * triplet.mask.height:,} pixels)</p>"
    )


def _outline(mask: Image.Image) -> str:
    path = outline_path(mask)
    return (
        f'<svg class="outline" viewBox="0 0 {mask.width} {mask.height}" aria-hidden="true">'
        f'<path class="halo" d="{path}"/><path d="{path}"/></svg>'
    )


def _file_link(triplet: Triplet, kind: str, text: str) -> str:
    name = f"part_{triplet.part_seed}_defect_{triplet.defect_seed}_{kind}.png"
    return f'<a download="{name}" href="{data_uri(getattr(triplet, kind))}">{text}</a>'
