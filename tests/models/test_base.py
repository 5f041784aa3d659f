"""Weights come from safetensors; a pickle is refused by name before anything opens it."""

import os

import pytest
import torch
from diffusers import DiffusionPipeline

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline
from dfmgan_hf.models.base import PICKLE_SUFFIXES, PickledWeightsError

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(make_generator, tmp_path):
    DFMGANPipeline(make_generator()).save_pretrained(tmp_path)
    return tmp_path


@pytest.mark.parametrize("suffix", PICKLE_SUFFIXES)
def test_a_network_beside_a_pickle_is_not_loaded(folder, suffix):
    (folder / "generator" / f"network{suffix}").write_bytes(b"harm")
    with pytest.raises(PickledWeightsError, match=rf"holds pickles \(network\{suffix}\).*Expected weights as"):
        DFMGANGenerator.from_pretrained(folder, subfolder="generator")


@pytest.mark.parametrize("loader", [DFMGANPipeline, DiffusionPipeline])
def test_pickled_weights_are_not_loaded(folder, loader):
    """diffusers alone would fall back to them."""
    weights = folder / "generator" / WEIGHTS
    torch.save(DFMGANGenerator.from_pretrained(folder / "generator").state_dict(), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(PickledWeightsError, match=r"diffusion_pytorch_model.bin"):
        loader.from_pretrained(str(folder))


def test_a_pipeline_beside_a_pickle_is_not_loaded(folder):
    (folder / "network-snapshot.pkl").write_bytes(b"harm")
    with pytest.raises(PickledWeightsError, match=r"network-snapshot.pkl"):
        DFMGANPipeline.from_pretrained(folder)


def test_nobody_can_ask_for_pickles(folder, make_generator):
    for load in (
        lambda: DFMGANPipeline.from_pretrained(folder, use_safetensors=False),
        lambda: DFMGANGenerator.from_pretrained(folder / "generator", use_safetensors=False),
        lambda: DFMGANPipeline(make_generator()).save_pretrained(folder, safe_serialization=False),
    ):
        with pytest.raises(ValueError, match=r"must be True: weights in other formats are pickles"):
            load()


def test_missing_weights_are_named(folder):
    (folder / "generator" / WEIGHTS).unlink()
    with pytest.raises(OSError, match=WEIGHTS):
        DFMGANPipeline.from_pretrained(folder)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no modes")
def test_weights_are_as_readable_as_the_umask_says(make_generator, tmp_path):
    before = os.umask(0o022)
    try:
        DFMGANPipeline(make_generator()).save_pretrained(tmp_path, max_shard_size="20KB")
    finally:
        os.umask(before)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 3
    assert {path.stat().st_mode & 0o777 for path in files} == {0o644}
