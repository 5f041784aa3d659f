"""Checkpoints: all that a run needs to resume bit for bit, as safetensors and JSON; and the best model of a run."""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..arguments import check_effect
from ..files import SCORE_FILE, TRAINING_FILE, file_sha256, recover_folder, remove_folder, whole_folder, write_json
from ..processes import ProcessGroup
from .task import Task

PREFIX = "checkpoint-"
STATE_FILE = "state.json"
MOST_BAD_MASKS = 0.5

Score = dict[str, Any]
Scorer = Callable[[], Score]
"""Draws from the averaged generator and measures it; every process calls it. It must leave the global random
generators alone."""


class CheckpointError(RuntimeError):
    """A checkpoint cannot be found, read or used; the message says which and what to do."""


def read_training_record(folder: Path) -> dict[str, Any]:
    """Return the settings and results that a training wrote into its folder; nothing of another folder.

    Raises:
        CheckpointError: the file is not what a training wrote.
    """
    file = folder / TRAINING_FILE
    if not file.is_file():
        return {}
    try:
        record = json.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{file} is damaged: {error}. Take it from where it was trained, or remove it."
        ) from error
    if not isinstance(record, dict) or not all(isinstance(record.get(k, {}), dict) for k in ("recipe", "result")):
        raise CheckpointError(f"{file} is not what a training wrote. Take it from where it was trained, or remove it.")
    return record


# --- What a checkpoint holds: all that it takes to resume bit for bit ---


def collect_tensors(task: Task, processes: ProcessGroup) -> dict[str, dict[str, Tensor]]:
    """Return networks, optimisers, the method's own tensors and random states by file; all processes must call it."""
    groups = {f"network_{name}": network.state_dict() for name, network in task.networks.items()}
    for name, optimizer in task.optimizers.items():
        groups[f"optimizer_{name}"] = flatten_optimizer(optimizer)
    groups["task"] = task.state_dict()
    for rank, state in enumerate(processes.gather(random_state())):
        groups[f"random_{rank}"] = state
    return groups


def restore_tensors(task: Task, groups: dict[str, dict[str, Tensor]]) -> None:
    """Put networks, optimisers and the method's own tensors back.

    Raises:
        KeyError, RuntimeError, ValueError: they belong to other networks or another method.
    """
    networks = {name.removeprefix("network_") for name in groups if name.startswith("network_")}
    if networks != set(task.networks):
        raise ValueError(f"It holds {', '.join(sorted(networks))}; this run trains {', '.join(task.networks)}.")
    for name, network in task.networks.items():
        network.load_state_dict(groups[f"network_{name}"], strict=True)
    for name, optimizer in task.optimizers.items():
        restore_optimizer(optimizer, groups[f"optimizer_{name}"])
    task.load_state_dict(groups["task"])


