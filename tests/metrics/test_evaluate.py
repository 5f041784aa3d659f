from __future__ import annotations

import dataclasses
import importlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf.files import write_json
from dfmgan_hf.metrics import (
    DEFAULT_METRICS,
    EvaluationConfig,
    FeatureExtractor,
    Networks,
    TensorSampler,
    clustered_lpips,
    evaluate,
    format_table,
    kid_unbiased,
    lpips_distances,
    nearest_real,
    quick_score,
    save_evaluation,
    to_dict,
)
from dfmgan_hf.metrics.evaluate import nearest_sheet
from dfmgan_hf.metrics.networks import LPIPS
from dfmgan_hf.sheets import OUTLINE, outlined, to_pictures
from tests.metrics.drawn import Fresh, dataset, draw_images, draw_masks, tiny_extractor

SMALL = EvaluationConfig(num_images=40, num_lpips_images=25, inception_splits=4, num_bootstrap=50, batch_size=8)


@pytest.fixture(scope="module")
def networks(lpips_net: LPIPS) -> Networks:
    return Networks(tiny_extractor(), lpips_net)


def test_every_default_metric_is_measured(networks: Networks):
    real = dataset(draw_images(6, seed=100), draw_masks(6))
    result = evaluate(Fresh(), real, networks, SMALL, progress=False)
    assert set(result.metrics) == set(DEFAULT_METRICS)
    assert not result.not_measured
    assert result.settings["num_generated"] == 40
    assert result.settings["num_generated_lpips"] == 25
    assert result.settings["unique_share"] == 1
    assert result.metrics["kid"]["features"] == "tiny"
    assert result.metrics["kid"]["subsets"]["subset_size"] == 6
    assert result.nearest is not None
    assert result.nearest.images.shape == (25, 3, 32, 32)


def test_masks_are_measured_only_where_they_are_asked_for(networks: Networks, monkeypatch):
    monkeypatch.setattr(importlib.import_module("dfmgan_hf.metrics.evaluate"), "_mask_areas", None)
    config = dataclasses.replace(SMALL, metrics=("nearest",))
    assert set(evaluate(Fresh(), dataset(draw_images(6)), networks, config, progress=False).metrics) == {"nearest"}


def test_values_are_those_of_the_single_functions(networks: Networks, lpips_net: LPIPS):
    images, real = draw_images(30, seed=1), dataset(draw_images(6, seed=100))
    config = dataclasses.replace(SMALL, max_cluster_size=3)
    result = evaluate(TensorSampler(images), real, networks, config, progress=False)
    kept = images[:25]
    tables = lpips_distances(lpips_net, kept, real.images), lpips_distances(lpips_net, kept)
    expected = clustered_lpips(*tables, max_cluster_size=3)
    assert max(expected.cluster_sizes) > 3
    assert result.metrics["clustered_lpips"]["cluster_values"] == pytest.approx(expected.cluster_values, abs=1e-6)
    nearest = nearest_real(lpips_distances(lpips_net, kept, real.images), lpips_distances(lpips_net, real.images))
    assert result.metrics["nearest"]["median"] == pytest.approx(nearest.median, abs=1e-6)
    generated, others = (tiny_extractor()(some).features for some in (images, real.images))
    assert result.metrics["kid"]["kid"] == pytest.approx(kid_unbiased(generated, others).kid, rel=1e-5)


def test_identical_sets_score_as_copies(networks: Networks):
    images, masks = draw_images(20), draw_masks(20)
    result = evaluate(TensorSampler(images, masks), dataset(images, masks), networks, SMALL, progress=False).metrics
    assert result["fid"]["fid"] == pytest.approx(0, abs=1e-6)
    assert result["kid"]["kid"] < 0  # The unbiased estimate leaves the pairs of equal images out on one side only.
    assert result["nearest"]["copy_rate"] == 1
    assert result["clustered_lpips"]["clustered_lpips"] == 0
    assert result["clustered_lpips"]["num_single"] == 20
    assert result["masks"]["generated"] == result["masks"]["real"]
    assert result["precision_recall"]["precision"] == result["precision_recall"]["recall"] == 1


def test_empty_and_large_masks_are_counted(networks: Networks):
    images, masks = draw_images(4), torch.zeros(4, 1, 32, 32, dtype=torch.uint8)
    masks[1], masks[2, :, :8, :8] = 255, 255
    config = dataclasses.replace(SMALL, metrics=("masks",))
    result = evaluate(TensorSampler(images, masks), dataset(images), networks, config, progress=False).metrics["masks"]
    assert result == {"generated": {"num_masks": 4, "area_mean": 17 / 64, "empty_rate": 0.5, "large_rate": 0.25}}


