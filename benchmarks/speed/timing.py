"""Medians with their spread, from calls that take turns so that a slow moment of the machine meets all of them."""

from __future__ import annotations

import json
import os
import platform
import re
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
    """Seconds of one call: the median and the quartiles of so many calls."""

    median: float
    low: float
    high: float
    repeats: int

    @classmethod
    def of(cls, seconds: list[float]) -> Timing:
        low, median, high = statistics.quantiles(seconds, n=4, method="inclusive") if len(seconds) > 1 else seconds * 3
        return cls(median, low, high, len(seconds))


def seconds_of(call: Callable[[], object]) -> float:
    wait = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    wait()
    start = time.perf_counter()
    call()
    wait()
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


def machine() -> dict[str, Any]:
    """What the numbers depend on; of the processor's instruction sets, those that decide about convolutions."""
    cpuinfo = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = re.findall(r"^model name\s*: (.*)$", cpuinfo, re.MULTILINE)
    facts: dict[str, Any] = {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "features": [
            name for name in ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "amx_tile") if f" {name} " in cpuinfo
        ],
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    if torch.cuda.is_available():
        facts |= {"gpu": torch.cuda.get_device_name(), "cuda": torch.version.cuda}
    return facts


def write_json(name: str, results: object, output_dir: Path = RESULTS) -> Path:
    """Write `output_dir`/`name`.json, with the machine beside the results, and print them."""
    text = json.dumps({"machine": machine(), "results": results}, indent=1, default=asdict)
    path = output_dir / f"{name}.json"
    write_text(path, text + "\n")
    print(text, flush=True)
    return path
