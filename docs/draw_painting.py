"""Draw images/mvtec_ad/before_after.png: good bottles before and after painting, with labels.

python docs/draw_painting.py

The bottles are drawn by the model in the repository, since no photograph may be shown, and the pictures have its
licence. They are the better two of four. Above, the model says where the defect goes; below, `arc` does.
"""

from __future__ import annotations

import math
from pathlib import Path

from PIL import Image, ImageDraw

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.sheets import contact_sheet

DOCS = Path(__file__).resolve().parent
GOOD, DEFECTS = (100, 103), (0, 3)
ARCS = {1: (290, 340)}
"""Which paintings are given a mask, and from where to where on the rim it goes: degrees clockwise from the right."""


def arc(start: int, end: int, side: int, radius: float = 0.32, width: float = 0.13) -> Image.Image:
    """Draw a mask along the rim of a bottle, with round ends; `radius` and `width` are shares of the side."""
    fine = 4 * side
    mask = Image.new("L", (fine, fine))
    pen = ImageDraw.Draw(mask)
    for tenth in range(10 * start, 10 * end + 1):
        x, y = (fine * (0.5 + radius * turn(math.radians(tenth / 10))) for turn in (math.cos, math.sin))
        reach = fine * width / 2
        pen.ellipse((x - reach, y - reach, x + reach, y + reach), fill=255)
    return mask.resize((side, side), Image.Resampling.BOX).point(lambda value: 255 * (value > 127))


def draw_painting() -> Image.Image:
    """Paint two bottles, and lay out what they were, what they are, and which pixels have changed."""
    pipe = DFMGANPipeline.from_pretrained(DOCS.parent / "models" / "dfmgan-mvtec-bottle")
    pipe.set_progress_bar_config(disable=True)
    rows = []
    for number, good in enumerate(pipe(seeds=GOOD).defect_free_images):
        mask = arc(*ARCS[number], good.width) if number in ARCS else None
        painted = pipe.paint(good, mask=mask, seeds=[DEFECTS[number]], window=0)
        rows.append((good, painted.images[0], painted.labels[0]))
    return contact_sheet(rows, headings=("before", "after", "label"), columns=1, picture_size=256)


if __name__ == "__main__":
    draw_painting().save(DOCS / "images" / "mvtec_ad" / "before_after.png", optimize=True)
