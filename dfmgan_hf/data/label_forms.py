"""Read the forms in which labelling tools export: COCO, YOLO, LabelMe, Label Studio, CVAT and VOC.

`find_labels` finds label files, `read_sheets` reads one into a `Sheet` for each photograph; its areas are drawn later.

Label files come from anywhere: none can take more time or memory than a file of its length and a photograph of its
size need, and none says which files are opened.
"""

from __future__ import annotations

import base64
import io
import json
import math
import urllib.parse
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
import yaml
from PIL import Image

from .reading import Array, decode, mask_to_array
from .records import (
    GOOD,
    IMAGE_EXTENSIONS,
    DataError,
    files_below,
    is_folder_name,
    normalised,
    shorten,
    walk_entries,
)

LABEL_EXTENSIONS = frozenset({".json", ".xml", ".yaml", ".yml"})
"""Endings of the files that a tool exports; the texts of YOLO and VOC are found from there."""

_LARGEST_FILE = 2**29  # bytes of a label file: the one of COCO 2017's training images has 4.5e8
_MOST_CROSSINGS = 2**26  # of the lines of one outline with rows of pixels
_CROSSINGS_AT_ONCE = 2**20
GOOD_NAMES = frozenset({GOOD, "ok", "normal"})
_YOLO_CLASSES = ("classes.txt", "obj.names")
_NO_DEFECTS = frozenset({"background", "_background_", "__background__", "__ignore__"})
_MOST_COLOURS = 1024  # of a mask that labelmap.txt explains
_NO_CLASS = 255  # of VOC: the border around a thing, which belongs neither to it nor to the background
BOXES, LINES = "boxes", "lines, points or other shapes without an area"
PREDICTIONS = "predictions"  # of a model, which say nothing of the photograph


@dataclass
class Area:
    """Pixels of one kind of defect: `draw(width, height)` returns them, bool `(H, W)`, or raises a ValueError."""

    label: str
    draw: Callable[[int, int], Array]


@dataclass
class Sheet:
    """What a label file says of one photograph.

    Attributes:
        file: The label file.
        name: What it calls the photograph: a path, URL, or (YOLO) a path without its ending.
        size: Width and height of the photograph that was labelled, if it says so.
        areas: What is labelled on it.
        is_good: Whether it says that nothing is wrong with it.
        ignored: Labels that are not used, by what they are.
        problem: What is wrong with the labels, if anything.
        troubled: Labels with an area that cannot be drawn for it.
    """

    file: Path
    name: str
    size: tuple[int, int] | None = None
    areas: list[Area] = field(default_factory=list)
    is_good: bool = False
    ignored: Counter[str] = field(default_factory=Counter)
    problem: str = ""
    troubled: list[str] = field(default_factory=list)

    def add(self, label: object, draw: Callable[[int, int], Array]) -> None:
        """Add an area, unless its label says that it is none of a defect."""
        name = normalised(str(label)).strip()
        if name.lower() in GOOD_NAMES:
            self.is_good = True
        elif name.lower() in _NO_DEFECTS:
            self.ignored["areas of the background"] += 1
        elif not is_folder_name(name):
            self.problem = self.problem or f"the label {name[:80]!r}, which cannot be the name of a folder"
        else:
            self.areas.append(Area(name, draw))

    def tag(self, name: object) -> None:
        """Take note of what is said of the photograph as a whole."""
        if str(name).strip().lower() in GOOD_NAMES:
            self.is_good = True
        else:
            self.ignored["tags of whole photographs"] += 1


class LabelSource(NamedTuple):
    """A label file, or the folder of many, and the tool or form that it is of."""

    form: str
    path: Path

    @property
    def files(self) -> list[Path]:
        """All files that say something."""
        if self.form == "VOC":
            return files_below(self.path)
        return [self.path, *(_texts_below(self.path.parent) if self.form == "YOLO" else ())]


# --- What is drawn: outlines and runs of pixels ---


