"""Time until the first image: the package's import beyond torch's and diffusers', and loading the shipped model.

    python -m benchmarks.startup

Each in a new process, several times.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from .throughput import MODEL
from .timing import Timing, write_json

ROOT = Path(__file__).parents[1]

SCRIPT = """
import sys, time
import torch
from diffusers import DiffusionPipeline, ModelMixin
start = time.perf_counter()
import dfmgan_hf
imported = time.perf_counter()
pipe = dfmgan_hf.DFMGANPipeline.from_pretrained(sys.argv[1])
loaded = time.perf_counter()
pipe.set_progress_bar_config(disable=True)
pipe(seeds=[0])
print(imported - start, loaded - imported, time.perf_counter() - loaded)
"""


@dataclass
class Arguments:
    """What to time.

    Args:
        model: Folder of the pipeline.
        repeats: ProcessGroup of which the median is taken.
    """

    model: Path = MODEL
    repeats: int = 5


def main(arguments: Arguments) -> dict[str, Any]:
    runs = []
    for _ in range(arguments.repeats + 1):
        command = [sys.executable, "-c", SCRIPT, str(arguments.model.resolve())]
        run = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
        runs.append([float(seconds) for seconds in run.stdout.split()])
    # The first one reads the files from the disk.
    names = ("import_seconds", "from_pretrained_seconds", "first_triplet_seconds")
    return {name: Timing.of(list(column)) for name, column in zip(names, zip(*runs[1:], strict=True), strict=True)}


if __name__ == "__main__":
    write_json("startup", main(tyro.cli(Arguments, description=__doc__)))
