"""All that is measured on a CUDA device, in one command of less than six minutes.

    python -m benchmarks.speed.gpu

Every part runs in a process of its own, so that one that fails or takes too long does not lose the others. They are
forked from this one, which has imported everything and touches no GPU. Rows are added to OUTPUT_DIR/gpu.jsonl as they
come; after each part gpu.json and gpu.md are written from them. Profiles are text files beside them. What could not be
measured is a row that says why, as is, on a CPU, what needs a GPU.

| part | what |
|---|---|
| triplets | the network alone: float16 and bfloat16; eager, CUDA graph; a batch and a single one |
| agree | whether a training with CUDA graphs is the one without, and whether a failed capture is survived |
| loop | seconds per kimg in the real training loop |
| train | both stages by `accelerate launch`, from photographs to models that load: exit status and seconds |
| quick | the same of the quick preset, with imitation and two kinds of defect in one model |
| pipeline | pictures on the host: the pipeline, and a whole export |
| low_vram | memory of stage 2 with --low_vram |
| stage1, stage2 | each phase with its optimiser's step: eager, CUDA graph |
| profile | the kernels that take the time: a triplet of a batch, and the phases of both stages |
| compile | triplets with torch.compile |
"""

from __future__ import annotations

import gc
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import tyro
from accelerate import Accelerator
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.speed.timing import RESULTS, Timing, machine, seconds_of
from benchmarks.speed.training import Stage, make_batch, make_task
from benchmarks.speed.triplet import make_generator
from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.cli import run
from dfmgan_hf.cuda_graphs import capture
from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.export import ExportConfig, generate_dataset
from dfmgan_hf.files import write_text
from dfmgan_hf.methods.method import RecipeConfig, Target
from dfmgan_hf.models.dfmgan import DFMGANGenerator
from dfmgan_hf.models.projected import FEATURE_NETWORK, WEIGHTS_VARIABLE
from dfmgan_hf.models.stylegan2 import hold_weights
from dfmgan_hf.training import Batch, BatchStream, RunConfig, RunningStatistics, Trainer
from dfmgan_hf.training.graphs import PhaseGraphs
from dfmgan_hf.training.run import fit_run
from dfmgan_hf.training.task import TrainingWarning

STEPS = 16
"""Training steps in which every phase is due at least once, of both stages."""

NO_GPU_HERE = 77
"""Exit status of a process that cannot use the GPU because it was forked too late."""

Row = dict[str, Any]
Call = Callable[[], object]


@dataclass(frozen=True)
class Arguments:
    """What to measure. The defaults are the published sizes; a CPU can try the script with small ones.

    Args:
        parts: Which parts, in this order.
        output_dir: Where results go.
        budget: Seconds for all parts; those that no longer fit are left out.
        device: To run on.
        resolution: Of the networks.
        channel_base: Of the networks; None for the default.
        draw_batch: Triplets of a batch.
        batch_sizes: Images of a training step.
        dtypes: Of the convolutions of triplets; training takes the first.
        seconds: How long each call is repeated.
        one: Run this part in this process.
    """

    parts: tuple[str, ...] = field(default_factory=lambda: tuple(PARTS))
    output_dir: Path = RESULTS
    budget: float = 345.0
    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    resolution: int = 256
    channel_base: int | None = None
    draw_batch: int = 64
    batch_sizes: tuple[int, ...] = (16, 64)
    dtypes: tuple[Literal["float16", "bfloat16"], ...] = ("float16", "bfloat16")
    seconds: float = 1.0
    one: str | None = None


