import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest
import torch

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf import gate as gate_module
from dfmgan_hf.export import ExportConfig, ExportSummary, generate_dataset
from dfmgan_hf.gate import QualityGate
from dfmgan_hf.metrics.networks import LPIPS


@pytest.fixture
def make_pipe(make_generator) -> Callable[..., DFMGANPipeline]:
    """Makes a tiny pipeline: of 60 masks, about 11 are empty and 6 cover more than 0.3 of the image."""

    def make(**config) -> DFMGANPipeline:
        generator = make_generator(**config)
        with torch.no_grad():
            generator.to_mask.bias.fill_(-2.0)
        pipe = DFMGANPipeline(generator)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    return make


@pytest.fixture
def pipe(make_pipe) -> DFMGANPipeline:
    return make_pipe()


@pytest.fixture
def export(pipe, tmp_path) -> Callable[..., ExportSummary]:
    """Exports to a folder of `tmp_path`; keyword arguments are options."""

    def run(name: str = "out", gate: QualityGate | None = None, **options) -> ExportSummary:
        config = ExportConfig(tmp_path / name, **{"num_images": 12, **options})
        return generate_dataset(pipe, config, model_name="tiny", gate=gate)

    return run


@pytest.fixture
def contents() -> Callable[[Path], dict[str, str]]:
    """A digest of every file under a folder that is not hidden, by its path there."""

    def read(folder: Path) -> dict[str, str]:
        return {
            str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file() and not path.name.startswith(".")
        }

    return read


@pytest.fixture
def environment() -> dict[str, str]:
    """For processes that tests start: the package of this tree, on the CPU, offline."""
    root = str(Path(__file__).parents[2])
    return {**os.environ, "PYTHONPATH": root, "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}


@pytest.fixture
def gate(monkeypatch) -> QualityGate:
    """A gate that refuses about half of what the tiny pipeline draws, without a network."""
    monkeypatch.setattr(gate_module, "_features", lambda *_: torch.zeros(1))
    monkeypatch.setattr(gate_module, "_embed", lambda *_: torch.zeros(1))
    thresholds = {"visible": 0.5, "smallest": 0.01, "largest": 0.1}
    return QualityGate(cast(LPIPS, None), thresholds, torch.zeros(1, 1), torch.zeros(1, 1), "0" * 64)
