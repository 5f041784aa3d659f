"""Draw triplets with a trained model: defect-free image, mask and defect image.

    python examples/quickstart.py
    python examples/quickstart.py --model org/dfmgan-hazelnut --num_images 64 --output_dir hazelnuts

Writes three PNG files a triplet and a contact sheet of all of them.
"""

from pathlib import Path

from dfmgan_hf.cli import run
from dfmgan_hf.export import DrawConfig, draw

MODEL = Path(__file__).resolve().parents[1] / "models" / "dfmgan-magnetic-tile"

if __name__ == "__main__":
    run(draw, default=DrawConfig(str(MODEL)))
