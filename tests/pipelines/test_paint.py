"""Painting: everything outside of the label stays bit for bit, one seed paints the same, and bad input is told."""

import dataclasses
import io
import json
import re
import warnings
from contextlib import suppress
from itertools import pairwise
from types import SimpleNamespace

import imagecodecs
import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from safetensors import SafetensorError

from dfmgan_hf import DFMGANPipeline, painting
from dfmgan_hf.data.reading import read_image
from dfmgan_hf.data.records import DataError
from dfmgan_hf.painting import PaintConfig, TwinIndex, faded, windows_around
from dfmgan_hf.photograph import PaintError, Photograph

WINDOW = 40


@pytest.fixture(autouse=True)
def _few_twins_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(painting, "NUM_TWINS", 4)


@pytest.fixture
def grey_pipe(make_generator) -> DFMGANPipeline:
    pipe = DFMGANPipeline(make_generator(image_channels=1))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def photograph(height: int = 90, width: int = 120, channels: int = 0, highest: int = 255) -> np.ndarray:
    """Noise around a middle grey, uint8 or uint16; no channels: (H, W)."""
    shape = (height, width, channels) if channels else (height, width)
    dtype = np.uint8 if highest == 255 else np.uint16
    return np.random.default_rng(height).integers(highest // 3, highest * 2 // 3, shape).astype(dtype)


def disc(height: int = 90, width: int = 120, radius: int = 9) -> np.ndarray:
    y, x = np.mgrid[:height, :width]
    return (y - height // 2) ** 2 + (x - width // 2) ** 2 < radius**2


def paint(pipe, pictures, **options):
    options = {"window": WINDOW, "any_product": True, "seeds": [1], **options}
    return pipe.paint(pictures, **options)


def check_equal_outside(before, output, i: int = 0, *, mask: np.ndarray | None = None) -> None:
    """The label is not empty, within the mask, true to the pixel; everything else is as it was."""
    before, after, label = np.asarray(before), np.asarray(output.images[i]), np.asarray(output.labels[i])
    assert after.dtype == before.dtype
    assert after.shape == before.shape
    assert set(np.unique(label)) == {0, 255}
    wanted = np.asarray(output.masks[i]) == 255
    assert mask is None or np.array_equal(wanted, mask)
    assert not (label[~wanted]).any(), "a pixel outside of the mask is labelled"
    changed = after != before
    changed = changed.any(axis=2) if changed.ndim == 3 else changed
    assert np.array_equal(changed, label == 255)


# What is outside of the label


@pytest.mark.parametrize("channels", [0, 1, 2, 3, 4])
@pytest.mark.parametrize(("highest", "bit_depth"), [(255, 16), (65535, 16), (4095, 12)])
def test_arrays_stay_as_they_were_outside_the_label(pipe, grey_pipe, channels, highest, bit_depth):
    before = photograph(channels=channels, highest=highest)
    mask = disc()
    for network in (pipe, grey_pipe):
        output = paint(network, before, mask=mask, bit_depth=bit_depth)
        check_equal_outside(before, output, mask=mask)
        assert output.images[0].max() <= highest
        if channels in (2, 4):
            assert np.array_equal(output.images[0][..., -1], before[..., -1])
        assert output.placements[0][0].box == painting.bounding_box(mask)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (41, 300), (300, 43), (2048, 2448)])
def test_sizes(grey_pipe, height, width):
    before = photograph(height, width)
    corner = (width - 15, height - 10, width, height)
    output = paint(grey_pipe, before, mask=corner)
    check_equal_outside(before, output)
    assert output.placements[0][0].box == corner


@pytest.mark.parametrize("window", [0, 32, 75])
def test_windows(pipe, window):
    before = photograph(channels=3)
    output = paint(pipe, before, mask=disc(), window=window)
    check_equal_outside(before, output, mask=disc())
    left, top, right, bottom = output.placements[0][0].window
    assert (right - left, bottom - top) == ((window, window) if window else (120, 90))


def picture_of(mode: str) -> Image.Image:
    if mode == "P with transparency":
        picture = Image.fromarray(photograph(channels=3)).quantize(200)
        picture.info["transparency"] = 3
        return picture
    if mode == "P":
        return Image.fromarray(photograph(channels=3)).quantize(200)
    if mode == "I":
        return Image.fromarray(photograph(highest=65535).astype(np.int32))
    channels = {"L": 0, "LA": 2, "RGB": 3, "RGBA": 4, "I;16": 0}[mode]
    return Image.fromarray(photograph(channels=channels, highest=65535 if mode == "I;16" else 255))


