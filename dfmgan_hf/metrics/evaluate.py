"""Measures generated images against real ones: all metrics from one pass over the samples."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sized
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..processes import ProcessGroup
from .collecting import Collected, collect, extract
from .config import FEATURE_METRICS, LPIPS_METRICS, VGG_METRICS, EvaluationConfig
from .inputs import Generated, Real, as_pair
from .measuring import NotMeasurable, measure_features, measure_ic_lpips, measure_lpips, measure_mask_statistics
from .networks import Networks
from .sampler import Sampler, to_uint8


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
    lpips_sampler: Sampler | None = None,
    processes: ProcessGroup | None = None,
    progress: bool = True,
) -> Evaluation:
    """Measures a sampler against real images. Every process of a launch calls it and gets the same result.

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
        lpips_sampler: another sampler for the LPIPS metrics, since the official script draws for them in another way.
        processes: of an accelerate launch.
        progress: whether to draw progress bars.

    Raises:
        ValueError: if there are no real images, sizes differ, or a metric lacks its network.
        DataError: if a folder has no images, or one cannot be read or would have to be enlarged.
    """
    config = config or EvaluationConfig()
    processes = processes or ProcessGroup()
    networks.check(config)
    sampler, real = as_pair(sampler, real, resolution, config.seed)
    if len(real) == 0:
        raise ValueError("`real` holds no images to measure against.")
    clock = _Clock()

    height, width = real.images.shape[2:]
    draw = partial(
        collect,
        size=(height, width),
        seed=config.seed,
        batch_size=config.batch_size,
        processes=processes,
        progress=progress,
    )
    by_features, by_lpips = config.wants(FEATURE_METRICS), config.wants((*LPIPS_METRICS, *VGG_METRICS))
    extractor = networks.extractor if by_features else None
    num_images = _available(sampler, config.num_images) if by_features or "masks" in config.metrics else 0
    num_lpips = _available(lpips_sampler or sampler, config.num_lpips_images) if by_lpips else 0
    drawn: Collected | None
    kept: Collected | None
    if lpips_sampler is None:
        drawn = kept = draw(sampler, max(num_images, num_lpips), num_kept=num_lpips, extractor=extractor)
    else:
        drawn = draw(sampler, num_images, num_kept=0, extractor=extractor) if num_images else None
        kept = draw(lpips_sampler, num_lpips, num_kept=num_lpips) if num_lpips else None
    clock.lap("drawing")

    evaluation = Evaluation(
        settings={
            "evaluation": asdict(config),
            "num_generated": num_images,
            "num_generated_lpips": num_lpips,
            "unique_share": next(some.unique_share for some in (drawn, kept) if some is not None),
            "sampler": _describe(sampler),
            "lpips_sampler": _describe(lpips_sampler or sampler),
            "resolution": [height, width],
            "num_real": len(real),
            "real_file_names": list(real.file_names),
            "real_sha256": hashlib.sha256(real.images.contiguous().numpy().tobytes()).hexdigest(),
        },
        networks=networks.describe(),
        seconds=clock.laps,
    )
    measured: dict[str, dict[str, Any] | NotMeasurable] = {}
    if drawn is not None and drawn.features is not None and extractor is not None:
        real_features = extract(real.images, extractor, batch_size=config.batch_size, processes=processes)
        measured |= measure_features(extractor.network.name, drawn.features.first(num_images), real_features, config)
        clock.lap("feature metrics")
    if kept is not None and networks.lpips is not None and config.wants(LPIPS_METRICS):
        values, to_real = measure_lpips(kept.images, real.images, networks.lpips, config, processes, progress)
        measured |= values
        nearest = to_real.min(dim=1)
        shown = kept.images if kept.images.dtype == torch.uint8 else to_uint8(kept.images / 2 + 0.5)
        evaluation.nearest = Nearest(shown, kept.masks, nearest.indices, nearest.values)
        clock.lap("LPIPS metrics")
    if kept is not None and networks.lpips_vgg is not None and config.wants(VGG_METRICS):
        measured |= measure_ic_lpips(kept.images, real.images, networks.lpips_vgg, config, processes, progress)
        clock.lap("IC-LPIPS")
    if drawn is not None and "masks" in config.metrics:
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


def _describe(sampler: Sampler) -> dict[str, Any]:
    return {"type": type(sampler).__name__, **getattr(sampler, "settings", {})}
