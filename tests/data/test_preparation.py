"""Image and mask go to the square together, and thin defects survive with their area."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image, ImageDraw

from dfmgan_hf.data.preparation import Fit, fit_to_size, resize_mask


def _scratch(
    angle_degrees: float, width: float = 2.0, offset: float = 0.0, size: int = 1024, length: float = 0.8
) -> np.ndarray:
    """A straight scratch through the middle, shifted across by `offset` pixels, `length` of `size`, (size, size)."""
    y, x = np.mgrid[0:size, 0:size] + 0.5 - size / 2
    angle = math.radians(angle_degrees)
    across = -x * math.sin(angle) + y * math.cos(angle) - offset
    along = x * math.cos(angle) + y * math.sin(angle)
    return (np.abs(across) < width / 2) & (np.abs(along) < length / 2 * size)


def _longest_gap(scratch: np.ndarray, resized: np.ndarray) -> float:
    """Largest distance, in new pixels, from a point of the scratch to the next True of the resized mask."""
    points = np.argwhere(scratch)[::7] * (resized.shape[0] / scratch.shape[0])
    kept = np.argwhere(resized) + 0.5
    return max(np.sqrt(((kept - point) ** 2).sum(axis=1)).min() for point in points)


@pytest.mark.parametrize("angle", [0, 3, 17, 45, 60, 90, 135])
@pytest.mark.parametrize("offset", [0, 1, 2, 3])
def test_two_pixel_scratches_survive_from_1024_to_256(angle: float, offset: float) -> None:
    scratch = _scratch(angle, offset=offset)
    inner = _scratch(angle, offset=offset, length=0.75)  # the last pixels at either end may be rounded off
    resized = resize_mask(scratch, 256)
    assert resized.mean() == pytest.approx(scratch.mean(), rel=0.03)
    assert _longest_gap(inner, resized) < 3
    coverage = scratch.reshape(256, 4, 256, 4).any(axis=(1, 3))
    assert not (resized & ~coverage).any(), "a pixel was marked that the scratch does not touch"


@pytest.mark.parametrize("size", [1024, 900, 700, 300])
@pytest.mark.parametrize("width", [3, 5, 9, 17])
def test_area_stays_within_a_few_percent_for_scratches_of_any_width(size: int, width: float) -> None:
    for angle in (0, 20, 45, 90):
        for offset in (0, 1, 2):
            scratch = _scratch(angle, width, offset, size)
            assert resize_mask(scratch, 256).mean() == pytest.approx(scratch.mean(), rel=0.05)


def test_blobs_keep_clean_outlines_and_their_area() -> None:
    image = Image.new("1", (1000, 1000))
    ImageDraw.Draw(image).ellipse((150, 170, 760, 850), fill=1)
    mask = np.array(image)
    resized = resize_mask(mask, 256)
    assert resized.mean() == pytest.approx(mask.mean(), rel=0.001)
    # The outline of a convex shape is clean if each row and each column of it is one run.
    for axis in (0, 1):
        changes = np.diff(np.pad(resized, 1).astype(int), axis=axis)
        assert (np.abs(changes).sum(axis=axis) <= 2).all()


def test_a_thin_scratch_beside_a_blob_is_not_outvoted() -> None:
    image = Image.new("1", (1024, 1024))
    draw = ImageDraw.Draw(image)
    draw.ellipse((100, 100, 500, 500), fill=1)
    draw.rectangle((600, 701, 999, 702), fill=1)
    mask = np.array(image)
    resized = resize_mask(mask, 256)
    assert resized[128:].mean() == pytest.approx(mask[512:].mean(), rel=0.03)
    assert resized[:128].mean() == pytest.approx(mask[:512].mean(), rel=0.001)


def test_a_single_defect_pixel_survives_any_downscaling() -> None:
    mask = np.zeros((2000, 1500), dtype=bool)
    mask[777, 1234] = True
    resized = resize_mask(mask, 64)
    assert resized.sum() == 1
    assert resized[777 * 64 // 2000, 1234 * 64 // 1500]


def test_masks_are_enlarged_and_kept_at_equal_size() -> None:
    mask = np.zeros((8, 8), dtype=bool)
    mask[2:5, 1:4] = True
    np.testing.assert_array_equal(resize_mask(mask, 8), mask)
    np.testing.assert_array_equal(resize_mask(mask, 32), mask.repeat(4, axis=0).repeat(4, axis=1))
    assert not resize_mask(np.zeros((9, 5), dtype=bool), 4).any()


def _photograph_with_square(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    mask = np.zeros((height, width), dtype=bool)
    mask[height // 2 - 12 : height // 2 + 12, width // 2 - 20 : width // 2 + 4] = True
    image = np.full((height, width, 3), 40, dtype=np.uint8)
    image[mask] = 220
    return image, mask


@pytest.mark.parametrize("fit", get_args(Fit))
@pytest.mark.parametrize("shape", [(120, 200), (200, 120), (96, 96), (31, 47)])
def test_image_and_mask_stay_aligned_in_every_fit(fit: str, shape: tuple[int, int]) -> None:
    image, mask = _photograph_with_square(*shape)
    square, square_mask = fit_to_size(image, mask, 64, fit)
    assert square.shape == (64, 64, 3)
    assert square.dtype == np.uint8
    bright = square[:, :, 0] > 130
    assert square_mask.any()
    # Lanczos edges and rounded coverage may differ along the outline only.
    inner = np.pad(square_mask, 1)
    outline = sum(np.roll(inner, shift, axis) != inner for axis in (0, 1) for shift in (-1, 1))[1:-1, 1:-1].astype(
        bool
    )
    np.testing.assert_array_equal(bright[~outline], square_mask[~outline])


def test_center_crop_keeps_the_middle_square() -> None:
    image = np.zeros((40, 100, 1), dtype=np.uint8)
    image[:, 30:70] = 200
    square, _ = fit_to_size(image, None, 40, "center_crop")
    assert (square == 200).all()


def test_pad_adds_a_border_of_the_rims_colour_without_defect() -> None:
    image = np.full((40, 20, 3), (10, 20, 30), dtype=np.uint8)
    image[10:30, 5:15] = 200
    mask = np.ones((40, 20), dtype=bool)
    square, square_mask = fit_to_size(image, mask, 40, "pad")
    assert (square[:, :10] == (10, 20, 30)).all()
    assert (square[:, 30:] == (10, 20, 30)).all()
    np.testing.assert_array_equal(square[:, 10:30], image)
    np.testing.assert_array_equal(square_mask, np.pad(mask, ((0, 0), (10, 10))))


@pytest.mark.parametrize("size", [(32, 128), (64, 32)])
@pytest.mark.parametrize("shape", [(120, 200), (50, 400), (300, 90), (31, 47)])
@pytest.mark.parametrize("fit", get_args(Fit))
def test_other_shapes_than_squares_follow_the_same_rules(
    fit: str, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    image = np.full((*shape, 1), 100, dtype=np.uint8)
    image[:, shape[1] // 2 :] = 200
    mask = image[:, :, 0] == 200
    fitted, fitted_mask = fit_to_size(image, mask, size, fit)
    assert fitted.shape == (*size, 1)
    assert fitted_mask.shape == size
    wide = shape[1] * size[0] > shape[0] * size[1]  # wider than the images are
    inside = fitted_mask.mean() / 0.5
    if fit == "pad":
        expected = shape[0] * size[1] / (shape[1] * size[0])
        assert inside == pytest.approx(min(expected, 1 / expected), rel=0.1)
        assert not fitted_mask[0 if wide else slice(None), 0 if not wide else slice(None)].any()
    else:
        assert inside == pytest.approx(1, rel=0.1)


def test_the_middle_of_a_bar_keeps_its_scale() -> None:
    bar = np.arange(40 * 400, dtype=np.uint32).reshape(40, 400, 1).astype(np.uint8)
    fitted, _ = fit_to_size(bar, None, (32, 128), "center_crop")
    whole = np.asarray(Image.fromarray(bar[:, 120:280, 0]).resize((128, 32), Image.Resampling.LANCZOS))
    np.testing.assert_array_equal(fitted[:, :, 0], whole)


def test_downscaling_is_antialiased() -> None:
    stripes = np.zeros((512, 512, 1), dtype=np.uint8)
    stripes[:, ::2] = 255  # any sampling without a filter gives black or white
    square, _ = fit_to_size(stripes, None, 64, "resize")
    assert square.min() > 110
    assert square.max() < 145


def test_wrong_arguments_are_named() -> None:
    image, mask = _photograph_with_square(40, 60)
    with pytest.raises(ValueError, match="`fit` must be one of resize, center_crop, pad, but is 'stretch'"):
        fit_to_size(image, mask, 32, "stretch")
    with pytest.raises(ValueError, match="image is 60x40 but mask is 40x60"):
        fit_to_size(image, mask.T, 32)


@pytest.mark.slow
def test_a_mask_of_64_million_pixels_takes_less_than_a_gigabyte(tmp_path: Path) -> None:
    """Counted from before it is read; of three channels, which are compared for colours, as well."""
    program = (
        "import resource, sys, numpy as np; from pathlib import Path; from PIL import Image\n"
        "from dfmgan_hf.data.patches import defect_places\n"
        "from dfmgan_hf.data.preparation import resize_mask\n"
        "from dfmgan_hf.data.reading import read_mask\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20\n"
        "start = peak()\n"
        "mask = read_mask(sys.argv[1]).defect\n"
        "assert resize_mask(mask, 256).sum() == 64 * 128, resize_mask(mask, 256).sum()\n"
        "defect_places(mask, 512, 4, 0.5, np.random.default_rng(0))\n"
        "print(peak() - start)\n"
    )
    pixels = np.zeros((8000, 8000), dtype=np.uint8)
    pixels[1000:3000, 1000:5000] = 255
    for name, mask in (("grey", pixels), ("rgb", np.dstack([pixels] * 3))):
        Image.fromarray(mask).save(tmp_path / f"{name}.png", compress_level=1)
        command = [sys.executable, "-c", program, str(tmp_path / f"{name}.png")]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
        assert float(ended.stdout) < 1, (name, ended.stdout, ended.stderr)
