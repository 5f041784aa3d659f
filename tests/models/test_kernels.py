"""The operators of Triton kernels where there is no GPU: in Triton's interpreter, and their shapes and counts."""

import collections
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dfmgan_hf.models import operators
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.layers import fir_filter2d
from dfmgan_hf.models.stylegan2 import hold_weights


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


class Counts(TorchDispatchMode):
    """How often each operator reads or writes a map."""

    def __init__(self, smallest: int) -> None:
        super().__init__()
        self.smallest = smallest
        self.counts: collections.Counter[str] = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        tensors = [
            t for t in (*args, *(result if isinstance(result, list) else [result])) if isinstance(t, torch.Tensor)
        ]
        if any(t.numel() >= self.smallest and t.dim() == 4 for t in tensors):
            self.counts[func.overloadpacket._qualified_op_name.split("::")[1]] += 1
        return result


def test_nothing_but_convolutions_and_what_follows_them_reads_maps():
    generator = DFMGANGenerator(resolution=64, channel_base=4096, residual_resolution=32).to("meta").eval()
    generator.set_mixed_precision(torch.float16, 5)
    latents = torch.empty(2, 8, 512, device="meta")
    with torch.no_grad(), hold_weights(generator):
        generator(*latents, noise_mode="const")
        with Counts(smallest=8 * 64 * 16) as counts:
            output = generator(*latents, noise_mode="const", return_defect_free=True)
    assert [tuple(t.shape) for t in output.to_tuple()] == [(8, 3, 64, 64), (8, 1, 64, 64), (8, 3, 64, 64)]
    views = {"slice", "transpose", "view"}
    assert {name: count for name, count in counts.counts.items() if name not in views} == {
        # Four blocks above 4x4 have two convolutions, and so have two residual blocks; the twins are in the same maps.
        "convolution": 1 + 4 * 2 + 2 * 2,
        "filtered_epilogue": 4 + 2,
        "pointwise_epilogue": 5,
        # The learned constant times its style, in half precision.
        "mul": 1,
        "_to_copy": 1,
    }


def test_kernels_that_do_not_run_are_left_out_with_a_warning(monkeypatch):
    """As on a machine without a C compiler."""
    x = torch.randn(1, 8, 6, 6)
    plain = fir_filter2d(x, padding=1)
    monkeypatch.setattr(operators, "kernels_run", operators.kernels_run.__wrapped__)
    with pytest.warns(UserWarning, match="Triton's kernels do not run here"):
        assert not operators.kernels_run()
    assert torch.equal(fir_filter2d(x, padding=1), plain)
