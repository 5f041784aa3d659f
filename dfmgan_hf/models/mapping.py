"""Mapping network: from the latent z to the intermediate latent w (StyleGAN, section 2)."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from .layers import EqualizedLinear

MAPPING_LR_MULTIPLIER = 0.01
W_AVG_DECAY = 0.995


class MappingNetwork(nn.Module):
    """z -> w by fully connected layers, with a moving average of w for the truncation trick.

    Args:
        z_dim: width of z.
        w_dim: width of w.
        num_layers: fully connected layers, 2 by default and 8 in the large presets.
    """

    w_avg: Tensor

    def __init__(self, z_dim: int, w_dim: int, num_layers: int) -> None:
        super().__init__()
        self.z_dim = z_dim
        widths = [z_dim] + [w_dim] * num_layers
        self.layers = nn.ModuleList(
            EqualizedLinear(a, b, lr_multiplier=MAPPING_LR_MULTIPLIER, activation=True)
            for a, b in itertools.pairwise(widths)
        )
        self.register_buffer("w_avg", torch.zeros(w_dim))

    def forward(self, z: Tensor, truncation_psi: float = 1.0) -> Tensor:
        """
        Args:
            z: (N, z_dim), normally N(0, 1); brought to unit mean square first.
            truncation_psi: w_avg + psi (w - w_avg); 1 leaves w alone, smaller values trade variety for typicality.

        Returns:
            w, (N, w_dim), in float32 (float64 if the weights are).
        """
        dtype = torch.promote_types(self.w_avg.dtype, torch.float32)
        x = z.to(dtype)
        x = x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()
        for layer in self.layers:
            x = layer(x)
        if truncation_psi != 1.0:
            x = self.w_avg.to(dtype).lerp(x, truncation_psi)
        return x

    @torch.no_grad()
    def update_w_avg(self, w: Tensor) -> None:
        """Move `w_avg` towards the mean of `w` (N, w_dim) with decay 0.995."""
        self.w_avg.copy_(w.detach().mean(dim=0).to(self.w_avg.dtype).lerp(self.w_avg, W_AVG_DECAY))
