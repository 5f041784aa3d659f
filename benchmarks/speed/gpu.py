"""All that is measured on a CUDA device, in one command of less than ten minutes.

    python -m benchmarks.speed.gpu

Triplets per second at batch 64 and latency at batch 1, eager and with `torch.compile`'s CUDA graphs; seconds per kimg
and peak memory of both stages in mixed precision; and whether a step of stage 2 with the low-memory settings fits. The
ceiling is the time of the convolutions alone, in the same process. Training steps are timed without their data, and
with synchronisations of the host turned into errors where `--check_synchronization` is set.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import tyro

from benchmarks.speed.ceiling import ceiling_seconds, flop, record
from benchmarks.speed.timing import time_in_turns, write_json
from benchmarks.speed.training import make_batch, make_task, measure, run_phase
from benchmarks.speed.triplet import make_generator, summary
from dfmgan_hf.cli import run
from dfmgan_hf.methods.method import RecipeConfig, Target
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.stylegan2 import hold_weights
from dfmgan_hf.training import RunningStatistics


@dataclass
class Arguments:
    """What to time. The defaults are the published sizes; a CPU can try the script with small ones.

    Args:
        device: To run on.
        dtype: Of the convolutions.
        resolution: Of the networks.
        channel_base: Of the networks; None for the default.
        batch_size: Triplets of a batch.
        training_batch_size: Images of a training step.
        low_memory_batch_size: Images at a time of the low-memory settings.
        compile: Also time `torch.compile(mode="reduce-overhead")`, which uses CUDA graphs.
        check_synchronization: Fail if a training step makes the host wait.
        repeats: Calls of which the median is taken.
    """

    device: str = "cuda"
    dtype: Literal["float16", "bfloat16"] = "float16"
    resolution: int = 256
    channel_base: int | None = None
    batch_size: int = 64
    training_batch_size: int = 16
    low_memory_batch_size: int = 4
    compile: bool = True
    check_synchronization: bool = False
    repeats: int = 10


def peak_gib(device: torch.device) -> float | None:
    """Most memory that tensors took since the last call; None where it is not counted."""
    if device.type != "cuda":
        return None
    peak = torch.cuda.max_memory_allocated(device) / 2**30
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    return peak


def triplet_call(generator: DFMGANGenerator, batch_size: int, device: torch.device) -> Callable[[], object]:
    latents = torch.randn(2, batch_size, generator.config["z_dim"], device=device)
    return lambda: generator(*latents, noise_mode="const", return_defect_free=True).to_tuple()


@torch.no_grad()
def measure_triplets(arguments: Arguments, device: torch.device) -> list[dict[str, Any]]:
    generator = make_generator(arguments.resolution, arguments.channel_base, 0.05).to(device)
    generator.set_mixed_precision(getattr(torch, arguments.dtype), len(generator.synthesis.resolutions))
    rows = []
    for batch_size in (1, arguments.batch_size):
        eager = triplet_call(generator, batch_size, device)
        convs = record(eager)
        ceiling = ceiling_seconds(convs, device)
        calls = {"eager": eager}
        if arguments.compile:
            calls["compiled"] = torch.compile(eager, mode="reduce-overhead")
        peak_gib(device)
        with hold_weights(generator):
            for name, call in calls.items():
                timing = time_in_turns({name: call}, arguments.repeats, warm_up=3)[name]
                row = summary(timing, batch_size, flop(convs), ceiling)
                rows.append({"how": name, "batch_size": batch_size, **row, "peak_gib": peak_gib(device)})
    return rows


def measure_training(arguments: Arguments, stage: Literal["stage1", "stage2"], batch_size: int) -> dict[str, Any]:
    target = Target(torch.device(arguments.device), getattr(torch, arguments.dtype))
    overrides = RecipeConfig(
        batch_size=batch_size, resolution=arguments.resolution, channel_base=arguments.channel_base
    )
    peak_gib(target.device)
    if arguments.check_synchronization:
        task = make_task(stage, overrides, "auto", target)
        batch, statistics = make_batch(task, batch_size, target.device), RunningStatistics(lambda sums: sums)
        for mode in ("default", "error"):  # the first step reserves memory, which may wait
            torch.cuda.set_sync_debug_mode(mode)
            for phase in task.phases:
                run_phase(phase, batch, statistics)
        torch.cuda.set_sync_debug_mode("default")
        del task
        peak_gib(target.device)
    row = measure(stage, "auto", overrides, target, repeats=arguments.repeats, check=None)
    return {**row, "peak_gib": peak_gib(target.device)}


def main(arguments: Arguments) -> dict[str, Any]:
    device = torch.device(arguments.device)
    return {
        "triplets": measure_triplets(arguments, device),
        "training": [
            measure_training(arguments, stage, arguments.training_batch_size) for stage in ("stage1", "stage2")
        ],
        "low_memory": measure_training(arguments, "stage2", arguments.low_memory_batch_size),
    }


if __name__ == "__main__":
    run(lambda arguments: write_json("gpu", main(tyro.cli(Arguments, args=arguments, description=__doc__))))
