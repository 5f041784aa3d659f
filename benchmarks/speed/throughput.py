"""Images per second and memory while a pipeline draws more and more images: both should be flat.

    python -m benchmarks.speed.throughput

Images are dropped batch by batch, as when they are written to a disk, so that memory should not grow.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import tyro

from benchmarks.speed.timing import write_json
from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.cli import run

MODEL = Path(__file__).parents[2] / "models" / "dfmgan-magnetic-tile"


@dataclass
class Arguments:
    """What to time.

    Args:
        model: Folder of the pipeline.
        marks: Numbers of images after which speed and memory are noted.
        batch: Images of one call.
    """

    model: Path = MODEL
    marks: tuple[int, ...] = (100, 1000, 10_000)
    batch: int = 50


def main(arguments: Arguments) -> list[dict[str, Any]]:
    pipe = DFMGANPipeline.from_pretrained(str(arguments.model))
    pipe.set_progress_bar_config(disable=True)
    pipe(seeds=range(arguments.batch), output_type="np")
    rows: list[dict[str, Any]] = []
    drawn, last, start = 0, 0, time.perf_counter()
    for mark in arguments.marks:
        while drawn < mark:
            n = min(arguments.batch, mark - drawn)
            pipe(seeds=range(drawn, drawn + n), output_type="np")
            drawn += n
        seconds = time.perf_counter() - start
        speed = (mark - last) / seconds
        resident = psutil.Process().memory_info().rss / 2**20
        rows.append({"images": mark, "images_per_second": speed, "resident_mib": round(resident, 1)})
        last, start = drawn, time.perf_counter()
    return rows


if __name__ == "__main__":
    run(lambda arguments: write_json("throughput", main(tyro.cli(Arguments, args=arguments, description=__doc__))))
