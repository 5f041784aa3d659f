"""Leaks are found where there are some, and photographs that were cut into patches are kept out as a whole."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import augmentation_sets, leaks
from dfmgan_hf.data import ImageMaskDataset


def lines(n: int, seed: int) -> torch.Tensor:
    """Grey images (n, 1, 32, 32) of lines that are nearly vertical and lean to the right."""
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    lean, phase, level = (torch.rand(n, 1, 1, generator=draw) for _ in range(3))
    return (100 + 40 * level + 40 * torch.sin(x + (0.1 + 0.2 * lean) * y + 6 * phase)).to(torch.uint8)[:, None]


def test_each_leak_moves_its_statistic_and_other_photographs_do_not():
    real = lines(200, 0)
    assert max(leaks.distances(lines(200, 1), real).values()) < 0.3
    moved = {
        "orientation": real.mT,
        "slant": real.flip(3),
        "brightness": 255 - real,
        "contrast": ((real.float() - 128) * 1.5 + 128).clamp(0, 255).to(torch.uint8),
    }
    for name, images in moved.items():
        assert leaks.distances(images, real)[name] > 1, name


def test_augmented_photographs_leak_what_their_set_changes():
    real = lines(200, 0)
    kept = leaks.distances(leaks.augmented(real, "keep_orientation_and_color", 0.8), real)
    turned = leaks.distances(leaks.augmented(real, "bgc", 0.8), real)
    assert turned["orientation"] > 5 * kept["orientation"]


def test_flat_images_have_no_orientation():
    flat = torch.full((3, 3, 8, 8), 128, dtype=torch.uint8)
    values = leaks.statistics(flat)
    assert values["orientation"].tolist() == values["slant"].tolist() == [0, 0, 0]


def test_patches_of_a_photograph_stay_together():
    names = [f"train/good/{photo:03d}_x{x:05d}_y00000.png" for photo in range(5) for x in (0, 80)]
    images = torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(-1, 1, 2, 2).contiguous()
    dataset = ImageMaskDataset(images, None, names)
    for seed in range(3):
        chosen, others = augmentation_sets.split(dataset, 4, seed)
        photographs = [{name.split("_x")[0] for name in part.file_names} for part in (chosen, others)]
        assert (len(chosen), len(others)) == (4, 6)
        assert not photographs[0] & photographs[1]
    with pytest.raises(ValueError, match="from 1 to 9, but is 10"):
        augmentation_sets.split(dataset, 10, 0)


def test_table_is_of_means_over_the_seeds():
    def row(name: str, seed: int, kid: float, p: float | None) -> dict:
        moved = dict.fromkeys(leaks.STATISTICS, 0.25 * (seed + 1))
        return {
            "set": name,
            "seed": seed,
            "ada_p": p,
            "held_out": {"kid": kid},
            "trained_on": {"nearest_ratio": 0.5},
            "leaks": moved,
            "photographs_trained_on": moved,
            "photographs_augmented": {"bgc": moved},
        }

    rows = [row("none", 0, 0.1, None), row("bgc", 0, 0.2, 0.3), row("none", 1, 0.3, None), row("bgc", 1, 0.4, 0.5)]
    text = augmentation_sets.table(json.loads(json.dumps(rows)))
    assert "| `none` | 200 | 100, 300 | 0.50 | - | 0.38 | 0.38 | 0.38 | 0.38 |" in text
    assert "| `bgc` | 300 | 200, 400 | 0.50 | 0.40 |" in text
    assert "| photographs augmented by `bgc`, p 0.8 | | | | 0.8 | 0.50 |" in text
    assert augmentation_sets.table([]).count("\n") == 1
