"""The real client in a process of its own: it reads the Hub's address when it is imported, so ours cannot be it."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
CHUNK_BYTES = 500


def environment(address: str, home: Path, token: str | None) -> dict[str, str]:
    """Environment variables of a client of the Hub at `address`."""
    variables = {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "PYTHONPATH": str(ROOT),
    }
    return variables | ({"HF_TOKEN": token} if token else {})


class ActionFailed(Exception):
    """An action raised; the message starts with the types of the exception, the nearest first."""


class Client:
    """Runs functions of `tests.hub.actions` in the process, one at a time."""

    def __init__(self, pool: ProcessPoolExecutor) -> None:
        self._pool = pool

    def __call__(self, action: Callable[..., Any], *arguments: Any, token: str | None = None, **options: Any) -> Any:
        """The action's result.

        Args:
            action: a function of `tests.hub.actions`.
            token: for this action only, "" for none at all; None for the process's own.

        Raises:
            ActionFailed: the action raised.
        """
        ok, result = self._pool.submit(_run, action.__name__, arguments, options, token).result(timeout=500)
        if not ok:
            raise ActionFailed(result)
        return result


@contextmanager
def hub_client(address: str, home: Path, token: str | None) -> Iterator[Client]:
    """A client process, until the block ends."""
    variables = environment(address, home, token)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, initializer=_set_environment, initargs=(variables,)) as pool:
        yield Client(pool)


def _set_environment(variables: dict[str, str]) -> None:
    os.environ.update(variables)


def _run(name: str, arguments: tuple[Any, ...], options: dict[str, Any], token: str | None) -> tuple[bool, Any]:
    # Imported here, when the initializer has set the environment.
    import huggingface_hub.constants

    import tests.hub.actions

    # The client waits longer and longer between its attempts; here nothing gets better by waiting.
    time.sleep = lambda seconds: None
    # It keeps what it gets in portions of this size, and goes on after the last whole one.
    huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE = CHUNK_BYTES

    before = os.environ.get("HF_TOKEN")
    if token is not None:
        os.environ["HF_TOKEN"] = token
    try:
        return True, getattr(tests.hub.actions, name)(*arguments, **options)
    except Exception as error:
        # Exceptions of the client hold responses, which cannot be sent to another process.
        return False, f"{' '.join(kind.__name__ for kind in type(error).__mro__)}: {error}"
    finally:
        if token is not None and before is None:
            del os.environ["HF_TOKEN"]
        elif before is not None:
            os.environ["HF_TOKEN"] = before
