"""The options of an export."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from ..data.records import GOOD
from ..models import NOISE_MODES, NoiseMode
from ..pipelines.call_arguments import MAX_SEED, MAX_TRUNCATION_PSI
from .errors import ExportError
from .seeds import MAX_ATTEMPTS, MAX_IMAGES

ExportFormat = Literal["mvtec", "imagefolder", "parquet"]

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\- ]*")


@dataclass(frozen=True)
class ExportConfig:
    """What to draw, what to keep and how to lay it out.

    Attributes:
        output_dir: Folder to fill. A stopped export goes on where it was when the same command is given again.
        num_images: Triplets to write.
        format: mvtec (folders as in MVTec AD), imagefolder (images and metadata.csv) or parquet (shards for the Hub).
        seed: Image i depends on this number and i alone.
        batch_size: Images in work at once: memory and speed, never what the images are.
        truncation_psi: 1 is the full variety; less is more typical.
        noise_mode: Stored noise (const), new noise for each image (random), or none.
        mask_threshold: Above 0 shrinks the defects, below 0 spreads them.
        min_mask_area: Draw again if the mask covers a smaller share of the image than this, from 0 to 1. The default
            wants at least one pixel; 0 keeps empty masks too.
        max_mask_area: Draw again if the mask covers a larger share of the image than this, from 0 to 1.
        max_attempts: Draws for one image before the filter is taken to be too strict.
        category: Name of the object.
        defect: Name of the kind of defect.
        twins: Folder of the defect-free twins with mvtec. train/good makes the set complete in itself; test/good is
            for testing what was trained on photographs, to which it leaves train/good.
        images_per_shard: Triplets in a parquet file; several processes share the work file by file.
        license: Licence for the data set card of parquet, as the Hub spells it.
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

    def check(self) -> None:
        """Raise ExportError, which names the option, if a value is not possible."""
        self._check_range("num_images", 1, MAX_IMAGES)
        self._check_range("seed", 0, MAX_SEED)
        self._check_range("batch_size", 1, math.inf)
        self._check_range("truncation_psi", 0, MAX_TRUNCATION_PSI)
        self._check_range("max_attempts", 1, MAX_ATTEMPTS)
        self._check_range("images_per_shard", 1, math.inf)
        if self.min_mask_area is not None:
            self._check_range("min_mask_area", 0, 1)
        self._check_range("max_mask_area", 0, 1)
        if (self.min_mask_area or 0) > self.max_mask_area:
            raise _bad("min_mask_area", self.min_mask_area, f"at most --max_mask_area, {self.max_mask_area}")
        self._check_choice("format", get_args(ExportFormat))
        self._check_choice("noise_mode", NOISE_MODES)
        self._check_choice("twins", ("train", "test"))
        for name in ("category", "defect"):
            if not _NAME.fullmatch(getattr(self, name)):
                raise _bad(name, repr(getattr(self, name)), "letters, digits, '_', '-', '.' and spaces: a folder name")
        if self.defect == GOOD:
            raise _bad("defect", repr(GOOD), "another name: this one stands for no defect")
        if self.category == RECORD_DIR:
            raise _bad("category", repr(RECORD_DIR), "another name: this folder holds the record of the export")

    def _check_range(self, name: str, lowest: float, highest: float) -> None:
        value = getattr(self, name)
        if not lowest <= value <= highest:
            allowed = f"{lowest} or more" if highest == math.inf else f"a number from {lowest} to {highest}"
            raise _bad(name, value, allowed)

    def _check_choice(self, name: str, choices: tuple[str, ...]) -> None:
        if getattr(self, name) not in choices:
            raise _bad(name, repr(getattr(self, name)), f"one of {', '.join(choices)}")


RECORD_DIR = "generation"
"""Folder in the output folder that says how it was made: settings, summary, contact sheet."""


def _bad(name: str, value: Any, expected: str) -> ExportError:
    return ExportError(f"--{name}", found=str(value), expected=expected, advice="Nothing was written.")
