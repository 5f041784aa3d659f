"""The training loop, its phases, averages and checkpoints."""

from ..processes import ProcessGroup
from .checkpointing import CheckpointError
from .task import (
    Batch,
    BatchStream,
    ExponentialMovingAverage,
    MetricsLog,
    NonFiniteLossError,
    Panels,
    Phase,
    RunningStatistics,
    Task,
    lazy_adam,
)
from .trainer import RunConfig, Trainer

__all__ = [
    "Batch",
    "BatchStream",
    "CheckpointError",
    "ExponentialMovingAverage",
    "MetricsLog",
    "NonFiniteLossError",
    "Panels",
    "Phase",
    "ProcessGroup",
    "RunConfig",
    "RunningStatistics",
    "Task",
    "Trainer",
    "lazy_adam",
]
