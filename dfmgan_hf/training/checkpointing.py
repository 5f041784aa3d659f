"""Checkpoints: all that a run needs to go on bit for bit, as safetensors and JSON, whole or not at all."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..files import file_sha256, recover_folder, remove_folder, whole_folder, write_json

PREFIX = "checkpoint-"
STATE_FILE = "state.json"


class CheckpointError(RuntimeError):
    """A checkpoint cannot be found, read or used; the message says which and what to do."""


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """An optimiser's state tensors by "<parameter index>.<state name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Inverse of `flatten_optimizer`; hyperparameters stay those of `optimizer`.

    Raises:
        ValueError: the tensors belong to other parameters.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        index, key = name.split(".", 1)
        if int(index) >= len(parameters):
            raise ValueError(f"The optimiser has {len(parameters)} parameters, and no {name}.")
        parameter = parameters[int(index)]
        if value.ndim:
            if value.shape != parameter.shape:
                raise ValueError(f"{name} of the optimiser is {tuple(value.shape)}, not {tuple(parameter.shape)}.")
            # In the parameter's memory format: fused Adam walks all of them as flat memory.
            value = torch.empty_like(parameter).copy_(value)
        state.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def random_state() -> dict[str, Tensor]:
    """Return the states of the random generators that training draws from: torch's on the CPU and the accelerator."""
    state = {"torch": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Take over a state of `random_state`; those of devices that are not there are left alone."""
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"])


def write_checkpoint(
    folder: Path, images_seen: int, groups: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int | None
) -> Path:
    """Write a checkpoint, whole or not at all; older ones beyond `keep` are removed afterwards.

    Later ones stay: a run that went on from an earlier checkpoint, because they are damaged, replaces them.

    Args:
        folder: holds all checkpoints of the run.
        images_seen: names the checkpoint.
        groups: tensors by file; each group becomes <group>.safetensors.
        state: what else is needed, as JSON.
        keep: how many checkpoints stay; None for all.

    Raises:
        CheckpointError: it cannot be written, for example because the disk is full; earlier checkpoints are untouched
            and nothing partial is left.
    """
    target = folder / f"{PREFIX}{images_seen:010d}"
    try:
        with whole_folder(target, replace=True, durable=True) as aside:
            digests = {}
            for group, tensors in groups.items():
                path = aside / f"{group}.safetensors"
                # Clones: safetensors refuses tensors that share memory, and parameters may be views.
                save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)
                digests[path.name] = file_sha256(path)
            write_json(aside / STATE_FILE, {"images_seen": images_seen, **state, "sha256": digests})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Checkpoint {target} could not be written: {error}. Earlier ones are untouched: make room, then go on "
            "with --resume_from_checkpoint latest."
        ) from error
    if keep is not None:
        until = [path for path in list_checkpoints(folder) if path.name <= target.name]
        for old in until[:-keep]:
            remove_folder(old)
    return target


def remove_partial(folder: Path) -> None:
    """Undo what a killed run left half-written in `folder`."""
    for path in [*folder.glob(f".{PREFIX}*.partial"), *folder.glob(f".{PREFIX}*.replaced")]:
        recover_folder(path.with_name(path.stem.removeprefix(".")))


def list_checkpoints(folder: Path) -> list[Path]:
    """Whole checkpoints in `folder`, oldest first, by name; their contents are not checked."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if p.is_dir())


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Tensors by group and the JSON state of one checkpoint.

    Raises:
        CheckpointError: a file is missing, or is not what was written.
    """
    try:
        state = json.loads((path / STATE_FILE).read_text())
        groups = {}
        for name, digest in state["sha256"].items():
            if file_sha256(path / name) != digest:
                raise CheckpointError(f"Checkpoint {path} is damaged: {name} is not what was written.")
            groups[name.removesuffix(".safetensors")] = load_file(path / name)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise CheckpointError(f"Checkpoint {path} is damaged or incomplete: {error}.") from error
    return groups, state


def find_checkpoint(folder: Path, which: str) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """The checkpoint to go on from.

    Args:
        folder: the run's checkpoints.
        which: "latest" (damaged ones are named in a warning and skipped) or a checkpoint's path.

    Raises:
        CheckpointError: there is none, or the one named is damaged.
    """
    if which != "latest":
        path = Path(which)
        if not path.is_dir():
            raise CheckpointError(f"There is no checkpoint folder {path}. Give a folder {PREFIX}*, or 'latest'.")
        return (path, *read_checkpoint(path))
    for path in reversed(list_checkpoints(folder)):
        try:
            return (path, *read_checkpoint(path))
        except CheckpointError as error:
            warnings.warn(f"{error} It is skipped; the one before it is tried.", stacklevel=2)
    raise CheckpointError(f"No whole checkpoint found in {folder}. Start without --resume_from_checkpoint.")
