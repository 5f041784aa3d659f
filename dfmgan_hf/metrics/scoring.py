"""A small score to watch while training: KID on AlexNet features, clustered LPIPS, copies and masks."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ..data.training_set import ImageMaskDataset
from ..processes import ProcessGroup
from .evaluate import EvaluationConfig, evaluate
from .networks import Metric, Networks, NetworksConfig, load_networks
from .sampler import Generated, PipelineSampler, Real, Sampler

if TYPE_CHECKING:
    from accelerate import Accelerator

    from ..training.checkpointing import ScoreConfig, Scorer
    from ..training.task import Task


# --- A small score to watch while training: KID on AlexNet features, clustered LPIPS, copies and masks.

QUICK_METRICS: tuple[Metric, ...] = ("kid", "clustered_lpips", "nearest", "masks")


@dataclass(frozen=True)
class QuickScore:
    """What `quick_score` measured. None: not measurable, as KID with a single real image or masks without any.

    Args:
        kid: KID from all images (not times 1000), on the features that `kid_features` names.
        kid_interval: its 95 % bootstrap interval.
        kid_features: name of the network.
        clustered_lpips: clusters of fewer than two members counted as 0.
        clustered_lpips_nonempty: clusters of two and more members only.
        num_empty_clusters: real images that no generated one is nearest to.
        pairwise_lpips: mean over all pairs of generated images.
        copy_rate: share of generated images that are much nearer to a real one than those are to each other.
        nearest_ratio: median distance to the nearest real image / the same among the real images.
        mask_area, mask_empty_rate, mask_large_rate: of the generated masks; large ones cover over half of the image.
        real_mask_area: mean covered share of the real masks.
        num_images, num_real: images measured.
    """

    kid: float | None
    kid_interval: tuple[float, float] | None
    kid_features: str
    clustered_lpips: float
    clustered_lpips_nonempty: float | None
    num_empty_clusters: int
    pairwise_lpips: float | None
    copy_rate: float | None
    nearest_ratio: float | None
    mask_area: float | None
    mask_empty_rate: float | None
    mask_large_rate: float | None
    real_mask_area: float | None
    num_images: int
    num_real: int

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain types, for trackers and JSON."""
        return asdict(self)


def load_quick_networks(lpips_weights: Path | None = None, device: torch.device | str = "cpu") -> Networks:
    """Load AlexNet as LPIPS and as features, once and given to each `quick_score`.

    Raises:
        MissingWeightsError, BadWeightsError, ImportError: see `load_lpips`.
    """
    return load_networks(QUICK_METRICS, NetworksConfig("alexnet", lpips_weights=lpips_weights), device=device)


def quick_score(
    samples: Generated,
    real: Real,
    *,
    networks: Networks | None = None,
    num_images: int = 500,
    seed: int = 0,
    batch_size: int = 16,
    processes: ProcessGroup | None = None,
    progress: bool = True,
) -> QuickScore:
    """Score a sampler with few images, for comparing the checkpoints of one run.

    Args:
        samples, real: see `evaluate`.
        networks: from `load_quick_networks`, or with another extractor; None loads them.
        num_images: generated images; image i is drawn with seed + i, the same for every checkpoint.
        seed: base seed.
        batch_size: images drawn at once.
        processes: of an accelerate launch; then every process must call it.
        progress: whether to draw a progress bar.

    Raises:
        ValueError: on images of differing sizes, or none.
    """
    config = EvaluationConfig(
        metrics=QUICK_METRICS,
        num_images=num_images,
        num_lpips_images=num_images,
        seed=seed,
        batch_size=batch_size,
        # The subset estimate is not reported.
        kid_num_subsets=1,
    )
    networks = networks or load_quick_networks()
    result = evaluate(samples, real, networks, config, processes=processes, progress=progress)
    kid = result.metrics.get("kid", {}).get("unbiased", {})
    lpips, nearest = result.metrics["clustered_lpips"], result.metrics["nearest"]
    nonempty = lpips["clustered_lpips_nonempty"]
    masks = result.metrics.get("masks", {})
    return QuickScore(
        kid=kid.get("kid"),
        kid_interval=kid.get("interval"),
        kid_features=result.networks["extractor"]["name"],
        clustered_lpips=lpips["clustered_lpips"],
        clustered_lpips_nonempty=None if math.isnan(nonempty) else nonempty,
        num_empty_clusters=lpips["num_empty"],
        pairwise_lpips=lpips["pairwise_lpips"],
        copy_rate=nearest["copy_rate"],
        nearest_ratio=nearest["ratio"],
        mask_area=masks.get("generated", {}).get("area_mean"),
        mask_empty_rate=masks.get("generated", {}).get("empty_rate"),
        mask_large_rate=masks.get("generated", {}).get("large_rate"),
        real_mask_area=masks.get("real", {}).get("area_mean"),
        num_images=result.settings["num_generated"],
        num_real=result.settings["num_real"],
    )


# --- Scores while training: the quick score of the averaged generator.


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

    Raises:
        MissingWeightsError, BadWeightsError, ImportError: see `load_quick_networks`.
    """
    if config.eval_every_kimg <= 0:
        return None
    networks = load_quick_networks(config.lpips_weights, device=accelerator.device)
    processes = ProcessGroup(accelerator)

    def make_scorer(task: Task) -> Scorer:
        sampler = make_sampler(task)
        return lambda: quick_score(
            sampler,
            real,
            networks=networks,
            num_images=config.eval_images,
            processes=processes,
            progress=accelerator.is_main_process,
        ).to_dict()

    return make_scorer
