"""Run every benchmark of this machine, each in a process of its own, and write the tables into README.md.

    python benchmarks/run_all.py

About ten minutes on two cores. Nothing else should run meanwhile. `--only` takes names of benchmarks.
"""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

ROOT = Path(__file__).parents[1]

BENCHMARKS = {
    "startup": ["benchmarks.startup"],
    "triplet": ["benchmarks.triplet", "--mask-shares", "0.05", "1.0", "--repeats", "3"],
    "training": ["benchmarks.training"],
    "training_256": [
        *("benchmarks.training", "--presets", "auto", "--batch-sizes", "2", "--repeats", "1", "--warm-up", "0"),
        *("--name", "training_256"),
    ],
    "resolutions": ["benchmarks.resolutions"],
    "throughput": ["benchmarks.throughput"],
    "precision": ["benchmarks.precision"],
}


@dataclass
class Arguments:
    """What to run.

    Args:
        only: Names of benchmarks; all of them if none is given.
    """

    only: tuple[str, ...] = ()


def main(arguments: Arguments) -> int:
    failed = []
    for name in arguments.only or BENCHMARKS:
        start = time.perf_counter()
        command = [sys.executable, "-m", *BENCHMARKS[name]]
        if subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode:
            failed.append(name)
        print(f"{name}: {time.perf_counter() - start:.0f} s", flush=True)
    subprocess.run([sys.executable, "-m", "benchmarks.report"], cwd=ROOT, check=True)
    if failed:
        print(f"Failed: {', '.join(failed)}")
    return len(failed)


if __name__ == "__main__":
    sys.exit(main(tyro.cli(Arguments, description=__doc__)))
