"""Measure generated images against real ones: all metrics from one pass over the samples."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sized
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor

from ..processes import ProcessGroup
from .collecting import collect, extract
from .config import EvaluationConfig
from .inputs import Generated, Real, as_pair
from .measuring import (
    NotMeasurable,
    Values,
    measure_features,
    measure_ic_lpips,
    measure_lpips,
    measure_mask_statistics,
)
from .networks import FEATURE_METRICS, LPIPS_METRICS, VGG_METRICS, Networks
from .sampler import Sampler


@dataclass(frozen=True)
class Nearest:
    """Generated images and their nearest real ones, for pictures.

    Args:
        images: generated, uint8 (K, 3, H, W).
        masks: uint8 (K, 1, H, W), or None.
        indices: number of the nearest real image, (K,).
        distances: its LPIPS distance, (K,).
    """

    images: Tensor
    masks: Tensor | None
    indices: Tensor
    distances: Tensor


@dataclass
class Evaluation:
    """What was measured.

    Args:
        metrics: values by metric, as plain types.
        not_measured: why, for each metric that was asked for and could not be measured.
        settings: configuration, counts, samplers and real images.
        networks: name and hashes of each network.
        seconds: wall time by step.
        nearest: None if neither clustered LPIPS nor nearest were measured.
    """

    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    networks: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    nearest: Nearest | None = None


def evaluate(
    sampler: Generated,
    real: Real,
    networks: Networks,
    config: EvaluationConfig | None = None,
    *,
    resolution: int | None = None,
    processes: ProcessGroup | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measure a sampler against real images. Every process of a launch calls it and gets the same result.

    A metric that these images cannot have (KID with one real image, mask statistics of a sampler without masks) is
    named in `not_measured` with the reason.

    Args:
        sampler: draws the generated images; one with a length gives no more than that. Or a folder of them, or a
            uint8 tensor (N, 3 or 1, H, W).
        real: the real images, of the same size, with their masks if they have any: a set that is loaded, a folder, a
            uint8 tensor, or rows of a Hugging Face data set; see `as_real`.
        networks: from `load_networks`, or any others.
        config: what to measure; None for the defaults.
        resolution: side of the square to which files are scaled down. None: the size of the side that is not read from
            files, or 256.
        processes: of an accelerate launch.
        progress: whether to draw progress bars.

    Raises:
        ValueError: if there are no real images, sizes differ, or a metric lacks its network.
        DataError: if a folder has no images, or one cannot be read or would have to be enlarged.
    """
    config = config or EvaluationConfig()
    processes = processes or ProcessGroup()
    networks.check(config.metrics)
    sampler, real = as_pair(sampler, real, resolution, config.seed)
    if len(real) == 0:
        raise ValueError("`real` holds no images to measure against.")
    clock = _Clock()

    height, width = real.images.shape[2:]
    wanted = set(config.metrics)
    extractor = networks.extractor if wanted & set(FEATURE_METRICS) else None
    lpips = networks.lpips if wanted & set(LPIPS_METRICS) else None
    lpips_vgg = networks.lpips_vgg if wanted & set(VGG_METRICS) else None
    num_images = _available(sampler, config.num_images) if extractor or "masks" in wanted else 0
    num_lpips = _available(sampler, config.num_lpips_images) if lpips or lpips_vgg else 0
    drawn = collect(
        sampler,
        max(num_images, num_lpips),
        num_kept=num_lpips,
        size=(height, width),
        seed=config.seed,
        batch_size=config.batch_size,
        extractor=extractor,
        processes=processes,
        progress=progress,
    )
    clock.lap("drawing")

    evaluation = Evaluation(
        settings={
            "evaluation": asdict(config),
            "num_generated": num_images,
            "num_generated_lpips": num_lpips,
            "unique_share": drawn.unique_share,
            "sampler": {"type": type(sampler).__name__, **getattr(sampler, "settings", {})},
            "resolution": [height, width],
            "num_real": len(real),
            "real_file_names": list(real.file_names),
            "real_sha256": hashlib.sha256(real.images.contiguous().numpy().tobytes()).hexdigest(),
        },
        networks=networks.describe(),
        seconds=clock.laps,
    )
    measured: Values = {}
    if extractor is not None and drawn.features is not None:
        real_features = extract(real.images, extractor, batch_size=config.batch_size, processes=processes)
        measured |= measure_features(extractor.network.name, drawn.features.first(num_images), real_features, config)
        clock.lap("feature metrics")
    if lpips is not None:
        values, to_real = measure_lpips(drawn.images, real.images, lpips, config, processes, progress)
        measured |= values
        nearest = to_real.min(dim=1)
        evaluation.nearest = Nearest(drawn.images, drawn.masks, nearest.indices, nearest.values)
        clock.lap("LPIPS metrics")
    if lpips_vgg is not None:
        measured |= measure_ic_lpips(drawn.images, real.images, lpips_vgg, config, processes, progress)
        clock.lap("IC-LPIPS")
    if "masks" in wanted:
        measured |= measure_mask_statistics(drawn.mask_measurements, num_images, real.masks)
        clock.lap("mask statistics")
    for name, value in measured.items():
        if isinstance(value, NotMeasurable):
            evaluation.not_measured[name] = value.reason
        else:
            evaluation.metrics[name] = value
    return evaluation


class _Clock:
    """Wall time of the steps since the last one, in seconds."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self.start = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(now - self.start, 3)
        self.start = now


def _available(sampler: Sampler, wanted: int) -> int:
    """Images that a sampler can give, at most `wanted`."""
    return min(wanted, len(sampler)) if isinstance(sampler, Sized) else wanted