@pytest.mark.parametrize(
    ("mode", "painted_mode"),
    [
        *((mode, mode) for mode in ("L", "LA", "RGB", "RGBA", "I;16")),
        ("I", "I;16"),
        ("P", "RGB"),
        ("P with transparency", "RGBA"),
    ],
)
def test_pil_images_and_files(pipe, tmp_path, mode, painted_mode):
    picture = picture_of(mode)
    before = np.asarray(picture if mode == painted_mode else picture.convert(painted_mode) if mode != "I" else picture)
    before = before.astype(np.uint16) if mode == "I" else before
    path = tmp_path / "photograph.png"
    picture.save(path)
    for given in (picture, path, str(path)):
        output = paint(pipe, given, mask=disc())
        assert output.images[0].mode == painted_mode
        check_equal_outside(before, output, mask=disc())
    assert {image.mode for image in (*output.labels, *output.masks)} == {"L"}


def test_colour_of_16_bits_from_a_file_comes_as_an_array(pipe, tmp_path):
    before = photograph(channels=3, highest=65535)
    (tmp_path / "deep.tif").write_bytes(imagecodecs.tiff_encode(before))
    check_equal_outside(before, paint(pipe, tmp_path / "deep.tif", mask=disc()), mask=disc())


def test_files_are_turned_upright_and_keep_their_profile(pipe, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Camera"  # orientation (turn by 270 degrees), maker
    # On its side: upright, it is 90 high and 120 wide.
    sideways = Image.fromarray(photograph(120, 90, 3))
    sideways.save(tmp_path / "photograph.jpg", exif=exif, icc_profile=b"a profile", quality=95)
    with Image.open(tmp_path / "photograph.jpg") as file:
        before = np.asarray(file.transpose(Image.Transpose.ROTATE_270))
        from_image = paint(pipe, file, mask=disc())
    from_file = paint(pipe, tmp_path / "photograph.jpg", mask=disc())
    for output in (from_image, from_file):
        check_equal_outside(before, output, mask=disc())
        output.images[0].save(tmp_path / "painted.png", exif=output.images[0].getexif())
        with Image.open(tmp_path / "painted.png") as saved:
            assert np.array_equal(np.asarray(saved), np.asarray(output.images[0]))
            assert saved.info["icc_profile"] == b"a profile"
            assert saved.getexif().get(0x010F) == "Camera"
            assert saved.getexif().get(0x0112, 1) == 1, "it would be turned twice"


@pytest.mark.parametrize("bit_depth", [16, 12])
def test_a_file_whose_zeros_are_white_is_painted_as_the_positive(pipe, tmp_path, bit_depth):
    before = photograph(highest=2**bit_depth - 1)
    tifffile.imwrite(tmp_path / "negative.tif", 2**bit_depth - 1 - before, photometric="miniswhite")
    tifffile.imwrite(tmp_path / "positive.tif", before, photometric="minisblack")
    opened = Photograph.open(tmp_path / "negative.tif", bit_depth)
    assert np.array_equal(opened.restore(opened.pixels), before)
    view = opened.view((0, 0, 120, 90), (90, 120), 1)[0].numpy()
    assert np.array_equal((view * 255).round(), read_image(tmp_path / "negative.tif", 1, bit_depth)[:, :, 0])
    output = paint(pipe, tmp_path / "negative.tif", mask=disc(), bit_depth=bit_depth)
    check_equal_outside(before, output, mask=disc())
    positive = paint(pipe, tmp_path / "positive.tif", mask=disc(), bit_depth=bit_depth)
    assert np.array_equal(output.images[0], positive.images[0])
    assert output.placements == positive.placements


@pytest.mark.parametrize("highest", [255, 65535])
@pytest.mark.parametrize("channels", [2, 4])
def test_a_cut_out_is_compared_as_training_reads_it(tmp_path, channels, highest):
    before = photograph(channels=channels, highest=highest)
    before[..., -1] = 0
    unused = Photograph.open(before.copy())  # alpha of frame grabbers: it means nothing
    before[:, 60:, -1] = highest // 2
    before[:, 90:, -1] = highest
    (tmp_path / "cut_out.png").write_bytes(imagecodecs.png_encode(before))
    whole = (0, 0, 120, 90)
    for number in (1, 3):
        read = read_image(tmp_path / "cut_out.png", number).transpose(2, 0, 1)
        for opened in (Photograph.open(before), Photograph.open(tmp_path / "cut_out.png")):
            assert np.array_equal((opened.view(whole, (90, 120), number) * 255).round(), read)
            assert not opened.view((0, 0, 60, 90), (90, 60), number).any(), "though all of the window is transparent"
        assert unused.view(whole, (90, 120), number).min() > 0.2


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_transparent_colour_is_black_as_for_training(tmp_path, mode):
    picture = Image.new(mode, (40, 30), 7 if mode != "RGB" else (90, 80, 70))
    picture.paste(200 if mode != "RGB" else (200, 190, 180), (0, 0, 20, 30))
    picture.save(tmp_path / "key.png", transparency=7 if mode != "RGB" else (90, 80, 70))
    view = Photograph.open(tmp_path / "key.png").view((0, 0, 40, 30), (30, 40), 3)
    assert np.array_equal((view * 255).round(), read_image(tmp_path / "key.png").transpose(2, 0, 1))
    assert not view[:, :, 20:].any()


# Strength, exposure, grain, edge


def test_strength_is_monotone_and_nothing_at_zero(pipe):
    before = np.full((90, 120, 3), 128, dtype=np.uint8)
    labels, changes = [], []
    for strength in (0, 0.3, 1, 2):
        output = paint(pipe, before, mask=disc(), strength=strength, grain=False)
        labels.append(np.asarray(output.labels[0]) != 0)
        changes.append(np.abs(output.images[0].astype(int) - before).mean())
    assert not labels[0].any()
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2] < changes[3]
    for weaker, stronger in pairwise(labels):
        assert (weaker <= stronger).all()
    assert not np.asarray(paint(pipe, photograph(), mask=disc(), strength=0).labels[0]).any(), "nor does grain"


