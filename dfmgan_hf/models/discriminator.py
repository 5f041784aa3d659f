"""The residual discriminator (StyleGAN2, section 4.1), and the one of CDC that also judges patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from .base import (
    StyleGAN2Model,
    block_resolutions,
    channels_at,
    check_image_shape,
    check_network_size,
    default_channel_base,
    sides,
)
from .layers import EqualizedConv2d, EqualizedLinear, scaled_together, with_downsampled


@dataclass
class StyleGAN2DiscriminatorOutput(BaseOutput):
    """Output of `StyleGAN2Discriminator`: `logits`, (N, 1), unbounded, high for real."""

    logits: Tensor


class DiscriminatorBlock(nn.Module):
    """(skip(x) + conv1(conv0(x))) / sqrt(2), at half the size; the factor is a gain on each branch."""

    def __init__(
        self, image_channels: int | None, in_channels: int, out_channels: int, conv_clamp: float | None
    ) -> None:
        super().__init__()
        if image_channels is not None:
            self.from_rgb = EqualizedConv2d(image_channels, in_channels, 1, activation=True, clamp=conv_clamp)
        self.conv0 = EqualizedConv2d(in_channels, in_channels, 3, activation=True, clamp=conv_clamp)
        gain = math.sqrt(0.5)
        self.conv1 = EqualizedConv2d(
            in_channels, out_channels, 3, down=True, activation=True, gain=gain, clamp=conv_clamp
        )
        self.skip = EqualizedConv2d(in_channels, out_channels, 1, bias=False, gain=gain)

    def forward(self, x: Tensor) -> Tensor:
        if hasattr(self, "from_rgb"):  # at the full resolution
            x = self.from_rgb(x)
        x, low = with_downsampled(x)
        return self.skip(low) + self.conv1(self.conv0(x))


class DiscriminatorHead(nn.Module):
    """Minibatch standard deviation, a convolution and two linear layers on a map of `size`, 4x4 of square images."""

    def __init__(self, channels: int, size: tuple[int, int], mbstd_group_size: int, conv_clamp: float | None) -> None:
        super().__init__()
        self.mbstd_group_size = mbstd_group_size
        self.conv = EqualizedConv2d(channels + 1, channels, 3, activation=True, clamp=conv_clamp)
        self.fc = EqualizedLinear(channels * math.prod(size), channels, activation=True)
        self.out = EqualizedLinear(channels, 1)

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(N, C, *size), and the codes (N, C) of what it is to be, if any -> (N, 1)."""
        x = torch.cat([x, minibatch_stddev(x, self.mbstd_group_size)], dim=1)
        x = self.fc(self.conv(x).flatten(1))
        return self.out(x) if code is None else self.out(x) + projection(x, code)


class KindCodes(nn.Module):
    """What discriminators learn of each kind of image, to ask whether an image is real as one of its kind.

    The logit is psi(x) + c <code, features of x> (T. Miyato, M. Koyama: "cGANs with Projection Discriminator", ICLR
    2018, equation 3, over the root of the features' number), codes being zero at first. `conditioning` c goes from 0
    to 1 in training: kinds with few images collapse if they are told apart from the start (M. Shahbazi et al.:
    "Collapse by Conditioning", ICLR 2022).

    Args:
        num_kinds: how many there are.
        width: features.
    """

    conditioning: Tensor

    def __init__(self, num_kinds: int, width: int) -> None:
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(num_kinds, width))
        self.register_buffer("conditioning", torch.ones(()))

    def forward(self, kinds: Tensor | None) -> Tensor:
        """int64 (N,) -> (N, width)."""
        if kinds is None:
            raise ValueError(f"`kinds` must be given: numbers from 0 to {len(self.codes) - 1}, one for each image.")
        return self.conditioning * self.codes[kinds]


def projection(features: Tensor, code: Tensor) -> Tensor:
    """Return <code, features> over the root of their number: (N, C, ...) and (N, C) -> (N, 1, ...)."""
    code = code.to(features.dtype).reshape(*code.shape, *[1] * (features.ndim - 2))
    return (features * code).sum(dim=1, keepdim=True) * features.shape[1] ** -0.5


