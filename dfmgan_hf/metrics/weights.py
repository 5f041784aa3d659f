"""Weight files of the measuring networks: where they come from, and which ones they are.

A score can only be compared with another one of the same network and the same weights, so every result names both.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import file_sha256

logger = logging.getLogger(__name__)

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")


class MissingWeightsError(FileNotFoundError):
    """A weight file is neither given nor cached and could not be downloaded; the message says where to get it."""


class BadWeightsError(ValueError):
    """A weight file is damaged or holds something else than it should."""


@dataclass(frozen=True)
class PublishedWeights:
    """A weight file that its authors publish.

    Args:
        file_name: name of the file; a copy is looked for under it in torch.hub's cache.
        url: where it is downloaded from.
        sha256: its SHA-256 in hex, or the first digits that are known of it.
        option: command line option that takes a path to it.
        environment: environment variable that takes a path to it.
        megabytes: its size.
        used_for: what needs it, for messages.
    """

    file_name: str
    url: str
    sha256: str
    option: str
    environment: str
    megabytes: int
    used_for: str


INCEPTION = PublishedWeights(
    file_name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",
    option="--inception_weights",
    environment="DFMGAN_INCEPTION_WEIGHTS",
    megabytes=91,
    used_for="Inception-v3 features (KID, FID, Inception Score, precision and recall)",
)
ALEXNET = PublishedWeights(
    file_name="alexnet-owt-7be5be79.pth",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be79",
    option="--lpips_weights",
    environment="DFMGAN_LPIPS_WEIGHTS",
    megabytes=233,
    used_for="LPIPS with AlexNet (clustered LPIPS, nearest images)",
)
VGG16 = PublishedWeights(
    file_name="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af",
    option="--lpips_vgg_weights",
    environment="DFMGAN_LPIPS_VGG_WEIGHTS",
    megabytes=528,
    used_for="LPIPS with VGG16 (IC-LPIPS)",
)


@dataclass(frozen=True)
class WeightFile:
    """A weight file that was read.

    Args:
        name: file name without its folder.
        sha256: SHA-256 of the whole file, in hex.
    """

    name: str
    sha256: str


@dataclass(frozen=True)
class NetworkId:
    """Which network measured.

    Args:
        name: architecture and output, such as `"inception-v3-2015-12-05"`.
        weights_sha256: SHA-256 over the names, types, shapes and bytes of all parameters and buffers: the same for the
            same weights, whatever file they came in.
        files: the files that they came from; empty for a module that the caller made.
    """

    name: str
    weights_sha256: str
    files: tuple[WeightFile, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain types for a JSON file."""
        return asdict(self)


def find_weights(published: PublishedWeights, path: str | Path | None = None, progress: bool = True) -> Path:
    """Find the file to read `published` from: the given path, the environment's, torch.hub's cache, or a download.

    A file whose name carries a hash (`name-6726825d.pth`, as torch.hub names its files) must have it.

    Args:
        published: what is looked for.
        path: file that the user gave; any other way is then not tried.
        progress: whether a download draws a progress bar.

    Raises:
        MissingWeightsError: if the given file does not exist, or there is none and it cannot be downloaded.
        BadWeightsError: if the file's hash is not the one in its name.
    """
    if path is None:
        path = os.environ.get(published.environment) or None
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_file():
            raise MissingWeightsError(f"{given}: there is no such file. {_how_to_get(published)}")
        _check_hash_in_name(given)
        return given

    cached = Path(torch.hub.get_dir()) / "checkpoints" / published.file_name
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(cached), published.sha256, progress=progress)
        except (OSError, RuntimeError) as error:  # RuntimeError: the download's hash is wrong.
            raise MissingWeightsError(
                f"{published.file_name}: not found and not downloaded ({error}). {_how_to_get(published)}"
            ) from error
    _check_hash_in_name(cached)
    return cached


def read_weights(path: Path) -> tuple[dict[str, Tensor], WeightFile]:
    """Read the tensors of a .safetensors or .pth file, on the CPU; nothing in a .pth file is executed.

    Raises:
        BadWeightsError: if the file is not a dictionary of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Both readers raise many types on damaged files.
        raise BadWeightsError(
            f"{path}: not a readable weight file ({type(error).__name__}: {error}). Expected a .safetensors file, or "
            "a .pth file that holds only tensors. Copy or download it again."
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadWeightsError(
            f"{path}: holds {type(tensors).__name__}, expected a dictionary of tensors (state dict)."
        )
    return dict(tensors), WeightFile(path.name, file_sha256(path))


def warn_if_not_published(file: WeightFile, published: PublishedWeights, also: tuple[str, ...] = ()) -> None:
    """Log a warning if `file` is neither the published one nor one of the hashes `also`."""
    if not any(file.sha256.startswith(known) for known in (published.sha256, *also)):
        logger.warning(
            "%s (SHA-256 %s) is not the published %s: scores measured with it compare only with each other.",
            file.name,
            file.sha256,
            published.file_name,
        )


def require(*modules: str, purpose: str, extra: str = "metrics") -> None:
    """Raise an ImportError that names the extra if a library that measuring needs is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {' and '.join(missing)}, which is not installed: pip install dfmgan-hf[{extra}]"
        )


def _how_to_get(published: PublishedWeights) -> str:
    return (
        f"{published.used_for} needs {published.file_name} ({published.megabytes} MB) from {published.url}. "
        "Download it where there is a network and give its path by "
        f"{published.option} or {published.environment}, or put it into {Path(torch.hub.get_dir()) / 'checkpoints'}."
    )


def _check_hash_in_name(path: Path) -> None:
    match = _HASH_IN_NAME.search(path.name)
    if match is None:
        return
    found = file_sha256(path)
    if not found.startswith(match[1]):
        raise BadWeightsError(
            f"{path}: its SHA-256 begins with {found[: len(match[1])]}, but its name says {match[1]}: the file is "
            "damaged or not what it is named after. Delete it and copy or download it again."
        )
