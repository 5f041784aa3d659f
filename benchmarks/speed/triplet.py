"""Time of a triplet (defect image, mask, defect-free twin), beside the convolutions alone and beside the naive way.

    python -m benchmarks.speed.triplet

The networks are random. How much of the picture the mask covers does not matter.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import tyro
from torch import Tensor

from benchmarks.speed import naive as naive_way
from benchmarks.speed.ceiling import ceiling_seconds, flop, record
from benchmarks.speed.timing import Timing, time_in_turns, write_json
from dfmgan_hf.cli import run
from dfmgan_hf.models.dfmgan import DFMGANGenerator, DFMGANGeneratorOutput
from dfmgan_hf.models.stylegan2 import hold_weights


@dataclass
class Arguments:
    """What to time.

    Args:
        resolution: Of the network; its other sizes are the defaults.
        channel_base: Of the network; None for the default.
        batch_sizes: To time.
        repeats: Calls of which the median is taken.
        check: Largest difference to the naive way that is accepted.
    """

    resolution: int = 256
    channel_base: int | None = None
    batch_sizes: tuple[int, ...] = (1, 8)
    repeats: int = 5
    check: float = 1e-3


def make_generator(resolution: int, channel_base: int | None) -> DFMGANGenerator:
    """A random network with noise."""
    torch.manual_seed(0)
    generator = DFMGANGenerator(
        resolution=resolution, channel_base=channel_base, residual_resolution=min(64, resolution // 2)
    )
    for name, parameter in generator.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(parameter, 0.1)
    return generator.eval().requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-arg]


def largest_difference(output: DFMGANGeneratorOutput, naive: tuple[Tensor, Tensor, Tensor]) -> float:
    """Over images, mask logits and twins, of what the naive way's largest magnitude is."""
    ours = (output.images, output.mask_logits, output.defect_free_images)
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(ours, naive, strict=True))


@torch.no_grad()
def measure(arguments: Arguments, batch_size: int) -> dict[str, Any]:
    """One row for each type."""
    generator = make_generator(arguments.resolution, arguments.channel_base)
    naive_generator = naive_way.make_contiguous(copy.deepcopy(generator))
    latents = torch.randn(2, batch_size, generator.config["z_dim"])

    def triplet(dtype: torch.dtype | None = None) -> DFMGANGeneratorOutput:
        generator.set_mixed_precision(dtype, len(generator.synthesis.resolutions))
        return generator(*latents, noise_mode="const", return_defect_free=True)

    def naive() -> tuple[Tensor, Tensor, Tensor]:
        return naive_way.triplet(naive_generator, *latents)

    difference = largest_difference(triplet(), naive())
    if difference > arguments.check:
        raise RuntimeError(f"The naive way draws something else: {difference:.2g} of the largest magnitude apart.")
    calls = {"float32": triplet, "bf16": partial(triplet, torch.bfloat16), "naive": naive}
    row: dict[str, Any] = {"batch_size": batch_size, "difference": difference}
    with hold_weights(generator):
        timings = time_in_turns(calls, arguments.repeats)
        for name in ("float32", "bf16"):
            convs = record(calls[name])
            ceiling = ceiling_seconds(convs, torch.device("cpu"))
            row[name] = summary(timings[name], batch_size, flop(convs), ceiling)
            row[name]["naive_to_time"] = timings["naive"].median / timings[name].median
    row["naive"] = {"seconds": timings["naive"], "images_per_second": batch_size / timings["naive"].median}
    return row


def summary(timing: Timing, batch_size: int, work: int, ceiling: float) -> dict[str, Any]:
    return {
        "seconds": timing,
        "images_per_second": batch_size / timing.median,
        "tflops": work / timing.median / 1e12,
        "ceiling_seconds": ceiling,
        "time_to_ceiling": timing.median / ceiling,
    }


def main(arguments: Arguments) -> list[dict[str, Any]]:
    return [measure(arguments, n) for n in arguments.batch_sizes]


if __name__ == "__main__":
    run(lambda arguments: write_json("triplet", main(tyro.cli(Arguments, args=arguments, description=__doc__))))