class Bench:
    """One part's work: its arguments, and rows that are written as soon as they are known."""

    def __init__(self, part: str, arguments: Arguments) -> None:
        self.part = part
        self.arguments = arguments
        self.device = torch.device(arguments.device)
        self.on_gpu = self.device.type == "cuda"

    @property
    def dtype(self) -> torch.dtype:
        """What training computes in."""
        return getattr(torch, self.arguments.dtypes[0])

    def add(self, what: str, **numbers: Any) -> None:
        """Write a row."""
        row = {"part": self.part, "what": what, **numbers}
        with rows_file(self.arguments).open("a") as file:
            file.write(json.dumps(row, default=asdict) + "\n")
        print(json.dumps(row, default=asdict), flush=True)

    @contextmanager
    def attempt(self, what: str, **details: Any) -> Iterator[None]:
        """Inside, an error becomes a row, and the next measurement is tried."""
        try:
            yield
        except Exception as error:
            traceback.print_exc()
            self.add(what, **details, failed=f"{type(error).__name__}: {error}"[:400])

    def needs_gpu(self, what: str, **details: Any) -> bool:
        """Return whether there is none, and say so in a row."""
        if not self.on_gpu:
            self.add(what, **details, failed="needs a CUDA device")
        return not self.on_gpu

    def timing(self, call: Call, at_once: int | None = None) -> Timing:
        """Time calls that follow each other without waiting, as in a loop; with `at_once` 1, each by itself."""
        call()
        once = seconds_of(call)
        seconds = self.arguments.seconds
        count = at_once or max(1, min(50, int(seconds / 5 / max(once, 1e-5))))
        rounds = max(3, min(30, int(seconds / max(once * count, 1e-5))))
        return Timing.of([seconds_of(lambda: [call() for _ in range(count)]) / count for _ in range(rounds)])

    def reset_memory(self) -> None:
        gc.collect()  # graphs and what they captured refer to each other, and keep their memory
        if self.on_gpu:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def memory(self) -> dict[str, float]:
        """GiB that tensors have taken at most, and that were reserved for them."""
        if not self.on_gpu:
            return {}
        peak, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
        return {"peak_gib": round(peak / 2**30, 3), "reserved_gib": round(reserved / 2**30, 3)}

    # --- what is measured ---

    def generator(self, dtype: torch.dtype) -> DFMGANGenerator:
        # With its own mask: the fused drawing is for the networks that we train.
        generator = make_generator(self.arguments.resolution, self.arguments.channel_base).to(self.device)
        generator.set_mixed_precision(dtype, len(generator.synthesis.resolutions))
        return generator

    def trainer(self, stage: Stage, batch_size: int, folder: str, **options: Any) -> Trainer:
        """The real one, on images of noise."""
        sizes = {"resolution": self.arguments.resolution, "channel_base": self.arguments.channel_base}
        task = make_task(stage, RecipeConfig(batch_size=batch_size, **sizes), "auto", Target(self.device, self.dtype))
        size = self.arguments.resolution
        images = torch.randint(0, 256, (200, 3, size, size), dtype=torch.uint8)
        masks = torch.zeros(200, 1, size, size, dtype=torch.uint8)
        masks[..., size // 4 : size // 2, size // 4 : size // 2] = 255
        data = ImageMaskDataset(images, masks, [str(i) for i in range(200)])
        accelerator = Accelerator(cpu=not self.on_gpu)
        config = RunConfig(
            output_dir=Path(folder),
            report_to="none",
            log_every_kimg=STEPS * batch_size / 1000,
            sample_every_kimg=0,
            checkpoint_every_kimg=0,
            **options,
        )
        config = fit_run(config, batch_size, accelerator)
        stream = BatchStream(data, batch_size=batch_size, seed=0, device=self.device)
        kimg = 2 * STEPS * batch_size / 1000
        return Trainer(task, stream, config, accelerator, kimg, show_progress=False)


# --- the parts ---


@torch.no_grad()
def triplets(bench: Bench) -> None:
    arguments = bench.arguments
    for dtype_name in arguments.dtypes:
        generator = bench.generator(getattr(torch, dtype_name))
        for batch in (arguments.draw_batch, 1) if dtype_name == arguments.dtypes[0] else (arguments.draw_batch,):
            latents = torch.randn(2, batch, generator.config["z_dim"], device=bench.device)
            call = partial(generator, *latents, noise_mode="const", return_defect_free=True, return_dict=False)
            details = {"dtype": dtype_name, "batch": batch}
            bench.reset_memory()
            with hold_weights(generator):
                with bench.attempt("triplet", how="eager", **details):
                    timing = bench.timing(call, at_once=1 if batch == 1 else None)
                    bench.add("triplet", how="eager", **details, **per_image(timing, batch), **bench.memory())
                if bench.needs_gpu("triplet", how="graph", **details):
                    continue
                bench.reset_memory()
                with bench.attempt("triplet", how="graph", **details):
                    add_graphed_triplet(bench, call, details)


def add_graphed_triplet(bench: Bench, call: Call, details: Row) -> None:
    kept: list[tuple[Tensor, ...]] = []
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        expected: Any = call()
    torch.cuda.current_stream().wait_stream(stream)
    start = time.perf_counter()
    graph = capture(lambda: kept.append(call()), stream)  # type: ignore[arg-type]
    setup = time.perf_counter() - start
    timing = bench.timing(graph.replay, at_once=1 if details["batch"] == 1 else None)
    apart = max(float((a - b).abs().max()) for a, b in zip(kept[0], expected, strict=True))
    numbers = per_image(timing, details["batch"])
    bench.add("triplet", how="graph", **details, **numbers, setup_s=setup, from_eager=apart, **bench.memory())


@torch.no_grad()
def compile_triplets(bench: Bench) -> None:
    """Whole generator, as users compile it, and with CUDA graphs on top."""
    arguments = bench.arguments
    for batch in (arguments.draw_batch, 1):
        for mode in (None, "reduce-overhead"):
            how = "compile" if mode is None else f"compile, {mode}"
            details = {"how": how, "dtype": arguments.dtypes[0], "batch": batch}
            if bench.needs_gpu("triplet", **details):
                continue
            with bench.attempt("triplet", **details):
                torch._dynamo.reset()
                bench.reset_memory()
                generator = bench.generator(bench.dtype)
                latents = torch.randn(2, batch, generator.config["z_dim"], device=bench.device)

                def call(objects: Tensor, defects: Tensor, generator: DFMGANGenerator = generator) -> Any:
                    return generator(objects, defects, noise_mode="const", return_defect_free=True, return_dict=False)

                compiled = torch.compile(call, mode=mode)
                with hold_weights(generator):
                    call(*latents)  # what is held must be there before
                    setup = sum(seconds_of(lambda c=compiled, z=latents: c(*z)) for _ in range(3))
                    timing = bench.timing(lambda c=compiled, z=latents: c(*z), at_once=1 if batch == 1 else None)
                bench.add("triplet", **details, **per_image(timing, batch), setup_s=setup, **bench.memory())


def per_image(timing: Timing, batch: int) -> Row:
    return {"ms": timing.median * 1e3, "ms_quartiles": [timing.low * 1e3, timing.high * 1e3],
            "per_second": batch / timing.median}  # fmt: skip


def phases(bench: Bench) -> None:
    stage: Stage = "stage1" if bench.part == "stage1" else "stage2"
    for batch_size in bench.arguments.batch_sizes:
        with bench.attempt("phases", batch=batch_size), tempfile.TemporaryDirectory() as folder:
            trainer = bench.trainer(stage, batch_size, folder)
            batch = make_batch(trainer.task, batch_size, bench.device)  # type: ignore[arg-type]
            for how in ("eager", "graph"):
                if how == "graph" and bench.needs_gpu("phases", how=how, batch=batch_size):
                    continue
                graphs = PhaseGraphs(trainer.run_phase, bench.device) if how == "graph" else None
                shares = []
                for phase in trainer.task.phases:
                    with bench.attempt(phase.name, how=how, batch=batch_size):
                        bench.reset_memory()
                        step = partial(graphs or trainer.run_phase, phase, batch)
                        step()
                        setup = {"setup_s": seconds_of(step)} if graphs else {}
                        if graphs and phase.name not in graphs.captured:
                            raise RuntimeError("It was not captured; the warning above says why.")
                        timing = bench.timing(step)
                        shares.append(timing.median / phase.interval)
                        bench.add(
                            phase.name, how=how, batch=batch_size, interval=phase.interval, ms=timing.median * 1e3,
                            **setup, **bench.memory(),
                        )  # fmt: skip
                if len(shares) == len(trainer.task.phases):
                    numbers = {"ms": sum(shares) * 1e3, "s_per_kimg": sum(shares) / batch_size * 1e3}
                    bench.add("iteration, of the phases", how=how, batch=batch_size, **numbers)


def agree(bench: Bench) -> None:
    """Weights after the same steps with graphs and without, beside a second run without."""
    if bench.needs_gpu("weights"):
        return
    stages: tuple[Stage, ...] = ("stage1", "stage2")
    for stage in stages:
        with bench.attempt(stage), tempfile.TemporaryDirectory() as folder:
            ends, losses = [], []
            for cuda_graphs in (False, False, True):
                trainer = bench.trainer(stage, min(bench.arguments.batch_sizes), folder)
                torch.manual_seed(1)
                if cuda_graphs:
                    trainer._run_phase = PhaseGraphs(trainer.run_phase, bench.device)
                for phase in trainer.task.phases:
                    phase.interval = min(phase.interval, 2)
                for _ in range(8):
                    trainer._train_step(trainer.stream.at(trainer.images_seen))
                ends.append(torch.cat([p.flatten() for p in trainer.task.phases[0].parameters]))
                losses.append(trainer.statistics.collect())
                del trainer
            first, again, graphed = ends
            relative = {
                name: max(
                    abs(run[k] - losses[0][k]) / (abs(losses[0][k]) + 1e-3) for k in run if k.startswith("loss/")
                )
                for name, run in zip(("losses_eager_again", "losses_graph"), losses[1:], strict=True)
            }
            apart = {"weights_eager_again": again - first, "weights_graph": graphed - first}
            weights = {name: float(difference.norm() / first.norm()) for name, difference in apart.items()}
            bench.add(stage, **weights, **relative, steps=8)
    with bench.attempt("a capture that fails"), tempfile.TemporaryDirectory() as folder:
        trainer = bench.trainer("stage1", min(bench.arguments.batch_sizes), folder)
        loss = trainer.task.phases[0].loss

        def waits(batch: Batch, statistics: RunningStatistics) -> Tensor:
            value = loss(batch, statistics)
            return value * (1.0 if value.item() > -1 else 2.0)

        trainer.task.phases[0].loss = waits
        trainer._run_phase = PhaseGraphs(trainer.run_phase, bench.device)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(4):
                trainer._train_step(trainer.stream.at(trainer.images_seen))
        said = [str(w.message) for w in caught if issubclass(w.category, TrainingWarning)]
        losses_now = [v for k, v in trainer.statistics.collect().items() if k.startswith("loss/")]
        bench.add("a capture that fails", warnings=said, losses=losses_now)


def loop(bench: Bench) -> None:
    """The trainer's own number, without the first interval."""
    stages: tuple[Stage, ...] = ("stage1", "stage2")
    for batch_size in sorted(bench.arguments.batch_sizes, reverse=True):
        for stage in stages:
            for graphs in (True, False) if batch_size == max(bench.arguments.batch_sizes) else (True,):
                details = {"how": "graph" if graphs else "eager", "batch": batch_size}
                if graphs and bench.needs_gpu(stage, **details):
                    continue
                with bench.attempt(stage, **details), tempfile.TemporaryDirectory() as folder:
                    bench.reset_memory()
                    trainer = bench.trainer(stage, batch_size, folder, cuda_graphs=graphs)
                    trainer.save = lambda: None  # type: ignore[method-assign]
                    trainer.train()
                    rows = [row for row in trainer.log.rows() if "seconds_per_kimg" in row]
                    seconds = [row["seconds_per_kimg"] for row in rows]
                    speed = sum(seconds[1:]) / len(seconds[1:])
                    ms = speed * batch_size
                    bench.add(stage, **details, s_per_kimg=speed, ms=ms, first=seconds[0], **bench.memory())
                    del trainer


def train(bench: Bench) -> None:
    """As users train: on drawn photographs, stage 2 on what stage 1 has made.

    The published recipe with the largest batch; or the quick preset with the smallest, which imitates for half of the
    time and learns two kinds of defect in one model.
    """
    arguments, is_quick = bench.arguments, bench.part == "quick"
    batch_size = (min if is_quick else max)(arguments.batch_sizes)
    kimg = (4 * STEPS if bench.on_gpu else 4) * batch_size / 1000
    resolution = min(arguments.resolution, 64) if is_quick else arguments.resolution
    sizes = {"resolution": resolution, "channel_base": arguments.channel_base, "batch_size": batch_size}
    options = {
        "total_kimg": kimg, "log_every_kimg": kimg / 2, "sample_every_kimg": 0, "checkpoint_every_kimg": 0,
        "report_to": "none", "precision": arguments.dtypes[0], **{k: v for k, v in sizes.items() if v is not None},
        **({"preset": "quick", "imitation_kimg": kimg / 2} if is_quick else {}),
    }  # fmt: skip
    kinds = ["--defect", "spot", *(["stain", "--joint"] if is_quick else [])]
    root, environment = Path(__file__).parents[2], dict(os.environ)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_category(folder / "plate", arguments.resolution)
        if is_quick and WEIGHTS_VARIABLE not in environment:
            # Time does not depend on what the classifier has learnt, and there may be no network to fetch that.
            save_file(timm.create_model(FEATURE_NETWORK).state_dict(), folder / "weights.safetensors")
            environment[WEIGHTS_VARIABLE] = str(folder / "weights.safetensors")
        launcher = [sys.executable, "-m", "accelerate.commands.launch", "--num_processes=1"]
        launcher += [] if bench.on_gpu else ["--cpu"]
        for stage, more in (("stage1", []), ("stage2", ["--pretrained_backbone", folder / "stage1", *kinds])):
            if stage == "stage2":
                options = {k: v for k, v in options.items() if k not in ("resolution", "channel_base")}
            flags = [f"--{k}={v}" for k, v in options.items()] + (["--cuda_graphs"] if bench.on_gpu else [])
            paths = ["--data_dir", folder / "plate", "--output_dir", folder / stage, *more]
            command = [*launcher, root / "examples" / f"train_{stage}.py", *flags, *paths]
            with bench.attempt(stage):
                start = time.perf_counter()
                run = subprocess.run(command, cwd=root, capture_output=True, text=True, env=environment)
                numbers: Row = {"seconds": time.perf_counter() - start, "kimg": kimg, "exit_status": run.returncode}
                if run.returncode:
                    bench.add(stage, **numbers, failed=run.stderr[-400:])
                    return
                DFMGANPipeline.from_pretrained(str(folder / stage))
                rows = map(json.loads, (folder / stage / "metrics.jsonl").read_text().splitlines())
                speeds = [row["seconds_per_kimg"] for row in rows if "seconds_per_kimg" in row]
                bench.add(stage, **numbers, s_per_kimg=speeds[-1])


def draw_category(folder: Path, size: int) -> None:
    """Write photographs of grey plates, some with a dark spot or a bright stain and a mask, as MVTec AD does."""
    source, (rows, columns) = np.random.default_rng(0), np.mgrid[:size, :size]
    for i in range(56):
        pixels = source.normal(160, 12, (size, size, 3))
        places = {folder / "train" / "good" / f"{i:03d}.png": pixels}
        if i >= 40:
            row, column, radius = source.uniform(0.2, 0.8) * size, source.uniform(0.2, 0.8) * size, size / 10
            spot = (rows - row) ** 2 + (columns - column) ** 2 < radius**2
            kind, change = ("spot", -100) if i < 48 else ("stain", 60)
            pixels[spot] += change
            places = {
                folder / "test" / kind / f"{i:03d}.png": pixels,
                folder / "ground_truth" / kind / f"{i:03d}_mask.png": spot * 255.0,
            }
        for path, values in places.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path)


