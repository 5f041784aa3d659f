"""Exports as parquet shards, the form for the Hugging Face Hub."""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.rows import LABELS, make_features
from .config import ExportConfig
from .errors import ExportError
from .samples import RECORD_FIELDS, Record, Sample, Triplet, aside_of, decode_sample

if TYPE_CHECKING:
    import pyarrow.parquet

DATA_DIR = "data"
# A reader holds a whole row group in memory: small ones keep streaming and the Hub's viewer quick.
_ROW_GROUP_SIZE = 50


def make_export_features(category: str, defect: str) -> Any:
    """The `datasets.Features` of the shards: those of `data.rows.make_features`, the twin, and those of `Record`.

    `load_mvtec_ad` reads such a set from the Hub like any other.
    """
    from datasets import Features, Value
    from datasets import Image as ImageFeature

    base = make_features([category], [defect])
    types = {"index": "int64", "seed": "int64", "mask_area": "float64"}
    return Features(
        {
            "image": ImageFeature(),
            "mask": base["mask"],
            "defect_free": ImageFeature(),
            **{name: base[name] for name in ("label", "defect", "category", "file_name")},
            **{name: Value(types.get(name, "int32")) for name in RECORD_FIELDS},
        }
    )


class ParquetWriter:
    """Writes `data/train-00000-of-00004.parquet` and so on, each of them aside until it is whole.

    A shard that a process was writing when it was killed is drawn anew.

    Args:
        config: with the output folder and the number of triplets in a shard.
    """

    def __init__(self, config: ExportConfig) -> None:
        self.config = config
        self.num_shards = -(-config.num_images // config.images_per_shard)
        self._features = make_export_features(config.category, config.defect)
        self._rows: list[dict[str, Any]] = []
        self._file: pyarrow.parquet.ParquetWriter | None = None
        self._current = self._path(0)
        (config.output_dir / DATA_DIR).mkdir(parents=True, exist_ok=True)

    def missing(self, process_index: int, num_processes: int, block_size: int) -> Iterator[int]:
        """Numbers that this process has to draw, rising. Whole shards go to one process, whatever the block size."""
        for shard in range(process_index, self.num_shards, num_processes):
            if not self._path(shard).is_file():
                yield from self._indices(shard)

    def add(self, sample: Sample) -> None:
        """Add a triplet to its shard; triplets of a shard must come in order and without others between them."""
        import pyarrow
        import pyarrow.parquet

        index = sample.record.index
        shard = index // self.config.images_per_shard
        schema = self._features.arrow_schema
        if self._file is None:
            self._current = self._path(shard)
            self._file = pyarrow.parquet.ParquetWriter(aside_of(self._current), schema)
        self._rows.append(self._row(sample))
        is_last = index == self._indices(shard)[-1]
        if is_last or len(self._rows) == _ROW_GROUP_SIZE:
            self._file.write_table(pyarrow.Table.from_pylist(self._rows, schema))
            self._rows.clear()
        if is_last:
            self._file.close()
            os.replace(aside_of(self._current), self._current)
            self._file = None

    def close(self) -> None:
        """Remove the shard that is not whole, if there is one."""
        if self._file is not None:
            file, self._file = self._file, None
            self._rows.clear()
            try:
                file.close()
            finally:
                aside_of(self._current).unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """The records of all triplets, in order."""
        for shard in range(self.num_shards):
            for batch in self._open(shard).iter_batches(columns=list(RECORD_FIELDS)):
                yield from (Record(**row) for row in batch.to_pylist())

    def read(self, count: int) -> list[Triplet]:
        """The first triplets, decoded; at most those of the first shard."""
        columns = ["image", "mask", "defect_free"]
        batch = next(self._open(0).iter_batches(batch_size=count, columns=columns))
        return [decode_sample(*(io.BytesIO(row[name]["bytes"]) for name in columns)) for row in batch.to_pylist()]

    def finish(self, records: Iterator[Record]) -> None:
        """Nothing but to use up `records`: the shards hold the table."""
        for _ in records:
            pass

    def _row(self, sample: Sample) -> dict[str, Any]:
        name = f"{sample.record.index:06d}.png"
        return {
            "image": {"bytes": sample.image, "path": name},
            "mask": {"bytes": sample.mask, "path": name},
            "defect_free": {"bytes": sample.defect_free, "path": name},
            "label": LABELS.index("anomalous"),
            "defect": self._features["defect"].str2int(self.config.defect),
            "category": self._features["category"].str2int(self.config.category),
            "file_name": f"test/{self.config.defect}/{name}",
            **asdict(sample.record),
        }

    def _path(self, shard: int) -> Path:
        return self.config.output_dir / DATA_DIR / f"train-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def _indices(self, shard: int) -> range:
        size = self.config.images_per_shard
        return range(shard * size, min((shard + 1) * size, self.config.num_images))

    def _open(self, shard: int) -> pyarrow.parquet.ParquetFile:
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self._path(shard))
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ExportError(
                self._path(shard),
                found=f"a file that does not open ({error})",
                expected="a shard as the export wrote it",
                advice="Delete it and run the same command again: it is drawn anew.",
            ) from error
