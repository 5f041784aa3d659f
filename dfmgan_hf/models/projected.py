"""A discriminator on the frozen features of an image classifier ("Projected GAN").

A. Sauer, K. Chitta, J. Mueller, A. Geiger: "Projected GANs converge faster", NeurIPS 2021. Images pass through a
network that was trained to classify ImageNet and stays as it is; fixed, random convolutions mix its maps across
channels and scales; small heads, the only part that learns, judge patches of the mixed maps.

Otherwise than there: EfficientNet-Lite0 up to a sixteenth of its input; all heads end on the same grid of patches, and
each sees the minibatch standard deviation, against one image for every latent; and one more head looks at the pixels.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from .base import SafetensorsModel, check_aspect, sides
from .discriminator import KindCodes, minibatch_stddev, projection
from .layers import LEAKY_SLOPE

FEATURE_NETWORK = "tf_efficientnet_lite0"
"""The timm model that judges: 0.5 million parameters, Apache-2.0."""

WEIGHTS_VARIABLE = "DFMGAN_FEATURE_WEIGHTS"
"""Environment variable with the path of a file of weights, where timm's download is not possible."""

SMALLEST_INPUT = 64
"""Images whose shorter side is smaller are enlarged to it."""

WIDTH = 64
"""Channels of the mixed maps and of the heads."""


class FeatureWeightsError(OSError):
    """The classifier's weights could not be had; the message says where to get them."""


class FrozenFeatures(nn.Module):
    """Maps of a timm classifier at a half, a quarter, ..., a sixteenth of the image's size.

    Its weights are buffers here: no optimiser, average or gradient reaches them. Batch normalisation always uses the
    statistics of ImageNet.

    Args:
        name: of the timm model.

    Attributes:
        channels: of each map.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        if not name.isidentifier():  # timm would ask the Hub for "hf-hub:...", or read another folder
            raise ValueError(f"`feature_network` must be the name of a timm model, but is {name!r}.")
        timm = _timm()
        self.network = timm.create_model(name)
        info = [stage for stage in self.network.feature_info if stage["reduction"] <= 16]
        self.stages = list(range(len(info)))
        self.network.prune_intermediate_layers(self.stages, prune_norm=True, prune_head=True)
        self.channels = [stage["num_chs"] for stage in info]
        self.reductions = [stage["reduction"] for stage in info]
        for key in ("mean", "std"):
            values = torch.tensor(self.network.pretrained_cfg[key])[:, None, None]
            self.register_buffer(key, values)
        for module in self.network.modules():
            for key, parameter in list(module.named_parameters(recurse=False)):
                delattr(module, key)
                module.register_buffer(key, parameter.data)
        self.eval()

    def train(self, mode: bool = True) -> FrozenFeatures:
        """Stay as it is: batch normalisation must not learn from what it judges."""
        return super().train(False)

    def load_pretrained(self, name: str) -> None:
        """Take over ImageNet weights; errors as for `imagenet_weights`."""
        state = imagenet_weights(name, "train with --discriminator stylegan2")
        self.network.load_state_dict({key: state[key] for key in self.network.state_dict()})

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps, the largest first, of images (N, 3, H, W) in [-1, 1]."""
        x = (images - (2 * self.mean - 1)) / (2 * self.std)
        return self.network.forward_intermediates(x, indices=self.stages, stop_early=True, intermediates_only=True)


