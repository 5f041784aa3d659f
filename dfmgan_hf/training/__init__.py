"""The training loop, its phases, averages and checkpoints."""

from .batches import Batch, BatchStream
from .checkpointing import CheckpointError
from .ema import ExponentialMovingAverage
from .monitoring import MetricsLog, RunningStatistics
from .phase import Phase, lazy_adam
from .task import Task
from .trainer import NonFiniteLossError, Schedule, Trainer

__all__ = [
    "Batch",
    "BatchStream",
    "CheckpointError",
    "ExponentialMovingAverage",
    "MetricsLog",
    "NonFiniteLossError",
    "Phase",
    "RunningStatistics",
    "Schedule",
    "Task",
    "Trainer",
    "lazy_adam",
]
