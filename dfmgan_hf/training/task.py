"""What a method is to the trainer: batches, phases, statistics, averages, and the task itself."""

from __future__ import annotations

import copy
import json
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from ..files import to_json, write_text

if TYPE_CHECKING:
    from ..data.training_set import ImageMaskDataset

# --- Batches of real images ---


@dataclass
class Batch:
    """Real images as the networks see them.

    Args:
        images: (N, C, H, W) in [-1, 1].
        masks: (N, 1, H, W), -1 or +1, or None in stage 1.
        labels: number of each image's kind of defect, int64 (N,), or None if all are of one kind.
        flips: which images are flipped left to right, bool (N, 1, 1, 1), or None if none is.
    """

    images: Tensor
    masks: Tensor | None = None
    labels: Tensor | None = None
    flips: Tensor | None = None

    def __len__(self) -> int:
        return len(self.images)

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Return all four, in this order."""
        return self.images, self.masks, self.labels, self.flips

    def as_photographed(self) -> Batch:
        """Return it with nothing flipped.

        Codes are those of photographs as they are: of flipped ones, half the batches would be taught at latents that
        are never drawn; and if both had codes, those in between would stand for both at once.
        """
        if self.flips is None:
            return self
        images, masks = (
            None if t is None else torch.where(self.flips, t.flip(3), t) for t in (self.images, self.masks)
        )
        assert images is not None
        return Batch(images, masks, self.labels)

    def split(self, parts: int) -> list[Batch]:
        """Return equal micro-batches for gradient accumulation."""
        chunks = ([None] * parts if tensor is None else tensor.chunk(parts) for tensor in self.tensors)
        return [Batch(*part) for part in zip(*chunks, strict=True)]  # type: ignore[arg-type]


RESIDENT_BYTES = 2**30
"""A training set of up to this size is kept on the device; of a larger one, each batch is copied there."""


class BatchStream:
    """Draw endless shuffled passes over a training set, shared out among processes.

    Position p of the stream is image `permutation(seed, p // len)[p % len]`; a training step takes the next
    `batch_size` positions and process r the r-th equal part of them. Nothing but the image count is needed to resume
    where a run stopped, with any number of processes.

    The set lies on `device` as 8-bit numbers, and so does the order of many passes: a step only looks them up, and
    does not wait for the device.

    Args:
        source: images uint8 (M, C, H, W), masks uint8 {0, 255} (M, 1, H, W) or None, and labels int64 (M,) or None.
        batch_size: images a step over all processes, which share them evenly.
        seed: of the permutations.
        rank, world_size: this process and how many there are.
        device: where batches go.
        mirror: flip every other pass over the data left to right (doubles the data where a mirrored product is one).
        balanced: kinds take turns, however many photographs each has: a pass then shows each kind as often as there
            are photographs of the largest.

    Example:
        >>> stream = BatchStream(dataset, batch_size=16, seed=0)
        >>> stream.at(images_seen=32).images.shape
        torch.Size([16, 3, 256, 256])
    """

    def __init__(
        self,
        source: ImageMaskDataset,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        mirror: bool = False,
        balanced: bool = False,
    ) -> None:
        self.batch_size = batch_size
        self.seed = seed
        self.rank = rank
        self.world_size = world_size
        self.device = torch.device(device)
        self.mirror = mirror
        tensors = (source.images, source.masks, source.labels)
        size = sum(tensor.nbytes for tensor in tensors if tensor is not None)
        home = self.device if size <= RESIDENT_BYTES else torch.device("cpu")
        self.images = source.images.to(home)
        self.masks, self.labels = (None if t is None else t.to(home) for t in tensors[1:])
        self._members = [torch.arange(len(source.images))]
        if balanced and source.labels is not None:
            self._members = [self._members[0][source.labels == kind] for kind in source.labels.unique()]
        self._pass = len(self._members) * max(map(len, self._members))
        # The order of `_passes` passes from number `_first` on, one after the other.
        self._passes = max(2 + batch_size // self._pass, 2**14 // self._pass)
        self._first = -self._passes
        self._order = torch.empty(0, dtype=torch.long)

    def at(self, images_seen: int) -> Batch:
        """Return this process's part of the step that starts after `images_seen` images."""
        part = self.batch_size // self.world_size
        start = images_seen + self.rank * part
        index = self._numbers(start, part)
        images = self._normalise(self.images[index])
        masks = None if self.masks is None else self._normalise(self.masks[index])
        flips = None
        if self.mirror:
            passes = torch.arange(start, start + part, device=self.device) // self._pass
            flips = (passes % 2 == 1)[:, None, None, None]
            images = torch.where(flips, images.flip(3), images)
            masks = None if masks is None else torch.where(flips, masks.flip(3), masks)
        labels = None if self.labels is None else self.labels[index].to(self.device)
        return Batch(images, masks, labels, flips)

    def _numbers(self, start: int, part: int) -> Tensor:
        """Return which images are at the `part` positions from `start` on, int64 (part,)."""
        count = self._pass
        if not self._first * count <= start <= (self._first + self._passes) * count - part:
            self._first = start // count
            seeds = (self.seed * 1_000_003 + self._first + i for i in range(self._passes))
            orders = [self._shuffled(torch.Generator().manual_seed(seed)) for seed in seeds]
            self._order = torch.cat(orders).to(self.images.device)
        return self._order[start - self._first * count :][:part]

    def _shuffled(self, generator: torch.Generator) -> Tensor:
        """Return the order of one pass, int64 (`_pass`,): the kinds take turns, each in an order of its own.

        Whose turn is first changes, too: some losses take only the first half of a batch.
        """
        length = self._pass // len(self._members)
        columns = []
        for members in self._members:
            repeats = -(-length // len(members))
            order = [members[torch.randperm(len(members), generator=generator)] for _ in range(repeats)]
            columns.append(torch.cat(order)[:length])
        rounds, kinds = torch.stack(columns, dim=1), len(columns)
        turns = torch.rand(length, kinds, generator=generator).argsort(dim=1)
        return rounds.gather(1, turns).flatten()

    def _normalise(self, pixels: Tensor) -> Tensor:
        if self.device.type == "cuda" and pixels.device.type == "cpu":
            pixels = pixels.pin_memory()  # of other memory, the host waits until the copy is made
        return pixels.to(self.device, non_blocking=True).to(torch.float32) / 127.5 - 1.0


# --- Statistics of a run, and what is going wrong in them ---


class RunningStatistics:
    """Gather means of named quantities on the device, which is waited for only when they are read.

    What is reported is added in place to a few numbers that stay where they are, so that a CUDA graph can do it too.

    Args:
        sum_over_processes: sums a tensor over all processes.
    """

    def __init__(self, sum_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self._moments: dict[str, Tensor] = {}
        self._sum = sum_over_processes

    @torch.no_grad()
    def report(self, name: str, values: Tensor | float) -> None:
        """Add values of any shape to the quantity `name`. Every process must report the same names."""
        values = torch.as_tensor(values)
        dtype = torch.float32 if values.device.type == "mps" else torch.float64
        if name not in self._moments:
            self._moments[name] = torch.zeros(2, dtype=dtype, device=values.device)
        count, total = self._moments[name].unbind()
        count.add_(values.numel())
        total.add_(values.sum(dtype=dtype) if values.ndim else values)

    def collect(self) -> dict[str, float]:
        """Return means since the last call, over all processes; starts a new interval."""
        if not self._moments:
            return {}
        names = sorted(self._moments)
        table = self._sum(torch.stack([self._moments[name].cpu() for name in names]))
        for moments in self._moments.values():
            moments.zero_()
        return {name: (total / count).item() for name, (count, total) in zip(names, table, strict=True) if count > 0}

    def non_finite(self, prefix: str) -> list[str]:
        """Return what follows `prefix` in the names of quantities that were NaN or infinite since the last `collect`.

        One bad value anywhere, in any process, is enough.
        """
        names = sorted(name for name in self._moments if name.startswith(prefix))
        if not names:
            return []
        bad = self._sum(torch.stack([(~self._moments[name].isfinite().all()).to(torch.float32) for name in names]))
        return [name.removeprefix(prefix) for name, count in zip(names, bad.tolist(), strict=True) if count > 0]


class NonFiniteLossError(RuntimeError):
    """Training has diverged; the last good checkpoint is kept."""


class TrainingWarning(UserWarning):
    """The run looks as if it will not end well; the message says why and what to do."""


PATIENCE = 5
"""Intervals in a row that a rule must hold for: one alone may be chance, and the first ones always look bad."""


@dataclass(frozen=True)
class Rule:
    """Something that goes wrong in a run, told by the numbers of its log.

    Args:
        name: of the warning.
        numbers: names of what is looked at.
        holds: whether it goes wrong, from the numbers in this order.
        advice: what is wrong and what to do; {0}, {1}, ... are the last numbers.
    """

    name: str
    numbers: tuple[str, ...]
    holds: Callable[..., bool]
    advice: str


def examine(rules: Iterable[Rule], rows: Iterable[dict[str, Any]]) -> dict[str, str]:
    """Return the advice of each rule that has held in the last PATIENCE rows, by its name."""
    recent, advice = list(rows)[-PATIENCE:], {}
    for rule in rules:
        values = [tuple(row.get(name) for name in rule.numbers) for row in recent]
        if len(values) == PATIENCE and all(None not in numbers and rule.holds(*numbers) for numbers in values):
            advice[rule.name] = rule.advice.format(*values[-1])
    return advice


class MetricsLog:
    """Append one JSON object a line to a file.

    A run that resumes from a checkpoint first drops the lines after it, so that the file tells one story.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows so far; a line cut short, or that is still being written, is left out."""
        rows = []
        for line in self.path.read_text("utf-8").splitlines() if self.path.exists() else ():
            with suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
        return rows

    def rewind(self, images_seen: int) -> list[dict[str, Any]]:
        """Drop lines of more than `images_seen` images, and return the rows that stay."""
        rows = [row for row in self.rows() if row["images_seen"] <= images_seen]
        if self.path.exists():
            write_text(self.path, "".join(f"{json.dumps(row)}\n" for row in rows))
        return rows

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, whole or not at all; numbers that JSON cannot hold become null."""
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(to_json(row)) + "\n")
        except OSError:
            # The next row must not continue this broken one.
            if self.path.exists():
                os.truncate(self.path, size)
            raise


# --- A phase: one loss, the parameters that it trains, and how often it runs ---

PhaseLoss = Callable[[Batch, RunningStatistics], Tensor]


@dataclass
class Phase:
    """One backward pass and optimiser step of a training iteration.

    Args:
        name: for logs and error messages.
        parameters: what the phase trains. Only these require gradients while its loss is computed.
        optimizer: steps over exactly these parameters; phases may share one.
        loss: (batch, statistics) -> scalar, the mean over the batch it is given.
        interval: run every `interval` iterations with the loss multiplied by it (lazy regularisation, StyleGAN2,
            section 3.1); the optimiser of such a phase comes from `lazy_adam`.
        begins, ends: first iteration that it may run in, and the first that it may not; None for no end.
        prepare: called before the step with all its micro-batches, for what a loss needs to know of all of them.
        finish: called after the step, for state that follows from all of its micro-batches.
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    loss: PhaseLoss
    interval: int = 1
    begins: int = 0
    ends: int | None = None
    prepare: Callable[[list[Batch]], None] | None = None
    finish: Callable[[], None] | None = None

    def is_due(self, step: int) -> bool:
        return step % self.interval == 0 and self.begins <= step and (self.ends is None or step < self.ends)


def lazy_adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float] = (0.0, 0.99),
    interval: int | None = None,
) -> torch.optim.Adam:
    """Build Adam for parameters that are also stepped by a regulariser every `interval` iterations.

    With the k-th iteration holding one step more, the learning rate becomes lr k/(k+1) and the betas beta^(k/(k+1))
    (StyleGAN2, appendix B); an interval of None stands for no regulariser. Adam's eps is torch's 1e-8.
    """
    ratio = 1.0 if interval is None else interval / (interval + 1)
    parameters = list(parameters)
    # Adam refuses an integer 0 beside a float, and the fused kernel spares a pass over memory for each state tensor.
    scaled = tuple(float(beta**ratio) for beta in betas)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=lr * ratio, betas=scaled, fused=fused)  # type: ignore[arg-type]


