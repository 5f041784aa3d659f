"""What is measured and how."""

from __future__ import annotations

from dataclasses import dataclass

from .networks import DEFAULT_METRICS, METRICS, Metric


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured and how; all of it goes into the results.

    Attributes:
        metrics: What to measure. ic_lpips is not among the defaults: it needs VGG16's 528 MB and many minutes on a
            CPU.
        num_images: Generated images for KID, FID, Inception Score, precision and recall, and masks.
        num_lpips_images: Generated images for the LPIPS metrics: the first of the same ones.
        seed: Image i is drawn with seed + i; also the seed of subsets and bootstrap draws.
        batch_size: Images drawn at once, and passed through a network at once.
        kid_num_subsets: Subsets of the paper's KID.
        kid_max_subset_size: Largest subset.
        num_bootstrap: Bootstrap draws for KID's intervals.
        inception_splits: Parts of the Inception Score.
        neighbourhood: k of precision and recall.
        ic_lpips_max_cluster_size: Members of a cluster that IC-LPIPS compares.
        copy_threshold: LPIPS to the nearest real image below which a generated one counts as a copy. Default: half of
            the real images' median distance to their nearest neighbour.
        max_memory_gib: Limit for LPIPS embeddings in memory, for each process.
    """

    metrics: tuple[Metric, ...] = DEFAULT_METRICS
    num_images: int = 5000
    num_lpips_images: int = 1000
    seed: int = 0
    batch_size: int = 16
    kid_num_subsets: int = 100
    kid_max_subset_size: int = 1000
    num_bootstrap: int = 1000
    inception_splits: int = 10
    neighbourhood: int = 3
    ic_lpips_max_cluster_size: int = 50
    copy_threshold: float | None = None
    max_memory_gib: float = 6.0

    def __post_init__(self) -> None:
        if not self.metrics or not set(self.metrics) <= set(METRICS):
            raise ValueError(f"`metrics` must be some of {', '.join(METRICS)}, but is {self.metrics}.")
        at_least_one = ("num_images", "num_lpips_images", "batch_size", "kid_num_subsets", "num_bootstrap")
        for name in (*at_least_one, "inception_splits", "neighbourhood"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, but is {getattr(self, name)}.")
