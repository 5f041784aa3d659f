"""Pictures to look at: every sample is on the page once, masks stay two-valued, outlines leave the defect alone."""

import numpy as np
import pytest
import torch
from PIL import Image

from dfmgan_hf.sheets import OUTLINE, contact_sheet, outlined, save_sheet, sheet_of, stack, to_pixels

RED, BLUE = (255, 0, 0), (0, 0, 255)
PLAIN = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]


def places(sheet: Image.Image, colour: tuple[int, int, int]) -> list[tuple[int, int]]:
    """Top-left corners of the pictures in a plain colour."""
    hit = np.all(np.asarray(sheet) == colour, axis=2)
    starts = hit & ~np.roll(hit, 1, axis=0) & ~np.roll(hit, 1, axis=1)
    return [(int(x), int(y)) for y, x in np.argwhere(starts)]


def test_every_picture_is_on_the_page_once():
    sheet = contact_sheet([PLAIN] * 5, title="five", captions=list("01234"), picture_size=40)
    red, blue = places(sheet, RED), places(sheet, BLUE)
    assert len(red) == len(blue) == 5
    assert all(b[0] - r[0] == blue[0][0] - red[0][0] > 40 and b[1] == r[1] for r, b in zip(red, blue, strict=True))
    assert np.all(np.asarray(sheet) == RED, axis=2).sum() == 5 * 40 * 40
    assert len({x for x, _ in red}) == 2, "two samples side by side"


def test_captions_that_do_not_fit_at_all_end():
    assert contact_sheet([PLAIN[:1]], captions=["seed 1"], picture_size=4).width < 20


@pytest.mark.parametrize(("n", "columns", "used"), [(1, 2, 1), (5, 4, 4), (8, 2, 2), (3, 1, 1)])
def test_the_page_is_no_wider_than_its_samples(n, columns, used):
    sheet = contact_sheet([PLAIN[:1]] * n, columns=columns, picture_size=40)
    assert len({x for x, _ in places(sheet, RED)}) == used
    assert sheet.width - max(x for x, _ in places(sheet, RED)) - 40 < 20


def test_words_are_on_the_page_and_never_wider_than_a_sample():
    def ink(**words) -> np.ndarray:
        return np.asarray(contact_sheet([PLAIN] * 2, picture_size=40, **words)).min(axis=2)

    bare = ink()
    assert ink(title="a title").shape[0] > bare.shape[0]
    assert ink(headings=("a", "b")).shape[0] > bare.shape[0]
    long = ink(captions=["x" * 500, "y"])
    assert long.shape[1] == bare.shape[1]


def test_masks_stay_black_and_white():
    mask = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    photograph = Image.fromarray(np.array([[0, 200], [200, 0]], dtype=np.uint8))

    def levels(picture: Image.Image) -> int:
        sheet = contact_sheet([[picture, PLAIN[0]]], picture_size=40)
        (x, y), gap = places(sheet, RED)[0], 2
        return len(np.unique(np.asarray(sheet)[y : y + 39, x - 40 - gap : x - gap - 1, 0]))

    assert levels(mask) == 2
    assert levels(photograph) > 10


@pytest.mark.parametrize(
    ("samples", "options", "message"),
    [
        ([], {}, "`samples` must hold equally many"),
        ([[]], {}, "`samples` must hold equally many"),
        ([PLAIN, PLAIN[:1]], {}, r"holds \[1, 2\]"),
        ([PLAIN] * 2, {"captions": ["one"]}, "`captions` must hold 2 texts or none, but holds 1"),
        ([PLAIN], {"headings": ["one"]}, "`headings` must hold 2 texts or none, but holds 1"),
        ([PLAIN], {"columns": 0}, "`columns` must be at least 1, but is 0"),
    ],
)
def test_wrong_arguments(samples, options, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(samples, **options)


def test_pages_under_each_other():
    page = stack([Image.new("RGB", (30, 10), RED), Image.new("RGB", (20, 5), BLUE)])
    assert page.size == (30, 15)
    assert [page.getpixel(corner) for corner in ((29, 9), (19, 14), (29, 14))] == [RED, BLUE, (255, 255, 255)]


def test_an_outline_shows_a_defect_of_one_pixel_and_does_not_cover_it():
    mask = np.zeros((400, 400), dtype=np.uint8)
    mask[200, 200] = 1
    picture = np.asarray(outlined(Image.new("L", (400, 400), 90), Image.fromarray(mask), size=100))
    line = np.all(picture == OUTLINE, axis=2)
    assert picture.shape == (100, 100, 3)
    assert line.sum() == 5 * 5 - 1
    assert tuple(picture[50, 50]) == (90, 90, 90)


def test_network_output(tmp_path):
    images = torch.tensor([-1.0, 0.0, 1.0, 9.0]).view(4, 1, 1, 1).expand(4, 1, 8, 8)
    assert to_pixels(images)[:, 0, 0, 0].tolist() == [0, 128, 255, 255]
    assert to_pixels(images).shape == (4, 3, 8, 8)
    sheet = sheet_of(images, images[:, :, :4, :4], headings=("large", "small"))
    saved = Image.open(save_sheet(sheet, tmp_path / "new folder" / "sheet.png"))
    assert np.array_equal(saved, sheet)
    assert (np.asarray(sheet) == 128).all(axis=2).sum() >= 2 * 96 * 96


def test_strips_waste_no_room():
    strips = sheet_of(torch.zeros(8, 1, 32, 128), columns=4)
    assert (strips.width, strips.height) == (4 * 204 + 6, 2 * 60 + 18)
    assert sheet_of(torch.zeros(8, 1, 32, 32), columns=4).height > strips.height
