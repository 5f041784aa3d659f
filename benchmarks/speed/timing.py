"""Medians with their spread, from calls that take turns so that a slow moment of the machine meets all of them."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from dfmgan_hf.files import write_text

RESULTS = Path(__file__).parents[1] / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds of one call.

    Args:
        median, low, high: the median and the quartiles.
        repeats: number of calls.
    """

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
        return cls(median, low, high, len(seconds))


def synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def seconds_of(call: Callable[[], object]) -> float:
    synchronize()
    start = time.perf_counter()
    call()
    synchronize()
    return time.perf_counter() - start


QUICK_SECONDS = 2.0
"""Calls up to this long are made once more at the start of their turn, since the other calls have left the caches and
the memory in their own state."""


def time_in_turns(calls: Mapping[str, Callable[[], object]], repeats: int, warm_up: int = 1) -> dict[str, Timing]:
    """Time every call `repeats` times, one after the other, after `warm_up` rounds that do not count."""
    quick: set[str] = set()
    for _ in range(warm_up):
        for name, call in calls.items():
            if seconds_of(call) < QUICK_SECONDS:
                quick.add(name)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            if name in quick:
                call()
            seconds[name].append(seconds_of(call))
    return {name: Timing.of(values) for name, values in seconds.items()}


def processor_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def processor_features() -> list[str]:
    """What of the processor's instruction sets decides how fast convolutions are."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return []
    return [name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile") if f" {name} " in text]


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    facts: dict[str, Any] = {
        "processor": processor_name(),
        "features": processor_features(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
        facts["cuda"] = torch.version.cuda
    return facts


def write_json(name: str, results: object, output_dir: Path = RESULTS) -> Path:
    """Write `output_dir`/`name`.json, with the machine beside the results, and print them."""
    text = json.dumps({"machine": machine(), "results": results}, indent=1, default=asdict)
    path = output_dir / f"{name}.json"
    write_text(path, text + "\n")
    print(text, flush=True)
    return path
