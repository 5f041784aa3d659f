"""Official DFMGAN and StyleGAN2-ADA (PyTorch) snapshots, read without running what is inside them.

A snapshot is a pickled dict of networks. Each of their modules is stored as a call of one function with a dict that
holds the class's name, its Python source and the object's attributes; the official loader executes that source. Only
the attributes are read here.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from .tensors import LOAD_STORAGE, REBUILD_PARAMETER, REBUILD_TENSOR, TensorReader
from .unpickling import ForbiddenGlobalError, Record, SnapshotError, read_records

PERSISTENT_OBJECT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
PERSISTENCE_VERSION = 6

# numpy's names are those before and after its version 2. None of what they describe (gains, paddings) is needed.
ALLOWED_GLOBALS = frozenset(
    {
        PERSISTENT_OBJECT,
        REBUILD_PARAMETER,
        REBUILD_TENSOR,
        LOAD_STORAGE,
        ("torch.nn.modules.padding", "ReplicationPad2d"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        ("numpy.core.multiarray", "scalar"),
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "scalar"),
        ("numpy._core.multiarray", "_reconstruct"),
    }
)
NETWORK_NAMES = ("G", "D", "G_ema", "D_match")

# A 1024x1024 snapshot has some 0.5 GB, a network some 150 modules in 4 levels.
MAX_FILE_BYTES = 4 * 2**30
MAX_MODULES = 10_000
MAX_MODULE_DEPTH = 8
MAX_ATTRIBUTE_ITEMS = 64
MAX_ATTRIBUTE_DEPTH = 3
MAX_ATTRIBUTE_CHARS = 1000

_LEGACY_TENSORFLOW = ("dnnlib.tflib", "tflib", "tfutil", "network.Network")


@dataclass
class OfficialNetwork:
    """One network of a snapshot, under its official names.

    Args:
        class_name: name of its class, e.g. "Generator".
        attributes: plain attributes of all its modules by dotted name, e.g. "synthesis.b4.conv1.conv_clamp";
            constructor arguments are "_init_args" and "_init_kwargs".
        tensors: parameters and buffers by dotted name, float32.
    """

    class_name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class OfficialSnapshot:
    """What an official snapshot holds.

    Args:
        path: the file.
        networks: those of G, D, G_ema and D_match that it has.
        augment_pipe: the adaptive augmentation, whose tensor "p" is its probability; None if it has none.
        training_set_kwargs: the official data loader's arguments, plain values only.
        ignored_source_chars: length of the Python source that came with it and was not executed.
    """

    path: Path
    networks: dict[str, OfficialNetwork]
    augment_pipe: OfficialNetwork | None
    training_set_kwargs: dict[str, Any]
    ignored_source_chars: int


def read_official_snapshot(path: str | os.PathLike[str]) -> OfficialSnapshot:
    """Read an official snapshot without executing anything that it contains.

    Args:
        path: a `network-snapshot-*.pkl` of DFMGAN (either stage) or of StyleGAN2-ADA for PyTorch.

    Raises:
        ForbiddenGlobalError: the pickle, or one nested in it, names anything but what snapshots are made of.
        SnapshotError: not a pickle, truncated, too large, without G_ema, or made by the TensorFlow version.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise SnapshotError(f"{path} is a folder; expected a file such as network-snapshot-000400.pkl.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise SnapshotError(f"{path} has {size} bytes; an official snapshot has at most {MAX_FILE_BYTES}.")
    content = path.read_bytes()
    _check_looks_like_pickle(content, path)
    try:
        top = read_records(io.BytesIO(content), ALLOWED_GLOBALS, str(path))
    except ForbiddenGlobalError as error:
        if error.name.startswith(_LEGACY_TENSORFLOW):
            raise SnapshotError(
                f"{path} was written by the TensorFlow version of StyleGAN ({error.name}), which is not supported. "
                "Convert it to a PyTorch snapshot first, with the legacy.py of the stylegan2-ada-pytorch repository."
            ) from error
        raise
    if not isinstance(top, dict) or not any(name in top for name in NETWORK_NAMES):
        raise SnapshotError(
            f"{path} is a pickle, but not a snapshot: expected a dict with {', '.join(NETWORK_NAMES)}, "
            f"got {_describe(top)}."
        )
    # Half-precision tensors become float32, hence twice the file.
    reader = _NetworkReader(str(path), TensorReader(str(path), max_bytes=2 * size))
    networks = {name: reader.read(top[name], name) for name in NETWORK_NAMES if top.get(name) is not None}
    if "G_ema" not in networks:
        raise SnapshotError(
            f"{path} has no averaged generator 'G_ema', only {', '.join(networks)}. Use the complete "
            "network-snapshot-*.pkl that the training wrote."
        )
    augment_pipe = top.get("augment_pipe")
    training_set_kwargs = top.get("training_set_kwargs")
    return OfficialSnapshot(
        path=path,
        networks=networks,
        augment_pipe=None if augment_pipe is None else reader.read(augment_pipe, "augment_pipe"),
        training_set_kwargs=_plain(training_set_kwargs) if isinstance(training_set_kwargs, dict) else {},
        ignored_source_chars=sum(map(len, reader.sources)),
    )


class _NetworkReader:
    """Collects attributes and tensors of networks; its limits hold for all networks of a snapshot together."""

    def __init__(self, where: str, tensors: TensorReader) -> None:
        self.where = where
        self.tensors = tensors
        self.modules_left = MAX_MODULES
        self.sources: set[str] = set()

    def read(self, record: Any, name: str) -> OfficialNetwork:
        class_name, _ = self.open_module(record, name)
        network = OfficialNetwork(class_name)
        self.collect(network, record, "", name, 0)
        return network

    def collect(self, network: OfficialNetwork, record: Any, prefix: str, name: str, depth: int) -> None:
        self.modules_left -= 1
        if depth > MAX_MODULE_DEPTH or self.modules_left < 0:
            raise SnapshotError(f"{self.where}: {name} nests more modules than any official network does.")
        _, state = self.open_module(record, name)
        for key, value in state.items():
            if isinstance(key, str) and (not key.startswith("_") or key.startswith("_init_")) and _is_plain(value):
                network.attributes[prefix + key] = _plain(value)
        for kind in ("_parameters", "_buffers"):
            for key, value in self.members(state, kind, name):
                if value is not None:
                    network.tensors[prefix + key] = self.tensors.read(value, f"{name}.{key}")
        for key, value in self.members(state, "_modules", name):
            if value is not None:
                self.collect(network, value, f"{prefix}{key}.", f"{name}.{key}", depth + 1)

    def members(self, state: dict[Any, Any], kind: str, name: str) -> list[tuple[str, Any]]:
        members = state.get(kind, {})
        if not isinstance(members, dict) or not all(isinstance(key, str) for key in members):
            raise SnapshotError(f"{self.where}: {name}{kind} is no dict of names.")
        return list(members.items())

    def open_module(self, record: Any, name: str) -> tuple[str, dict[Any, Any]]:
        """Class name and attributes of a module's record."""
        if not isinstance(record, Record):
            raise SnapshotError(f"{self.where}: {name} is no network but {_describe(record)}.")
        if record.name != ".".join(PERSISTENT_OBJECT):
            if not isinstance(record.state, dict):
                raise SnapshotError(f"{self.where}: {name} ({record.name}) is no module.")
            return record.name, record.state
        meta = record.arguments[0] if len(record.arguments) == 1 else None
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            raise SnapshotError(f"{self.where}: {name} is not stored as official snapshots store modules.")
        if meta.get("version") != PERSISTENCE_VERSION:
            raise SnapshotError(
                f"{self.where}: {name} is stored in version {_describe(meta.get('version'))} of the snapshot format; "
                f"only version {PERSISTENCE_VERSION} is known."
            )
        if isinstance(meta.get("module_src"), str):
            self.sources.add(meta["module_src"])
        return str(meta.get("class_name"))[:80], meta["state"]


def _check_looks_like_pickle(content: bytes, path: Path) -> None:
    if not content:
        raise SnapshotError(f"{path} is empty.")
    if content.startswith(b"PK\x03\x04"):
        raise SnapshotError(
            f"{path} is a zip archive, probably a PyTorch .pt or .ckpt file; expected an official snapshot, "
            "network-snapshot-*.pkl."
        )
    if content.startswith(b"version https://git-lfs"):
        raise SnapshotError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`.")


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Whether a value consists of scalars in shallow, short containers."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return (
            depth < MAX_ATTRIBUTE_DEPTH
            and len(value) <= MAX_ATTRIBUTE_ITEMS
            and all(_is_plain(item, depth + 1) for item in value)
        )
    if isinstance(value, str):
        return len(value) <= MAX_ATTRIBUTE_CHARS
    return value is None or isinstance(value, (bool, int, float))


def _plain(value: Any) -> Any:
    """A copy of the plain parts of a value; a dict loses its other entries."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items() if _is_plain(item)}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _describe(value: Any) -> str:
    """A value for a message: never its whole content, which the file's author chose."""
    if isinstance(value, Record):
        return f"a call of {value.name}"
    if isinstance(value, (bool, int, float)):
        return str(value)[:40]
    return "nothing" if value is None else f"a {type(value).__name__}"