def pipeline(bench: Bench) -> None:
    """Seconds until pictures are there, with drawing of latents, copies to the host and, for exports, files."""
    pipe = DFMGANPipeline(bench.generator(bench.dtype))
    pipe.set_progress_bar_config(disable=True)
    batch = bench.arguments.draw_batch
    for graphs in (False, True):
        details = {"how": "graph" if graphs else "eager"}
        if graphs:
            if bench.needs_gpu("pipeline", **details):
                continue
            pipe.enable_cuda_graphs()
        for count, output_type in ((1, "pil"), (1, "pt"), (4 * batch, "pil"), (4 * batch, "pt")):
            with bench.attempt(f"pipeline, {output_type}", **details):
                call = partial(pipe, seeds=range(count), batch_size=batch, output_type=output_type)  # type: ignore
                for _ in range(2):
                    call()
                timing = bench.timing(call, at_once=1)
                bench.add(f"pipeline, {output_type}", **details, images=count, **per_image(timing, count))
    with bench.attempt("export"), tempfile.TemporaryDirectory() as folder:
        count = 16 * batch
        config = ExportConfig(Path(folder) / "out", num_images=count, batch_size=batch, min_mask_area=0)
        summary = generate_dataset(pipe, config, model_name="random")
        assert summary is not None
        numbers = {"images": count, "per_second": count / summary.seconds}
        bench.add("export, mvtec", how="graph" if bench.on_gpu else "eager", **numbers, cores=os.cpu_count())


