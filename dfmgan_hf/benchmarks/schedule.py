"""The optimiser and the order of images that classifiers and segmentation networks are trained with."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def adam(model: nn.Module, lr: float, steps: int) -> tuple[torch.optim.Adam, torch.optim.lr_scheduler.MultiStepLR]:
    """Adam whose rate falls to a fifth at 80 % and again at 90 % of the steps, as in AnomalyDiffusion."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    milestones = [steps * 8 // 10, steps * 9 // 10]
    return optimizer, torch.optim.lr_scheduler.MultiStepLR(optimizer, milestones, gamma=0.2)


def batches(count: int, batch_size: int, steps: int, seed: int) -> Iterator[Tensor]:
    """Numbers of the images of each step: all of them in a new order, again and again; fewer than a batch repeat."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        while len(order) < batch_size:
            order = torch.cat([order, torch.randperm(count, generator=generator)])
        yield order[:batch_size]
        order = order[batch_size:]
