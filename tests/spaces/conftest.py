"""The Space's modules on the path, tiny models, and a server of its own on loopback."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from .tiny_model import save_tiny_model

pytest.importorskip("gradio", reason="gradio is not installed: pip install dfmgan-hf[demo]")

SPACE = Path(__file__).resolve().parents[2] / "spaces" / "dfmgan_demo"
START_SECONDS = 300

# The Space is a folder of modules that import each other by name, as on the Hub.
sys.path.append(str(SPACE))


@dataclass(frozen=True)
class Server:
    """A running Space.

    Args:
        url: where it listens.
        pid: its process.
        cache: folder of the files that it hands out.
        log: what it printed.
    """

    url: str
    pid: int
    cache: Path
    log: Path

    def files(self) -> set[Path]:
        """All that it holds for downloads at this moment, finished or not.

        Folders come and go meanwhile: `os.walk` passes over one that has vanished, on which `Path.rglob` fails.
        """
        return {Path(folder) / name for folder, _, names in os.walk(self.cache) for name in names}


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
    """The app as a person starts it, with both models; stopped after the last test."""
    root = tmp_path_factory.mktemp("server")
    cache, log = root / "cache", root / "log.txt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    models = [f"{name}={folder}" for name, folder in model_folders.items()]
    env = {**os.environ, "GRADIO_TEMP_DIR": str(cache), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, SPACE / "app.py", "--model", *models, "--port", str(port), "--host", "127.0.0.1"],
            env=env,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process, log)
        yield Server(url, process.pid, cache, log)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"The app ended with status {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}/config", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    pytest.fail(f"The app did not answer within {START_SECONDS} s:\n{log.read_text()}")