def minibatch_stddev(x: Tensor, group_size: int) -> Tensor:
    """Mean over the features of sqrt(variance in a group of samples + 1e-8) (Progressive GAN, section 3).

    Sample i belongs to group i mod (N / G). G is the largest divisor of N that is not above `group_size`.

    Args:
        x: (N, C, H, W).

    Returns:
        (N, 1, H, W), constant over each sample.
    """
    n, _, height, width = x.shape
    group = next(g for g in range(min(group_size, n), 0, -1) if n % g == 0)
    y = x.reshape(group, n // group, -1).var(dim=0, correction=0)
    y = (y + 1e-8).sqrt().mean(dim=1)
    return y.repeat(group).reshape(n, 1, 1, 1).expand(-1, -1, height, width)


class StyleGAN2Discriminator(StyleGAN2Model):
    """The discriminator of StyleGAN2, and DFMGAN's matching discriminator when the mask is a fourth channel.

    Args:
        resolution: shorter side of the images, a power of two from 32 to 1024.
        image_channels: channels that it reads: 1 or 3 for images, one more with a mask (concatenated last).
        channel_base: channels at resolution r are min(channel_base // r, channel_max). None: 16384 below 512x512,
            32768 from there on. The matching discriminator of DFMGAN has 4096.
        channel_max: upper limit, 512; 128 in the matching discriminator.
        conv_clamp: clamp of the activations; None for none.
        mbstd_group_size: samples per group of the minibatch standard deviation.
        num_kinds: kinds of images that it judges as such, see `KindCodes`; 0 for one.
        aspect: height and width as multiples of the shorter side, as in `StyleGAN2Generator`.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        channel_base: int | None = None,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
        mbstd_group_size: int = 4,
        num_kinds: int = 0,
        aspect: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        channel_base = channel_base or default_channel_base(resolution)
        check_network_size(resolution, channel_base, aspect)
        if not 1 <= image_channels <= 4:
            raise ValueError(f"`image_channels` must be from 1 to 4, but is {image_channels}.")
        self.blocks = nn.ModuleDict()
        for r in reversed(block_resolutions(resolution)[1:]):
            self.blocks[str(r)] = DiscriminatorBlock(
                image_channels if r == resolution else None,
                channels_at(r, channel_base, channel_max),
                channels_at(r // 2, channel_base, channel_max),
                conv_clamp,
            )
        width = channels_at(4, channel_base, channel_max)
        self.head = DiscriminatorHead(width, sides(4, aspect), mbstd_group_size, conv_clamp)
        self.kinds = KindCodes(num_kinds, width) if num_kinds else None

    def block(self, resolution: int) -> DiscriminatorBlock:
        """Return the block that halves a resolution."""
        return self.blocks[str(resolution)]  # type: ignore[return-value]

    def forward(
        self, images: Tensor, return_dict: bool = True, kinds: Tensor | None = None
    ) -> StyleGAN2DiscriminatorOutput | tuple[Tensor]:
        """Judge images (N, image_channels, H, W) in [-1, 1], the last channel a mask if any.

        Args:
            images: see above.
            return_dict: False returns the tuple (logits,).
            kinds: int64 (N,), what kind of image each is to be; not looked at where the network knows one.

        Returns:
            Logits (N, 1), high for real, in the type of the parameters.

        Raises:
            ValueError: another shape, or no kinds.
        """
        check_image_shape(images, self.config)
        # The layout in which convolutions are fastest; all layers keep to it.
        x = images.contiguous(memory_format=torch.channels_last)
        blocks = [(block, self.compute_dtype(int(r))) for r, block in self.blocks.items()]
        dtype = self.head.out.weight.dtype
        layers = [(layer, dtype) for block, dtype in [*blocks, (self.head, dtype)] for layer in block.children()]
        with scaled_together(layers):
            for block, block_dtype in blocks:
                x = block(x.to(block_dtype))
            x = self.head(x.to(dtype), None if self.kinds is None else self.kinds(kinds))
        return StyleGAN2DiscriminatorOutput(logits=x) if return_dict else (x,)


def available_taps(resolution: int) -> list[tuple[int, str]]:
    """Return where patches can be judged: block and convolution, from the largest feature map on.

    At 256x256: conv1 of the block at 64 (features 32x32), both convolutions of the one at 32 (32x32 and 16x16), and
    conv0 of the one at 16 (16x16). At other resolutions the same shares of the image, as far as there are blocks.
    """
    places = [(4, "conv1"), (8, "conv0"), (8, "conv1"), (16, "conv0")]
    return [(resolution // share, conv) for share, conv in places if resolution // share >= 8]


class PatchHeadDiscriminator(StyleGAN2Discriminator):
    """StyleGAN2's discriminator with heads on its inner layers that judge patches (CDC, Ojha et al., CVPR 2021).

    Args:
        num_taps: how many layers have a head, the first of `available_taps`. Heads end in a leaky ReLU, as published.
        (others): as in `StyleGAN2Discriminator`.

    Raises:
        ValueError: more taps than there are at this resolution.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        channel_base: int | None = None,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
        mbstd_group_size: int = 4,
        num_taps: int = 1,
        aspect: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
            mbstd_group_size=mbstd_group_size,
            aspect=aspect,
        )
        taps = available_taps(resolution)
        if not 1 <= num_taps <= len(taps):
            raise ValueError(
                f"`num_taps` must be from 1 to {len(taps)} at {resolution}x{resolution}, but is {num_taps}."
            )
        self.taps = taps[:num_taps]
        self.patch_heads = nn.ModuleList()
        for block, conv in self.taps:
            at = block if conv == "conv0" else block // 2
            channels = channels_at(at, channel_base or default_channel_base(resolution), channel_max)
            self.patch_heads.append(EqualizedConv2d(channels, 1, 3, activation=True))

    @classmethod
    def from_discriminator(cls, discriminator: StyleGAN2Discriminator, num_taps: int = 1) -> PatchHeadDiscriminator:
        """Put new heads on a copy of a trained discriminator."""
        config = {k: v for k, v in discriminator.config.items() if not k.startswith("_") and k != "num_kinds"}
        model = cls(**config, num_taps=num_taps)
        model.load_state_dict(model.state_dict() | discriminator.state_dict())
        return model

    def judge_patches(self, images: Tensor, tap: int) -> Tensor:
        """Judge the patches of images (N, image_channels, H, W) in [-1, 1] by head `tap`, 0 to `num_taps` - 1.

        Returns:
            Logits (N, 1, h, w), high for real, (h, w) being the size of the tapped features.
        """
        x = images
        until, conv = self.taps[tap]
        for r in block_resolutions(self.config["resolution"])[::-1]:
            x = x.to(self.compute_dtype(r))
            if r == until:
                break
            x = self.block(r)(x)
        x = self.block(until).conv0(x)
        if conv == "conv1":
            x = self.block(until).conv1(x)
        return self.patch_heads[tap](x.to(self.head.out.weight.dtype))
