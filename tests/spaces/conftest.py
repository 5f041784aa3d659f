"""The Space's modules on the path, tiny models, and a server of its own on loopback."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.spaces.server import SPACE, Server, running_server
from tests.spaces.tiny_model import save_tiny_model

pytest.importorskip("gradio", reason="gradio is not installed: pip install dfmgan-hf[demo]")

# The Space is a folder of modules that import each other by name, as on the Hub.
sys.path.append(str(SPACE))


@pytest.fixture(scope="session")
def model_folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two models by name: grey and RGB."""
    root = tmp_path_factory.mktemp("models")
    return {
        "Blobs": save_tiny_model(root / "blobs"),
        "Coloured blobs": save_tiny_model(root / "coloured", image_channels=3, seed=1),
    }


@pytest.fixture(scope="session")
def server(model_folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The app as a person starts it, with both models; stopped after the last test, when it leaves no file behind."""
    models = [f"{name}={folder}" for name, folder in model_folders.items()]
    with running_server(models, tmp_path_factory.mktemp("server")) as server:
        yield server
    assert not server.files(), "the app did not remove its downloads when it was told to stop"
