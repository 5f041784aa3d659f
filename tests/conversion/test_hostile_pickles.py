"""Pickles that try to run something are refused by name, and nothing runs."""

from __future__ import annotations

import io
import os
import pickle
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from dfmgan_hf.conversion import (
    ForbiddenGlobalError,
    OfficialNetwork,
    SnapshotError,
    convert_official_snapshot,
    read_official_snapshot,
)
from dfmgan_hf.conversion.official import ALLOWED_GLOBALS
from dfmgan_hf.conversion.unpickling import Record, TensorReader, read_records
from tests.conversion.snapshots import GOLDEN_SNAPSHOT, Persistent, as_module, dump, write_snapshot


class Call:
    """Pickled as a call of a function."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def stack_global(module: str, name: str) -> bytes:
    return text(module) + text(name) + b"\x93"


REBUILD = stack_global("torch._utils", "_rebuild_tensor_v2")
ORDERED_DICT = stack_global("collections", "OrderedDict")


@pytest.fixture
def sentinel(tmp_path: Path) -> Path:
    """A file that the payloads create; whatever happens, it must not be there at the end."""
    return tmp_path / "executed"


@pytest.fixture
def refused(tmp_path: Path, sentinel: Path) -> Callable[..., str]:
    """Checks that a pickle is refused, that nothing ran and nothing was written; returns the message."""

    def check(content: bytes, error: type[Exception] = SnapshotError) -> str:
        folder = tmp_path / "case"
        folder.mkdir()
        path = folder / "network-snapshot.pkl"
        path.write_bytes(content)
        with pytest.raises(error) as raised:
            convert_official_snapshot(path, folder / "converted")
        assert not sentinel.exists()
        assert list(folder.iterdir()) == [path]
        assert str(path) in str(raised.value)
        return str(raised.value)

    return check


def live_payloads(sentinel: Path) -> dict[str, tuple[str, bytes]]:
    """Pickles that create the sentinel when the ordinary unpickler reads them, and the name they need for it."""
    command = f"touch {sentinel}"
    source = f"open({str(sentinel)!r}, 'w').close()"
    system = f"{os.system.__module__}.system"
    return {
        "protocol 0": (system, pickle.dumps(Call(os.system, command), protocol=0)),
        "protocol 2": (system, pickle.dumps(Call(os.system, command), protocol=2)),
        "protocol 4": (system, pickle.dumps(Call(os.system, command), protocol=4)),
        "os": ("os.system", b"\x80\x04" + stack_global("os", "system") + text(command) + b"\x85R."),
        "INST": ("os.system", b"(S" + repr(command).encode() + b"\nios\nsystem\n."),
        "eval": ("builtins.eval", b"\x80\x04" + stack_global("builtins", "eval") + text(source) + b"\x85R."),
        "exec": ("builtins.exec", pickle.dumps(Call(exec, source))),
        "dotted": ("torch.serialization.os.system", pickle_dotted("torch.serialization", "os.system", command)),
        "inside a snapshot": (system, pickle.dumps({"G": 1, "G_ema": Call(os.system, command)})),
    }


def pickle_dotted(module: str, name: str, argument: str) -> bytes:
    return b"\x80\x04" + stack_global(module, name) + text(argument) + b"\x85R."


PAYLOADS = ["protocol 0", "protocol 2", "protocol 4", "os", "INST", "eval", "exec", "dotted", "inside a snapshot"]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payload_is_refused_by_name(payload, sentinel, refused):
    name, content = live_payloads(sentinel)[payload]
    assert repr(name) in refused(content, ForbiddenGlobalError)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_payload_is_live(payload, sentinel):
    """Without this, the test above could pass on payloads that do nothing anywhere."""
    pickle.loads(live_payloads(sentinel)[payload][1])
    assert sentinel.exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "getattr"),
        ("builtins", "__import__"),
        ("torch.storage", "_load_from_bytes.__globals__"),
        ("torch", "storage._load_from_bytes"),
        ("torch", "load"),
        ("collections", "OrderedDict.__init__.__globals__"),
        ("numpy", "core.multiarray.scalar"),
        ("numpy.core.multiarray", "load"),
        ("torch.hub", "load"),
        ("operator", "attrgetter"),
        ("copyreg", "_reconstructor"),
    ],
)
def test_other_names_are_refused(module, name, refused):
    message = refused(b"\x80\x04" + stack_global(module, name) + b".", ForbiddenGlobalError)
    assert repr(f"{module}.{name}") in message


def test_allowed_names_are_never_looked_up():
    records = read_records(io.BytesIO(b"\x80\x04" + REBUILD + text("x") + b"\x85R."), ALLOWED_GLOBALS, "test")
    assert records == Record("torch._utils._rebuild_tensor_v2", ("x",))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (REBUILD + b")R)R", "a call of a Record"),
        (ORDERED_DICT + b")R)R", "a call of a dict"),
        (text("os.system") + b")R", "a call of a str"),
        (REBUILD + b")\x81)R", "a call of a Record"),
        (REBUILD + text("x") + b"R", "arguments are no tuple"),
        (ORDERED_DICT + b"]\x85R", "a call of collections.OrderedDict with arguments"),
        (REBUILD + b"}b", "BUILD on a Global"),
        (b"}}b", "BUILD on a dict"),
        (text("x") + text("y") + b"a", "APPEND on a str"),
        (REBUILD + text("x") + text("y") + b"s", "SETITEMS on a Global"),
        (b"}(" + text("x") + b"u", "a key that has no value"),
        (b"\x82\x01", "the opcode EXT1"),
        (b"P1\n", "the opcode PERSID"),
        (b"\x8f(" + b"]" + b"\x90", "a list as a key"),
        (b"}" + REBUILD + b"Ns", "a Global as a key"),
        (b"}" + b")\x85\x85" + b"Ns", "a tuple as a key"),
        (text("os") + b"N\x93", "a global whose name is no string"),
        (b"h\x07", "not a complete pickle"),
        (b"j\xff\xff\xff\x7f", "not a complete pickle"),
        (b"0", "the opcode POP"),
        (b"a", "not a complete pickle"),
        (b"t", "not a complete pickle"),
        (b"\x8a\xff", "not a complete pickle"),
        (b"\x8e\xff\xff\xff\xff\xff\xff\xff\x7f", "not a complete pickle"),
    ],
)
def test_abuse_of_the_stack_machine_is_refused(content, expected, refused):
    assert expected in refused(b"\x80\x04" + content + b".")


def test_memo_entries_overwritten_by_data_are_not_callable(sentinel, refused):
    """An allowed name is memoised, then its entry replaced by a string that spells another name."""
    content = b"\x80\x04" + REBUILD + b"q\x00" + text("os.system") + b"q\x00" + b"h\x00"
    assert "a call of a str" in refused(content + text(f"touch {sentinel}") + b"\x85R.")


def test_deeply_nested_key_does_not_crash_the_interpreter(refused):
    """Hashing this tuple overflows the C stack of CPython."""
    assert "a tuple as a key" in refused(b"\x80\x04})" + b"\x85" * 200_000 + b"Ns.")


def test_endless_program_is_refused(refused):
    assert "opcodes" in refused(b"\x80\x04" + b"N" * 500_001 + b".")


def test_source_text_is_not_executed(tmp_path, sentinel):
    source = f"open({str(sentinel)!r}, 'w').close()\n"
    exec(source)
    assert sentinel.exists()  # the source works
    sentinel.unlink()
    networks = read_official_snapshot(GOLDEN_SNAPSHOT).networks
    path = write_snapshot(tmp_path / "snapshot.pkl", networks, module_src=source)
    snapshot = read_official_snapshot(path)
    assert snapshot.ignored_source_chars == len(source)
    assert torch.equal(snapshot.networks["G_ema"].tensors["mapping.w_avg"], networks["G_ema"].tensors["mapping.w_avg"])
    assert not sentinel.exists()


def module_with(parameter: object) -> bytes:
    network = Persistent("Generator", {"_parameters": {"weight": parameter}, "_buffers": {}, "_modules": {}})
    return dump({"G_ema": network})


def tensor_of(storage: bytes, offset: object = 0, size: object = (2,), stride: object = (1,)) -> Call:
    return Call(torch._utils._rebuild_tensor_v2, Call(torch.storage._load_from_bytes, storage), offset, size, stride)


def storage_bytes(tensor: torch.Tensor) -> bytes:
    file = io.BytesIO()
    torch.save(tensor.storage(), file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
class TestStorages:
    def test_good_one_is_read(self):
        content = module_with(tensor_of(storage_bytes(torch.tensor([3.0, 4.0]))))
        record = read_records(io.BytesIO(content), ALLOWED_GLOBALS, "test")["G_ema"]
        parameter = record.arguments[0]["state"]["_parameters"]["weight"]
        assert TensorReader("test", 100).read(parameter, "weight").tolist() == [3.0, 4.0]

    @pytest.mark.parametrize("position", range(4))
    def test_nested_pickle_that_runs_something_is_refused_by_name(self, position, sentinel, refused):
        """One of the pickles that make up a storage is replaced by a call of os.system."""
        parts = split_pickles(storage_bytes(torch.tensor([3.0, 4.0])), 5)
        parts[1 + position] = pickle.dumps(Call(os.system, f"touch {sentinel}"), protocol=2)
        message = refused(module_with(tensor_of(b"".join(parts))), ForbiddenGlobalError)
        assert repr(f"{os.system.__module__}.system") in message
        assert "nested in its storage" in message

    @pytest.mark.parametrize("zipped", [False, True])
    def test_nested_file_of_another_kind_is_refused(self, zipped, sentinel, refused):
        if zipped:
            file = io.BytesIO()
            torch.save(Call(os.system, f"touch {sentinel}"), file)
            content = file.getvalue()
        else:
            content = pickle.dumps(Call(os.system, f"touch {sentinel}"))
        assert "not in the format" in refused(module_with(tensor_of(content)))

    def test_what_the_program_declared_safe_is_still_refused(self, sentinel, refused):
        parts = split_pickles(storage_bytes(torch.tensor([3.0, 4.0])), 5)
        parts[3] = pickle.dumps(Call(os.system, f"touch {sentinel}"), protocol=2)
        with torch.serialization.safe_globals([os.system]):
            refused(module_with(tensor_of(b"".join(parts))), ForbiddenGlobalError)

    def test_truncated_storage_is_refused(self, refused):
        assert "storage" in refused(module_with(tensor_of(storage_bytes(torch.ones(100))[:-200])))

    @pytest.mark.parametrize("count", [b"", struct.pack("<q", 2**40), struct.pack("<q", -1)])
    def test_size_that_a_storage_only_claims_is_refused(self, count, refused):
        """torch would take memory for it first."""
        data = storage_bytes(torch.ones(4))[:-24] + count
        assert "cut off, or not as long as it says" in refused(module_with(tensor_of(data)))

    def test_integers_are_refused(self, refused):
        content = module_with(tensor_of(storage_bytes(torch.tensor([3, 4]))))
        assert repr("torch.LongStorage") in refused(content, ForbiddenGlobalError)

    @pytest.mark.parametrize(
        ("offset", "size", "stride"),
        [
            (0, (3,), (1,)),
            (1, (2,), (1,)),
            (-1, (2,), (1,)),
            (0, (-2,), (1,)),
            (0, (2,), (-1,)),
            (0, (10**9, 10**9), (0, 0)),
            (0, (2,), (2,)),
            (0, (2,), (1, 1)),
            (0, [2], [1]),
            (0, ("2",), (1,)),
            (None, (2,), (1,)),
            (0, (1,) * 100, (1,) * 100),
        ],
    )
    def test_view_outside_its_storage_is_refused(self, offset, size, stride, refused):
        content = module_with(tensor_of(storage_bytes(torch.ones(2)), offset, size, stride))
        assert "does not lie inside its storage" in refused(content)

    def test_one_storage_in_many_tensors_is_refused(self, refused):
        storage = tensor_of(storage_bytes(torch.ones(1000)), 0, (1000,), (1,))
        state = {"_parameters": {str(i): storage for i in range(1000)}, "_buffers": {}, "_modules": {}}
        assert "more than the" in refused(dump({"G_ema": Persistent("Generator", state)}))


def split_pickles(data: bytes, count: int) -> list[bytes]:
    """The first `count` pickles in the data, and what follows them."""
    stream, parts, start = io.BytesIO(data), [], 0
    for _ in range(count):
        read_records(stream, {("torch", "FloatStorage")}, "test")
        parts.append(data[start : stream.tell()])
        start = stream.tell()
    return [*parts, data[start:]]


def integer(bits: int) -> bytes:
    return b"\x8b" + struct.pack("<I", bits // 8) + b"\x7f" * (bits // 8)


def network_pickle(state: bytes, class_name: bytes = text("Generator"), version: bytes = b"K\x06") -> bytes:
    """A snapshot of a single network, whose state and class are given as opcodes."""
    meta = b"}(" + text("version") + version + text("class_name") + class_name + text("state") + state + b"u"
    return (
        b"}"
        + text("G_ema")
        + stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
        + meta
        + b"\x85Rs."
    )


def multiplied_list(levels: int = 6) -> bytes:
    """Memoise a list of 30^levels texts, in 60 bytes a level, as number `levels`."""
    lists = b"".join(b"](" + (b"h" + bytes([i])) * 30 + b"eq" + bytes([i + 1]) for i in range(levels))
    return text("x" * 30) + b"q\x00" + lists


def parameters(values: bytes) -> bytes:
    return b"}" + text("_parameters") + b"}(" + values + b"us"


def long_names() -> bytes:
    """One name as long as the file, in front of the names of thousands of attributes."""
    attributes = b"}(" + b"".join(text(str(i)) + b"N" for i in range(5000)) + b"u"
    inner = stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
    inner += b"}(" + text("version") + b"K\x06" + text("state") + attributes + b"u\x85R"
    return b"\x80\x04" + network_pickle(b"}" + text("_modules") + b"}" + text("x" * 2**20) + inner + b"ss")


def sets_of_one_list() -> bytes:
    numbers = b"](" + b"".join(b"J" + struct.pack("<i", i) for i in range(100_000)) + b"eq\x00"
    build = stack_global("builtins", "set") + b"q\x01"
    return b"\x80\x04" + numbers + build + b"](" + b"h\x01h\x00\x85R" * 75_000 + b"e."


def tensors_of_one_storage(storage: bytes, count: int) -> bytes:
    load = (
        stack_global("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I", len(storage)) + storage + b"\x85R"
    )
    tensor = REBUILD + b"(" + load + b"K\x00K\x01\x85K\x01\x85tRq\x00"
    named = b"".join(text(str(i)) + b"h\x00" for i in range(1, count))
    return b"\x80\x04" + network_pickle(parameters(text("0") + tensor + named))


def wide_network() -> bytes:
    """The widths and the resolution of a network of 20 GB, claimed by tensors of a few numbers."""
    names = [f"synthesis.b{4 << i}.conv1.weight" for i in range(4)]
    names += ["synthesis.b32.torgb.weight", "mapping.fc0.weight", "synthesis.b4.conv1.affine.weight"]
    wide = torch.ones(20_000, 1, 1, 1)
    tensors = {name: wide if "conv1.weight" in name else torch.ones(1, 1) for name in names}
    network = OfficialNetwork("Generator", {"synthesis.b4.conv1.conv_clamp": None}, tensors)
    return dump({"G_ema": as_module(network)})


MULTIPLYING = {
    "a class name that is a list of lists": lambda: b"\x80\x04" + multiplied_list() + network_pickle(b"}", b"h\x06"),
    "a version that is one": lambda: b"\x80\x04" + multiplied_list() + network_pickle(b"}", version=b"h\x06"),
    "a long integer": lambda: b"\x80\x04" + network_pickle(b"}", version=integer(80_000)),
    "a long name of a module": long_names,
    "sets of one list": sets_of_one_list,
    "one storage in many tensors": lambda: tensors_of_one_storage(storage_bytes(torch.ones(250_000)), 60_000),
    "a long pickle in a storage": lambda: tensors_of_one_storage(STORAGE_MAGIC + b"N" * 100_000 + b".", 9_000),
    "a wide network of small tensors": wide_network,
}
STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
CONVERT = """
import resource, sys, time
from dfmgan_hf.conversion import SnapshotError, convert_official_snapshot
with open("/proc/self/statm") as file:
    held = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + 2**29,) * 2)
