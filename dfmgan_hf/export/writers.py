"""Write triplets as PNG folders (MVTec AD, anomalib, imagefolder, COCO, YOLO) or parquet, and read them back."""

from __future__ import annotations

import csv
import io
import json
import zlib
from collections.abc import Generator, Iterable, Iterator
from dataclasses import asdict, dataclass, fields
from itertools import groupby, islice
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import tyro
import yaml
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

from ..arguments import check_choice, check_effect, check_number, check_positive_integer
from ..data.hub import LABELS, make_features
from ..data.parts import parts_of
from ..data.reading import Array
from ..data.records import GOOD, is_folder_name
from ..files import whole_file, write_bytes, write_text
from ..models.stylegan2 import NOISE_MODES, NoiseMode
from ..pipeline import MAX_SEED, MAX_TRUNCATION_PSI
from .annotations import counts_to_text, outline, run_lengths

if TYPE_CHECKING:
    import pyarrow.parquet


# Command lines list the keys of WRITERS.
_choices = tyro.conf.arg(constructor_factory=lambda: tyro.extras.literal_type_from_choices(WRITERS))
ExportFormat = Annotated[str, _choices]
"""Name of an export format, a key of `WRITERS`."""

# Folder in the output folder that says how it was made: settings, summary, contact sheet.
RECORD_DIR = "generation"
SETTINGS_FILE = f"{RECORD_DIR}/settings.json"
DATA_DIR = "data"
KINDS = ("image", "mask", "defect_free")
# A reader holds a whole row group in memory: small ones keep streaming and the Hub's viewer quick.
ROW_GROUP_SIZE = 50
CARD_TEMPLATE = Path(__file__).with_name("dataset_card.md")

# The entry in an image's PNG file that holds its record.
_TEXT_KEY = "dfmgan_hf"
# And the one that says that no camera took it.
_SYNTHETIC_KEY = "synthetic"
# A third of the default level's time for a tenth more bytes: on a GPU, compressing is what takes the time.
_LEVEL = 3
_HEADER = 8 + 25  # of a PNG file: its signature and IHDR, after which other chunks may come
_SIZE_CATEGORIES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"))


class ExportError(ValueError):
    """A folder or a model that an export cannot use; the message says why and what to do."""


@dataclass(frozen=True)
class DatasetConfig:
    """How many samples to write, which to keep and how to lay them out.

    Attributes:
        output_dir: Folder to fill. The same command resumes a stopped export.
        num_images: Triplets to write.
        format: mvtec (folders as in MVTec AD), anomalib (its Folder data), imagefolder (images and metadata.csv),
            coco (instances.json), yolo (data.yaml and outlines) or parquet (shards for the Hub).
        seed: Image i depends on this number and i alone.
        min_mask_area: Draw again if the mask covers a smaller share of the image than this, from 0 to 1. The default
            wants at least one pixel; 0 keeps empty masks too.
        max_mask_area: Draw again if the mask covers a larger share of the image than this, from 0 to 1.
        max_attempts: Draws for one image before the bounds are taken to be too strict.
        category: Name of the object.
        defect: Name of the kind of defect.
        twins: Folder of the defect-free twins with mvtec: test/good leaves train/good to photographs; train/good makes
            the set complete in itself, but a detector then trains on the very objects that it is tested on. With
            anomalib these are normal_test and good.
        images_per_shard: Triplets in a parquet file; several processes share the work file by file.
        license: Licence for the data set card of parquet, as the Hub spells it.

    Raises:
        ValueError: a value that is not possible; the message names the option.
    """

    output_dir: Path
    num_images: int = 1000
    format: ExportFormat = "mvtec"
    seed: int = 0
    min_mask_area: float | None = None
    max_mask_area: float = 1.0
    max_attempts: int = 200
    category: str = "object"
    defect: str = "defect"
    twins: Literal["train", "test"] = "test"
    images_per_shard: int = 250
    license: str = "unknown"

    def __post_init__(self) -> None:
        for name in ("num_images", "max_attempts", "images_per_shard"):
            check_positive_integer(getattr(self, name), name)
        check_number(self.seed, "seed", 0, MAX_SEED)
        if not isinstance(self.seed, Integral):
            raise ValueError(f"`seed` must be an integer, but is {self.seed!r}.")
        check_number(self.max_mask_area, "max_mask_area", 0, 1)
        check_number(self.min_mask_area or 0, "min_mask_area", 0, self.max_mask_area)
        check_choice(self.format, "format", tuple(WRITERS))
        check_choice(self.twins, "twins", ("train", "test"))
        if self.format not in ("mvtec", "anomalib"):
            check_effect(self, ["twins"], "`format` mvtec or anomalib")
        if self.format != "parquet":
            check_effect(self, ["license"], "`format` parquet")
        beside = ("mask", "normal_test") if self.format == "anomalib" else ()
        for name, taken in (("category", (RECORD_DIR,)), ("defect", (GOOD, *beside))):
            value = getattr(self, name)
            if value in taken or not is_folder_name(value):
                raise ValueError(
                    f"`{name}` must be the name of a folder, in any script, without / or what other systems refuse, "
                    f"and not {' or '.join(map(repr, taken))}, but is {value!r}."
                )


