from __future__ import annotations

from pathlib import Path

import pytest

from dfmgan_hf.metrics.networks import LPIPS
from tests.metrics.drawn import random_lpips, write_alexnet

pytest.importorskip("torchvision", reason="the metrics extra is not installed")
pytest.importorskip("torch_fidelity", reason="the metrics extra is not installed")


@pytest.fixture(autouse=True)
def _no_weights_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Tests read the weight files that they name, neither the user's nor torch.hub's cache."""
    for name in ("DFMGAN_INCEPTION_WEIGHTS", "DFMGAN_LPIPS_VGG_WEIGHTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch_home"))


@pytest.fixture(scope="session")
def alexnet_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet with random weights and random LPIPS channel weights."""
    return write_alexnet(tmp_path_factory.mktemp("weights") / "alexnet.safetensors")


@pytest.fixture(scope="session")
def lpips_net(tmp_path_factory: pytest.TempPathFactory) -> LPIPS:
    """LPIPS with random weights."""
    return random_lpips(tmp_path_factory.mktemp("weights"))
