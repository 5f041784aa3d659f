"""What may round is switched off, and put back as it was."""

import subprocess
import sys

import pytest
import torch

from dfmgan_hf.precision import full_precision


def test_settings_are_put_back_also_after_an_error():
    def settings():
        return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, torch.is_autocast_enabled("cpu")

    torch.set_float32_matmul_precision("high")
    try:
        before = settings()
        with full_precision():
            assert settings() == ("highest", False, False)
        assert settings() == before
        try:
            with full_precision():
                raise RuntimeError("inside")
        except RuntimeError:
            pass
        assert settings() == before
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.skipif(not hasattr(torch.backends.cudnn, "conv"), reason="this torch has one interface alone")
def test_settings_of_torchs_newer_interface_are_overridden_and_put_back():
    """The older one raises then. In a process of its own, since the settings are global and cannot all be undone."""
    code = """
import torch
from dfmgan_hf.precision import convolutions_round, full_precision, matrix_products

backends = torch.backends

def settings():
    return backends.cuda.matmul.fp32_precision, backends.cudnn.conv.fp32_precision

def check(operations, precision):
    operations.fp32_precision = precision
    before = settings()
    assert convolutions_round() == (before[1] == "tf32")
    with full_precision():
        assert settings() == ("ieee", "ieee"), settings()
        with full_precision(), matrix_products(tf32=True):
            assert settings() == ("tf32", "ieee"), settings()
        assert settings() == ("ieee", "ieee"), settings()
    assert [s.replace("none", "ieee") for s in settings()] == [s.replace("none", "ieee") for s in before], settings()

for operations in (backends.cuda.matmul, backends.cudnn.conv, backends.cudnn, backends.mkldnn.matmul, backends):
    for precision in ("tf32", "ieee"):
        check(operations, precision)
"""
    subprocess.run([sys.executable, "-c", code], check=True)
