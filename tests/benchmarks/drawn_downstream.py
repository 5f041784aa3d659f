"""Drawn photographs of two kinds of defect, and folders of generated ones, in the layouts that benchmarks read."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.data.conftest import save

SIDE = 32
KINDS = ("bright", "dark")


def draw_pair(kind: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A grey surface with a bright or a dark square, uint8 (R, R, 3), and its mask, bool (R, R)."""
    rng = np.random.default_rng(seed)
    image = np.clip(128 + rng.normal(0, 10, (SIDE, SIDE)), 0, 255)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    if kind != "good":
        top, left = rng.integers(2, SIDE - 12, 2)
        mask[top : top + 9, left : left + 9] = True
        image[mask] += 90 if kind == "bright" else -90
    return np.repeat(image.astype(np.uint8)[:, :, None], 3, axis=2), mask


def save_kind(category: Path, kind: str, count: int, first_seed: int = 0) -> None:
    """Pairs in the layout of MVTec AD."""
    for index in range(count):
        image, mask = draw_pair(kind, first_seed + index)
        save(image, category / "test" / kind / f"{index:03d}.png")
        if kind != "good":
            save(np.where(mask, 255, 0).astype(np.uint8), category / "ground_truth" / kind / f"{index:03d}_mask.png")


def save_photographs(root: Path) -> Path:
    """Category "plate": 8 good photographs to train on and 4 to test on, 6 and 7 of the two kinds of defect."""
    category = root / "plate"
    for index in range(8):
        save(draw_pair("good", 100 + index)[0], category / "train" / "good" / f"{index:03d}.png")
    save_kind(category, "good", 4, 200)
    save_kind(category, "bright", 6, 300)
    save_kind(category, "dark", 7, 400)
    return root


def save_generated(root: Path, count: int = 12) -> Path:
    """An export as generate.py writes it: each kind of defect in a folder of its own, under its own name there."""
    for number, kind in enumerate(KINDS):
        save_kind(root / kind / "object", kind, count, 1000 * (number + 1))
    return root
