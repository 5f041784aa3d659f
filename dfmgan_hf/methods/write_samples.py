"""Many samples of any method as a folder of PNG files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from ..files import whole_file, write_json
from ..metrics.sampler import Sampler, batches, draw
from ..processes import ProcessGroup

SETTINGS_FILE = "settings.json"


def write_samples(
    sampler: Sampler,
    output_dir: Path,
    num_images: int,
    *,
    settings: dict[str, Any],
    seed: int = 0,
    batch_size: int = 16,
    processes: ProcessGroup | None = None,
) -> int:
    """Write image i as `<i>.png` and its mask, if there is one, as `<i>_mask.png`: what `FolderSampler` reads.

    Image i depends on `seed` and i alone. What is there already stays, so a stopped run goes on.

    Args:
        sampler: draws.
        output_dir: filled; begun by an earlier run of the same settings, or without images.
        num_images: how many.
        settings: what the images depend on besides the seed, as JSON can hold it; kept in settings.json.
        seed: of the samples.
        batch_size: images drawn at once.
        processes: of a launch, which share the work; every one calls this.

    Returns:
        Images that this process has drawn.

    Raises:
        ValueError: the folder was begun with other settings, or holds images without any.
    """
    processes = processes or ProcessGroup()
    begin(output_dir, {**settings, "seed": seed}, processes)
    drawn = 0
    work = processes.mine(batches(num_images, batch_size))
    for batch in tqdm(work, desc="Drawing", unit="batch", disable=not processes.is_main):
        missing = [i for i in batch if not (output_dir / f"{i:06d}.png").is_file()]
        if not missing:
            continue
        images, masks = draw(sampler, missing, seed)
        for k, index in enumerate(missing):
            # The image comes last and says that both are there.
            if masks is not None:
                _save(masks[k], output_dir / f"{index:06d}_mask.png")
            _save(images[k], output_dir / f"{index:06d}.png")
        drawn += len(missing)
    processes.wait()
    return drawn


def begin(output_dir: Path, settings: dict[str, Any], processes: ProcessGroup) -> None:
    """Keep the settings, or compare them with those that the folder was begun with."""
    path = output_dir / SETTINGS_FILE
    before = json.loads(path.read_text()) if path.is_file() else None
    if before is None and any(output_dir.glob("*.png")):
        raise ValueError(f"{output_dir} holds images that were not begun here; choose another folder.")
    if before is not None and before != settings:
        raise ValueError(f"{output_dir} was begun with {before}, not {settings}; choose another folder.")
    processes.wait()
    if processes.is_main and before is None:
        write_json(path, settings)
    processes.wait()


def _save(image: Tensor, path: Path) -> None:
    """uint8 (1 or 3, H, W) as PNG, whole or not at all."""
    pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    with whole_file(path) as aside:
        Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(aside, format="PNG")
