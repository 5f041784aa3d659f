"""Draw the picture that README begins with (images/mvtec_ad/pills.png): pills, and each kind of defect on them.

python docs/draw_pills.py

The seeds are the first ones, not selected. Each defect is shown enlarged below its pill, with its mask.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.sheets import INK, OUTLINE, PAPER, contact_sheet

DOCS = Path(__file__).resolve().parent
SEEDS = (0, 1)
SIDE, ENLARGED = 160, 44
"""Pixels of a picture on the page, and how many of the image's are enlarged to them."""


def area_around(mask: Image.Image) -> tuple[int, int, int, int]:
    """Return a square around the median of a mask's pixels, or of the image if the mask is empty, inside the image."""
    places = np.nonzero(np.asarray(mask)) if mask.getbbox() else np.indices(mask.size)
    y, x = (int(np.clip(np.median(at) - ENLARGED // 2, 0, mask.width - ENLARGED)) for at in places)
    return x, y, x + ENLARGED, y + ENLARGED


def words(text: str) -> Image.Image:
    """Write words in the middle of a picture."""
    cell = Image.new("RGB", (SIDE, SIDE), PAPER)
    font = ImageFont.load_default(15)
    ImageDraw.Draw(cell).multiline_text((SIDE // 2, SIDE // 2), text, INK, font, anchor="mm", align="center")
    return cell


def draw_pills() -> Image.Image:
    """Draw the pills without and with each kind of defect, the defects enlarged, and their masks."""
    pipe = DFMGANPipeline.from_pretrained(DOCS.parent / "models" / "dfmgan-mvtec-pill")
    pipe.set_progress_bar_config(disable=True)
    kinds = pipe.generator.config["defect_names"]
    drawn = [pipe(seeds=SEEDS, defect=kind) for kind in kinds]
    rows = []
    for number in range(len(SEEDS)):
        whole, enlarged, masks = [drawn[0].defect_free_images[number]], [words("enlarged")], [words("its mask")]
        for output in drawn:
            image, mask = output.images[number], output.masks[number]
            area = area_around(mask)
            framed = image.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            ImageDraw.Draw(framed).rectangle([at * SIDE // image.width for at in area], outline=OUTLINE)
            whole.append(framed)
            enlarged.append(image.crop(area))
            masks.append(mask.crop(area))
        rows += [whole, enlarged, masks]
    headings = ("without", *(kind.replace("_", " ") for kind in kinds))
    return contact_sheet(rows, headings=headings, columns=1, picture_size=SIDE)


if __name__ == "__main__":
    draw_pills().save(DOCS / "images" / "mvtec_ad" / "pills.png", optimize=True)
