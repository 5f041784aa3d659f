"""What labelling tools export: golden files of each, what else people bring, and what nobody should have written."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dfmgan_hf.data import DataConfig, DataError, DataSource, find_listing, load_training_set
from dfmgan_hf.data.doctor import CheckConfig, examine
from dfmgan_hf.data.label_forms import ellipse, fill_brush, fill_outlines, fill_runs
from dfmgan_hf.data.preparation import read_masks
from dfmgan_hf.data.reading import read_image
from dfmgan_hf.data.records import ImageRecord, Listing
from tests.data.conftest import draw_photograph, save

GOLDEN = Path(__file__).parent / "golden_labels"
WIDTH, HEIGHT = 64, 48
Y, X = np.mgrid[0:HEIGHT, 0:WIDTH]


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    return (left <= X) & (right > X) & (top <= Y) & (bottom > Y)


# What golden_labels/make.py draws: a ring and a bar are a crack of two parts, a triangle is a dent.
_DISTANCE = (X - 20) ** 2 + (Y - 20) ** 2
RING, BAR = (_DISTANCE < 81) & (_DISTANCE > 16), box(40, 8, 50, 12)
DENT = (Y + 0.5 > 30) & ((X - 39.5) * 14 > (Y - 29.5) * 9) & ((57.5 - X) * 14 > (Y - 29.5) * 9)
TWO_PARTS = box(5, 5, 15, 9) | box(30, 20, 34, 40)


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """A folder of three photographs: a.png, b.png and c.png."""
    folder = tmp_path / "part" / "images"
    for number, name in enumerate("abc"):
        save(draw_photograph(number, WIDTH, HEIGHT), folder / f"{name}.png")
    return folder


@pytest.fixture
def listed(tmp_path: Path) -> Callable[..., Listing]:
    """Lists the folder that holds the photographs; keyword arguments are options."""

    def run(data_dir: Path | None = None, **options: Any) -> Listing:
        return find_listing(DataSource(data_dir or tmp_path / "part", cache_dir=tmp_path / "cache", **options))

    return run


@pytest.fixture
def coco(tmp_path: Path, photographs: Path) -> Callable[..., Path]:
    """Writes COCO of the three photographs, with these (photograph, kind, segmentation)."""

    def write(*areas: tuple[str, str, Any], name: str = "instances.json", **changes: Any) -> Path:
        images = [{"id": n, "file_name": f"{n}.png", "width": WIDTH, "height": HEIGHT} for n in "abc"]
        kinds = sorted({kind for _, kind, _ in areas})
        annotations = [
            {"id": i, "image_id": image, "category_id": kinds.index(kind), "segmentation": area}
            for i, (image, kind, area) in enumerate(areas)
        ]
        categories = [{"id": i, "name": kind} for i, kind in enumerate(kinds)]
        content = {"images": images, "annotations": annotations, "categories": categories, **changes}
        file = tmp_path / "part" / name
        file.write_text(json.dumps(content))
        return file

    return write


SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]


def mask_of(record: ImageRecord) -> np.ndarray:
    assert record.error is None, record.error
    mask = read_masks(record)
    assert mask is not None
    return mask.defect


def masks_of(listing: Listing) -> dict[str, np.ndarray]:
    return {record.name: mask_of(record) for record in listing.records if record.masks}


# --- Where files are, and what they are called ---


@pytest.mark.parametrize("tool", ["coco", "yolo"])
def test_folders_that_are_links_are_read(tmp_path, photographs, listed, coco, tool):
    if tool == "coco":
        coco(("a", "crack", SQUARE), ("c", "crack", SQUARE))
    else:
        labels = tmp_path / "elsewhere" / "labels"
        labels.mkdir(parents=True)
        (photographs.parent / "data.yaml").write_text("names: [crack]")
        for name in "ac":
            (labels / f"{name}.txt").write_text("0 0.2 0.2 0.4 0.2 0.4 0.4\n")
        (photographs.parent / "labels").symlink_to(labels)
    photographs.rename(tmp_path / "share")
    photographs.symlink_to(tmp_path / "share")
    (tmp_path / "share" / "back").symlink_to(tmp_path / "part")
    listing = listed()
    assert masks_of(listing).keys() == {"test/crack/a.png", "test/crack/c.png"}
    assert [entry.kind for entry in listing.left_over] == ["unlabelled"]


def test_a_name_that_looks_like_that_of_a_url_is_a_name(photographs, listed, coco):
    (photographs / "a.png").rename(photographs / "a%20b.png")
    coco(("a", "crack", SQUARE), images=[{"id": "a", "file_name": "a%20b.png"}])
    assert masks_of(listed(labels=str(photographs.parent / "instances.json"))).keys() == {"test/crack/a%20b.png"}


def test_a_labelled_photograph_that_cannot_be_read_says_so(photographs, listed, coco):
    coco(("a", "crack", SQUARE))
    (photographs / "a.png").write_bytes(b"cut short")
    assert [record.error.code for record in listed().records] == ["unreadable"]


# --- Each tool ---


@pytest.mark.parametrize("tool", ["coco", "coco_compressed", "cvat", "label_studio", "labelme"])
def test_golden_files_of_masks_and_polygons(photographs, listed, tool):
    """Holes, several parts of one defect, and several kinds on one photograph."""
    shutil.copytree(GOLDEN / tool, photographs.parent, dirs_exist_ok=True)
    masks = masks_of(listed())
    assert masks.keys() == {"test/crack/a.png", "test/crack/b.png", "test/dent/a.png"}
    assert np.array_equal(masks["test/crack/a.png"], RING | BAR)
    assert np.array_equal(masks["test/dent/a.png"], DENT)
    assert np.array_equal(masks["test/crack/b.png"], TWO_PARTS)


@pytest.mark.parametrize("tool", ["label_studio_yolo", "label_studio_coco"])
def test_golden_files_without_brushes(photographs, listed, tool):
    shutil.copytree(GOLDEN / tool, photographs.parent, dirs_exist_ok=True)
    masks = masks_of(listed())
    assert np.array_equal(masks["test/crack/a.png"], BAR)
    assert np.array_equal(masks["test/dent/a.png"], DENT)
    assert np.array_equal(masks["test/crack/b.png"], TWO_PARTS)


@pytest.mark.parametrize("has_colours", [False, True])
def test_golden_files_of_voc(photographs, listed, has_colours):
    shutil.copytree(GOLDEN / "voc", photographs.parent, dirs_exist_ok=True)
    if has_colours:  # as CVAT writes them, beside the names
        text = "# label:color_rgb:parts:actions\ndent:0,128,0::\nbackground:0,0,0::\ncrack:128,0,0::\n"
        (photographs.parent / "labelmap.txt").write_text(text)
    masks = masks_of(listed())
    assert np.array_equal(masks["test/crack/a.png"], RING | BAR)
    assert (masks["test/dent/a.png"] & DENT).sum() / (masks["test/dent/a.png"] | DENT).sum() > 0.98
    assert np.array_equal(masks["test/crack/b.png"], TWO_PARTS)


def test_voc_masks_without_names(photographs, listed):
    folder = photographs.parent / "SegmentationClass"
    save((RING * 1 + DENT * 2).astype(np.uint8), folder / "a.png")
    masks = masks_of(listed())
    assert np.array_equal(masks["test/class_1/a.png"], RING)
    assert np.array_equal(masks["test/class_2/a.png"], DENT)
    save(np.dstack([RING * 200] * 3).astype(np.uint8), folder / "b.png")
    (photographs.parent / "labelmap.txt").write_text("background:0,0,0::\ncrack:128,0,0::\n")
    problems = {record.error.found for record in listed().records if record.error}
    assert "b.png says of it: b.png: the colour (200, 200, 200), which labelmap.txt does not name" in problems


@pytest.mark.parametrize("root", ["part", "SegmentationExport"])
def test_voc_masks_in_folders_below(tmp_path, listed, root):
    """CVAT keeps the folders in an item's name. No mask is a photograph, also where its folder is a link."""
    folder = tmp_path / root
    (tmp_path / "masks").mkdir()
    (folder / "JPEGImages").mkdir(parents=True)
    (folder / "SegmentationObject").symlink_to(tmp_path / "masks")
    for number, item in enumerate(("one/a", "two/a", "two/b")):
        save(draw_photograph(number, WIDTH, HEIGHT), folder / "JPEGImages" / f"{item}.png")
    for item, mask in (("one/a", RING), ("two/a", DENT)):
        for masks in ("SegmentationClass", "SegmentationObject"):
            save(mask.astype(np.uint8), folder / masks / f"{item}.png")
    listing = listed(folder, unlabelled="good")
    masks = masks_of(listing)
    assert masks.keys() == {"test/class_1/JPEGImages_one_a.png", "test/class_1/JPEGImages_two_a.png"}
    assert np.array_equal(masks["test/class_1/JPEGImages_one_a.png"], RING)
    assert np.array_equal(masks["test/class_1/JPEGImages_two_a.png"], DENT)
    assert [record.name for record in listing.select(None)] == ["train/good/b.png"]
    assert [entry.kind for entry in listing.left_over] == ["unused", "unused"]


