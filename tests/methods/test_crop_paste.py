"""Crop&Paste: which pixels come from where, and every pair once."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.data import ImageMaskDataset
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
    sampler = make()
    images, masks = sampler.sample_at(range(8), seed=1)
    again, again_masks = sampler.sample_at([5, 2], seed=1)
    assert torch.equal(again, images[[5, 2]])
    assert torch.equal(again_masks, masks[[5, 2]])
    assert not torch.equal(sampler.sample_at(range(8), seed=2)[0], images)
    empty, no_masks = sampler.sample_at([], seed=1)
    assert (empty.shape, no_masks.shape) == ((0, 3, SIDE, SIDE), (0, 1, SIDE, SIDE))


def test_more_images_than_pairs_are_an_error_that_counts_them():
    sampler = make()
    message = "5 good photographs and 3 of the defect are 15 pairs, so image number 15 does not exist"
    with pytest.raises(ValueError, match=message):
        sampler.sample_at(range(16), seed=0)


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


def test_empty_masks_change_nothing():
    good, defects = photographs()
    defects.masks[:] = 0
    images, masks = CropPasteSampler(good, defects).sample_at(range(15), 0)
    assert not masks.any()
    assert images.max() <= GOOD


def test_photographs_that_do_not_fit_are_refused():
    good, defects = photographs()
    with pytest.raises(ValueError, match="along their masks, but the photographs have none"):
        CropPasteSampler(good, ImageMaskDataset(defects.images, None, defects.file_names))
    with pytest.raises(ValueError, match=r"\(3, 32, 32\) and those of the defect \(1, 32, 32\)"):
        CropPasteSampler(good, photographs(1)[1])
