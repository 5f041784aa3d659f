"""The measuring networks of an evaluation, loaded once."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import torch

from .features import FeatureExtractor, alexnet_extractor, inception_extractor
from .lpips import LPIPS, load_lpips

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
