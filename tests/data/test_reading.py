"""Photographs and masks of every encoding decode to the same pixels."""

from __future__ import annotations

import struct
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from dfmgan_hf.data import DataConfig, DataError, load_training_set
from dfmgan_hf.data.preparation import inspect
from dfmgan_hf.data.reading import decode, image_to_array, read_image, read_mask
from dfmgan_hf.data.records import ImageRecord
from tests.data.conftest import draw_mask, draw_photograph, save

GREY = draw_photograph(0)
RGB = np.stack([GREY, 255 - GREY, GREY // 2], axis=2)
DEFECT = draw_mask(0)


def _palette(indices: np.ndarray, colours: list[int]) -> Image.Image:
    image = Image.fromarray(indices.astype(np.uint8)).convert("L")
    image = Image.frombytes("P", image.size, image.tobytes())
    image.putpalette(colours)
    return image


def _encode(name: str) -> tuple[Image.Image, str, np.ndarray]:
    """Image, file ending, and the RGB that is expected of it."""
    grey_rgb = np.repeat(GREY[:, :, None], 3, axis=2)
    opaque = np.full_like(GREY, 255)
    if name == "grey8":
        return Image.fromarray(GREY), ".png", grey_rgb
    if name == "grey16_png":
        return Image.fromarray(GREY.astype(np.uint16) * 257), ".png", grey_rgb
    if name == "grey16_tiff":
        return Image.fromarray(GREY.astype(np.uint16) * 257), ".tif", grey_rgb
    if name == "grey32_tiff":
        return Image.fromarray(GREY.astype(np.int32) * 257), ".tif", grey_rgb
    if name == "rgb":
        return Image.fromarray(RGB), ".bmp", RGB
    if name == "rgba":
        return Image.fromarray(np.dstack([RGB, opaque])), ".png", RGB
    if name == "grey_alpha":
        return Image.fromarray(np.dstack([GREY, opaque]), mode="LA"), ".png", grey_rgb
    if name == "palette":
        levels = (GREY // 64) * 64
        colours = [value for level in range(256) for value in (level, 255 - level, 0)]
        expected = np.stack([levels, 255 - levels, np.zeros_like(levels)], axis=2)
        return _palette(levels, colours), ".png", expected
    if name == "bilevel":
        return Image.fromarray(GREY > 128), ".png", np.where(grey_rgb > 128, 255, 0).astype(np.uint8)
    raise KeyError(name)


@pytest.mark.parametrize(
    "name",
    ["grey8", "grey16_png", "grey16_tiff", "grey32_tiff", "rgb", "rgba", "grey_alpha", "palette", "bilevel"],
)
def test_photographs_of_any_encoding_become_8_bit_rgb(tmp_path: Path, name: str) -> None:
    image, ending, expected = _encode(name)
    image.save(path := tmp_path / f"photo{ending}")
    read = read_image(path)
    assert read.dtype == np.uint8
    np.testing.assert_array_equal(read, expected)


def test_colour_becomes_luma_for_one_channel(tmp_path: Path) -> None:
    path = save(RGB, tmp_path / "photo.png")
    expected = RGB @ np.array([0.299, 0.587, 0.114])
    read = read_image(path, channels=1)
    assert read.shape == (*GREY.shape, 1)
    assert np.abs(read[:, :, 0] - expected).max() <= 1


def test_transparent_pixels_are_laid_over_black(tmp_path: Path) -> None:
    alpha = np.where(DEFECT, 0, 255).astype(np.uint8)
    path = save(np.dstack([RGB, alpha]), tmp_path / "photo.png")
    np.testing.assert_array_equal(read_image(path), np.where(DEFECT[:, :, None], 0, RGB))


def test_an_alpha_of_nothing_but_zeros_means_nothing() -> None:
    deep = GREY.astype(np.uint16) << 8
    for picture in (deep, np.dstack([deep, deep, deep])):
        read = image_to_array(np.dstack([picture, np.zeros_like(deep)]), 3)
        np.testing.assert_array_equal(read, np.repeat(GREY[:, :, None], 3, axis=2))


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("ending", [".png", ".tif", ".webp"])
def test_exif_rotated_photographs_and_masks_are_turned_upright(tmp_path: Path, ending: str, orientation: int) -> None:
    """Uncompressed grey TIFF among them, which Pillow scrambles on quarter turns if it is given a path."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, upright in (("grey", GREY), ("rgb", RGB), ("mask", np.where(DEFECT, 255, 0).astype(np.uint8))):
        stored = np.ascontiguousarray(_as_the_camera_stores_it(upright, orientation))
        options = {"lossless": True} if ending == ".webp" else {}
        Image.fromarray(stored).save(tmp_path / f"{name}{ending}", exif=exif, **options)
    np.testing.assert_array_equal(read_image(tmp_path / f"grey{ending}", 1)[:, :, 0], GREY)
    np.testing.assert_array_equal(read_image(tmp_path / f"rgb{ending}"), RGB)
    np.testing.assert_array_equal(read_mask(tmp_path / f"mask{ending}").defect, DEFECT)
    assert decode(tmp_path / f"grey{ending}").is_rotated is (orientation in range(2, 9))


def _as_the_camera_stores_it(upright: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes what a viewer does for an EXIF orientation: 1 nothing, 2 mirror, 3 half a turn, ..., 8 a quarter turn."""
    turned = {3: 2, 4: 2, 5: 1, 6: 1, 7: 3, 8: 3}.get(orientation, 0)  # 0 and from 9 on, they mean nothing
    stored = np.rot90(upright, turned)
    if orientation in (2, 4):
        return stored[:, ::-1]
    return stored[::-1] if orientation in (5, 7) else stored


def test_bit_depth_of_the_camera_is_scaled_to_the_full_range(tmp_path: Path) -> None:
    path = save(GREY.astype(np.uint16) * 16 + 15, tmp_path / "photo.png")
    np.testing.assert_array_equal(read_image(path, 1, bit_depth=12)[:, :, 0], GREY)
    with pytest.raises(DataError, match=r"photo\.png: samples from .*bit_depth=10.*--bit_depth"):
        read_image(path, bit_depth=10)


def test_bit_depth_holds_for_16_bit_colour_too(tmp_path: Path) -> None:
    for channels in (RGB, np.dstack([RGB, np.full_like(GREY, 255)])):
        samples = channels.astype(np.uint16) * 16
        if samples.shape[2] == 4:
            samples[:, :, 3] = 65535
        path = _save_deep(samples, tmp_path / "photo.png")
        np.testing.assert_array_equal(read_image(path, bit_depth=12), RGB)
        with pytest.raises(DataError, match=r"photo\.png: samples from .*bit_depth=10.*--bit_depth"):
            read_image(path, bit_depth=10)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_photographs_of_16_bit_colour_keep_their_upper_bits(tmp_path: Path, ending: str) -> None:
    path = _save_deep(RGB.astype(np.uint16) * 256 + 255, tmp_path / f"photo{ending}")
    np.testing.assert_array_equal(read_image(path), RGB)
    grey = np.repeat(read_image(path, channels=1), 3, axis=2)
    assert np.abs(grey - RGB @ np.array([0.299, 0.587, 0.114])[:, None]).max() <= 1


def test_floating_point_photographs_are_refused_with_advice(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.float32)).save(path := tmp_path / "photo.tif")
    with pytest.raises(DataError, match=r"floating-point samples.*8 or 16 bits"):
        read_image(path)


def _encode_mask(name: str) -> tuple[Image.Image, str]:
    ones = DEFECT.astype(np.uint8)
    black = np.zeros_like(ones)
    opaque = np.full_like(ones, 255)
    masks = {
        "0_1": lambda: Image.fromarray(ones),
        "0_255": lambda: Image.fromarray(ones * 255),
        "bilevel": lambda: Image.fromarray(DEFECT),
        "palette_index_1": lambda: _palette(ones, [0, 0, 0, 128, 0, 0]),
        "palette_black_for_both": lambda: _palette(ones, [0, 0, 0, 0, 0, 0]),
        "palette_white_background": lambda: _palette(ones, [255, 255, 255, 200, 0, 0]),
        "palette_of_an_editor": lambda: Image.fromarray(np.dstack([ones * 255] * 3)).quantize(2),
        "gif": lambda: Image.fromarray(np.dstack([ones * 255] * 3)),
        "two_colour_bitmap": lambda: _palette(ones, [0, 0, 0, 255, 255, 255]),
        "rgb_red_1": lambda: Image.fromarray(np.dstack([ones, black, black])),
        "rgb_white": lambda: Image.fromarray(np.dstack([ones * 255] * 3)),
        "rgba_opaque": lambda: Image.fromarray(np.dstack([black, ones, black, opaque])),
        "rgba_alpha_only": lambda: Image.fromarray(np.dstack([black, black, black, ones * 255])),
        "rgba_white_behind_alpha": lambda: Image.fromarray(np.dstack([opaque, opaque, opaque, ones * 255])),
        "grey_alpha": lambda: Image.fromarray(np.dstack([ones * 255, opaque]), mode="LA"),
        "16_bit_1": lambda: Image.fromarray(ones.astype(np.uint16)),
        "16_bit_65535": lambda: Image.fromarray(ones.astype(np.uint16) * 65535),
        "32_bit_1": lambda: Image.fromarray(ones.astype(np.int32)),
        "float_0_1": lambda: Image.fromarray(ones.astype(np.float32)),
    }
    endings = {"32_bit_1": ".tif", "float_0_1": ".tif", "gif": ".gif", "two_colour_bitmap": ".bmp"}
    return masks[name](), endings.get(name, ".png")


MASKS = [
    "0_1",
    "0_255",
    "bilevel",
    "palette_index_1",
    "palette_black_for_both",
    "palette_white_background",
    "palette_of_an_editor",
    "gif",
    "two_colour_bitmap",
    "rgb_red_1",
    "rgb_white",
    "rgba_opaque",
    "rgba_alpha_only",
    "rgba_white_behind_alpha",
    "grey_alpha",
    "16_bit_1",
    "16_bit_65535",
    "32_bit_1",
    "float_0_1",
]


@pytest.mark.parametrize("name", MASKS)
def test_any_non_zero_is_defect_whatever_the_encoding(tmp_path: Path, name: str) -> None:
    image, ending = _encode_mask(name)
    image.save(path := tmp_path / f"mask{ending}")
    mask = read_mask(path)
    np.testing.assert_array_equal(mask.defect, DEFECT)
    assert not mask.is_soft


@pytest.mark.parametrize("samples", [DEFECT, np.where(DEFECT, 255, 0).astype(np.uint8)], ids=["bilevel", "grey8"])
def test_zero_is_the_background_of_a_mask_even_where_tiff_calls_it_white(tmp_path: Path, samples: np.ndarray) -> None:
    """As tifffile writes boolean arrays, and ImageJ its binary images."""
    tifffile.imwrite(tmp_path / "mask.tif", samples, photometric="miniswhite")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif").defect, DEFECT)
    # A photograph shows what it says.
    seen = read_image(tmp_path / "mask.tif", 1)[:, :, 0]
    np.testing.assert_array_equal(seen, np.where(DEFECT, 0, 255))


def test_fax_compression_is_taken_at_its_word(tmp_path: Path) -> None:
    Image.fromarray(DEFECT).save(tmp_path / "mask.tif", compression="group4")
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif").defect, DEFECT)


OLD_IMAGECODECS = pytest.mark.skipif(sys.version_info < (3, 11), reason="imagecodecs of Python 3.10 reads no 4 bits")


@pytest.mark.parametrize("bits", [1, pytest.param(4, marks=OLD_IMAGECODECS), 8])
def test_bitmaps_of_two_colours_are_read_with_their_own_bits(tmp_path: Path, bits: int) -> None:
    """Pillow takes 4 and 8 bits for 1 if the palette is black and white, and sees nothing but black."""
    stride = (DEFECT.shape[1] * bits + 31) // 32 * 4
    binary = np.unpackbits(DEFECT.astype(np.uint8)[:, :, None], axis=2)[:, :, 8 - bits :].reshape(len(DEFECT), -1)
    rows = b"".join(np.packbits(row).tobytes().ljust(stride, b"\0") for row in binary[::-1])
    header = struct.pack("<IiiHHIIiiII", 40, DEFECT.shape[1], DEFECT.shape[0], 1, bits, 0, len(rows), 2835, 2835, 2, 0)
    palette = bytes([0, 0, 0, 0, 255, 255, 255, 0])
    file = struct.pack("<2sIHHI", b"BM", 62 + len(rows), 0, 0, 62) + header + palette + rows
    (tmp_path / "mask.bmp").write_bytes(file)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.bmp").defect, DEFECT)
    np.testing.assert_array_equal(read_image(tmp_path / "mask.bmp", 1)[:, :, 0], np.where(DEFECT, 255, 0))


def test_more_pixels_than_is_safe_are_refused_with_their_number(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"photo\.png: more pixels than .*1920 pixels.*--max_megapixels"):
        read_image(save(GREY, tmp_path / "photo.png"))


def test_grey_values_count_as_defect_and_are_reported(tmp_path: Path) -> None:
    soft = np.where(DEFECT, 255, 0).astype(np.uint8)
    soft[0, 0], soft[0, 1] = 1, 127
    mask = read_mask(save(soft, tmp_path / "mask.png"))
    assert mask.is_soft
    assert mask.defect[0, 0]
    assert mask.defect[0, 1]
    assert mask.defect.sum() == DEFECT.sum() + 2


def _save_deep(samples: np.ndarray, path: Path) -> Path:
    """Writes uint16 (H, W, C), which Pillow reads but cannot write."""
    if path.suffix == ".png":
        path.write_bytes(imagecodecs.png_encode(samples))
    else:
        tifffile.imwrite(path, samples, photometric="rgb")
    return path


def _deep_mask(channels: int) -> np.ndarray:
    """Zeros and ones in the first of several 16-bit channels, uint16 (H, W, C); alpha, if any, is opaque."""
    samples = np.zeros((*DEFECT.shape, channels), dtype=np.uint16)
    if channels in (2, 4):
        samples[:, :, -1] = 65535
    samples[:, :, 0] = DEFECT
    return samples


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_16_bit_png_masks_with_small_values_do_not_turn_black(tmp_path: Path, channels: int) -> None:
    mask = read_mask(_save_deep(_deep_mask(channels), tmp_path / "mask.png"))
    np.testing.assert_array_equal(mask.defect, DEFECT)
    assert not mask.is_soft


@pytest.mark.parametrize("byte_order", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("channels", [3, 4])
def test_16_bit_tiff_masks_with_small_values_do_not_turn_black(
    tmp_path: Path, channels: int, planes: str, compression: str | None, byte_order: str
) -> None:
    samples = _deep_mask(channels)
    samples = np.moveaxis(samples, -1, 0) if planes == "separate" else samples
    path = tmp_path / "mask.tif"
    tifffile.imwrite(
        path,
        samples,
        byteorder=byte_order,
        compression=compression,
        planarconfig=planes,
        photometric="rgb",
        extrasamples=["unassalpha"] if channels == 4 else None,
    )
    np.testing.assert_array_equal(read_mask(path).defect, DEFECT)


def test_16_bit_alpha_alone_is_the_mask(tmp_path: Path) -> None:
    samples = np.zeros((*DEFECT.shape, 4), dtype=np.uint16)
    samples[:, :, 3] = DEFECT
    np.testing.assert_array_equal(read_mask(_save_deep(samples, tmp_path / "mask.png")).defect, DEFECT)


@pytest.mark.parametrize("orientation", range(10))
def test_16_bit_colour_is_turned_as_8_bit_colour_is(tmp_path: Path, orientation: int) -> None:
    tags = [("Orientation", "H", 1, orientation, True)]
    for name, samples in (("deep", RGB.astype(np.uint16) * 257), ("plain", RGB)):
        tifffile.imwrite(tmp_path / f"{name}.tif", samples, photometric="rgb", extratags=tags)
    deep, plain = (read_image(tmp_path / f"{name}.tif") for name in ("deep", "plain"))
    np.testing.assert_array_equal(deep, plain)
    assert np.array_equal(plain, RGB) is (orientation not in range(2, 9))
    assert decode(tmp_path / "deep.tif").is_rotated is decode(tmp_path / "plain.tif").is_rotated


def test_deep_files_that_cannot_be_read_in_full_are_refused(tmp_path: Path) -> None:
    whole = _save_deep(_deep_mask(3), tmp_path / "whole.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[:-30])
    pixels = _deep_mask(3).astype(">u2").tobytes()
    (tmp_path / "netpbm.ppm").write_bytes(b"P6 48 40 65535\n" + pixels)
    tifffile.imwrite(tmp_path / "grey_alpha.tif", _deep_mask(2), photometric="minisblack", extrasamples=["unassalpha"])
    for name in ("cut.png", "netpbm.ppm", "grey_alpha.tif"):
        for read in (read_image, read_mask):
            with pytest.raises(DataError, match=rf"{name}: \d+ bytes that do not decode.*--skip_bad_files"):
                read(tmp_path / name)


def test_truncated_fake_empty_and_missing_files_are_named(tmp_path: Path) -> None:
    whole = save(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8), tmp_path / "whole.png")
    cases = {
        "truncated.png": whole.read_bytes()[:2000],
        "fake.jpg": b"<html>404 not found</html>",
        "empty.png": b"",
    }
    for name, content in cases.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"{name}: {len(content)} bytes that do not decode.*--skip_bad_files"):
            read_image(path)
    with pytest.raises(DataError, match=r"missing\.png: there is no such file"):
        read_image(tmp_path / "missing.png")


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_tiff_files_of_several_pages_that_break_off_anywhere_are_named(tmp_path: Path, dtype) -> None:
    whole, path = tmp_path / "whole.tif", tmp_path / "part.tif"
    pages = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (3, 24, 24, 3), dtype=dtype)
    tifffile.imwrite(whole, pages, photometric="rgb")
    content = whole.read_bytes()
    errors = set()
    for length in range(8, len(content), 40):
        path.write_bytes(content[:length])
        errors |= {error.code for error in inspect(ImageRecord("part.tif", path, None, "good", "train"))[0].errors}
    assert errors == {"unreadable"}


def test_files_that_may_not_be_read_say_so(tmp_path: Path, monkeypatch) -> None:
    path = save(RGB, tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read all files
    with pytest.raises(DataError, match=r"a\.png: a file that you may not read"):
        read_image(path)


def test_errors_survive_the_way_home_from_a_worker_process(tmp_path: Path) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, pytest.raises(DataError) as caught:
        pool.submit(read_image, tmp_path / "missing.png").result()
    assert caught.value.code == "unreadable"
    assert caught.value.path == str(tmp_path / "missing.png")
    assert "there is no such file" in str(caught.value)


# What was decoded is looked at


def _bitmap_with_alpha(path: Path, rgb: np.ndarray, alpha: int) -> Path:
    """Writes a bitmap of 32 bits with a header that declares alpha, as frame grabbers do."""
    height, width = rgb.shape[:2]
    rows = np.dstack([rgb[:, :, ::-1], np.full((height, width), alpha, np.uint8)])[::-1].tobytes()
    masks = struct.pack("<LLLL", 0xFF0000, 0xFF00, 0xFF, 0xFF000000) + bytes(52)
    header = struct.pack("<LllHHLLllLL", 108, width, height, 1, 32, 3, len(rows), 2835, 2835, 0, 0) + masks
    path.write_bytes(
        b"BM" + struct.pack("<LHHL", 14 + len(header) + len(rows), 0, 0, 14 + len(header)) + header + rows
    )
    return path


def test_where_all_is_transparent_the_colours_count(tmp_path: Path) -> None:
    zero = np.zeros_like(GREY)
    files = [
        _bitmap_with_alpha(tmp_path / "grabber.bmp", RGB, 0),
        save(np.dstack([RGB, zero]), tmp_path / "rgba.png"),
        _save_deep(np.dstack([RGB, zero]).astype(np.uint16) * 257, tmp_path / "deep.png"),
    ]
    for path in files:
        np.testing.assert_array_equal(read_image(path), RGB, err_msg=path.name)
        grey = read_image(path, 1)[:, :, 0]
        assert np.abs(grey - RGB @ np.array([0.299, 0.587, 0.114])).max() <= 1


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("extra", ["unspecified", "missing"])
@pytest.mark.parametrize("infrared", [0, 100])
def test_a_fourth_channel_is_alpha_only_where_tiff_says_so(tmp_path: Path, dtype, extra: str, infrared: int) -> None:
    """Of RGB and infrared, the infrared is no transparency."""
    scale = 257 if dtype == np.uint16 else 1
    samples = np.dstack([RGB, np.full_like(GREY, infrared)]).astype(dtype) * scale
    tifffile.imwrite(tmp_path / "rgbi.tif", samples, photometric="rgb", extrasamples=["unspecified"])
    if extra == "missing":  # the tag becomes one that nobody knows
        content = (tmp_path / "rgbi.tif").read_bytes()
        assert content.count(struct.pack("<HHI", 338, 3, 1)) == 1
        (tmp_path / "rgbi.tif").write_bytes(
            content.replace(struct.pack("<HHI", 338, 3, 1), struct.pack("<HHI", 337, 3, 1))
        )
    np.testing.assert_array_equal(read_image(tmp_path / "rgbi.tif"), RGB)


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("bit_depth", [12, 16])
def test_16_bit_white_is_zero_is_no_negative(tmp_path: Path, bit_depth: int, byteorder: str) -> None:
    samples = (255 - GREY.astype(np.uint16)) << (bit_depth - 8)
    tifffile.imwrite(tmp_path / "photo.tif", samples, photometric="miniswhite", byteorder=byteorder)
    np.testing.assert_array_equal(read_image(tmp_path / "photo.tif", 1, bit_depth)[:, :, 0], GREY)
    # Of a mask, zero is the background.
    tifffile.imwrite(tmp_path / "mask.tif", DEFECT.astype(np.uint16), photometric="miniswhite", byteorder=byteorder)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.tif").defect, DEFECT)


@pytest.mark.parametrize("compression", [None, "lzw", "deflate"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_cmyk_is_read_as_such_or_refused(tmp_path: Path, dtype, planes: str, compression: str | None) -> None:
    black = 255 - RGB.max(axis=2)
    ink = np.dstack([255 - RGB, black]).astype(dtype) * (257 if dtype == np.uint16 else 1)
    stored = np.moveaxis(ink, -1, 0) if planes == "separate" else ink
    path = tmp_path / "photo.tif"
    tifffile.imwrite(path, stored, photometric="separated", planarconfig=planes, compression=compression)
    if dtype == np.uint16 and planes == "separate" and compression is None:
        with pytest.raises(DataError, match="16-bit CMYK in planes"):
            read_image(path)
        return
    expected = RGB.astype(float) * (255 - black)[:, :, None] / 255
    assert np.abs(read_image(path) - expected).max() <= 1
    if dtype == np.uint16:  # small values would be lost
        with pytest.raises(DataError, match="a mask in 16-bit CMYK"):
            read_mask(path)


def test_deep_colour_of_another_space_is_refused_in_words(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "lab.tif", RGB.astype(np.uint16) * 257, photometric="cielab")
    with pytest.raises(DataError, match=r"lab\.tif: .*(another space than RGB and CMYK|do not decode)"):
        read_image(tmp_path / "lab.tif")


def test_large_photographs_are_allowed_by_an_option(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    folder = save(GREY, tmp_path / "good" / "photo.png").parent
    save(255 - GREY, folder / "other.png")
    source = DataConfig(good_dir=folder)
    with pytest.raises(DataError, match=r"more pixels than are decoded safely .*--max_megapixels"):
        load_training_set(source, resolution=32)
    assert len(load_training_set(replace(source, max_megapixels=1), resolution=32)) == 2
    # With a cache, which holds them from then on: another process, which allows less, does not get them.
    source = replace(source, cache_dir=tmp_path / "cache")
    assert len(load_training_set(replace(source, max_megapixels=1), resolution=32)) == 2
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    with pytest.raises(DataError, match=r"more pixels than are decoded safely .*--max_megapixels"):
        load_training_set(source, resolution=32)
    with pytest.raises(ValueError, match="`max_megapixels` must be at least 1"):
        load_training_set(replace(source, max_megapixels=0), resolution=32)