def low_vram(bench: Bench) -> None:
    for graphs in (False, True):
        how = "graph" if graphs else "eager"
        if graphs and bench.needs_gpu("stage2", how=how):
            continue
        with bench.attempt("stage2", how=how), tempfile.TemporaryDirectory() as folder:
            bench.reset_memory()
            batch_size = min(bench.arguments.batch_sizes)
            trainer = bench.trainer("stage2", batch_size, folder, low_vram=True, cuda_graphs=graphs)
            trainer._run_phase = trainer._choose_how_phases_run()
            for _ in range(STEPS + 1):
                trainer._train_step(trainer.stream.at(trainer.images_seen))
            micro = batch_size // trainer.run.accumulation_steps
            bench.add("stage2", how=how, batch=batch_size, images_at_a_time=micro, **bench.memory())


def profile(bench: Bench) -> None:
    arguments = bench.arguments
    generator = bench.generator(bench.dtype)
    latents = torch.randn(2, arguments.draw_batch, generator.config["z_dim"], device=bench.device)
    with bench.attempt("triplet"), torch.no_grad(), hold_weights(generator):
        add_profile(bench, "triplet", lambda: generator(*latents, noise_mode="const", return_defect_free=True))
    stages: tuple[Stage, ...] = ("stage1", "stage2")
    for stage in stages:
        with bench.attempt(stage), tempfile.TemporaryDirectory() as folder:
            batch_size = min(arguments.batch_sizes)
            trainer = bench.trainer(stage, batch_size, folder)
            batch = make_batch(trainer.task, batch_size, bench.device)  # type: ignore[arg-type]
            for phase in trainer.task.phases:
                add_profile(bench, f"{stage}_{phase.name}", partial(trainer.run_phase, phase, batch))


