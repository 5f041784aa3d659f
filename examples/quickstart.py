"""Draw triplets with a trained model: defect-free image, mask and defect image.

    python examples/quickstart.py
    python examples/quickstart.py --model org/dfmgan-hazelnut --num_images 64 --output_dir hazelnuts

Writes three PNG files a triplet and a contact sheet of all of them.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import tyro
from PIL import Image

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.pipelines import contact_sheet

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass
class Config:
    """What to draw, and where to put it."""

    model: str = str(REPOSITORY / "models" / "dfmgan-magnetic-tile")
    """A folder that `save_pretrained` or a training wrote, or a repository on the Hub."""
    output_dir: Path = Path("demo_output")
    """Folder for the pictures."""
    num_images: int = 16
    """Triplets to draw."""
    first_seed: int = 0
    """Triplet i is drawn from seed first_seed + i, and looks the same on every run."""
    truncation_psi: float = 1.0
    """1 is the full variety; less is more typical."""
    device: str = "cuda" if torch.cuda.is_available() else "cpu"
    """Where to compute."""


def load(model: str) -> DFMGANPipeline:
    try:
        return DFMGANPipeline.from_pretrained(model)
    except (OSError, ValueError) as error:
        sys.exit(
            f"No model could be loaded from {model}. Expected: a folder with model_index.json, or org/name.\n{error}"
        )


def save(pictures: dict[str, Image.Image], output_dir: Path) -> None:
    """Write all files aside first, so that an interrupted run leaves no broken picture."""
    output_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir) as aside:
        for name, picture in pictures.items():
            picture.save(Path(aside, name))
        for name in pictures:
            os.replace(Path(aside, name), output_dir / name)


def main(config: Config) -> None:
    pipe = load(config.model).to(config.device)
    pipe.set_progress_bar_config(desc="Drawing", unit="sample")
    seeds = range(config.first_seed, config.first_seed + config.num_images)
    start = time.perf_counter()
    try:
        output = pipe(config.num_images, seeds=seeds, truncation_psi=config.truncation_psi)
    except ValueError as error:
        sys.exit(f"Nothing was drawn: {error}")
    seconds = time.perf_counter() - start

    columns = {"defect-free": output.defect_free_images}
    if pipe.has_defects:
        columns |= {"mask": output.masks, "defect": output.images}
    files = {
        f"{seed:05d}_{name.replace('-', '_')}.png": picture
        for name, pictures in columns.items()
        for seed, picture in zip(seeds, pictures, strict=True)
    }
    side = pipe.generator.config["resolution"]
    title = f"{Path(config.model).name}: {config.num_images} samples at {side} x {side}"
    files["contact_sheet.png"] = contact_sheet(columns, title=title, labels=[str(seed) for seed in seeds])
    save(files, config.output_dir)

    folder = config.output_dir.resolve()
    print(f"Drew {config.num_images} samples ({', '.join(columns)}) of {side} x {side} pixels in {seconds:.1f} s")
    print(f"  with    {config.model} on {config.device}, seeds {seeds[0]} to {seeds[-1]}")
    print(f"  sheet   {folder / 'contact_sheet.png'}")
    print(f"  images  {folder / f'{seeds[0]:05d}_*.png'} to {seeds[-1]:05d}, {len(files) - 1} files")


if __name__ == "__main__":
    main(tyro.cli(Config))
