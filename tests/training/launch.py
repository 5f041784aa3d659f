"""Several processes of one run on the CPU, as torchrun starts them, without importing torch anew in each."""

from __future__ import annotations

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.process import BaseProcess

import torch

# Children are forked from a server that has imported torch once.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.training.tiny"])


def start(function: Callable[..., None], *args: object) -> BaseProcess:
    """A child that runs `function(*args)`."""
    process = CONTEXT.Process(target=_run, args=(function, {}, args))
    process.start()
    return process


def start_ranks(function: Callable[..., None], *args: object, processes: int = 2) -> list[BaseProcess]:
    """Children that run `function(*args)` as the ranks of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(processes):
        environment = {
            "RANK": rank,
            "LOCAL_RANK": rank,
            "WORLD_SIZE": processes,
            "LOCAL_WORLD_SIZE": processes,
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
            "ACCELERATE_USE_CPU": "true",
        }
        process = CONTEXT.Process(target=_run, args=(function, {k: str(v) for k, v in environment.items()}, args))
        process.start()
        children.append(process)
    return children


def join(children: list[BaseProcess], timeout: float = 120) -> list[int | None]:
    """Exit codes; children that do not end in time are killed."""
    for child in children:
        child.join(timeout)
    codes = [child.exitcode for child in children]
    for child in children:
        if child.is_alive():
            child.kill()
            child.join()
    return codes


def launch(function: Callable[..., None], *args: object, processes: int = 2) -> None:
    """Run `function(*args)` as the ranks of one run, and see that all end well."""
    assert join(start_ranks(function, *args, processes=processes)) == [0] * processes


def _run(function: Callable[..., None], environment: dict[str, str], args: tuple[object, ...]) -> None:
    os.environ.update(environment)
    torch.set_num_threads(1)
    function(*args)