def test_shifted_sets_are_worse_than_equal_ones(networks: Networks):
    real = dataset(draw_images(40, seed=100))
    near = evaluate(TensorSampler(draw_images(40, seed=1)), real, networks, SMALL, progress=False).metrics
    far = evaluate(TensorSampler(draw_images(40, seed=1, shift=0.8)), real, networks, SMALL, progress=False).metrics
    assert far["kid"]["kid"] > 10 * abs(near["kid"]["kid"])
    assert far["kid"]["unbiased"]["interval"][0] > 0 > near["kid"]["unbiased"]["interval"][0]
    assert far["fid"]["fid"] > near["fid"]["fid"]


def test_what_cannot_be_measured_is_named_with_its_reason(networks: Networks, lpips_net: LPIPS):
    result = evaluate(TensorSampler(draw_images(5)), dataset(draw_images(1, seed=9)), networks, SMALL, progress=False)
    assert set(result.metrics) == {"clustered_lpips", "nearest", "inception_score"}
    assert result.not_measured["kid"] == "KID needs 2 images of each kind, but there are 5 generated and 1 real ones"
    assert "without masks" in result.not_measured["masks"]
    assert result.metrics["nearest"]["copy_rate"] is None

    classless = Networks(FeatureExtractor(Classless(), "classless"), lpips_net)
    result = evaluate(TensorSampler(draw_images(3)), dataset(draw_images(3)), classless, SMALL, progress=False)
    assert result.not_measured["inception_score"] == "classless has no classes"
    result = evaluate(TensorSampler(draw_images(3)), dataset(draw_images(3)), networks, SMALL, progress=False)
    assert result.not_measured["inception_score"] == "3 images for 4 splits"


class Classless(torch.nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.float().mean(dim=(2, 3))


def test_duplicates_are_counted(networks: Networks):
    config = EvaluationConfig(metrics=("nearest",), num_lpips_images=12)
    sampler = TensorSampler(draw_images(4).repeat(3, 1, 1, 1))
    result = evaluate(sampler, dataset(draw_images(3, seed=5)), networks, config, progress=False)
    assert result.settings["unique_share"] == pytest.approx(4 / 12)
    assert list(result.metrics) == ["nearest"]


def test_ic_lpips_has_its_own_network(networks: Networks, lpips_net: LPIPS):
    config = EvaluationConfig(metrics=("ic_lpips",), num_lpips_images=20)
    sampler, real = TensorSampler(draw_images(20)), dataset(draw_images(3, seed=5))
    with pytest.raises(ValueError, match="lpips_vgg"):
        evaluate(sampler, real, networks, config, progress=False)
    result = evaluate(sampler, real, Networks(lpips_vgg=lpips_net), config, progress=False)
    assert 0 < result.metrics["ic_lpips"]["ic_lpips"] < math.inf
    assert result.settings["num_generated"] == 0


def test_errors_say_what_is_wrong(networks: Networks):
    real = dataset(draw_images(3))
    with pytest.raises(ValueError, match="no images"):
        evaluate(Fresh(), dataset(draw_images(0)), networks, SMALL)
    images = draw_images(3)
    for wrong in (images / 255, images.long(), images[0], images[:, :1].repeat(1, 4, 1, 1)):
        with pytest.raises(ValueError, match=r"`real` must give \d images, uint8 \(n, 3 or 1, H, W\), but gave"):
            evaluate(Fresh(), wrong, networks, SMALL, progress=False)
    with pytest.raises(ValueError, match="are 64x64, the real ones 32x32"):
        evaluate(TensorSampler(draw_images(3, size=64)), real, networks, SMALL, progress=False)
    with pytest.raises(ValueError, match=r"networks\.lpips"):
        evaluate(Fresh(), real, Networks(tiny_extractor()), SMALL)
    with pytest.raises(ValueError, match="`metrics` must be some of kid, fid"):
        EvaluationConfig(metrics=("psnr",))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="`num_images` must be at least 1"):
        EvaluationConfig(num_images=0)
    with pytest.raises(ValueError, match="`max_cluster_size` must be at least 2"):
        EvaluationConfig(max_cluster_size=1)


def test_results_are_complete_json(networks: Networks, tmp_path: Path):
    result = evaluate(TensorSampler(draw_images(5)), dataset(draw_images(3)), networks, SMALL, progress=False)
    result.metrics["clustered_lpips"]["clustered_lpips_nonempty"] = math.nan
    write_json(tmp_path / "deep" / "results.json", to_dict(result, model="some/model"))
    read = json.loads((tmp_path / "deep" / "results.json").read_text())
    assert read["model"] == "some/model"
    assert read["metrics"]["clustered_lpips"]["clustered_lpips_nonempty"] is None
    assert read["settings"]["evaluation"]["seed"] == 0
    assert read["settings"]["real_file_names"][0] == "test/hole/000.png"
    assert read["networks"]["lpips"]["name"] == "lpips-alex-v0.1"
    assert len(read["networks"]["lpips"]["weights_sha256"]) == len(read["settings"]["real_sha256"]) == 64
    assert read["networks"]["lpips"]["files"][0]["name"] == "alexnet.safetensors"
    assert {"python", "torch", "torch-fidelity", "numpy"} <= set(read["versions"])
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["results.json"]


