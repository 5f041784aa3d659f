"""The settings that decide what an export contains: stored in its folder, compared when it goes on."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import torch

from ..models import StyleGAN2Generator
from .config import RECORD_DIR, ExportConfig
from .errors import ExportError
from .samples import write_whole

SETTINGS_FILE = f"{RECORD_DIR}/settings.json"

# Options that change how the work is done, not what comes of it.
_FREE = frozenset({"output_dir", "batch_size", "max_attempts"})
_NOT_COMPARED = frozenset({"model"})
_PACKAGES = ("torch", "pillow", "pyarrow", "dfmgan-hf")


def content_settings(config: ExportConfig, generator: StyleGAN2Generator, model_name: str) -> dict[str, Any]:
    """All that the files depend on, byte for byte, as JSON can hold it.

    Args:
        config: the options.
        generator: on the device that draws.
        model_name: what the model is called; for the reader, not compared.
    """
    options = {name: value for name, value in vars(config).items() if name not in _FREE}
    device = generator.device
    if device.type == "cpu":
        kind = f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    else:
        kind = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {
        "model": model_name,
        "model_sha256": model_digest(generator),
        **options,
        "device": kind,
        **{f"{name} version": importlib.metadata.version(name) for name in _PACKAGES},
    }


def model_digest(generator: StyleGAN2Generator) -> str:
    """SHA-256 of a generator's configuration, precision and tensors, hexadecimal."""
    digest = hashlib.sha256()
    config = {name: value for name, value in generator.config.items() if not name.startswith("_")}
    precision = [str(generator.low_precision_dtype), sorted(generator.low_precision_resolutions)]
    digest.update(json.dumps([type(generator).__name__, config, precision], sort_keys=True).encode())
    for name, tensor in sorted(generator.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def begin_or_resume(output_dir: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Store the settings in an empty or new folder, or check that they are those that the folder was begun with.

    Returns:
        The stored settings.

    Raises:
        ExportError: the folder was begun with other settings, or holds something else.
    """
    path = output_dir / SETTINGS_FILE
    if path.is_file():
        return _compared(path, settings)
    # What a process leaves that is killed while it stores the settings.
    allowed = {path.parent} if path.parent.is_dir() and not any(_visible(path.parent)) else set()
    others = sorted(entry.name for entry in _visible(output_dir) if entry not in allowed)
    if others:
        raise ExportError(
            output_dir,
            found=f"a folder with other things in it ({', '.join(others[:5])}) and without {SETTINGS_FILE}",
            expected="a new or empty folder, or one that an export was begun in",
            advice="Give another --output_dir.",
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, (json.dumps(settings, indent=2) + "\n").encode())
    return settings


def _visible(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if not entry.name.startswith(".")] if folder.is_dir() else []


def _compared(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        begun: dict[str, Any] = json.loads(path.read_text())
        names = [name for name in {**begun, **settings} if name not in _NOT_COMPARED]
    except (ValueError, TypeError) as error:
        raise ExportError(
            path,
            found=f"text that does not parse ({error})",
            expected="the settings as an export stored them",
            advice="Give another --output_dir.",
        ) from error
    differences = [
        f"{name} was {begun.get(name)} and is {settings.get(name)} now"
        for name in names
        if begun.get(name) != settings.get(name)
    ]
    if differences:
        raise ExportError(
            path.parent.parent,
            found=f"an export that was begun with other settings: {'; '.join(differences)}",
            expected=f"the settings in {SETTINGS_FILE}, so that all images belong together",
            advice="Repeat them to go on, or give another --output_dir.",
        )
    return begun