def test_a_defect_is_scaled_to_the_photographs_brightness(pipe):
    index = pipe._twin_index()
    twin = index.images[2].reshape(3, 32, 32)
    mask = np.zeros((32, 32), dtype=bool)
    mask[10:20, 10:20] = True
    for brightness, gain in ((1.0, 1.0), (0.8, 0.8), (0.1, 0.5)):
        distance, number, found = index.nearest(twin * brightness, mask)
        assert found == pytest.approx(gain, abs=1e-3)
        if brightness > 0.5:
            assert number == 2
            assert distance < 0.5


def test_grain_is_added_only_where_it_is_missing():
    noisy = photograph(60, 60, 1).astype(np.float32)
    weight = np.zeros((60, 60), dtype=np.float32)
    weight[10:50, 10:50] = 1
    same = noisy.copy()
    painting.add_grain(same, noisy, weight)
    assert np.array_equal(same, noisy)
    smooth = noisy.copy()
    smooth[10:50, 10:50] = 128
    painting.add_grain(smooth, noisy, weight)
    assert np.array_equal(smooth[weight == 0], noisy[weight == 0])
    assert smooth[15:45, 15:45].std() == pytest.approx(noisy[15:45, 15:45].std(), rel=0.2)


@pytest.mark.parametrize("width", [0.3, 1, 2, 5])
def test_a_defect_fades_in_within_its_mask(width):
    mask = disc(60, 60, 20)
    weight = faded(mask, width)
    assert not weight[~mask].any()
    assert weight[30, 30] == 1
    assert (weight[mask] > 0).all()
    across = weight[30, 30:]
    assert (np.diff(across) <= 0).all()
    reach = max(round(width), 1)
    # By definition: the root of the share of the square around a pixel that the mask covers.
    around = np.lib.stride_tricks.sliding_window_view(np.pad(mask, reach, mode="edge"), (2 * reach + 1,) * 2)
    expected = np.sqrt(around.mean(axis=(2, 3))) * mask
    np.testing.assert_allclose(weight, expected, atol=1e-6)
    assert not faded(np.zeros((5, 5), dtype=bool), width).any()


@pytest.mark.parametrize("strength", [0.5, 1])
def test_a_defect_hides_what_a_product_shows_there_but_not_a_texture(pipe, monkeypatch, strength):
    resolution = pipe.generator.config["resolution"]
    twin = torch.full((3, resolution, resolution), 0.4)
    monkeypatch.setattr(painting, "draw_defect", lambda *_: (twin + 0.2, twin))
    monkeypatch.setattr(TwinIndex, "nearest", lambda *_: (0.0, 0, 1.0))
    before = np.full((64, 64), 80, dtype=np.uint8)
    before[:, 32:] = 160
    flat = np.s_[16:48, [*range(14, 22), *range(42, 50)]]  # away from the edges
    mask = (10, 10, 54, 54)
    whole = paint(pipe, before, mask=mask, window=0, strength=strength, grain=False)
    np.testing.assert_allclose(whole.images[0][flat], (0.4 + 0.2 * strength) * 255, atol=2)
    patch = paint(pipe, before, mask=mask, window=60, strength=strength, grain=False)
    np.testing.assert_allclose(patch.images[0][flat], before[flat] + 0.2 * strength * 255, atol=2)
    check_equal_outside(before, whole)


def test_a_grey_defect_takes_on_the_products_colour():
    weight = np.ones((4, 4), dtype=np.float32)
    brown = np.broadcast_to(np.array([120, 80, 40], dtype=np.uint8), (4, 4, 3))
    np.testing.assert_allclose(painting.colour_cast(brown, weight), [1.5, 1, 0.5], rtol=1e-5)
    np.testing.assert_allclose(painting.colour_cast(brown * 0, weight), 1)


# The same seed, batches, lengths