def test_table_has_a_line_for_every_metric(networks: Networks):
    real = dataset(draw_images(6, seed=100), draw_masks(6))
    table = format_table(evaluate(Fresh(), real, networks, SMALL, progress=False))
    for text in ("40 generated (25 for LPIPS) against 6 real images, 32x32", "tiny, lpips-alex-v0.1", "KID x 1000"):
        assert text in table
    for text in ("FID", "Precision", "Recall", "Inception Score", "Clustered LPIPS", "Copies", "Mask area", "Empty"):
        assert text in table
    single = evaluate(TensorSampler(draw_images(5)), dataset(draw_images(1)), networks, SMALL, progress=False)
    assert "KID needs 2 images of each kind" in format_table(single)


def test_sheet_shows_the_nearest_pairs(networks: Networks):
    real = dataset(draw_images(6, seed=100))
    images = draw_images(20, seed=1)
    images[13] = real.images[4]
    near = evaluate(TensorSampler(images, draw_masks(20)), real, networks, SMALL, progress=False).nearest
    assert near is not None
    bare = dataclasses.replace(near, masks=None)
    pixels = np.asarray(nearest_sheet(bare, real, pairs=4))
    # The first pair of the upper half is the copy beside what it was copied from: the same picture twice.
    first = [np.asarray(outlined(picture, Image.new("L", (32, 32)), 160)) for picture in to_pictures(real.images[4:5])]
    places = [
        (y, x)
        for y in range(pixels.shape[0] // 4)
        for x in range(pixels.shape[1] // 3)
        if (pixels[y : y + 160, x : x + 160] == first[0]).all()
    ]
    assert len(places) == 2
    assert places[0][0] == places[1][0]

    noted = np.asarray(nearest_sheet(bare, real, pairs=4, note="A yardstick"))
    assert (noted[:40] != 255).sum() > (pixels[:40] != 255).sum()
    assert not (pixels == OUTLINE).all(axis=2).any()
    assert (np.asarray(nearest_sheet(near, real, pairs=4)) == OUTLINE).all(axis=2).any()


def test_saved_files(networks: Networks, tmp_path: Path):
    real = dataset(draw_images(6, seed=100))
    result = evaluate(TensorSampler(draw_images(5), draw_masks(5)), real, networks, SMALL, progress=False)
    written = save_evaluation(tmp_path / "out", result, real, model="some/model")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["nearest.png", "results.json"]
    assert written == [tmp_path / "out" / "results.json", tmp_path / "out" / "nearest.png"]
    assert json.loads(written[0].read_text())["model"] == "some/model"
    with Image.open(written[1]) as page:
        assert page.mode == "RGB"
    result.nearest = None
    assert save_evaluation(tmp_path / "bare", result, real) == [tmp_path / "bare" / "results.json"]
    assert save_evaluation(tmp_path / "out", result, real) == written[:1]
    assert not written[1].exists(), "it would stand beside numbers of other images"


def test_real_images_that_are_all_the_same_are_reported_without_copies(networks: Networks, tmp_path: Path):
    real = dataset(draw_images(1).repeat(3, 1, 1, 1))
    config = EvaluationConfig(metrics=("nearest",), num_lpips_images=4)
    result = evaluate(TensorSampler(draw_images(4, seed=1)), real, networks, config, progress=False)
    assert "Copies" not in format_table(result)
    assert len(save_evaluation(tmp_path, result, real)) == 2


def test_quick_score(networks: Networks):
    real = dataset(draw_images(6, seed=100), draw_masks(6))
    score = quick_score(Fresh(), real, networks, num_images=20, progress=False)
    assert (score["num_images"], score["num_real"], score["kid_features"]) == (20, 6, "tiny")
    assert score["kid"] is not None
    assert score["kid_interval"] is not None
    assert score["kid_interval"][0] < score["kid"] < score["kid_interval"][1]
    assert score["mask_area"] == pytest.approx(8 * 8 / 32**2)
    assert score["real_mask_area"] == score["mask_area"]
    assert score == quick_score(Fresh(), real, networks, num_images=20, progress=False)
    json.dumps(score)


def test_quick_score_of_tensors_and_of_one_real_image(networks: Networks):
    images = draw_images(10)
    score = quick_score(images, images[:1], networks, progress=False)
    assert score["kid"] is None
    assert score["mask_area"] is None
    assert score["num_images"] == 10
    assert score["clustered_lpips"] == pytest.approx(score["pairwise_lpips"])
