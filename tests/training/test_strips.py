"""Bars that are four times as wide as high, from photographs to both stages, samples, measures and paintings."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf import DFMGANPipeline, StyleGAN2Discriminator, painting
from dfmgan_hf.cli import main
from dfmgan_hf.hub.cards import CardFacts, build_model_card
from tests.data.conftest import save
from tests.training import tiny

HEIGHT, WIDTH = 32, 128
RUN = [
    *("--log_every_kimg=0.008", "--sample_every_kimg=0", "--checkpoint_every_kimg=0.008", "--report_to=none"),
    *("--batch_size=4", "--precision=float32", "--augmentation=bgc"),
]
SIZES = [f"--{name}={value}" for name, value in {**tiny.SIZES, "z_dim": 16, "w_dim": 16, "image_channels": 1}.items()]


def strip(i: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A brushed bar with a dark end."""
    y, x = np.mgrid[:height, :width]
    bar = 130 + 20 * np.sin(y / 2 + i) + np.random.default_rng(i).normal(0, 4, (height, width))
    return np.where(x < width // 8, bar - 60, bar).round().astype(np.uint8)


def call(*arguments: object, status: int = 0) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    assert ended.value.code == status


@pytest.fixture(scope="module")
def bars(tmp_path_factory) -> Path:
    """Good ones of twice the size, and four with a spot towards the right end."""
    folder = tmp_path_factory.mktemp("data") / "bar"
    for i in range(6):
        save(strip(i, 2 * HEIGHT, 2 * WIDTH), folder / "train" / "good" / f"{i:03d}.png")
    for i in range(4):
        defect, mask = strip(10 + i), np.zeros((HEIGHT, WIDTH), dtype=np.uint8)
        mask[10:18, 80 + 8 * i : 90 + 8 * i] = 255
        save(np.where(mask > 0, 240, defect).astype(np.uint8), folder / "test" / "spot" / f"{i:03d}.png")
        save(mask, folder / "ground_truth" / "spot" / f"{i:03d}_mask.png")
    return folder


@pytest.fixture(scope="module")
def models(bars, tmp_path_factory) -> tuple[Path, Path]:
    """Stage 1, stopped and resumed, and stage 2 on it."""
    root = tmp_path_factory.mktemp("models")
    stage1 = ["train", "stage1", "--data_dir", bars, "--output_dir", root / "stage1", *RUN, *SIZES]
    call(*stage1, "--aspect", "1", "4", "--total_kimg=0.008")
    call(*stage1, "--aspect", "1", "4", "--total_kimg=0.016", "--resume_from_checkpoint=latest")
    stage2 = ["train", "stage2", "--data_dir", bars, "--output_dir", root / "stage2", *RUN]
    call(*stage2, "--pretrained_backbone", root / "stage1", "--total_kimg=0.016", "--given_masks=0.5")
    return root / "stage1", root / "stage2"


def test_both_stages_learn_and_draw_the_shape(models):
    for folder, total in zip(models, (16, 16), strict=True):
        record = json.loads((folder / "training_config.json").read_text())
        assert record["recipe"]["aspect"] == [1, 4]
        assert record["result"]["images_seen"] == total
        pipe = DFMGANPipeline.from_pretrained(str(folder))
        pipe.set_progress_bar_config(disable=True)
        output = pipe(seeds=[1])
        assert output.defect_free_images[0].size == (WIDTH, HEIGHT)
    assert output.masks[0].size == output.images[0].size == (WIDTH, HEIGHT)
    for name, channels in (("discriminator", 1), ("match_discriminator", 2)):
        network = StyleGAN2Discriminator.from_pretrained(models[1], subfolder=name)
        assert (network.config["aspect"], network.config["image_channels"]) == ([1, 4], channels)
    assert "128x32 pixels" in build_model_card(models[1], CardFacts()).text
    call("train", "stage2", "--pretrained_backbone", models[0], "--aspect", "4", "1", "--output_dir=x", status=2)


def test_they_are_written_and_measured(models, bars, tmp_path, capsys):
    call("generate", "--model", models[1], "--output_dir", tmp_path / "drawn", "--num_images=4")
    written = [path for path in (tmp_path / "drawn").rglob("*.png") if path.stem != "contact_sheet"]
    assert written
    assert {Image.open(path).size for path in written} == {(WIDTH, HEIGHT)}
    measured = ["evaluate", "--data_dir", bars, "--defect", "spot", "--metrics", "masks", "--num_images=4"]
    call(*measured, "--model", models[1], "--output_dir", tmp_path / "measured")
    results = json.loads((tmp_path / "measured" / "results.json").read_text())
    assert results["settings"]["resolution"] == [HEIGHT, WIDTH]
    assert "128x32" in capsys.readouterr().out
    folder = ["--generated", tmp_path / "drawn" / "object" / "test" / "defect", "--resolution", HEIGHT]
    folder += ["--generated_masks", tmp_path / "drawn" / "object" / "ground_truth" / "defect"]
    call(*measured, *folder, "--output_dir", tmp_path / "folder")
    results = json.loads((tmp_path / "folder" / "results.json").read_text())
    assert results["settings"]["resolution"] == [HEIGHT, WIDTH]
    call(*measured, "--model", models[1], "--aspect", "1", "2", status=2)
    assert "ask for 64x32 images, but the model draws 128x32" in capsys.readouterr().err


def test_methods_without_training_draw_the_shape_that_is_asked_for(bars, tmp_path):
    pasted = ["sample", "--method=crop_paste", "--data_dir", bars, "--num_images=1", "--resolution", HEIGHT]
    call(*pasted, "--aspect", "1", "4", "--output_dir", tmp_path / "pasted")
    assert Image.open(tmp_path / "pasted" / "000000.png").size == (WIDTH, HEIGHT)


@pytest.mark.parametrize(("shape", "window", "shown"), [((40, 200), 0, (200, 40)), ((100, 300), 40, (160, 40))])
def test_they_are_painted_into_photographs(models, tmp_path, monkeypatch, shape, window, shown):
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(painting, "NUM_TWINS", 4)
    pipe = DFMGANPipeline.from_pretrained(str(models[1]))
    pipe.set_progress_bar_config(disable=True)
    photograph = strip(3, *shape)
    mask = np.zeros(shape, dtype=np.uint8)
    mask[10:22, 120:150] = 255
    output = pipe.paint(photograph, mask=mask, seeds=[0], window=window, any_product=True, strength=4, grain=False)
    (placement,) = output.placements[0]
    left, top, right, bottom = placement.window
    assert (right - left, bottom - top) == shown
    label = np.asarray(output.labels[0]) > 0
    assert label.any()
    assert not label[mask == 0].any()
    assert np.array_equal(output.images[0][~label], photograph[~label])
