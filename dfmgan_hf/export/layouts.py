"""Exports as PNG files in folders: the layout of MVTec AD, and that of a Hugging Face imagefolder."""

from __future__ import annotations

import csv
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from typing import NamedTuple

from ..files import whole_file, write_bytes
from .config import ExportConfig
from .samples import RECORD_FIELDS, Record, Sample, read_record


class FileNames(NamedTuple):
    """Where a triplet lies, relative to the output folder."""

    image: str
    mask: str
    defect_free: str


class MVTecWriter:
    """Write triplets in the layout of MVTec AD, and at the end a table with a row for each.

    `CATEGORY/test/DEFECT/000000.png`, its mask in `ground_truth/DEFECT`, its twin in `train/good` or `test/good`:
    what anomalib's MVTecAD and Folder loaders and this package's own read. The loaders pair images with masks by order
    and stem, and take some of `train/good` for testing where there is no `test/good`.

    With the twins in `train/good` the set loads as it is. But who trains a detector on them and tests it on the defect
    images has shown it the very objects of the test: judge by such a test how detectors compare, not how good one is.
    With the twins in `test/good`, and photographs for training, nothing is seen twice.

    The image is written last, so where it is, its mask and its twin are; it also holds its row of the table. That is
    all the state there is: whatever was written before a process was killed counts, and nothing else has to agree.

    Args:
        config: with the output folder.
    """

    table = "seeds.csv"

    def __init__(self, config: ExportConfig) -> None:
        self.config = config
        self.root = config.output_dir

    def names(self, index: int) -> FileNames:
        """Return where triplet number `index` goes."""
        category, defect = self.config.category, self.config.defect
        return FileNames(
            f"{category}/test/{defect}/{index:06d}.png",
            f"{category}/ground_truth/{defect}/{index:06d}_mask.png",
            f"{category}/{self.config.twins}/good/{index:06d}.png",
        )

    def missing(self, rank: int = 0, count: int = 1) -> Iterator[int]:
        """Yield the numbers that process `rank` of `count` has to draw, rising."""
        for index in range(rank, self.config.num_images, count):
            if not all((self.root / name).is_file() for name in self.names(index)):
                yield index

    def write(self, samples: Iterable[Sample]) -> Generator[Record, None, None]:
        """Write triplets, and yield the record of each. What stops it leaves those before it, and no half file."""
        for sample in samples:
            names = self.names(sample.record.index)
            for kind in ("mask", "defect_free", "image"):
                write_bytes(self.root / getattr(names, kind), getattr(sample, kind))
            yield sample.record

    def finish(self) -> Iterator[Record]:
        """Write the table, and yield the records of all triplets, in order."""
        with whole_file(self.root / self.table) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            files = ("file_name", "mask_file_name", "defect_free_file_name")
            table.writerow([*files, *RECORD_FIELDS, "category", "defect"])
            for index in range(self.config.num_images):
                names = self.names(index)
                record = read_record(self.root / names.image)
                table.writerow([*names, *asdict(record).values(), self.config.category, self.config.defect])
                yield record

    def read(self, count: int) -> list[Sample]:
        """Read the first `count` triplets."""
        paths = [[self.root / name for name in self.names(index)] for index in range(count)]
        return [Sample(read_record(image), *(path.read_bytes() for path in (image, *more))) for image, *more in paths]


class ImageFolderWriter(MVTecWriter):
    """Write triplets as `images/000000.png`, `masks/000000.png` and `defect_free/000000.png`, with metadata.csv."""

    table = "metadata.csv"

    def names(self, index: int) -> FileNames:
        """Return where triplet number `index` goes."""
        return FileNames(f"images/{index:06d}.png", f"masks/{index:06d}.png", f"defect_free/{index:06d}.png")
