"""The networks of Defect-GAN (Zhang et al. 2021, section 3), as far as the paper's description goes.

What the paper leaves open (widths, number of blocks, order within a block) follows StarGAN (Choi et al. 2018), on
which it builds, and SPADE (Park et al. 2019): a reconstruction, not the authors' network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor, nn

from .base import RandomSource, SafetensorsModel, check_image_shape


@dataclass
class DefectGANGeneratorOutput(BaseOutput):
    """Output of `DefectGANGenerator`.

    Args:
        images: the input with the foreground laid over it, (N, image_channels, R, R) in [-1, 1].
        foreground: (N, image_channels, R, R) in [-1, 1].
        distribution: where the foreground lies, (N, 1, R, R) in [0, 1].
    """

    images: Tensor
    foreground: Tensor
    distribution: Tensor


@dataclass
class DefectGANDiscriminatorOutput(BaseOutput):
    """Output of `DefectGANDiscriminator`.

    Args:
        scores: realness of each patch, (N, 1, h, w), unbounded.
        class_logits: (N, num_classes).
    """

    scores: Tensor
    class_logits: Tensor


def control_map(labels: Tensor, num_classes: int) -> Tensor:
    """Labels as a control map that is the same at every position: (N,) -> one-hot (N, num_classes, 1, 1)."""
    return F.one_hot(labels, num_classes).to(torch.float32)[:, :, None, None]


class AdaptiveNoise(nn.Module):
    """Adds one standard normal value per pixel, times a strength that each channel learns from 0."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.strength = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor, generator: RandomSource) -> Tensor:
        noise = randn_tensor((len(x), 1, *x.shape[2:]), generator=generator, device=x.device, dtype=x.dtype)
        return x + self.strength * noise


class SPADE(nn.Module):
    """Spatially adaptive normalisation (Park et al. 2019, equation 1): IN(x) (1 + gamma(A)) + beta(A)."""

    def __init__(self, channels: int, num_classes: int, hidden_channels: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.hidden = nn.Sequential(nn.Conv2d(num_classes, hidden_channels, 3, padding=1), nn.ReLU())
        self.gamma = nn.Conv2d(hidden_channels, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden_channels, channels, 3, padding=1)

    def forward(self, x: Tensor, control: Tensor) -> Tensor:
        hidden = self.hidden(F.interpolate(control, size=x.shape[2:], mode="nearest"))
        return self.norm(x) * (1 + self.gamma(hidden)) + self.beta(hidden)


class NoisyLayer(nn.Module):
    """Convolution, adaptive noise, and instance norm or, with `num_classes`, SPADE."""

    def __init__(
        self, conv: nn.Conv2d, *, num_classes: int | None = None, spade_channels: int = 0, upsample: bool = False
    ) -> None:
        super().__init__()
        channels = conv.out_channels
        self.upsample = upsample
        self.conv = conv
        self.noise = AdaptiveNoise(channels)
        self.norm: nn.Module = (
            nn.InstanceNorm2d(channels) if num_classes is None else SPADE(channels, num_classes, spade_channels)
        )

    def forward(self, x: Tensor, control: Tensor, generator: RandomSource) -> Tensor:
        if self.upsample:
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
        x = self.noise(self.conv(x), generator)
        return self.norm(x, control) if isinstance(self.norm, SPADE) else self.norm(x)


class NoisyResidualBlock(nn.Module):
    """x + two noisy layers with a ReLU between them."""

    def __init__(self, channels: int, *, num_classes: int | None = None, spade_channels: int = 0) -> None:
        super().__init__()
        self.first, self.second = (
            NoisyLayer(_conv3x3(channels, channels), num_classes=num_classes, spade_channels=spade_channels)
            for _ in range(2)
        )

    def forward(self, x: Tensor, control: Tensor, generator: RandomSource) -> Tensor:
        return x + self.second(F.relu(self.first(x, control, generator)), control, generator)


def _conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    # The norm that follows takes the mean away, and any bias with it; so throughout.
    return nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)


