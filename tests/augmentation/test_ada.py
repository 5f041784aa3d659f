"""The pipeline as users and the trainer meet it: probabilities, gradients, grey images, reproducibility, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from dfmgan_hf.augmentation import AUGMENTATION_SETS, TRANSFORMS, AugmentPipe, ada

EVERYTHING = AugmentPipe.from_set("bgcfnc")
TURNS = {"rotate90", "rotate"}
HUES = {"lumaflip", "hue", "saturation"}


def drawn_images(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(shape, dtype=dtype, generator=torch.Generator().manual_seed(0)) * 2 - 1


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# How often a transform that was chosen does change an image: flips and turns may draw "not", a shift may round to 0.
VISIBLE = {"xflip": 1 / 2, "lumaflip": 1 / 2, "rotate90": 3 / 4, "xint": 3 / 4}


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("p", [0.4, 0.2])
def test_share_of_changed_images_is_p(transform: str, p: float):
    count = 3000
    images = drawn_images(1, 3, 8, 8).expand(count, -1, -1, -1)
    augmented = AugmentPipe([transform])(images, p, generator=seeded())
    share = ((augmented - images).abs().amax((1, 2, 3)) > 1e-6).float().mean().item()
    expected = p * VISIBLE.get(transform, 1.0)
    if transform == "imgfilter":  # one chance per band
        expected = 1 - (1 - expected) ** 4
    assert share == pytest.approx(expected, abs=0.035)  # 4 standard deviations of a share of 3000


@pytest.mark.parametrize("transform", sorted(set(TRANSFORMS) - {"xflip", "rotate90", "xint", "lumaflip", "cutout"}))
def test_every_image_gets_a_draw_of_its_own(transform: str):
    images = drawn_images(1, 3, 8, 8).expand(12, -1, -1, -1)
    augmented = AugmentPipe([transform])(images, p=1.0, generator=seeded())
    distances = torch.cdist(augmented.flatten(1), augmented.flatten(1)) + torch.eye(12)
    assert distances.min() > 1e-4


@pytest.mark.parametrize("p", [0.0, 0, torch.tensor(0.0)])
def test_p_0_returns_the_images_themselves(p):
    images = drawn_images(2, 3, 8, 8)
    assert EVERYTHING(images, p) is images


def test_sets_leave_out_what_the_product_forbids_and_nothing_else():
    left_out = {name: set(AUGMENTATION_SETS["bgc"]) - set(chosen) for name, chosen in AUGMENTATION_SETS.items()}
    assert len(AUGMENTATION_SETS["bgc"]) == 12
    assert left_out["keep_mirror"] == {"xflip"}
    assert left_out["keep_upright"] == TURNS
    assert left_out["keep_orientation"] == {"xflip"} | TURNS
    assert left_out["keep_color"] == HUES
    assert left_out["keep_intensity"] == HUES | {"brightness", "contrast"}
    assert left_out["keep_orientation_and_color"] == {"xflip"} | TURNS | HUES
    assert left_out["keep_orientation_and_intensity"] == {"xflip"} | TURNS | HUES | {"brightness", "contrast"}


def test_every_set_is_in_the_table():
    for name in AUGMENTATION_SETS:
        assert f"`{name}`" in ada.__doc__


def test_unknown_names_are_answered_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'bcg'.*bgc.*keep_orientation"):
        AugmentPipe.from_set("bcg")
    with pytest.raises(ValueError, match=r"'flip'.*xflip, rotate90"):
        AugmentPipe(["flip"])


def test_the_empty_set_returns_the_images_themselves():
    images = drawn_images(2, 3, 8, 8)
    assert AugmentPipe([])(images, 1.0) is images


@pytest.mark.parametrize("name", sorted(AUGMENTATION_SETS))
def test_a_p_on_an_accelerator_is_never_read_back(name: str):
    # Meta tensors have no values: an operation that would make the host wait for one raises.
    p = torch.empty((), device="meta")
    with pytest.raises(RuntimeError):
        p.item()
    images = torch.empty(2, 3, 16, 16, device="meta", requires_grad=True)
    augmented = AugmentPipe.from_set(name)(images, p)
    assert augmented.shape == images.shape
    (gradient,) = torch.autograd.grad(augmented.square().sum(), images, create_graph=True)
    gradient.square().sum().backward()


@pytest.mark.parametrize("channels", [1, 3])
def test_first_and_second_derivatives(channels: int):
    images = drawn_images(2, channels, 4, 5, dtype=torch.float64).requires_grad_()

    def augment(x: torch.Tensor) -> torch.Tensor:
        return EVERYTHING(x, p=0.9, generator=seeded())

    assert not torch.allclose(augment(images), images, atol=0.1)
    assert torch.autograd.gradcheck(augment, images)
    assert torch.autograd.gradgradcheck(augment, images)


def test_r1_through_the_pipeline_trains_the_discriminator():
    images = drawn_images(2, 3, 8, 8, dtype=torch.float64).requires_grad_()
    weight = drawn_images(4, 3, 3, 3, dtype=torch.float64).requires_grad_()

    def r1(weight: torch.Tensor) -> torch.Tensor:
        augmented = AugmentPipe.from_set("bgc")(images, p=1.0, generator=seeded())
        logits = torch.nn.functional.conv2d(augmented, weight).tanh().sum((1, 2, 3))
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        return gradient.square().sum()

    assert torch.autograd.gradcheck(r1, weight)


def test_same_generator_state_same_augmentations():
    images, augment = drawn_images(6, 3, 16, 16), EVERYTHING
    first = augment(images, 0.7, generator=seeded(1))
    assert torch.equal(first, augment(images, 0.7, generator=seeded(1)))
    assert torch.equal(first, augment(images, torch.tensor(0.7), generator=seeded(1)))
    assert not torch.allclose(first, augment(images, 0.7, generator=seeded(2)))
    torch.manual_seed(1)
    default = augment(images, 0.7)
    torch.manual_seed(1)
    assert torch.equal(default, augment(images, 0.7))
    assert not torch.equal(default, augment(images, 0.7))


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_grey_images_are_augmented_as_colour_images_of_equal_channels(transform: str):
    grey = drawn_images(4, 1, 16, 16)
    augment = AugmentPipe([transform])
    if transform == "noise":  # drawn per channel
        assert augment(grey, 1.0, generator=seeded()).shape == grey.shape
        return
    augmented = augment(grey, 1.0, generator=seeded())
    in_colour = augment(grey.expand(-1, 3, -1, -1), 1.0, generator=seeded())
    torch.testing.assert_close(augmented.expand(-1, 3, -1, -1), in_colour, rtol=0, atol=1e-6)


def test_hue_and_saturation_leave_grey_alone_and_the_luma_flip_inverts_it():
    grey = drawn_images(16, 1, 4, 4)
    chroma = AugmentPipe(["hue", "saturation"])
    torch.testing.assert_close(chroma(grey, 1.0, generator=seeded()), grey)
    flips = (AugmentPipe(["lumaflip"])(grey, 1.0, generator=seeded()) / grey).flatten(1)
    torch.testing.assert_close(flips.abs(), torch.ones_like(flips))
    assert {tuple(row) for row in flips.round().tolist()} == {(1.0,) * 16, (-1.0,) * 16}


def test_colour_transforms_keep_what_they_promise():
    images = drawn_images(8, 3, 4, 4)
    luma = images.mean(1)
    chroma = (images - luma[:, None]).square().sum(1)

    def after(transform: str) -> tuple[torch.Tensor, torch.Tensor]:
        augmented = AugmentPipe([transform])(images, 1.0, generator=seeded(3))
        new_luma = augmented.mean(1)
        return new_luma, (augmented - new_luma[:, None]).square().sum(1)

    for transform in ("hue", "saturation"):
        torch.testing.assert_close(after(transform)[0], luma)
    for transform in ("hue", "lumaflip", "brightness"):
        torch.testing.assert_close(after(transform)[1], chroma)
    shift = after("brightness")[0] - luma
    torch.testing.assert_close(shift, shift[:, :1, :1].expand_as(shift))


def test_cutout_sets_a_quarter_of_the_area_to_mid_grey_or_less_at_the_border():
    images = torch.ones(200, 3, 16, 16)
    cut = AugmentPipe(["cutout"])(images, 1.0, generator=seeded())
    assert cut.unique().tolist() == [0, 1]
    area = (cut[:, 0] == 0).float().mean((1, 2))
    assert area.max() == 0.25
    assert 1 / 16 <= area.min() < 0.1


def test_noise_has_a_half_normal_standard_deviation():
    noisy = AugmentPipe(["noise"])(torch.zeros(500, 3, 16, 16), 1.0, generator=seeded())
    std = noisy.std((1, 2, 3))
    assert noisy.mean().abs() < 1e-3
    assert std.square().mean().sqrt().item() == pytest.approx(0.1, rel=0.1)
    assert std.min() < 0.005


def test_half_precision_and_autocast_compute_in_float32():
    images = drawn_images(2, 3, 16, 16)
    augment = AugmentPipe.from_set("bgc")
    exact = augment(images, 1.0, generator=seeded())
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augment(images, 1.0, generator=seeded()), exact)
    half = augment(images.half(), 1.0, generator=seeded())
    assert half.dtype == torch.float16
    torch.testing.assert_close(half.float(), exact, rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("images", "p", "message"),
    [
        (torch.zeros(2, 4, 8, 8), 0.5, r"C = 1 or 3.*\(2, 4, 8, 8\)"),
        (torch.zeros(3, 8, 8), 0.5, r"\(N, C, H, W\)"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 0.5, "floating point.*uint8"),
        (torch.zeros(2, 3, 8, 8), 1.5, r"`p`.*1\.5"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(2), r"`p`.*\(2,\)"),
    ],
)
def test_wrong_arguments_are_named(images, p, message):
    with pytest.raises(ValueError, match=message):
        AugmentPipe.from_set("bgc")(images, p)


# --- Images that are not square ---


@pytest.mark.parametrize("size", [(32, 128), (64, 32)])
def test_a_strip_stays_as_it_is_at_p_0_and_is_moved_by_whole_pixels(size: tuple[int, int]):
    images = drawn_images(4, 3, *size)
    assert EVERYTHING(images, 0.0) is images
    count = len(images)
    nothing = {name: torch.zeros(count) for name in ada._COLUMNS}
    shift = {"xint_x": torch.full((count,), 5.0), "xint_y": torch.full((count,), -2.0)}
    moved = ada.warp(images, ada.inverse_maps({**nothing, **shift}))
    torch.testing.assert_close(moved[..., 2:, :-5], images[..., :-2, 5:], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "turn", [{"rotate_before": math.pi / 6}, {"rotate90": 2.0}, {"scale": -0.3, "rotate_after": 2}]
)
def test_a_strip_is_turned_as_the_square_around_it(turn: dict[str, float]):
    """Pixel for pixel: a disc stays a disc, and goes where it went."""
    y, x = torch.meshgrid(torch.arange(128.0) - 63.5, torch.arange(128.0) - 63.5, indexing="ij")
    square = ((x - 18) ** 2 + (y - 2) ** 2 < 64).float()[None, None]
    parameters = {name: torch.zeros(1) for name in ada._COLUMNS} | {k: torch.tensor([v]) for k, v in turn.items()}
    maps = ada.inverse_maps(parameters)
    expected = ada.warp(square, maps)
    assert (expected[..., 32:96, :] > 0.5).sum() > 150
    for view, cut in ((square, np.s_[..., 32:96, :]), (square.mT, np.s_[..., 32:96])):
        # What the filters add at the border is small.
        torch.testing.assert_close(ada.warp(view[cut], maps), ada.warp(view, maps)[cut], rtol=0, atol=5e-3)


def test_strips_are_turned_by_half_and_squares_by_quarters():
    names = frozenset({"rotate90"})
    for size, expected in (((8, 8), {0, 1, 2, 3}), ((8, 32), {0, 2})):
        draws = ada.Draws(200, 1.0, torch.device("cpu"), seeded())
        assert set(ada.draw_parameters(names, draws, *size)["rotate90"].tolist()) == expected


def test_strips_are_moved_by_their_own_height_and_width():
    draws = ada.Draws(500, 1.0, torch.device("cpu"), seeded())
    parameters = ada.draw_parameters(frozenset({"xint"}), draws, 32, 128)
    assert (parameters["xint_x"].abs().max(), parameters["xint_y"].abs().max()) == (16, 4)
