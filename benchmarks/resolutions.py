"""Cost by resolution: a triplet of the default network at each, beside its convolutions alone.

python -m benchmarks.resolutions
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import tyro

from dfmgan_hf.models import DFMGANGeneratorOutput
from dfmgan_hf.models.modulated import hold_weights

from .ceiling import ceiling_seconds, flop, record
from .timing import time_in_turns, write_json
from .triplet import make_generator


@dataclass
class Arguments:
    """What to time.

    Args:
        resolutions: Of the networks.
        channel_base: Of all of them; None for the defaults.
        mask_share: Area of the mask's box, of the picture.
        repeats: Calls of which the median is taken.
    """

    resolutions: tuple[int, ...] = (64, 128, 256, 512, 1024)
    channel_base: int | None = None
    mask_share: float = 0.05
    repeats: int = 3


@torch.no_grad()
def measure(resolution: int, arguments: Arguments) -> dict[str, Any]:
    generator = make_generator(resolution, arguments.channel_base, arguments.mask_share)
    latents = torch.randn(2, 1, generator.config["z_dim"])

    def triplet() -> DFMGANGeneratorOutput:
        return generator(*latents, noise_mode="const", return_defect_free=True)

    with hold_weights(generator):
        timing = time_in_turns({"triplet": triplet}, arguments.repeats)["triplet"]
        convs = record(triplet)
    ceiling = ceiling_seconds(convs, torch.device("cpu"), repeats=2)
    return {
        "resolution": resolution,
        "parameters": sum(p.numel() for p in generator.parameters()),
        "seconds": timing,
        "gflop": flop(convs) / 1e9,
        "tflops": flop(convs) / timing.median / 1e12,
        "ceiling_seconds": ceiling,
        "time_to_ceiling": timing.median / ceiling,
    }


def main(arguments: Arguments) -> list[dict[str, Any]]:
    return [measure(resolution, arguments) for resolution in arguments.resolutions]


if __name__ == "__main__":
    write_json("resolutions", main(tyro.cli(Arguments, description=__doc__)))