@pytest.mark.parametrize(
    ("tool", "good"), [("label_studio", True), ("labelme", True), ("label_studio_yolo", True), ("cvat", False)]
)
def test_what_an_empty_label_says(photographs, listed, tool, good):
    """An empty text, file or submitted annotation is a statement; a photograph that a file merely lists is not."""
    shutil.copytree(GOLDEN / tool, photographs.parent, dirs_exist_ok=True)
    listing = listed()
    assert [record.name for record in listing.select(None)] == ["train/good/c.png"] * good
    assert ("1 photographs without a label" in listing.account()) is not good
    assert [record.name for record in listed(unlabelled="good").select(None)] == ["train/good/c.png"]


def test_tags_and_folders_say_what_is_good(photographs, listed):
    labels = '<annotations><image name="a.png" width="64" height="48"><tag label="OK"/></image></annotations>'
    (photographs.parent / "annotations.xml").write_text(labels)
    save(draw_photograph(7, WIDTH, HEIGHT), photographs.parent / "good" / "d.png")
    save(draw_photograph(8, WIDTH, HEIGHT), photographs.parent / "test" / "good" / "e.png")
    assert [record.name for record in listed().records] == ["train/good/a.png", "train/good/d.png", "test/good/e.png"]


def test_folders_above_the_export_say_nothing_of_its_photographs(photographs, listed, tmp_path):
    for folder in ("good", "test/good"):
        save(draw_photograph(7, WIDTH, HEIGHT), photographs.parent / folder / f"{len(folder)}.png")
    shutil.copytree(GOLDEN / "cvat", photographs.parent, dirs_exist_ok=True)
    place = tmp_path / "val" / "Test"
    place.parent.mkdir()
    photographs.parent.rename(place)
    assert [record.name for record in listed(place).select(None)] == ["train/good/4.png", "test/good/9.png"]