class DefectGANGenerator(SafetensorsModel):
    """One image-to-image network for defacement (normal to defect) and restoration (defect to normal).

    A reconstruction from the paper's description. Encoder (stride 4) and residual trunk normalise by instance norm,
    the decoder by SPADE under the control map; every convolution is followed by noise of learnt strength.

    Args:
        resolution: height and width of the images, a multiple of 4.
        image_channels: 1 (grey) or 3 (RGB).
        num_classes: classes of the control map; class 0 is normal.
        base_channels: channels at full resolution; twice and four times as many below.
        encoder_blocks: residual blocks of the trunk.
        decoder_blocks: residual blocks with SPADE.
        spade_channels: hidden channels of each SPADE.
        defect_names: names of the classes from 1 on; None for a model of one kind of defect, which needs no name.

    Raises:
        ValueError: `image_channels` is neither 1 nor 3, `resolution` no multiple of 4, there are fewer than 2
            classes, or not as many names as defects.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        num_classes: int = 2,
        base_channels: int = 64,
        encoder_blocks: int = 3,
        decoder_blocks: int = 3,
        spade_channels: int = 128,
        defect_names: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {image_channels}.")
        if resolution % 4:
            raise ValueError(f"`resolution` must be a multiple of 4, but is {resolution}.")
        if num_classes < 2:
            raise ValueError(f"`num_classes` must be at least 2 (normal and a defect), but is {num_classes}.")
        if defect_names is not None and len(defect_names) != num_classes - 1:
            raise ValueError(
                f"`defect_names` must be {num_classes - 1} names, one for each class but normal, but are "
                f"{', '.join(defect_names)}."
            )
        full, half, quarter = base_channels, 2 * base_channels, 4 * base_channels
        spade = {"num_classes": num_classes, "spade_channels": spade_channels}
        self.down = nn.ModuleList(
            [
                NoisyLayer(nn.Conv2d(image_channels, full, 7, padding=3, bias=False)),
                NoisyLayer(nn.Conv2d(full, half, 4, stride=2, padding=1, bias=False)),
                NoisyLayer(nn.Conv2d(half, quarter, 4, stride=2, padding=1, bias=False)),
            ]
        )
        self.blocks = nn.ModuleList(
            [NoisyResidualBlock(quarter) for _ in range(encoder_blocks)]
            + [NoisyResidualBlock(quarter, **spade) for _ in range(decoder_blocks)]
        )
        self.up = nn.ModuleList(
            NoisyLayer(_conv3x3(a, b), **spade, upsample=True) for a, b in ((quarter, half), (half, full))
        )
        self.to_foreground = nn.Conv2d(full, image_channels, 7, padding=3)
        self.to_distribution = nn.Conv2d(full, 1, 7, padding=3)

    def forward(
        self, images: Tensor, control: Tensor, generator: RandomSource = None, return_dict: bool = True
    ) -> DefectGANGeneratorOutput | tuple[Tensor, ...]:
        """Lay a foreground over images that turns them into another class.

        Args:
            images: (N, image_channels, resolution, resolution) in [-1, 1].
            control: which class each position should have, (N, num_classes, h, w); scaled to each layer's size by its
                nearest value. `control_map` makes one from labels; one that varies over positions draws local defects.
            generator: source of the noise: None, one generator, or N of them, in which case a sample depends on its
                own generator alone.

        Raises:
            ValueError: a shape is not as above.
        """
        check_image_shape(images, self.config)
        classes = self.config["num_classes"]
        if control.shape[:2] != (len(images), classes):
            raise ValueError(f"`control` must be ({len(images)}, {classes}, h, w), but is {tuple(control.shape)}.")
        x, control = images, control.to(images.dtype)
        for layer in self.down:
            x = F.relu(layer(x, control, generator))
        for block in self.blocks:
            x = block(x, control, generator)
        for layer in self.up:
            x = F.relu(layer(x, control, generator))
        # In the images' type under autocast too.
        foreground = self.to_foreground(x).to(images.dtype).tanh()
        distribution = self.to_distribution(x).to(images.dtype).sigmoid()
        # Layer-wise composition (section 3.2).
        composed = torch.lerp(images, foreground, distribution)
        output = DefectGANGeneratorOutput(images=composed, foreground=foreground, distribution=distribution)
        return output if return_dict else output.to_tuple()


class DefectGANDiscriminator(SafetensorsModel):
    """StarGAN's discriminator: a critic of patches and a classifier on one trunk of 4x4 convolutions of stride 2.

    There are as many as leave a 4x4 map: 6 at 256x256.

    Args:
        resolution: height and width of the images, at least 8.
        image_channels: 1 (grey) or 3 (RGB).
        num_classes: classes; class 0 is normal.
        base_channels: channels of the first layer; they double with every layer.

    Raises:
        ValueError: the images are too small.
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        num_classes: int = 2,
        base_channels: int = 64,
    ) -> None:
        super().__init__()
        if resolution < 8:
            raise ValueError(f"`resolution` must be at least 8, but is {resolution}.")
        num_layers = resolution.bit_length() - 3
        widths = [image_channels, *(base_channels * 2**i for i in range(num_layers))]
        layers: list[nn.Module] = []
        for in_channels, out_channels in pairwise(widths):
            layers += [nn.Conv2d(in_channels, out_channels, 4, stride=2, padding=1), nn.LeakyReLU(0.01)]
        self.layers = nn.Sequential(*layers)
        self.to_scores = nn.Conv2d(widths[-1], 1, 3, padding=1, bias=False)
        self.to_classes = nn.Conv2d(widths[-1], num_classes, resolution >> num_layers, bias=False)

    def forward(self, images: Tensor, return_dict: bool = True) -> DefectGANDiscriminatorOutput | tuple[Tensor, ...]:
        """Judge images (N, image_channels, resolution, resolution) in [-1, 1]; ValueError for other shapes."""
        check_image_shape(images, self.config)
        x = self.layers(images)
        output = DefectGANDiscriminatorOutput(scores=self.to_scores(x), class_logits=self.to_classes(x).flatten(1))
        return output if return_dict else output.to_tuple()