def test_a_seed_paints_the_same_wherever_it_stands(pipe):
    first, second = photograph(), photograph(91, 121)
    alone = paint(pipe, first, seeds=[7], num_defects=2, flip=True)
    for output, i in (
        (paint(pipe, [first, first], seeds=[7], num_defects=2, flip=True), 1),
        (paint(pipe, [second, first], seeds=[3, 7], num_defects=2, flip=True), 1),
        (paint(pipe, [second, first], seeds=[7], num_defects=2, flip=True), 1),
        (paint(pipe, first, seeds=range(5, 9), num_defects=2, flip=True), 2),
    ):
        assert np.array_equal(output.images[i], alone.images[0])
        assert output.labels[i] == alone.labels[0]
        assert output.placements[i] == alone.placements[0]
    other = paint(pipe, first, seeds=[8], num_defects=2)
    assert other.placements[0] != alone.placements[0]


def test_lengths(pipe):
    first, second = photograph(), photograph(91, 121)
    assert len(paint(pipe, first, seeds=range(3)).images) == 3
    assert len(paint(pipe, first, mask=[disc(), (5, 5, 20, 20)], seeds=[1]).images) == 2
    output = paint(pipe, [first, second], mask=[(5, 5, 20, 20), disc(91, 121)], seeds=None)
    for i, before in enumerate((first, second)):
        check_equal_outside(before, output, i)
    for photographs, options, message in (
        ([first, second], {"seeds": range(3)}, "`photographs` must hold 1 or 3 entries"),
        ([first] * 3, {"mask": [disc(), disc()]}, "`mask` must hold 1 or 3 entries"),
        ([], {}, "`photographs` must hold at least one"),
    ):
        with pytest.raises(ValueError, match=message):
            paint(pipe, photographs, **options)


# Where


def test_several_defects(pipe):
    output = paint(pipe, photograph(), num_defects=3, region=(10, 10, 100, 80))
    check_equal_outside(photograph(), output)
    assert len(output.placements[0]) == 3
    boxes = [placement.box for placement in output.placements[0]]
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    assert painting.bounding_box(np.asarray(output.masks[0]) != 0) == (
        min(lefts),
        min(tops),
        max(rights),
        max(bottoms),
    )


def test_parts_that_are_far_apart_are_painted_each_in_a_window_of_its_own(pipe):
    before = photograph(2048, 2448, 3)
    first, last = np.zeros((2, 2048, 2448), dtype=bool)
    first[20:40, 10:30] = last[-40:-20, -30:-10] = disc(20, 20)
    output = paint(pipe, before, mask=first | last)
    check_equal_outside(before, output, mask=first | last)
    assert [placement.box for placement in output.placements[0]] == [*map(painting.bounding_box, (first, last))]
    changed = (output.images[0] != before).any(axis=2)
    for part in (first, last):
        assert changed[part].mean() > 0.5
        alone = paint(pipe, before, mask=part)
        assert np.array_equal(output.images[0][part], alone.images[0][part])
    assert all(window[2] - window[0] == WINDOW for window in (each.window for each in output.placements[0]))


def test_parts_that_one_window_holds_are_painted_together(pipe):
    mask = np.zeros((90, 120), dtype=bool)
    mask[5:10, 5:10] = mask[30:40, 30:40] = True  # 35 pixels across
    assert next(painting.split_mask(mask, 35)) is mask
    mask[80, 110] = mask[0:60, 60] = True  # far away, and larger than a window
    groups = [*painting.split_mask(mask, 35)]
    assert np.array_equal(np.sum(groups, axis=0), mask)
    assert sorted(map(painting.bounding_box, groups)) == [(5, 5, 40, 40), (60, 0, 61, 60), (110, 80, 111, 81)]
    assert next(painting.split_mask(mask, 0)) is mask
    with pytest.warns(UserWarning, match="1x60 pixels, but the model was trained on 40x40"):
        output = paint(pipe, photograph(), mask=mask)
    check_equal_outside(photograph(), output, mask=mask)
    sides = {each.box: each.window[2] - each.window[0] for each in output.placements[0]}
    assert sides == {(5, 5, 40, 40): 40, (60, 0, 61, 60): 75, (110, 80, 111, 81): 40}


def test_masks_of_all_kinds(pipe, tmp_path):
    box = np.zeros((90, 120), dtype=bool)
    box[20:40, 30:60] = True
    picture = Image.fromarray(box.astype(np.uint8) * 255)
    picture.save(tmp_path / "mask.png")
    layer = np.dstack([np.full((90, 120, 3), 255, np.uint8) * box[:, :, None], box.astype(np.uint8) * 200])
    opaque = np.dstack([box.astype(np.uint8) * 255] * 3 + [np.full((90, 120), 255, np.uint8)])
    kinds = [
        (30, 20, 60, 40),
        [30, 20, 60, 40],
        np.array([30, 20, 60, 40]),
        (30.4, 20.9, 59.1, 39.5),
        [(30, 20), (60, 20), (60, 40), (30, 40)],
        box,
        box.astype(np.float32),
        layer,
        opaque,
        picture,
        tmp_path / "mask.png",
        str(tmp_path / "mask.png"),
    ]
    opened = Photograph.open(photograph())
    for kind in kinds:
        assert np.array_equal(opened.region(kind, "mask"), box), kind
    for kind in kinds[:2]:
        check_equal_outside(photograph(), paint(pipe, photograph(), mask=kind), mask=box)
    clipped = opened.region((-10, -10, 5, 5), "region")
    assert painting.bounding_box(clipped) == (0, 0, 5, 5)


