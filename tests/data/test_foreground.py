"""Products on a plain background are found; pictures without one are refused."""

from __future__ import annotations

import numpy as np
import pytest

from dfmgan_hf.data.foreground import find_foreground

pytest.importorskip("cv2", reason="OpenCV (the poisson extra) is not installed")

SIDE, SIZE = 32, 14


def product(top: int, left: int) -> np.ndarray:
    """A noisy dark background with a lighter square on it that has a dark hole, uint8 (R, R, 3)."""
    image = np.random.default_rng(top).integers(10, 20, (SIDE, SIDE, 3)).astype(np.uint8)
    image[top : top + SIZE, left : left + SIZE] = (120, 90, 60)
    image[top + 5 : top + 9, left + 5 : left + 9] = 15
    return image


def place_of(top: int, left: int) -> np.ndarray:
    place = np.zeros((SIDE, SIDE), dtype=bool)
    place[top : top + SIZE, left : left + SIZE] = True
    return place


def test_product_on_a_plain_background_is_found():
    for top, left in ((9, 9), (0, 4), (17, 17)):
        image = product(top, left)
        image[30:, 30:] = 200 if top < 17 else image[30:, 30:]  # dust
        found, expected = find_foreground(image, "x.png"), place_of(top, left)
        assert (found & expected).sum() / (found | expected).sum() > 0.8
        assert found[top + 6 : top + 8, left + 6 : left + 8].all(), "holes belong to the product"
    grey = find_foreground(product(9, 9)[:, :, :1], "x.png")
    assert (grey & place_of(9, 9)).sum() > 150


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.full((SIDE, SIDE, 3), 90, np.uint8), "On x.png nothing stands out from the colour of its border"),
        (np.random.default_rng(0).integers(88, 92, (SIDE, SIDE, 3)).astype(np.uint8), "nothing stands out"),
        (
            np.random.default_rng(0).normal(128, 40, (SIDE, SIDE, 1)).clip(0, 255).astype(np.uint8),
            r"nothing stands out clearly .* accounts for \d+% of the variance",
        ),
        (
            np.tile(np.repeat([60, 60, 60, 200, 200], [8, 8, 4, 6, 6])[:, None, None], (1, SIDE, 3)).astype(np.uint8),
            r"covers \d+% of its border, so that the product is not on a plain background",
        ),
    ],
    ids=["blank", "noise", "texture", "half"],
)
def test_pictures_without_a_plain_background_are_refused(image, message):
    with pytest.raises(ValueError, match=message):
        find_foreground(image, "x.png")
