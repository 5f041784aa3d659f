"""What a checkpoint holds of a run: all that it takes to go on bit for bit."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..processes import ProcessGroup
from .checkpointing import (
    CheckpointError,
    find_checkpoint,
    flatten_optimizer,
    random_state,
    restore_optimizer,
    restore_random_state,
)
from .task import Task


@dataclass
class Progress:
    """How far a run has come.

    Args:
        step: training steps.
        images_seen: real images shown.
        seconds: time spent training, without starts and stops.
    """

    step: int = 0
    images_seen: int = 0
    seconds: float = 0.0


def collect_state(
    task: Task, progress: Progress, processes: ProcessGroup, settings: dict[str, Any]
) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The tensors by file and the JSON part of a checkpoint; every process must call it.

    Args:
        task: networks, optimisers and the method's own state.
        progress: counters.
        processes: whose random states are gathered.
        settings: what the run was started with, to be compared when it goes on.
    """
    groups = {f"network_{name}": network.state_dict() for name, network in task.networks.items()}
    for name, optimizer in task.optimizers.items():
        groups[f"optimizer_{name}"] = flatten_optimizer(optimizer)
    groups["task"] = task.state_dict()
    for rank, state in enumerate(processes.gather(random_state())):
        groups[f"random_{rank}"] = state
    return groups, {
        "step": progress.step,
        "seconds": progress.seconds,
        "num_processes": processes.count,
        "settings": settings,
    }


def restore_state(
    task: Task, processes: ProcessGroup, settings: dict[str, Any], folder: Path, which: str
) -> tuple[Path, Progress, list[str], dict[str, Any] | None]:
    """Put a checkpoint into a task.

    Args:
        task: as in `collect_state`.
        processes: their random states are restored; with another number of them, new ones are seeded.
        settings: of this run.
        folder: the run's checkpoints.
        which: "latest" or a checkpoint's path.

    Returns:
        The checkpoint's path, the counters, the settings that are not the checkpoint's ("lr: 0.002 -> 0.001"), and the
        best score so far, if the checkpoint knows of scores.

    Raises:
        CheckpointError: there is none, it is damaged, or it belongs to other networks or another method.
    """
    path, groups, state = find_checkpoint(folder, which)
    changes = changed_settings(state["settings"], settings) if state.get("settings") else []
    networks = {name.removeprefix("network_") for name in groups if name.startswith("network_")}
    try:
        if networks != set(task.networks):
            raise ValueError(f"It holds {', '.join(sorted(networks))}; this run trains {', '.join(task.networks)}.")
        for name, network in task.networks.items():
            network.load_state_dict(groups[f"network_{name}"], strict=True)
        for name, optimizer in task.optimizers.items():
            restore_optimizer(optimizer, groups[f"optimizer_{name}"])
        task.load_state_dict(groups["task"])
    except (KeyError, RuntimeError, ValueError) as error:
        differing = f" Settings that differ: {'; '.join(changes)}." if changes else ""
        raise CheckpointError(
            f"Checkpoint {path} does not fit this run; use the settings that it was trained with.{differing} {error}"
        ) from error
    if f"random_{processes.rank}" in groups and state["num_processes"] == processes.count:
        restore_random_state(groups[f"random_{processes.rank}"])
    else:
        # Another number of processes cannot repeat the old run; let it at least not repeat itself.
        torch.manual_seed(state["images_seen"] * 1009 + processes.rank)
    return path, Progress(state["step"], state["images_seen"], state["seconds"]), changes, state.get("best")


def changed_settings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """The settings that differ, as "name: old -> new"; nested ones are named with dots."""
    before, after = flatten(old), flatten(new)
    names = sorted(before.keys() | after.keys())
    return [
        f"{name}: {before.get(name)} -> {after.get(name)}" for name in names if before.get(name) != after.get(name)
    ]


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level, with dots in the names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def all_finite(task: Task) -> bool:
    """Whether every parameter, buffer and optimiser state is finite. Waits for the device."""
    tensors = [tensor for network in task.networks.values() for tensor in network.state_dict().values()]
    for optimizer in task.optimizers.values():
        tensors += flatten_optimizer(optimizer).values()
    # A sum is finite only if its terms are, and needs no second tensor of their size.
    sums = [tensor.sum(dtype=torch.float64 if tensor.device.type != "mps" else None) for tensor in tensors]
    return all(bool(torch.stack(group).isfinite().all()) for group in _by_device(sums))


def _by_device(tensors: list[Tensor]) -> list[list[Tensor]]:
    groups: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        groups.setdefault(tensor.device, []).append(tensor)
    return list(groups.values())
