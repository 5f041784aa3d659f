"""Bulk generation: draws what is missing, in all processes, and writes it in one of the formats."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from tqdm import tqdm

from ..pipelines import DFMGANPipeline, contact_sheet
from .config import RECORD_DIR, ExportConfig
from .dataset_card import make_card
from .errors import OneProcessError
from .layouts import FolderWriter, imagefolder_names, mvtec_names
from .lock import only_run
from .parquet import ParquetWriter
from .samples import Record, Sample, Triplet, to_png, write_whole
from .sampling import TripletSampler
from .settings import begin_or_resume, content_settings
from .summary import CONTACT_SHEET_FILE, ExportSummary, Statistics

SUMMARY_FILE = f"{RECORD_DIR}/summary.json"
_SHEET_SIZE = 16


class Writer(Protocol):
    """A form of output; `FolderWriter` says what each method does."""

    def missing(self, process_index: int, num_processes: int, block_size: int) -> Iterator[int]: ...
    def add(self, sample: Sample) -> None: ...
    def close(self) -> None: ...
    def records(self) -> Iterator[Record]: ...
    def read(self, count: int) -> list[Triplet]: ...
    def finish(self, records: Iterator[Record]) -> None: ...


def generate_dataset(
    pipe: DFMGANPipeline, config: ExportConfig, accelerator: Accelerator, *, model_name: str
) -> ExportSummary | None:
    """Fill a folder with triplets, or go on where an earlier run with the same settings was stopped.

    The files are the same, byte for byte, for any number of processes, any batch size and however often the export was
    stopped, on machines of the same kind. Memory does not grow with the number of images. Every process calls this.

    Args:
        pipe: with defects, on the accelerator's device.
        config: what to draw and where to.
        accelerator: of an `accelerate launch`, or of a single process.
        model_name: for the card and the record.

    Returns:
        The summary; None in all processes but the main one.

    Raises:
        ExportError: an option, the folder or the model are not usable, or another run is writing to the folder.
        OneProcessError: one process cannot write, or the filter is too strict for the model. What was written stays.
    """
    config.check()
    start = time.perf_counter()
    sampler = TripletSampler(pipe, config)
    settings = content_settings(config, pipe.generator, model_name)
    try:
        if accelerator.is_main_process:
            settings = begin_or_resume(config.output_dir, settings)
    finally:
        accelerator.wait_for_everyone()
    if not accelerator.is_main_process:
        begin_or_resume(config.output_dir, settings)

    with only_run(config.output_dir, accelerator):
        return _generate(sampler, settings, config, accelerator, start)


def _generate(
    sampler: TripletSampler,
    settings: dict[str, Any],
    config: ExportConfig,
    accelerator: Accelerator,
    start: float,
) -> ExportSummary | None:
    writer = make_writer(config)
    drawn = torch.zeros(1, dtype=torch.int64, device=accelerator.device)
    missing = writer.missing(accelerator.process_index, accelerator.num_processes, sampler.block_size)
    try:
        with closing(writer), sampler:
            for sample in _with_progress(sampler.draw(missing), config.num_images, accelerator.is_main_process):
                writer.add(sample)
                drawn += 1
    except OSError as error:
        raise OneProcessError(
            config.output_dir,
            found=f"a file that cannot be written ({error})",
            expected="room on the disk and the right to write",
            advice="Mend that and give the same command again: it goes on where it stopped.",
        ) from error
    # The sum also waits for the files of the other processes.
    num_drawn = int(accelerator.reduce(drawn, reduction="sum"))  # type: ignore[arg-type]
    if not accelerator.is_main_process:
        return None
    statistics = Statistics()
    writer.finish(statistics.watch(writer.records()))
    summary = ExportSummary(
        config.output_dir,
        statistics.count,
        num_drawn,
        accelerator.num_processes,
        dict(statistics.dropped),
        statistics.mask_area,
        time.perf_counter() - start,
    )
    _write_record(writer, config, settings, summary)
    return summary


def make_writer(config: ExportConfig) -> Writer:
    """What writes `config.format` into `config.output_dir`."""
    if config.format == "parquet":
        return ParquetWriter(config)
    if config.format == "imagefolder":
        return FolderWriter(config, imagefolder_names, "metadata.csv")
    return FolderWriter(config, mvtec_names, "seeds.csv")


def _with_progress(samples: Iterator[Sample], total: int, is_shown: bool) -> Iterator[Sample]:
    """Yield the samples under a progress bar.

    The processes take turns with the numbers, so how far this one has come is how far all have.
    """
    bar: tqdm[Any] | None = None
    dropped = 0
    for sample in samples:
        if bar is None:
            bar = tqdm(total=total, initial=sample.record.index, desc="Generating", unit="img", disable=not is_shown)
        yield sample
        dropped += sample.record.dropped
        bar.set_postfix(dropped=dropped, refresh=False)
        bar.update(sample.record.index + 1 - bar.n)
    if bar is not None:
        bar.close()


def _write_record(writer: Writer, config: ExportConfig, settings: dict[str, Any], summary: ExportSummary) -> None:
    triplets = writer.read(_SHEET_SIZE)
    sheet = contact_sheet(
        {
            "defect-free": [triplet.defect_free for triplet in triplets],
            "mask": [triplet.mask for triplet in triplets],
            "defect": [triplet.image for triplet in triplets],
        },
        title=f"{config.category}: {config.defect}, the first {len(triplets)} of {summary.num_images:,}",
        labels=[str(triplet.record.index) for triplet in triplets],
    )
    write_whole(config.output_dir / CONTACT_SHEET_FILE, to_png(sheet))
    if config.format == "parquet":
        card = make_card(settings, summary.to_dict())
        write_whole(config.output_dir / "README.md", card.encode())
    write_whole(config.output_dir / SUMMARY_FILE, (json.dumps(summary.to_dict(), indent=2) + "\n").encode())