def test_shapes_that_are_areas_and_shapes_that_are_none(photographs, listed):
    shapes = """<polygon label="crack" points="10,10;20,10;20,20;10,20"/>
      <ellipse label="crack" cx="40" cy="24" rx="8" ry="4" rotation="90"/>
      <mask label="dent" rle="1,2,3,2" left="60" top="0" width="4" height="2"/>
      <box label="crack" xtl="1" ytl="1" xbr="5" ybr="5"/><polyline label="crack" points="1,1;2,2"/>"""
    size = 'width="64" height="48"'
    (photographs.parent / "annotations.xml").write_text(
        f'<annotations><image name="a.png" {size}>{shapes}</image>'
        f'<image name="b.png" {size}><box label="crack" xtl="1" ytl="1" xbr="5" ybr="5"/></image></annotations>'
    )
    listing = listed()
    by_name = {record.name: record for record in listing.records}
    tall = ((X + 0.5 - 40) / 4) ** 2 + ((Y + 0.5 - 24) / 8) ** 2 < 1
    assert np.array_equal(mask_of(by_name["test/crack/a.png"]), box(10, 10, 20, 20) | tall)
    dent = np.zeros((HEIGHT, WIDTH), bool)
    dent[0, [61, 62]] = dent[1, [62, 63]] = True
    assert np.array_equal(mask_of(by_name["test/dent/a.png"]), dent)
    assert by_name["test/unknown/b.png"].error.code == "no_mask"
    assert "2 boxes not used; 1 lines, points or other shapes without an area not used" in listing.account()


def label_studio(name: str, *annotations: dict[str, Any]) -> dict[str, Any]:
    return {"data": {"image": name}, "annotations": list(annotations)}


def region(label: str, **frame: Any) -> list[dict[str, Any]]:
    """A region whose label is a result of its own."""
    size = {"original_width": WIDTH, "original_height": HEIGHT, "id": "r", **frame}
    points = [[25, 25], [50, 25], [50, 50], [25, 50]]
    return [
        {**size, "type": "polygon", "value": {"points": points}},
        {**size, "type": "labels", "value": {"labels": [label]}},
    ]


def test_label_studio_names_and_choices(photographs, listed):
    (photographs / "a.png").rename(photographs / "a b.png")
    tasks = [
        label_studio(
            "/data/local-files/?d=images/a%20b.png",
            {"was_cancelled": True, "result": region("wrong")},
            {"ground_truth": True, "result": region("crack")},
            {"result": region("later")},
        ),
        label_studio("https://store/b.png?token=1", {"result": region("dent", image_rotation=90)}),
        label_studio("c.png", {"result": [{"type": "choices", "value": {"choices": ["good"]}}]}),
    ]
    (photographs.parent / "export.json").write_text(json.dumps(tasks))
    crack, dent, good = sorted(listed().records, key=lambda record: record.defect)
    assert crack.name == "test/crack/a b.png"
    assert np.array_equal(mask_of(crack), box(16, 12, 32, 24))
    assert "turned by 90 degrees" in dent.error.found
    assert good.name == "train/good/c.png"


