from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf.data import DataError
from dfmgan_hf.metrics import FolderSampler, PipelineSampler, TensorSampler, draw
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.stylegan2 import StyleGAN2Generator
from dfmgan_hf.pipeline import DFMGANPipeline
from tests.metrics.drawn import draw_images, draw_masks

SIZES = {"resolution": 32, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 8}


@pytest.fixture(scope="module")
def pipe() -> DFMGANPipeline:
    torch.manual_seed(0)
    generator = DFMGANGenerator(**SIZES, residual_resolution=16)
    return DFMGANPipeline(generator.eval())


def save_images(folder: Path, images: torch.Tensor, suffix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        array = image.permute(1, 2, 0).numpy()
        Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array).save(folder / f"{i:03d}{suffix}.png")


def test_pipeline_images_depend_on_seed_and_number_only(pipe: DFMGANPipeline):
    for options in ({}, {"noise_mode": "random"}, {"defect_free": True}):
        sampler = PipelineSampler(pipe, **options)
        images, masks = draw(sampler, range(5), seed=3)
        assert images.shape == (5, 3, 32, 32)
        apart = [draw(sampler, [i], seed=3) for i in range(5)]
        # Convolutions of other batch sizes may round differently in the last of 8 bits.
        difference = (torch.cat([image for image, _ in apart]).int() - images.int()).abs()
        assert difference.max() <= 1
        assert (masks is None) == ("defect_free" in options)
        if masks is not None:
            assert set(masks.unique().tolist()) <= {0, 255}


def test_pipeline_sampler_draws_what_the_pipeline_draws(pipe: DFMGANPipeline):
    images, masks = PipelineSampler(pipe).sample_at([1, 2], seed=7)
    output = pipe(seeds=[8, 9], output_type="pil")
    assert torch.equal(images, torch.stack([torch.from_numpy(np.array(i)).permute(2, 0, 1) for i in output.images]))
    assert masks is not None
    assert torch.equal(masks[:, 0], torch.stack([torch.from_numpy(np.array(m)) for m in output.masks]))


def test_a_backbone_alone_has_no_masks():
    torch.manual_seed(0)
    pipe = DFMGANPipeline(StyleGAN2Generator(**SIZES).eval())
    images, masks = draw(PipelineSampler(pipe), [0, 1], seed=0)
    assert images.shape == (2, 3, 32, 32)
    assert masks is None


def test_the_pipelines_progress_bar_is_left_as_it_was(pipe: DFMGANPipeline, capfd: pytest.CaptureFixture[str]):
    pipe.set_progress_bar_config(desc="Mine")
    PipelineSampler(pipe).sample_at([0], seed=0)
    assert "Mine" not in capfd.readouterr().err
    assert pipe._progress_bar_config == {"desc": "Mine"}
    pipe.set_progress_bar_config()


def test_folder_gives_its_images_in_order(tmp_path: Path):
    images = draw_images(5)
    save_images(tmp_path, images)
    sampler = FolderSampler(tmp_path)
    assert len(sampler) == 5
    drawn, masks = draw(sampler, [3, 0], seed=99)
    assert masks is None
    assert torch.equal(drawn, images[[3, 0]])


def test_masks_beside_the_images_in_a_folder_of_their_own_and_in_the_mvtec_layout(tmp_path: Path):
    images, masks = draw_images(4), draw_masks(4)
    masks[2] = 0  # A generated mask may be empty, and must be seen to be.
    save_images(tmp_path / "beside", images)
    save_images(tmp_path / "beside", masks, "_mask")
    save_images(tmp_path / "apart" / "images", images)
    save_images(tmp_path / "apart" / "masks", masks)
    save_images(tmp_path / "nut" / "test" / "hole", images)
    save_images(tmp_path / "nut" / "ground_truth" / "hole", masks, "_mask")
    save_images(tmp_path / "nut" / "train" / "good", images)
    for sampler in (
        FolderSampler(tmp_path / "beside"),
        FolderSampler(tmp_path / "apart" / "images", tmp_path / "apart" / "masks"),
        FolderSampler(tmp_path / "nut"),
        FolderSampler(tmp_path / "nut", defect="hole"),
    ):
        drawn, drawn_masks = draw(sampler, range(4), seed=0)
        assert torch.equal(drawn, images)
        assert drawn_masks is not None
        assert torch.equal(drawn_masks, masks)


def test_folder_scales_down_but_not_up(tmp_path: Path):
    save_images(tmp_path, draw_images(2, size=64))
    images, _ = draw(FolderSampler(tmp_path, resolution=32), [0, 1], seed=0)
    assert images.shape == (2, 3, 32, 32)
    with pytest.raises(DataError, match=r"000\.png.*--resolution"):
        draw(FolderSampler(tmp_path, resolution=128), [0], seed=0)


def test_folder_errors_name_file_and_remedy(tmp_path: Path):
    with pytest.raises(DataError, match="no such folder"):
        FolderSampler(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty"):
        FolderSampler(tmp_path / "empty")
    save_images(tmp_path / "sizes", draw_images(1))
    save_images(tmp_path / "sizes", draw_images(1, size=64), "b")
    with pytest.raises(DataError, match="2 sizes"):
        draw(FolderSampler(tmp_path / "sizes"), [0, 1], seed=0)
    save_images(tmp_path / "nut" / "test" / "hole", draw_images(1))
    save_images(tmp_path / "nut" / "ground_truth" / "hole", draw_masks(1, size=64), "_mask")
    save_images(tmp_path / "nut" / "test" / "cut", draw_images(1))
    save_images(tmp_path / "nut" / "ground_truth" / "cut", draw_masks(1), "_mask")
    save_images(tmp_path / "nut" / "train" / "good", draw_images(1))
    with pytest.raises(DataError, match="--defect"):
        FolderSampler(tmp_path / "nut")
    with pytest.raises(DataError, match=r"cut, hole.*'dent'"):
        FolderSampler(tmp_path / "nut", defect="dent")
    with pytest.raises(DataError, match=r"000_mask\.png: a mask of 64x64"):
        draw(FolderSampler(tmp_path / "nut", defect="hole"), [0], seed=0)


def test_samplers_that_break_the_contract_are_named():
    class Floats:
        def sample_at(self, indices, seed: int):
            return torch.rand(len(indices), 3, 8, 8), None

    class OddMasks:
        def sample_at(self, indices, seed: int):
            n = len(indices)
            return torch.zeros(n, 3, 8, 8, dtype=torch.uint8), torch.zeros(n, 1, 4, 4, dtype=torch.uint8)

    with pytest.raises(ValueError, match="Floats must give 2 images"):
        draw(Floats(), [0, 1], seed=0)
    with pytest.raises(ValueError, match="OddMasks must give masks"):
        draw(OddMasks(), [0, 1], seed=0)
    with pytest.raises(ValueError, match="TensorSampler"):
        TensorSampler(torch.zeros(2, 3, 8, 8))
