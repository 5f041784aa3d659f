"""The operators of Triton kernels where there is no GPU: in Triton's interpreter, and their absence."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dfmgan_hf.models import operators
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.layers import fir_filter2d


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton is not installed")
def test_kernels_in_the_interpreter():
    """In a process of its own: Triton reads the variable when it is imported."""
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            Path(__file__).with_name("check_kernels.py"),
        ],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_kernels_that_do_not_run_are_left_out_with_a_warning(monkeypatch):
    """As on a machine without a C compiler."""
    x = torch.randn(1, 8, 6, 6)
    plain = fir_filter2d(x, padding=1)
    monkeypatch.setattr(operators, "kernels_run", operators.kernels_run.__wrapped__)
    with pytest.warns(UserWarning, match="Triton's kernels do not run here"):
        assert not operators.kernels_run()
    assert torch.equal(fir_filter2d(x, padding=1), plain)


def test_kernels_that_come_out_wrong_are_left_out_with_a_warning(monkeypatch):
    monkeypatch.setattr(operators, "kernels_run", operators.kernels_run.__wrapped__)
    monkeypatch.setattr(operators, "wrong_kernels", lambda device: ["filter2d"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    with pytest.warns(UserWarning, match=r"are not used, because filter2d came out wrong .* on a card"):
        assert not operators.kernels_run()


def test_kernels_are_checked_on_the_cpu_whatever_the_default_device_is(monkeypatch):
    """With another one, torch would draw the check's numbers there, from a generator that is not."""
    devices = []
    monkeypatch.setattr(operators, "kernels_run", operators.kernels_run.__wrapped__)
    monkeypatch.setattr(operators, "wrong_kernels", lambda device: devices.append(torch.get_default_device()))
    with torch.device("meta"):
        assert operators.kernels_run()
    assert devices == [torch.device("cpu")]


def test_fused_drawing_compiles_in_one_piece():
    with torch.device("meta"):
        generator = DFMGANGenerator(resolution=32, channel_base=64, z_dim=16, w_dim=16, residual_resolution=16)
    generator.set_mixed_precision(torch.float16, 5)
    operator = torch.ops.dfmgan_hf.pointwise_epilogue.default
    found = []

    def backend(graph: torch.fx.GraphModule, inputs: object) -> object:
        found.extend(node for node in graph.graph.nodes if node.target in (operator, operator.overloadpacket))
        return graph

    compiled = torch.compile(generator, backend=backend, fullgraph=True)
    with torch.no_grad():
        images = compiled(*torch.empty(2, 3, 16, device="meta"), noise_mode="const").images
    assert images.shape == (3, 3, 32, 32)
    assert len(found) == 4  # 4x4 to 32x32
