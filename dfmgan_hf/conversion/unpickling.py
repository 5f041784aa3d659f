"""Read a pickle as plain data: a stack machine that has no way to call anything."""

from __future__ import annotations

import io
import math
import pickletools
import struct
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, BinaryIO

import torch
from torch import Tensor

# An official snapshot has some 25,000 opcodes at 64x64 and about twice as many at 1024x1024.
MAX_OPCODES = 500_000
# The five pickles before a storage's numbers have some 40 opcodes, and the networks of a snapshot some 1000 tensors.
MAX_STORAGE_OPCODES = 200
MAX_TENSORS = 10_000
MAX_INTEGER_BITS = 128
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

_FLOAT_STORAGES = {
    ("torch", "FloatStorage"): torch.float32,
    ("torch", "HalfStorage"): torch.float16,
    ("torch", "DoubleStorage"): torch.float64,
    ("torch", "BFloat16Storage"): torch.bfloat16,
}
_MAX_DIMENSIONS = 8
# torch writes a storage as five pickles (magic number, version, system, storage, keys), how many numbers follow, and
# the numbers.
_STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
_STORAGE_PICKLES = 5
_STORAGE_COUNT = struct.Struct("<q")


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


def read_records(
    file: BinaryIO, allowed: Collection[tuple[str, str]], where: str, max_opcodes: int = MAX_OPCODES
) -> Any:
    """Read one pickle without running it, in time and memory that grow with its size alone.

    Args:
        file: binary file at the start of the pickle; it is left behind its last opcode.
        allowed: (module, name) of the globals that the pickle may name. OrderedDict, EasyDict and set need not be
            among them: they become plain containers.
        where: what is being read, for messages.
        max_opcodes: more are refused.

    Returns:
        Scalars, lists, tuples, dicts, sets, and `Record` where the pickle asked for a call or an object from outside.

    Raises:
        ForbiddenGlobalError: any other global.
        SnapshotError: not a pickle, truncated, or opcodes that no official snapshot uses.
    """
    machine = _StackMachine(frozenset(allowed) | _DICTS | _SETS, where)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= max_opcodes:
                raise SnapshotError(f"{where} has more than {max_opcodes} opcodes; an official snapshot has fewer.")
            if opcode.name == "STOP":
                return machine.stack.pop()
            machine.step(opcode.name, argument)
    except SnapshotError:
        raise
    # pickletools reports broken bytes as ValueError; the machine's own IndexError and KeyError mean a stack that is
    # empty and a memo entry that does not exist.
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise SnapshotError(
            f"{where} is not a complete pickle: {type(error).__name__}: {str(error)[:200]}."
        ) from error
    raise SnapshotError(f"{where} is not a complete pickle: it has no end.")


class _StackMachine:
    """The pickle machine without the means to import or call: every opcode that is not below is refused."""

    def __init__(self, allowed: frozenset[tuple[str, str]], where: str) -> None:
        self.allowed = allowed
        self.where = where
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.copies_left = MAX_OPCODES

    def step(self, opcode: str, argument: Any) -> None:
        push, pop = self.stack.append, self.stack.pop
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case _ if opcode in _LITERALS:
                # Python refuses to print long integers.
                if isinstance(argument, int) and argument.bit_length() > MAX_INTEGER_BITS:
                    raise self.malformed("an integer of many digits")
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
            # The one copy that is made: of a list that may be named thousands of times.
            self.copies_left -= len(arguments[0])
            if self.copies_left < 0:
                raise self.malformed("sets of the same long list")
            self.check_hashable(arguments[0])
            return set(arguments[0])
        return Record(str(callee), arguments)

    def malformed(self, what: str) -> SnapshotError:
        return SnapshotError(f"{self.where} holds {what}, which no official snapshot does. Nothing was executed.")


class TensorReader:
    """Build tensors from records, each storage once; a view must lie inside its storage.

    Args:
        where: what is being read, for messages.
        max_bytes: memory that all tensors together may take. One storage can be named by many records, so a small
            file could ask for any amount.
    """

    def __init__(self, where: str, max_bytes: int) -> None:
        self.where = where
        self.max_bytes = max_bytes
        self.bytes_left = max_bytes
        self.tensors_left = MAX_TENSORS
        self.storages: dict[int, tuple[bytes, Tensor]] = {}

    def read(self, record: Any, name: str) -> Tensor:
        """Return the tensor or parameter `name`, as contiguous float32 with memory of its own.

        Raises:
            SnapshotError: not a tensor of floating-point numbers, a view that leaves its storage, too much memory.
            ForbiddenGlobalError: a storage whose bytes name anything but a float storage.
        """
        where = f"{self.where}: tensor {name!r}"
        self.tensors_left -= 1
        if self.tensors_left < 0:
            raise SnapshotError(f"{self.where} has more than {MAX_TENSORS} tensors; an official snapshot has fewer.")
        if _is_call(record, REBUILD_PARAMETER) and record.arguments:
            record = record.arguments[0]
        if not _is_call(record, REBUILD_TENSOR) or len(record.arguments) < 4:
            raise SnapshotError(f"{where} is not a tensor.")
        storage_record, offset, size, stride = record.arguments[:4]
        if not _is_call(storage_record, LOAD_STORAGE):
            raise SnapshotError(f"{where} has no storage.")
        storage = self._storage(storage_record.arguments, where)
        _check_view(offset, size, stride, storage.numel(), where)
        self.bytes_left -= 4 * math.prod(size)
        if self.bytes_left < 0:
            raise SnapshotError(f"{self.where}: its tensors take more than the {self.max_bytes} bytes of the file.")
        return torch.as_strided(storage, size, stride, offset).to(torch.float32, copy=True).contiguous()

    def _storage(self, arguments: tuple[Any, ...], where: str) -> Tensor:
        """A storage as a flat tensor, from the arguments of `torch.storage._load_from_bytes`."""
        if len(arguments) != 1 or not isinstance(arguments[0], bytes):
            raise SnapshotError(f"{where}: its storage is not given as bytes.")
        data: bytes = arguments[0]
        if id(data) not in self.storages:  # the bytes are kept, so that no other gets their id
            self.storages[id(data)] = data, _read_storage(data, where)
        return self.storages[id(data)][1]


def _read_storage(data: bytes, where: str) -> Tensor:
    """The numbers of a storage. torch's own function unpickles without restriction, and takes the size on trust."""
    if not data.startswith(_STORAGE_MAGIC):
        raise SnapshotError(f"{where}: its storage is not in the format that torch uses inside pickles.")
    stream = io.BytesIO(data)
    nested = f"{where}: the pickle nested in its storage"
    pickles = [read_records(stream, _FLOAT_STORAGES, nested, MAX_STORAGE_OPCODES) for _ in range(_STORAGE_PICKLES)]
    match pickles[3]:
        case Record("persistent_id", (("storage", Global(module, name), *_),)) if (module, name) in _FLOAT_STORAGES:
            dtype = _FLOAT_STORAGES[module, name]
        case _:
            raise SnapshotError(f"{where}: its storage does not hold floating-point numbers.")
    start = stream.tell() + _STORAGE_COUNT.size
    count = _STORAGE_COUNT.unpack(stream.read(_STORAGE_COUNT.size))[0] if start <= len(data) else -1
    if count < 0 or len(data) - start != count * dtype.itemsize:
        raise SnapshotError(f"{where}: its storage is cut off, or not as long as it says.")
    # A copy, which may be written to; of nothing there is no buffer.
    return torch.frombuffer(bytearray(data[start:]), dtype=dtype) if count else torch.empty(0, dtype=dtype)


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
