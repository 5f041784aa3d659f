"""Checkpoints: all that a run needs to go on bit for bit, as safetensors and JSON, whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

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
    """The states of this process's random generators: torch on CPU and CUDA, NumPy and Python, as tensors."""
    kind, keys, position, has_gauss, cached = np.random.get_state()
    version, internal, gauss = random.getstate()
    python = json.dumps([version, internal, gauss]).encode()
    numpy_rest = json.dumps([kind, int(position), int(has_gauss), float(cached)]).encode()
    state = {
        "torch": torch.get_rng_state(),
        "numpy_keys": torch.from_numpy(np.array(keys, dtype=np.int64)),
        "numpy_rest": torch.frombuffer(bytearray(numpy_rest), dtype=torch.uint8),
        "python": torch.frombuffer(bytearray(python), dtype=torch.uint8),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def restore_random_state(state: dict[str, Tensor]) -> None:
    """Inverse of `random_state`."""
    torch.set_rng_state(state["torch"])
    kind, position, has_gauss, cached = json.loads(bytes(state["numpy_rest"].tolist()))
    np.random.set_state((kind, state["numpy_keys"].numpy().astype(np.uint32), position, has_gauss, cached))
    version, internal, gauss = json.loads(bytes(state["python"].tolist()))
    random.setstate((version, tuple(internal), gauss))
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


def write_checkpoint(
    folder: Path, images_seen: int, groups: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int | None
) -> Path:
    """Write a checkpoint aside, then rename it; older ones beyond `keep` are removed afterwards.

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
    name = f"{PREFIX}{images_seen:010d}"
    target, partial, replaced = folder / name, folder / f".{name}.partial", folder / f".{name}.replaced"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        digests = {}
        for group, tensors in groups.items():
            path = partial / f"{group}.safetensors"
            # Clones: safetensors refuses tensors that share memory, and parameters may be views.
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, path)
            digests[path.name] = _sha256(path)
        text = json.dumps({"images_seen": images_seen, **state, "sha256": digests}, indent=2)
        (partial / STATE_FILE).write_text(text)
        for path in [*partial.iterdir(), partial]:
            _sync(path)
        if target.exists():
            os.replace(target, replaced)
        os.replace(partial, target)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Checkpoint {target} could not be written: {error}. Earlier ones are untouched: make room, then go on "
            "with --resume_from_checkpoint latest."
        ) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
    if keep is not None:
        until = [path for path in list_checkpoints(folder) if path.name <= name]
        for old in until[:-keep]:
            # Renamed first, so that a removal cut short leaves no damaged checkpoint.
            os.replace(old, replaced)
            shutil.rmtree(replaced)
    return target


def remove_partial(folder: Path) -> None:
    """Remove what a killed run left half-written in `folder`."""
    for path in [*folder.glob(f".{PREFIX}*.partial"), *folder.glob(f".{PREFIX}*.replaced")]:
        shutil.rmtree(path, ignore_errors=True)


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
            if _sha256(path / name) != digest:
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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
