"""`dfmgan paint`: photographs in, a data set out whose labels are true to the pixel, resumable and told apart."""

import dataclasses
import io
import json
import shutil
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from dfmgan_hf import painting
from dfmgan_hf.data.reading import decode
from dfmgan_hf.data.records import DataError
from dfmgan_hf.export import ExportError
from dfmgan_hf.export.generate import _shown
from dfmgan_hf.export.paint import PaintSetConfig, find_photographs, paint_dataset
from dfmgan_hf.export.writers import WRITERS, Record, Sample, make_writer, record_of
from dfmgan_hf.painting import PaintConfig
from dfmgan_hf.photograph import PaintError

HOW = {"window": 40, "any_product": True}


@pytest.fixture(autouse=True)
def _few_twins_of_their_own(monkeypatch, tmp_path):
    monkeypatch.setattr(painting.constants, "HF_HOME", str(tmp_path / "hub"))
    monkeypatch.setattr(painting, "NUM_TWINS", 4)


@pytest.fixture
def model(pipe, tmp_path) -> str:
    pipe.save_pretrained(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.fixture
def good(tmp_path):
    """A folder of two photographs of different kinds: grey with 16 bits, and colour."""
    folder = tmp_path / "good"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(80, 170, (60, 70, 3)).astype(np.uint8)
    Image.fromarray(noise).save(folder / "colour.png")
    Image.fromarray(noise[:, :, 0].astype(np.uint16) * 257).save(folder / "deep.png")
    return folder


@pytest.fixture
def paint(model, good, tmp_path):
    def run(name: str = "out", how=HOW, **options):
        options = {"photographs": good, "num_images": 3, "device": "cpu", **options}
        paint_dataset(PaintSetConfig(output_dir=tmp_path / name, model=model, how=PaintConfig(**how), **options))
        return tmp_path / name

    return run


def test_pixels_outside_the_label_are_the_photographs(paint, good):
    folder = paint() / "object"
    for index, name in enumerate(("colour.png", "deep.png", "colour.png")):
        path = folder / "test" / "defect" / f"{index:06d}.png"
        before, after = (np.asarray(Image.open(file)) for file in (good / name, path))
        label = np.asarray(Image.open(folder / "ground_truth" / "defect" / f"{index:06d}_mask.png"))
        assert after.dtype == before.dtype
        changed = (after != before).any(axis=2) if after.ndim == 3 else after != before
        assert np.array_equal(changed, label == 255)
        assert label.any()
        twin = np.asarray(Image.open(folder / "test" / "good" / f"{index:06d}.png"))
        assert np.array_equal(twin, before)
        origin = json.loads(record_of(path).photograph)
        assert origin["file"] == name
        assert origin["defects"][0]["window"][2] - origin["defects"][0]["window"][0] == 40


def test_a_device_that_is_not_there_is_refused(paint):
    with pytest.raises(ValueError, match="`device` is 'abacus', which cannot be used here"):
        paint(device="abacus")


def test_the_card_calls_photographs_photographs(paint):
    text = (paint(format="parquet") / "README.md").read_text()
    assert "3 photographs that a model painted defects into" in text
    assert "Nothing here is a photograph" not in text
    assert "| truncation_psi |" not in text


@pytest.mark.parametrize("export_format", WRITERS)
def test_every_format_keeps_16_bits_in_colour(paint, tmp_path, export_format):
    folder = tmp_path / "deep"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(20000, 45000, (60, 70, 4)).astype(np.uint16)
    photographs = {f"{channels}.png": np.ascontiguousarray(pixels[:, :, :channels]) for channels in (2, 3, 4)}
    for name, before in photographs.items():
        (folder / name).write_bytes(imagecodecs.png_encode(before))
    out = paint(photographs=folder, format=export_format)
    config = PaintSetConfig(output_dir=out, model="", photographs=folder, num_images=3, format=export_format)
    samples = make_writer(config).read(3)
    for sample, (name, before) in zip(samples, photographs.items(), strict=True):
        (tmp_path / "image.png").write_bytes(sample.image)
        after = decode(tmp_path / "image.png").pixels
        label = imagecodecs.png_decode(sample.mask) == 255
        assert after.dtype == np.uint16
        assert np.array_equal((after != before).any(axis=2), label)
        assert label.any()
        assert np.array_equal(imagecodecs.png_decode(sample.defect_free), before)
        assert json.loads(sample.record.photograph)["file"] == name
        with Image.open(io.BytesIO(sample.image)) as image, Image.open(io.BytesIO(sample.defect_free)) as twin:
            image.verify()
            assert "seed" in image.info["synthetic"]
            assert "synthetic" not in twin.info


def test_photographs_keep_what_the_camera_wrote(paint, good):
    exif, noise = Image.Exif(), Image.open(good / "colour.png").convert("RGB")
    exif[0x0110] = "Camera"  # model
    for path in good.iterdir():
        path.unlink()
    noise.save(good / "a.jpg", exif=exif, dpi=(300, 300))
    noise.save(good / "b.jpg")
    out = paint(num_images=2)
    written = make_writer(PaintSetConfig(output_dir=out, model="", photographs=good, num_images=2)).read(2)
    for sample, model, dpi in zip(written, ("Camera", None), (300, None), strict=True):
        for content in (sample.image, sample.defect_free):
            opened = Image.open(io.BytesIO(content))
            assert opened.getexif().get(0x0110) == model
            assert (round(opened.info["dpi"][0]) if "dpi" in opened.info else None) == dpi


def test_16_bits_in_colour_keep_their_profile(paint, tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.full((60, 70, 3), 30000, dtype=np.uint16)
    tifffile.imwrite(tmp_path / "deep.tif", pixels, photometric="rgb", iccprofile=profile)
    folder = paint(photographs=tmp_path / "deep.tif", num_images=1) / "object/test"
    for kind in ("defect", "good"):
        with Image.open(folder / kind / "000000.png") as image:
            assert image.info["icc_profile"] == profile
            assert ImageCms.getOpenProfile(io.BytesIO(image.info["icc_profile"]))


def test_the_contact_sheet_shows_what_is_near_the_defect_of_16_bits_too():
    deep = np.array([[0, 2048, 4095, 17]], dtype=np.uint16)
    alpha, mask = np.full_like(deep, 65535), np.array([[0, 255, 0, 0]], dtype=np.uint8)

    def shown(image: np.ndarray, twin: np.ndarray) -> list[np.ndarray]:
        record = Record(0, 1, 0.1, photograph='{"defects": [{"window": [0, 0, 3, 1]}]}')
        sample = Sample(record, *(imagecodecs.png_encode(each) for each in (image, mask, twin)))
        return [np.asarray(picture) for picture in _shown(sample)]

    twin, label, image = shown(deep, np.dstack([deep, alpha]))
    assert twin.tolist() == image.tolist() == [[0, 128, 255]]
    assert label.tolist() == [[0, 255, 0]]
    _, _, colour = shown(np.dstack([deep, deep, deep, alpha]), deep)
    assert np.array_equal(colour, np.repeat([[[0], [128], [255]]], 3, axis=2))
    twin, _, image = shown(np.array([[0, 2048, 4096, 17]], dtype=np.uint16), deep)
    assert twin[0, 1] == image[0, 1], "as bright as each other, where the defect is brighter than all else"


def test_what_was_stopped_goes_on(paint, good, contents, capsys):
    whole = paint("whole")
    begun = paint("begun")
    for path in begun.rglob("000001*"):
        path.unlink()
    (begun / "generation" / "contact_sheet.png").unlink()
    paint("begun")
    assert contents(begun) == contents(whole)
    assert "drew    1 of 3" in capsys.readouterr().out
    before = contents(begun)
    with pytest.raises(ExportError, match=r"was begun with other settings: how was .*strength"):
        paint("begun", how={**HOW, "strength": 2.0})
    assert contents(begun) == before
    # Image i would be painted into another one.
    (good / "colour.png").rename(good / "later.png")
    with pytest.raises(ExportError, match=r"photographs_sha256 was [0-9a-f]{64} and is"):
        paint("begun")


def test_a_gate_paints_again_what_it_refuses(paint, gate, contents, monkeypatch):
    monkeypatch.setattr("dfmgan_hf.export.paint.open_gate", lambda *_: gate)
    whole, begun = paint("whole", num_images=6), paint("begun", num_images=6)
    refused = 0
    for index in range(6):
        entry = json.loads(record_of(whole / f"object/test/defect/{index:06d}.png").gate)
        refused += len(entry["refused"])
        assert entry["numbers"]["area"] >= 0.01
    summary = json.loads((whole / "generation/summary.json").read_text())
    assert sum(summary["refused"].values()) == refused > 0
    for path in [*begun.rglob("000003*"), begun / "generation/refused.png"]:
        path.unlink()
    paint("begun", num_images=6)
    assert contents(begun) == contents(whole)
    gate.thresholds["visible"] = 1e6
    with pytest.raises(ExportError, match=r"None of 3 defects .* passes the gate"):
        paint("none", num_images=6, max_attempts=3)


def test_masks_go_with_photographs_by_their_names(paint, good, tmp_path):
    masks = tmp_path / "masks"
    masks.mkdir()
    drawn = Image.new("L", (70, 60))
    drawn.paste(255, (20, 20, 40, 30))
    drawn.save(masks / "colour_mask.png")
    with pytest.raises(ExportError, match=r"no mask of 1 of 2 photographs, such as deep\.png: expected deep\.png or"):
        paint(masks=masks)
    assert not (tmp_path / "out").exists()
    drawn.save(masks / "deep.png")
    for path in (paint(masks=masks, num_images=2) / "object").rglob("*_mask.png"):
        label = np.asarray(Image.open(path)) != 0
        assert label[20:30, 20:40].sum() == label.sum() > 0
    (masks / "deep.png").rename(masks / "deep_mask_1.png")  # two instances are one mask
    Image.fromarray(np.roll(np.asarray(drawn), 15, axis=0)).save(masks / "deep_mask_2.png")
    photographs = dict(find_photographs(PaintSetConfig(output_dir=tmp_path, model="", photographs=good, masks=masks)))
    assert [path.name for path in photographs[good / "deep.png"].masks] == ["deep_mask_1.png", "deep_mask_2.png"]
    Image.open(good / "colour.png").convert("RGB").save(good / "colour.jpg")  # whose is colour_mask.png?
    with pytest.raises(ExportError, match=r"no mask of 2 of 3 photographs, such as colour\.jpg: .* alone"):
        paint("shared", masks=masks)


@pytest.fixture
def beside(good):
    """The photographs, each with its mask beside it."""
    drawn = Image.new("L", (70, 60))
    drawn.paste(255, (20, 20, 40, 30))
    for stem in ("colour", "deep"):
        drawn.save(good / f"{stem}_mask.png")
    return good


def test_masks_lie_beside_photographs(paint, beside, tmp_path):
    config = PaintSetConfig(output_dir=tmp_path, model="", photographs=beside, masks=beside / ".." / beside.name)
    for photographs, names in ((beside, ["colour", "deep"]), (beside / "deep.png", ["deep"])):
        found = find_photographs(dataclasses.replace(config, photographs=photographs))
        assert [(path.name, *(mask.name for mask in place.masks)) for path, place in found] == [
            (f"{name}.png", f"{name}_mask.png") for name in names
        ]
    for path in (paint(masks=beside, num_images=2) / "object").rglob("*_mask.png"):
        label = np.asarray(Image.open(path)) != 0
        assert label[20:30, 20:40].sum() == label.sum() > 0
    (beside / "deep_mask.png").unlink()
    with pytest.raises(ExportError, match=r"no mask of 1 of 2 .*deep\.png: expected deep_mask\.png"):
        find_photographs(config)


def test_a_photograph_is_no_mask(paint, beside, tmp_path):
    linked = tmp_path / "linked"
    linked.mkdir()
    for name in ("colour", "deep"):
        (linked / f"{name}.png").symlink_to(beside / f"{name}.png")
    (beside / "colour_mask.png").unlink()
    (beside / "deep_mask.png").unlink()
    for masks in (linked, beside / "deep.png"):
        with pytest.raises(DataError, match="a mask that is one of the photographs") as raised:
            paint(masks=masks)
        assert raised.value.code == "mask_is_photograph"
    copied = shutil.copytree(beside, tmp_path / "copied")
    for masks in (copied, copied / "colour.png"):
        with pytest.raises(DataError, match=r"colour\.png: many values and none that is 0"):
            paint(masks=masks)
    Image.new("L", (70, 61), 255).save(tmp_path / "other.png")
    with pytest.raises(DataError, match=r"other\.png: a mask of 70x61 pixels. Expected 70x60"):
        paint(masks=tmp_path / "other.png")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["part_\udce4.png", "part\n1.png"])
def test_a_name_that_nobody_can_write_down_is_named(paint, good, tmp_path, name):
    shutil.copy(good / "colour.png", good / name)
    with pytest.raises(DataError, match=r"part(_.udce4|.n1)\.png: a name with control characters") as raised:
        paint()
    assert raised.value.code == "name"
    assert not (tmp_path / "out").exists()


def test_one_photograph_by_a_relative_path_finds_its_labels(good, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    square = {"category_id": 1, "bbox": [20, 20, 20, 10], "segmentation": [[20, 20, 40, 20, 40, 30, 20, 30]]}
    names = ("colour.png", "deep.png")
    labels = {
        "images": [{"id": i, "file_name": name, "width": 70, "height": 60} for i, name in enumerate(names)],
        "categories": [{"id": 1, "name": "crack"}],
        "annotations": [{"id": i, "image_id": i, **square} for i in range(2)],
    }
    (tmp_path / "labels.json").write_text(json.dumps(labels))
    monkeypatch.chdir(tmp_path)
    for photograph in (good / "deep.png", Path("good/deep.png"), Path("good/../good/deep.png")):
        config = PaintSetConfig(output_dir=tmp_path, model="", photographs=photograph, masks=Path("labels.json"))
        [(found, place)] = find_photographs(config)
        assert found == good / "deep.png"
        assert place.defect == "crack"


def test_archives_are_taken_for_their_content(good, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    masks = tmp_path / "masks"
    masks.mkdir()
    for path in good.iterdir():
        Image.new("L", (70, 60), 255).save(masks / f"{path.stem}_mask.png")
    photographs = Path(shutil.make_archive(str(tmp_path / "photographs"), "zip", good))
    packed = Path(shutil.make_archive(str(tmp_path / "masks"), "gztar", masks))
    config = PaintSetConfig(output_dir=tmp_path, model="", photographs=photographs)
    assert sorted(path.name for path, _ in find_photographs(config)) == sorted(path.name for path in good.iterdir())
    found = find_photographs(dataclasses.replace(config, masks=packed))
    assert all(place.mask_path.name == f"{path.stem}_mask.png" for path, place in found)
    assert len(found) == len(list(good.iterdir()))


def test_archives_of_a_folder_are_unwrapped(beside, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    masks = tmp_path / "packed" / "masks"
    masks.mkdir(parents=True)
    for path in beside.glob("*_mask.png"):
        path.rename(masks / path.name)
    photographs = Path(shutil.make_archive(str(tmp_path / "photographs"), "zip", tmp_path, "good"))
    packed = Path(shutil.make_archive(str(tmp_path / "masks"), "gztar", tmp_path, "packed"))
    config = PaintSetConfig(output_dir=tmp_path, model="", photographs=photographs, masks=packed)
    found = [(path.name, place.mask_path.name) for path, place in find_photographs(config)]
    assert found == [("colour.png", "colour_mask.png"), ("deep.png", "deep_mask.png")]
    # A folder that is called like a photograph holds the masks of its defects.
    masks.parent.rename(tmp_path / "deep")
    (tmp_path / "deep" / "masks" / "colour_mask.png").rename(tmp_path / "deep" / "1.png")
    (tmp_path / "deep" / "masks" / "deep_mask.png").rename(tmp_path / "deep" / "2.png")
    packed = Path(shutil.make_archive(str(tmp_path / "two"), "zip", tmp_path, "deep"))
    [(_, place)] = find_photographs(dataclasses.replace(config, photographs=beside / "deep.png", masks=packed))
    assert [mask.name for mask in place.masks] == ["1.png", "2.png"]


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"region": "produkt"}, PaintError, r"colour\.png: `region` is 'produkt', .* no such file"),
        ({"box": (500, 500, 600, 600)}, PaintError, r"colour\.png: `region` .* lies outside"),
        ({"how": {**HOW, "window": 100}}, PaintError, r"colour\.png: .* smaller than the 100x100"),
        ({"how": {**HOW, "any_product": False, "window": 2}}, PaintError, "paint all the same with `any_product`"),
        ({"max_mask_area": 1e-9, "max_attempts": 2}, ExportError, r"None of 2 defects .*colour\.png"),
        ({"forbidden": Path("missing.png")}, DataError, r"missing\.png.* no such file"),
        ({"photographs": "missing"}, ExportError, "no photograph, and no folder"),
        *(
            ({"masks": Path(name)}, ExportError, f"--masks {name}: there is no such file or folder")
            for name in ("nope.json", "nope.png", "nope")
        ),
    ],
)
def test_what_is_wrong_is_told_before_the_folder_is_begun(paint, tmp_path, monkeypatch, options, error, message):
    if "any_product" in options.get("how", {}):
        monkeypatch.setattr(painting.TwinIndex, "nearest", lambda *_: (999.0, 0, 1.0))
    options = {k: tmp_path / v if k == "photographs" else v for k, v in options.items()}
    with pytest.raises(error, match=message):
        paint(**options)
    assert not (tmp_path / "out").exists()


