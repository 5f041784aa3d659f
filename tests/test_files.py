"""Files and folders appear whole or not at all, and what a killed program left does no harm."""

import math
import os
import signal
import stat
import subprocess
import sys
from dataclasses import make_dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dfmgan_hf.files import (
    keep_settings,
    lock_folder,
    recover_folder,
    to_json,
    whole_file,
    whole_folder,
    write_json,
    write_text,
)

Named = make_dataclass("Named", ["name"])


def test_a_file_appears_whole_with_the_usual_permissions(tmp_path):
    umask = os.umask(0o027)
    try:
        write_text(tmp_path / "new" / "a.txt", "Kratzer_groß 划痕\n")
    finally:
        os.umask(umask)
    path = tmp_path / "new" / "a.txt"
    assert path.read_bytes().decode("utf-8") == "Kratzer_groß 划痕\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(path.parent.iterdir()) == [path]


def test_json_holds_dataclasses_paths_types_and_no_infinities():
    value = to_json({1: [Named("a"), (Path("b"), int)], "x": [math.nan, -math.inf, 0.5, True, None]})
    assert value == {"1": [{"name": "a"}, ["b", str(int)]], "x": [None, None, 0.5, True, None]}


@pytest.mark.parametrize("content", [b"", b'{"a": 1', b"\xff\x00"])
def test_damaged_settings_are_named(tmp_path, content):
    path = tmp_path / "settings.json"
    assert keep_settings(path, {"a": 1}) == ({"a": 1}, [])
    assert keep_settings(path, {"a": 2}) == ({"a": 1}, ["a"])
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"settings\.json is empty or damaged .*, or name a new folder"):
        keep_settings(path, {"a": 1})
    assert path.read_bytes() == content


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})

    def fail_halfway():
        with whole_file(path) as aside:
            aside.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert path.read_text() == '{\n  "a": 1\n}\n'
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_program_left_is_written_over(tmp_path):
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.partial" / "litter").touch()
    with whole_folder(tmp_path / "a") as aside:
        (aside / "b").write_text("b")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b"]


def test_a_folder_is_replaced_only_when_told_to(tmp_path):
    path = tmp_path / "a"
    for text in ("old", "new"):
        with whole_folder(path, replace=True, durable=True) as aside:
            (aside / text).touch()
    assert [file.name for file in path.iterdir()] == ["new"]
    with pytest.raises(FileExistsError, match="name a new folder"):
        whole_folder(path).__enter__()
    with pytest.raises(RuntimeError), whole_folder(path, replace=True):
        raise RuntimeError
    assert [file.name for file in tmp_path.rglob("*")] == ["a", "new"]


@pytest.mark.parametrize("is_old", [False, True])
def test_a_folder_that_a_link_leads_to_is_filled_where_it_is(tmp_path, is_old):
    (tmp_path / "large_disk" / "a").mkdir(parents=True)
    if is_old:
        (tmp_path / "large_disk" / "a" / "old").touch()
    (tmp_path / "link").symlink_to(tmp_path / "large_disk" / "a")
    with whole_folder(tmp_path / "link", replace=is_old) as aside:
        (aside / "new").touch()
    assert (tmp_path / "link").is_symlink()
    assert {path.name for path in tmp_path.rglob("*")} == {"large_disk", "link", "a", "new"}


def test_a_mounted_disk_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os.path, "ismount", lambda path: Path(path) == tmp_path)
    with pytest.raises(FileExistsError, match=r"is a mounted disk, .* name a folder in it"):
        whole_folder(tmp_path).__enter__()
    with whole_folder(tmp_path / "a") as aside:
        (aside / "b").touch()


