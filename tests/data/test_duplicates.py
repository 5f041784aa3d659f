"""Photographs that occur twice are found, however they were saved; those that are merely alike are not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dfmgan_hf.data.duplicates import DuplicatePair, group_duplicates
from tests.data.conftest import draw_category, save
from tests.data.test_doctor import check, codes


def _textured(seed: int, size: int = 96) -> np.ndarray:
    """A photograph with detail at many scales, as real surfaces have."""
    rng = np.random.default_rng(seed)
    total = np.zeros((size, size))
    for cells in (6, 12, 24, 48):
        noise = Image.fromarray(rng.normal(size=(cells, cells)).astype(np.float32))
        total += np.asarray(noise.resize((size, size), Image.Resampling.BICUBIC))
    return np.clip(128 + 25 * total, 0, 255).astype(np.uint8)


def test_exact_and_near_duplicates_and_leaks(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=1, defects={"dent": 1}, test_good=0)
    good = folder / "train" / "good"
    for index in range(20):
        save(_textured(index), good / f"{index:03d}.png")
    (good / "copy.png").write_bytes((good / "000.png").read_bytes())
    Image.fromarray(_textured(1)).save(good / "recompressed.jpg", quality=70)
    Image.fromarray(_textured(2)).resize((70, 70), Image.Resampling.LANCZOS).save(good / "smaller.png")
    shade = np.linspace(0.5, 1.0, 96)
    save((_textured(3) * shade).astype(np.uint8), good / "relit.png")
    save(np.rot90(_textured(4)).copy(), good / "turned.png")
    save(np.fliplr(_textured(5)).copy(), good / "mirrored.png")
    save(_textured(6), folder / "test" / "good" / "leak.png")
    (folder / "test" / "dent" / "000.png").write_bytes((good / "007.png").read_bytes())
    save(np.ones((96, 96), dtype=np.uint8), folder / "ground_truth" / "dent" / "000_mask.png")
    report = check(folder)
    found = codes(report)
    assert found["exact_duplicates"] == (
        "train/good/000.png = train/good/copy.png",
        "train/good/006.png = test/good/leak.png",
        "train/good/007.png = test/dent/000.png",
    )
    assert found["near_duplicates"] == (
        "train/good/001.png = train/good/recompressed.jpg",
        "train/good/002.png = train/good/smaller.png",
        "train/good/003.png = train/good/relit.png",
    )
    assert found["turned_duplicates"] == (
        "train/good/004.png = train/good/turned.png",
        "train/good/005.png = train/good/mirrored.png",
    )
    assert found["train_test_leak"] == (
        "train/good/006.png = test/good/leak.png",
        "train/good/007.png = test/dent/000.png",
    )
    assert found["conflicting_labels"] == ("train/good/007.png = test/dent/000.png",)
    assert len(report.duplicate_groups) == 8


def test_groups_join_pairs_that_share_a_photograph() -> None:
    pairs = [DuplicatePair(a, b, "near", 0.9) for a, b in ((0, 1), (3, 4), (1, 5), (6, 7), (5, 6))]
    assert group_duplicates(pairs) == [[0, 1, 5, 6, 7], [3, 4]]


def test_aligned_objects_are_not_taken_for_duplicates(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 1}, test_good=0)
    shape = _textured(1000).astype(float)
    for index in range(30):
        photograph = shape + 0.35 * (_textured(index).astype(float) - 128)
        save(np.clip(photograph, 0, 255).astype(np.uint8), folder / "train" / "good" / f"{index:03d}.png")
    assert "near_duplicates" not in codes(check(folder))


def test_flat_photographs_are_compared_by_their_bytes(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 1})
    for index in range(3):
        save(np.full((40, 48), 100 + index // 2, dtype=np.uint8), folder / "train" / "good" / f"{index}.png")
    found = codes(check(folder))
    assert found["exact_duplicates"] == ("train/good/0.png = train/good/1.png",)
    assert "near_duplicates" not in found
