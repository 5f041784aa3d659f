"""The measure of painting: its windows, how photographs and masks are read, and what is measured by size."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from benchmarks import painting as benchmark
from dfmgan_hf import DFMGANPipeline, painting
from dfmgan_hf.data import DataConfig

CHANGED = ("iou_mean", "iou_at_least_0.8", "nothing_visible")


@pytest.fixture
def judged(make_generator, tmp_path, monkeypatch):
    """What is compared, once it has been; beside a folder `model`, whose images are four times as wide as high."""
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(painting, "NUM_TWINS", 4)
    DFMGANPipeline(make_generator(aspect=(1, 4), image_channels=1)).save_pretrained(tmp_path / "model")
    found = {}

    def judge(config, real, arms):
        found.update(real=real, **arms)
        none = dict.fromkeys(("auroc_efficientnet-lite0", "auroc_alexnet"), (0.5, 0.4, 0.6))
        none |= {f"kid_{name}": 0.0 for name in ("efficientnet-lite0", "alexnet")}
        none |= {f"kid_interval_{name}": (0.0, 0.0) for name in ("efficientnet-lite0", "alexnet")}
        rows = {name: {"num": 1, **none} for name in arms}
        return {"num_real": len(real.pixels), "arms": rows, "by_size": {"smaller": rows["painted"]}}

    monkeypatch.setattr(benchmark, "_judge", judge)
    return found


@pytest.mark.parametrize(("window", "shape"), [(0, (40, 160)), (32, (32, 128))])
def test_windows_have_the_shape_of_the_models_images(judged, tmp_path, window, shape):
    rng, bar = np.random.default_rng(0), tmp_path / "bar"
    for name in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (bar / name).mkdir(parents=True)
        for i in range(3):
            pixels, file = rng.integers(90, 110, (40, 500)), f"{i}.png"
            if name == "ground_truth/spot":
                pixels, file = np.zeros_like(pixels), f"{i}_mask.png"
                pixels[12:20, 20 + 200 * i : 30 + 200 * i] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(bar / name / file)
    benchmark.measure(
        benchmark.PaintingBenchmark(
            str(tmp_path / "model"), DataConfig(bar), "spot", tmp_path / "out", window=window, placements=1
        )
    )
    assert set(judged) == {"real", *benchmark.ARMS}
    for windows in judged.values():
        assert {pixels.shape for pixels in windows.pixels} == {(*shape, 1)}
        assert {mask.shape for mask in windows.masks} == {shape}
        assert benchmark.ring_only(windows).shape[1:] == (3, 128, 512)


@pytest.mark.parametrize(
    ("window", "listed", "message"), [(8, None, "No window holds"), (0, "test/spot/9.png", "names 0 of the 2")]
)
def test_nothing_to_compare_is_said_in_words(judged, tmp_path, window, listed, message):
    bar = tmp_path / "bar"
    for name in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (bar / name).mkdir(parents=True)
        for i in range(2):
            file = f"{i}_mask.png" if name == "ground_truth/spot" else f"{i}.png"
            Image.new("L", (200, 40), 255).save(bar / name / file)
    if listed is not None:
        (tmp_path / "held_back.txt").write_text(f"{listed}\n")
    config = benchmark.PaintingBenchmark(
        str(tmp_path / "model"),
        DataConfig(bar),
        "spot",
        tmp_path / "out",
        window=window,
        held_back=None if listed is None else tmp_path / "held_back.txt",
    )
    with pytest.raises(ValueError, match=message):
        benchmark.measure(config)


@pytest.mark.parametrize("bit_depth", [8, 12])
def test_photographs_and_masks_are_read_as_for_training(judged, tmp_path, bit_depth):
    """Of several masks all are one defect, also where a place must have none, and 12 bits are as bright as 8."""
    rng, bar = np.random.default_rng(0), tmp_path / "bar"
    pairs = ((60, 120), (230, 140), (400, 420))  # left edges of both masks; the second alone is where others are laid
    photographs, unions = [], []
    for i, lefts in enumerate(pairs):
        pixels, union = rng.integers(90, 110, (40, 500)), np.zeros((40, 500), dtype=bool)
        for number, left in enumerate(lefts):
            mask = np.zeros_like(union)
            mask[12:20, left : left + 10] = True
            union |= mask
            (bar / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(bar / "ground_truth" / "spot" / f"{i}_mask_{number}.png")
        pixels[union] = 250
        for name in ("train/good", "test/good", "test/spot"):
            (bar / name).mkdir(parents=True, exist_ok=True)
            samples = (pixels << 4).astype(np.uint16) if bit_depth == 12 else pixels.astype(np.uint8)
            Image.fromarray(samples).save(bar / name / f"{i}.png")
        photographs.append(pixels)
        unions.append(union)
    data = DataConfig(bar, bit_depth=bit_depth)
    benchmark.measure(
        benchmark.PaintingBenchmark(str(tmp_path / "model"), data, "spot", tmp_path / "out", window=32, placements=6)
    )
    for i, left in enumerate((31, 126, 351)):  # half-way between both masks
        window = np.s_[0:32, left : left + 128]
        assert np.array_equal(judged["real"].masks[i], unions[i][window])
        assert np.array_equal(judged["real"].pixels[i][:, :, 0], photographs[i][window])
    places = np.stack(judged["nothing"].pixels)
    assert len(places) == 18
    assert places.min() >= 90
    assert places.max() < 110


def test_painted_defects_are_measured_by_size(tmp_path, monkeypatch):
    """Small defects are as dark as real ones, large ones dark where real ones are bright."""

    def windows(level_of_large):
        pixels, masks = [], []
        for number in range(12):
            mask = np.zeros((40, 40), dtype=bool)
            mask[10 : 13 if number < 6 else 30, 10 : 13 if number < 6 else 30] = True
            window = np.full((40, 40, 1), 100, dtype=np.uint8)
            window[mask] = 10 if number < 6 else level_of_large
            pixels.append(window + np.random.default_rng(number).integers(0, 9, window.shape, dtype=np.uint8))
            masks.append(mask)
        return benchmark.Windows(pixels, masks, list(range(12)))

    class Brightness:
        def __init__(self, *_): ...

        def __call__(self, images):
            return [images, images]

        def load_pretrained(self, *_): ...

    monkeypatch.setattr(benchmark, "FrozenFeatures", Brightness)
    monkeypatch.setattr(
        benchmark, "alexnet_extractor", lambda _: lambda x: SimpleNamespace(features=x.float().mean((2, 3)))
    )
    config = benchmark.PaintingBenchmark("", DataConfig(tmp_path), "spot", tmp_path)
    arms = {"painted": windows(10), "nothing": windows(200)}
    results = benchmark._judge(config, windows(200), arms)
    smaller, larger = results["by_size"]["smaller"], results["by_size"]["larger"]
    assert smaller["num"] == larger["num"] == 6
    for network in ("alexnet", "efficientnet-lite0"):
        assert abs(smaller[f"kid_{network}"]) < 1 < larger[f"kid_{network}"]
    table = benchmark.format_results(results | {"changed": dict.fromkeys(CHANGED, 1.0)})
    assert "masks smaller than the median (6)" in table
    assert "masks larger than the median (6)" in table
