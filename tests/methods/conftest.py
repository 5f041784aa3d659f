"""Fixtures of the tests of methods."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.training.test_scripts import save_drawn_category

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def no_report(monkeypatch) -> None:
    """Runs without the page about them, which has tests of its own and takes longer than these runs."""
    monkeypatch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)


@pytest.fixture(scope="module")
def category(tmp_path_factory) -> Path:
    """Drawn photographs of plates with dots and spots."""
    return save_drawn_category(tmp_path_factory.mktemp("data") / "plate")


@pytest.fixture(scope="module")
def script(request) -> ModuleType:
    """The script in examples/ that a test module names as SCRIPT."""
    name = request.module.SCRIPT
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # tyro looks up annotations there
    spec.loader.exec_module(module)
    return module
