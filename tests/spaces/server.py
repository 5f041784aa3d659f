"""The app as a person starts it, in a process and on a port of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SPACE = Path(__file__).resolve().parents[2] / "spaces" / "dfmgan_demo"
START_SECONDS = 300
# It removes what it handed out, thousands of files after the load test.
STOP_SECONDS = 120


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


@contextmanager
def running_server(models: Sequence[str], root: Path) -> Iterator[Server]:
    """The app with these models, listening on loopback; ended when the block is left.

    Args:
        models: as for the option --model; none for the default.
        root: folder for its cache and its log.

    Raises:
        RuntimeError: it ended or did not answer in time; the message has what it printed.
    """
    cache, log = root / "cache", root / "log.txt"
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, SPACE / "app.py", "--port", str(port), "--host", "127.0.0.1"]
    env = {**os.environ, "GRADIO_TEMP_DIR": str(cache), "GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"}
    env["HF_HOME"] = str(root / "hf")  # where it keeps a model's twins
    with log.open("w") as output:
        process = subprocess.Popen(
            [*command, *(["--model", *models] if models else [])], env=env, stdout=output, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(url, process, log)
        yield Server(url, process.pid, cache, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"The app ended with status {process.returncode}:\n{log.read_text()}")
        try:
            with urllib.request.urlopen(f"{url}/config", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise RuntimeError(f"The app did not answer within {START_SECONDS} s:\n{log.read_text()}")