def fill_outlines(outlines: Sequence[Array], width: int, height: int) -> Array:
    """Draw the pixels whose centres lie in any of some outlines, bool `(height, width)`.

    Args:
        outlines: Corners `(N, 2)` as x and y in pixels, from 0 at the left and upper edge of the picture; they may lie
            outside of it. An outline that crosses itself is filled by the even-odd rule, as all tools do.
        width, height: Of the picture.

    Raises:
        ValueError: an outline of so many long lines that filling it would take minutes.
    """
    filled = np.zeros((height, width), dtype=bool)
    for corners in outlines:
        # Any farther away is outside as well, and this far an edge still has its direction in 64 bits.
        corners = corners.clip(-1e7, 1e7)
        left, top = np.floor(corners.min(axis=0)).clip(0, (width, height)).astype(int).tolist()
        right, bottom = np.ceil(corners.max(axis=0)).clip(0, (width, height)).astype(int).tolist()
        if left < right and top < bottom:
            filled[top:bottom, left:right] |= _fill_outline(corners - (left, top), right - left, bottom - top)
    return filled


def _fill_outline(corners: Array, width: int, height: int) -> Array:
    """Count the edges to the left of each pixel's centre: inside, it is odd."""
    (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
    first = np.ceil(np.minimum(y0, y1) - 0.5).clip(0, height).astype(np.int64)
    rows = np.ceil(np.maximum(y0, y1) - 0.5).clip(0, height).astype(np.int64) - first
    ends = np.cumsum(rows)
    if ends[-1] > _MOST_CROSSINGS:
        raise ValueError(f"an outline of {len(corners)} corners that crosses {ends[-1]} rows of pixels")
    crossings = np.zeros(height * (width + 1), dtype=np.int64)
    chunks = np.searchsorted(ends, np.arange(0, ends[-1], _CROSSINGS_AT_ONCE))
    for chunk in np.split(np.arange(len(corners)), chunks):
        edge = np.repeat(chunk, rows[chunk])
        row = first[edge] + np.arange(len(edge)) - np.repeat(np.cumsum(rows[chunk]) - rows[chunk], rows[chunk])
        share = (row + 0.5 - y0[edge]) / np.where(y1 == y0, 1, y1 - y0)[edge]
        column = np.ceil(x0[edge] + share * (x1 - x0)[edge] - 0.5).clip(0, width).astype(np.int64)
        crossings += np.bincount(row * (width + 1) + column, minlength=len(crossings))
    return np.cumsum(crossings.reshape(height, width + 1)[:, :-1], axis=1) % 2 == 1


def _fill(outlines: Sequence[Array], width: int, height: int, *, scale: float | None = None) -> Array:
    """Fill outlines in pixels, or, with a scale, in shares of the sides that are 1 / scale."""
    factor = 1 if scale is None else np.array([width, height]) * scale
    return fill_outlines([outline * factor for outline in outlines], width, height)


def outline_of(values: object, least: int = 3) -> Array:
    """Return corners `(N, 2)` from `[x, y, x, y, ...]` or `[[x, y], ...]`.

    Raises:
        ValueError: that is no such list of finite numbers, or there are fewer than `least`.
    """
    try:
        corners = np.array(values, dtype=np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise ValueError(f"an outline that is no list of x and y: {str(values)[:60]}") from error
    if len(corners) < least or not np.isfinite(corners).all():
        raise ValueError(f"an outline of {len(corners)} corners, or of numbers that are not finite")
    return corners


def ellipse(centre: Sequence[float], radii: Sequence[float], degrees: float = 0.0) -> Array:
    """Return an ellipse as an outline of 256 corners; degrees turn it clockwise as seen."""
    numbers = np.array([*centre, *radii, degrees], dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError("an ellipse of numbers that are not finite")
    angles, turn = np.linspace(0, 2 * np.pi, 256, endpoint=False), math.radians(numbers[4])
    x, y = numbers[2] * np.cos(angles), numbers[3] * np.sin(angles)
    turned = (x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn))
    return np.stack(turned, axis=1) + numbers[:2]


def fill_runs(counts: Sequence[int], width: int, height: int, *, by_columns: bool) -> Array:
    """Draw run lengths, of background first and then in turns, bool `(height, width)`.

    Raises:
        ValueError: they are not whole numbers from 0 that add up to the pixels.
    """
    if not all(type(count) is int and count >= 0 for count in counts):
        raise ValueError("run lengths that are not whole numbers from 0")
    if sum(counts) != width * height:  # in Python's integers, which no count is too large for
        raise ValueError(f"run lengths of {min(sum(counts), 2**63):.6g} pixels, for a picture of {width}x{height}")
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    return flat.reshape(width, height).T if by_columns else flat.reshape(height, width)


def counts_from_text(text: str) -> list[int]:
    """Return the run lengths that COCO writes as a text: six bits a character, differences from the third number on.

    Raises:
        ValueError: it is none.
    """
    counts: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 50:
            raise ValueError(f"run lengths that are not as COCO writes them, at {character!r}")
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (bits & 16) << (shift - 4)  # the sign
            counts.append(value + (counts[-2] if len(counts) > 2 else 0))
            value = shift = 0
    if shift:
        raise ValueError("run lengths that break off")
    return counts


def fill_brush(values: object, width: int, height: int) -> Array:
    """Draw a brush of Label Studio: packed runs of the samples of a picture in RGBA, whose alpha is the mask.

    The packing is that of @thi.ng/rle-pack: 32 bits that say how many samples, 5 for the bits of one, four times 4 for
    the bits of a length; then runs of one sample, or of different ones.

    Raises:
        ValueError: it is none, or for another size.
    """
    try:
        packed = np.array(values, dtype=np.int64)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("a brush that is no list of bytes") from error
    if packed.ndim != 1 or ((packed < 0) | (packed > 255)).any():
        raise ValueError("a brush that is no list of bytes")
    bits = np.unpackbits(packed.astype(np.uint8))
    data, position = packed.astype(np.uint8).tobytes(), 0

    def read(number: int) -> int:
        nonlocal position
        end = position + number
        if end > len(bits):
            raise ValueError("a brush that breaks off")
        part = int.from_bytes(data[position // 8 : (end + 7) // 8], "big") >> (-end % 8)
        position = end
        return part & ((1 << number) - 1)

    total = read(32)
    if total != 4 * width * height:
        raise ValueError(f"a brush of {total} samples, for a picture of {width}x{height} with four channels")
    word = read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    weights = 1 << np.arange(word - 1, -1, -1, dtype=np.int64)
    samples = np.zeros(total, dtype=bool)
    done = 0
    while done < total:
        is_run = read(1)
        count = 1 + read(lengths[read(2)])
        if done + count > total:
            raise ValueError("a brush that is longer than its picture")
        if is_run:
            samples[done : done + count] = read(word) != 0
        else:
            end = position + count * word
            if end > len(bits):
                raise ValueError("a brush that breaks off")
            samples[done : done + count] = bits[position:end].reshape(count, word) @ weights != 0
            position = end
        done += count
    return samples.reshape(height, width, 4)[:, :, 3]


def _inset(part: Array, left: int, top: int, width: int, height: int) -> Array:
    """Put a mask into a picture at a place, part of which may lie outside."""
    whole = np.zeros((height, width), dtype=bool)
    x, y = max(left, 0), max(top, 0)
    right, bottom = min(left + part.shape[1], width), min(top + part.shape[0], height)
    if x < right and y < bottom:
        whole[y:bottom, x:right] = part[y - top : bottom - top, x - left : right - left]
    return whole


# --- Forms: each reader yields a sheet for each photograph ---


def read_coco(file: Path) -> Iterator[Sheet]:
    """Read COCO instances: outlines, which are united, and run lengths, as numbers or as text."""
    data = _read_json(file)
    names = {str(row.get("id")): row.get("name") for row in _rows(data, "categories", file)}
    sheets: dict[str, Sheet] = {}
    for row in _rows(data, "images", file):
        size = row.get("width"), row.get("height")
        sheets[str(row.get("id"))] = Sheet(file, str(row.get("file_name")), _size(*size))
    lost = 0
    for row in _rows(data, "annotations", file):
        sheet = sheets.get(str(row.get("image_id")))
        if sheet is None:
            lost += 1
            continue
        category = str(row.get("category_id"))
        with _noting(sheet, f"annotation {row.get('id')}", names.get(category)):
            if category not in names:
                raise ValueError(f"the category {category}, which the file does not list")
            draw = _coco_area(row.get("segmentation"), sheet.size)
            if draw is None:
                sheet.ignored[BOXES] += 1
            else:
                sheet.add(names[category], draw)
    if lost:
        raise bad_labels(file, f"{lost} annotations of images that it does not list", "an image for each")
    yield from sheets.values()


def _coco_area(area: Any, size: tuple[int, int] | None) -> Callable[[int, int], Array] | None:
    if not area:
        return None
    if isinstance(area, list):
        return partial(_fill, [outline_of(outline) for outline in area])
    if not isinstance(area, dict):
        raise ValueError(f"a segmentation that is neither a list nor run lengths: {str(area)[:60]}")
    counts, drawn = area.get("counts"), area.get("size")
    if not isinstance(drawn, list) or len(drawn) != 2 or (size and tuple(drawn) != size[::-1]):
        raise ValueError(f"run lengths for a picture of {drawn} rows and columns, which is not the photograph's size")
    if isinstance(counts, str):
        counts = counts_from_text(counts)
    if not isinstance(counts, list):
        raise ValueError(f"run lengths that are no list: {str(counts)[:60]}")
    return partial(fill_runs, counts, by_columns=True)


def read_labelme(file: Path) -> Iterator[Sheet]:
    """Read a file of LabelMe: polygons, circles and masks; a file without any says that the photograph is good."""
    data = _read_json(file)
    sheet = Sheet(file, str(data["imagePath"]), _size(data.get("imageWidth"), data.get("imageHeight")))
    shapes = data["shapes"]
    flags = data.get("flags")
    for name, is_set in flags.items() if isinstance(flags, dict) else ():
        if is_set:
            sheet.tag(name)
    for number, shape in enumerate(shapes if isinstance(shapes, list) else ()):
        if not isinstance(shape, dict):
            sheet.problem = f"shape {number}: no object"
            continue
        with _noting(sheet, f"shape {number}", shape.get("label")):
            kind, points = shape.get("shape_type") or "polygon", shape.get("points")
            if kind == "polygon":
                sheet.add(shape.get("label"), partial(_fill, [outline_of(points)]))
            elif kind == "circle":  # its centre, and a point on it
                centre, rim = outline_of(points, 2)[:2]
                radius = float(np.hypot(*(rim - centre)))
                sheet.add(shape.get("label"), partial(_fill, [ellipse(centre.tolist(), (radius, radius))]))
            elif kind == "mask":
                corner = outline_of(points, 2)[0].clip(-1e7, 1e7).round().astype(int).tolist()
                sheet.add(shape.get("label"), partial(_labelme_mask, str(shape.get("mask")), *corner))
            else:
                sheet.ignored[BOXES if kind == "rectangle" else LINES] += 1
    if not shapes:
        sheet.is_good = True
    yield sheet


def _labelme_mask(text: str, left: int, top: int, width: int, height: int) -> Array:
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as image:
            if image.width > width + 2 or image.height > height + 2:
                raise ValueError("a mask larger than the photograph")
            part = mask_to_array(image).defect
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"a mask that does not decode ({error})") from error
    return _inset(part, left, top, width, height)


def read_label_studio(file: Path) -> Iterator[Sheet]:
    """Read tasks of Label Studio: polygons, brushes and ellipses, in percent of the photograph's sides.

    Of several annotations of a task, the one that is marked as ground truth counts, or else the last. One that was
    submitted with nothing in it says that the photograph is good; a skipped one says nothing.
    """
    for task in _read_json(file):
        data = task.get("data") if isinstance(task, dict) else None
        given = task.get("annotations") if isinstance(task, dict) else None
        name = _task_image(data)
        if name is None or not isinstance(given, list):
            raise bad_labels(file, "a task without an image or annotations", "Label Studio's export as JSON")
        sheet = Sheet(file, name)
        done = [each for each in given if isinstance(each, dict) and not each.get("was_cancelled")]
        if len(done) > 1:
            sheet.ignored["further annotations of the same task"] += len(done) - 1
        if predictions := task.get("predictions"):
            sheet.ignored[PREDICTIONS] += len(predictions)
        chosen = next((each for each in done if each.get("ground_truth")), done[-1] if done else None)
        if chosen is not None:
            with _noting(sheet, f"annotation {chosen.get('id')}"):
                _add_results(sheet, chosen.get("result"))
        yield sheet


def _task_image(data: Any) -> str | None:
    """Return the first value of a task that is called like an image, by its ending."""
    values = [value for value in data.values() if isinstance(value, str)] if isinstance(data, dict) else []
    images = [value for value in values if PurePosixPath(plain_name(value)).suffix.lower() in IMAGE_EXTENSIONS]
    return next(iter(images or values), None)


def _add_results(sheet: Sheet, results: Any) -> None:
    if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
        raise ValueError("results that are no list of objects")
    sheet.is_good = not results
    # A region and its labels are one result, or several of the same id.
    regions: dict[str, list[dict[str, Any]]] = {}
    for number, result in enumerate(results):
        regions.setdefault(str(result.get("id", number)), []).append(result)
    for name, parts in regions.items():
        values = [value if isinstance(value := part.get("value"), dict) else {} for part in parts]
        given = [v for value in values for key, v in value.items() if key.endswith("labels") and isinstance(v, list)]
        labels = list(dict.fromkeys(str(label) for each in given for label in each))
        for choice in (choice for value in values for choice in value.get("choices") or ()):
            sheet.tag(choice)
        with _noting(sheet, f"region {name}", labels[0] if labels else None):
            part, value = max(zip(parts, values, strict=True), key=lambda pair: len(pair[1]))
            _add_region(sheet, part, value, labels)


def _add_region(sheet: Sheet, result: dict[str, Any], value: dict[str, Any], labels: Sequence[str]) -> None:
    size = _size(result.get("original_width"), result.get("original_height"))
    if "points" in value:
        draw = partial(_fill, [outline_of(value["points"])], scale=0.01)
    elif "rle" in value:
        draw = partial(fill_brush, value["rle"])
    elif "radiusX" in value and size is not None:
        numbers = [float(value.get(name) or 0) for name in ("x", "y", "radiusX", "radiusY", "rotation")]
        scaled = [number * side / 100 for number, side in zip(numbers, size * 2, strict=False)]
        draw = partial(_fill, [ellipse(scaled[:2], scaled[2:], numbers[4])])
    else:  # without a place, such as a comment or a rating, it is of the photograph and says nothing of a defect
        if value.keys() & {"width", "x", "vertices"}:
            sheet.ignored[BOXES if "width" in value else LINES] += 1
        return
    if result.get("image_rotation"):
        raise ValueError(f"the photograph was turned by {result['image_rotation']} degrees while it was labelled")
    if size is not None and sheet.size not in (None, size):
        raise ValueError(f"regions for photographs of {sheet.size} and {size} pixels")
    sheet.size = size or sheet.size
    if not labels:
        raise ValueError("a region without a label")
    for label in labels:
        sheet.add(label, draw)


def read_cvat(file: Path) -> Iterator[Sheet]:
    """Read "CVAT for images": polygons, masks and ellipses."""
    root = _read_xml(file)
    if root.find("track") is not None:
        raise bad_labels(file, "tracks, as in CVAT for video", 'the export "CVAT for images 1.1"')
    for image in root.iter("image"):
        sheet = Sheet(file, image.get("name") or "", _size(image.get("width"), image.get("height")))
        for number, shape in enumerate(image):
            label, get = shape.get("label"), shape.get
            with _noting(sheet, f"{shape.tag} {number}", label):
                if shape.tag == "polygon":
                    points = (get("points") or "").replace(";", ",").split(",")
                    sheet.add(label, partial(_fill, [outline_of(points)]))
                elif shape.tag == "mask":
                    counts = [int(count) for count in (get("rle") or "").split(",")]
                    left, top, *size = (int(float(get(name) or "nan")) for name in ("left", "top", "width", "height"))
                    sheet.add(label, partial(_cvat_mask, counts, left, top, size))
                elif shape.tag == "ellipse":
                    cx, cy, rx, ry = (float(get(name) or "nan") for name in ("cx", "cy", "rx", "ry"))
                    turn = float(get("rotation") or 0)
                    sheet.add(label, partial(_fill, [ellipse((cx, cy), (rx, ry), turn)]))
                elif shape.tag == "tag":
                    sheet.tag(label)
                else:
                    sheet.ignored[BOXES if shape.tag == "box" else LINES] += 1
        yield sheet


def _cvat_mask(counts: Sequence[int], left: int, top: int, size: Sequence[int], width: int, height: int) -> Array:
    if not (0 < size[0] <= width and 0 < size[1] <= height):
        raise ValueError(f"a mask of {size[0]}x{size[1]} pixels, for a picture of {width}x{height}")
    return _inset(fill_runs(counts, *size, by_columns=False), left, top, width, height)


def read_yolo(file: Path) -> Iterator[Sheet]:
    """Read rows of YOLO, `class x y x y ...` in shares of the sides, one text for each photograph.

    A text without a row says that the photograph is good. Rows of five numbers are boxes.

    Args:
        file: The names of the classes: data.yaml, classes.txt or obj.names. The texts lie below its folder.
    """
    names = _yolo_names(file)
    for text in _texts_below(file.parent):
        lines = _read_text(text).splitlines()
        first = next(filter(str.strip, lines), "")
        if text.name in _YOLO_CLASSES or not _is_yolo_row(first):  # or a list of files, or a read-me
            continue
        sheet = Sheet(text, text.relative_to(file.parent).with_suffix("").as_posix())
        sheet.is_good = not any(line.strip() for line in lines)
        for number, line in enumerate(lines, 1):
            with _noting(sheet, f"line {number}"):
                values = [float(value) for value in line.split()]
                if len(values) == 5:
                    sheet.ignored[BOXES] += 1
                elif values:
                    name = names.get(int(values[0]))
                    if name is None:
                        raise ValueError(f"the class {values[0]:g}, which {file.name} does not name")
                    sheet.add(name, partial(_fill, [outline_of(values[1:])], scale=1))
        yield sheet


def _texts_below(folder: Path) -> list[Path]:
    return [file for file in files_below(folder) if file.suffix.lower() == ".txt"]


def _is_yolo_row(line: str) -> bool:
    return all(_is_number(word) for word in line.split()[:5])


def _is_number(word: str) -> bool:
    try:
        return math.isfinite(float(word))
    except ValueError:
        return False


def _yolo_names(file: Path) -> dict[int, str]:
    if file.name in _YOLO_CLASSES:
        return dict(enumerate(line.strip() for line in _read_text(file).splitlines() if line.strip()))
    content = _read_yaml(file)
    names = content.get("names") if isinstance(content, dict) else None
    if isinstance(names, list):
        names = dict(enumerate(names))
    # Whatever else stands for a name is not written out: in a few bytes, lists of aliases can stand for gigabytes.
    if not isinstance(names, dict) or not all(type(key) is int for key in names):
        raise bad_labels(file, "no names of classes", "`names`, as a list or by number")
    for name in names.values():
        if type(name) not in (int, str):
            raise bad_labels(file, f"a name that YAML reads as {type(name).__name__}", 'text, such as "no" in quotes')
    return {key: str(name) for key, name in names.items()}


def read_voc(folder: Path) -> Iterator[Sheet]:
    """Read masks of Pascal VOC, one colour for each kind: `SegmentationClass/*.png`, and those in folders below.

    The colours are named by labelmap.txt, as CVAT and Datumaro write it (`crack:128,0,0::`). Without it, the numbers
    of a palette file become the kinds class_1, class_2 and so on.
    """
    table = folder / "labelmap.txt"
    names = _voc_colours(table) if table.is_file() else None
    masks = folder / "SegmentationClass"
    for file in (image for _, entries in walk_entries(masks) for image in entries.images):
        sheet = Sheet(file, file.relative_to(masks).with_suffix("").as_posix())
        with _noting(sheet, file.name):
            image = decode(file, is_mask=True).pixels
            if not isinstance(image, Image.Image):
                raise ValueError("a mask of 16 bits a channel")
            sheet.size = image.size
            if names is None:
                if image.mode not in ("P", "L"):
                    raise ValueError(f"colours ({image.mode}) that no labelmap.txt names")
                numbers = np.asarray(image)
                for number in np.unique(numbers):
                    if number not in (0, _NO_CLASS):
                        sheet.add(f"class_{number}", partial(_voc_area, file, int(number)))
            else:
                colours = image.convert("RGB").getcolors(_MOST_COLOURS)
                if colours is None:
                    raise ValueError(f"more than {_MOST_COLOURS} colours, as lossy compression leaves them")
                for colour in sorted(tuple(map(int, shown)) for _, shown in colours):  # type: ignore[arg-type]
                    if colour not in names:
                        raise ValueError(f"the colour {colour}, which labelmap.txt does not name")
                    if names[colour] is not None:
                        sheet.add(names[colour], partial(_voc_area, file, colour))
        yield sheet


def _voc_colours(table: Path) -> dict[Any, str | None]:
    """Return the label of each colour, None where that is no defect."""
    names: dict[Any, str | None] = {}
    for line in _read_text(table).splitlines():
        name, _, rest = line.partition(":")
        if not line.strip() or line.startswith("#"):
            continue
        colour = rest.partition(":")[0]
        try:
            red, green, blue = map(int, colour.split(",")) if colour.strip() else _voc_colour(len(names))
        except ValueError as error:
            expected = "a name and a colour, as in crack:128,0,0::"
            raise bad_labels(table, f"the line {line[:80]!r}", expected) from error
        names[red, green, blue] = None if name.strip().lower() in _NO_DEFECTS else name.strip()
    return {_voc_colour(0): None, _voc_colour(_NO_CLASS): None} | names


def _voc_colour(number: int) -> tuple[int, ...]:
    """Return a class's colour in VOC's palette: its bits, taken in turns by red, green and blue, highest first."""
    return tuple(sum((number >> 3 * bit + channel & 1) << 7 - bit for bit in range(3)) for channel in range(3))


def _voc_area(file: Path, value: int | tuple[int, ...], width: int, height: int) -> Array:
    image = decode(file, is_mask=True).pixels
    assert isinstance(image, Image.Image)  # as when its colours were read
    if image.size != (width, height):
        raise ValueError(f"a mask of {image.width}x{image.height} pixels, for a photograph of {width}x{height}")
    if isinstance(value, int):
        return np.asarray(image) == value
    different = [np.asarray(band) != level for band, level in zip(image.convert("RGB").split(), value, strict=True)]
    return ~np.logical_or.reduce(different)


def plain_name(name: str) -> str:
    """Return the path in what a tool calls a photograph: without a URL's escapes, and of a query the path in it."""
    if "?d=" in name:  # as Label Studio calls local files
        name = name.partition("?d=")[2]
    elif "://" in name:
        name = name.partition("?")[0]
    return (urllib.parse.unquote(name) if "%" in name else name).replace("\\", "/").strip("/")


# --- Files: which are labels, and what is in them ---


def find_labels(path: Path) -> list[LabelSource]:
    """Return the label files in a folder and those below it, or the one that a file is; none if there are none.

    Raises:
        DataError: (`labels`) if there are those of several tools, or one that does not parse or is of a form that says
            too little.
    """
    if path.is_file():
        form = _form_of(path)
        if form is None:
            known = "COCO, LabelMe or Label Studio (JSON), CVAT for images (XML), or YOLO (data.yaml, classes.txt)"
            raise bad_labels(path, "a file that is no labels of a known form", known)
        return [LabelSource(form, path)]
    found: list[LabelSource] = []
    for folder, entries in walk_entries(path):
        masks = folder / "SegmentationClass"
        if masks in entries.folders:
            entries.folders.remove(masks)
            found.append(LabelSource("VOC", folder))
        for entry in entries.left_over:
            if entry.kind == "ignored_files" and (form := _form_of(entry.path)):
                found.append(LabelSource(form, entry.path))
    yolo = [source for source in found if source.form == "YOLO"]
    found = [source for source in found if source.form != "YOLO"]
    # Where data.yaml names the classes, classes.txt does so again, and one in a folder below is of the same data set.
    for source in sorted(yolo, key=lambda source: (len(source.path.parts), source.path.suffix == ".txt")):
        if not any(known.form == "YOLO" and source.path.is_relative_to(known.path.parent) for known in found):
            found.append(source)
    forms = {source.form: source.path for source in reversed(found)}
    if len(forms) > 1:
        listed = shorten(f"{form} in {file.name}" for form, file in sorted(forms.items()))
        raise bad_labels(path, f"labels in several forms: {listed}", "those of one", "Name one with --labels.")
    return found


def _form_of(file: Path) -> str | None:
    """Return the form of a file's labels; None if it holds none."""
    ending = file.suffix.lower()
    if file.name in _YOLO_CLASSES or ending in (".yaml", ".yml"):
        content = _read_yaml(file) if ending in (".yaml", ".yml") else {"names": ()}
        return "YOLO" if isinstance(content, dict) and "names" in content and _has_yolo_rows(file) else None
    if ending == ".xml":
        root = _read_xml(file)
        return "CVAT" if root.tag == "annotations" else None
    if ending != ".json":
        return None
    data = _read_json(file)
    if isinstance(data, dict):
        if isinstance(data.get("images"), list) and isinstance(data.get("annotations"), list):
            return "COCO"
        return "LabelMe" if "shapes" in data and "imagePath" in data else None
    tasks = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    if any("annotation_id" in each and "annotations" not in each for each in tasks):
        raise bad_labels(file, "Label Studio's JSON-MIN, which leaves out the regions' sizes", "its export as JSON")
    return "Label Studio" if any("data" in each and "annotations" in each for each in tasks) else None


def _has_yolo_rows(names: Path) -> bool:
    others = (text for text in _texts_below(names.parent) if text != names)
    first = (_read_text(text).lstrip().partition("\n")[0].split() for text in others)
    return any(len(words) >= 5 and all(map(_is_number, words)) for words in first)


def _read_text(file: Path) -> str:
    try:
        if file.stat().st_size > _LARGEST_FILE:
            raise bad_labels(file, f"{file.stat().st_size} bytes", f"labels of at most {_LARGEST_FILE} bytes")
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_labels(file, f"text that is not in UTF-8 ({error.reason})", "a text file in UTF-8") from error


@contextmanager
def _parsing(file: Path, language: str) -> Iterator[None]:
    try:
        yield
    except DataError:
        raise
    except (ValueError, RecursionError, yaml.YAMLError, ET.ParseError) as error:
        reason = str(error).partition("\n")[0]
        raise bad_labels(file, f"{language} that does not parse ({reason})", f"a whole {language} file") from error


def _read_json(file: Path) -> Any:
    with _parsing(file, "JSON"):
        return json.loads(_read_text(file))


def _read_yaml(file: Path) -> Any:
    with _parsing(file, "YAML"):
        return yaml.safe_load(_read_text(file))


class _WithoutEntities(ET.TreeBuilder):
    """Stops at a document type: entities, which can be few bytes and grow without bound, are declared there alone."""

    def doctype(self, name: str, pubid: str | None, system: str | None) -> None:
        raise ValueError("it declares a document type, which labels have no need of")


def _read_xml(file: Path) -> ET.Element:
    with _parsing(file, "XML"):
        return ET.fromstring(_read_text(file), ET.XMLParser(target=_WithoutEntities()))


def read_sheets(source: LabelSource) -> Iterator[Sheet]:
    """Read a label file, or the folder of many."""
    return _READERS[source.form](source.path)


_READERS: Mapping[str, Callable[[Path], Iterator[Sheet]]] = {
    "COCO": read_coco,
    "LabelMe": read_labelme,
    "Label Studio": read_label_studio,
    "CVAT": read_cvat,
    "YOLO": read_yolo,
    "VOC": read_voc,
}


@contextmanager
def _noting(sheet: Sheet, what: str, label: object = None) -> Iterator[None]:
    """Inside, a value that is not possible is noted as the sheet's problem and ends the block."""
    try:
        yield
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        sheet.problem = sheet.problem or f"{what}: {error}"
        if isinstance(label, str) and is_folder_name(normalised(label)):
            sheet.troubled.append(normalised(label))


def _size(width: object, height: object) -> tuple[int, int] | None:
    """Return a size that a file states, as whole numbers; None if it states none."""
    try:
        size = int(float(str(width))), int(float(str(height)))  # tables of numbers write 640 as 640.0
    except (ValueError, OverflowError):
        return None
    return size if min(size) > 0 else None


def _rows(data: dict[str, Any], key: str, file: Path) -> list[dict[str, Any]]:
    rows = data.get(key) or []
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise bad_labels(
            file, f"{key!r} that is no list of objects", "COCO's lists of images, annotations, categories"
        )
    return rows


def bad_labels(file: Path, found: str, expected: str, advice: str = "Export the labels again.") -> DataError:
    return DataError("labels", file, found, expected, advice)