def changed_settings(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Return the settings that differ, as "name: old -> new"; nested ones are named with dots."""
    before, after = flatten(old), flatten(new)
    changed = (name for name in sorted(before.keys() | after.keys()) if before.get(name) != after.get(name))
    return [f"{name}: {before.get(name)} -> {after.get(name)}" for name in changed]


def flatten(settings: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return nested settings as one level, with dots in the names."""
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{name}."))
        else:
            flat[f"{prefix}{name}"] = value
    return flat


def all_finite(task: Task) -> bool:
    """Return whether every parameter, buffer and optimiser state is finite. Waits for the device."""
    tensors = [tensor for network in task.networks.values() for tensor in network.state_dict().values()]
    for optimizer in task.optimizers.values():
        tensors += flatten_optimizer(optimizer).values()
    # A sum is finite only if its terms are, and needs no second tensor of their size.
    sums = [tensor.sum(dtype=torch.float64 if tensor.device.type != "mps" else None) for tensor in tensors]
    return all(bool(total.isfinite()) for total in sums)


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state tensors by "<parameter index>.<state name>"."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{key}": torch.as_tensor(value) for index, entry in state.items() for key, value in entry.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put back what `flatten_optimizer` returned, or raise ValueError; hyperparameters stay those of `optimizer`."""
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


def restore_random_state(groups: dict[str, dict[str, Tensor]], state: dict[str, Any], processes: ProcessGroup) -> None:
    """Take over this process's random state; those of devices that are not there are left alone."""
    own = groups.get(f"random_{processes.rank}")
    if own is None or state["num_processes"] != processes.count:
        # Another number of processes cannot repeat the old run; let it at least not repeat itself.
        torch.manual_seed(state["images_seen"] * 1009 + processes.rank)
        return
    torch.set_rng_state(own["torch"])
    if "cuda" in own and torch.cuda.is_available():
        torch.cuda.set_rng_state(own["cuda"])
    if "mps" in own and torch.backends.mps.is_available():
        torch.mps.set_rng_state(own["mps"])


# --- Checkpoints on the disk: safetensors and JSON, whole or not at all ---


def write_checkpoint(
    folder: Path, images_seen: int, groups: dict[str, dict[str, Tensor]], state: dict[str, Any], keep: int | None
) -> Path:
    """Write a checkpoint, whole or not at all; older ones beyond `keep` are removed afterwards.

    So are later ones: they were damaged, or what came after them was not wanted, since the run went on from an earlier
    one. As "latest" they would be taken for its own.

    Args:
        folder: holds all checkpoints of the run.
        images_seen: names the checkpoint.
        groups: tensors; each group becomes <group>.safetensors.
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
            state = {"images_seen": images_seen, **state, "sha256": digests}
            write_json(aside / STATE_FILE, {**state, "state_sha256": state_sha256(state)})
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"Checkpoint {target} could not be written: {error}. Earlier ones are untouched: make room, then resume "
            "with --resume_from_checkpoint latest."
        ) from error
    present = list_checkpoints(folder)
    place = present.index(target) + 1
    for path in [*present[: 0 if keep is None else max(place - keep, 0)], *present[place:]]:
        remove_folder(path)
    return target


def remove_partial(folder: Path) -> None:
    """Undo what a killed run left half-written in `folder`."""
    for path in folder.glob(f".{PREFIX}*.replaced"):
        # With nothing to take its place, it was being removed, and is not to come back as the latest.
        if not path.with_suffix(".partial").exists():
            shutil.rmtree(path, ignore_errors=True)
    for path in folder.glob(f".{PREFIX}*.partial"):
        recover_folder(path.with_name(path.stem.removeprefix(".")))


def list_checkpoints(folder: Path) -> list[Path]:
    """Return the whole checkpoints in `folder`, oldest first; their contents are not checked."""
    return sorted(p for p in folder.glob(f"{PREFIX}*") if p.name.removeprefix(PREFIX).isdecimal() and p.is_dir())


def read_checkpoint(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return tensors by group and the JSON state of one checkpoint.

    Raises:
        CheckpointError: a file is missing, or is not what was written.
    """
    try:
        state = json.loads((path / STATE_FILE).read_text("utf-8"))
        if not is_state(state, path.name):
            raise CheckpointError(f"Checkpoint {path} is damaged: {STATE_FILE} is not what was written.")
        groups = {}
        for name, digest in state["sha256"].items():
            if file_sha256(path / name) != digest:
                raise CheckpointError(f"Checkpoint {path} is damaged: {name} is not what was written.")
            groups[name.removesuffix(".safetensors")] = load_file(path / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise CheckpointError(f"Checkpoint {path} is damaged or incomplete: {error}.") from error
    return groups, state


def state_sha256(state: dict[str, Any]) -> str:
    """Return the SHA-256 of a checkpoint's JSON state, but for this number itself, in hex."""
    rest = {name: value for name, value in state.items() if name != "state_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def is_state(state: Any, folder: str) -> bool:
    """Return whether JSON is what `write_checkpoint` wrote into a folder of this name."""
    if not isinstance(state, dict) or state.get("state_sha256") != state_sha256(state):
        return False
    number = re.fullmatch(rf"{PREFIX}(\d+)", folder)
    names_are_plain = all(re.fullmatch(r"\w+\.safetensors", name) for name in state["sha256"])
    return names_are_plain and (number is None or int(number[1]) == state["images_seen"])


def find_checkpoint(folder: Path, which: str) -> tuple[Path, dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Return the checkpoint to resume from, with its tensors and its state.

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
    raise CheckpointError(
        f"No whole checkpoint found in {folder}. Remove that folder and start without --resume_from_checkpoint, or "
        "choose another --output_dir."
    )


# --- The best model of a run: scored every so often, kept beside the last one ---


@dataclass(frozen=True)
class ScoreConfig:
    """Scores while training, to keep the best model beside the last one.

    Args:
        eval_every_kimg: Interval of scores, which need the weights of AlexNet and LPIPS; 0 for none.
        eval_images: Generated images of a score, at least 2.
        lpips_weights: File with AlexNet's weights; None: environment DFMGAN_LPIPS_WEIGHTS, cache or download.

    Raises:
        ValueError: a negative or infinite interval, or fewer than two images.
    """

    eval_every_kimg: float = 0.0
    eval_images: int = 500
    lpips_weights: Path | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.eval_every_kimg < math.inf:
            raise ValueError(f"`eval_every_kimg` must be a finite number from 0 on, but is {self.eval_every_kimg}.")
        if self.eval_images < 2:
            raise ValueError(f"`eval_images` must be at least 2, which KID needs, but is {self.eval_images}.")
        if not self.eval_every_kimg:
            check_effect(self, ["eval_images", "lpips_weights"], "`eval_every_kimg`")


class BestModel:
    """Remember the best score, which is the one with the lowest KID, and keep the model that had it.

    Models whose masks are mostly empty or mostly cover over half of the image lose against all others: their images
    can score well, since they are hardly more than the backbone's.

    Args:
        folder: holds the exported model and score.json.
        config: when and of what scores are measured, for the record.
    """

    def __init__(self, folder: Path, config: ScoreConfig) -> None:
        self.folder = folder
        self.config = config
        self.images_seen = 0
        self.score: Score | None = None

    def offer(self, images_seen: int, score: Score, export: Callable[[Path], None]) -> bool:
        """Keep the model that `export` writes into a folder if its score is the best so far; return whether it is."""
        if self.score is not None and self.rank(score) <= self.rank(self.score):
            return False
        with whole_folder(self.folder, replace=True) as aside:
            export(aside)
            write_json(aside / SCORE_FILE, {"images_seen": images_seen, **score})
        self.images_seen, self.score = images_seen, score
        return True

    def rank(self, score: Score) -> tuple[bool, float]:
        """Return what sorts scores, the larger the better."""
        kid = score.get("kid")
        bad_masks = max(score.get("mask_empty_rate") or 0.0, score.get("mask_large_rate") or 0.0)
        return bad_masks <= MOST_BAD_MASKS, -math.inf if kid is None else -kid

    def clear(self) -> None:
        """Remove what another run kept. A folder without a score is not of a run, and stays."""
        recover_folder(self.folder)
        if (self.folder / SCORE_FILE).is_file():
            remove_folder(self.folder)

    def state_dict(self) -> dict[str, Any]:
        return {"images_seen": self.images_seen, "score": self.score}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Inverse of `state_dict`, but the folder says which model is to be beaten: a later one, or none."""
        recover_folder(self.folder)
        if self.folder.is_dir():
            self.images_seen, self.score = state["images_seen"], state["score"]
            with suppress(OSError, ValueError):  # without its score, the checkpoint's is the best guess
                kept = json.loads((self.folder / SCORE_FILE).read_text("utf-8"))
                self.images_seen, self.score = kept.pop("images_seen"), kept

    def rule(self) -> str:
        """Return the rule in words, for the record and the model card."""
        return (
            f"lowest KID on AlexNet features of {self.config.eval_images} generated images against the training "
            f"photographs, measured every {self.config.eval_every_kimg:g} kimg; models with over half of the masks "
            "empty, or covering over half of the image, come last"
        )

    def summary(self) -> str:
        """Return one line for people."""
        kid = None if self.score is None else self.score.get("kid")
        shown = "not measurable" if kid is None else f"{kid:.4f}"
        return f"after {self.images_seen / 1000:.2f} kimg, kid {shown}, in {self.folder.name}/"
