"""The measure of painting on windows that are not square."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from benchmarks import painting as benchmark
from dfmgan_hf import DFMGANPipeline, painting
from dfmgan_hf.data import DataConfig


@pytest.mark.parametrize(("window", "shape"), [(0, (40, 160)), (32, (32, 128))])
def test_windows_have_the_shape_of_the_models_images(make_generator, tmp_path, monkeypatch, window, shape):
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path))
    monkeypatch.setattr(painting, "NUM_TWINS", 4)
    DFMGANPipeline(make_generator(aspect=(1, 4), image_channels=1)).save_pretrained(tmp_path / "model")
    rng, bar = np.random.default_rng(0), tmp_path / "bar"
    for name in ("train/good", "test/good", "test/spot", "ground_truth/spot"):
        (bar / name).mkdir(parents=True)
        for i in range(3):
            pixels, file = rng.integers(90, 110, (40, 500)), f"{i}.png"
            if name == "ground_truth/spot":
                pixels, file = np.zeros_like(pixels), f"{i}_mask.png"
                pixels[12:20, 20 + 200 * i : 30 + 200 * i] = 255
            Image.fromarray(pixels.astype(np.uint8)).save(bar / name / file)
    judged = {}

    def judge(config, real, arms):
        judged.update(real=real, **arms)
        none = dict.fromkeys(("auroc_efficientnet-lite0", "auroc_alexnet"), (0.5, 0.4, 0.6))
        none |= {f"kid_{name}": 0.0 for name in ("efficientnet-lite0", "alexnet")}
        none |= {f"kid_interval_{name}": (0.0, 0.0) for name in ("efficientnet-lite0", "alexnet")}
        return {"num_real": len(real.pixels), "arms": {name: {"num": 1, **none} for name in arms}}

    monkeypatch.setattr(benchmark, "_judge", judge)
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