# --- The moving average of the generator (Progressive GAN, section 5), with StyleGAN2-ADA's ramp-up ---


def ema_decay(batch_size: int, images_seen: int, half_life_kimg: float, rampup: float | None) -> float:
    """Return the decay of one step, 0.5^(batch / half-life in images).

    The half-life is `half_life_kimg` thousand images, but at most `rampup` times the images seen so far.
    """
    half_life = half_life_kimg * 1000.0
    if rampup is not None:
        half_life = min(half_life, images_seen * rampup)
    return 0.5 ** (batch_size / max(half_life, 1e-8))


class ExponentialMovingAverage:
    """Average what is trained and copy the rest.

    Frozen parameters are not averaged, so a frozen backbone stays as it is, bit for bit. Buffers are copied.

    Args:
        model: the trained network.
        trained: names of the parameters to average; None for all.
        half_life_kimg: half-life in thousands of images.
        rampup: see `ema_decay`.

    Attributes:
        averaged: the network that holds the average, at first a copy of `model`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        trained: set[str] | None = None,
        half_life_kimg: float,
        rampup: float | None = None,
    ) -> None:
        self.averaged: Any = copy.deepcopy(model).eval().requires_grad_(False)
        self.half_life_kimg = half_life_kimg
        self.rampup = rampup
        sources = dict(model.named_parameters())
        self._pairs = [
            (parameter, sources[name])
            for name, parameter in self.averaged.named_parameters()
            if trained is None or name in trained
        ]
        self._buffers = list(self.averaged.buffers()), list(model.buffers())

    @torch.no_grad()
    def update(self, batch_size: int, images_seen: int) -> None:
        """Take in the model after a step of `batch_size` images; `images_seen` counts up to it."""
        decay = ema_decay(batch_size, images_seen, self.half_life_kimg, self.rampup)
        averages: list[Tensor] = [average for average, _ in self._pairs]
        torch._foreach_lerp_(averages, [source.detach() for _, source in self._pairs], 1.0 - decay)
        if self._buffers[0]:
            torch._foreach_copy_(*self._buffers)


# --- What the trainer knows of a method ---

Panels = Mapping[str, Sequence[str]]


class Task(ABC):
    """A method to train: its networks, phases, what is averaged, how to sample, and its own state.

    Attributes:
        networks: every network whose tensors a checkpoint holds and processes share, by name.
        phases: run in this order in every iteration in which they are due.
        ema: moving averages to update after each iteration.
        optimizers: every optimiser once, by name.
        generator_ema: the averaged generator: what is drawn from, scored and exported.
        settings: hyperparameters, a dataclass, for the record.
        rules: what its statistics are examined for, see `Rule`.
        panels: names of statistics by the title of the curves that show them together, in the run's report.
    """

    networks: dict[str, nn.Module]
    phases: list[Phase]
    ema: list[ExponentialMovingAverage]
    optimizers: dict[str, Optimizer]
    generator_ema: Any
    settings: Any
    rules: ClassVar[Sequence[Rule]] = ()
    panels: ClassVar[Panels] = {}
    balances_kinds: ClassVar[bool] = False
    """Whether its batches show all kinds of defect equally often."""
    is_captured: ClassVar[bool] = False
    """Whether a phase makes the same calls in every step, so that a CUDA graph can stand for it."""

    def check_split(self, images: int) -> str | None:
        """Say what is doubtful about computing a step `images` at a time; None if nothing is.

        Raises:
            ValueError: the method cannot compute it so.
        """
        return None

    @abstractmethod
    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        """Adapt what follows from statistics of training, such as the augmentation's strength."""

    def measure(self, statistics: RunningStatistics) -> None:  # noqa: B027
        """Report what is worth an extra look once an interval. It must not touch the global random generators, or a
        run that is stopped and resumed would no longer be the same run."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """State besides networks and optimisers, as tensors."""

    @abstractmethod
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state_dict`."""

    @abstractmethod
    def sample_sheet(self) -> Image.Image:
        """The same latents drawn with the averaged generator, as one picture."""

    @abstractmethod
    def export(self, folder: Path) -> None:
        """Write what users load with `from_pretrained`, and what further training starts from, into `folder`."""
