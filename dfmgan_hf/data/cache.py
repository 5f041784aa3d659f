"""Prepared training sets on disk, so that photographs are decoded and resized once, not once a run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from .records import ImageRecord

# Raise it when the same files and settings would be prepared differently than before.
_PREPARATION_VERSION = 3


def fingerprint(records: Iterable[ImageRecord], settings: Mapping[str, Any]) -> str:
    """Hexadecimal digest of the files' names, sizes and times (of modification and of change), and of the settings.

    A photograph or mask that is added, removed, renamed, exchanged or written again changes it, even where its
    modification time is kept, as copying and unpacking may do.

    Args:
        records: The files, in the order in which they are used.
        settings: Values that JSON can hold.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([_PREPARATION_VERSION, dict(settings)], sort_keys=True).encode())
    for record in records:
        row: list[Any] = [record.name, record.defect, record.split]
        for path in (record.image_path, record.mask_path):
            if path is not None and path.exists():
                status = path.stat()
                row += [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            else:
                row.append(None)
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def write_cache(path: Path, tensors: Mapping[str, torch.Tensor], header: Mapping[str, Any]) -> None:
    """Writes tensors and a JSON-able header to a safetensors file that is either whole or absent."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(descriptor)
    try:
        save_file(dict(tensors), temporary, metadata={"header": json.dumps(dict(header))})
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def read_cache(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]] | None:
    """Tensors and header as `write_cache` was given them, or None if there is no such file or it is damaged."""
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt") as file:
            header = json.loads((file.metadata() or {})["header"])
            return {name: file.get_tensor(name) for name in file.keys()}, header  # noqa: SIM118 (not a mapping)
    except (SafetensorError, KeyError, ValueError, OSError):
        return None