def test_region_forbidden_and_point(pipe):
    region, forbidden = (10, 10, 110, 80), (10, 10, 60, 80)
    for seed in range(4):
        output = paint(pipe, photograph(), region=region, forbidden=forbidden, seeds=[seed], size=0.4)
        left, top, right, bottom = output.placements[0][0].box
        assert left >= 60
        assert top >= 10
        assert right <= 110
        assert bottom <= 80
    (placement,) = paint(pipe, photograph(), point=(80, 30), size=0.3).placements[0]
    left, top, right, bottom = placement.box
    assert (left + right) / 2 == pytest.approx(80, abs=2)
    assert (top + bottom) / 2 == pytest.approx(30, abs=2)


def test_the_product_is_found(pipe):
    pytest.importorskip("cv2")
    before = np.full((90, 120), 240, dtype=np.uint8)
    before[20:80, 30:100] = photograph()[20:80, 30:100] // 2
    output = paint(pipe, before, region="product", size=0.4)
    left, top, right, bottom = output.placements[0][0].box
    assert left >= 28
    assert top >= 18
    assert right <= 102
    assert bottom <= 82
    with pytest.raises(PaintError, match="nothing stands out"):
        paint(pipe, photograph(), region="product")


def test_the_product_is_what_is_not_transparent():
    pytest.importorskip("cv2")
    before = np.full((90, 120, 4), 200, dtype=np.uint8)  # of one colour, also where nothing is
    before[..., 3] = 0
    before[20:80, 30:100, 3] = 255
    found = Photograph.open(before).region("product", "region")
    assert np.mean(found == (before[..., 3] > 0)) > 0.99


def test_integers_of_numpy_are_taken():
    config = PaintConfig(window=np.int64(16), bit_depth=np.uint8(12), num_defects=np.int32(2))
    assert json.dumps(dataclasses.asdict(config))
    assert {type(value) for value in (config.window, config.bit_depth, config.num_defects)} == {int}


def test_size_rotation_and_flip_of_drawn_masks():
    drawn = np.zeros((32, 32), dtype=bool)
    drawn[10:14, 8:20] = True
    drawn[10:20, 8:11] = True
    opened, everywhere = Photograph.open(photograph()), np.ones((90, 120), dtype=bool)

    def place(side=32, **options):
        chance = np.random.default_rng(0)
        config = PaintConfig(**options)
        placed = painting.place_mask(drawn, opened, side, everywhere, (60, 45), chance, config, stays=False)
        left, top, right, bottom = painting.bounding_box(placed)
        return placed[top:bottom, left:right]

    shape = drawn[10:20, 8:20]
    assert np.array_equal(place(), shape)
    assert place(size=2).shape == (20, 24)
    assert place(side=64).shape == (20, 24)
    assert place(size=0.05).sum() >= 1
    turned = place(rotation=90)
    assert abs(turned.shape[0] - 12) <= 1
    assert abs(turned.shape[1] - 10) <= 1
    assert (turned[:12, :10] == np.rot90(shape)[: turned.shape[0], : turned.shape[1]]).mean() > 0.9


def test_half_of_the_drawn_masks_are_mirrored(pipe):
    codes = list(zip(*pipe.latents_from_seeds(range(12)), strict=True))
    network = pipe.unwrapped_generator
    chance = np.random.default_rng(0)
    with torch.no_grad():
        plain = [m for m, _ in _some(painting.draw_masks(network, codes, PaintConfig(), chance))]
        flipped = [m for m, _ in _some(painting.draw_masks(network, codes, PaintConfig(flip=True), chance))]
    as_drawn = [np.array_equal(a, b) for a, b in zip(plain, flipped, strict=True)]
    mirrored = [np.array_equal(a[:, ::-1], b) for a, b in zip(plain, flipped, strict=True)]
    assert all(a or b for a, b in zip(as_drawn, mirrored, strict=True))
    assert any(as_drawn)
    assert any(mirrored)


