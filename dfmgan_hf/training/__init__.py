"""The training loop, its phases, averages and checkpoints."""

from ..processes import ProcessGroup
from .batches import Batch, BatchStream
from .checkpointing import CheckpointError
from .ema import ExponentialMovingAverage
from .monitoring import MetricsLog, NonFiniteLossError, RunningStatistics
from .phase import Phase, lazy_adam
from .schedule import RunConfig
from .task import Panels, Task
from .trainer import Trainer

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