@dataclass(frozen=True)
class ExportConfig(DatasetConfig):
    """What to draw, and how to write it.

    Attributes:
        batch_size: Images drawn at once: memory and speed.
        truncation_psi: 1 is the full variety; less is more typical.
        noise_mode: Stored noise (const), new noise for each image (random), or none.
        mask_threshold: Above 0 shrinks the defects, below 0 spreads them.
        (others): as in `DatasetConfig`.
    """

    batch_size: int = 32
    truncation_psi: float = 1.0
    noise_mode: NoiseMode = "const"
    mask_threshold: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive_integer(self.batch_size, "batch_size")
        check_number(self.truncation_psi, "truncation_psi", 0, MAX_TRUNCATION_PSI)
        check_choice(self.noise_mode, "noise_mode", NOISE_MODES)


@dataclass(frozen=True)
class Record:
    """What is known of a triplet; a row of the table of seeds.

    Attributes:
        index: number of the image, from 0.
        seed: `pipe(seeds=[seed])` with the settings of the export draws it again; None if no single seed does (the
            demo: a part of one seed with a defect of another).
        mask_area: share of the image that the mask covers, 0 to 1.
        dropped_empty, dropped_too_small, dropped_too_large: draws that were dropped before this one, by reason.
        photograph: what it was painted into, and where, as JSON; empty if the whole image was drawn.
        gate: what the quality gate measured, and the draws that it refused before (seed and checks), as JSON; empty
            without a gate.
    """

    index: int
    seed: int | None
    mask_area: float
    dropped_empty: int = 0
    dropped_too_small: int = 0
    dropped_too_large: int = 0
    photograph: str = ""
    gate: str = ""


RECORD_FIELDS = tuple(field.name for field in fields(Record))


@dataclass(frozen=True)
class Sample:
    """A triplet as PNG files: the mask has values 0 and 255, and the image also holds the record."""

    record: Record
    image: bytes
    mask: bytes
    defect_free: bytes

    @classmethod
    def encode(
        cls,
        record: Record,
        image: Image.Image | Array,
        mask: Image.Image,
        defect_free: Image.Image | Array,
        model_sha256: str,
        profile: bytes | None = None,
    ) -> Sample:
        """Make the PNG files; the same triplet always gives the same bytes.

        What was generated says so, with the model's hash and the seed; a photograph that was painted into does not,
        and keeps its ICC profile, EXIF entries and resolution.
        Colour of 16 bits, which Pillow has no images for, comes as uint16 (H, W, 2 to 4), and its ICC profile beside.
        """
        contents = []
        for picture in (image, mask, defect_free):
            text = PngInfo()
            if picture is image:
                text.add_text(_TEXT_KEY, json.dumps(asdict(record)))
            if picture is not defect_free or not record.photograph:
                text.add_text(_SYNTHETIC_KEY, f"dfmgan_hf, model SHA-256 {model_sha256}, seed {record.seed}")
            if isinstance(picture, Image.Image):
                stream = io.BytesIO()
                # The resolution of a damaged file may be no number, which Pillow would stumble over.
                dpi = picture.info.get("dpi", ())
                about = {"dpi": dpi} if dpi and all(0 < each < 1e6 for each in dpi) else {}
                about |= {"exif": picture.info.get("exif", b"")}
                picture.save(stream, "PNG", compress_level=_LEVEL, pnginfo=text, **about)
                contents.append(stream.getvalue())
            else:
                contents.append(deep_png(picture, profile, text))
        return cls(record, *contents)


