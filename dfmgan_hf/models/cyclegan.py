"""The networks of CycleGAN (Zhu et al. 2017, appendix 7.2), which our SDGAN trains: ResNet generator, PatchGAN."""

from __future__ import annotations

from dataclasses import dataclass

from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from .base import SafetensorsModel, check_image_shape


@dataclass
class TranslationOutput(BaseOutput):
    """Output of `CycleGANGenerator`: `images` in the other domain, (N, image_channels, R, R) in [-1, 1]."""

    images: Tensor


@dataclass
class PatchDiscriminatorOutput(BaseOutput):
    """Output of `PatchDiscriminator`: `logits`, one for each patch, (N, 1, h, w), unbounded, high for real."""

    logits: Tensor


def init_normal(network: nn.Module) -> None:
    """Draw the weights of all convolutions from N(0, 0.02^2) and set biases to 0 (CycleGAN, appendix 7.1)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class ResidualBlock(nn.Module):
    """x + two reflection-padded 3x3 convolutions with instance norm."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        # The norm takes the mean away, and any bias with it; so throughout.
        self.layers = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, padding_mode="reflect", bias=False),
            nn.InstanceNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class CycleGANGenerator(SafetensorsModel):
    """Image-to-image generator: c7s1-64, d128, d256, residual blocks, u128, u64, c7s1-C, in CycleGAN's notation.

    Args:
        resolution: height and width of the images, a multiple of 4.
        image_channels: 1 (grey) or 3 (RGB).
        base_channels: channels at full resolution, 64 as published; twice and four times as many below.
        residual_blocks: 9 as published for 256x256, 6 for 128x128 and below.

    Raises:
        ValueError: `image_channels` is neither 1 nor 3, or `resolution` no multiple of 4.
    """

    @register_to_config
    def __init__(
        self, resolution: int = 256, image_channels: int = 3, base_channels: int = 64, residual_blocks: int = 9
    ) -> None:
        super().__init__()
        if resolution % 4:
            raise ValueError(f"`resolution` must be a multiple of 4, but is {resolution}.")
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {image_channels}.")
        full, half, quarter = base_channels, 2 * base_channels, 4 * base_channels
        self.layers = nn.Sequential(
            nn.Conv2d(image_channels, full, 7, padding=3, padding_mode="reflect", bias=False),
            *(nn.InstanceNorm2d(full), nn.ReLU()),
            *self._resample(nn.Conv2d(full, half, 3, stride=2, padding=1, bias=False)),
            *self._resample(nn.Conv2d(half, quarter, 3, stride=2, padding=1, bias=False)),
            *(ResidualBlock(quarter) for _ in range(residual_blocks)),
            *self._resample(nn.ConvTranspose2d(quarter, half, 3, 2, padding=1, output_padding=1, bias=False)),
            *self._resample(nn.ConvTranspose2d(half, full, 3, 2, padding=1, output_padding=1, bias=False)),
            nn.Conv2d(full, image_channels, 7, padding=3, padding_mode="reflect"),
            nn.Tanh(),
        )
        init_normal(self)

    @staticmethod
    def _resample(conv: nn.Conv2d | nn.ConvTranspose2d) -> tuple[nn.Module, ...]:
        return conv, nn.InstanceNorm2d(conv.out_channels), nn.ReLU()

    def forward(self, images: Tensor, return_dict: bool = True) -> TranslationOutput | tuple[Tensor]:
        """Translate images (N, image_channels, resolution, resolution) in [-1, 1]; ValueError for other shapes."""
        check_image_shape(images, self.config)
        translated = self.layers(images)
        return TranslationOutput(images=translated) if return_dict else (translated,)


class PatchDiscriminator(SafetensorsModel):
    """PatchGAN: each of its logits judges one patch of the image, 70x70 pixels large, by three layers of stride 2.

    Args:
        image_channels: 1 (grey) or 3 (RGB).
        base_channels: channels of the first layer, 64 as published; they double three times.
    """

    @register_to_config
    def __init__(self, image_channels: int = 3, base_channels: int = 64) -> None:
        super().__init__()
        widths = [base_channels * 2**i for i in range(4)]
        layers: list[nn.Module] = [nn.Conv2d(image_channels, widths[0], 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        for i in range(1, 4):
            layers += [
                nn.Conv2d(widths[i - 1], widths[i], 4, stride=2 if i < 3 else 1, padding=1, bias=False),
                nn.InstanceNorm2d(widths[i]),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(widths[-1], 1, 4, padding=1))
        self.layers = nn.Sequential(*layers)
        init_normal(self)

    def forward(self, images: Tensor, return_dict: bool = True) -> PatchDiscriminatorOutput | tuple[Tensor]:
        """Judge every patch of images (N, image_channels, H, W) in [-1, 1]: 30x30 of them at 256x256."""
        logits = self.layers(images)
        return PatchDiscriminatorOutput(logits=logits) if return_dict else (logits,)
