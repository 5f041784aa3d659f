"""Memory of a training step of stage 2 at 256x256 with the low-memory preset, as far as a CPU can tell.

    python -m benchmarks.low_memory

The estimate is the one that a run prints before it starts: weights, averages, gradients, optimisers and what the most
demanding phase keeps for its backward pass. A CUDA device's context and workspaces come on top of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import tyro

from dfmgan_hf.methods.build import Target
from dfmgan_hf.methods.presets import RecipeOverrides
from dfmgan_hf.training.memory import GIB, estimate_memory

from .timing import write_json
from .training import make_task


@dataclass
class Arguments:
    """What to estimate.

    Args:
        resolution: Of the networks.
        images: At a time: 4 is what `--low_vram` takes.
    """

    resolution: int = 256
    images: int = 4


def main(arguments: Arguments) -> list[dict[str, Any]]:
    rows = []
    for stage in ("stage1", "stage2"):
        for dtype in (None, torch.float16):
            overrides = RecipeOverrides(resolution=arguments.resolution)
            task = make_task(stage, overrides, "auto", Target(torch.device("meta"), dtype))
            shape = (3, arguments.resolution, arguments.resolution)
            need = estimate_memory(task, arguments.images, shape, stage == "stage2")
            rows.append(
                {
                    "stage": stage,
                    "precision": "float32" if dtype is None else "float16",
                    "images": arguments.images,
                    "fixed_gib": need.fixed / GIB,
                    "activations_gib": need.activations / GIB,
                    "total_gib": need.total / GIB,
                    "phase": need.phase,
                }
            )
    return rows


if __name__ == "__main__":
    write_json("low_memory", main(tyro.cli(Arguments, description=__doc__)))
