"""examples/assemble_space.py: the folder runs by itself, with its own copy of the package and its own models."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.spaces.server import SPACE

SCRIPT = SPACE.parents[1] / "examples" / "assemble_space.py"
# What app.py imports, and the models that it finds, as it starts in a folder of its own, the package not installed.
LOOK = """
import importlib.metadata, types
of_installed = importlib.metadata.version
def version(name):
    if name == "dfmgan-hf":
        raise importlib.metadata.PackageNotFoundError(name)
    return of_installed(name)
importlib.metadata.version = version
import app, catalog, dfmgan_hf, take_away
loaded = catalog.load_catalog(catalog.configured_sources([]))
assert dfmgan_hf.__version__ in take_away.readme("Blobs", types.SimpleNamespace(shows="", note="", license=""), {})
print(app.__file__, dfmgan_hf.__file__, *loaded.names, sep="|")
"""


@functools.cache
def _script() -> Any:
    spec = importlib.util.spec_from_file_location("assemble_space", SCRIPT)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _assemble(*arguments: object) -> subprocess.CompletedProcess:
    # The package need not be the installed one.
    env = {**os.environ, "PYTHONPATH": str(SPACE.parents[1])}
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)


def test_assembled_space_runs_by_itself(model_folders, tmp_path):
    space, (blobs, coloured) = tmp_path / "made" / "space", model_folders.values()
    (coloured / "notes.txt").write_text("not for the Hub")
    for told in ("card_facts.json", "LICENSE"):
        (coloured / told).write_text("{}")
    run = _assemble("--output_dir", space, "--model", blobs, coloured)
    assert run.returncode == 0, run.stderr
    assert [path.name for path in (tmp_path / "made").iterdir()] == ["space"]
    # Before it runs, because Python then keeps what it compiled.
    assert not list(space.rglob("notes.txt")) + list(space.rglob("__pycache__"))
    env = {**os.environ, "PYTHONPATH": str(space)}
    env.pop("DFMGAN_MODELS", None)
    look = subprocess.run(
        [sys.executable, "-c", LOOK], cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300
    )
    assert look.returncode == 0, look.stderr
    app, package, *names = look.stdout.strip().splitlines()[-1].split("|")
    assert (Path(app), Path(package)) == (space / "app.py", space / "dfmgan_hf" / "__init__.py")
    assert names == ["Blobs", "Coloured"]
    assert (space / "models" / "blobs" / "samples.png").is_file()
    assert {"card_facts.json", "LICENSE"} <= {path.name for path in (space / "models" / coloured.name).iterdir()}
    requirements = (space / "requirements.txt").read_text().split()
    assert any(line.startswith("torch>") for line in requirements)
    assert any(line.startswith("gradio") for line in requirements)
    assert not any("pytest" in line or "dfmgan" in line for line in requirements)


def test_the_assembled_space_has_nothing_that_is_not_to_be_published(model_folders, tmp_path):
    space = tmp_path / "space"
    _script().assemble(_script().Config(space, (model_folders["Blobs"],)))
    assert {"README.md", "app.py"} <= {path.name for path in space.iterdir()}
    assert not [path for path in space.rglob("*") if path.name.startswith(".") or path.name == "__pycache__"]


@pytest.mark.parametrize("what", ["there already", "no model", "same name"])
def test_what_cannot_be_assembled_is_said_in_words(model_folders, tmp_path, what):
    blobs, space = model_folders["Blobs"], tmp_path / "space"
    if what == "there already":
        (space / "kept").mkdir(parents=True)
        arguments, message = [blobs], "exists already"
    elif what == "no model":
        arguments, message = [tmp_path], "has no model_index.json"
    else:
        arguments, message = [blobs, blobs], "Two models are called blobs"
    with pytest.raises((FileExistsError, ValueError), match=message):
        _script().assemble(_script().Config(space, tuple(arguments)))
    assert {path.name for path in tmp_path.glob("space/*")} <= {"kept"}
