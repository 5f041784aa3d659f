"""What the GAN stages share: an augmented discriminator, its statistics, and the state of their regularisers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..augmentation import AdaController
from ..models import StyleGAN2Discriminator
from ..training import RunningStatistics, Task
from .latents import PathLengthAverage


class AdversarialTask(Task):
    """A task with a discriminator that sees augmented images, and a path-length regulariser.

    Args:
        discriminator: judges images.
        augment: differentiable augmentation of all that it sees: (images, p) -> images; None for none.
        ada: adapts p; None keeps p at 1, for augmentations without a probability.
        mean_over_processes: averages a tensor over all processes.
    """

    path_length: PathLengthAverage

    def __init__(
        self,
        discriminator: StyleGAN2Discriminator,
        augment: nn.Module | None,
        ada: AdaController | None,
        mean_over_processes: Callable[[Tensor], Tensor],
    ) -> None:
        self.discriminator = discriminator.train().requires_grad_(False)
        self.augment = augment
        self.ada = ada
        self.mean_over_processes = mean_over_processes

    def judge(self, images: Tensor) -> Tensor:
        """Augmented images' logits (N, 1)."""
        if self.augment is not None:
            images = self.augment(images, 1.0 if self.ada is None else self.ada.p)
        return self.discriminator(images).logits

    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        if self.ada is not None:
            # r_t is a ratio of two sums, so their means over processes serve as well.
            self.ada.step(self.mean_over_processes)
            statistics.report("ada/p", self.ada.p)
            statistics.report("ada/r_t", self.ada.r_t.nan_to_num())
            if self.ada.target is not None:
                statistics.report("ada/at_cap", (self.ada.p >= self.ada.p_max).to(torch.float32))

    def state_dict(self) -> dict[str, Tensor]:
        state = {"path_length_mean": self.path_length.mean}
        if self.ada is not None:
            state.update({f"ada.{name}": value for name, value in self.ada.state_dict().items()})
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.path_length.mean = state["path_length_mean"].to(self.path_length.mean.device)
        if self.ada is not None:
            self.ada.load_state_dict({k.removeprefix("ada."): v for k, v in state.items() if k.startswith("ada.")})


def report_logits(statistics: RunningStatistics, prefix: str, real_logits: Tensor, fake_logits: Tensor) -> None:
    """Mean logits and accuracy of a discriminator on real and generated images."""
    statistics.report(f"{prefix}logits/real", real_logits)
    statistics.report(f"{prefix}logits/fake", fake_logits)
    statistics.report(f"{prefix}accuracy/real", (real_logits > 0).to(torch.float32))
    statistics.report(f"{prefix}accuracy/fake", (fake_logits < 0).to(torch.float32))
