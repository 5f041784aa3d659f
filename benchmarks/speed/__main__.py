"""Time everything on this machine, each benchmark in a process of its own, and write the tables into README.md.

    python -m benchmarks.speed

About ten minutes on two cores. Nothing else should run meanwhile. `--only` takes names of benchmarks; `--only` without
any just writes the tables anew, as after `python -m benchmarks.speed.gpu`.

Everything between the lines `<!-- NAME -->` and `<!-- end -->` of benchmarks/README.md is replaced by the table of
results/NAME.json; a table whose results are missing stays as it is.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tyro

from benchmarks.speed.gpu import markdown as gpu_tables
from benchmarks.speed.timing import RESULTS
from dfmgan_hf.cli import run
from dfmgan_hf.files import write_text

README = Path(__file__).parents[1] / "README.md"
Row = dict[str, Any]


def markdown(header: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def seconds(timing: Row) -> str:
    """The median and the quartiles."""
    return f"{timing['median']:.3g} ({timing['low']:.3g}-{timing['high']:.3g})"


def machine_line(machine: Row) -> str:
    where = f"{machine['processor']}, {machine['cores']} cores, {', '.join(machine['features'])}"
    if "gpu" in machine:
        where = f"{machine['gpu']}, CUDA {machine['cuda']}"
    versions = f"Python {machine['python']}, torch {machine['torch']}"
    return f"{where}; {versions}; {machine['threads']} threads; {machine['date']}."


def triplet(rows: list[Row]) -> str:
    header = (
        "batch", "type", "s a batch", "images/s", "TFLOP/s", "time / ceiling", "naive / time", "naive s a batch",
    )  # fmt: skip
    cells = [
        (
            row["batch_size"], dtype, seconds(row[dtype]["seconds"]),
            f"{row[dtype]['images_per_second']:.2f}", f"{row[dtype]['tflops']:.3f}",
            f"{row[dtype]['time_to_ceiling']:.2f}", f"{row[dtype]['naive_to_time']:.1f}",
            seconds(row["naive"]["seconds"]),
        )
        for row in rows
        for dtype in ("float32", "bf16")
    ]  # fmt: skip
    return markdown(header, cells)


def training(rows: list[Row]) -> str:
    header = (
        "stage", "preset", "resolution", "batch", "s an iteration", "s/kimg", "TFLOP/s", "time / ceiling",
        "naive / time", "in bf16", "naive / bf16",
    )  # fmt: skip
    cells = [
        (
            row["stage"], row["preset"], row["resolution"], row["batch_size"], f"{row['seconds']:.3f}",
            f"{row['seconds_per_kimg']:.1f}", f"{row['tflops']:.3f}", f"{row['time_to_ceiling']:.2f}",
            f"{row['naive_to_time']:.1f}", f"{row['bf16_seconds']:.3f}", f"{row['naive_to_bf16']:.1f}",
        )
        for row in rows
    ]  # fmt: skip
    phases = [
        (
            row["stage"], row["preset"], name, phase["interval"], seconds(phase["seconds"]),
            seconds(phase["bf16_seconds"]),
            f"{phase['ceiling_seconds']:.3g}", seconds(phase["naive_seconds"]),
            f"{phase['naive_seconds']['median'] / phase['seconds']['median']:.1f}",
        )
        for row in rows
        for name, phase in row["phases"].items()
    ]  # fmt: skip
    phase_header = ("stage", "preset", "phase", "every", "s", "in bf16", "ceiling s", "naive s", "naive / time")
    return markdown(header, cells) + "\n\n" + markdown(phase_header, phases)


def throughput(rows: list[Row]) -> str:
    header = ("images", "images/s since the row above", "MiB in RAM")
    return markdown(header, [(r["images"], f"{r['images_per_second']:.1f}", f"{r['resident_mib']:.0f}") for r in rows])


TABLES: dict[str, Callable[[Any], str]] = {
    "triplet": triplet,
    "training": training,
    "training_256": training,
    "throughput": throughput,
    "gpu": gpu_tables,
}


def update(text: str, results: Path) -> str:
    """The text with the tables of the results that there are."""
    for name, table in TABLES.items():
        path = results / f"{name}.json"
        if path.exists():
            content = json.loads(path.read_text(encoding="utf-8"))
            block = f"{table(content['results'])}\n\n{machine_line(content['machine'])}"
            pattern = rf"(<!-- {name} -->\n).*?(<!-- end -->)"
            text = re.sub(pattern, lambda match, block=block: f"{match[1]}{block}\n{match[2]}", text, flags=re.DOTALL)
    return text


BENCHMARKS = {
    "triplet": ["benchmarks.speed.triplet", "--repeats", "3"],
    "training": ["benchmarks.speed.training"],
    "training_256": [
        *("benchmarks.speed.training", "--presets", "auto", "--batch-sizes", "2", "--repeats", "1", "--warm-up", "0"),
        *("--name", "training_256"),
    ],
    "throughput": ["benchmarks.speed.throughput"],
}


def main(only: tuple[str, ...] = tuple(BENCHMARKS)) -> int:
    """Run benchmarks and write the tables.

    Args:
        only: Names of benchmarks.
    """
    if unknown := set(only) - set(BENCHMARKS):
        raise ValueError(f"There is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(BENCHMARKS)}.")
    failed = []
    for name in only:
        start = time.perf_counter()
        command = [sys.executable, "-m", *BENCHMARKS[name]]
        if subprocess.run(command, cwd=README.parents[1], stdout=subprocess.DEVNULL).returncode:
            failed.append(name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    write_text(README, update(README.read_text(encoding="utf-8"), RESULTS))
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    run(lambda arguments: tyro.cli(main, args=arguments, description=__doc__))
