"""A phase: one loss, the parameters that it trains, and how often it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .batches import Batch
from .monitoring import RunningStatistics

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
        prepare: called before the step with all its micro-batches, for what a loss needs to know of all of them.
        finish: called after the step, for state that follows from all of its micro-batches.
    """

    name: str
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    loss: PhaseLoss
    interval: int = 1
    prepare: Callable[[list[Batch]], None] | None = None
    finish: Callable[[], None] | None = None

    def is_due(self, step: int) -> bool:
        return step % self.interval == 0


def lazy_adam(
    parameters: Iterable[nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float] = (0.0, 0.99),
    eps: float = 1e-8,
    interval: int | None = None,
) -> torch.optim.Adam:
    """Adam for parameters that are also stepped by a regulariser every `interval` iterations.

    With the k-th iteration holding one step more, the learning rate becomes lr k/(k+1) and the betas beta^(k/(k+1))
    (StyleGAN2, appendix B).

    Args:
        parameters: what to train.
        lr: learning rate without lazy regularisation.
        betas, eps: of Adam.
        interval: k; None for no regulariser.
    """
    ratio = 1.0 if interval is None else interval / (interval + 1)
    parameters = list(parameters)
    # Adam refuses an integer 0 beside a float, and the fused kernel spares a pass over memory for each state tensor.
    scaled = tuple(float(beta**ratio) for beta in betas)
    fused = all(p.device.type in ("cpu", "cuda") for p in parameters)
    return torch.optim.Adam(parameters, lr=lr * ratio, betas=scaled, eps=eps, fused=fused)  # type: ignore[arg-type]
