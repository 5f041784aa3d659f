"""How long a run is, and what it writes when."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Schedule:
    """How long to train and what to write when. Lengths count real images shown, in thousands (kimg).

    Args:
        total_kimg: length of the run.
        batch_size: images a step, over all processes.
        accumulation_steps: micro-batches that a process splits its part into.
        log_every_kimg: statistics to the log and the tracker.
        sample_every_kimg: sample sheets; 0 for none but the first and the last.
        checkpoint_every_kimg: checkpoints; 0 for none but the last.
        checkpoints_total_limit: how many checkpoints stay; None for all.
        eval_every_kimg: scores, if the trainer has a scorer.

    Raises:
        ValueError: a number is out of its range.
    """

    total_kimg: float
    batch_size: int
    accumulation_steps: int = 1
    log_every_kimg: float = 1.0
    sample_every_kimg: float = 10.0
    checkpoint_every_kimg: float = 20.0
    checkpoints_total_limit: int | None = 2
    eval_every_kimg: float = 0.0

    def __post_init__(self) -> None:
        for name in ("total_kimg", "batch_size", "accumulation_steps", "log_every_kimg"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, but is {getattr(self, name)}.")
        for name in ("sample_every_kimg", "checkpoint_every_kimg", "eval_every_kimg"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must be at least 0, but is {getattr(self, name)}.")
        if self.checkpoints_total_limit is not None and self.checkpoints_total_limit < 1:
            raise ValueError(f"`checkpoints_total_limit` must be at least 1, but is {self.checkpoints_total_limit}.")

    def check_processes(self, num_processes: int) -> None:
        """Raise ValueError if the batch cannot be shared among so many processes."""
        if self.batch_size % (num_processes * self.accumulation_steps):
            raise ValueError(
                f"`batch_size` {self.batch_size} cannot be shared among {num_processes} processes with "
                f"{self.accumulation_steps} accumulation steps each; choose a multiple of their product."
            )
