"""One exported triplet: three PNG files, and what is known of how it was drawn."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import BinaryIO

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from .config import ExportError

_TEXT_KEY = "dfmgan_hf"


@dataclass(frozen=True)
class Record:
    """What is known of a triplet; a row of the table of seeds.

    Attributes:
        index: number of the image, from 0.
        seed: `pipe(seeds=[seed])` with the settings of the export draws it again.
        mask_area: share of the image that the mask covers, 0 to 1.
        dropped_empty, dropped_too_small, dropped_too_large: draws that were dropped before this one, by reason.
    """

    index: int
    seed: int
    mask_area: float
    dropped_empty: int = 0
    dropped_too_small: int = 0
    dropped_too_large: int = 0


RECORD_FIELDS = tuple(field.name for field in fields(Record))


@dataclass(frozen=True)
class Sample:
    """A triplet as PNG files of 8-bit images: the mask has values 0 and 255, and the image also holds the record."""

    record: Record
    image: bytes
    mask: bytes
    defect_free: bytes

    @classmethod
    def encode(cls, record: Record, image: Image.Image, mask: Image.Image, defect_free: Image.Image) -> Sample:
        """Make the PNG files; the same triplet always gives the same bytes."""
        text = PngInfo()
        text.add_text(_TEXT_KEY, json.dumps(asdict(record)))
        return cls(record, _to_png(image, text), _to_png(mask), _to_png(defect_free))

    @property
    def files(self) -> dict[str, bytes]:
        """The PNG files by kind: image, mask, defect_free."""
        return {"image": self.image, "mask": self.mask, "defect_free": self.defect_free}


def read_record(source: Path | BinaryIO) -> Record:
    """Read the record in a written image, without decoding its pixels."""
    with Image.open(source) as image:
        try:
            return Record(**json.loads(image.info[_TEXT_KEY]))
        except (KeyError, TypeError, ValueError) as error:
            raise ExportError(
                f"{source} lacks the text that an export writes into its images. Delete it and give the same command "
                "again: it is drawn anew."
            ) from error


def _to_png(image: Image.Image, text: PngInfo | None = None) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG", pnginfo=text)
    return stream.getvalue()
