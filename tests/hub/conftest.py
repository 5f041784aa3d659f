"""One Hub and one client for all tests: starting them takes longer than any test."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .client import Client, hub_client
from .repositories import WRITE_TOKEN
from .server import LocalHub, local_hub


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
def trained_folder(tmp_path: Path) -> Path:
    """What a training of stage 2 leaves behind."""
    from dfmgan_hf import StyleGAN2Discriminator

    from .actions import make_pipeline

    folder = tmp_path / "trained"
    make_pipeline(5).save_pretrained(folder)
    discriminator = StyleGAN2Discriminator(resolution=32, channel_base=64, channel_max=4)
    discriminator.save_pretrained(folder / "discriminator")
    (folder / "samples").mkdir()
    (folder / "samples" / "0000001000.png").write_bytes(b"first")
    (folder / "samples" / "0000002000.png").write_bytes(b"last")
    (folder / "checkpoints" / "checkpoint-2").mkdir(parents=True)
    (folder / "checkpoints" / "checkpoint-2" / "network_generator.safetensors").write_bytes(b"")
    (folder / "metrics.jsonl").write_text("{}\n")
    options = {
        "run": {"output_dir": "/home/alice/customer/trained"},
        "data": {"data_dir": "/home/alice/customer", "category": "magnetic_tile"},
        "defect": ["blow_hole", "break"],
    }
    record = {"method": "stage2", "defect": "blow_hole", "images": 10, "config": options}
    record["training_file_names"] = ["test/blow_hole/customer_17.png"]
    (folder / "training_config.json").write_text(json.dumps(record))
    return folder