def deep_png(samples: Array, profile: bytes | None, text: PngInfo | None = None) -> bytes:
    """Encode colour of 16 bits as for `Sample.encode`."""
    import imagecodecs

    chunks = PngInfo() if text is None else text
    if profile is not None:
        chunks.add(b"iCCP", b"ICC Profile\0\0" + zlib.compress(profile))  # PNG 1.2, 4.2.2.4
    content = imagecodecs.png_encode(np.ascontiguousarray(samples), level=_LEVEL)
    stream = io.BytesIO()
    for chunk in chunks.chunks:
        putchunk(stream, *chunk[:2])
    return bytes(content[:_HEADER] + stream.getvalue() + content[_HEADER:])


def record_of(image: Path) -> Record:
    """Read the record in a written image, without decoding its pixels."""
    try:
        with Image.open(image) as opened:
            return Record(**json.loads(opened.info[_TEXT_KEY]))
    except (OSError, KeyError, TypeError, ValueError) as error:
        raise _damaged(image, "cannot be read, or lacks the text that an export writes into its images") from error


def _damaged(file: Path, why: str) -> ExportError:
    return ExportError(f"{file} {why}. Delete it and give the same command again: it is drawn anew.")


class Writer(Protocol):
    """What an export format does. Every process of a launch has a writer of its own, on the same folder.

    What is on the disk is all the state there is: a writer that is stopped at any moment leaves only whole files, and
    another one on the same folder resumes.
    """

    def __init__(self, config: DatasetConfig) -> None: ...

    def missing(self, rank: int = 0, count: int = 1) -> Iterator[int]:
        """Yield the numbers that process `rank` of `count` still has to draw, rising; no two processes share one."""

    def write(self, samples: Iterable[Sample]) -> Generator[Record, None, None]:
        """Write the triplets that `missing` asked for, in its order, and yield the record of each."""

    def finish(self) -> Iterator[Record]:
        """Write tables, if the format has any, and yield the records of all triplets, in order.

        One process calls it, after all have written; `ExportError` names a file that cannot be read.
        """

    def read(self, count: int) -> list[Sample]:
        """Return the first `count` triplets, for the contact sheet and the tests; fewer if one file holds fewer."""


class MVTecWriter:
    """Write triplets in the layout of MVTec AD, and at the end a table with a row for each.

    `CATEGORY/test/DEFECT/000000.png`, its mask in `ground_truth/DEFECT`, its twin in `test/good` or `train/good`:
    what anomalib's MVTecAD and Folder loaders and this package's own read. The loaders pair images with masks by order
    and stem, and take some of `train/good` for testing where there is no `test/good`.

    With the twins in `test/good`, and photographs for training, nothing is seen twice. With the twins in `train/good`
    the set loads as it is, but a detector that trains on them has seen the very objects of the defect images that it
    is tested on: such a test compares detectors, it does not say how good one is.

    The image is written last, so where it is, its mask and its twin are; it also holds its row of the table.
    """

    table = "seeds.csv"
    layout: ClassVar = {
        "image": "{category}/test/{defect}/{index:06d}.png",
        "mask": "{category}/ground_truth/{defect}/{index:06d}_mask.png",
        "defect_free": "{category}/{twins}/good/{index:06d}.png",
    }
    twins: ClassVar = {"train": "train", "test": "test"}

    def __init__(self, config: DatasetConfig) -> None:
        self.config = config
        self.root = config.output_dir

    def names(self, index: int) -> dict[str, str]:
        """Return where the files of triplet number `index` go, by kind."""
        about = {"category": self.config.category, "defect": self.config.defect}
        twins = self.twins[self.config.twins]
        return {kind: name.format(index=index, twins=twins, **about) for kind, name in self.layout.items()}

    def missing(self, rank: int = 0, count: int = 1) -> Iterator[int]:
        for index in range(rank, self.config.num_images, count):
            if not all((self.root / name).is_file() for name in self.names(index).values()):
                yield index

    def write(self, samples: Iterable[Sample]) -> Generator[Record, None, None]:
        for sample in samples:
            for kind, name in reversed(self.names(sample.record.index).items()):
                write_bytes(self.root / name, self.content(sample, kind))
            yield sample.record

    def content(self, sample: Sample, kind: str) -> bytes:
        """Return what is in the file of this kind."""
        return getattr(sample, kind)

    def finish(self) -> Iterator[Record]:
        with whole_file(self.root / self.table) as aside, aside.open("w", newline="", encoding="utf-8") as stream:
            table = csv.writer(stream)
            files = ("file_name" if kind == "image" else f"{kind}_file_name" for kind in self.names(0))
            table.writerow([*files, *RECORD_FIELDS, "category", "defect"])
            for index in range(self.config.num_images):
                names = self.names(index)
                record = record_of(self.root / names["image"])
                table.writerow([*names.values(), *asdict(record).values(), self.config.category, self.config.defect])
                yield record

    def read(self, count: int) -> list[Sample]:
        names = (self.names(index) for index in range(count))
        paths = ([self.root / each[kind] for kind in KINDS] for each in names)
        return [Sample(record_of(files[0]), *(path.read_bytes() for path in files)) for files in paths]

    def settings(self) -> dict[str, Any]:
        """Return what the export was begun with, the model's name and hash among it."""
        return json.loads((self.root / SETTINGS_FILE).read_text(encoding="utf-8"))


