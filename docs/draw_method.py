"""Draw images/method.png: the method in one picture, with what the model in the repository draws.

python docs/draw_method.py
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from dfmgan_hf import DFMGANPipeline

Colour = tuple[int, int, int]
DOCS = Path(__file__).resolve().parent
SEED = 21
PAPER, INK, GREY, LINE = (255, 255, 255), (32, 32, 32), (110, 110, 110), (150, 150, 150)
OBJECT, DEFECT = (0, 121, 107), (194, 24, 91)
SIDE = 128


def draw_method() -> Image.Image:
    """Lay the figure out, in pixels of a page of 1280x800."""
    page = Image.new("RGB", (1280, 800), PAPER)
    pen = ImageDraw.Draw(page)

    def words(
        x: int, y: int, text: str, size: int = 22, colour: tuple[int, int, int] = INK, anchor: str = "mm"
    ) -> None:
        pen.multiline_text(
            (x, y), text, colour, ImageFont.load_default(size), anchor=anchor, align="center", spacing=6
        )

    def box(left: int, top: int, right: int, bottom: int, text: str, colour: Colour) -> None:
        pen.rounded_rectangle((left, top, right, bottom), 12, (250, 250, 250), colour, 3)
        words((left + right) // 2, (top + bottom) // 2, text)

    def arrow(*points: tuple[int, int], colour: Colour = LINE) -> None:
        pen.line(points, colour, 3, joint="curve")
        (x0, y0), (x1, y1) = points[-2:]
        dx, dy = (x1 > x0) - (x1 < x0), (y1 > y0) - (y1 < y0)
        back = (x1 - 13 * dx, y1 - 13 * dy)
        pen.polygon([(x1, y1), (back[0] - 8 * dy, back[1] - 8 * dx), (back[0] + 8 * dy, back[1] + 8 * dx)], colour)

    def picture(x: int, y: int, image: Image.Image, side: int = SIDE) -> None:
        page.paste(image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC), (x, y))
        pen.rectangle((x, y, x + side, y + side), outline=LINE)

    pipe = DFMGANPipeline.from_pretrained(DOCS.parent / "models" / "dfmgan-magnetic-tile")
    pipe.set_progress_bar_config(disable=True)
    shown, one = pipe(seeds=[3, 5, 9, 12, 11, 31]), pipe(seeds=[SEED])
    twin, mask, defect = one.defect_free_images[0], one.masks[0], one.images[0]
    small = 76

    words(40, 34, "Stage 1 learns the good part", 26, OBJECT, "lm")
    words(40, 70, "from a few hundred photographs without a defect", 20, GREY, "lm")
    for k in range(4):
        picture(40 + 84 * k, 96, shown.defect_free_images[k], small)
    arrow((390, 134), (450, 134))
    box(450, 96, 640, 172, "generator", OBJECT)

    words(700, 34, "Stage 2 learns the defect", 26, DEFECT, "lm")
    words(700, 70, "from about ten photographs with masks", 20, GREY, "lm")
    for k in range(2):
        picture(700 + 168 * k, 96, shown.images[4 + k], small)
        picture(784 + 168 * k, 96, shown.masks[4 + k].resize((small, small), Image.Resampling.NEAREST), small)
    arrow((1040, 134), (1080, 134))
    box(1080, 96, 1250, 172, "mask and\nresidual blocks", DEFECT)
    pen.line((40, 214, 1240, 214), (225, 225, 225), 2)

    words(40, 254, "Then both draw together", 26, INK, "lm")
    box(40, 330, 220, 406, "object latent\n(which part)", OBJECT)
    box(330, 310, 560, 426, "generator\nof stage 1,\nfrozen", OBJECT)
    arrow((220, 368), (330, 368), colour=OBJECT)
    box(40, 560, 220, 636, "defect latent\n(which defect)", DEFECT)
    box(330, 540, 560, 656, "mask and\nresidual blocks", DEFECT)
    arrow((220, 598), (330, 598), colour=DEFECT)
    arrow((445, 426), (445, 540), colour=OBJECT)
    words(456, 483, "features", 18, GREY, "lm")

    picture(1010, 304, twin)
    arrow((560, 368), (1010, 368), colour=OBJECT)
    words(785, 346, "gate shut: nothing is added", 19, GREY)
    words(1152, 368, "twin", 24, INK, "lm")

    picture(1010, 474, defect)
    box(700, 494, 880, 582, "gate: add where\nthe mask is on", INK)
    arrow((640, 368), (640, 516), (700, 516), colour=OBJECT)
    arrow((560, 560), (700, 560), colour=DEFECT)
    arrow((880, 538), (1010, 538), colour=INK)
    words(1152, 538, "defect", 24, INK, "lm")

    picture(1010, 644, mask.resize((SIDE, SIDE), Image.Resampling.NEAREST))
    arrow((560, 632), (640, 632), (640, 708), (1010, 708), colour=DEFECT)
    words(1152, 708, "mask", 24, INK, "lm")
    arrow((780, 708), (780, 582), colour=DEFECT)
    return page


if __name__ == "__main__":
    draw_method().quantize(96, dither=Image.Dither.NONE).save(DOCS / "images" / "method.png", optimize=True)
