"""What the trainer knows of a method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from PIL import Image
from torch import Tensor, nn
from torch.optim import Optimizer

from .ema import ExponentialMovingAverage
from .health import Rule
from .monitoring import RunningStatistics
from .phase import Phase

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
        rules: what its statistics are examined for, see health.py.
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

    def check_split(self, images: int) -> str | None:
        """Say what is wrong with computing a step `images` at a time; None if nothing is."""
        return None

    @abstractmethod
    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        """Adapt what follows from statistics of training, such as the augmentation's strength."""

    def measure(self, statistics: RunningStatistics) -> None:  # noqa: B027
        """Report what is worth an extra look once an interval. It must not touch the global random generators, or a
        run that is stopped and goes on would no longer be the same run."""

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