def test_a_broken_photograph_is_named(paint, good, tmp_path):
    (good / "another.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"another\.png"):
        paint()
    assert not (tmp_path / "out").exists()


def test_large_photographs_are_painted_where_they_are_allowed(paint, good, monkeypatch):
    Image.fromarray(np.full((1000, 2100), 120, np.uint8)).save(good / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    with pytest.raises(DataError, match=r"large\.png.*Allow it with --max_megapixels"):
        paint()
    assert len(list((paint(max_megapixels=3) / "object").rglob("*_mask.png"))) == 3


def test_a_file_in_the_way_of_the_folder(paint, tmp_path):
    (tmp_path / "out").write_text("in the way")
    with pytest.raises((ExportError, OSError), match="out"):
        paint()
    assert (tmp_path / "out").read_text() == "in the way"


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"region": "product"}, "region"),
        ({"box": (0, 0, 9, 9)}, "box"),
        ({"forbidden": Path("mask.png"), "how": PaintConfig(size=2)}, "forbidden`, `size"),
        ({"how": PaintConfig(num_defects=2)}, "num_defects"),
        ({"how": PaintConfig(rotation=45, flip=True)}, "rotation`, `flip"),
    ],
)
def test_options_that_exclude_each_other(tmp_path, options, named):
    with pytest.raises(ValueError, match=rf"`masks` shows where a defect goes, .*: leave out `{named}`\."):
        PaintSetConfig(output_dir=tmp_path, model="m", photographs=tmp_path, masks=tmp_path, **options)


def test_parts_of_a_gate_need_the_gate(tmp_path):
    with pytest.raises(ValueError, match="`gate_groups` has no effect without `gate`"):
        PaintSetConfig(output_dir=tmp_path, model="m", photographs=tmp_path, gate_groups=tmp_path)
