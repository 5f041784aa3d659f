"""Draw triplets with a trained model: defect-free image, mask and defect image.

    python examples/quickstart.py
    python examples/quickstart.py --model org/dfmgan-hazelnut --num_images 64 --output_dir hazelnuts

Writes three PNG files a triplet and a contact sheet of all of them.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from dfmgan_hf.export import DrawConfig, draw
from dfmgan_hf.training.run import end_in_words

MODEL = Path(__file__).resolve().parents[1] / "models" / "dfmgan-magnetic-tile"

if __name__ == "__main__":
    with end_in_words():
        draw(tyro.cli(DrawConfig, default=DrawConfig(str(MODEL))))