class ImageFolderWriter(MVTecWriter):
    """Write triplets as `images/000000.png`, `masks/000000.png` and `defect_free/000000.png`, with metadata.csv."""

    table = "metadata.csv"

    layout: ClassVar = {
        "image": "images/{index:06d}.png",
        "mask": "masks/{index:06d}.png",
        "defect_free": "defect_free/{index:06d}.png",
    }


class AnomalibWriter(MVTecWriter):
    """Write triplets in the folders that anomalib's `Folder` takes, and at the end a table with a row for each.

    `CATEGORY/DEFECT/000000.png`, its mask in `CATEGORY/mask/DEFECT`, its twin in `CATEGORY/normal_test` or, with
    `twins` train, `CATEGORY/good`: its `abnormal_dir`, `mask_dir`, `normal_test_dir` and `normal_dir`.
    """

    layout: ClassVar = {
        "image": "{category}/{defect}/{index:06d}.png",
        "mask": "{category}/mask/{defect}/{index:06d}.png",
        "defect_free": "{category}/{twins}/{index:06d}.png",
    }
    twins: ClassVar = {"train": "good", "test": "normal_test"}


class CocoWriter(ImageFolderWriter):
    """Write the folders of an imagefolder, and COCO instances: `annotations/instances.json`.

    An instance is a part of the mask, of pixels that touch each other; its run lengths are exact, also around holes.
    """

    table = "seeds.csv"
    annotations = "annotations/instances.json"

    def finish(self) -> Iterator[Record]:
        yield from super().finish()
        settings = self.settings()
        info = {
            "description": f"Synthetic images, drawn by dfmgan-hf {settings['dfmgan-hf']}",
            "synthetic": True,
            **{name: settings[name] for name in ("model", "model_sha256")},
        }
        category = {"id": 1, "name": self.config.defect, "supercategory": self.config.category}
        # Line by line: of a large export, this would not fit into the memory.
        with whole_file(self.root / self.annotations) as aside, aside.open("w", encoding="utf-8") as stream:
            stream.write(f'{{"info": {json.dumps(info)},\n"licenses": [],\n"categories": [{json.dumps(category)}]')
            for name, rows in (("images", self._images()), ("annotations", self._instances())):
                stream.write(f',\n"{name}": [')
                for number, row in enumerate(rows):
                    stream.write(f"{',' if number else ''}\n{json.dumps(row)}")
                stream.write("\n]")
            stream.write("}\n")

    def _images(self) -> Iterator[dict[str, Any]]:
        for index in range(self.config.num_images):
            name = self.names(index)["image"]
            with Image.open(self.root / name) as image:
                width, height = image.size
            record = record_of(self.root / name)
            about = {"synthetic": True, "seed": record.seed, "photograph": record.photograph}
            yield {"id": index, "file_name": name, "width": width, "height": height, **about}

    def _instances(self) -> Iterator[dict[str, Any]]:
        number = 0
        for index in range(self.config.num_images):
            path = self.root / self.names(index)["mask"]
            try:
                with Image.open(path) as image:
                    mask = np.asarray(image) != 0
            except OSError as error:
                raise _damaged(path, f"cannot be read ({error})") from error
            height, width = mask.shape
            for part in parts_of(mask):
                number += 1
                yield {
                    "id": number,
                    "image_id": index,
                    "category_id": 1,
                    "segmentation": {
                        "size": [height, width],
                        "counts": counts_to_text(run_lengths(part, width, height)),
                    },
                    "area": int(part.pixels.sum()),
                    "bbox": list(part.box),
                    "iscrowd": 0,
                    "synthetic": True,
                }


