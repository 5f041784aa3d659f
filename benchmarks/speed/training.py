"""Time of one training iteration of each stage, beside the convolutions alone and beside the naive way.

    python -m benchmarks.speed.training

Lazy regularisers count with their share. bf16 is that of the highest four resolutions, as in mixed-precision runs. The
convolutions that the ceiling consists of are those that our own iteration makes. Networks are new, images are noise,
and the augmentation is the default one.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
import tyro
from torch import Tensor, nn

from benchmarks.speed.ceiling import ceiling_seconds, flop, record
from benchmarks.speed.naive import NaivePhase, naive_phases
from benchmarks.speed.timing import time_in_turns, write_json
from dfmgan_hf.cli import run
from dfmgan_hf.methods import get_method
from dfmgan_hf.methods.dfmgan import Stage2Task
from dfmgan_hf.methods.method import AugmentationConfig, PresetName, RecipeConfig, Target, TaskRequest
from dfmgan_hf.methods.stylegan2 import Stage1Task
from dfmgan_hf.training import Batch, Phase, RunningStatistics

Stage = Literal["stage1", "stage2"]


@dataclass
class Arguments:
    """What to time.

    Args:
        presets: Sizes of the networks.
        batch_sizes: Images an iteration, one number for each preset.
        repeats: Iterations of which the median is taken.
        warm_up: Iterations before those.
        check: Largest difference of a gradient to the naive way's that is accepted, of the gradient's norm.
        name: Of the file of results.
    """

    presets: tuple[PresetName, ...] = ("small",)
    batch_sizes: tuple[int, ...] = (16,)
    repeats: int = 5
    warm_up: int = 1
    check: float = 2e-2
    name: str = "training"


def make_task(stage: Stage, overrides: RecipeConfig, preset: str, target: Target) -> Stage1Task | Stage2Task:
    """A new task whose networks have noise."""
    torch.manual_seed(0)
    method = get_method("stage1" if stage == "stage1" else "dfmgan")
    assert method.build is not None
    recipe = method.resolve(preset, overrides, None, 1)
    # Stage 2 takes new networks for its backbone: time does not depend on what they have learnt.
    task: Any = method.build(TaskRequest(recipe, method.options(), AugmentationConfig("bgc"), target))
    for name, parameter in task.generator.named_parameters():
        if name.endswith("noise_strength"):
            nn.init.constant_(parameter, 0.1)
    return task


def make_batch(task: Stage1Task | Stage2Task, batch_size: int, device: torch.device) -> Batch:
    """Noise with boxes for masks."""
    config = task.generator.config
    size = config["resolution"]
    images = torch.rand(batch_size, config["image_channels"], size, size) * 2 - 1
    masks = torch.full((batch_size, 1, size, size), -1.0)
    masks[..., size // 4 : size // 2, size // 4 : size // 2] = 1.0
    return Batch(images.to(device), masks.to(device))


def backward(phase: Phase, batch: Batch, statistics: RunningStatistics) -> None:
    """What the trainer does before the optimiser's step."""
    for parameter in phase.parameters:
        parameter.requires_grad_(True)
    if phase.prepare is not None:
        phase.prepare([batch])
    (phase.loss(batch, statistics) * phase.interval).backward()
    for parameter in phase.parameters:
        parameter.requires_grad_(False)


def run_phase(phase: Phase, batch: Batch, statistics: RunningStatistics) -> None:
    backward(phase, batch, statistics)
    phase.optimizer.step()
    phase.optimizer.zero_grad(set_to_none=True)
    if phase.finish is not None:
        phase.finish()


