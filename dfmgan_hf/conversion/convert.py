"""Official snapshots to safetensors folders that `from_pretrained` loads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers.models.modeling_utils import ModelMixin

from ..files import whole_folder
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

    def __str__(self) -> str:
        generator = self.configs["generator"]
        kind = "2 (defects and masks)" if self.stage == 2 else "1 (defect-free images only)"
        lines = [
            f"Found a snapshot of stage {kind}, {generator['resolution']}x{generator['resolution']}, "
            f"{generator['image_channels']} channel(s); ignored {self.ignored_source_chars} characters of source text."
        ]
        if self.augmentation_probability is not None:
            lines.append(f"Its augmentation probability (ADA) was {self.augmentation_probability:.3f}.")
        lines.append(f"Wrote {self.output_dir}:")
        for folder, config in self.configs.items():
            sizes = ", ".join(f"{name}={value}" for name, value in config.items())
            lines.append(f"  {folder}: {self.parameters[folder]:,} parameters ({sizes})")
        lines.append(f'Load it with DFMGANPipeline.from_pretrained("{self.output_dir}").')
        return "\n".join(lines)


def convert_official_snapshot(snapshot: Path, output_dir: Path, *, overwrite: bool = False) -> ConvertedSnapshot:
    """Convert an official DFMGAN or unconditional StyleGAN2-ADA snapshot; nothing that it contains is executed.

    `output_dir` becomes a pipeline's folder, with `generator` from the snapshot's averaged G_ema, and `generator_raw`
    (G), `discriminator` (D) and `match_discriminator` (D_match) beside it where the snapshot has them, each loadable
    by its class's `from_pretrained(output_dir, subfolder=...)`. It appears complete or not at all.

    Args:
        snapshot: the official snapshot, network-snapshot-*.pkl.
        output_dir: folder to write; it appears complete or not at all, and may exist if it is empty.
        overwrite: replace the pipeline that output_dir already holds.

    Raises:
        ForbiddenGlobalError: the pickle names anything but what snapshots are made of.
        SnapshotError: the file is no complete snapshot, or holds networks that ours cannot represent.
        FileExistsError: `output_dir` is in use.
    """
    output_dir = Path(output_dir)
    _check_output_dir(output_dir, overwrite)
    official = read_official_snapshot(snapshot)
    generator = _build_generator(official, "G_ema")
    models: dict[str, ModelMixin] = {"generator": generator}
    for name, folder in FOLDERS.items():
        if name in official.networks:
            build = _build_generator if name == "G" else _build_discriminator
            models[folder] = build(official, name)
    with whole_folder(output_dir, replace=overwrite) as staging:
        DFMGANPipeline(generator=generator).save_pretrained(str(staging))
        for folder, model in models.items():
            if folder != "generator":
                model.save_pretrained(str(staging / folder))
    augment_pipe = official.augment_pipe
    p = None if augment_pipe is None else augment_pipe.tensors.get("p")
    return ConvertedSnapshot(
        output_dir=output_dir,
        stage=2 if has_defect_branch(official.networks["G_ema"]) else 1,
        configs={
            folder: {k: v for k, v in model.config.items() if not k.startswith("_")}
            for folder, model in models.items()
        },
        parameters={folder: sum(p.numel() for p in model.parameters()) for folder, model in models.items()},
        augmentation_probability=None if p is None or p.numel() != 1 else float(p),
        ignored_source_chars=official.ignored_source_chars,
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
    """Refuse before minutes of reading what `whole_folder` would refuse after them, and to replace other things."""
    if not output_dir.exists() or (output_dir.is_dir() and not any(output_dir.iterdir())):
        return
    if not overwrite or not output_dir.is_dir():
        raise FileExistsError(f"{output_dir} is in use. Name another folder, or replace it with overwrite=True.")
    if not (output_dir / DFMGANPipeline.config_name).is_file():
        raise FileExistsError(
            f"{output_dir} holds no pipeline ({DFMGANPipeline.config_name} is missing), so it is not replaced."
        )
