"""Draw numbered triplets: number i depends on the settings and i alone, whatever else is drawn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import numpy as np
from PIL import Image

from ..pipelines import DFMGANPipeline
from .config import ExportConfig, ExportError
from .samples import Record, Sample

Drawn = tuple[Record, Image.Image, Image.Image, Image.Image]


def candidate_seed(seed: int, index: int, attempt: int) -> int:
    """Return the seed of draw number `attempt` for image number `index` of an export with the seed `seed`.

    It is `numpy.random.SeedSequence([seed, index, attempt]).generate_state(1)[0]`, from 0 to 2^32 - 1. Sets of other
    seeds share no images but by rare coincidence, as they would if image i had the seed `seed + i`.

    Example:
        >>> candidate_seed(0, 1, 0)
        3964924996
    """
    return int(np.random.SeedSequence([seed, index, attempt]).generate_state(1)[0])


def why_dropped(area: float, config: ExportConfig) -> str | None:
    """Return why a mask that covers the share `area` of the image is dropped; None if it is kept."""
    if area == 0 and config.min_mask_area != 0:
        return "empty"
    if area < (config.min_mask_area or 0):
        return "too_small"
    return "too_large" if area > config.max_mask_area else None


def draw_samples(pipe: DFMGANPipeline, config: ExportConfig, indices: Iterable[int]) -> Iterator[Sample]:
    """Draw the triplets of these numbers, in this order; `batch_size` of them at a time.

    Image i is the first of the draws `candidate_seed(config.seed, i, 0)`, `(..., i, 1)` and so on whose mask has an
    area within the bounds. Other batch sizes and other devices round differently: a few pixels may differ by one.

    Args:
        pipe: a pipeline, on the device that draws.
        config: what to draw and what to keep.
        indices: numbers from 0 on, taken as needed.

    Raises:
        ExportError: the pipeline has a backbone only, or an image has used up its attempts.
    """
    if not pipe.has_defects:
        raise ExportError(
            "The model is a backbone of stage 1, which draws no defects. Expected a model of stage 2: train it on "
            "this one (examples/train_stage2.py) and give its output folder."
        )
    # A pipeline of its own: silencing its progress bar does not silence the caller's.
    pipe = DFMGANPipeline(pipe.generator)
    pipe.set_progress_bar_config(disable=True)
    numbers = iter(indices)
    with ThreadPoolExecutor() as pool:  # a GPU draws faster than one core compresses
        while batch := list(islice(numbers, config.batch_size)):
            yield from pool.map(lambda drawn: Sample.encode(*drawn), _draw_batch(pipe, config, batch))


def _draw_batch(pipe: DFMGANPipeline, config: ExportConfig, batch: list[int]) -> list[Drawn]:
    kept: dict[int, Drawn] = {}
    dropped: dict[int, Counter[str]] = {index: Counter() for index in batch}
    for attempt in range(config.max_attempts):
        wanted = [index for index in batch if index not in kept]
        if not wanted:
            break
        seeds = [candidate_seed(config.seed, index, attempt) for index in wanted]
        output: Any = pipe(
            seeds=seeds,
            truncation_psi=config.truncation_psi,
            noise_mode=config.noise_mode,
            mask_threshold=config.mask_threshold,
            batch_size=len(seeds),
        )
        drawn = zip(wanted, seeds, output.images, output.masks, output.defect_free_images, strict=True)
        for index, seed, image, mask, defect_free in drawn:
            area = float((np.asarray(mask) != 0).mean())
            reason = why_dropped(area, config)
            if reason is None:
                counts = {f"dropped_{name}": count for name, count in dropped[index].items()}
                kept[index] = (Record(index, seed, area, **counts), image, mask, defect_free)
            else:
                dropped[index][reason] += 1
    for index in batch:
        if index not in kept:
            reasons = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in dropped[index].items())
            raise ExportError(
                f"None of the first {config.max_attempts} draws of image {index} has a mask of the wanted area "
                f"({reasons}). Widen min_mask_area and max_mask_area in a new folder, raise max_attempts to go on in "
                "this one, or train the model longer."
            )
    return [kept[index] for index in batch]
