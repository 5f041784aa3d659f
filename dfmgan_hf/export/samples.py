"""One exported triplet: three PNG files, and what is known of how it was drawn."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from PIL import Image, PngImagePlugin

from .errors import ExportError

_TEXT_KEY = "dfmgan_hf"


@dataclass(frozen=True)
class Record:
    """What is known of a triplet; a row of the table of seeds.

    Args:
        index: number of the image, from 0.
        seed: `pipe(seeds=[seed])` with the settings of the export draws it again.
        mask_area: share of the image that the mask covers, 0 to 1.
        dropped_empty, dropped_too_small, dropped_too_large: draws that the filter dropped before this one, by reason.
    """

    index: int
    seed: int
    mask_area: float
    dropped_empty: int = 0
    dropped_too_small: int = 0
    dropped_too_large: int = 0

    @property
    def dropped(self) -> int:
        """Draws dropped before this one, for all reasons."""
        return self.dropped_empty + self.dropped_too_small + self.dropped_too_large


RECORD_FIELDS = tuple(field.name for field in fields(Record))


@dataclass(frozen=True)
class Sample:
    """A triplet ready to be written.

    Args:
        record: how it was drawn.
        image, mask, defect_free: PNG files. The image's also holds the record.
    """

    record: Record
    image: bytes
    mask: bytes
    defect_free: bytes


@dataclass(frozen=True)
class Triplet:
    """A written triplet, decoded: 8-bit images."""

    record: Record
    image: Image.Image
    mask: Image.Image
    defect_free: Image.Image


def to_png(image: Image.Image, text: PngImagePlugin.PngInfo | None = None) -> bytes:
    """A PNG file's content; `text` is stored beside the pixels."""
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=text)
    return stream.getvalue()


def encode_sample(record: Record, image: Image.Image, mask: Image.Image, defect_free: Image.Image) -> Sample:
    """Encode a triplet; the same one always gives the same bytes."""
    text = PngImagePlugin.PngInfo()
    text.add_text(_TEXT_KEY, json.dumps(asdict(record)))
    return Sample(record, to_png(image, text), to_png(mask), to_png(defect_free))


def decode_sample(image: io.BytesIO | Path, mask: io.BytesIO | Path, defect_free: io.BytesIO | Path) -> Triplet:
    """The triplet in three PNG files or their contents."""
    pictures = []
    for source in (image, mask, defect_free):
        with Image.open(source) as picture:
            picture.load()
            pictures.append(picture)
    return Triplet(_record_of(pictures[0].info, image), *pictures)


def read_record(path: Path) -> Record:
    """The record in a written image, without decoding its pixels."""
    with Image.open(path) as image:
        return _record_of(image.info, path)


def write_whole(path: Path, content: bytes) -> None:
    """Write a file that is either whole or absent. Its folder must exist."""
    aside = aside_of(path)
    try:
        aside.write_bytes(content)
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise


def aside_of(path: Path) -> Path:
    """Where a file is written before it takes its place.

    Always the same name, so that whoever goes on after a process was killed writes over what that one left.
    """
    return path.with_name(f".{path.name}.partial")


def _record_of(info: Mapping[str | tuple[int, int], Any], source: object) -> Record:
    try:
        return Record(**json.loads(info[_TEXT_KEY]))
    except (KeyError, TypeError, ValueError) as error:
        raise ExportError(
            source,
            found="a PNG file without the text that an export writes into it",
            expected="a file as the export wrote it",
            advice="Delete it and run the same command again: it is drawn anew.",
        ) from error
