"""Exports for detectors, read back by what reads them: pycocotools, Ultralytics, anomalib, and our own labels.

Ultralytics (AGPL) and anomalib are in no extra. DFMGAN_INTEROP_PYTHON names a Python that has both; without it, what
they would read is not tested:

    python -m venv interop && interop/bin/pip install ultralytics anomalib
    DFMGAN_INTEROP_PYTHON=interop/bin/python python -m pytest tests/export/test_annotations.py
"""

import csv
import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw

from dfmgan_hf.data import DataSource, find_listing
from dfmgan_hf.data.label_forms import counts_from_text, fill_outlines, fill_runs
from dfmgan_hf.data.parts import Part, parts_of
from dfmgan_hf.data.preparation import read_masks
from dfmgan_hf.export import ExportError
from dfmgan_hf.export.annotations import counts_to_text, outline, run_lengths
from dfmgan_hf.export.paint import PaintSetConfig, find_photographs
from dfmgan_hf.export.writers import WRITERS, ExportConfig, Record, Sample, make_writer
from dfmgan_hf.files import module_sha256

RANDOM = np.random.default_rng(0)


def masks(number: int = 200) -> list[np.ndarray]:
    """Specks, holes, pixels that meet at corners, and everything that touches the border."""
    return [RANDOM.random(RANDOM.integers(1, 20, 2)) < RANDOM.uniform(0.1, 0.9) for _ in range(number)]


def defect_mask(width: int = 120, height: int = 90) -> np.ndarray:
    """A ring with something inside, an ellipse, a scratch of one pixel, a speck, and a corner of the picture."""
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((10, 10, 50, 45), fill=1)
    draw.ellipse((18, 16, 40, 36), fill=0)
    draw.ellipse((25, 22, 31, 30), fill=1)
    draw.ellipse((60, 20, 110, 60), fill=1)
    draw.line((5, 85, 60, 55), fill=1)
    draw.point((100, 80), fill=1)
    draw.rectangle((0, 0, 3, 5), fill=1)
    return np.asarray(picture)


def whole(part: Part, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, dtype=bool)
    mask[part.top : part.top + part.pixels.shape[0], part.left : part.left + part.pixels.shape[1]] = part.pixels
    return mask


@pytest.mark.parametrize("mask", [*masks(), defect_mask(), np.zeros((4, 5), bool), np.ones((4, 5), bool)])
def test_parts_run_lengths_and_outlines_give_the_mask_back(mask):
    height, width = mask.shape
    parts = parts_of(mask)
    shown = [whole(part, mask.shape) for part in parts]
    assert np.array_equal(np.sum([np.zeros_like(mask), *shown], axis=0), mask), "each pixel is in one part"
    for part, pixels in zip(parts, shown, strict=True):
        counts = run_lengths(part, width, height)
        assert counts_from_text(counts_to_text(counts)) == counts
        assert np.array_equal(fill_runs(counts, width, height, by_columns=True), pixels)
        corners = np.array(outline(part))
        assert np.array_equal(fill_outlines([corners], width, height), pixels)
        assert part.pixels[0].any()
        assert part.pixels[-1].any()
        assert part.pixels[:, 0].any()
        assert part.pixels[:, -1].any()


