"""One feature vector per image, for KID, FID, Inception Score, precision and recall.

The network of published numbers is Inception-v3 in the weights of 2015-12-05, which torch-fidelity provides with the
original's resizing. torchmetrics wraps the same network but resizes with antialiasing by default, and its metrics keep
image features inside themselves, where the estimators of this package could not share them.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dfmgan_hf.files import module_sha256

from .lpips import FeatureMaps, load_feature_maps
from .precision import full_precision
from .weights import (
    ALEXNET,
    INCEPTION,
    BadWeightsError,
    NetworkId,
    WeightFile,
    find_weights,
    read_weights,
    require,
    warn_if_not_published,
)


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
