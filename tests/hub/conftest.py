"""One Hub and one client for all tests: starting them takes longer than any test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dfmgan_hf import DFMGANPipeline
from tests.hub.client import Client, hub_client
from tests.hub.repositories import WRITE_TOKEN
from tests.hub.server import LocalHub, local_hub


@pytest.fixture(scope="session")
def running_hub() -> Iterator[LocalHub]:
    with local_hub() as hub:
        yield hub


@pytest.fixture(scope="session")
def client(running_hub: LocalHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with hub_client(running_hub.address, tmp_path_factory.mktemp("hf_home"), WRITE_TOKEN) as client:
        yield client


@pytest.fixture
def hub(running_hub: LocalHub) -> Iterator[LocalHub]:
    """The Hub, in order at the start of each test."""
    running_hub.requests.clear()
    running_hub.resumed.clear()
    yield running_hub
    running_hub.faults.clear()


@pytest.fixture(scope="session")
def _numbers() -> Iterator[int]:
    return itertools.count()


@pytest.fixture
def new_name(_numbers: Iterator[int]) -> Callable[[], str]:
    """Makes names of repositories that do not exist yet."""
    return lambda: f"me/repo{next(_numbers)}"


@pytest.fixture
def cache(tmp_path: Path) -> str:
    """An empty cache, where a download starts anew."""
    return str(tmp_path / "cache")


@pytest.fixture
def model_dir(make_generator, tmp_path: Path) -> Path:
    """The folder of a pipeline."""
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path / "model")
    return tmp_path / "model"
