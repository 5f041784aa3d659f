"""Several defects on one backbone: its weights are on the disk once, and every pipeline folder is whole by itself."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from ..models.generator import DEFECT_PREFIXES

WEIGHTS = "diffusion_pytorch_model.safetensors"
INDEX = f"{WEIGHTS}.index.json"
SHARDS = tuple(f"diffusion_pytorch_model-0000{i}-of-00002.safetensors" for i in (1, 2))


def share_backbone(folders: Iterable[Path], shared_file: Path) -> None:
    """Give the generators of several pipelines one file for the backbone that they have in common.

    Each generator's weights become two shards, which diffusers loads as one: the backbone, a hard link to
    `shared_file`, and the defect branch. Copied or uploaded, a folder still holds everything. Where the file system
    has no hard links, the file is copied.

    Args:
        folders: of pipelines with a `DFMGANGenerator`; those that are shared already stay as they are.
        shared_file: written from the first one.

    Raises:
        ValueError: a generator's backbone is not, bit for bit, the first one's.
    """
    for folder in folders:
        generator = folder / "generator"
        if not (generator / WEIGHTS).is_file():
            continue
        state = load_file(generator / WEIGHTS)
        backbone = {name: value for name, value in state.items() if not name.startswith(DEFECT_PREFIXES)}
        defect = {name: value for name, value in state.items() if name.startswith(DEFECT_PREFIXES)}
        if not shared_file.exists():
            _save(backbone, shared_file)
        check_backbone(backbone, shared_file, str(generator))
        _link(shared_file, generator / SHARDS[0])
        _save(defect, generator / SHARDS[1])
        weight_map = {**dict.fromkeys(backbone, SHARDS[0]), **dict.fromkeys(defect, SHARDS[1])}
        total = sum(value.numel() * value.element_size() for value in state.values())
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))}
        partial = generator / f".{INDEX}.partial"
        partial.write_text(json.dumps(index, indent=2) + "\n")
        os.replace(partial, generator / INDEX)
        (generator / WEIGHTS).unlink()


def check_backbone(ours: dict[str, Tensor], shared_file: Path, source: str) -> None:
    """See that a backbone is the one that is shared, if there is one yet.

    Args:
        ours: its tensors by name.
        shared_file: of `share_backbone`.
        source: where it comes from, for the message.

    Raises:
        ValueError: it is not, bit for bit, the one in the file.
    """
    if not shared_file.exists():
        return
    theirs = load_file(shared_file)
    different = [name for name in ours.keys() | theirs.keys() if not _equal(ours.get(name), theirs.get(name))]
    if different:
        raise ValueError(
            f"The backbone in {source} is not the one in {shared_file}: {', '.join(sorted(different)[:3])} differ. "
            "Only defects that were trained on the same backbone can share it; choose another --output_dir."
        )


def _equal(left: Tensor | None, right: Tensor | None) -> bool:
    if left is None or right is None or left.shape != right.shape or left.dtype != right.dtype:
        return False
    return left.contiguous().numpy().tobytes() == right.contiguous().numpy().tobytes()


def _save(tensors: dict[str, Tensor], path: Path) -> None:
    partial = path.with_name(f".{path.name}.partial")
    save_file(tensors, partial, metadata={"format": "pt"})
    os.replace(partial, path)


def _link(source: Path, target: Path) -> None:
    partial = target.with_name(f".{target.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        os.link(source, partial)
    except OSError:
        shutil.copyfile(source, partial)
    os.replace(partial, target)
