"""Exports as parquet shards with a data set card, the form for the Hugging Face Hub."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import DatasetCardData

from ..data.rows import LABELS, make_features
from ..files import whole_file
from .config import ExportConfig, ExportError
from .samples import RECORD_FIELDS, Record, Sample, read_record

if TYPE_CHECKING:
    import pyarrow.parquet

DATA_DIR = "data"
# A reader holds a whole row group in memory: small ones keep streaming and the Hub's viewer quick.
ROW_GROUP_SIZE = 50

_IMAGES = ("image", "mask", "defect_free")
_SIZE_CATEGORIES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))
_SHOWN = ("model", "model_sha256", "seed", "truncation_psi", "noise_mode", "mask_threshold")


class ParquetWriter:
    """Write `data/train-00000-of-00004.parquet` and so on; a shard that was not whole is drawn anew.

    Their columns are those of every data set of this package (`load_mvtec_ad` reads it from the Hub like any other),
    the twin, and the fields of `Record`.

    Args:
        config: with the output folder and the number of triplets in a shard.
    """

    def __init__(self, config: ExportConfig) -> None:
        from datasets import Features, Value
        from datasets import Image as ImageFeature

        self.config = config
        self.num_shards = -(-config.num_images // config.images_per_shard)
        base = make_features([config.category], [config.defect])
        types = {"index": "int64", "seed": "int64", "mask_area": "float64"}
        self._features = Features(
            {
                "image": ImageFeature(),
                "mask": base["mask"],
                "defect_free": ImageFeature(),
                **{name: base[name] for name in ("label", "defect", "category", "file_name")},
                **{name: Value(types.get(name, "int32")) for name in RECORD_FIELDS},
            }
        )

    def missing(self, rank: int = 0, count: int = 1) -> Iterator[int]:
        """Yield the numbers that process `rank` of `count` has to draw, rising; a shard is of one process."""
        size = self.config.images_per_shard
        for shard in range(rank, self.num_shards, count):
            if not self._path(shard).is_file():
                yield from range(shard * size, min((shard + 1) * size, self.config.num_images))

    def write(self, samples: Iterable[Sample]) -> Generator[Record, None, None]:
        """Write triplets, whole shards of them, and yield the record of each. What stops it leaves no half shard."""
        import pyarrow
        import pyarrow.parquet

        schema = self._features.arrow_schema
        for shard, members in groupby(samples, lambda sample: sample.record.index // self.config.images_per_shard):
            with whole_file(self._path(shard)) as aside, pyarrow.parquet.ParquetWriter(aside, schema) as file:
                rows = []
                for sample in members:
                    rows.append(self._row(sample))
                    yield sample.record
                    if len(rows) == ROW_GROUP_SIZE:
                        file.write_table(pyarrow.Table.from_pylist(rows, schema))
                        rows = []
                if rows:
                    file.write_table(pyarrow.Table.from_pylist(rows, schema))

    def finish(self) -> Iterator[Record]:
        """Yield the records of all triplets, in order."""
        for shard in range(self.num_shards):
            for batch in self._open(shard).iter_batches(columns=list(RECORD_FIELDS)):
                yield from (Record(**row) for row in batch.to_pylist())

    def read(self, count: int) -> list[Sample]:
        """Read the first `count` triplets; at most those of the first shard."""
        rows = next(self._open(0).iter_batches(batch_size=count, columns=list(_IMAGES))).to_pylist()
        pictures = [[row[name]["bytes"] for name in _IMAGES] for row in rows]
        return [Sample(read_record(io.BytesIO(image)), image, *more) for image, *more in pictures]

    def _row(self, sample: Sample) -> dict[str, Any]:
        name = f"{sample.record.index:06d}.png"
        return {
            **{kind: {"bytes": content, "path": name} for kind, content in sample.files.items()},
            "label": LABELS.index("anomalous"),
            "defect": self._features["defect"].str2int(self.config.defect),
            "category": self._features["category"].str2int(self.config.category),
            "file_name": f"test/{self.config.defect}/{name}",
            **asdict(sample.record),
        }

    def _path(self, shard: int) -> Path:
        return self.config.output_dir / DATA_DIR / f"train-{shard:05d}-of-{self.num_shards:05d}.parquet"

    def _open(self, shard: int) -> pyarrow.parquet.ParquetFile:
        import pyarrow
        import pyarrow.parquet

        try:
            return pyarrow.parquet.ParquetFile(self._path(shard))
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise ExportError(
                f"{self._path(shard)} is no shard as an export writes it ({error}). Delete it and give the same "
                "command again: it is drawn anew."
            ) from error


def make_card(settings: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return the README.md of a parquet export: how to load it, what the columns are, how it was drawn.

    Args:
        settings: those in the export's settings.json.
        summary: that in its summary.json.
    """
    count, dropped, area = summary["num_images"], summary["dropped"], summary["mask_area"]
    title = f"{settings['category']}: {settings['defect']}"
    data = DatasetCardData(
        license=settings["license"],
        pretty_name=title,
        size_categories=[next((name for limit, name in _SIZE_CATEGORIES if count < limit), "1M<n<10M")],
        task_categories=["image-segmentation", "unconditional-image-generation"],
        tags=["anomaly-detection", "industrial-inspection", "synthetic", "dfmgan"],
        configs=[
            {"config_name": "default", "data_files": [{"split": "train", "path": f"{DATA_DIR}/train-*.parquet"}]}
        ],
    )
    shown = "\n".join(f"| {name} | {settings[name]} |" for name in _SHOWN)
    lowest = "one pixel" if settings["min_mask_area"] is None else f"{settings['min_mask_area']:g}"
    return f"""---
{data.to_yaml()}
---
# {title}

{count:,} generated defect images, each with the pixel-exact mask of its defect and its defect-free twin: the same
object without the defect. Nothing here is a photograph.

```python
from datasets import load_dataset

dataset = load_dataset("path/or/id", split="train")
dataset[0]["image"], dataset[0]["mask"], dataset[0]["defect_free"]
```

| column | content |
|---|---|
| `image` | image with the defect |
| `mask` | 8-bit grey, 255 on the defect and 0 elsewhere |
| `defect_free` | the same object without the defect |
| `label`, `defect`, `category`, `file_name` | as in photographs that dfmgan-hf prepares |
| `index` | number of the image |
| `seed` | draws it again: `pipe(seeds=[seed])` with the settings below |
| `mask_area` | share of the image that the mask covers; here {area["min"]:.2%} to {area["max"]:.2%}, \
mean {area["mean"]:.2%} |
| `dropped_empty`, `dropped_too_small`, `dropped_too_large` | draws before this one that were not kept |

## How it was drawn

| setting | value |
|---|---|
{shown}

Every mask covers from {lowest} to {settings["max_mask_area"]:g} of the image. {sum(dropped.values()):,} other draws
were dropped: {dropped["empty"]:,} empty, {dropped["too_small"]:,} too small, {dropped["too_large"]:,} too large.

A model inherits questions of licence from the photographs that it was trained on: MVTec AD, for one, is
CC BY-NC-SA 4.0.

Drawn with DFMGAN ([AAAI 2023](https://arxiv.org/abs/2303.02389)) by dfmgan-hf.
"""