class RandomMixing(nn.Module):
    """Mix maps by convolutions that are drawn once and stay as they are, so that heads cannot look at a few channels.

    Across channels by a 1x1 convolution of each map, across scales by adding the next smaller mixed map, enlarged,
    through a 3x3 one. Each map is divided by its standard deviation on first sight, `scales`.

    Args:
        channels: of each map, the largest map first.
    """

    scales: Tensor

    def __init__(self, channels: list[int]) -> None:
        super().__init__()
        self.register_buffer("scales", torch.ones(len(channels)))
        for i, count in enumerate(channels):
            self.register_buffer(f"across_channels_{i}", _kaiming(WIDTH, count, 1))
            self.register_buffer(f"across_scales_{i}", _kaiming(WIDTH, WIDTH, 3))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return as many maps of the same sizes with `WIDTH` channels each."""
        mixed: list[Tensor] = []
        for i in reversed(range(len(maps))):
            x = F.conv2d(maps[i], getattr(self, f"across_channels_{i}")) / self.scales[i]
            if mixed:
                above = F.conv2d(mixed[0], getattr(self, f"across_scales_{i}"), padding=1)
                x = x + F.interpolate(above, size=x.shape[-2:], mode="bilinear", align_corners=False)
            mixed.insert(0, x)
        return mixed

    @torch.no_grad()
    def measure(self, maps: list[Tensor]) -> None:
        """Set `scales` by the maps of typical images."""
        for i, features in enumerate(maps):
            self.scales[i] = F.conv2d(features, getattr(self, f"across_channels_{i}")).float().std()


class PatchHead(nn.Module):
    """Judge the patches of one mixed map: convolutions of stride 2, then two of stride 1, with spectral norm.

    Args:
        halvings: how often height and width are halved.
        mbstd_group_size: samples in a group of the minibatch standard deviation.
    """

    def __init__(self, halvings: int, mbstd_group_size: int) -> None:
        super().__init__()
        self.mbstd_group_size = mbstd_group_size
        self.down = nn.ModuleList(spectral_norm(nn.Conv2d(WIDTH, WIDTH, 4, 2, 1)) for _ in range(halvings))
        self.conv = spectral_norm(nn.Conv2d(WIDTH + 1, WIDTH, 3, 1, 1))
        self.out = spectral_norm(nn.Conv2d(WIDTH, 1, 1))

    def forward(self, x: Tensor, code: Tensor | None = None) -> Tensor:
        """(N, WIDTH, H, W), and codes (N, WIDTH) if any -> (N, 1, H / 2^halvings, W / 2^halvings)."""
        for layer in self.down:
            x = F.leaky_relu(layer(x), LEAKY_SLOPE)
        x = torch.cat([x, minibatch_stddev(x, self.mbstd_group_size)], dim=1)
        x = F.leaky_relu(self.conv(x), LEAKY_SLOPE)
        return self.out(x) if code is None else self.out(x) + projection(x, code)


class TextureHead(nn.Sequential):
    """Judge windows of 18x18 pixels, 4 pixels apart: (N, 3, H, W) -> (N, 1, H / 4, W / 4).

    A patch of the other heads is a quarter of the image's side or more, seen through features of half its size. They
    hardly notice soft edges, or a regular weave of pixels where a photograph has splinters.
    """

    def __init__(self) -> None:
        super().__init__(
            spectral_norm(nn.Conv2d(3, WIDTH // 2, 4, 2, 1)),
            nn.LeakyReLU(LEAKY_SLOPE),
            spectral_norm(nn.Conv2d(WIDTH // 2, WIDTH, 4, 2, 1)),
            nn.LeakyReLU(LEAKY_SLOPE),
            spectral_norm(nn.Conv2d(WIDTH, WIDTH, 3, 1, 1)),
            nn.LeakyReLU(LEAKY_SLOPE),
            spectral_norm(nn.Conv2d(WIDTH, 1, 1)),
        )


@dataclass
class ProjectedDiscriminatorOutput(BaseOutput):
    """Output of `ProjectedDiscriminator`: `logits`, (N, heads, patches), unbounded, high for real."""

    logits: Tensor


class ProjectedDiscriminator(SafetensorsModel):
    """The discriminator on frozen features; it is trained with the hinge loss and needs no R1.

    What is saved holds the frozen weights too, so that ImageNet's are needed once, by `from_features`.

    Args:
        resolution: shorter side of the images.
        image_channels: 1 or 3; grey is repeated over RGB.
        feature_network: name of a timm model with maps at powers of two.
        mbstd_group_size: samples in a group of the minibatch standard deviation.
        num_kinds: kinds of images that it judges as such, see `KindCodes`; 0 for one.
        aspect: height and width as multiples of the shorter side, as in `StyleGAN2Generator`.

    Example:
        >>> discriminator = ProjectedDiscriminator.from_features(resolution=64)
        >>> discriminator(torch.zeros(4, 3, 64, 64)).logits.shape
        torch.Size([4, 5, 256])
    """

    low_precision_dtype: torch.dtype | None = None

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        feature_network: str = FEATURE_NETWORK,
        mbstd_group_size: int = 4,
        num_kinds: int = 0,
        aspect: Sequence[int] = (1, 1),
    ) -> None:
        super().__init__()
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {image_channels}.")
        check_aspect(aspect)
        shorter = max(resolution, SMALLEST_INPUT)
        self.input_size = sides(shorter, aspect)
        self.features = FrozenFeatures(feature_network)
        self.mixing = RandomMixing(self.features.channels)
        # All heads end on the grid of the smallest map, halved again where images are larger.
        grid = int(math.log2(self.features.reductions[-1] * shorter / SMALLEST_INPUT))
        self.heads = nn.ModuleList(
            PatchHead(grid - int(math.log2(reduction)), mbstd_group_size) for reduction in self.features.reductions
        )
        self.texture = TextureHead()
        self.kinds = KindCodes(num_kinds, WIDTH * len(self.heads)) if num_kinds else None

    @classmethod
    def from_features(
        cls,
        resolution: int = 256,
        image_channels: int = 3,
        feature_network: str = FEATURE_NETWORK,
        aspect: Sequence[int] = (1, 1),
    ) -> ProjectedDiscriminator:
        """Put new heads on ImageNet's features.

        Raises:
            FeatureWeightsError: the weights could not be had.
        """
        model = cls(
            resolution=resolution, image_channels=image_channels, feature_network=feature_network, aspect=aspect
        )
        model.features.load_pretrained(feature_network)
        return model

    def set_mixed_precision(self, dtype: torch.dtype | None) -> None:
        """Run the frozen features and their mixing in `dtype` if it is float16, otherwise in the parameters' type.

        With bfloat16's 8 bits, the gradient that reached drawn pills had a cosine of 0.62 with that in float32; with
        float16 it was 0.96, and nothing underflowed.
        """
        self.low_precision_dtype = dtype if dtype is torch.float16 else None

    @torch.no_grad()
    def measure_scales(self, images: Tensor) -> None:
        """Set the scales of the mixed maps by real images (N, image_channels, H, W) in [-1, 1]."""
        with self._frozen_precision(images):
            self.mixing.measure(self.features_of(images))

    def features_of(self, images: Tensor) -> list[Tensor]:
        """Return the frozen maps of images (N, image_channels, H, W) in [-1, 1], the largest first."""
        with self._frozen_precision(images):
            return self.features(self._as_input(images))

    def _frozen_precision(self, images: Tensor) -> AbstractContextManager[object]:
        dtype = self.low_precision_dtype
        return nullcontext() if dtype is None else torch.autocast(images.device.type, dtype=dtype)

    def forward(
        self, images: Tensor, return_dict: bool = True, kinds: Tensor | None = None
    ) -> ProjectedDiscriminatorOutput | tuple[Tensor]:
        """Judge images (N, image_channels, H, W) in [-1, 1], of these `kinds` (int64 (N,)) if it knows several.

        Returns:
            Logits (N, heads, patches), high for real; the texture head's are the last. Where a head has fewer patches,
            each counts for several.
        """
        if images.ndim != 4 or images.shape[1] != self.config["image_channels"]:
            raise ValueError(
                f"`images` must be (N, {self.config['image_channels']}, H, W), but is {tuple(images.shape)}."
            )
        with self._frozen_precision(images):
            maps = self.mixing(self.features_of(images))
        codes = [None] * len(maps) if self.kinds is None else self.kinds(kinds).chunk(len(maps), dim=1)
        judged = [
            head(features.to(images.dtype), code) for head, features, code in zip(self.heads, maps, codes, strict=True)
        ]
        texture = self.texture(self._as_input(images))
        logits = torch.cat([*(F.interpolate(each, texture.shape[-2:]) for each in judged), texture], dim=1).flatten(2)
        return ProjectedDiscriminatorOutput(logits=logits) if return_dict else (logits,)

    def _as_input(self, images: Tensor) -> Tensor:
        x = images.clamp(-1, 1).expand(-1, 3, -1, -1)  # as a file shows them
        if x.shape[-2:] != self.input_size:
            x = F.interpolate(x, size=self.input_size, mode="bilinear", align_corners=False)
        return x.contiguous(memory_format=torch.channels_last)


def _kaiming(out_channels: int, in_channels: int, kernel_size: int) -> Tensor:
    return torch.randn(out_channels, in_channels, kernel_size, kernel_size) * math.sqrt(
        2 / (in_channels * kernel_size**2)
    )


def imagenet_weights(name: str, way_out: str, **options: Any) -> dict[str, Tensor]:
    """Return a timm model's ImageNet weights: of the file that `DFMGAN_FEATURE_WEIGHTS` names, or timm's.

    Args:
        name: of the model.
        way_out: what to do without them, for the error.
        options: for `timm.create_model`.

    Raises:
        FeatureWeightsError: there are none, or the file's do not fit.
    """
    file = os.environ.get(WEIGHTS_VARIABLE)
    advice = (
        f"Download the ImageNet weights of {name} where there is a network (`hf download timm/{name}.in1k "
        f"model.safetensors`) and set {WEIGHTS_VARIABLE} to the file's path, or {way_out}."
    )
    if file and not os.path.isfile(file):
        raise FeatureWeightsError(f"{WEIGHTS_VARIABLE} names {file}, which is no file. {advice}")
    if file:
        options["pretrained_cfg_overlay"] = {"file": file}
    try:
        state: dict[str, Tensor] = _timm().create_model(name, pretrained=True, **options).state_dict()
    except Exception as error:  # timm, huggingface_hub and torch raise many types for a download or a bad file.
        reason = f"{type(error).__name__}: {str(error).strip()[:200]}"
        raise FeatureWeightsError(f"No weights from {file or 'the Hub'} ({reason}). {advice}") from error
    return state


def _timm():  # type: ignore[no-untyped-def]
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            "The discriminator on frozen features needs timm, which is not installed: pip install dfmgan-hf[train]"
        ) from error
    return timm
