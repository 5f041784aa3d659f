"""What the GAN stages share: an augmented discriminator, its statistics, and the state of their regularisers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from ..augmentation import AdaController
from ..models import StyleGAN2Discriminator
from ..training import Panels, RunningStatistics, Task
from ..training.health import Rows, Rule, last
from .latents import PathLengthAverage


def ada_at_cap(rows: Rows) -> str | None:
    """The augmentation's probability has been at its limit for whole intervals."""
    values = last(rows, "ada/at_cap", "ada/p", "ada/r_t")
    if values is None or not all(at_cap >= 0.99 for at_cap, _, _ in values):
        return None
    _, p, r_t = values[-1]
    return (
        f"ADA's probability is at its limit {p:.2f} and the discriminator still overfits (r_t {r_t:.2f}): there are "
        "too few photographs for so long a run. Keep the best checkpoint (--eval_every_kimg) or stop; add "
        "photographs, --mirror, or a larger --augmentation set if the product allows. Raising --ada_max above 0.8 "
        "makes augmentations leak into the samples."
    )


def discriminator_memorised(rows: Rows) -> str | None:
    """D tells nearly every real image from nearly every generated one, with logits far apart."""
    values = last(rows, "accuracy/real", "accuracy/fake", "logits/real", "logits/fake")
    if values is None or not all(min(a, b) >= 0.97 and real - fake >= 6 for a, b, real, fake in values):
        return None
    _, _, real, fake = values[-1]
    return (
        f"The discriminator has memorised the photographs: mean logits {real:.1f} on real and {fake:.1f} on generated "
        "images, and both are told apart nearly always. What comes now is seldom better: use the best or an earlier "
        "checkpoint. For the next run: augmentation (--augmentation, not none), more photographs, a larger "
        "--r1_gamma."
    )


class AdversarialTask(Task):
    """A task with a discriminator that sees augmented images, and a path-length regulariser.

    Args:
        discriminator: judges images.
        augment: differentiable augmentation of all that it sees: (images, p) -> images; None for none.
        ada: adapts p; None keeps p at 1, for augmentations without a probability.
        mean_over_processes: averages a tensor over all processes.
    """

    path_length: PathLengthAverage
    rules: ClassVar[Sequence[Rule]] = (ada_at_cap, discriminator_memorised)
    panels: ClassVar[Panels] = {
        "Losses": ("loss/generator", "loss/discriminator"),
        "D: mean logits": ("logits/real", "logits/fake"),
        "D: accuracy": ("accuracy/real", "accuracy/fake"),
        "ADA": ("ada/p", "ada/r_t"),
        "Regularisers": ("r1_penalty", "path_length"),
    }

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

    def check_split(self, images: int) -> str | None:
        group, batch_size = self.discriminator.config["mbstd_group_size"], self.settings.batch_size
        if batch_size % group or images % group == 0:
            return None
        return (
            f"{images} images at a time split the groups of {group} that the discriminator compares (minibatch "
            "standard deviation), which changes what it learns. Choose `batch_size` as a multiple of "
            f"{group * batch_size // images}, or fewer --accumulation_steps or processes."
        )

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
