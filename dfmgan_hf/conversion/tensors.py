"""Tensors out of the records of a pickle: storages through torch's weights-only reader, shapes checked here."""

from __future__ import annotations

import io
import math
from typing import Any

import torch
from torch import Tensor

from .unpickling import Record, SnapshotError, read_records

REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
LOAD_STORAGE = ("torch.storage", "_load_from_bytes")

_FLOAT_STORAGES = frozenset(("torch", f"{name}Storage") for name in ("Float", "Half", "Double", "BFloat16"))
_MAX_DIMENSIONS = 8
# torch writes a storage as five pickles (magic number, version, system, storage, keys) and then the raw numbers.
_STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_STORAGE_PICKLES = 5


class TensorReader:
    """Builds tensors from records.

    Args:
        where: what is being read, for messages.
        max_bytes: memory that all tensors together may take. One storage can be named by many records, so a small
            file could ask for any amount.
    """

    def __init__(self, where: str, max_bytes: int) -> None:
        self.where = where
        self.max_bytes = max_bytes
        self.bytes_left = max_bytes

    def read(self, record: Any, name: str) -> Tensor:
        """The tensor or parameter `name`, as contiguous float32 with memory of its own.

        Raises:
            SnapshotError: not a tensor of floating-point numbers, a view that leaves its storage, too much memory.
            ForbiddenGlobalError: a storage whose bytes name anything but a float storage.
        """
        where = f"{self.where}: tensor {name!r}"
        if _is_call(record, REBUILD_PARAMETER) and record.arguments:
            record = record.arguments[0]
        if not _is_call(record, REBUILD_TENSOR) or len(record.arguments) < 4:
            raise SnapshotError(f"{where} is not a tensor.")
        storage_record, offset, size, stride = record.arguments[:4]
        if not _is_call(storage_record, LOAD_STORAGE):
            raise SnapshotError(f"{where} has no storage.")
        storage = load_storage(storage_record.arguments, where)
        _check_view(offset, size, stride, storage.numel(), where)
        self.bytes_left -= 4 * math.prod(size)
        if self.bytes_left < 0:
            raise SnapshotError(f"{self.where}: its tensors take more than the {self.max_bytes} bytes of the file.")
        return torch.as_strided(storage, size, stride, offset).to(torch.float32, copy=True).contiguous()


def load_storage(arguments: tuple[Any, ...], where: str) -> Tensor:
    """A storage as a flat tensor, from the arguments of `torch.storage._load_from_bytes`.

    torch's own function of that name unpickles without restriction. Here the bytes are first read as records, since
    `weights_only=True` honours whatever else the running program has declared safe, and only then loaded with it.

    Raises:
        ForbiddenGlobalError: a global that is no float storage.
        SnapshotError: bytes that are no storage.
    """
    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise SnapshotError(f"{where}: its storage is not given as bytes.")
    data: bytes = arguments[0]
    _check_storage_header(data, where)
    try:
        storage = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # broken bytes can make torch's reader raise anything
        reason = str(error).strip().split("\n")[0]
        raise SnapshotError(f"{where}: its storage cannot be read: {reason}") from error
    if not isinstance(storage, torch.storage.TypedStorage) or not storage.dtype.is_floating_point:
        raise SnapshotError(f"{where}: its storage does not hold floating-point numbers.")
    # The typed storage's public accessor warns that typed storages are deprecated; torch itself uses this attribute.
    untyped = storage._untyped_storage
    return torch.empty(0, dtype=storage.dtype).set_(untyped)  # type: ignore[call-overload]


def _check_storage_header(data: bytes, where: str) -> None:
    if not data.startswith(_STORAGE_MAGIC):
        raise SnapshotError(f"{where}: its storage is not in the format that torch uses inside pickles.")
    stream = io.BytesIO(data)
    for _ in range(_STORAGE_PICKLES):
        read_records(stream, _FLOAT_STORAGES, f"{where}: the pickle nested in its storage")


def _check_view(offset: Any, size: Any, stride: Any, numel: int, where: str) -> None:
    """A view must lie inside its storage: torch would silently enlarge the storage instead."""
    fits = (
        isinstance(size, tuple)
        and isinstance(stride, tuple)
        and len(size) == len(stride) <= _MAX_DIMENSIONS
        and all(type(n) is int and 0 <= n <= numel for n in (offset, *size, *stride))
        and math.prod(size) <= numel
        and offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) < numel
    )
    if not fits:
        raise SnapshotError(f"{where} does not lie inside its storage of {numel} numbers.")


def _is_call(record: Any, function: tuple[str, str]) -> bool:
    return isinstance(record, Record) and record.name == ".".join(function)
