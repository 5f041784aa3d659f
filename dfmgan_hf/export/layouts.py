"""Exports as PNG files in folders: the layout of MVTec AD, and that of a Hugging Face imagefolder."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import NamedTuple

from .config import ExportConfig
from .samples import RECORD_FIELDS, Record, Sample, Triplet, aside_of, decode_sample, read_record, write_whole

_FILE_COLUMNS = ("file_name", "mask_file_name", "defect_free_file_name")


class FileNames(NamedTuple):
    """Where a triplet lies, relative to the output folder."""

    image: str
    mask: str
    defect_free: str


def mvtec_names(config: ExportConfig, index: int) -> FileNames:
    """`CATEGORY/test/DEFECT/000000.png`, its mask in `ground_truth/DEFECT`, its twin in `train/good` or `test/good`.

    The layout of MVTec AD, which anomalib's MVTecAD and Folder loaders and this package's own read. The loaders pair
    images with masks by order and stem, and take some of `train/good` for testing where there is no `test/good`.

    With the twins in `train/good` the set loads as it is. But who trains a detector on them and tests it on the defect
    images has shown it the very objects of the test: judge by such a test how detectors compare, not how good one is.
    With the twins in `test/good`, and photographs for training, nothing is seen twice.
    """
    stem = _stem(index)
    return FileNames(
        f"{config.category}/test/{config.defect}/{stem}.png",
        f"{config.category}/ground_truth/{config.defect}/{stem}_mask.png",
        f"{config.category}/{config.twins}/good/{stem}.png",
    )


def imagefolder_names(config: ExportConfig, index: int) -> FileNames:
    """`images/000000.png`, `masks/000000.png`, `defect_free/000000.png`."""
    stem = _stem(index)
    return FileNames(f"images/{stem}.png", f"masks/{stem}.png", f"defect_free/{stem}.png")


class FolderWriter:
    """Writes triplets as PNG files, and at the end a table with a row for each.

    The image is written last, so where it is, its mask and its twin are; it also holds its row of the table. That is
    all the state there is: whatever was written before a process was killed counts, and nothing else has to agree.

    Args:
        config: with the output folder.
        names: where triplet number `index` goes.
        table: name of the table, CSV, with the columns file_name, mask_file_name, defect_free_file_name, those of
            `Record`, category and defect.
    """

    def __init__(self, config: ExportConfig, names: Callable[[ExportConfig, int], FileNames], table: str) -> None:
        self.config = config
        self.root = config.output_dir
        self.table = table
        self._names = names
        for name in self._names(config, 0):
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)

    def missing(self, process_index: int, num_processes: int, block_size: int) -> Iterator[int]:
        """Numbers that this process has to draw, rising. Whole blocks go to one process."""
        for start in range(process_index * block_size, self.config.num_images, num_processes * block_size):
            for index in range(start, min(start + block_size, self.config.num_images)):
                if not all((self.root / name).is_file() for name in self._names(self.config, index)):
                    yield index

    def add(self, sample: Sample) -> None:
        """Write a triplet."""
        names = self._names(self.config, sample.record.index)
        write_whole(self.root / names.mask, sample.mask)
        write_whole(self.root / names.defect_free, sample.defect_free)
        write_whole(self.root / names.image, sample.image)

    def close(self) -> None:
        """Nothing: every triplet was finished when it was added."""

    def records(self) -> Iterator[Record]:
        """The records of all triplets, in order."""
        for index in range(self.config.num_images):
            yield read_record(self.root / self._names(self.config, index).image)

    def read(self, count: int) -> list[Triplet]:
        """The first triplets, decoded."""
        names = (self._names(self.config, index) for index in range(min(count, self.config.num_images)))
        return [decode_sample(*(self.root / name for name in row)) for row in names]

    def finish(self, records: Iterator[Record]) -> None:
        """Write the table. It uses up `records`, all of them in order."""
        path = self.root / self.table
        aside = aside_of(path)
        try:
            with aside.open("w", newline="", encoding="utf-8") as stream:
                table = csv.writer(stream)
                table.writerow([*_FILE_COLUMNS, *RECORD_FIELDS, "category", "defect"])
                for record in records:
                    names = self._names(self.config, record.index)
                    table.writerow([*names, *asdict(record).values(), self.config.category, self.config.defect])
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise


def _stem(index: int) -> str:
    return f"{index:06d}"
