"""Draw or paint a data set on all GPUs of a machine, or of several machines, with Ray (`pip install -e ".[cluster]"`).

    python examples/draw_on_cluster.py generate --model MODEL --num_images 100000 --format parquet --output_dir out
    python examples/draw_on_cluster.py --workers 4 paint --model MODEL --photographs FOLDER --output_dir out

It takes what `dfmgan generate` and `dfmgan paint` take, and image i is the same. Workers draw and compress
`images_per_shard` images at a time and send them here; this process alone writes them. When a worker dies, Ray starts
another one, which draws its part again. When this process dies, the same command goes on where it was.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Annotated, Any

import torch
import tyro

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.arguments import require
from dfmgan_hf.cli import run
from dfmgan_hf.data.reading import allow_pixels
from dfmgan_hf.export import GenerateConfig, draw_samples, generate
from dfmgan_hf.export.generate import open_gate
from dfmgan_hf.export.paint import PaintSetConfig, find_photographs, paint_dataset, paint_samples
from dfmgan_hf.export.writers import KINDS, DatasetConfig, Record, Sample


@dataclass(frozen=True)
class ClusterConfig:
    """Draw or paint a data set with workers that Ray spreads over GPUs and machines.

    Attributes:
        job: What to do.
        workers: Pipelines that draw; None for one on each GPU of the cluster or, without any, on each core.
        address: Of a cluster that runs (`ray start`), or auto to find it; None starts one on this machine.
    """

    job: (
        Annotated[GenerateConfig, tyro.conf.subcommand("generate")]
        | Annotated[PaintSetConfig, tyro.conf.subcommand("paint")]
    )
    workers: int | None = None
    address: str | None = None


class Drawer:
    """A pipeline in a process of its own."""

    def __init__(self, job: GenerateConfig | PaintSetConfig) -> None:
        pipe = DFMGANPipeline.from_pretrained(job.model, revision=job.revision).to(device_of(job))
        if isinstance(job, PaintSetConfig):
            allow_pixels(job.max_megapixels)
            gate = open_gate(job.gate, job, pipe, job.gate_groups, job.how.bit_depth)
            self.draw = partial(paint_samples, pipe, job, find_photographs(job), gate=gate)
        else:
            gate = open_gate(job.gate, job.export, pipe, job.gate_groups, job.gate_bit_depth)
            self.draw = partial(draw_samples, pipe, job.export, gate=gate)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        samples = list(self.draw(batch["number"].tolist()))
        pictures = {name: [getattr(sample, name) for sample in samples] for name in KINDS}
        return {"record": [json.dumps(asdict(sample.record)) for sample in samples], **pictures}


def sample_of(row: dict[str, Any]) -> Sample:
    return Sample(Record(**json.loads(row["record"])), *(row[name] for name in KINDS))


def device_of(job: GenerateConfig | PaintSetConfig) -> str:
    """Return the kind of device that a worker computes on: which GPU it gets is Ray's choice."""
    if isinstance(job, PaintSetConfig):
        return torch.device(job.device).type
    return "cuda" if torch.cuda.is_available() else "cpu"


def export_of(job: GenerateConfig | PaintSetConfig) -> DatasetConfig:
    return job if isinstance(job, PaintSetConfig) else job.export


def draw_on_cluster(config: ClusterConfig, drawer: type[Drawer] = Drawer) -> None:
    """Draw or paint, with `drawer` as what workers are."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # which Ray would send home
    require("ray", purpose="Drawing on a cluster", extra="cluster")
    import ray

    if not ray.is_initialized():
        local = {} if config.address else {"num_cpus": config.workers, "include_dashboard": False}
        ray.init(config.address, logging_level="warning", log_to_driver=False, **local)
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    most = gpus or int(resources.get("CPU", 0))
    workers = most if config.workers is None else config.workers
    if not 0 < workers <= most:  # Ray would wait for more machines
        raise ValueError(f"`workers` must be 1 to {most}, the cluster's {'GPUs' if gpus else 'cores'}, not {workers}.")
    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.raise_original_map_exception = True
    context.enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    job = config.job
    if isinstance(job, PaintSetConfig) and gpus and not torch.cuda.is_available():
        job = replace(job, device="cuda")  # it says cpu because this machine has no GPU, but those of workers have
    part = export_of(job).images_per_shard

    def draw(missing: list[int]) -> Iterator[Sample]:
        if not missing:
            return
        parts = -(-len(missing) // part)
        numbers = ray.data.from_items([{"number": number} for number in missing], override_num_blocks=parts)
        drawn = numbers.map_batches(
            drawer,
            fn_constructor_args=(job,),
            batch_size=None,
            compute=ray.data.ActorPoolStrategy(size=min(workers, parts)),
            num_gpus=1 if gpus else None,
        )
        try:
            for number, row in zip(missing, drawn.iter_rows(), strict=True):
                sample = sample_of(row)
                assert sample.record.index == number  # each once, and in order
                yield sample
        except ray.exceptions.RayTaskError as error:
            raise error.cause from None  # what the user can do something about

    if isinstance(config.job, PaintSetConfig):
        paint_dataset(config.job, draw=draw)
    else:
        generate(config.job, draw=draw)


if __name__ == "__main__":
    run(draw_on_cluster)
