"""Official snapshots to safetensors folders that `from_pretrained` loads."""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from ..models import DFMGANGenerator, StyleGAN2Discriminator, StyleGAN2Generator
from ..pipelines import DFMGANPipeline
from .configuration import (
    DISCRIMINATOR_RENAMES,
    GENERATOR_RENAMES,
    discriminator_config,
    generator_config,
    has_defect_branch,
    rename,
)
from .official import OfficialNetwork, OfficialSnapshot, read_official_snapshot
from .unpickling import SnapshotError

# The averaged generator becomes the pipeline's component "generator"; the others lie beside it.
FOLDERS = {"G": "generator_raw", "D": "discriminator", "D_match": "match_discriminator"}


@dataclass
class ConvertedSnapshot:
    """What a conversion found and wrote.

    Args:
        output_dir: the folder; `DFMGANPipeline.from_pretrained` loads it.
        stage: 1 (backbone only, also a StyleGAN2-ADA network) or 2 (with the defect branch).
        configs: constructor arguments of each network by subfolder.
        parameters: trainable parameters of each network by subfolder.
        augmentation_probability: ADA's p when the snapshot was written, or None.
        ignored_source_chars: length of the Python source in the snapshot that was not executed.
    """

    output_dir: Path
    stage: int
    configs: dict[str, dict[str, Any]]
    parameters: dict[str, int]
    augmentation_probability: float | None
    ignored_source_chars: int


def convert_official_snapshot(
    path: str | os.PathLike[str], output_dir: str | os.PathLike[str], *, overwrite: bool = False
) -> ConvertedSnapshot:
    """Convert an official DFMGAN or unconditional StyleGAN2-ADA snapshot; nothing that it contains is executed.

    `output_dir` becomes a pipeline's folder, with `generator` from the snapshot's averaged G_ema, and `generator_raw`
    (G), `discriminator` (D) and `match_discriminator` (D_match) beside it where the snapshot has them, each loadable
    by its class's `from_pretrained(output_dir, subfolder=...)`. It appears complete or not at all.

    Args:
        path: the snapshot, `network-snapshot-*.pkl`.
        output_dir: folder to write; it may exist if it is empty.
        overwrite: replace the pipeline that `output_dir` already holds.

    Raises:
        ForbiddenGlobalError: the pickle names anything but what snapshots are made of.
        SnapshotError: the file is no complete snapshot, or holds networks that ours cannot represent.
        FileExistsError: `output_dir` is in use.
    """
    output_dir = Path(output_dir)
    _check_output_dir(output_dir, overwrite)
    snapshot = read_official_snapshot(path)
    generator = _build_generator(snapshot, "G_ema")
    models: dict[str, ModelMixin] = {"generator": generator}
    for name, folder in FOLDERS.items():
        if name in snapshot.networks:
            build = _build_generator if name == "G" else _build_discriminator
            models[folder] = build(snapshot, name)
    with _appearing_whole(output_dir) as staging:
        DFMGANPipeline(generator=generator).save_pretrained(str(staging))
        for folder, model in models.items():
            if folder != "generator":
                model.save_pretrained(str(staging / folder))
    augment_pipe = snapshot.augment_pipe
    p = None if augment_pipe is None else augment_pipe.tensors.get("p")
    return ConvertedSnapshot(
        output_dir=output_dir,
        stage=2 if has_defect_branch(snapshot.networks["G_ema"]) else 1,
        configs={
            folder: {k: v for k, v in model.config.items() if not k.startswith("_")}
            for folder, model in models.items()
        },
        parameters={folder: sum(p.numel() for p in model.parameters()) for folder, model in models.items()},
        augmentation_probability=None if p is None or p.numel() != 1 else float(p),
        ignored_source_chars=snapshot.ignored_source_chars,
    )


def _build_generator(snapshot: OfficialSnapshot, name: str) -> StyleGAN2Generator:
    network = snapshot.networks[name]
    with _naming(snapshot, name):
        model_class = DFMGANGenerator if has_defect_branch(network) else StyleGAN2Generator
        model = model_class(**generator_config(network))
        _fill(model, network, GENERATOR_RENAMES)
    return model


def _build_discriminator(snapshot: OfficialSnapshot, name: str) -> StyleGAN2Discriminator:
    network = snapshot.networks[name]
    with _naming(snapshot, name):
        model = StyleGAN2Discriminator(**discriminator_config(network))
        _fill(model, network, DISCRIMINATOR_RENAMES)
    return model


def _fill(model: ModelMixin, network: OfficialNetwork, rules: tuple[tuple[str, str], ...]) -> None:
    """Load the network's tensors; nothing may be missing, unknown or of another shape."""
    broken = [name for name, tensor in network.tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise SnapshotError(
            f"NaN or infinity in {_listed(broken)}: the training had diverged; use an earlier snapshot."
        )
    ours, theirs = model.state_dict(), rename(network.tensors, rules)
    problems = {
        "missing": [name for name in ours if name not in theirs],
        "unknown": [name for name in theirs if name not in ours],
        "of another shape": [n for n, t in ours.items() if n in theirs and t.shape != theirs[n].shape],
    }
    if any(problems.values()):
        found = "; ".join(f"{what}: {_listed(names)}" for what, names in problems.items() if names)
        raise SnapshotError(
            f"a {network.class_name} of another architecture than DFMGAN's or StyleGAN2's defaults "
            f"(skip generator, residual discriminator). Tensors {found}."
        )
    model.load_state_dict(theirs, strict=True)


def _listed(names: list[str], limit: int = 5) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


@contextmanager
def _naming(snapshot: OfficialSnapshot, name: str) -> Iterator[None]:
    """Errors inside say which file and network they are about."""
    try:
        yield
    except ValueError as error:
        raise SnapshotError(f"{snapshot.path}: {name} cannot be converted: {error}") from error


def _check_output_dir(output_dir: Path, overwrite: bool) -> None:
    if not output_dir.exists():
        return
    if not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is a file; name a folder to write to.")
    if not any(output_dir.iterdir()):
        return
    if not overwrite:
        raise FileExistsError(
            f"{output_dir} is not empty. Name another folder, or replace what it holds with overwrite=True."
        )
    if not (output_dir / DFMGANPipeline.config_name).is_file():
        raise FileExistsError(
            f"{output_dir} holds no pipeline ({DFMGANPipeline.config_name} is missing), so it is not replaced."
        )


@contextmanager
def _appearing_whole(output_dir: Path) -> Iterator[Path]:
    """A folder beside `output_dir` that takes its place at the end, or disappears if an error is raised."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex[:8]
    staging = output_dir.with_name(f".{output_dir.name}.{mark}.partial")
    replaced = output_dir.with_name(f".{output_dir.name}.{mark}.replaced")
    staging.mkdir()
    try:
        yield staging
        if output_dir.exists():
            os.replace(output_dir, replaced)
        try:
            os.replace(staging, output_dir)
        except OSError:
            if replaced.exists():
                os.replace(replaced, output_dir)
            raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)