def test_pixels_that_meet_at_corners_are_one_part():
    assert len(parts_of(np.eye(5, dtype=bool))) == 1
    assert len(parts_of(np.array([[1, 0, 1], [0, 0, 0], [1, 0, 1]], dtype=bool))) == 4
    # Two arms, of which the lower row alone says that they are one.
    assert len(parts_of(np.array([[1, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=bool))) == 1


def test_run_lengths_are_those_of_pycocotools():
    coco = pytest.importorskip("pycocotools.mask")
    for mask in [*masks(), defect_mask()]:
        height, width = mask.shape
        for part in parts_of(mask):
            expected = coco.encode(np.asfortranarray(whole(part, mask.shape)).astype(np.uint8))
            assert counts_to_text(run_lengths(part, width, height)) == expected["counts"].decode()
            assert list(part.box) == coco.toBbox(expected).tolist()


def test_outlines_are_filled_alike_by_pycocotools_and_opencv():
    coco, cv2 = pytest.importorskip("pycocotools.mask"), pytest.importorskip("cv2")
    shared = total = 0
    for mask in [*masks(), defect_mask()]:
        height, width = mask.shape
        for part in parts_of(mask):
            pixels = whole(part, mask.shape)
            corners = np.round(np.array(outline(part)) / (width, height), 7) * (width, height)
            filled = np.zeros(mask.shape, np.uint8)
            # What Ultralytics does: corners are cut to whole pixels.
            assert np.array_equal(cv2.fillPoly(filled, [corners.astype(np.int32)], 1), pixels)
            runs = coco.frPyObjects([corners.ravel().tolist()], height, width)
            shared += (coco.decode(runs)[:, :, 0] & pixels).sum()
            total += (coco.decode(runs)[:, :, 0] | pixels).sum()
    assert shared / total >= 0.99


@pytest.fixture
def fill(tmp_path):
    """Writes an export of `defect_mask` and its mirror image, in one format, as `Sample`s of noise."""

    def run(format: str, **options) -> tuple[Path, list[np.ndarray]]:
        out = tmp_path / "out"
        config = ExportConfig(out, num_images=2, format=format, category="nut", defect="crack", **options)
        (out / "generation").mkdir(parents=True)
        about = {"model": "tiny", "model_sha256": "ab" * 32, "seed": 0, "dfmgan-hf": "1.0"}
        (out / "generation/settings.json").write_text(json.dumps(about))
        both = [defect_mask(), defect_mask()[:, ::-1]]
        samples = []
        for index, mask in enumerate(both):
            noise = Image.fromarray(RANDOM.integers(0, 255, (*mask.shape, 3)).astype(np.uint8))
            record = Record(index, 70 + index, float(mask.mean()))
            drawn = Image.fromarray(mask.astype(np.uint8) * 255)
            samples.append(Sample.encode(record, noise, drawn, noise.rotate(180), "ab" * 32))
        writer = make_writer(config)
        assert len(list(writer.write(samples))) == len(list(writer.finish())) == 2
        return out, both

    return run


def test_coco_is_what_pycocotools_reads(fill):
    COCO = pytest.importorskip("pycocotools.coco").COCO
    out, both = fill("coco")
    coco = COCO(str(out / "annotations/instances.json"))
    assert [category["name"] for category in coco.loadCats(coco.getCatIds())] == ["crack"]
    for index, mask in enumerate(both):
        (image,) = coco.loadImgs([index])
        assert Image.open(out / image["file_name"]).size == (image["width"], image["height"])
        assert (image["synthetic"], image["seed"]) == (True, 70 + index)
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=[index]))
        assert len(annotations) == 6
        assert np.array_equal(np.sum([coco.annToMask(each) for each in annotations], axis=0), mask)
        for each in annotations:
            assert each["area"] == coco.annToMask(each).sum()
            assert each["synthetic"] is True
    assert coco.dataset["info"]["synthetic"] is True
    assert coco.dataset["info"]["model_sha256"] == "ab" * 32


@pytest.mark.parametrize(("format", "place"), [("coco", "images"), ("yolo", "images_train")])
def test_exports_are_labels_that_this_package_reads(fill, tmp_path, format, place):
    out, both = fill(format)
    listing = find_listing(DataSource(out, cache_dir=tmp_path / "cache"))
    assert [record.name for record in listing.records] == [f"test/crack/{place}_{i:06d}.png" for i in range(2)]
    for record, mask in zip(listing.records, both, strict=True):
        assert record.error is None
        assert np.array_equal(read_masks(record).defect, mask)


def test_yolo_says_where_it_comes_from(fill):
    out, _ = fill("yolo")
    data = yaml.safe_load((out / "data.yaml").read_text())
    assert (data["names"], data["synthetic"], data["model_sha256"]) == ({0: "crack"}, True, "ab" * 32)
    with (out / "seeds.csv").open() as stream:
        table = list(csv.DictReader(stream))
    assert [row["seed"] for row in table] == ["70", "71"]
    assert all((out / row["label_file_name"]).read_text().startswith("0 0.") for row in table)


@pytest.mark.parametrize("format", [name for name in WRITERS if name != "parquet"])
def test_every_generated_picture_says_so(export, pipe, tmp_path, format):
    export(format=format, num_images=1)
    pictures = [path for path in (tmp_path / "out").rglob("*.png") if path.name != "contact_sheet.png"]
    assert len(pictures) == 3
    for path in pictures:
        about = Image.open(path).info["synthetic"]
        assert module_sha256(pipe.generator) in about
        assert "seed" in about


def test_photographs_that_were_painted_into_do_not():
    photograph, painted = Image.new("L", (4, 4)), Image.new("L", (4, 4), 3)
    record = Record(0, 1, 0.1, photograph='{"file": "a.png", "defects": []}')
    sample = Sample.encode(record, painted, Image.new("L", (4, 4), 255), photograph, "ab" * 32)
    assert b"synthetic" in sample.image
    assert b"synthetic" in sample.mask
    assert b"synthetic" not in sample.defect_free


# --- The real consumers, in a Python of their own ---


