"""Fixtures of the tests of methods."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.test_scripts import save_drawn_category


@pytest.fixture
def no_report(monkeypatch) -> None:
    """Runs without the page about them, which has tests of its own and takes longer than these runs."""
    monkeypatch.setattr("dfmgan_hf.training.run.try_report", lambda _: None)


@pytest.fixture(scope="module")
def category(tmp_path_factory) -> Path:
    """Drawn photographs of plates with dots and spots."""
    return save_drawn_category(tmp_path_factory.mktemp("data") / "plate")