def test_masks_that_the_border_cuts_off_come_last(monkeypatch):
    whole, cut, empty = np.full((3, 1, 1, 8, 8), -1.0)
    whole[0, 0, 2:5, 2:5] = 1
    cut[0, 0, 0:5, 2:5] = 1
    masks = {"cut": cut, "whole": whole, "empty": empty}

    class Network:
        device = torch.device("cpu")

        def __call__(self, latent, *_, **__):
            return SimpleNamespace(mask_logits=torch.from_numpy(masks[names[int(latent)]]))

    def drawn(**options):
        codes = [(torch.tensor(i), torch.tensor(i)) for i in range(len(names))]
        found = _some(painting.draw_masks(Network(), codes, PaintConfig(), np.random.default_rng(0), **options))
        return [int(defect) for _, defect in found]

    names = ["cut", "empty", "whole", "cut", "whole"]
    assert drawn() == [0, 2, 3, 4]
    assert drawn(whole_first=True) == [2, 4, 0, 3]
    monkeypatch.setattr(painting, "MAX_CUT_OFF", 1)
    assert drawn(whole_first=True) == [2, 3, 4, 0]


def _some(masks):
    with suppress(PaintError):  # when there are no more
        yield from masks


def test_a_mask_larger_than_the_window_is_painted_with_a_warning(pipe):
    box = (20, 20, 80, 70)
    with pytest.warns(UserWarning, match="60x50 pixels, but the model was trained on 40x40"):
        output = paint(pipe, photograph(), mask=box)
    check_equal_outside(photograph(), output)
    assert output.placements[0][0].window[2] - output.placements[0][0].window[0] == 75


@pytest.mark.parametrize(
    "box", [(0, 0, 3, 3), (117, 87, 120, 90), (0, 40, 40, 41), (50, 30, 51, 70), (33, 21, 72, 58)]
)
def test_every_window_holds_the_mask_and_lies_in_the_photograph(box):
    for left, top, right, bottom in windows_around(box, (90, 120), 40):
        assert 0 <= left <= box[0]
        assert 0 <= top <= box[1]
        assert box[2] <= right <= 120
        assert box[3] <= bottom <= 90
        assert right - left == bottom - top == 40


def test_the_window_is_what_the_model_says(make_generator):
    pipe = DFMGANPipeline(make_generator(window=50))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        output = pipe.paint(photograph(), mask=disc(), seeds=[1], any_product=True)
    assert output.placements[0][0].window[2] - output.placements[0][0].window[0] == 50
    pipe = DFMGANPipeline(make_generator())
    with pytest.warns(UserWarning, match="does not say how large a part"):
        output = pipe.paint(photograph(), mask=disc(), seeds=[1], any_product=True)
    assert output.placements[0][0].window == (0, 0, 120, 90)


@pytest.mark.parametrize(
    ("fit", "expected"),
    [("pad", "120x120 pixels: give it a border"), ("center_crop", "90x90 pixels: cut out its middle")],
)
def test_a_whole_photograph_is_not_stretched_unless_training_did(pipe, tmp_path, fit, expected):
    pipe.save_pretrained(tmp_path)
    loaded = DFMGANPipeline.from_pretrained(tmp_path)
    record = tmp_path / "training_config.json"
    for trained in ("resize", fit):
        record.write_text(json.dumps({"config": {"data": {"fit": trained}}}))
        paint(loaded, photograph(90, 90), mask=disc(90, 90), window=0)
        paint(loaded, photograph(), mask=disc())
        if trained == "resize":
            paint(loaded, photograph(), mask=disc(), window=0)
    with pytest.raises(PaintError, match=rf"is 120x90 pixels, but .* trained with --fit {fit}: .* {expected}"):
        paint(loaded, photograph(), mask=disc(), window=0)
    for other in ("[]", "no JSON", '{"config": {"data": {"fit": 7}}}'):
        record.write_text(other)
        paint(loaded, photograph(), mask=disc(), window=0)


# Twins


