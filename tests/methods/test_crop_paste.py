"""Crop&Paste: which pixels come from where, every pair once, and the options that are off by default."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.data.transforms import fit_to_square
from dfmgan_hf.methods.crop_paste import CropPasteOptions, CropPasteSampler

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
        first, second = (sampler.sample(4, torch.Generator().manual_seed(7))[0] for _ in range(2))
        assert torch.equal(first, second)


def test_more_images_than_pairs_are_an_error_that_counts_them():
    sampler = make()
    message = "5 good photographs and 3 of the defect are 15 pairs, so image number 15 does not exist"
    with pytest.raises(ValueError, match=message):
        sampler.sample_at(range(16), seed=0)
    with pytest.raises(ValueError, match="Ask for at most 15 images"):
        sampler.sample(16, torch.Generator())


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
        expected, expected_mask = fit_to_square(before.permute(1, 2, 0).numpy(), mask_before[0].numpy() > 0, half)
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
