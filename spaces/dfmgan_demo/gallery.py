"""The drawn parts side by side, the one that is chosen large, and a walk between two of them.

All pictures travel once, as the PNG files that can be saved; `page.js` shows the chosen one large without asking the
server.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from compare import first_cut, stage, toolbar
from drawing import Recipe, Triplet
from pictures import FRAME_MILLISECONDS, data_uri, outline_path, png, stretch
from take_away import about_picture, file_names
from words import area_in_words, seeds_in_words

EMPTY = '<p class="waiting">The first parts are being drawn.</p>'
KINDS = {"image": "with the defect", "defect_free": "without the defect", "mask": "the mask"}


def gallery(
    recipe: Recipe, triplets: Sequence[Triplet], opened: int, license: str, next_seed: int | None = None
) -> str:
    """HTML of all triplets.

    Args:
        recipe, triplets: what was drawn.
        opened: place of the one that is chosen, from 0.
        license: of the model, which each file says.
        next_seed: from which new parts are drawn next; None if these are variations of one.
    """
    items = "".join(_item(recipe, i, triplet, license, i == opened) for i, triplet in enumerate(triplets))
    follows = "" if next_seed is None else f'data-seed="{recipe.part_seeds[0]}" data-next="{next_seed}"'
    key = f'data-key="{hash(recipe)}"'
    return (
        '<div class="legend" aria-hidden="true"><span>without</span><span>mask</span><span>with defect</span></div>'
        f'<div class="triplets" role="group" aria-label="Drawn parts" {key} {follows}>{items}</div>'
    )


def _item(recipe: Recipe, i: int, triplet: Triplet, license: str, is_chosen: bool) -> str:
    names = file_names(recipe.model, triplet)
    pictures = {kind: data_uri(png(getattr(triplet, kind), about_picture(recipe, triplet, license))) for kind in KINDS}
    images = "".join(
        f'<img data-kind="{kind}" data-file="{names[kind]}" src="{pictures[kind]}" alt="" '
        f'width="{triplet.mask.width}" height="{triplet.mask.height}">'
        for kind in ("defect_free", "mask", "image")
    )
    slope, intercept = stretch(triplet.defect_free)
    seeds, area = seeds_in_words(triplet), area_in_words(triplet)
    defect = f"defect on {area} of the picture" if triplet.defect_pixels else area
    spoken = f"Number {i + 1}, {seeds}, {defect}"
    tab = 0 if is_chosen else -1
    return f"""
<div class="triplet" data-cut="{first_cut(triplet.mask)}" data-outline="{outline_path(triplet.mask)}"
  data-width="{triplet.mask.width}" data-height="{triplet.mask.height}"
  data-slope="{slope}" data-intercept="{intercept}"
  data-area="{html.escape(_area(triplet))}" data-origin="Number {i + 1} · {seeds}"
  data-empty="{int(triplet.defect_pixels == 0)}">
  <button type="button" class="pick" aria-pressed="{str(is_chosen).lower()}" aria-label="{html.escape(spoken)}"
    tabindex="{tab}"><span class="pictures">{images}</span><span class="caption">{seeds} · {area}</span></button>
  <label class="tick"><input type="checkbox" tabindex="{tab}" aria-label="Tick number {i + 1} to take it home"></label>
</div>"""


def large_view(triplet: Triplet) -> str:
    """HTML of the large view, around one triplet; `page.js` fills in whichever is chosen."""
    links = " ".join(f'<a data-kind="{kind}" href="#" download>{words}</a>' for kind, words in KINDS.items())
    return f"""
<div class="compare">
  {toolbar()}
  {stage(triplet.defect_free, triplet.image, triplet.mask, "part", ("without", "with defect"))}
  <div class="turn">
    <button type="button" class="tool" data-act="previous" aria-label="Previous part">‹ Previous</button>
    <span class="origin"></span>
    <button type="button" class="tool" data-act="next" aria-label="Next part">Next ›</button>
  </div>
  <p class="area"></p>
  <p class="files">Save as PNG: {links}</p>
  <button type="button" class="tool up" data-act="up">↑ Back to all parts</button>
</div>"""


def walk_view(frames: Sequence[Triplet], animation: str) -> str:
    """HTML of an animation that can be stopped and stepped through.

    Args:
        frames: from one end to the other.
        animation: address of the same as a file.
    """
    images = "".join(
        f'<span class="frame"><img src="{data_uri(png(frame.image))}" alt=""><img src="{data_uri(png(frame.mask))}" '
        'alt=""></span>'
        for frame in frames
    )
    return f"""
<div class="player" data-key="{animation}" data-milliseconds="{FRAME_MILLISECONDS}">
  <div class="frames" role="img" aria-label="The part with its defect, and the mask, on the way">{images}</div>
  <div class="turn"><button type="button" class="tool" data-act="play">Pause</button>
  <input class="step" type="range" min="0" max="{len(frames) - 1}" value="0" aria-label="Place on the way"></div>
  <p class="files"><a href="{animation}" download="walk.webp">Save as WebP</a></p>
</div>"""


def _area(triplet: Triplet) -> str:
    if triplet.defect_pixels == 0:
        return "This part has no defect."
    size = triplet.mask.width * triplet.mask.height
    return (
        f"<strong>{triplet.defect_percent:.2f} %</strong> of the picture is defect "
        f"({triplet.defect_pixels:,} of {size:,} pixels)"
    )