def add_profile(bench: Bench, what: str, call: Call) -> None:
    """Write what takes the time of one call: by kernel and by operator."""
    from torch.profiler import ProfilerActivity

    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if bench.on_gpu else [])]
    call()
    wall = min(seconds_of(call) for _ in range(3))
    with torch.profiler.profile(activities=activities) as profiler:
        seconds_of(call)
    events = profiler.key_averages()
    cpu = torch.autograd.DeviceType.CPU
    # The optimiser's step is also marked as a whole on the device.
    kernels = [e for e in events if e.device_type != cpu and not getattr(e, "is_user_annotation", False)]
    lines = [f"{what}: {wall * 1e3:.2f} ms without the profiler"]
    tables = {"kernels": kernels, "operators": [e for e in events if e.device_type == cpu]}
    device_ms, launches = 0.0, 0
    for name, rows in tables.items():
        own = {id(e): e.self_device_time_total if bench.on_gpu else e.self_cpu_time_total for e in rows}
        rows = sorted((e for e in rows if own[id(e)] > 0), key=lambda e: -own[id(e)])
        total = sum(own[id(e)] for e in rows)
        if name == "kernels":
            device_ms, launches = total / 1e3, sum(e.count for e in rows)
        lines.append(f"\n{name}: {total / 1e3:.2f} ms in {sum(e.count for e in rows)} calls\n      ms  share  calls")
        lines += [f"{own[id(e)] / 1e3:8.3f} {own[id(e)] / total:6.1%} {e.count:6d}  {e.key[:150]}" for e in rows[:30]]
    write_text(arguments_file(bench.arguments, f"profile_{what}.txt"), "\n".join(lines) + "\n")
    top = sorted(kernels, key=lambda e: -e.self_device_time_total)[:5]
    shares = [f"{e.self_device_time_total / 1e3:.2f} ms {e.key[:60]}" for e in top]
    bench.add(what, how="eager", ms=wall * 1e3, device_ms=device_ms, kernels=launches, top=shares)