def test_a_program_killed_between_the_two_renames_loses_nothing(tmp_path):
    path = tmp_path / "a"
    (tmp_path / ".a.partial").mkdir()
    (tmp_path / ".a.replaced").mkdir()
    (tmp_path / ".a.replaced" / "old").touch()
    recover_folder(path)
    assert [file.name for file in path.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [path]


def test_a_system_that_opens_no_folders_writes_them_all_the_same(tmp_path, monkeypatch):
    def open_files_only(path, flags, *args, _open=os.open, **kwargs):
        if os.path.isdir(path) and not flags & os.O_RDWR:  # with it, filelock makes a file that has no name yet
            raise PermissionError(path)
        return _open(path, flags, *args, **kwargs)

    monkeypatch.setattr(os, "open", open_files_only)
    with whole_folder(tmp_path / "a", durable=True) as aside:
        (aside / "b").write_text("b")
    assert (tmp_path / "a" / "b").read_text() == "b"


@pytest.mark.parametrize("inside", ["a", "a/b/c"])
def test_a_file_where_a_folder_is_needed_is_said_in_words(tmp_path, inside):
    (tmp_path / "a").touch()
    with pytest.raises(NotADirectoryError, match="a is a file, but a folder is needed"):
        write_text(tmp_path / inside / "x.txt", "")
    with pytest.raises(NotADirectoryError, match="a is a file, but a folder is needed"):
        whole_folder(tmp_path / inside / "x").__enter__()


def test_of_two_runs_into_one_folder_the_second_is_refused_and_harms_nothing(tmp_path):
    with whole_folder(tmp_path / "a") as aside:
        (aside / "b").write_text("b")
        with pytest.raises(BlockingIOError, match=r"Another run is writing to .*/a\. Wait .* another folder"):
            whole_folder(tmp_path / "a").__enter__()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["a", "b"]


@pytest.mark.parametrize("has_fcntl", [True, False])
def test_a_lock_ends_with_its_block_and_with_a_killed_run(tmp_path, monkeypatch, has_fcntl):
    if not has_fcntl:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    path = tmp_path / "out"
    for _ in range(2):
        with lock_folder(path), pytest.raises(BlockingIOError, match="Another run is writing to"):
            lock_folder(path).__enter__()
    hide = "" if has_fcntl else "import sys, filelock; sys.modules['fcntl'] = None"
    hold = f"with lock_folder({str(path)!r}): print(1, flush=True), input()"
    program = f"{hide}\nfrom dfmgan_hf.files import lock_folder\n{hold}"
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "1\n"
        with pytest.raises(BlockingIOError):
            lock_folder(path).__enter__()
        other.send_signal(signal.SIGKILL)
    with lock_folder(path):
        assert not list(path.iterdir())
    if has_fcntl:
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600)])
def test_the_umask_holds_for_files_that_libraries_write(umask, mode, tmp_path):
    """safetensors makes its files for their owner alone."""
    before = os.umask(umask)
    try:
        with whole_file(tmp_path / "one.safetensors") as aside:
            save_file({"x": torch.ones(1)}, aside)
        with whole_folder(tmp_path / "many") as aside:
            save_file({"x": torch.ones(1)}, aside / "two.safetensors")
    finally:
        os.umask(before)
    files = [tmp_path / "one.safetensors", tmp_path / "many" / "two.safetensors"]
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(files)
    assert [path.stat().st_mode & 0o777 for path in files] == [mode] * 2


def test_a_disk_that_sets_no_permissions_keeps_what_is_written(tmp_path, monkeypatch):
    """As FAT and some network disks: chmod is refused."""

    def refused(*_arguments, **_options):
        raise PermissionError("Operation not permitted")

    monkeypatch.setattr(Path, "chmod", refused)
    with whole_file(tmp_path / "one.safetensors") as aside:
        save_file({"x": torch.ones(1)}, aside)
    with whole_folder(tmp_path / "many") as aside:
        save_file({"x": torch.ones(1)}, aside / "two.safetensors")
    assert (tmp_path / "one.safetensors").is_file()
    assert (tmp_path / "many" / "two.safetensors").is_file()
