"""From features, images and masks to values, for each group of metrics that shares its inputs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from ..processes import ProcessGroup
from .clustered_lpips import clustered_lpips, ic_lpips, mean_pairwise
from .config import EvaluationConfig
from .distances import lpips_distances
from .features import Features
from .fidelity import fid, inception_score, precision_recall
from .kid import kid_subsets, kid_unbiased
from .lpips import LPIPS
from .mask_statistics import compare_masks, measure_masks, summarize_masks
from .nearest import nearest_real


@dataclass(frozen=True)
class NotMeasurable:
    """Why a metric has no value for these images."""

    reason: str


Values = dict[str, dict[str, Any] | NotMeasurable]


def measure_features(network: str, generated: Features, real: Features, config: EvaluationConfig) -> Values:
    """Measure KID, FID, Inception Score, precision and recall, as far as `config` asks for them.

    Args:
        network: name of the network, which goes into each value.
        generated, real: its features.
        config: which metrics, and how.

    Returns:
        By metric. `kid` holds both estimates; its `kid` is the one from all images.
    """
    x, y = generated.features, real.features
    values: Values = {}
    if "kid" in config.metrics:
        values["kid"] = _too_few("KID", x, y) or {"features": network, **_kid(x, y, config)}
    if "fid" in config.metrics:
        values["fid"] = _too_few("FID", x, y) or {"features": network, "fid": fid(x, y)}
    if "precision_recall" in config.metrics:
        values["precision_recall"] = _too_few("Precision and recall", x, y) or {
            "features": network,
            **asdict(precision_recall(x, y, config.neighbourhood)),
        }
    if "inception_score" in config.metrics:
        if generated.logits is None:
            values["inception_score"] = NotMeasurable(f"{network} has no classes")
        elif len(x) < config.inception_splits:
            values["inception_score"] = NotMeasurable(f"{len(x)} images for {config.inception_splits} splits")
        else:
            score = inception_score(generated.logits, config.inception_splits)
            values["inception_score"] = {"features": network, **asdict(score)}
    return values


def measure_lpips(
    generated: Tensor, real: Tensor, lpips: LPIPS, config: EvaluationConfig, processes: ProcessGroup, progress: bool
) -> tuple[Values, Tensor]:
    """Measure clustered and pairwise LPIPS, and nearest real images, as far as `config` asks for them.

    Args:
        generated: uint8 (N, 3, H, W).
        real: uint8 (M, 3 or 1, H, W).
        lpips: the network.
        config: which metrics, and how.
        processes: share of the work.
        progress: whether to draw a progress bar.

    Returns:
        By metric, and the table (N, M) of distances to the real images.
    """
    options: dict[str, Any] = {
        "max_memory_gib": config.max_memory_gib,
        "batch_size": config.batch_size,
        "processes": processes,
        "progress": progress,
    }
    n = len(generated)
    # One table of everything embeds every image once.
    table = lpips_distances(lpips, torch.cat([generated, real.expand(-1, 3, -1, -1)]), **options)
    among_generated, to_real, among_real = table[:n, :n], table[:n, n:], table[n:, n:]
    values: Values = {}
    if "clustered_lpips" in config.metrics:
        clusters = clustered_lpips(to_real, among_generated)
        values["clustered_lpips"] = {
            "network": lpips.network.name,
            **asdict(clusters),
            "pairwise_lpips": mean_pairwise(among_generated) if n > 1 else None,
            "pairwise_lpips_real": mean_pairwise(among_real) if len(among_real) > 1 else None,
        }
    if "nearest" in config.metrics:
        nearest = nearest_real(to_real, among_real, config.copy_threshold)
        values["nearest"] = {"network": lpips.network.name, **asdict(nearest)}
    return values, to_real


def measure_ic_lpips(
    generated: Tensor, real: Tensor, lpips: LPIPS, config: EvaluationConfig, processes: ProcessGroup, progress: bool
) -> Values:
    """Measure IC-LPIPS; arguments as in `measure_lpips`."""
    options: dict[str, Any] = {
        "max_memory_gib": config.max_memory_gib,
        "batch_size": config.batch_size,
        "processes": processes,
        "progress": progress,
        "description": "IC-LPIPS",
    }
    result = ic_lpips(
        lpips_distances(lpips, generated, real, **options),
        lambda members: lpips_distances(lpips, generated[members], **options),
        max_cluster_size=config.ic_lpips_max_cluster_size,
        seed=config.seed,
    )
    return {"ic_lpips": {"network": lpips.network.name, **asdict(result)}}


def measure_mask_statistics(measurements: Tensor | None, count: int, real_masks: Tensor | None) -> Values:
    """Summarize the first `count` generated masks, beside those of the real ones if there are any.

    Args:
        measurements: what `measure_masks` took of the generated masks; None if there are none.
        count: masks to use.
        real_masks: uint8 (M, 1, H, W), or None.
    """
    if measurements is None:
        return {"masks": NotMeasurable("the generated images come without masks")}
    generated = measurements[:count]
    value: dict[str, Any] = {"generated": asdict(summarize_masks(generated))}
    if real_masks is not None:
        real = measure_masks(real_masks)
        value |= {"real": asdict(summarize_masks(real)), "comparison": asdict(compare_masks(generated, real))}
    return {"masks": value}


def _kid(x: Tensor, y: Tensor, config: EvaluationConfig) -> dict[str, Any]:
    unbiased = kid_unbiased(x, y, num_bootstrap=config.num_bootstrap, seed=config.seed)
    subsets = kid_subsets(
        x,
        y,
        num_subsets=config.kid_num_subsets,
        max_subset_size=config.kid_max_subset_size,
        seed=config.seed,
    )
    return {"kid": unbiased.kid, "unbiased": asdict(unbiased), "subsets": asdict(subsets)}


def _too_few(what: str, x: Tensor, y: Tensor) -> NotMeasurable | None:
    if min(len(x), len(y)) >= 2:
        return None
    return NotMeasurable(
        f"{what} needs 2 images of each kind, but there are {len(x)} generated and {len(y)} real ones"
    )
