"""Learning rates that fall with the length of a run."""

from __future__ import annotations

from collections.abc import Iterable

from torch.optim import Optimizer


def decayed_lr(progress: float, lr: float, *, constant_until: float = 0.0, final_lr: float = 0.0) -> float:
    """The learning rate at a part of the run: `lr` at first, then on a line to `final_lr` at the end.

    Args:
        progress: done part of the run, from 0; what goes beyond 1 stays at the end's rate.
        lr: at first.
        constant_until: part of the run from which on it falls, in [0, 1).
        final_lr: at the end.
    """
    falling = min(max((progress - constant_until) / (1 - constant_until), 0.0), 1.0)
    return lr + (final_lr - lr) * falling


def set_lr(optimizers: Iterable[Optimizer], lr: float) -> None:
    """Give all parameters of these optimisers one learning rate."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = lr
