import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.pipelines.contact_sheet import contact_sheet

RED, BLUE = (255, 0, 0), (0, 0, 255)


def plain(colour, n):
    return [Image.new("RGB", (8, 8), colour)] * n


def places(sheet: Image.Image, colour) -> list[tuple[int, int]]:
    """Top-left corners of the pictures in a plain colour."""
    hit = np.all(np.asarray(sheet) == colour, axis=2)
    starts = hit & ~np.roll(hit, 1, axis=0) & ~np.roll(hit, 1, axis=1)
    return [(int(x), int(y)) for y, x in np.argwhere(starts)]


def test_every_picture_is_on_the_page_once():
    sheet = contact_sheet(
        {"a": plain(RED, 5), "b": plain(BLUE, 5)}, labels=list("01234"), title="five", picture_size=40
    )
    red, blue = places(sheet, RED), places(sheet, BLUE)
    assert len(red) == len(blue) == 5
    assert all(b[0] - r[0] == blue[0][0] - red[0][0] > 40 and b[1] == r[1] for r, b in zip(red, blue, strict=True))
    assert np.all(np.asarray(sheet) == RED, axis=2).sum() == 5 * 40 * 40
    assert len({x for x, _ in red}) == 2, "two groups side by side"


@pytest.mark.parametrize(("n", "groups", "used"), [(1, 2, 1), (5, 4, 3), (8, 2, 2), (3, 1, 1)])
def test_no_empty_groups(n, groups, used):
    sheet = contact_sheet({"a": plain(RED, n)}, groups=groups, picture_size=40)
    assert len({x for x, _ in places(sheet, RED)}) == used
    right = sheet.width - max(x for x, _ in places(sheet, RED)) - 40
    assert right < 20


def test_masks_stay_black_and_white():
    mask = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8))
    photo = Image.fromarray(np.array([[0, 200], [200, 0]], dtype=np.uint8))

    def levels(picture):
        sheet = contact_sheet({"": [picture]}, picture_size=40)
        middle = np.asarray(sheet)[-6 - 39 : -6, 6 : 6 + 39, 0]
        return len(np.unique(middle))

    assert levels(mask) == 2
    assert levels(photo) > 10


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {}, "`columns` must hold equally many"),
        ({"a": []}, {}, "`columns` must hold equally many"),
        ({"a": plain(RED, 2), "b": plain(RED, 1)}, {}, "{'a': 2, 'b': 1}"),
        ({"a": plain(RED, 2)}, {"labels": ["one"]}, "`labels` must hold 2 texts, .* holds 1"),
        ({"a": plain(RED, 2)}, {"groups": 0}, "`groups` must be at least 1, but is 0"),
    ],
)
def test_wrong_arguments(columns, options, message):
    with pytest.raises(ValueError, match=message):
        contact_sheet(columns, **options)
