"""The StyleGAN2 backbone's synthesis network with skip connections (StyleGAN2, section 4.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .modulated import StyledConv2d, ToChannels
from .noise import NoiseInput
from .resampling import upsample2d
from .sizes import block_resolutions, channels_at


class SynthesisBlock(nn.Module):
    """One resolution of the backbone: an upsampling and a plain styled convolution, and ToRGB.

    At 4x4 the input is a learned constant and there is one convolution only.

    Args:
        in_channels: channels of the block below; ignored at 4x4.
        out_channels: channels of this block.
        w_dim: width of w.
        resolution: height and width of this block.
        image_channels: channels of the image, 1 or 3.
        conv_clamp: clamp of the activations.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        image_channels: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.resolution = resolution
        if resolution == 4:
            self.const = nn.Parameter(torch.randn(out_channels, 4, 4))
        else:
            self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, resolution, up=True, conv_clamp=conv_clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, resolution, conv_clamp=conv_clamp)
        self.to_rgb = ToChannels(out_channels, image_channels, w_dim, conv_clamp=conv_clamp)

    @property
    def num_convs(self) -> int:
        return 1 if self.resolution == 4 else 2

    def features(self, x: Tensor | None, ws: Tensor, noise: NoiseInput, dtype: torch.dtype) -> Tensor:
        """The block's features before ToRGB.

        Args:
            x: features of the block below, or None at 4x4.
            ws: (N, >= num_convs, w_dim).
            noise: the pass's noise.
            dtype: type that the convolutions run in.

        Returns:
            (N, out_channels, resolution, resolution) in `dtype`.
        """
        if x is None:
            x = self.const.to(dtype).unsqueeze(0).expand(ws.shape[0], -1, -1, -1)
        else:
            x = self.conv0(x.to(dtype), ws[:, 0], noise)
        return self.conv1(x, ws[:, self.num_convs - 1], noise)


class SynthesisNetwork(nn.Module):
    """All synthesis blocks; the image is the sum of the blocks' ToRGB outputs, FIR-upsampled step by step.

    The block at resolution r reads the latents from `first_latent(r)` on: one for each convolution, and one for ToRGB
    which it shares with the next block's first convolution. There are 2 log2(R) - 2 latents in all.
    """

    def __init__(
        self,
        resolution: int,
        image_channels: int,
        w_dim: int,
        channel_base: int,
        channel_max: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.resolutions = block_resolutions(resolution)
        self.num_latents = 2 * len(self.resolutions)
        self.blocks = nn.ModuleDict()
        in_channels = 0
        for r in self.resolutions:
            out_channels = channels_at(r, channel_base, channel_max)
            self.blocks[str(r)] = SynthesisBlock(in_channels, out_channels, w_dim, r, image_channels, conv_clamp)
            in_channels = out_channels

    @staticmethod
    def first_latent(resolution: int) -> int:
        """Index of the first latent that the block at `resolution` reads."""
        return 0 if resolution == 4 else 2 * resolution.bit_length() - 7

    def block_features(
        self, resolution: int, x: Tensor | None, ws: Tensor, noise: NoiseInput, dtype: torch.dtype
    ) -> Tensor:
        """Features of one block; see `SynthesisBlock.features`. `ws` are all latents (N, num_latents, w_dim)."""
        block: SynthesisBlock = self.blocks[str(resolution)]  # type: ignore[assignment]
        return block.features(x, ws[:, self.first_latent(resolution) :], noise, dtype)

    def rgb(self, resolution: int, x: Tensor, ws: Tensor) -> Tensor:
        """What the block at `resolution` adds to the image: ToRGB of its features `x`."""
        block: SynthesisBlock = self.blocks[str(resolution)]  # type: ignore[assignment]
        return block.to_rgb(x, ws[:, self.first_latent(resolution) + block.num_convs])

    def add_rgb(self, resolution: int, image: Tensor | None, x: Tensor, ws: Tensor) -> Tensor:
        """The image at `resolution`: the upsampled image of the block below plus ToRGB of the features `x`."""
        rgb = self.rgb(resolution, x, ws)
        return rgb if image is None else upsample2d(image) + rgb
