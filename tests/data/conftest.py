"""Drawn photographs and masks in every encoding that people bring, and small data sets made of them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.data import DataConfig, load_training_set


def draw_photograph(seed: int, width: int = 48, height: int = 40) -> np.ndarray:
    """A shaded, textured grey surface, uint8 (H, W)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    phase = rng.uniform(0, 6.28, size=2)
    surface = 120 + 40 * np.sin(x / 7 + phase[0]) + 30 * np.cos(y / 5 + phase[1])
    return np.clip(surface + rng.normal(0, 12, (height, width)), 0, 255).astype(np.uint8)


def draw_mask(seed: int, width: int = 48, height: int = 40) -> np.ndarray:
    """A blob, bool (H, W)."""
    rng = np.random.default_rng(seed + 1000)
    y, x = np.mgrid[0:height, 0:width]
    centre_y, centre_x = rng.uniform(0.3, 0.7, size=2) * (height, width)
    radius = rng.uniform(4, 8)
    return (y - centre_y) ** 2 + (x - centre_x) ** 2 < radius**2


def save(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)
    return path


def draw_category(
    root: Path, category: str = "plate", good: int = 6, defects: dict[str, int] | None = None, test_good: int = 2
) -> Path:
    """Writes a category in the layout of MVTec AD."""
    folder = root / category
    for index in range(good):
        save(draw_photograph(index), folder / "train" / "good" / f"{index:03d}.png")
    for index in range(test_good):
        save(draw_photograph(10_000 + index), folder / "test" / "good" / f"{index:03d}.png")
    for kind_index, (kind, count) in enumerate((defects or {"scratch": 5, "dent": 3}).items()):
        for index in range(count):
            seed = 20_000 + 1000 * kind_index + index
            photograph, mask = draw_photograph(seed), draw_mask(seed)
            save(np.where(mask, 255 - photograph, photograph), folder / "test" / kind / f"{index:03d}.png")
            save(np.where(mask, 255, 0).astype(np.uint8), folder / "ground_truth" / kind / f"{index:03d}_mask.png")
    return folder


@pytest.fixture
def category_folder(tmp_path: Path) -> Path:
    return draw_category(tmp_path / "dataset")


@pytest.fixture
def load_defects(category_folder: Path) -> Callable:
    """Loads the scratches of `category_folder` at a small resolution."""

    def load(**options):
        sizes = {"resolution": 32, "image_channels": options.pop("image_channels", 3)}
        return load_training_set(DataConfig(category_folder, **options), "scratch", **sizes)

    return load


@pytest.fixture(scope="session")
def magnetic_tile_root() -> Path:
    """Folder that holds the real photographs."""
    root = os.environ.get("DFMGAN_DATA_DIR")
    if not root or not (Path(root) / "magnetic_tile").is_dir():
        pytest.skip("DFMGAN_DATA_DIR does not name a folder that holds magnetic_tile/")
    return Path(root)