class YoloWriter(MVTecWriter):
    """Write `images/train/000000.png`, its outlines in `labels/train`, and data.yaml: YOLO's data for segmentation.

    Each part of a mask is a row, of pixels that touch each other. Its outline gives back exactly these pixels where it
    is filled as Ultralytics does. Masks and twins lie beside, for whoever needs them.
    """

    layout: ClassVar = {
        "image": "images/train/{index:06d}.png",
        "mask": "masks/{index:06d}.png",
        "defect_free": "defect_free/{index:06d}.png",
        "label": "labels/train/{index:06d}.txt",
    }

    def content(self, sample: Sample, kind: str) -> bytes:
        if kind != "label":
            return super().content(sample, kind)
        with Image.open(io.BytesIO(sample.mask)) as image:
            mask = np.asarray(image) != 0
        height, width = mask.shape
        rows = (
            " ".join(["0", *(f"{x / width:.7f} {y / height:.7f}" for x, y in outline(part))])
            for part in parts_of(mask)
        )
        return "".join(f"{row}\n" for row in rows).encode()

    def finish(self) -> Iterator[Record]:
        yield from super().finish()
        settings = self.settings()
        content = {
            "train": "images/train",
            "val": "images/train",
            "names": {0: self.config.defect},
            "synthetic": True,
            **{name: settings[name] for name in ("model", "model_sha256", "seed")},
        }
        advice = "# Name photographs as val: generated images do not say how good a detector is. The seeds: seeds.csv."
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        write_text(self.root / "data.yaml", f"{advice}\n{text}")


class ParquetWriter:
    """Write `data/train-00000-of-00004.parquet` and so on; a shard that was not whole is drawn anew.

    Their columns are those of every data set of this package (`load_mvtec_ad` reads it from the Hub like any other),
    the twin, and the fields of `Record`.
    """

    def __init__(self, config: DatasetConfig) -> None:
        from datasets import Features, Value
        from datasets import Image as ImageFeature

        self.config = config
        self.num_shards = -(-config.num_images // config.images_per_shard)
        base = make_features([config.category], [config.defect])
        types = {"index": "int64", "seed": "int64", "mask_area": "float64", "photograph": "string", "gate": "string"}
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
        size = self.config.images_per_shard
        for shard in range(rank, self.num_shards, count):
            if not self._path(shard).is_file():
                yield from range(shard * size, min((shard + 1) * size, self.config.num_images))

    def write(self, samples: Iterable[Sample]) -> Generator[Record, None, None]:
        import pyarrow
        import pyarrow.parquet

        schema = self._features.arrow_schema
        for shard, members in groupby(samples, lambda sample: sample.record.index // self.config.images_per_shard):
            with whole_file(self._path(shard)) as aside, pyarrow.parquet.ParquetWriter(aside, schema) as file:
                while group := list(islice(members, ROW_GROUP_SIZE)):
                    file.write_table(pyarrow.Table.from_pylist([self._row(sample) for sample in group], schema))
                    yield from (sample.record for sample in group)

    def finish(self) -> Iterator[Record]:
        for shard in range(self.num_shards):
            for batch in self._open(shard).iter_batches(columns=list(RECORD_FIELDS)):
                yield from (Record(**row) for row in batch.to_pylist())

    def read(self, count: int) -> list[Sample]:
        rows = next(self._open(0).iter_batches(batch_size=count, columns=[*KINDS, *RECORD_FIELDS])).to_pylist()
        records = (Record(**{name: row[name] for name in RECORD_FIELDS}) for row in rows)
        return [Sample(r, *(row[kind]["bytes"] for kind in KINDS)) for r, row in zip(records, rows, strict=True)]

    def _row(self, sample: Sample) -> dict[str, Any]:
        name = f"{sample.record.index:06d}.png"
        return {
            **{kind: {"bytes": getattr(sample, kind), "path": name} for kind in KINDS},
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
            raise _damaged(self._path(shard), f"is no shard as an export writes it ({error})") from error


WRITERS: dict[str, type[Writer]] = {
    "mvtec": MVTecWriter,
    "anomalib": AnomalibWriter,
    "imagefolder": ImageFolderWriter,
    "coco": CocoWriter,
    "yolo": YoloWriter,
    "parquet": ParquetWriter,
}


def make_writer(config: DatasetConfig) -> Writer:
    """Return what writes `config.format` into `config.output_dir`."""
    return WRITERS[config.format](config)


def dataset_card(settings: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return the README.md of a parquet export, from its settings.json and its summary.json."""
    count = summary["num_images"]
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
    options: dict[str, Any] = {"title": title, "settings": settings, "summary": summary}
    return str(DatasetCard.from_template(data, template_path=str(CARD_TEMPLATE), **options))