PARTS: dict[str, tuple[Callable[[Bench], None], float]] = {
    "triplets": (triplets, 40.0),
    "agree": (agree, 60.0),
    "loop": (loop, 110.0),
    "train": (train, 120.0),
    "quick": (train, 90.0),
    "pipeline": (pipeline, 40.0),
    "low_vram": (low_vram, 45.0),
    "stage1": (phases, 70.0),
    "stage2": (phases, 70.0),
    "profile": (profile, 50.0),
    "compile": (compile_triplets, 150.0),
}
"""What each part does, and the most seconds that it gets."""


# --- running them, and the tables ---


def rows_file(arguments: Arguments) -> Path:
    return arguments_file(arguments, "gpu.jsonl")


def arguments_file(arguments: Arguments, name: str) -> Path:
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    return arguments.output_dir / name


def markdown(rows: list[Row]) -> str:
    """A table for each part, with the columns that its rows have."""
    text = []
    for part in dict.fromkeys(row["part"] for row in rows):
        mine = [{k: v for k, v in row.items() if k != "part"} for row in rows if row["part"] == part]
        columns = list(dict.fromkeys(k for row in mine for k in row if k not in ("top", "ms_quartiles")))
        lines = [columns, ["---"] * len(columns), *([shown(row.get(c)) for c in columns] for row in mine)]
        text.append(f"**{part}**\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines))
    return "\n\n".join(text)


def shown(value: Any) -> str:
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


def write_tables(arguments: Arguments) -> list[Row]:
    """Write gpu.json and gpu.md from the rows so far, and return those."""
    path, facts_path = rows_file(arguments), arguments_file(arguments, "machine.json")
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    facts = json.loads(facts_path.read_text()) if facts_path.exists() else {}
    write_text(arguments_file(arguments, "gpu.json"), json.dumps({"machine": facts, "results": rows}, indent=1) + "\n")
    where = ", ".join(f"{name} {facts[name]}" for name in ("gpu", "cuda", "torch", "python", "date") if name in facts)
    write_text(arguments_file(arguments, "gpu.md"), f"{where}\n\n{markdown(rows)}\n")
    return rows


def do(part: str, arguments: Arguments) -> None:
    """Do a part's work in this process."""
    if arguments.device == "cuda":
        try:
            torch.cuda.init()
        except RuntimeError:  # something has touched the GPU before this process was forked
            os._exit(NO_GPU_HERE)
    write_text(arguments_file(arguments, "machine.json"), json.dumps(machine()))
    PARTS[part][0](Bench(part, arguments))


def do_apart(part: str, arguments: Arguments, limit: float) -> str | None:
    """Do a part's work in a process of its own; return what went wrong with the process, or None."""
    process = multiprocessing.get_context("fork").Process(target=_do_in_group, args=(part, arguments))
    end, late = time.monotonic() + limit, f"not finished in {limit:.0f} s"
    process.start()
    try:
        process.join(limit)
    finally:
        if is_late := process.is_alive():
            os.killpg(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
            process.join()
    if is_late:
        return late
    code = process.exitcode
    if code == NO_GPU_HERE:
        command = [sys.executable, "-m", "benchmarks.speed.gpu", "--one", part, *as_flags(arguments)]
        program = subprocess.Popen(command, cwd=Path(__file__).parents[2], start_new_session=True)
        try:
            code = program.wait(end - time.monotonic())
        except subprocess.TimeoutExpired:
            return late
        finally:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.wait()
    return f"the process ended with {code}" if code else None


def _do_in_group(part: str, arguments: Arguments) -> None:
    """Do it so that what it starts can be ended with it: a training that goes on would slow the next part."""
    os.setpgid(0, 0)
    do(part, arguments)


def main(arguments: Arguments) -> list[Row]:
    """Run the parts, each in a process of its own; return all rows."""
    if unknown := set(arguments.parts) - set(PARTS):
        raise ValueError(f"There is no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}.")
    for name in ("gpu.jsonl", "machine.json"):
        arguments_file(arguments, name).unlink(missing_ok=True)
    end = time.monotonic() + arguments.budget
    for part in arguments.parts:
        start, left = time.monotonic(), end - time.monotonic()
        bench = Bench(part, arguments)
        if left < 10:
            bench.add("all", failed="no time was left")
            continue
        problem = do_apart(part, arguments, min(PARTS[part][1], left))
        if problem is not None:
            bench.add("the rest", failed=problem)
        print(f"# {part}: {time.monotonic() - start:.0f} s", flush=True)
        write_tables(arguments)
    return write_tables(arguments)


def as_flags(arguments: Arguments) -> list[str]:
    """Return the options of the parts' processes."""
    flags = []
    for name in (
        "output_dir",
        "device",
        "resolution",
        "channel_base",
        "draw_batch",
        "batch_sizes",
        "dtypes",
        "seconds",
    ):
        value = getattr(arguments, name)
        if value is not None:
            flags += [f"--{name}", *(map(str, value) if isinstance(value, tuple) else [str(value)])]
    return flags


def _main(arguments: list[str]) -> None:
    parsed = tyro.cli(Arguments, args=arguments, description=__doc__)
    if parsed.one is not None:
        do(parsed.one, parsed)
    else:
        main(parsed)


if __name__ == "__main__":
    run(_main)
