"""The defect-aware residual block, its mask and the gate (DFMGAN, section 3.2, equation 1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .modulated import StyledConv2d
from .noise import NoiseInput


class DefectResidualBlock(nn.Module):
    """Residual features at one resolution, modulated by the defect latent.

    The same two convolutions as a synthesis block; the input is the manipulated feature map of the resolution below.

    Args:
        in_channels: channels of the resolution below.
        out_channels: channels of this resolution.
        w_dim: width of the defect latent w.
        resolution: height and width of this block.
        conv_clamp: clamp of the activations.
    """

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, conv_clamp: float | None
    ) -> None:
        super().__init__()
        self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, resolution, up=True, conv_clamp=conv_clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)

    def forward(self, x: Tensor, defect_ws: Tensor, noise: NoiseInput) -> Tensor:
        """(N, in_channels, r/2, r/2), (N, >= 2, w_dim) -> residual (N, out_channels, r, r)."""
        return self.conv1(self.conv0(x, defect_ws[:, 0], noise), defect_ws[:, 1], noise)


def gate(features: Tensor, residual: Tensor, mask_logits: Tensor, mask_threshold: float = 0.0) -> Tensor:
    """Add the residual where the mask is on: F + [M >= threshold] * residual.

    The comparison has no gradient: the image teaches the mask nothing, the matching discriminator and the mode-seeking
    loss do.

    Args:
        features: (N, C, r, r).
        residual: (N, C, r, r).
        mask_logits: (N, 1, r, r).
        mask_threshold: 0 as published. Whoever thresholds the mask elsewhere must move the gate along, or the mask is
            no longer where the defect is.
    """
    return torch.addcmul(features, residual, (mask_logits >= mask_threshold).to(residual.dtype))


def soft_mask(mask_logits: Tensor, sharpness: float = 10.0) -> Tensor:
    """What the matching discriminator and the mode-seeking loss see of a generated mask: tanh(10 M), in [-1, 1]."""
    return torch.tanh(sharpness * mask_logits)
