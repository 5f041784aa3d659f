"""What a run takes of memory, measured on its first step, and what helps when it is too much."""

from __future__ import annotations

import psutil
import torch

GIB = 2**30


def advice(images: int, precision: str) -> str:
    """Say what makes a run need less memory.

    Args:
        images: micro-batch of a process.
        precision: of the run.
    """
    options = []
    if images > 4:
        options.append(f"--low_vram (4 instead of {images} images at a time, half precision)")
        options.append("a larger --accumulation_steps")
    if precision == "float32":
        options.append("--precision float16")
    options += ["a smaller --resolution, --channel_base or --preset", "more GPUs"]
    return "What helps, in this order: " + "; ".join(options) + "."


def out_of_memory(error: torch.OutOfMemoryError, images: int, precision: str) -> torch.OutOfMemoryError:
    """Return the same error with advice."""
    return torch.OutOfMemoryError(
        f"{error}\n{advice(images, precision)} Checkpoints that were written are kept: "
        "--resume_from_checkpoint latest goes on from the last one, if the networks stay the same."
    )


def used_memory(device: torch.device) -> dict[str, float]:
    """Return the GiB that this process has used: its memory now, and on CUDA the most that tensors have taken."""
    used = {"resident_memory_gib": psutil.Process().memory_info().rss / GIB}
    if device.type == "cuda":
        used["peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / GIB
    return used


def describe_use(device: torch.device) -> str:
    """Say in a line what the steps so far have taken. Every phase is due in the first step."""
    used = used_memory(device)
    if device.type != "cuda":
        return f"Memory after the first step: {used['resident_memory_gib']:.1f} GiB."
    total = torch.cuda.get_device_properties(device).total_memory / GIB
    return f"Memory of the first step: {used['peak_memory_gib']:.1f} GiB of the GPU's {total:.1f}; ADA can add to it."
