"""A discriminator that also judges patches: heads on the features inside it (CDC, Ojha et al., CVPR 2021)."""

from __future__ import annotations

from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from .discriminator import DiscriminatorBlock, StyleGAN2Discriminator
from .layers import EqualizedConv2d
from .sizes import channels_at, default_channel_base


def available_taps(resolution: int) -> list[tuple[int, str]]:
    """Where heads can be put: block and convolution, from the largest feature map on.

    At 256x256: conv1 of the block at 64 (features 32x32), both convolutions of the one at 32 (32x32 and 16x16), and
    conv0 of the one at 16 (16x16). At other resolutions the same shares of the image, as far as there are blocks.
    """
    taps = [
        (resolution // 4, "conv1"),
        (resolution // 8, "conv0"),
        (resolution // 8, "conv1"),
        (resolution // 16, "conv0"),
    ]
    return [(block, conv) for block, conv in taps if block >= 8]


class PatchHeadDiscriminator(StyleGAN2Discriminator):
    """StyleGAN2's discriminator with heads that judge patches on the features of its inner layers.

    Args:
        num_taps: how many layers have a head, the first of `available_taps`.
        linear_heads: heads give logits as they are; by default through a bias and the leaky ReLU, as published.
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
        linear_heads: bool = False,
    ) -> None:
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
            mbstd_group_size=mbstd_group_size,
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
            self.patch_heads.append(EqualizedConv2d(channels, 1, 3, activation=not linear_heads))

    @classmethod
    def from_discriminator(
        cls, discriminator: StyleGAN2Discriminator, num_taps: int = 1, linear_heads: bool = False
    ) -> PatchHeadDiscriminator:
        """New heads on a copy of a trained discriminator."""
        config = {name: value for name, value in discriminator.config.items() if not name.startswith("_")}
        model = cls(**config, num_taps=num_taps, linear_heads=linear_heads)
        model.load_state_dict(discriminator.state_dict() | _heads(model))
        return model

    def judge_patches(self, images: Tensor, tap: int) -> Tensor:
        """Logits of the image's patches.

        Args:
            images: (N, image_channels, R, R) in [-1, 1].
            tap: which head, from 0 to `num_taps` - 1.

        Returns:
            (N, 1, r, r), high for real, r being the size of the tapped features.
        """
        x = images
        dtype = self.head.out.weight.dtype
        until, conv = self.taps[tap]
        for r, block in self.blocks.items():
            assert isinstance(block, DiscriminatorBlock)
            low = self.low_precision_dtype is not None and int(r) in self.low_precision_resolutions
            x = x.to(self.low_precision_dtype if low else dtype)
            if int(r) == until:
                x = block.conv0(x)
                return self.patch_heads[tap]((block.conv1(x) if conv == "conv1" else x).to(dtype))
            x = block(x)
        raise AssertionError("every tap is in a block")


def _heads(model: nn.Module) -> dict[str, Tensor]:
    return {name: value for name, value in model.state_dict().items() if name.startswith("patch_heads.")}
