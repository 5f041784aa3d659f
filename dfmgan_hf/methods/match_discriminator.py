"""The matching discriminator D_match, which judges whether image and mask belong together (DFMGAN, section 3.2)."""

from __future__ import annotations

import torch

from ..models import StyleGAN2Discriminator
from ..models.sizes import default_channel_base

MATCH_SIZES: dict[str, int] = {"small": 4, "medium": 2, "large": 1}
"""How many times fewer channels the matching discriminator has than the discriminator. At 256x256 these are the
paper's three sizes of 1.5 (published), 6.0 and 24 million parameters."""


def build_match_discriminator(discriminator: StyleGAN2Discriminator, size: str) -> StyleGAN2Discriminator:
    """A new matching discriminator, which sees one channel more than `discriminator`: the mask.

    Args:
        discriminator: stage 1's.
        size: a name of `MATCH_SIZES`.
    """
    config, divisor = discriminator.config, MATCH_SIZES[size]
    channel_base = config["channel_base"] or default_channel_base(config["resolution"])
    return StyleGAN2Discriminator(
        resolution=config["resolution"],
        image_channels=config["image_channels"] + 1,
        channel_base=max(channel_base // divisor, config["resolution"]),
        channel_max=max(config["channel_max"] // divisor, 1),
        conv_clamp=config["conv_clamp"],
        mbstd_group_size=config["mbstd_group_size"],
    )


@torch.no_grad()
def build_joint_discriminator(discriminator: StyleGAN2Discriminator) -> StyleGAN2Discriminator:
    """One discriminator for image and match, instead of two: stage 1's, which sees the mask as one more channel.

    It starts as stage 1's, whatever the mask: the new channel's weights are 0.

    Args:
        discriminator: stage 1's; it stays as it is.
    """
    channels = discriminator.config["image_channels"]
    joint = StyleGAN2Discriminator(**{**discriminator.config, "image_channels": channels + 1})
    state = dict(discriminator.state_dict())
    (name,) = (name for name in state if name.endswith("from_rgb.weight"))
    # Weights are scaled by 1 / sqrt(channels) in the forward pass.
    weight = torch.zeros_like(joint.state_dict()[name])
    weight[:, :channels] = state[name] * ((channels + 1) / channels) ** 0.5
    joint.load_state_dict({**state, name: weight})
    return joint
