"""A small score to watch while training: KID on AlexNet features, clustered LPIPS, copies and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..data.training_set import ImageMaskDataset
from ..processes import ProcessGroup
from .evaluate import EvaluationConfig, Metric, Networks, evaluate, load_networks
from .sampler import Generated, PipelineSampler, Real, Sampler

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..training.checkpointing import ScoreConfig, Scorer
    from ..training.task import Task

QUICK_METRICS: tuple[Metric, ...] = ("kid", "clustered_lpips", "nearest", "masks")


def quick_score(
    samples: Generated,
    real: Real,
    networks: Networks,
    *,
    num_images: int = 500,
    processes: ProcessGroup | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Score a sampler with few images, for comparing the checkpoints of one run.

    Args:
        samples, real: see `evaluate`.
        networks: an extractor and LPIPS; while training, both are AlexNet.
        num_images: generated images; image i is drawn with seed i, the same for every checkpoint.
        processes: of an accelerate launch; then every process must call it.
        progress: whether to draw a progress bar.

    Returns:
        Plain values, None where not measurable, as KID with a single real image or masks without any:

        - kid, from all images (not times 1000), its 95 % kid_interval, and the name of kid_features;
        - clustered_lpips, clustered_lpips_nonempty, num_empty_clusters, pairwise_lpips: see `clustered_lpips`;
        - copy_rate and nearest_ratio: see `nearest_real`;
        - mask_area, mask_empty_rate, mask_large_rate of the generated masks, and real_mask_area;
        - num_images and num_real.

    Raises:
        ValueError: on images of differing sizes, or none.
    """
    # The subset estimate is not reported.
    config = EvaluationConfig(
        metrics=QUICK_METRICS, num_images=num_images, num_lpips_images=num_images, kid_num_subsets=1
    )
    result = evaluate(samples, real, networks, config, processes=processes, progress=progress)
    kid = result.metrics.get("kid", {}).get("unbiased", {})
    lpips, nearest = result.metrics["clustered_lpips"], result.metrics["nearest"]
    nonempty = lpips["clustered_lpips_nonempty"]
    masks = result.metrics.get("masks", {})
    generated = masks.get("generated", {})
    return {
        "kid": kid.get("kid"),
        "kid_interval": kid.get("interval"),
        "kid_features": result.networks["extractor"]["name"],
        "clustered_lpips": lpips["clustered_lpips"],
        "clustered_lpips_nonempty": None if math.isnan(nonempty) else nonempty,
        "num_empty_clusters": lpips["num_empty"],
        "pairwise_lpips": lpips["pairwise_lpips"],
        "copy_rate": nearest["copy_rate"],
        "nearest_ratio": nearest["ratio"],
        "mask_area": generated.get("area_mean"),
        "mask_empty_rate": generated.get("empty_rate"),
        "mask_large_rate": generated.get("large_rate"),
        "real_mask_area": masks.get("real", {}).get("area_mean"),
        "num_images": result.settings["num_generated"],
        "num_real": result.settings["num_real"],
    }


def sample_generator(task: Task) -> Sampler:
    """Draw from the averaged generator of a task."""
    from ..pipeline import DFMGANPipeline

    return PipelineSampler(DFMGANPipeline(generator=task.generator_ema))


def prepare_scorer(
    config: ScoreConfig,
    real: ImageMaskDataset,
    accelerator: Accelerator,
    make_sampler: Callable[[Task], Sampler] = sample_generator,
) -> Callable[[Task], Scorer] | None:
    """Load the measuring networks, so that missing weights are an error before training starts and not hours later.

    Args:
        config: when and what to score.
        real: the training photographs.
        accelerator: of the run; all its processes share the measuring.
        make_sampler: draws from a task; the default does for generators that a `DFMGANPipeline` holds.

    Returns:
        What makes a scorer for a task, or None if no scores are wanted.
    """
    if config.eval_every_kimg <= 0:
        return None
    alexnet = EvaluationConfig(QUICK_METRICS, kid_features="alexnet", lpips_weights=config.lpips_weights)
    networks = load_networks(alexnet, device=accelerator.device)
    processes = ProcessGroup(accelerator)

    def make_scorer(task: Task) -> Scorer:
        sampler = make_sampler(task)
        return lambda: quick_score(
            sampler,
            real,
            networks,
            num_images=config.eval_images,
            processes=processes,
            progress=accelerator.is_main_process,
        )

    return make_scorer
