"""How strongly to augment: the adaptive probability of StyleGAN2-ADA (arXiv 2006.06676, section 3, equation 1)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor


class AdaController:
    """Moves the augmentation probability p so that the discriminator's overfitting stays at a target.

    Overfitting is r_t = E[sign D(x)] over the real images of an interval: 0 without any, 1 where the discriminator
    takes every real image for real. Every `interval` steps p moves by a fixed amount, up if r_t is above the target.
    `p`, in [0, 1], and `r_t` of the last complete interval, NaN before the first, are 0-dim float32 tensors, which are
    changed in place.

    Args:
        batch_size: real images a step, over all processes.
        target: r_t to hold, in (-1, 1).
        interval: training steps between moves.
        ramp_kimg: thousands of images in which p can go from 0 to 1; 500 in stage 1, 100 in stage 2.
        p_max: p goes no higher, in (0, 1]. The paper has no limit short of 1; above 0.8 augmentations leak.
        device: where p and the sums are kept. On the discriminator's device nothing is copied to the host, and
            `AugmentPipe` does not wait for p; on the CPU, `observe` waits for the logits of an accelerator.
    """

    def __init__(
        self,
        batch_size: int,
        *,
        target: float = 0.6,
        interval: int = 4,
        ramp_kimg: float = 500.0,
        p_max: float = 0.8,
        device: torch.device | str = "cpu",
    ) -> None:
        self.target = target
        self.interval = interval
        self.p_max = p_max
        self.p_step = batch_size * interval / (ramp_kimg * 1000)
        self.p = torch.zeros((), device=device)
        self.r_t = torch.full((), torch.nan, device=device)
        self._sums = torch.zeros(2, device=device)
        self._steps = 0

    @torch.no_grad()
    def observe(self, logits_real: Tensor) -> None:
        """Count the discriminator's logits for augmented real images, of any shape; NaN is no observation."""
        counted = ~logits_real.isnan()
        sums = torch.stack([torch.where(counted, logits_real.sign(), 0).sum(), counted.sum()])
        self._sums.add_(sums.to(self._sums.device))

    @torch.no_grad()
    def step(self, reduce: Callable[[Tensor], Tensor] | None = None) -> None:
        """End a training step, and after each `interval` of them move p.

        Args:
            reduce: sums or averages a tensor over all processes and returns the result on each. Every process calls
                it at the same step, with its sum of signs and their count, (2,). With accelerate:
                ``functools.partial(accelerator.reduce, reduction="sum")``.
        """
        self._steps += 1
        if self._steps % self.interval:
            return
        signs, count = (self._sums if reduce is None else reduce(self._sums)).unbind()
        self.r_t.copy_(signs / count)
        self._sums.zero_()
        # Without observations r_t is NaN, and p stays.
        direction = (self.r_t - self.target).sign().nan_to_num()
        self.p.add_(direction, alpha=self.p_step).clamp_(0, self.p_max)

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies, on the CPU, of all that `load_state_dict` needs to resume bit for bit."""
        state = {"p": self.p, "r_t": self.r_t, "sums": self._sums, "steps": torch.tensor(self._steps)}
        return {name: value.detach().cpu().clone() for name, value in state.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over a state of `state_dict`; the settings (target, p_max, ...) stay this controller's."""
        for name, own in (("p", self.p), ("r_t", self.r_t), ("sums", self._sums)):
            own.copy_(state[name])
        self._steps = int(state["steps"])