@pytest.mark.parametrize("predictions", [[], [{"result": region("crack")}]])
def test_a_task_that_says_nothing_is_no_set_of_labels(photographs, listed, predictions):
    empty = {**label_studio("a.png"), "predictions": predictions}
    (photographs.parent / "export.json").write_text(
        json.dumps([empty, label_studio("a.png", {"result": region("crack")})])
    )
    listing = listed()
    (record,) = listing.records
    assert record.error is None
    assert np.array_equal(mask_of(record), box(16, 12, 32, 24))
    assert ("1 predictions not used" in listing.account()) == bool(predictions)


def test_what_is_said_of_a_whole_task_is_no_defect(photographs, listed):
    good = {"type": "choices", "value": {"choices": ["good"]}}
    said = [
        {"id": "1", "type": "textarea", "value": {"text": ["a bit dark"]}},
        {"id": "2", "type": "rating", "value": {"rating": 4}},
        {"type": "relation", "from_id": "1", "to_id": "2"},
    ]
    point = {"id": "3", "type": "keypointlabels", "value": {"x": 5, "y": 5, "keypointlabels": ["crack"]}}
    tasks = [
        label_studio("a.png", {"result": [good, *said]}),
        label_studio("b.png", {"result": said}),
        label_studio("c.png", {"result": [good, point]}),
    ]
    (photographs.parent / "export.json").write_text(json.dumps(tasks))
    listing = listed()
    assert [(record.name, record.error and record.error.code) for record in listing.records] == [
        ("train/good/a.png", None),
        ("test/unknown/c.png", "no_mask"),
    ]
    assert [entry.path.name for entry in listing.left_over if entry.kind == "unlabelled"] == ["b.png"]


def test_json_min_is_refused_in_words(photographs, listed):
    (photographs.parent / "min.json").write_text(json.dumps([{"image": "a.png", "annotation_id": 1, "tag": []}]))
    with pytest.raises(DataError, match=r"JSON-MIN, which leaves out.*Expected its export as JSON"):
        listed()


# --- Where labels and photographs lie ---


def test_an_archive_and_a_file_are_exports_too(photographs, listed, coco, tmp_path):
    file = coco(("a", "crack", SQUARE))
    with zipfile.ZipFile(tmp_path / "task.zip", "w") as archive:
        archive.write(file, "task/annotations/instances.json")
        for name in "abc":
            archive.write(photographs / f"{name}.png", f"task/images/{name}.png")
    with zipfile.ZipFile(tmp_path / "labels.zip", "w") as archive:
        archive.write(file, "annotations/instances.json")
    with tarfile.open(tmp_path / "task.v2.tar.gz", "w:gz") as tar:
        tar.add(file, "task/annotations/instances.json")
        tar.add(photographs, "task/images")
    assert listed(tmp_path / "task.zip").category == "task"
    assert listed(tmp_path / "task.v2.tar.gz").category == "task.v2"
    (tmp_path / "photographs").mkdir()
    shutil.copy(photographs / "a.png", tmp_path / "photographs")
    for listing in (
        listed(tmp_path / "task.zip"),
        listed(file),
        listed(photographs, labels=file),
        listed(photographs, labels=tmp_path / "labels.zip"),
    ):
        assert np.array_equal(masks_of(listing)["test/crack/a.png"], box(10, 10, 20, 20))
    with pytest.raises(ValueError, match="labels belong to the photographs in data_dir"):
        listed(tmp_path / "part", labels=file, defect_dir=photographs)


def test_more_good_photographs_come_from_their_own_folder(photographs, listed, coco, tmp_path):
    coco(("a", "crack", SQUARE))
    save(draw_photograph(9, WIDTH, HEIGHT), tmp_path / "fine" / "d.png")
    assert [record.name for record in listed(good_dir=tmp_path / "fine").records] == [
        "train/good/d.png",
        "test/crack/a.png",
    ]


@pytest.mark.parametrize("name", ["good", "fine"])
def test_more_good_photographs_may_lie_in_the_export(photographs, listed, coco, monkeypatch, name):
    """Each is listed once, and so is all else that is there."""
    coco(("a", "crack", SQUARE))
    save(draw_photograph(9, WIDTH, HEIGHT), photographs.parent / name / "d.png")
    (photographs.parent / name / "notes.doc").write_text("x")
    monkeypatch.chdir(photographs.parent)
    listing = listed(good_dir=Path(name))
    assert [(record.name, record.error) for record in listing.records] == [
        ("train/good/d.png", None),
        ("test/crack/a.png", None),
    ]
    assert Counter(entry.kind for entry in listing.left_over) == {"unlabelled": 2, "ignored_files": 1}
    shutil.rmtree(photographs.parent / name)
    listing = listed(good_dir=Path("images"))
    assert [record.name for record in listing.records] == ["train/good/b.png", "train/good/c.png", "test/crack/a.png"]
    assert "without a label" not in listing.account()


