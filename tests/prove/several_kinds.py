"""An export of LabelMe whose photographs show several kinds of defect each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 32
PLACES = {"crack": (2, 2), "hole": (18, 18)}
"""Left and top of a square of 8x8 pixels, by kind."""


def save_labelled(root: Path, kinds: Sequence[Sequence[str]], good: int = 0, wrong: str | None = None) -> Path:
    """Save photographs d00.png, ... of these kinds, and good ones; the label `wrong` of the first lies outside."""
    rng = np.random.default_rng(0)

    def save(name: str) -> None:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(1, 255, (SIDE, SIDE, 3)).astype(np.uint8)).save(path)

    for number in range(good):
        save(f"good/g{number:02d}.png")
    for number, shown in enumerate(kinds):
        save(f"d{number:02d}.png")
        shapes = []
        for kind in shown:
            left, top = (900, 900) if kind == wrong and number == 0 else PLACES[kind]
            corners = [[left, top], [left + 8, top], [left + 8, top + 8], [left, top + 8]]
            shapes.append({"label": kind, "shape_type": "polygon", "points": corners})
        sheet = {"version": "5", "flags": {}, "imagePath": f"d{number:02d}.png", "imageData": None, "shapes": shapes}
        sheet |= {"imageWidth": SIDE, "imageHeight": SIDE}
        (root / f"d{number:02d}.json").write_text(json.dumps(sheet))
    return root
