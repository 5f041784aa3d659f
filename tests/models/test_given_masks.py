"""Masks that are given to the generator: the defect follows them, and nothing else does."""

import pytest
import torch


def draw(model, masks=None, count: int = 2):
    source = torch.Generator().manual_seed(1)
    objects, defects = torch.randn(count, 16, generator=source), torch.randn(count, 16, generator=source)
    with torch.no_grad():
        return model(objects, defects, noise_mode="const", return_defect_free=True, masks=masks)


def square(count: int = 2) -> torch.Tensor:
    masks = torch.zeros(count, 1, 32, 32)
    masks[:, :, 8:16, 16:24] = 1
    return masks


@pytest.mark.parametrize("first", [8, 16, 32])
def test_twins_and_drawn_masks_do_not_depend_on_given_ones(make_generator, first):
    model = make_generator(residual_resolution=first)
    own, given = draw(model), draw(model, square())
    assert torch.equal(given.defect_free_images, own.defect_free_images)
    assert torch.equal(given.mask_logits, own.mask_logits)
    assert not torch.equal(given.images, own.images)


def test_an_empty_mask_draws_the_twin(make_generator):
    out = draw(make_generator(), torch.zeros(2, 1, 32, 32))
    assert torch.equal(out.images, out.defect_free_images)


def test_a_full_mask_opens_every_gate(make_generator):
    model = make_generator()
    full = draw(model, torch.ones(2, 1, 32, 32, dtype=torch.bool))
    source = torch.Generator().manual_seed(1)
    codes = [torch.randn(2, 16, generator=source) for _ in range(2)]
    with torch.no_grad():
        opened = model(*codes, noise_mode="const", mask_threshold=-model.config.conv_clamp)
    assert torch.equal(full.images, opened.images)


def test_the_defect_is_within_reach_of_its_mask(make_generator):
    """With residual blocks at the last resolution alone, nothing blurs the gate but the backbone's last two layers."""
    out = draw(make_generator(residual_resolution=32), square())
    changed = (out.images != out.defect_free_images).any(dim=1)
    assert changed[:, 8:16, 16:24].float().mean() > 0.9
    changed[:, 8:16, 16:24] = False
    assert not changed.any()


def test_samples_have_masks_of_their_own(make_generator):
    model = make_generator()
    masks = square()
    masks[1] = 0
    out = draw(model, masks)
    torch.testing.assert_close(out.images[0], draw(model, square()).images[0])
    assert torch.equal(out.images[1], out.defect_free_images[1])
    assert torch.equal(draw(model, square().bool()).images, draw(model, square()).images)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        (torch.zeros(1, 1, 32, 32), r"`masks` must be a tensor \(2, 1, 32, 32\), .* but is \(1, 1, 32, 32\)"),
        (torch.zeros(2, 32, 32), r"but is \(2, 32, 32\)"),
        (torch.zeros(2, 1, 16, 16), r"but is \(2, 1, 16, 16\)"),
        (torch.full((2, 1, 32, 32), 0.5), "`masks` must hold 0 and 1"),
        (torch.full((2, 1, 32, 32), 255, dtype=torch.uint8), "`masks` must hold 0 and 1"),
        (torch.full((2, 1, 32, 32), float("nan")), "`masks` must hold 0 and 1"),
        (torch.zeros(2, 1, 32, 32).numpy(), "`masks` must be a tensor .* but is ndarray"),
    ],
)
def test_wrong_masks(make_generator, masks, message):
    with pytest.raises(ValueError, match=message):
        draw(make_generator(), masks)
