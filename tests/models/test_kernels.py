"""The operators of Triton kernels where there is no GPU: in Triton's interpreter, and their absence."""

import functools
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
    monkeypatch.setattr(operators, "_kernels_run", operators._kernels_run.__wrapped__)
    with pytest.warns(UserWarning, match="in float16 are slower than they could be: Triton's kernels do not run here"):
        assert not operators.kernels_run(torch.float16)
    assert torch.equal(fir_filter2d(x, padding=1), plain)


def test_kernels_that_come_out_wrong_are_left_out_with_a_warning(monkeypatch):
    monkeypatch.setattr(operators, "_kernels_run", operators._kernels_run.__wrapped__)
    monkeypatch.setattr(operators, "wrong_kernels", lambda device, dtype: ["filter2d"])
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    with pytest.warns(UserWarning, match=r"are not used, because filter2d came out wrong .* on a card"):
        assert not operators.kernels_run(torch.float16)


@pytest.mark.filterwarnings("error")
def test_kernels_can_be_left_out(monkeypatch):
    monkeypatch.setenv(operators.SWITCH, "0")
    monkeypatch.setattr(operators, "wrong_kernels", lambda device, dtype: pytest.fail("They were started."))
    assert not operators._kernels_run.__wrapped__(torch.float16)


def test_a_kernel_that_fails_later_says_how_to_do_without():
    """On a CPU, outside of Triton's interpreter, each does."""
    with pytest.raises(RuntimeError, match=r"for dfmgan_hf::filter2d failed on a map of \(1, 8, 6, 6\) .*TRITON=0"):
        torch.ops.dfmgan_hf.filter2d(torch.zeros(1, 8, 6, 6), 1, 1, 1.0)


def test_what_is_found_of_kernels_is_a_constant_to_the_compiler(monkeypatch):
    looked_at = []
    monkeypatch.setattr(operators, "wrong_kernels", lambda device, dtype: looked_at.append(str(dtype)))
    monkeypatch.setattr(operators, "_kernels_run", functools.cache(operators._kernels_run.__wrapped__))
    compiled = torch.compile(lambda x: x + operators.kernels_run(x.dtype), backend="eager", fullgraph=True)
    assert [compiled(torch.zeros(1)).item() for _ in range(2)] == [1, 1]
    assert looked_at == ["torch.float32"]


def test_kernels_are_checked_on_the_cpu_whatever_the_default_device_is(monkeypatch):
    """With another one, torch would draw the check's numbers there, from a generator that is not."""
    devices = []
    monkeypatch.setattr(operators, "_kernels_run", operators._kernels_run.__wrapped__)
    monkeypatch.setattr(operators, "wrong_kernels", lambda device, dtype: devices.append(torch.get_default_device()))
    with torch.device("meta"):
        assert operators.kernels_run(torch.float16)
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