def test_the_layout_of_mvtec_ad_is_no_export(category_folder, tmp_path):
    (category_folder / "notes.json").write_text('{"images": [], "annotations": []}')
    assert "metadata" not in find_listing(DataSource(category_folder)).account()
    assert len(find_listing(DataSource(category_folder)).records) == 16


def test_photographs_of_one_name_in_several_folders(photographs, listed, coco):
    for split in ("train", "valid"):
        save(draw_photograph(len(split), WIDTH, HEIGHT), photographs.parent / split / "x.png")
        images = [{"id": 1, "file_name": "x.png", "width": WIDTH, "height": HEIGHT}]
        area = [[len(split), 10, 20, 10, 20, 20, len(split), 20]]
        annotations = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": area}]
        content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "crack"}]}
        (photographs.parent / split / "_annotations.coco.json").write_text(json.dumps(content))
    masks = masks_of(listed())
    assert masks.keys() == {"test/crack/train_x.png", "test/crack/valid_x.png"}, "each goes with the labels beside it"
    shutil.rmtree(photographs)
    (photographs.parent / "train" / "_annotations.coco.json").rename(photographs.parent / "instances.json")
    (photographs.parent / "valid" / "_annotations.coco.json").unlink()
    listing = listed(unlabelled="good")
    assert [record.name for record in listing.records] == ["test/crack/train_x.png", "test/crack/valid_x.png"]
    for record in listing.records:
        assert "could be any of train/x.png, valid/x.png" in record.error.found
    assert "1 areas on 2 photographs" in listing.account()


