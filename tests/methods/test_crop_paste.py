"""Crop&Paste: which pixels come from where, every pair once, and the options that are off by default."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from dfmgan_hf.data import DataConfig, DataError, ImageMaskDataset
from dfmgan_hf.data.foreground import find_foreground
from dfmgan_hf.data.preparation import fit_to_size
from dfmgan_hf.methods.crop_paste import CropPasteOptions, CropPasteSampler, open_sampler
from dfmgan_hf.methods.method import SamplerRequest
from tests.benchmarks.drawn_downstream import save

SIDE = 32
GOOD, DEFECTS = 5, 3


def photographs(channels: int = 3) -> tuple[ImageMaskDataset, ImageMaskDataset]:
    """Good ones of one value below 100 each; defects textured above 100, with a mask of their own size each."""
    good = torch.arange(1, GOOD + 1, dtype=torch.uint8)[:, None, None, None].expand(-1, channels, SIDE, SIDE).clone()
    random = torch.Generator().manual_seed(0)
    defects = torch.randint(100, 256, (DEFECTS, channels, SIDE, SIDE), dtype=torch.uint8, generator=random)
    masks = torch.zeros(DEFECTS, 1, SIDE, SIDE, dtype=torch.uint8)
    for i in range(DEFECTS):
        masks[i, 0, 10 : 14 + i, 8 : 13 + i] = 255
    names = [str(i) for i in range(max(GOOD, DEFECTS))]
    return ImageMaskDataset(good, None, names[:GOOD]), ImageMaskDataset(defects, masks, names[:DEFECTS])


def make(channels: int = 3, **options) -> CropPasteSampler:
    return CropPasteSampler(*photographs(channels), CropPasteOptions(**options))


def pair_of(sampler: CropPasteSampler, image: torch.Tensor, mask: torch.Tensor) -> tuple[int, int]:
    """Which photographs an image is made of."""
    good = int(image[0, 0, 0]) - 1
    (defect,) = [i for i in range(DEFECTS) if torch.equal(sampler.masks[i], mask)]
    return good, defect


@pytest.mark.parametrize("channels", [1, 3])
def test_every_pair_comes_once_and_its_pixels_are_those_of_the_photographs(channels):
    sampler = make(channels)
    assert len(sampler) == GOOD * DEFECTS
    images, masks = sampler.sample_at(range(len(sampler)), seed=3)
    assert images.shape == (15, channels, SIDE, SIDE)
    pairs = [pair_of(sampler, image, mask) for image, mask in zip(images, masks, strict=True)]
    assert sorted(pairs) == [(g, d) for g in range(GOOD) for d in range(DEFECTS)]
    assert pairs != sorted(pairs), "the pairs are not shuffled"
    for image, mask, (good, defect) in zip(images, masks, pairs, strict=True):
        inside = (mask > 0).expand_as(image)
        assert torch.equal(image[inside], sampler.defects[defect][inside])
        assert torch.equal(image[~inside], sampler.good[good][~inside])


def test_image_depends_on_its_number_and_the_seed_alone():
    for options in ({}, {"max_shift": 0.3, "max_rotation": 30.0, "feather": 1.0}):
        sampler = make(**options)
        images, masks = sampler.sample_at(range(8), seed=1)
        again, again_masks = sampler.sample_at([5, 2], seed=1)
        assert torch.equal(again, images[[5, 2]])
        assert torch.equal(again_masks, masks[[5, 2]])
        assert not torch.equal(sampler.sample_at(range(8), seed=2)[0], images)


def test_more_images_than_pairs_are_an_error_that_counts_them():
    sampler = make()
    message = "5 good photographs and 3 of the defect are 15 pairs, so image number 15 does not exist"
    with pytest.raises(ValueError, match=message):
        sampler.sample_at(range(16), seed=0)


def test_feather_softens_inside_of_the_mask_only():
    sampler, sharp = make(feather=1.5), make()
    (image,), (mask,) = sampler.sample_at([0], seed=0)
    (pasted,), (sharp_mask,) = sharp.sample_at([0], seed=0)
    assert torch.equal(mask, sharp_mask)
    outside = (mask == 0).expand_as(image)
    assert torch.equal(image[outside], pasted[outside])
    assert (image[~outside] < pasted[~outside]).float().mean() > 0.5  # good photographs are darker


def test_shift_keeps_the_defect_whole():
    sampler, still = make(max_shift=0.9), make()
    places = set()
    for seed in range(6):
        images, masks = sampler.sample_at(range(15), seed)
        _, still_masks = still.sample_at(range(15), seed)
        assert torch.equal(masks.sum(dim=(1, 2, 3)), still_masks.sum(dim=(1, 2, 3)))
        defect_pixels = [image[:, mask[0] > 0] for image, mask in zip(images, masks, strict=True)]
        expected = [d[:, m[0] > 0] for d, m in zip(sampler.defects, sampler.masks, strict=True)]
        assert all(any(p.shape == e.shape and torch.equal(p, e) for e in expected) for p in defect_pixels)
        places |= {tuple(mask[0].nonzero()[0].tolist()) for mask in masks}
    assert {y for y, _ in places} >= {0, 5, 20}, "shifts do not reach from border to border"
    small = make(max_shift=1 / SIDE).sample_at(range(15), 0)[1]
    assert {int(mask[0].nonzero()[0, 0]) for mask in small} == {9, 10, 11}


def test_rotation_turns_the_mask_with_the_defect():
    sampler = make(max_rotation=45.0)
    images, masks = sampler.sample_at(range(15), seed=0)
    assert any(not any(torch.equal(mask, m) for m in sampler.masks) for mask in masks)
    for image, mask in zip(images, masks, strict=True):
        changed = (image > GOOD).any(dim=0)
        assert torch.equal(changed, mask[0] > 0)


def test_poisson_keeps_the_texture_and_takes_the_surroundings():
    pytest.importorskip("cv2", reason="OpenCV (the poisson extra) is not installed")
    for channels in (1, 3):
        good, defects = photographs(channels)
        # A ramp of gradient 4 on a surface of another brightness.
        good.images[:] = 50
        defects.images[:] = (100 + 4 * torch.arange(SIDE)).to(torch.uint8)
        defects.masks[:] = 0
        defects.masks[..., 0:20, 6:26] = 255  # up to the border
        (image,), (mask,) = CropPasteSampler(good, defects, CropPasteOptions(blend="poisson")).sample_at([0], 0)
        outside = (mask == 0).expand_as(image)
        assert (image[outside] == 50).all()
        inside = image[:, 2:18, 8:24].float()
        assert abs(inside.mean() - 50) < 25, "the brightness of the surroundings is not taken on"
        pasted, _ = CropPasteSampler(good, defects).sample_at([0], 0)
        assert pasted[0, :, 2:18, 8:24].float().mean() > 150


def test_box_takes_the_surface_around_the_defect_along():
    sampler, along_mask = make(region="box"), make()
    sampler.masks[:, 0, 10, 8] = along_mask.masks[:, 0, 10, 8] = 0  # no longer full boxes
    images, masks = sampler.sample_at(range(15), seed=0)
    assert torch.equal(masks, along_mask.sample_at(range(15), seed=0)[1]), "the mask is still the defect's"
    for image, mask in zip(images, masks, strict=True):
        good, defect = pair_of(sampler, image, mask)
        box = torch.zeros(1, SIDE, SIDE, dtype=torch.bool)
        box[0, 10 : 14 + defect, 8 : 13 + defect] = True
        inside = box.expand_as(image)
        assert torch.equal(image[inside], sampler.defects[defect][inside])
        assert torch.equal(image[~inside], sampler.good[good][~inside])


def test_pasted_first_and_shrunk_then():
    half = SIDE // 2
    sampler = CropPasteSampler(*photographs(), CropPasteOptions(paste_resolution=SIDE), resolution=half)
    images, masks = sampler.sample_at(range(4), seed=0)
    large, large_masks = make().sample_at(range(4), seed=0)
    assert images.shape == (4, 3, half, half)
    for image, mask, before, mask_before in zip(images, masks, large, large_masks, strict=True):
        expected, expected_mask = fit_to_size(before.permute(1, 2, 0).numpy(), mask_before[0].numpy() > 0, half)
        assert torch.equal(image, torch.from_numpy(expected).permute(2, 0, 1))
        assert torch.equal(mask[0] > 0, torch.from_numpy(expected_mask))
    empty, no_masks = sampler.sample_at([], seed=0)
    assert (empty.shape, no_masks.shape) == ((0, 3, half, half), (0, 1, half, half))
    with pytest.raises(ValueError, match="`paste_resolution` is 32, less than the 64 pixels of the images"):
        CropPasteSampler(*photographs(), CropPasteOptions(paste_resolution=SIDE), resolution=64)


def test_empty_masks_change_nothing():
    good, defects = photographs()
    defects.masks[:] = 0
    for options in (CropPasteOptions(), CropPasteOptions(max_shift=0.5, max_rotation=10.0, feather=1.0)):
        images, masks = CropPasteSampler(good, defects, options).sample_at(range(15), 0)
        assert not masks.any()
        assert images.max() <= GOOD


def test_photographs_that_do_not_fit_are_refused():
    good, defects = photographs()
    with pytest.raises(ValueError, match="along their masks, but the photographs have none"):
        CropPasteSampler(good, ImageMaskDataset(defects.images, None, defects.file_names))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\) and those of the defect \(1, 32, 32\)"):
        CropPasteSampler(good, photographs(1)[1])


# --- the product as the place for defects ---


def product(top: int, left: int, size: int = 14) -> np.ndarray:
    """A noisy dark background with a lighter square on it that has a dark hole, uint8 (R, R, 3)."""
    image = np.random.default_rng(top).integers(10, 20, (SIDE, SIDE, 3)).astype(np.uint8)
    image[top : top + size, left : left + size] = (120, 90, 60)
    image[top + 5 : top + 9, left + 5 : left + 9] = 15
    return image


def place_of(top: int, left: int, size: int = 14) -> torch.Tensor:
    place = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    place[top : top + size, left : left + size] = True
    return place


def test_moved_defects_lie_on_the_product():
    good, defects = photographs()
    corners = [(0, 0), (3, 15), (18, 1), (17, 17), (9, 9)]
    foregrounds = torch.stack([place_of(*corner) for corner in corners])
    options = CropPasteOptions(max_shift=0.9, max_rotation=20.0)
    sampler = CropPasteSampler(good, defects, options, foregrounds=foregrounds)
    free = CropPasteSampler(good, defects, options)
    outside, unconstrained, places = 0, 0, set()
    for seed in range(3):
        images, masks = sampler.sample_at(range(15), seed)
        for image, mask in zip(images, masks, strict=True):
            product_index = int(image[0][mask[0] == 0].min()) - 1
            outside += int((mask[0][~foregrounds[product_index]] > 0).any())
            places.add(tuple(mask[0].nonzero()[0].tolist()))
        for image, mask in zip(*free.sample_at(range(15), seed), strict=True):
            unconstrained += int((mask[0][~foregrounds[int(image[0][mask[0] == 0].min()) - 1]] > 0).any())
    assert outside == 0
    assert unconstrained > 20
    assert len(places) > 30


def test_defect_without_a_place_stays_where_it_was():
    good, defects = photographs()
    foregrounds = torch.zeros(GOOD, SIDE, SIDE, dtype=torch.bool)
    foregrounds[:, :2, :2] = True  # smaller than any defect
    options = CropPasteOptions(max_shift=0.9, max_rotation=90.0)
    images, masks = CropPasteSampler(good, defects, options, foregrounds=foregrounds).sample_at(range(15), 0)
    still_images, still_masks = make().sample_at(range(15), 0)
    assert torch.equal(masks, still_masks)
    assert torch.equal(images, still_images)


def test_foregrounds_that_say_nothing_are_refused():
    good, defects = photographs()
    everywhere = torch.ones(GOOD, SIDE, SIDE, dtype=torch.bool)
    with pytest.raises(ValueError, match="give --max_shift or --max_rotation too"):
        CropPasteSampler(good, defects, CropPasteOptions(), foregrounds=everywhere)
    with pytest.raises(ValueError, match=r"Foregrounds are \(4, 32, 32\), but should be \(5, 32, 32\)"):
        CropPasteSampler(good, defects, CropPasteOptions(max_shift=0.1), foregrounds=everywhere[1:])


def test_product_on_a_plain_background_is_found():
    pytest.importorskip("cv2", reason="OpenCV (the poisson extra) is not installed")
    for top, left in ((9, 9), (0, 4), (17, 17)):
        image = product(top, left)
        image[30:, 30:] = 200 if top < 17 else image[30:, 30:]  # dust
        found, expected = find_foreground(image, "x.png"), place_of(top, left).numpy()
        assert (found & expected).sum() / (found | expected).sum() > 0.8
        assert found[top + 6 : top + 8, left + 6 : left + 8].all(), "holes belong to the product"
    grey = find_foreground(product(9, 9)[:, :, :1], "x.png")
    assert (grey & place_of(9, 9).numpy()).sum() > 150


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
    pytest.importorskip("cv2", reason="OpenCV (the poisson extra) is not installed")
    with pytest.raises(ValueError, match=message):
        find_foreground(image, "x.png")


@pytest.fixture
def plates(tmp_path) -> Path:
    """Two good photographs of a product on a plain background, and one with a defect on it."""
    for name, image in (("train/good/000.png", product(1, 2)), ("train/good/001.png", product(16, 15))):
        save(image, tmp_path / "plate" / name)
    defect, mask = product(1, 2), np.zeros((SIDE, SIDE), np.uint8)
    defect[3:6, 4:8], mask[3:6, 4:8] = 255, 255
    save(defect, tmp_path / "plate" / "test" / "chip" / "000.png")
    save(mask, tmp_path / "plate" / "ground_truth" / "chip" / "000_mask.png")
    return tmp_path / "plate"


def open_on(plates: Path, foreground: str) -> CropPasteSampler:
    options = CropPasteOptions(max_shift=0.9, foreground=foreground)
    return open_sampler(SamplerRequest(data=DataConfig(data_dir=plates), resolution=SIDE, options=options))


def test_foregrounds_from_the_photographs_and_from_a_folder(plates, tmp_path):
    folder = tmp_path / "products"
    for name, corner in (("000.png", (1, 2)), ("001_mask.png", (16, 15))):
        save(place_of(*corner).numpy().astype(np.uint8) * 255, folder / name)
    by_hand = open_on(plates, str(folder))
    assert torch.equal(by_hand.foregrounds, torch.stack([place_of(1, 2), place_of(16, 15)]))
    assert by_hand.settings["foreground"] == str(folder)
    for seed in range(10):
        images, masks = by_hand.sample_at([0, 1], seed)
        for image, mask in zip(images, masks, strict=True):
            corner = (1, 2) if image[0, 14, 3] > 100 else (16, 15)
            assert not (mask[0][~place_of(*corner)] > 0).any()
    pytest.importorskip("cv2", reason="OpenCV (the poisson extra) is not installed")
    found = open_on(plates, "auto").foregrounds
    assert (found & by_hand.foregrounds).sum() / (found | by_hand.foregrounds).sum() > 0.8


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "there is no such folder. Expected a folder of masks that show where the product is"),
        (
            {"000.png": (SIDE, 255)},
            "001.png: an image without a mask; .* holds 000.png.* leave the image out .*--file_list",
        ),
        (
            {"000.png": (SIDE, 255), "001.png": (SIDE, 255), "001_mask.png": (SIDE, 255)},
            "001.png: 2 files that could be its mask",
        ),
        ({"000.png": (SIDE, 255), "001.png": (16, 255)}, "001.png: a mask of 16x16 pixels. Expected 32x32"),
        ({"000.png": (SIDE, 255), "001.png": (SIDE, 0)}, "001.png: a mask without any product pixel"),
    ],
    ids=["no folder", "missing", "two", "size", "empty"],
)
def test_masks_that_cannot_be_used_are_named(plates, tmp_path, masks, message):
    for name, (side, value) in masks.items():
        save(np.full((side, side), value, np.uint8), tmp_path / "products" / name)
    with pytest.raises(DataError, match=message):
        open_on(plates, str(tmp_path / "products"))
