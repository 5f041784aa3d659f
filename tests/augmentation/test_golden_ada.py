"""Every transform alone, and bgc in order, reproduce the official implementation's numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from dfmgan_hf.augmentation import AUGMENTATION_SETS, AugmentPipe
from dfmgan_hf.precision import without_autocast
from tests.augmentation.quantile import Quantile

GOLDEN = Path(__file__).parents[1] / "golden" / "ada.safetensors"

with safe_open(GOLDEN, "pt") as _file:
    NAMES = sorted(set(_file.keys()) - {"input"})


def load(name: str) -> torch.Tensor:
    with safe_open(GOLDEN, "pt") as file:
        return file.get_tensor(name)


def test_golden_file_covers_every_transform_but_the_noise():
    covered = {name.split("@")[0] for name in NAMES}
    assert covered == {*AUGMENTATION_SETS["bgc"], "imgfilter", "cutout", "bgc"}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_golden(name: str, dtype: torch.dtype):
    transform, percentile = name.split("@")
    images = load("input").to(dtype)
    with without_autocast(images) as exact:
        pipe = AugmentPipe(AUGMENTATION_SETS.get(transform, (transform,)))
        augmented = pipe._augment(exact, Quantile(len(images), float(percentile)))
    assert augmented.dtype == dtype
    expected = load(name)
    torch.testing.assert_close(augmented.float(), expected, rtol=0, atol=1e-5 * expected.abs().max().item())