def test_exports_of_yolo_side_by_side_are_read_each_with_its_own_names(photographs, listed):
    for batch, kind in (("1", "crack"), ("2", "dent")):
        folder = photographs.parent / f"batch{batch}"
        save(draw_photograph(int(batch), WIDTH, HEIGHT), folder / "images" / "x.png")
        (folder / "labels").mkdir()
        (folder / "labels" / "x.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
        (folder / "data.yaml").write_text(f"names: [{kind}]\n")
        (folder / "labels" / "classes.txt").write_text("of the same export\n")
    assert masks_of(listed()).keys() == {"test/crack/batch1_images_x.png", "test/dent/batch2_images_x.png"}


def test_folders_that_no_layout_knows_are_no_layout(photographs, listed):
    for name, kind, shapes in (
        ("a", "normal", []),
        ("b", "bad", [{"label": "crack", "points": [[9, 9], [20, 9], [9, 20]]}]),
    ):
        folder = photographs.parent / "train" / kind
        folder.mkdir(parents=True)
        (photographs / f"{name}.png").rename(folder / f"{name}.png")
        (folder / f"{name}.json").write_text(json.dumps({"imagePath": f"{name}.png", "shapes": shapes}))
    assert [record.name for record in listed().records] == ["train/good/a.png", "test/crack/b.png"]


def test_labels_of_two_tools_are_not_guessed_between(photographs, listed, coco):
    file = coco(("a", "crack", SQUARE))
    shutil.copy(GOLDEN / "cvat" / "default.xml", photographs.parent)
    with pytest.raises(
        DataError, match=r"CVAT in default\.xml, COCO in|COCO in instances\.json, CVAT in default\.xml"
    ):
        listed()
    assert listed(labels=file).defects == ["crack"]


def test_labels_are_drawn_once_until_they_change(listed, coco):
    coco(("a", "crack", SQUARE))
    first = listed().records[0].mask_path
    written = first.stat().st_mtime_ns
    assert listed().records[0].mask_path == first
    assert first.stat().st_mtime_ns == written
    coco(("a", "crack", [[0, 0, 30, 0, 30, 30, 0, 30]]))
    assert np.array_equal(mask_of(listed().records[0]), box(0, 0, 30, 30))


def test_what_is_mended_is_listed_anew(photographs, listed, coco, monkeypatch):
    coco(("a", "crack", SQUARE))
    with monkeypatch.context() as patch:
        patch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        (record,) = listed().records
        assert "more pixels than are decoded safely" in record.error.found
    assert listed().records[0].error is None
    (photographs / "d.heic").write_bytes(b"x")
    assert "1 photographs in a format that is not read" in listed().account()
    content, status = (photographs / "a.png").read_bytes(), (photographs / "a.png").stat()
    for written, code in ((bytes(len(content)), "unreadable"), (content, None)):  # as a copy that keeps times
        (photographs / "a.png").write_bytes(written)
        os.utime(photographs / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
        (record,) = listed().records
        assert (record.error and record.error.code) == code


# --- What does not fit ---


@pytest.mark.parametrize("said_by", ["png", "tif", "xmp in tif"])
@pytest.mark.parametrize("labelled", ["upright", "as stored"])
def test_photographs_that_are_to_be_turned(photographs, listed, coco, labelled, said_by):
    """Most tools show them upright, some as they lie in the file: the size that was labelled says which."""
    expected = np.zeros((WIDTH, HEIGHT), bool)
    if labelled == "upright":
        expected[0:5, 0:10] = True
    else:
        expected[0:10, HEIGHT - 5 :] = True
    exif = Image.Exif()
    exif[0x0112] = 6  # the first row is at the right hand
    xmp = b'<x:xmpmeta><rdf:Description tiff:Orientation="6"/></x:xmpmeta>'
    options = {"tiffinfo": {700: xmp}} if said_by == "xmp in tif" else {"exif": exif}
    name = f"t.{said_by[-3:]}"
    Image.fromarray(np.rot90(expected)).convert("L").save(photographs / name, **options)
    width, height = (HEIGHT, WIDTH) if labelled == "upright" else (WIDTH, HEIGHT)
    images = [{"id": "t", "file_name": name, "width": width, "height": height}]
    coco(("t", "crack", [[0, 0, 10, 0, 10, 5, 0, 5]]), images=images)
    (record,) = listed().records
    assert np.array_equal(mask_of(record), expected)
    assert np.array_equal(read_image(record.image_path, 1)[:, :, 0] > 0, expected)


def test_outlines_that_leave_the_picture_are_cut(listed, coco):
    coco(
        ("a", "crack", [[-1e300, 20, 1e300, 20, 1e300, 30, -1e300, 30]]),
        ("b", "crack", [[-9, -9, 5, -9, 5, 5, -9, 5]]),
    )
    masks = masks_of(listed())
    assert np.array_equal(masks["test/crack/a.png"], box(0, 20, WIDTH, 30))
    assert np.array_equal(masks["test/crack/b.png"], box(0, 0, 5, 5))


def test_an_area_outside_of_the_picture_is_an_empty_mask(coco, tmp_path):
    coco(("a", "crack", [[100, 100, 120, 100, 120, 120]]))
    report, _ = examine(CheckConfig(tmp_path / "part", resolution=32, cache_dir=tmp_path / "cache"))
    assert "empty_mask" in {finding.code for finding in report.findings}


@pytest.mark.parametrize(("width", "height"), [(640, 480), (640.0, "480.0")])
def test_labels_of_another_size(listed, coco, width, height):
    coco(("a", "crack", SQUARE), images=[{"id": "a", "file_name": "a.png", "width": width, "height": height}])
    (record,) = listed().records
    assert record.error.code == "size_mismatch"
    assert record.error.found == "labels for 640x480 pixels, but it has 64x48"


@pytest.mark.parametrize("name", ["z.png", "../../secret.png", "/etc/passwd", "", "a\0.png", "http://[/z.png"])
def test_photographs_that_are_not_there(listed, coco, tmp_path, name):
    save(draw_photograph(1), tmp_path / "secret.png")
    rows = [{"id": "a", "file_name": "a.png"}, {"id": "z", "file_name": name}]
    coco(("a", "crack", SQUARE), ("z", "crack", SQUARE), images=rows)
    problems = [record.error.code for record in listed().records if record.error]
    assert problems == ["no_photograph"]
    with pytest.raises(DataError, match=r"labels of .*which is not in .*--skip_bad_files"):
        load_training_set(DataConfig(tmp_path / "part", cache_dir=tmp_path / "c"), "crack", resolution=32)
    coco(("z", "crack", SQUARE), images=rows[1:])
    with pytest.raises(DataError, match=r"none of the 1 photographs .*give their folder as --data_dir"):
        listed()


def test_a_photograph_that_is_labelled_twice(listed, coco):
    rows = [{"id": n, "file_name": "a.png"} for n in "ab"]
    coco(("a", "crack", SQUARE), ("b", "crack", SQUARE), images=rows)
    (record,) = listed().records
    assert "2 sets of labels" in record.error.found


@pytest.mark.parametrize(
    ("area", "message"),
    [
        ([["x", 1, 2, 3, 4, 5]], "no list of x and y"),
        ([[1, 2, 3]], "no list of x and y"),
        ([[1, 2, 3, 4]], "an outline of 2 corners"),
        ([[float("nan"), 1, 2, 3, 4, 5]], "not finite"),
        ("abc", "neither a list nor run lengths"),
        ({"size": [48, 64], "counts": [10**30]}, "run lengths of 9.22337e\\+18 pixels"),
        ({"size": [48, 64], "counts": [2**63, 2**63]}, "run lengths of 9.22"),
        ({"size": [48, 64], "counts": [-5, 48 * 64 + 5]}, "not whole numbers from 0"),
        ({"size": [48, 64], "counts": [1.5, 1]}, "not whole numbers from 0"),
        ({"size": [10**9, 10**9], "counts": [10**18]}, "not the photograph's size"),
        ({"size": [48, 64], "counts": "oooooooooooooooooooo"}, "not as COCO writes them"),
        ({"size": [48, 64], "counts": "a\u20ac"}, "not as COCO writes them"),
        ({"size": [48, 64], "counts": "o"}, "break off"),
        ({"size": [48, 64]}, "no list"),
    ],
)
def test_areas_that_are_none(listed, coco, area, message):
    coco(("a", "crack", area), ("b", "crack", SQUARE))
    bad, good = sorted(listed().records, key=lambda record: record.name)
    assert bad.name == "test/crack/a.png"
    assert bad.error.code == "labels"
    with pytest.raises(DataError, match=message):
        raise bad.error
    assert good.error is None


def test_run_lengths_of_a_photograph_whose_size_is_not_stated(listed, coco):
    area = {"size": [10**5, 10**5], "counts": [10**10]}
    coco(("a", "crack", area), images=[{"id": "a", "file_name": "a.png"}])
    (record,) = listed().records
    assert "run lengths of 1e+10 pixels, for a picture of 64x48" in record.error.found


@pytest.mark.parametrize("label", ["../up", "a/b", "", "x" * 300, "a\nb", "CON:"])
def test_labels_that_cannot_be_names(listed, coco, label):
    coco(("a", label, SQUARE))
    (record,) = listed().records
    assert record.error.code == "labels"
    assert "cannot be the name of a folder" in record.error.found


LAUGHS = (
    '<!DOCTYPE a [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY {b} "{f"&{a};" * 99}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True))
    + "]><annotations><image name='&i;'/></annotations>"
)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.json", '{"images": [', "JSON that does not parse"),
        ("a.json", "[" * 100_000, "JSON that does not parse"),
        ("a.json", '{"images": [1], "annotations": []}', "'images' that is no list of objects"),
        ("a.xml", "<annotations><image", "XML that does not parse"),
        ("a.xml", LAUGHS, "declares a document type"),
        ("a.xml", '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotations/>', "declares a document type"),
        ("a.xml", "<annotations><track/></annotations>", "tracks, as in CVAT for video"),
        ("data.yaml", "names: [a, b", "YAML that does not parse"),
        ("data.yaml", "!!python/object/apply:os.system ['true']", "YAML that does not parse"),
        ("a.json", b"\xff\xfe\xff", "not in UTF-8"),
    ],
)
def test_files_that_are_broken_or_hostile(photographs, listed, name, text, message):
    file = photographs.parent / name
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    start = time.process_time()
    with pytest.raises(DataError, match=message) as caught:
        listed()
    assert time.process_time() - start < 5
    assert caught.value.path == str(file)


