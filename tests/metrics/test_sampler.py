"""Folders, tensors, rows of a data set and samplers are measured alike."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf.data import DataError, load_mvtec_ad
from dfmgan_hf.export.generate import DrawConfig, generate_dataset
from dfmgan_hf.export.generate import draw as draw_to_folder
from dfmgan_hf.export.writers import ExportConfig, make_writer
from dfmgan_hf.metrics import EvaluationConfig, FolderSampler, Networks, PipelineSampler, TensorSampler, draw, evaluate
from dfmgan_hf.metrics.networks import LPIPS
from dfmgan_hf.metrics.sampler import as_pair, as_real, as_sampler
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.stylegan2 import StyleGAN2Generator
from dfmgan_hf.pipeline import DFMGANPipeline
from tests.metrics.drawn import Fresh, dataset, draw_images, draw_masks

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


def test_of_what_draw_wrote_the_images_with_defects_are_taken(pipe: DFMGANPipeline, tmp_path: Path):
    pipe.save_pretrained(tmp_path / "model")
    draw_to_folder(DrawConfig(str(tmp_path / "model"), tmp_path / "drawn", num_images=3, first_seed=7, device="cpu"))
    sampler = FolderSampler(tmp_path / "drawn")
    assert [record.image_path.name for record in sampler.records] == [f"{seed:05d}_defect.png" for seed in (7, 8, 9)]
    images, masks = draw(sampler, range(3), seed=0)
    expected, expected_masks = draw(PipelineSampler(pipe), range(3), seed=7)
    assert torch.equal(images, expected)
    assert masks is not None
    assert expected_masks is not None
    assert torch.equal(masks, expected_masks)


def test_twins_of_what_draw_wrote(pipe: DFMGANPipeline, tmp_path: Path):
    pipe.save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    DFMGANPipeline(StyleGAN2Generator(**SIZES).eval()).save_pretrained(tmp_path / "backbone")
    for name in ("model", "backbone"):
        draw_to_folder(DrawConfig(str(tmp_path / name), tmp_path / f"{name}_drawn", num_images=2, device="cpu"))
    twins = ["00000_defect_free.png", "00001_defect_free.png"]
    sampler = FolderSampler(tmp_path / "model_drawn", defect_free=True)
    assert [record.image_path.name for record in sampler.records] == twins
    images, masks = draw(sampler, range(2), seed=0)
    assert masks is None
    assert torch.equal(images, draw(PipelineSampler(pipe, defect_free=True), range(2), seed=0)[0])
    # A model without masks calls all that it draws so, defects too.
    for defect_free in (False, True):
        sampler = FolderSampler(tmp_path / "backbone_drawn", defect_free=defect_free)
        assert [record.image_path.name for record in sampler.records] == twins
    for name in twins:
        (tmp_path / "model_drawn" / name).unlink()
    with pytest.raises(DataError, match=r"00000_defect\.png, and no defect-free ones"):
        FolderSampler(tmp_path / "model_drawn", defect_free=True)


@pytest.mark.parametrize("layout", ["mvtec", "imagefolder", "coco", "yolo"])
def test_twins_of_what_generate_wrote(pipe: DFMGANPipeline, tmp_path: Path, layout: str):
    config = ExportConfig(tmp_path / "out", num_images=3, format=layout)
    generate_dataset(pipe, config, model_name="tiny")
    twins = [Image.open(io.BytesIO(sample.defect_free)) for sample in make_writer(config).read(3)]
    images, masks = draw(FolderSampler(tmp_path / "out", defect_free=True), range(3), seed=0)
    assert masks is None
    assert torch.equal(images, torch.stack([torch.from_numpy(np.array(twin)).permute(2, 0, 1) for twin in twins]))


def test_a_data_set_without_good_photographs_has_no_twins(tmp_path: Path):
    save_images(tmp_path / "nut" / "test" / "hole", draw_images(1))
    save_images(tmp_path / "nut" / "ground_truth" / "hole", draw_masks(1), "_mask")
    with pytest.raises(DataError, match=r"images of hole\. Expected .* 'good'\. Leave --defect_free out"):
        FolderSampler(tmp_path / "nut", defect_free=True)


def test_folder_of_raw_values_is_read_with_its_bit_depth(tmp_path: Path):
    Image.fromarray(np.full((32, 32), 2048, dtype=np.uint16)).save(tmp_path / "raw.png")
    assert draw(FolderSampler(tmp_path, bit_depth=12), [0], seed=0)[0].unique().tolist() == [128]
    assert draw(FolderSampler(tmp_path), [0], seed=0)[0].unique().tolist() == [8]


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
    assert sampler.resolution == (32, 32)
    with pytest.raises(DataError, match=r"000\.png: an image of 48x48 pixels. Expected 256x256 or larger"):
        as_pair(nut, nut)
    assert as_pair(nut, nut, 40)[1].images.shape[-1] == 40
    assert as_pair(nut, nut, (20, 40))[1].images.shape[-2:] == (20, 40)


def test_images_are_not_enlarged(nut: Path, tmp_path: Path):
    rows = load_mvtec_ad(tmp_path, "nut", cache_dir=tmp_path / "cache")["test"]
    with pytest.raises(DataError, match=r"test/hole/000\.png: an image of 48x48 pixels"):
        as_real(rows, 64)


def test_other_things_are_refused():
    with pytest.raises(TypeError, match=r"`sampler` must be a Sampler, a folder or a uint8 tensor.* but is a int"):
        as_sampler(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"`real` must be an ImageMaskDataset, a folder, .* but is a dict"):
        as_real({"image": []}, 32)  # type: ignore[arg-type]
