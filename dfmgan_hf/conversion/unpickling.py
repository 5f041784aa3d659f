"""Read a pickle as plain data: a stack machine that has no way to call anything."""

from __future__ import annotations

import io
import math
import pickletools
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

# An official snapshot has some 25,000 opcodes at 64x64 and about twice as many at 1024x1024.
MAX_OPCODES = 500_000
# A name in a message is cut there: a hostile one may be as long as the file.
MAX_NAME_CHARS = 200

_SCALARS = (str, bytes, int, float, type(None))
# Opcodes whose argument is the value.
_LITERALS = frozenset(
    [
        *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
        *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
        *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    ]
)
_EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
# What these build is a container and nothing else, so the container itself stands for the call.
_DICTS = frozenset({("collections", "OrderedDict"), ("dnnlib.util", "EasyDict"), ("dnnlib", "EasyDict")})
_SETS = frozenset({("builtins", "set")})

REBUILD_PARAMETER = ("torch._utils", "_rebuild_parameter")
REBUILD_TENSOR = ("torch._utils", "_rebuild_tensor_v2")
LOAD_STORAGE = ("torch.storage", "_load_from_bytes")

_FLOAT_STORAGES = frozenset(("torch", f"{name}Storage") for name in ("Float", "Half", "Double", "BFloat16"))
_MAX_DIMENSIONS = 8
# torch writes a storage as five pickles (magic number, version, system, storage, keys) and then the raw numbers.
_STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_STORAGE_PICKLES = 5


class SnapshotError(ValueError):
    """A snapshot that cannot be read or converted; the message says what is wrong and, where known, what to do."""


class ForbiddenGlobalError(SnapshotError):
    """A pickle that names something outside the list of allowed globals, such as "os.system"."""

    def __init__(self, name: str, where: str) -> None:
        name = name[:MAX_NAME_CHARS]
        super().__init__(
            f"{where} asks for {name!r}, which is not among the names that official snapshots are made of. "
            "Nothing was executed. It was tampered with or is no official snapshot: do not load it by other means."
        )
        self.name = name