def run_interop(script: str, *arguments: Path, folder: Path) -> dict:
    """Runs a script there, in an empty folder; its last line is JSON."""
    python = os.environ.get("DFMGAN_INTEROP_PYTHON")
    if not python:
        pytest.skip("DFMGAN_INTEROP_PYTHON names no Python with ultralytics and anomalib")
    environment = {**os.environ, "YOLO_CONFIG_DIR": str(folder), "YOLO_OFFLINE": "true", "PYTHONPATH": ""}
    folder.mkdir()
    command = [python, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


ULTRALYTICS = """
import json, sys
import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset, polygons2masks
data = check_det_dataset(sys.argv[1], autodownload=False)
dataset = YOLODataset(img_path=data["train"], data=data, task="segment", augment=False, rect=False)
found = []
for label in dataset.labels:
    shape = label["shape"]
    polygons = [segment * (shape[1], shape[0]) for segment in label["segments"]]
    masks = polygons2masks(shape, [polygon.reshape(-1) for polygon in polygons], 1)
    found.append([label["im_file"], len(polygons), np.packbits(masks.any(axis=0)).tolist()])
print()
print(json.dumps({"names": data["names"], "found": found}))
"""


@pytest.mark.slow
def test_yolo_is_what_ultralytics_reads(fill, tmp_path):
    out, both = fill("yolo")
    read = run_interop(ULTRALYTICS, out / "data.yaml", folder=tmp_path / "interop")
    assert read["names"] == {"0": "crack"}
    assert [Path(file).name for file, _, _ in read["found"]] == ["000000.png", "000001.png"]
    for (_, number, packed), mask in zip(read["found"], both, strict=True):
        assert number == 6
        filled = np.unpackbits(np.array(packed, np.uint8))[: mask.size].reshape(mask.shape).astype(bool)
        assert (filled & mask).sum() / (filled | mask).sum() >= 0.99


ANOMALIB = """
import json, sys
from anomalib.data import Folder, MVTecAD
form, root = sys.argv[1:]
if form == "mvtec":
    data = MVTecAD(root=root, category="nut", num_workers=0, val_split_mode="none")
else:
    data = Folder("nut", root=f"{root}/nut", normal_dir="good", abnormal_dir="crack", mask_dir="mask/crack",
                  num_workers=0, test_split_mode="from_dir", val_split_mode="none")
data.setup()
test = [item for item in data.test_data]
defects = [item for item in test if int(item.gt_label)]
print()
print(json.dumps({"train": len(data.train_data), "test": len(test), "names": [i.image_path[-10:] for i in defects],
                  "areas": [int(i.gt_mask.sum()) for i in defects]}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("format", ["anomalib", "mvtec"])
def test_anomalib_reads_it(fill, tmp_path, format):
    out, both = fill(format, twins="train")
    read = run_interop(ANOMALIB, format, out, folder=tmp_path / "interop")
    assert read["names"] == ["000000.png", "000001.png"]
    assert read["areas"] == [int(mask.sum()) for mask in both]
    assert read["train"] >= 1


def test_anomalib_folders(fill):
    out, _ = fill("anomalib")
    folders = {path.parent.relative_to(out).as_posix() for path in out.rglob("*.png")}
    assert folders == {"nut/crack", "nut/mask/crack", "nut/normal_test"}


# --- Where a labelling tool says that defects go ---


def paint_places(tmp_path: Path, **options) -> list[tuple[str, np.ndarray]]:
    config = PaintSetConfig(output_dir=tmp_path / "out", model="none", photographs=tmp_path / "photographs", **options)
    return [(photograph.name, read_masks(place).defect) for photograph, place in find_photographs(config)]


def test_paint_goes_where_labels_say(tmp_path, monkeypatch):
    monkeypatch.setattr("dfmgan_hf.data.labels.default_cache_dir", lambda: tmp_path / "cache")
    for name in "abc":
        path = tmp_path / "photographs" / "good" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (40, 30), 90).save(path)
    crack, dent = "10,10;20,10;20,20;10,20", "30,5;35,5;35,9;30,9"
    shapes = f'<polygon label="crack" points="{crack}"/><polygon label="dent" points="{dent}"/>'
    labels = tmp_path / "labels" / "annotations.xml"
    labels.parent.mkdir()
    labels.write_text(
        f'<annotations><image name="a.png" width="40" height="30">{shapes}</image>'
        f'<image name="b.png" width="40" height="30"><polygon label="dent" points="{dent}"/></image></annotations>'
    )
    for masks in (labels, labels.parent):
        both = paint_places(tmp_path, masks=masks)
        assert [(name, int(mask.sum())) for name, mask in both] == [("a.png", 120), ("b.png", 20)]
        assert both[1][1][5:9, 30:35].all()
    assert [(name, int(m.sum())) for name, m in paint_places(tmp_path, masks=labels, defect="crack")] == [
        ("a.png", 100)
    ]
    labels.write_text("<annotations/>")
    with pytest.raises(ExportError, match="labels no area"):
        paint_places(tmp_path, masks=labels)
