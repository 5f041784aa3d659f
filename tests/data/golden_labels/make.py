"""Write the golden label files of this folder, each with the tool's own library.

    python -m venv golden && golden/bin/pip install datumaro==1.13.12 label-studio-sdk==2.1.2 pycocotools==2.0.11
    golden/bin/pip install --no-deps labelme==6.3.1 && golden/bin/pip install loguru tifffile imgviz
    golden/bin/python tests/data/golden_labels/make.py

Three photographs of 64x48 pixels (tests draw them; none is stored): on a.png a crack of two parts, of which one has a
hole, and a dent; on b.png a crack of two parts; on c.png nothing. `tests/data/test_labels.py` draws the same in numpy.
datumaro writes CVAT's XML, COCO and VOC as CVAT's server does, which uses it. LabelMe saves without the libraries of
its window, which are left out. Label Studio's JSON is what its server exports, with the brush packed by its library;
YOLO and the second COCO are what its converter makes of that.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np

HERE = Path(__file__).parent
WIDTH, HEIGHT = 64, 48
y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
distance = (x - 20) ** 2 + (y - 20) ** 2
RING = (distance < 81) & (distance > 16)
BAR = [[40, 8], [50, 8], [50, 12], [40, 12]]
DENT = [[40, 30], [58, 30], [49, 44]]
PARTS = [[[5, 5], [15, 5], [15, 9], [5, 9]], [[30, 20], [34, 20], [34, 40], [30, 40]]]
POLYGONS = {"a.png": [("crack", BAR), ("dent", DENT)], "b.png": [("crack", part) for part in PARTS], "c.png": []}


def flat(points):
    return [float(value) for point in points for value in point]


def make_datumaro():
    import datumaro as dm

    items = []
    for name, polygons in POLYGONS.items():
        areas = [
            dm.Polygon(flat(points), label=["crack", "dent"].index(k), id=i) for i, (k, points) in enumerate(polygons)
        ]
        if name == "a.png":
            areas.append(dm.Mask(RING, label=0, id=len(areas)))
        # Instances that share a group become one.
        areas = [area.wrap(group=number + 1) for number, area in enumerate(areas)]
        pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        items.append(dm.DatasetItem(name[0], media=dm.Image.from_numpy(pixels, ext=".png"), annotations=areas))
    dataset = dm.Dataset.from_iterable(items, categories=["crack", "dent"])
    for form, folder in (("cvat", "cvat"), ("coco_instances", "coco"), ("voc_segmentation", "voc")):
        shutil.rmtree(HERE / folder, ignore_errors=True)
        if folder == "voc":
            dataset = dataset.transform("polygons_to_masks")
        dataset.export(str(HERE / folder), form, save_media=False)
    shutil.rmtree(HERE / "voc" / "SegmentationObject")


def make_pycocotools():
    from pycocotools import mask as coco

    compressed = coco.encode(np.asfortranarray(RING.astype(np.uint8)))
    annotations = [
        {"segmentation": {"size": compressed["size"], "counts": compressed["counts"].decode()}, "category_id": 1}
    ]
    annotations += [
        {"segmentation": [flat(points)], "category_id": 1 + (kind == "dent")} for kind, points in POLYGONS["a.png"]
    ]
    annotations.append({"segmentation": [flat(part) for part in PARTS], "category_id": 1})
    content = {
        "images": [{"id": i, "file_name": n, "width": WIDTH, "height": HEIGHT} for i, n in enumerate(POLYGONS)],
        "categories": [{"id": 1, "name": "crack"}, {"id": 2, "name": "dent"}],
        "annotations": [
            {**each, "id": i, "image_id": int(i == 3), "iscrowd": 0} for i, each in enumerate(annotations)
        ],
    }
    folder = HERE / "coco_compressed"
    folder.mkdir(exist_ok=True)
    (folder / "instances.json").write_text(json.dumps(content, indent=1) + "\n")


def make_labelme():
    for name in ("onnxruntime", "PyQt5", "skimage"):  # of its window, and of what it proposes
        sys.modules[name] = MagicMock()
    from labelme import LabelFile
    from labelme.utils import img_arr_to_b64

    (HERE / "labelme").mkdir(exist_ok=True)
    for name, polygons in POLYGONS.items():
        shapes = [
            {"label": kind, "points": points, "shape_type": "polygon", "flags": {}, "group_id": None, "mask": None}
            for kind, points in polygons
        ]
        if name == "a.png":
            rows, columns = np.flatnonzero(RING.any(1)), np.flatnonzero(RING.any(0))
            box = columns[0], rows[0], columns[-1], rows[-1]
            mask = RING[box[1] : box[3] + 1, box[0] : box[2] + 1]
            points = [[float(box[0]), float(box[1])], [float(box[2]), float(box[3])]]
            ring = {"label": "crack", "points": points, "shape_type": "mask", "flags": {}, "group_id": None}
            shapes.append({**ring, "mask": img_arr_to_b64(mask.astype(np.uint8))})
        file = HERE / "labelme" / name.replace("png", "json")
        LabelFile().save(str(file), shapes, name, HEIGHT, WIDTH)


def make_label_studio():
    from label_studio_sdk.converter import Converter
    from label_studio_sdk.converter.brush import mask2rle

    tasks = []
    for number, (name, polygons) in enumerate(POLYGONS.items()):
        frame = {"original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0, "to_name": "image"}
        results = []
        for kind, points in polygons:
            percent = [[100 * px / WIDTH, 100 * py / HEIGHT] for px, py in points]
            value = {"points": percent, "closed": True, "polygonlabels": [kind]}
            results.append({**frame, "from_name": "polygon", "type": "polygonlabels", "value": value})
        if name == "a.png":
            value = {"format": "rle", "rle": mask2rle((RING * 255).astype(np.uint8)), "brushlabels": ["crack"]}
            results.append({**frame, "from_name": "brush", "type": "brushlabels", "value": value})
        results = [{"id": f"region{i}", **result} for i, result in enumerate(results)]
        image = f"/data/upload/1/{number:08x}-{name}"
        annotations = [{"id": number, "was_cancelled": False, "ground_truth": False, "result": results}]
        tasks.append({"id": number, "data": {"image": image}, "annotations": annotations, "predictions": []})
    folder = HERE / "label_studio"
    folder.mkdir(exist_ok=True)
    (folder / "project-1.json").write_text(json.dumps(tasks) + "\n")

    labels = '<Label value="crack"/><Label value="dent"/>'
    polygons = f'<PolygonLabels name="polygon" toName="image">{labels}</PolygonLabels>'
    config = f'<View><Image name="image" value="$image"/>{polygons}</View>'
    for task in tasks:  # its converters to YOLO and COCO leave brushes out
        results = task["annotations"][0]["result"]
        results[:] = [result for result in results if result["type"] == "polygonlabels"]
    with tempfile.TemporaryDirectory() as temporary:
        (source := Path(temporary) / "tasks.json").write_text(json.dumps(tasks))
        converter = Converter(config, None, download_resources=False)
        for form in ("YOLO", "COCO"):
            out = HERE / f"label_studio_{form.lower()}"
            shutil.rmtree(out, ignore_errors=True)
            converter.convert(str(source), str(out), form, is_dir=False)


if __name__ == "__main__":
    make_datumaro()
    make_pycocotools()
    make_labelme()
    make_label_studio()
