"""DiffAugment's order, ranges and gradients."""

from __future__ import annotations

import pytest
import torch

from dfmgan_hf.augmentation import DiffAugment


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def drawn_images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, dtype=dtype, generator=seeded(7)) * 2 - 1


def test_color_jitters_brightness_saturation_and_contrast_in_their_ranges():
    images = drawn_images(1, 3, 8, 8).expand(2000, -1, -1, -1)
    augmented = DiffAugment("color")(images, generator=seeded())
    mean, new_mean = images.mean((1, 2, 3)), augmented.mean((1, 2, 3))
    brightness = new_mean - mean
    assert -0.5 <= brightness.min() < -0.48
    assert 0.48 < brightness.max() <= 0.5
    # Brightness comes first, so that contrast turns about the brightened mean, which saturation keeps.
    luma, new_luma = images.mean(1), augmented.mean(1)
    contrast = (new_luma[:, 0, 0] - new_mean) / (luma[:, 0, 0] - mean)
    assert 0.5 - 1e-4 <= contrast.min() < 0.52
    assert 1.48 < contrast.max() <= 1.5 + 1e-4
    saturation = (augmented[:, 0, 0, 0] - new_luma[:, 0, 0]) / (images[:, 0, 0, 0] - luma[:, 0, 0]) / contrast
    assert -1e-4 <= saturation.min() < 0.05
    assert 1.95 < saturation.max() <= 2 + 1e-4
    parameters = torch.stack([brightness, contrast, saturation])
    assert (torch.corrcoef(parameters) - torch.eye(3)).abs().max() < 0.1


@pytest.mark.parametrize(("height", "width"), [(16, 16), (12, 32)])
def test_translation_shifts_by_up_to_an_eighth_and_fills_with_zero(height: int, width: int):
    images = drawn_images(1, 3, height, width)
    limits = int(height / 8 + 0.5), int(width / 8 + 0.5)
    possible = {}
    for down in range(-limits[0], limits[0] + 1):
        for right in range(-limits[1], limits[1] + 1):
            shifted = torch.zeros_like(images)
            rows, columns = slice(max(down, 0), height + min(down, 0)), slice(max(right, 0), width + min(right, 0))
            source = slice(max(-down, 0), height - max(down, 0)), slice(max(-right, 0), width - max(right, 0))
            shifted[..., rows, columns] = images[..., source[0], source[1]]
            possible[down, right] = shifted[0]
    augmented = DiffAugment("translation")(images.expand(600, -1, -1, -1), generator=seeded())
    seen = [next(shift for shift, image in possible.items() if torch.equal(image, x)) for x in augmented]
    assert set(seen) == set(possible)
    most = max(seen.count(shift) for shift in possible)
    assert most < 3 * 600 / len(possible)  # uniform: no place is much preferred


def test_shift_repeats_the_pixels_at_the_edge():
    images = drawn_images(1, 3, 8, 8).expand(200, -1, -1, -1)
    padded = torch.nn.functional.pad(images[:1], (1, 1, 1, 1), mode="replicate")[0]
    possible = [padded[:, y : y + 8, x : x + 8] for y in range(3) for x in range(3)]
    augmented = DiffAugment("shift")(images, generator=seeded())
    seen = {next(i for i, image in enumerate(possible) if torch.equal(image, x)) for x in augmented}
    assert seen == set(range(9))


@pytest.mark.parametrize("size", [16, 14])
def test_cutout_is_half_the_side_and_is_clipped_at_the_border(size: int):
    side = int(size / 2 + 0.5)
    cut = DiffAugment("cutout")(torch.ones(800, 3, size, size), generator=seeded())
    assert cut.unique().tolist() == [0, 1]
    hole = cut[:, 0] == 0
    assert torch.equal(hole, cut[:, 2] == 0)
    rows, columns = hole.any(2), hole.any(1)
    assert torch.equal(hole, rows[:, :, None] & columns[:, None, :])
    for lengths in (rows.sum(1), columns.sum(1)):
        assert lengths.max() == side
        assert lengths.min() == side - side // 2
    # The centre is uniform over the image: the middle is hit as often as the square has places that cover it.
    places = size + 1 - side % 2
    assert rows[:, size // 2].float().mean().item() == pytest.approx(side / places, abs=0.07)
    assert rows[:, 0].float().mean().item() == pytest.approx((side // 2 + 1) / places, abs=0.07)


def test_the_order_is_color_translation_cutout_whatever_the_policy_string():
    images = drawn_images(4, 3, 16, 16)
    in_order = images
    generator = seeded()
    for policy in ("color", "translation", "cutout"):
        in_order = DiffAugment(policy)(in_order, generator=generator)
    torch.testing.assert_close(DiffAugment("cutout, translation, color")(images, generator=seeded()), in_order)
    torch.testing.assert_close(DiffAugment()(images, p=0.0, generator=seeded()), in_order)


@pytest.mark.parametrize("channels", [1, 3])
def test_first_and_second_derivatives(channels: int):
    images = drawn_images(2, channels, 6, 4, dtype=torch.float64).requires_grad_()

    def augment(x: torch.Tensor) -> torch.Tensor:
        return DiffAugment()(x, generator=seeded())

    assert torch.autograd.gradcheck(augment, images)
    assert torch.autograd.gradgradcheck(augment, images)


def test_same_generator_state_same_augmentations():
    images = drawn_images(4, 3, 16, 16)
    augment = DiffAugment()
    first = augment(images, generator=seeded(1))
    assert torch.equal(first, augment(images, generator=seeded(1)))
    assert not torch.equal(first, augment(images, generator=seeded(2)))


@pytest.mark.parametrize("policy", ["", "colour", "color,flip"])
def test_an_unknown_policy_is_answered_with_the_names(policy: str):
    with pytest.raises(ValueError, match="color, translation, shift, cutout"):
        DiffAugment(policy)


def test_wrong_images_are_named():
    with pytest.raises(ValueError, match=r"\(2, 4, 8, 8\)"):
        DiffAugment()(torch.zeros(2, 4, 8, 8))
