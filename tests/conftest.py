"""Fixtures that several folders of tests share."""

import os

# The tests' networks are tiny: a second thread would wait more than it works. Set before torch reads it, and inherited
# by the processes that some tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable

import pytest
import torch

from dfmgan_hf import DFMGANGenerator, StyleGAN2Generator
from tests import meta

TINY_SIZES = {"resolution": 32, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 8}


def _as_if_trained(model: StyleGAN2Generator) -> StyleGAN2Generator:
    """Values that training would move away from their start: noise strengths, w_avg, biases."""
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(("noise_strength", "w_avg", "conv0.bias", "conv1.bias")):
                tensor.normal_(std=0.3)
    return model.eval()


@pytest.fixture
def meta_stands_for_gpu(monkeypatch) -> None:
    monkeypatch.setattr(torch, "Generator", meta.Generator)
    monkeypatch.setattr(torch, "autocast", meta.Autocast)


@pytest.fixture
def make_backbone() -> Callable[..., StyleGAN2Generator]:
    """Makes a tiny stage-1 generator, the same one every time; keyword arguments override its configuration."""

    def make(**config) -> StyleGAN2Generator:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return _as_if_trained(StyleGAN2Generator(**{**TINY_SIZES, **config}))

    return make


@pytest.fixture
def make_generator() -> Callable[..., DFMGANGenerator]:
    """Makes a tiny DFMGAN generator, the same one every time; keyword arguments override its configuration."""

    def make(**config) -> DFMGANGenerator:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = DFMGANGenerator(**{**TINY_SIZES, "residual_resolution": 16, **config})
            _as_if_trained(model)
            return model

    return make
