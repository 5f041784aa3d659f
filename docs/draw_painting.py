"""Draw the pictures of painting: good bottles before and after (images/mvtec_ad/before_after.png), and how it is done.

python docs/draw_painting.py

What is painted into is drawn by the models in the repository, since no photograph may be shown, and the pictures have
their licences. The bottles are the better two of four. Above, the model says where the defect goes; below, `arc` does.
The steps (images/painting_steps.png) are those of tiles, not selected.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.painting import NUM_TWINS, TwinIndex, draw_defect
from dfmgan_hf.photograph import Photograph
from dfmgan_hf.sheets import contact_sheet, to_pictures, to_pixels

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


def draw_steps() -> Image.Image:
    """Paint the breaks of seeds 1 to 4 into tiles that are no twins of the index, and show each step."""
    pipe = DFMGANPipeline.from_pretrained(DOCS.parent / "models" / "dfmgan-magnetic-tile")
    pipe.set_progress_bar_config(disable=True)
    seeds = range(1, 5)
    network, (latents, _) = pipe.generator, pipe.latents_from_seeds(range(NUM_TWINS))
    twins = TwinIndex.of(network, latents)
    rows = []
    for seed, good, mask in zip(
        seeds, pipe(seeds=[1000 + seed for seed in seeds]).defect_free_images, pipe(seeds=seeds).masks, strict=True
    ):
        painted = pipe.paint(good, mask=mask, seeds=[seed], window=good.width)
        view = Photograph.open(good).view((0, 0, *good.size), (good.height, good.width), 1)
        where = np.asarray(mask) > 0
        _, number, gain = twins.nearest(view, where)
        image, twin = draw_defect(network, twins.latents[number], pipe.latents_from_seeds([seed])[1][0], where)
        difference = gain * (image - twin)
        steps = torch.stack([2 * gain * twin - 1, difference, 2 * (view + difference) - 1])
        nearest, alone, added = to_pictures(to_pixels(steps))
        rows.append((good, mask, nearest, alone, added, painted.images[0], painted.labels[0]))
    headings = ("photograph", "mask", "nearest twin", "difference", "only added", "painted", "label")
    return contact_sheet(rows, headings=headings, columns=1, picture_size=150)


if __name__ == "__main__":
    draw_painting().save(DOCS / "images" / "mvtec_ad" / "before_after.png", optimize=True)
    draw_steps().save(DOCS / "images" / "painting_steps.png", optimize=True)
