"""Files and folders appear whole or not at all, and what a killed program left does no harm."""

import math
import os
import stat
from dataclasses import make_dataclass
from pathlib import Path

import pytest

from dfmgan_hf.files import recover_folder, to_json, whole_file, whole_folder, write_json, write_text

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
        if os.path.isdir(path):
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