def test_an_index_of_twins_is_kept_and_drawn_anew_if_it_does_not_fit(pipe, tmp_path, monkeypatch, make_generator):
    drawn = []
    draw = painting._draw_twins
    monkeypatch.setattr(painting, "_draw_twins", lambda *a: drawn.append(1) or draw(*a))
    latents, _ = pipe.latents_from_seeds(range(4))
    network = pipe.unwrapped_generator
    index = TwinIndex.of(network, latents)
    (path,) = (tmp_path / "hub" / "dfmgan_hf").iterdir()
    whole = path.read_bytes()
    again = TwinIndex.of(network, latents)
    assert len(drawn) == 1
    assert torch.equal(again.images, index.images)
    with torch.no_grad():
        twins = network(latents, latents, noise_mode="const", return_defect_free=True).defect_free_images
    expected = ((twins.clamp(-1, 1) + 1) / 2).flatten(1)
    torch.testing.assert_close(index.images, expected, rtol=0, atol=0.51 / 255)
    flipped = bytearray(whole)
    flipped[-5] ^= 1
    for damaged in (whole[: len(whole) // 2], b"", bytes(flipped), b"\xff" * 100):
        path.write_bytes(damaged)
        again = TwinIndex.of(network, latents)
        assert torch.equal(again.images, index.images)
        assert path.read_bytes() == whole
    assert len(drawn) == 5
    # Another model has a file of its own, even if somebody copies one over it.
    other = make_generator(image_channels=1)
    TwinIndex.of(other, latents)
    (theirs,) = set(path.parent.iterdir()) - {path}
    theirs.write_bytes(whole)
    assert TwinIndex.of(other, latents).images.shape == (4, 32 * 32)
    assert theirs.read_bytes() != whole


@pytest.mark.parametrize("error", [OSError("read-only"), SafetensorError("no space left")])
def test_an_index_that_cannot_be_written_is_no_error(pipe, tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(painting.safetensors.torch, "save_file", fail)
    check_equal_outside(photograph(), paint(pipe, photograph(), mask=disc()))
    (tmp_path / "hub" / "dfmgan_hf").rmdir()
    monkeypatch.undo()
    monkeypatch.setattr(painting, "NUM_TWINS", 4)
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path / "a file"))
    (tmp_path / "a file").write_text("in the way")
    check_equal_outside(photograph(), paint(DFMGANPipeline(pipe.generator), photograph(), mask=disc()))


def test_the_index_follows_the_weights(pipe, monkeypatch):
    made = []
    of = TwinIndex.of.__func__
    monkeypatch.setattr(TwinIndex, "of", classmethod(lambda cls, *a: made.append(1) or of(cls, *a)))
    first = pipe._twin_index()
    assert pipe._twin_index() is first
    with torch.no_grad():
        pipe.generator.synthesis.blocks["32"].conv1.bias.add_(1.0)
    changed = pipe._twin_index()
    assert len(made) == 2
    assert not torch.equal(changed.images, first.images)
    monkeypatch.setattr(painting, "NUM_TWINS", 5)
    assert len(pipe._twin_index().images) == 5


def test_a_product_that_the_model_has_not_seen_is_refused(pipe):
    checkers = np.kron(np.indices((23, 30)).sum(axis=0) % 2, np.ones((4, 4)))[:90, :120].astype(np.uint8) * 255
    with pytest.raises(PaintError, match=r"nearest of 4 twins differs .* paint all the same with `any_product`"):
        paint(pipe, checkers, mask=disc(), any_product=False)
    check_equal_outside(checkers, paint(pipe, checkers, mask=disc(), any_product=True))
    image = pipe(seeds=[2]).defect_free_images[0]
    output = paint(pipe, image, mask=(8, 8, 24, 24), window=32, any_product=False, seeds=[0])
    assert output.placements[0][0].twin == 2
    assert output.placements[0][0].distance < 2


def test_a_polygon_holds_what_a_box_or_a_label_of_the_same_corners_does():
    opened = Photograph.open(photograph())
    for left, top, right, bottom in ((10, 10, 20, 20), (30, 40, 60, 42), (-500, 5, 8, 1e9)):
        corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
        assert np.array_equal(opened.region(corners, "mask"), opened.region((left, top, right, bottom), "mask"))
    with pytest.raises(PaintError, match=r"`mask` is an outline of 800000 corners .* give fewer corners"):
        opened.region([(1, 0), (2, 90)] * 400_000, "mask")


# What is refused


def png(picture: Image.Image) -> bytes:
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize(
    ("photographs", "options", "message"),
    [
        (photograph(), {"mask": np.zeros((90, 120))}, "`mask` is empty"),
        (photograph(), {"mask": np.full((90, 120), np.nan)}, "`mask` holds NaN or infinity"),
        (photograph(), {"mask": np.ones((120, 90))}, "`mask` is 90x120 pixels, but the photograph is 120x90"),
        (photograph(), {"mask": np.ones((0, 3))}, "`mask` must be a mask"),
        (photograph(), {"mask": (200, 0, 300, 50)}, "`mask` .* lies outside of the photograph, which is 120x90"),
        (photograph(), {"mask": (50, 0, 40, 50)}, r"`mask` must be .* a box \(left, top, right, bottom\)"),
        (photograph(), {"mask": (0, 0, np.nan, 50)}, "`mask` must be"),
        (photograph(), {"mask": [(1, 1), (30, 30)]}, r"`mask` must be .* a polygon"),
        (photograph(), {"mask": [(500, 1), (530, 30), (510, 60)]}, "`mask` .* lies outside"),
        (photograph(), {"mask": [(1e300, -9), (-1e300, -1), (1e300, -5)]}, "`mask` .* lies outside"),
        (photograph(), {"mask": [(3.1, 3.1), (3.3, 3.1), (3.3, 40)]}, "`mask` .* too thin to hold the centre"),
        (photograph(), {"mask": []}, "`mask` must be"),
        (photograph(), {"mask": 7}, r"`mask` must be .* 7 \(int\)"),
        (photograph(), {"mask": "no such file.png"}, "`mask` is 'no such file.png', but there is no such file"),
        (photograph(), {"region": "produkt"}, "`region` is 'produkt', .* only other word is 'product'"),
        (photograph(), {"region": disc(), "forbidden": disc()}, "No pixel of the photograph is in `region`"),
        (photograph(), {"region": (0, 0, 2, 2), "forbidden": (1, 1, 2, 2)}, "does not fit into the region"),
        (photograph(), {"mask": disc(), "region": disc()}, "`mask` shows where a defect goes, .* leave out `region`"),
        *(
            (photograph(), {"mask": disc(), **surplus}, f"`mask` shows where .* leave out `{next(iter(surplus))}`")
            for surplus in ({"num_defects": 2}, {"size": 2}, {"rotation": 45}, {"flip": True}, {"point": (5, 5)})
        ),
        (photograph(), {"point": (500, 3)}, r"`point\[0\]` must be a number from 0 to 120"),
        (photograph(), {"point": 5}, r"`point` must be \(x, y\)"),
        (photograph(), {"point": (1, 2, 3)}, r"`point` must be \(x, y\)"),
        (photograph(), {"size": 9}, "larger than the photograph"),
        (photograph(), {"strength": 5}, "`strength` must be a number from 0 to 4, but is 5"),
        (photograph(), {"strength": None}, "`strength` must be"),
        (photograph(), {"strength": np.nan}, "`strength` must be"),
        (photograph(), {"num_defects": 0}, "`num_defects` must be"),
        (photograph(), {"num_defects": 1.5}, "`num_defects` must be an integer"),
        (photograph(), {"window": 40.5}, "`window` must be an integer"),
        (photograph(), {"bit_depth": 9.5}, "`bit_depth` must be an integer"),
        (photograph(30, 30), {}, "30x30 pixels, smaller than the 40x40"),
        (
            photograph(10, 300),
            {"mask": (0, 0, 290, 9), "window": 8},
            "images is 10x10, and a defect is painted in one",
        ),
        (photograph() / 255.0, {}, r"must be uint8 or uint16 .* float64 of .*astype\(numpy\.uint8\)"),
        (np.zeros((0, 5), np.uint8), {}, r"must be uint8 or uint16 .* shape \(0, 5\)"),
        (np.zeros((9, 9, 5), np.uint8), {}, "has 5 channels"),
        (Image.new("L", (0, 5)), {}, r"shape \(5, 0\)"),
        (Image.new("CMYK", (60, 60)), {}, r"mode is CMYK, .* `.convert\('RGB'\)`"),
        (Image.new("1", (60, 60)), {}, "mode is 1, but must be one of L, LA, RGB"),
        (Image.new("F", (60, 60)), {}, "mode is F"),
        (Image.new("I", (60, 60), -5), {}, "samples are -5 to -5, but must be 0 to 65535"),
        (photograph(highest=65535), {"bit_depth": 12}, "above those of 12 bits: see `bit_depth`"),
        (None, {}, r"A photograph is a PIL image, an array or the path of a file, not None"),
        (b"photograph.png", {}, "A photograph is a PIL image"),
    ],
)
def test_bad_input_is_told(pipe, photographs, options, message):
    with pytest.raises(ValueError, match=message):
        paint(pipe, photographs, **options)


def test_which_of_several_photographs_is_bad(pipe, tmp_path):
    with pytest.raises(PaintError, match=r"^photographs\[1\]: The photograph's mode is CMYK"):
        paint(pipe, [photograph(), Image.new("CMYK", (60, 60))])
    Image.new("CMYK", (60, 60)).save(tmp_path / "print.jpg")
    with pytest.raises(PaintError, match=f"^{re.escape(str(tmp_path / 'print.jpg'))}: .* CMYK"):
        paint(pipe, tmp_path / "print.jpg")


def test_a_file_that_claims_to_be_enormous_is_not_decoded(pipe, tmp_path):
    import struct
    import zlib

    content = bytearray(png(Image.new("L", (8, 8))))
    content[16:24] = struct.pack(">II", 25_000, 20_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(DataError, match=r"bomb\.png.* more pixels than are decoded safely"):
        paint(pipe, tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"bomb\.png.* more pixels than are decoded safely"):
        paint(pipe, photograph(), mask=tmp_path / "bomb.png")


def test_of_an_animation_the_first_frame_is_painted(pipe, tmp_path):
    frames = [Image.fromarray(photograph(channels=3)), Image.new("RGB", (120, 90))]
    frames[0].save(tmp_path / "moving.png", save_all=True, append_images=frames[1:])
    check_equal_outside(frames[0], paint(pipe, tmp_path / "moving.png", mask=disc()), mask=disc())


def test_options_that_exclude_each_other(pipe, backbone_pipe):
    with pytest.raises(ValueError, match="Give `config` or strength, but not both"):
        pipe.paint(photograph(), config=PaintConfig(), strength=1.0)
    with pytest.raises(ValueError, match="backbone without defects"):
        backbone_pipe.paint(photograph())
    with pytest.raises(TypeError, match="strenght"):
        pipe.paint(photograph(), strenght=1.0)
