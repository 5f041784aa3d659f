"""The operators of Triton kernels where there is no GPU: in Triton's interpreter, and their absence."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dfmgan_hf.models import operators
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