def gradients(parameters: list[nn.Parameter]) -> Tensor:
    """All in one vector, which are then forgotten."""
    parts = [torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return torch.cat(parts)


def difference(phase: Phase, naive: NaivePhase, batch: Batch) -> float:
    """How far the naive way's gradient is from ours with the same random numbers, of the gradient's norm."""
    statistics = RunningStatistics(lambda sums: sums)
    torch.manual_seed(1)
    backward(phase, batch, statistics)
    if phase.finish is not None:
        phase.finish()
    torch.manual_seed(1)
    naive.backward(batch)
    ours, theirs = gradients(phase.parameters), gradients(naive.parameters)
    return float((ours - theirs).norm() / theirs.norm())


def measure(
    stage: Stage,
    preset: str,
    overrides: RecipeConfig,
    target: Target,
    *,
    repeats: int,
    warm_up: int = 1,
    check: float | None = 2e-2,
) -> dict[str, Any]:
    """Seconds of an iteration and of its convolutions, with the phases apart; with `check`, also in bf16 and naively.

    Raises:
        RuntimeError: a gradient of the naive way is farther than `check` from ours, of the gradient's norm.
    """
    assert overrides.batch_size is not None
    task = make_task(stage, overrides, preset, target)
    batch = make_batch(task, overrides.batch_size, target.device)
    statistics = RunningStatistics(lambda sums: sums)
    ways: dict[str, list[Callable[[], object]]] = {
        "seconds": [partial(run_phase, phase, batch, statistics) for phase in task.phases]
    }
    if check is not None:
        bf16_task = make_task(stage, overrides, preset, replace(target, low_precision_dtype=torch.bfloat16))
        naive = naive_phases(copy.deepcopy(task))
        # Before the first step, after which the weights differ.
        for phase, naive_phase in zip(task.phases, naive, strict=True):
            if (apart := difference(phase, naive_phase, batch)) > check:
                raise RuntimeError(
                    f"{stage}, {phase.name}: the naive way's gradient is {apart:.2g} of its norm apart."
                )
        ways["bf16_seconds"] = [partial(run_phase, phase, batch, statistics) for phase in bf16_task.phases]
        ways["naive_seconds"] = [partial(phase.run, batch) for phase in naive]
    row: dict[str, Any] = {"stage": stage, "preset": preset, "batch_size": overrides.batch_size, "phases": {}}
    row["resolution"] = task.generator.config["resolution"]
    total: Counter[str] = Counter()
    for index, phase in enumerate(task.phases):
        timings = time_in_turns({name: calls[index] for name, calls in ways.items()}, repeats, warm_up)
        convs = record(ways["seconds"][index])
        ceiling = ceiling_seconds(convs, target.device)
        row["phases"][phase.name] = {"interval": phase.interval, **timings, "ceiling_seconds": ceiling}
        once = {name: timing.median for name, timing in timings.items()}
        for name, value in {**once, "ceiling_seconds": ceiling, "flop": flop(convs)}.items():
            total[name] += value / phase.interval  # type: ignore[assignment]
    work, seconds = total.pop("flop"), total["seconds"]
    row |= total
    row["seconds_per_kimg"] = seconds * 1000 / overrides.batch_size
    row["tflops"] = work / seconds / 1e12
    row["time_to_ceiling"] = seconds / total["ceiling_seconds"]
    if check is not None:
        row["naive_to_time"] = total["naive_seconds"] / seconds
        row["naive_to_bf16"] = total["naive_seconds"] / total["bf16_seconds"]
    return row


def main(arguments: Arguments) -> list[dict[str, Any]]:
    stages: tuple[Stage, ...] = ("stage1", "stage2")
    return [
        measure(
            stage,
            preset,
            RecipeConfig(batch_size=batch_size),
            Target(torch.device("cpu")),
            repeats=arguments.repeats,
            warm_up=arguments.warm_up,
            check=arguments.check,
        )
        for preset, batch_size in zip(arguments.presets, arguments.batch_sizes, strict=True)
        for stage in stages
    ]


def _write(arguments: Sequence[str]) -> None:
    parsed = tyro.cli(Arguments, args=arguments, description=__doc__)
    write_json(parsed.name, main(parsed))


if __name__ == "__main__":
    run(_write)