@dataclass(frozen=True)
class Global:
    """A name in a pickle, never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass
class Record:
    """A call that a pickle asked for, never made: of what, with which arguments, and the state set afterwards."""

    name: str
    arguments: tuple[Any, ...]
    state: Any = None


def read_records(file: BinaryIO, allowed: Collection[tuple[str, str]], where: str) -> Any:
    """Read one pickle without running it.

    Args:
        file: binary file at the start of the pickle; it is left behind its last opcode.
        allowed: (module, name) of the globals that the pickle may name. OrderedDict, EasyDict and set need not be
            among them: they become plain containers.
        where: what is being read, for messages.

    Returns:
        Scalars, lists, tuples, dicts, sets, and `Record` where the pickle asked for a call or an object from outside.

    Raises:
        ForbiddenGlobalError: any other global.
        SnapshotError: not a pickle, truncated, or opcodes that no official snapshot uses.
    """
    machine = _StackMachine(frozenset(allowed) | _DICTS | _SETS, where)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= MAX_OPCODES:
                raise SnapshotError(f"{where} has more than {MAX_OPCODES} opcodes; an official snapshot has fewer.")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except SnapshotError:
        raise
    # pickletools reports broken bytes as ValueError; the machine's own IndexError and KeyError mean a stack that is
    # empty and a memo entry that does not exist.
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise SnapshotError(f"{where} is not a complete pickle: {type(error).__name__}: {error}.") from error
    raise SnapshotError(f"{where} is not a complete pickle: it has no end.")


class _StackMachine:
    """The pickle machine without the means to import or call: every opcode that is not below is refused."""

    def __init__(self, allowed: frozenset[tuple[str, str]], where: str) -> None:
        self.allowed = allowed
        self.where = where
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case _ if opcode in _LITERALS:
                push(argument)
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "PUT" | "BINPUT" | "LONG_BINPUT":
                self.memo[argument] = self.stack[-1]
            case "GET" | "BINGET" | "LONG_BINGET":
                push(self.memo[argument])
            case "NONE":
                push(None)
            case "NEWTRUE" | "NEWFALSE":
                push(opcode == "NEWTRUE")
            case "EMPTY_DICT" | "EMPTY_LIST" | "EMPTY_SET" | "EMPTY_TUPLE":
                push(_EMPTY[opcode]())
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = [pop() for _ in range(int(opcode[-1]))]
                push(tuple(reversed(items)))
            case "MARK":
                self.outer_stacks.append(self.stack)
                self.stack = []
            case "TUPLE" | "LIST":
                items = self.pop_to_mark()
                self.stack.append(tuple(items) if opcode == "TUPLE" else items)
            case "DICT":
                items = self.pop_to_mark()
                self.stack.append({})
                self.set_items(items)
            case "APPEND":
                item = pop()
                self.top(list, opcode).append(item)
            case "APPENDS":
                items = self.pop_to_mark()
                self.top(list, opcode).extend(items)
            case "SETITEM":
                value, key = pop(), pop()
                self.set_items([key, value])
            case "SETITEMS":
                self.set_items(self.pop_to_mark())
            case "ADDITEMS":
                items = self.pop_to_mark()
                self.check_hashable(items)
                self.top(set, opcode).update(items)
            case "GLOBAL" | "INST":
                module, _, name = argument.partition(" ")
                self.push_global(module, name)
                if opcode == "INST":  # also calls what it names; no snapshot is old enough to use it
                    raise self.malformed("the opcode INST")
            case "STACK_GLOBAL":
                name, module = pop(), pop()
                self.push_global(module, name)
            case "BINPERSID":
                push(Record("persistent_id", (pop(),)))
            case "REDUCE" | "NEWOBJ":
                arguments, callee = pop(), pop()
                push(self.recorded_call(callee, arguments))
            case "BUILD":
                state = pop()
                self.top(Record, opcode).state = state
            case _:
                raise self.malformed(f"the opcode {opcode}")

    def pop_to_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.outer_stacks.pop()
        return items

    def top(self, kind: type, opcode: str) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise self.malformed(f"{opcode} on a {type(self.stack[-1]).__name__}")
        return self.stack[-1]

    def set_items(self, items: list[Any]) -> None:
        target = self.top(dict, "SETITEMS")
        if len(items) % 2:
            raise self.malformed("a dict with a key that has no value")
        self.check_hashable(items[::2])
        target.update(zip(items[::2], items[1::2], strict=True))

    def check_hashable(self, items: list[Any]) -> None:
        # Scalars only: hashing a tuple recurses in C, and a deep one crashes the interpreter.
        for item in items:
            if not isinstance(item, _SCALARS):
                raise self.malformed(f"a {type(item).__name__} as a key")

    def push_global(self, module: Any, name: Any) -> None:
        if not isinstance(name, str) or not isinstance(module, str):
            raise self.malformed("a global whose name is no string")
        if (module, name) not in self.allowed:
            raise ForbiddenGlobalError(f"{module}.{name}", self.where)
        self.stack.append(Global(module, name))

    def recorded_call(self, callee: Any, arguments: Any) -> Any:
        """What stands for a call on the stack: a plain container, or a record of it."""
        if not isinstance(callee, Global):
            raise self.malformed(f"a call of a {type(callee).__name__}")
        if not isinstance(arguments, tuple):
            raise self.malformed(f"a call of {callee} whose arguments are no tuple")
        name = (callee.module, callee.name)
        if name in _DICTS:
            if arguments:
                raise self.malformed(f"a call of {callee} with arguments")
            return {}
        if name in _SETS:
            if len(arguments) != 1 or not isinstance(arguments[0], list):
                raise self.malformed(f"a call of {callee} without a list")
            self.check_hashable(arguments[0])
            return set(arguments[0])
        return Record(str(callee), arguments)

    def malformed(self, what: str) -> SnapshotError:
        return SnapshotError(f"{self.where} holds {what}, which no official snapshot does. Nothing was executed.")


class TensorReader:
    """Build tensors from records: storages through torch's weights-only reader, views checked here.

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
        """Return the tensor or parameter `name`, as contiguous float32 with memory of its own.

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
        storage = _load_storage(storage_record.arguments, where)
        _check_view(offset, size, stride, storage.numel(), where)
        self.bytes_left -= 4 * math.prod(size)
        if self.bytes_left < 0:
            raise SnapshotError(f"{self.where}: its tensors take more than the {self.max_bytes} bytes of the file.")
        return torch.as_strided(storage, size, stride, offset).to(torch.float32, copy=True).contiguous()


def _load_storage(arguments: tuple[Any, ...], where: str) -> Tensor:
    """A storage as a flat tensor, from the arguments of `torch.storage._load_from_bytes`.

    torch's own function of that name unpickles without restriction. Here the bytes are first read as records, since
    `weights_only=True` honours whatever else the running program has declared safe, and only then loaded with it.
    """
    if len(arguments) != 1 or not isinstance(arguments[0], bytes):
        raise SnapshotError(f"{where}: its storage is not given as bytes.")
    data: bytes = arguments[0]
    if not data.startswith(_STORAGE_MAGIC):
        raise SnapshotError(f"{where}: its storage is not in the format that torch uses inside pickles.")
    stream = io.BytesIO(data)
    for _ in range(_STORAGE_PICKLES):
        read_records(stream, _FLOAT_STORAGES, f"{where}: the pickle nested in its storage")
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
