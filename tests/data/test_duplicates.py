"""Photographs that occur twice are found, however they were saved; other parts in the same pose are not."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dfmgan_hf.data.doctor import CheckConfig, examine
from dfmgan_hf.data.duplicates import DuplicatePair, describe_photograph, find_duplicates, group_duplicates
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


def _screw(seed: int, angle: float, size: int = 256) -> np.ndarray:
    """A threaded rod on a table, photographed at an angle, in degrees; stains and grain are its own."""
    rng = np.random.default_rng(seed)
    rod = Image.new("L", (size, size), 200)
    pen = ImageDraw.Draw(rod)
    pen.rectangle((40, 108, 216, 148), 90)
    for x in range(44, 216, 8):
        pen.line((x, 108, x + 4, 148), 150, 3)
    pen.rectangle((24, 96, 40, 160), 70)
    for _ in range(25):
        x, y = rng.uniform((30, 100), (216, 156))
        pen.ellipse((x, y, x + rng.uniform(2, 6), y + rng.uniform(2, 6)), int(rng.integers(40, 190)))
    turned = rod.rotate(angle, Image.Resampling.BICUBIC, translate=tuple(rng.uniform(-3, 3, 2)), fillcolor=200)
    return np.clip(np.asarray(turned) + rng.normal(0, 4, (size, size)), 0, 255).astype(np.uint8)


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
    save(_textured(8)[3:, :-2], good / "cropped.png")
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
        "train/good/008.png = train/good/cropped.png",
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
    assert len(report.duplicate_groups) == 9


@pytest.mark.parametrize("poses", [1, 3])
def test_other_parts_in_the_same_pose_are_not_duplicates_and_copies_of_one_are(poses: int) -> None:
    photographs = [_screw(seed, 30.0 * (seed % poses)) for seed in range(16 * poses)]
    copied = Image.fromarray(photographs[5])
    copied.save(stream := io.BytesIO(), "JPEG", quality=60)
    smaller = copied.resize((170, 170), Image.Resampling.LANCZOS)
    cropped = copied.crop((4, 2, 250, 252))
    photographs += [np.asarray(Image.open(stream)), np.asarray(smaller), np.asarray(cropped)]
    small = [describe_photograph(photograph[:, :, None]) for photograph in photographs]
    pairs = find_duplicates(small, [str(number) for number in range(len(small))])
    last = len(small) - 1
    assert group_duplicates(pairs) == [[5, last - 2, last - 1, last]]
    assert {number for pair in pairs for number in pair[:2]} == {5, last - 2, last - 1, last}


def test_what_is_uncertain_is_worded_so_and_is_no_leak(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 1}, test_good=0)
    for index in range(20):
        save(_textured(index, 128), folder / "train" / "good" / f"{index:03d}.png")
    mixed = 0.62 * (_textured(3, 128).astype(float) - 128) + 0.5 * (_textured(100, 128).astype(float) - 128) + 128
    save(mixed.clip(0, 255).astype(np.uint8), folder / "test" / "good" / "a.png")
    report = examine(CheckConfig(folder, resolution=32))[0]
    (maybe,) = (finding for finding in report.findings if finding.code == "maybe_duplicates")
    assert maybe.files == ("train/good/003.png = test/good/a.png",)
    assert maybe.severity == "note"
    assert "may show the same part, which is not certain" in maybe.message
    assert not {"train_test_leak", "near_duplicates"} & codes(report).keys()
    assert report.duplicate_groups == []


def test_groups_join_pairs_that_share_a_photograph() -> None:
    pairs = [DuplicatePair(a, b, "near") for a, b in ((0, 1), (3, 4), (1, 5), (6, 7), (5, 6))]
    assert group_duplicates([*pairs, DuplicatePair(4, 8, "maybe")]) == [[0, 1, 5, 6, 7], [3, 4]]


def test_aligned_objects_are_not_taken_for_duplicates(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 1}, test_good=0)
    shape = _textured(1000).astype(float)
    for index in range(30):
        photograph = shape + 0.35 * (_textured(index).astype(float) - 128)
        save(np.clip(photograph, 0, 255).astype(np.uint8), folder / "train" / "good" / f"{index:03d}.png")
    assert not {"near_duplicates", "maybe_duplicates"} & codes(check(folder)).keys()


def test_flat_photographs_are_compared_by_their_bytes(tmp_path: Path) -> None:
    folder = draw_category(tmp_path, good=0, defects={"dent": 1})
    for index in range(3):
        save(np.full((40, 48), 100 + index // 2, dtype=np.uint8), folder / "train" / "good" / f"{index}.png")
    found = codes(check(folder))
    assert found["exact_duplicates"] == ("train/good/0.png = train/good/1.png",)
    assert "near_duplicates" not in found


def test_in_a_set_of_a_few_a_copy_is_found_and_equal_files_are_no_near_ones() -> None:
    photographs = [_textured(seed, 128) for seed in (0, 1, 0, 0)]
    photographs[3] = np.roll(photographs[3], 2, axis=1)
    small = [describe_photograph(photograph[:, :, None]) for photograph in photographs]
    assert [pair[:3] for pair in find_duplicates(small[:2], "ab")] == []
    assert [pair[:3] for pair in find_duplicates([small[0], small[3]], "ab")] == [(0, 1, "near")]
    kinds = {pair[:2]: pair.kind for pair in find_duplicates([*small, small[0]], "abada")}
    assert kinds == {(0, 2): "exact", (0, 4): "exact", (0, 3): "near", (2, 3): "near", (3, 4): "near"}
