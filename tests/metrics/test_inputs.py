"""Folders, tensors, rows of a data set and samplers are measured alike."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from dfmgan_hf.data import DataError, load_mvtec_ad
from dfmgan_hf.metrics import (
    EvaluationConfig,
    FolderSampler,
    Networks,
    TensorSampler,
    as_pair,
    as_real,
    as_sampler,
    evaluate,
)
from dfmgan_hf.metrics.networks import LPIPS
from tests.metrics.drawn import Fresh, dataset, draw_images, draw_masks
from tests.metrics.test_sampler import save_images


@pytest.fixture
def nut(tmp_path: Path) -> Path:
    """The category `nut` with photographs of 48x48 pixels."""
    save_images(tmp_path / "nut" / "train" / "good", draw_images(2, seed=3, size=48))
    save_images(tmp_path / "nut" / "test" / "hole", draw_images(4, seed=4, size=48))
    save_images(tmp_path / "nut" / "ground_truth" / "hole", draw_masks(4, size=48), "_mask")
    return tmp_path / "nut"


def test_what_the_real_images_come_in_changes_no_number(nut: Path, tmp_path: Path, lpips_net: LPIPS):
    rows = load_mvtec_ad(tmp_path, "nut", cache_dir=tmp_path / "cache")["test"]
    folder = as_real(nut, 32)
    save_images(tmp_path / "drawn", draw_images(6, seed=9))
    config = EvaluationConfig(metrics=("nearest", "clustered_lpips"), num_lpips_images=6)
    results = [
        evaluate(samples, real, Networks(lpips=lpips_net), config, progress=False, resolution=resolution)
        for samples, real, resolution in (
            (TensorSampler(draw_images(6, seed=9)), folder, None),
            (draw_images(6, seed=9), nut, None),
            (draw_images(6, seed=9), rows, None),
            (tmp_path / "drawn", folder.images, None),
            (str(tmp_path / "drawn"), str(nut), 32),
        )
    ]
    assert all(result.metrics == results[0].metrics for result in results)
    assert {result.settings["real_sha256"] for result in results} == {results[0].settings["real_sha256"]}
    assert results[4].settings["sampler"]["folder"] == "drawn"
    for result in results[:3]:
        assert result.settings["real_file_names"] == [f"test/hole/{i:03d}.png" for i in range(4)]


def test_masks_of_folders_and_rows_are_read(nut: Path, tmp_path: Path):
    rows = load_mvtec_ad(tmp_path, "nut", cache_dir=tmp_path / "cache")
    for real in (nut, rows["test"]):
        masks = as_real(real, 48).masks
        assert masks is not None
        assert torch.equal(masks, draw_masks(4, size=48))
    assert as_real(rows["train"], 48).masks is None


def test_the_size_is_that_of_the_side_that_does_not_come_from_files(nut: Path):
    for samples in (Fresh(), draw_images(3)):
        sampler, real = as_pair(samples, nut)
        assert real.images.shape == (4, 3, 32, 32)
    sampler, real = as_pair(nut, dataset(draw_images(2)))
    assert isinstance(sampler, FolderSampler)
    assert sampler.resolution == 32
    with pytest.raises(DataError, match=r"000\.png: an image of 48x48 pixels. Expected 256x256 or larger"):
        as_pair(nut, nut)
    assert as_pair(nut, nut, 40)[1].images.shape[-1] == 40


def test_images_are_not_enlarged(nut: Path, tmp_path: Path):
    rows = load_mvtec_ad(tmp_path, "nut", cache_dir=tmp_path / "cache")["test"]
    with pytest.raises(DataError, match=r"test/hole/000\.png: an image of 48x48 pixels"):
        as_real(rows, 64)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match=r"`sampler` must be a Sampler, a folder or a uint8 tensor.* but is a int"):
        as_sampler(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`real` must be an ImageMaskDataset, a folder, .* but is a dict"):
        as_real({"image": []}, 32)  # type: ignore[arg-type]
