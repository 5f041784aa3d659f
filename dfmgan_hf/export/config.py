"""The options of an export."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..data.records import GOOD
from ..models import NOISE_MODES, NoiseMode
from ..pipelines.call_arguments import (
    MAX_SEED,
    MAX_TRUNCATION_PSI,
    check_choice,
    check_number,
    check_positive_integer,
)

ExportFormat = Literal["mvtec", "imagefolder", "parquet"]

RECORD_DIR = "generation"
"""Folder in the output folder that says how it was made: settings, summary, contact sheet."""

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]*")


class ExportError(ValueError):
    """A folder or a model with which an export cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class ExportConfig:
    """What to draw, what to keep and how to lay it out.

    Attributes:
        output_dir: Folder to fill. A stopped export goes on where it was when the same command is given again.
        num_images: Triplets to write.
        format: mvtec (folders as in MVTec AD), imagefolder (images and metadata.csv) or parquet (shards for the Hub).
        seed: Image i depends on this number and i alone.
        batch_size: Images drawn at once: memory and speed.
        truncation_psi: 1 is the full variety; less is more typical.
        noise_mode: Stored noise (const), new noise for each image (random), or none.
        mask_threshold: Above 0 shrinks the defects, below 0 spreads them.
        min_mask_area: Draw again if the mask covers a smaller share of the image than this, from 0 to 1. The default
            wants at least one pixel; 0 keeps empty masks too.
        max_mask_area: Draw again if the mask covers a larger share of the image than this, from 0 to 1.
        max_attempts: Draws for one image before the bounds are taken to be too strict.
        category: Name of the object.
        defect: Name of the kind of defect.
        twins: Folder of the defect-free twins with mvtec. train/good makes the set complete in itself; test/good is
            for testing what was trained on photographs, to which it leaves train/good.
        images_per_shard: Triplets in a parquet file; several processes share the work file by file.
        license: Licence for the data set card of parquet, as the Hub spells it.

    Raises:
        ValueError: a value that is not possible; the message names the option.
    """

    output_dir: Path
    num_images: int = 1000
    format: ExportFormat = "mvtec"
    seed: int = 0
    batch_size: int = 32
    truncation_psi: float = 1.0
    noise_mode: NoiseMode = "const"
    mask_threshold: float = 0.0
    min_mask_area: float | None = None
    max_mask_area: float = 1.0
    max_attempts: int = 200
    category: str = "object"
    defect: str = "defect"
    twins: Literal["train", "test"] = "train"
    images_per_shard: int = 250
    license: str = "unknown"

    def __post_init__(self) -> None:
        for name in ("num_images", "batch_size", "max_attempts", "images_per_shard"):
            check_positive_integer(getattr(self, name), name)
        check_number(self.seed, "seed", 0, MAX_SEED)
        check_number(self.truncation_psi, "truncation_psi", 0, MAX_TRUNCATION_PSI)
        check_number(self.max_mask_area, "max_mask_area", 0, 1)
        check_number(self.min_mask_area or 0, "min_mask_area", 0, self.max_mask_area)
        check_choice(self.format, "format", get_args(ExportFormat))
        check_choice(self.noise_mode, "noise_mode", NOISE_MODES)
        check_choice(self.twins, "twins", ("train", "test"))
        for name, taken in (("category", RECORD_DIR), ("defect", GOOD)):
            value = getattr(self, name)
            if value == taken or not _NAME.fullmatch(value):
                raise ValueError(
                    f"`{name}` must be a folder name of letters, digits, '_', '-', '.' and spaces, and not {taken!r}, "
                    f"but is {value!r}."
                )