for path in sys.argv[1:]:
    start = time.process_time()
    try:
        convert_official_snapshot(path, path + ".out")
    except SnapshotError as error:
        assert len(str(error)) < 1000
    else:
        raise AssertionError(path)
    seconds = time.process_time() - start
    assert seconds < 20, (path, seconds)
    print(path, round(seconds, 1), flush=True)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited as Linux does it")
@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
def test_small_files_take_little_memory_and_time(tmp_path):
    """What names itself thousands of times, or claims sizes that it does not have."""
    paths = []
    for i, make in enumerate(MULTIPLYING.values()):
        paths.append(tmp_path / f"{i}.pkl")
        paths[-1].write_bytes(make())
    done = subprocess.run([sys.executable, "-c", CONVERT, *map(str, paths)], capture_output=True, text=True)
    refused = done.stdout.count("\n")
    assert done.returncode == 0, (list(MULTIPLYING)[refused:][:1], done.stderr)
    assert refused == len(paths)


def test_parameter_that_is_no_tensor_is_refused(refused):
    assert "is not a tensor" in refused(module_with("weights"))


def test_module_that_contains_itself_is_refused(refused):
    reconstruct = stack_global("torch_utils.persistence", "_reconstruct_persistent_obj")
    state = b"}" + text("_modules") + b"h\x00s"
    meta = b"}(" + text("version") + b"K\x06" + text("state") + state + b"u"
    # The dict of submodules is memoised as 0, gets the module itself, and is left on the stack below the snapshot.
    content = b"\x80\x04}q\x00" + text("again") + reconstruct + meta + b"\x85Rq\x01" + b"s"
    content += b"}" + text("G_ema") + b"h\x01s."
    assert "nests more modules" in refused(content)


def test_modules_that_multiply_are_refused(refused):
    """Each level names the level below 30 times: 30^6 modules in a few kilobytes."""
    module = Persistent("Module", {})
    for _ in range(6):
        module = Persistent("Module", {"_modules": {str(i): module for i in range(30)}})
    assert "nests more modules" in refused(dump({"G_ema": module}))