@pytest.mark.parametrize("name", ["*b", "~", "1.5"])
def test_names_of_yolo_that_are_no_text(photographs, listed, name):
    """Written out, aliases of aliases in a few bytes would be a name of gigabytes."""
    (photographs.parent / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (photographs.parent / "data.yaml").write_text(f"a: &a [x, x]\nb: &b [*a, *a]\nnames: [crack, {name}]\n")
    with pytest.raises(DataError, match=r"a name that YAML reads as (list|NoneType|float). Expected text, such as"):
        listed()


def test_a_file_that_is_no_labels(photographs, listed):
    (photographs.parent / "package.json").write_text('{"name": "part"}')
    with pytest.raises(DataError, match="no labels of a known form"):
        listed(labels=photographs.parent / "package.json")
    with pytest.raises(DataError, match="no label file"):
        listed(labels=photographs)


def test_rows_of_yolo_that_are_wrong(photographs, listed):
    folder = photographs.parent
    (folder / "data.yaml").write_text("names: {0: crack}\n")
    (folder / "labels").mkdir()
    (folder / "labels" / "a.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (folder / "labels" / "b.txt").write_text("0 0.1 0.1 0.5 0.1 0.5 0.5\n7 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (folder / "labels" / "c.txt").write_text("0 0.1 0.1 0.5 0.1 0.5\n")
    found = {record.name: record.error and record.error.found for record in listed().records}
    assert found["test/crack/a.png"] is None
    assert found["test/crack/b.png"] == "b.txt says of it: line 2: the class 7, which data.yaml does not name"
    assert "line 1: an outline that is no list of x and y" in found["test/unknown/c.png"]


def test_texts_that_are_no_rows_of_yolo(photographs, listed):
    folder = photographs.parent
    (folder / "data.yaml").write_text("names: ['1', '2']\n")
    (folder / "README.roboflow.txt").write_text("\nparts - v1\n====\n1 photograph\n")  # as Roboflow begins it
    (folder / "labels").mkdir()
    (folder / "labels" / "classes.txt").write_text("1\n2\n")
    (folder / "labels" / "a.txt").write_text("\n0 0.1 0.1 0.5 0.1 0.5 0.5\n")
    (folder / "labels" / "b.txt").write_text("\n")
    listing = listed()
    assert [(record.name, record.error) for record in listing.records] == [
        ("train/good/b.png", None),
        ("test/1/a.png", None),
    ]
    assert Counter(entry.kind for entry in listing.left_over) == {"ignored_files": 2, "unlabelled": 1}


def test_bounds_of_time_and_memory():
    """What would take hours or the whole memory is refused, or done, within a moment."""
    start = time.process_time()
    comb = np.stack([np.arange(2_000_000) % 64, np.arange(2_000_000) % 2 * 1e6], axis=1)
    with pytest.raises(ValueError, match="crosses"):
        fill_outlines([comb], 64, 4000)
    bits = f"{2**32 - 1:032b}"
    with pytest.raises(ValueError, match="a brush of 4294967295 samples"):
        fill_brush([int(bits[i : i + 8], 2) for i in range(0, 32, 8)] + [255] * 100, 64, 48)
    with pytest.raises(ValueError, match="breaks off"):
        fill_brush([0, 0, 48, 0, 0x38, 0x8D], 64, 48)
    with pytest.raises(ValueError, match="run lengths of"):
        fill_runs([10**400], 64, 48, by_columns=True)
    assert time.process_time() - start < 10


def test_outlines_are_filled_as_pycocotools_does():
    coco = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(1)
    shared = total = 0
    for _ in range(50):
        corners = ellipse(rng.uniform(20, 80, 2).tolist(), rng.uniform(3, 30, 2).tolist(), rng.uniform(0, 180))
        mine = fill_outlines([corners], 100, 90)
        theirs = coco.decode(coco.frPyObjects([corners.ravel().tolist()], 90, 100))[:, :, 0].astype(bool)
        shared, total = shared + (mine & theirs).sum(), total + (mine | theirs).sum()
    assert shared / total >= 0.99


# --- Into training and the doctor ---


def test_the_account_has_every_entry(photographs, listed, coco):
    coco(("a", "crack", SQUARE), ("a", "dent", SQUARE), ("b", "crack", []))
    (photographs / "notes.doc").write_text("x")
    (photographs / ".hidden").write_text("x")
    assert listed().account() == (
        "part: 3 photographs listed; ignored: 1 hidden, 1 not named like images, 1 photographs without a label; "
        "nothing unresolved; labels of COCO in instances.json: 2 areas on 1 photographs; 1 boxes not used; "
        "1 photographs show several kinds and are listed under each; "
        "--unlabelled good would take those without a label as defect-free."
    )


@pytest.mark.parametrize("tool", ["cvat", "labelme", "coco"])
def test_label_files_are_used_also_where_the_path_is_relative(photographs, listed, tmp_path, monkeypatch, tool):
    shutil.copytree(GOLDEN / tool, photographs.parent, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    listing = listed(Path("part"), unlabelled="good")
    assert listing.left_over == []
    assert listing.category == "part"


def test_training_and_the_doctor_take_labels(photographs, coco, tmp_path):
    coco(("a", "crack", SQUARE), ("b", "crack", SQUARE))
    with pytest.raises(DataError, match=r"no defect-free photographs.*--unlabelled good would take.*--good_dir"):
        load_training_set(DataConfig(tmp_path / "part", cache_dir=tmp_path / "cache"))
    data = DataConfig(tmp_path / "part", cache_dir=tmp_path / "cache", unlabelled="good")
    training = load_training_set(data, "crack", resolution=48)
    assert training.file_names == ["test/crack/a.png", "test/crack/b.png"]
    assert training.masks.bool().any(dim=(1, 2, 3)).all()
    report, inspections = examine(CheckConfig(tmp_path / "part", resolution=32, unlabelled="good"))
    assert [kind.usable for kind in report.kinds] == [1, 2]
    assert "labels of COCO in instances.json: 2 areas on 2 photographs" in report.to_text()
    assert not [error for inspection in inspections for error in inspection.errors]


def test_the_doctor_says_what_has_no_label_and_takes_a_photograph_of_two_kinds_for_one(photographs, coco, tmp_path):
    coco(("a", "crack", SQUARE), ("a", "dent", [[30, 10, 40, 10, 40, 20]]), ("b", "crack", SQUARE))
    report, _ = examine(CheckConfig(tmp_path / "part", resolution=32, cache_dir=tmp_path / "cache"))
    assert report.photographs == 2
    assert report.duplicate_groups == []
    codes = {finding.code: finding for finding in report.findings}
    assert codes["unlabelled"].files == ("images/c.png",)
    assert "--unlabelled good" in codes["unlabelled"].advice
    assert not {"exact_duplicates", "conflicting_labels", "train_test_leak"} & set(codes)
