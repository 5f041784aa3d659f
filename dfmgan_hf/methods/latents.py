"""Drawing latents for training: standard normal z, style mixing, and the moving average of w."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..models.mapping import MappingNetwork


@dataclass(frozen=True)
class LatentDraw:
    """Random numbers that per-layer latents follow from.

    Args:
        z: of all layers, or of those below `cut`, (N, z_dim).
        mixed_z: of the layers from `cut` on (style mixing), or None.
        cut: first layer that takes `mixed_z`.
    """

    z: Tensor
    mixed_z: Tensor | None = None
    cut: int = 0

    def layers(self, mapping: MappingNetwork, num_latents: int) -> Tensor:
        """Per-layer latents (N, num_latents, w_dim)."""
        ws = mapping(self.z).unsqueeze(1).expand(-1, num_latents, -1)
        if self.mixed_z is None:
            return ws
        other = mapping(self.mixed_z).unsqueeze(1).expand(-1, num_latents - self.cut, -1)
        return torch.cat([ws[:, : self.cut], other], dim=1)


def draw_latents(mapping: MappingNetwork, n: int, num_latents: int, mixing_probability: float) -> LatentDraw:
    """New standard normal z, with style mixing (StyleGAN, section 3.1).

    With `mixing_probability`, the layers from one random cut on take the latent of another z.
    """
    device = mapping.w_avg.device
    z = torch.randn(n, mapping.z_dim, device=device)
    # Decided on the CPU, so that the accelerator is not waited for.
    if num_latents < 2 or torch.rand(()).item() >= mixing_probability:
        return LatentDraw(z)
    cut = int(torch.randint(1, num_latents, ()).item())
    return LatentDraw(z, torch.randn(n, mapping.z_dim, device=device), cut)


def sample_latents(mapping: MappingNetwork, n: int, num_latents: int, mixing_probability: float) -> Tensor:
    """Per-layer latents (n, num_latents, w_dim) of `n` new samples, with style mixing."""
    return draw_latents(mapping, n, num_latents, mixing_probability).layers(mapping, num_latents)


class LatentAverage:
    """Gathers w over the micro-batches of a step, then moves a mapping network's w_avg.

    Args:
        mapping: whose average it is.
        mean_over_processes: averages a tensor over all processes.
    """

    def __init__(self, mapping: MappingNetwork, mean_over_processes: Callable[[Tensor], Tensor]) -> None:
        self.mapping = mapping
        self.mean_over_processes = mean_over_processes
        self._gathered: list[Tensor] = []

    def observe(self, w: Tensor) -> None:
        """Take in (n, w_dim)."""
        self._gathered.append(w.detach().mean(dim=0))

    def update(self) -> None:
        """Move w_avg by the step's mean and start anew."""
        mean = self.mean_over_processes(torch.stack(self._gathered).mean(dim=0))
        self.mapping.update_w_avg(mean.unsqueeze(0))
        self._gathered.clear()


class PathLengthAverage:
    """Keep the running mean of path lengths (StyleGAN2, appendix B).

    Penalties of a step use the mean before it, so that they do not depend on how the step is split over processes and
    micro-batches. The official code first moves the mean by the lengths of the same micro-batch, 1 % of the way, and
    lets the gradient go through it: its penalty and this phase's gradient are 1 to 2 % smaller, and nothing else
    differs.

    Args:
        device: where the mean lives.
        mean_over_processes: averages a tensor over all processes.
        decay: part of the way to the step's mean that the running mean goes.
    """

    def __init__(self, device: torch.device, mean_over_processes: Callable[[Tensor], Tensor], decay: float) -> None:
        self.mean = torch.zeros((), device=device)
        self.mean_over_processes = mean_over_processes
        self.decay = decay
        self._gathered: list[Tensor] = []

    def penalty(self, lengths: Tensor) -> Tensor:
        """(length - mean)^2, averaged over (N,)."""
        self._gathered.append(lengths.detach().mean())
        return (lengths - self.mean).square().mean()

    def update(self) -> None:
        """Move the mean by the step's lengths."""
        lengths = self.mean_over_processes(torch.stack(self._gathered).mean())
        self.mean = self.mean.lerp(lengths, self.decay)
        self._gathered.clear()
