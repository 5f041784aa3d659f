"""Metrics for a handful of real images: they see samples, never networks.

What libraries do well is theirs: torch-fidelity provides Inception-v3 (2015-12-05), FID, Inception Score, precision
and recall; torchvision the networks under LPIPS, the `lpips` package its published channel weights. What no library
has is here: KID from all images with an interval, clustered LPIPS from features computed once, measures of masks and
copies. torchmetrics is not used: its metrics keep features to themselves, so that each would run the network again,
its KID knows only subsets, and its LPIPS takes pairs.
"""

from ..processes import ProcessGroup
from .diversity import clustered_lpips, ic_lpips, lpips_distances, mean_pairwise, nearest_real
from .evaluate import (
    DEFAULT_METRICS,
    Evaluation,
    EvaluationConfig,
    Networks,
    evaluate,
    format_table,
    load_networks,
    save_evaluation,
    to_dict,
)
from .kid import fid, inception_score, kid_subsets, kid_unbiased, precision_recall
from .masks import compare_masks, measure_masks, summarize_masks
from .networks import (
    BadWeightsError,
    FeatureExtractor,
    MissingWeightsError,
    alexnet_extractor,
    inception_extractor,
    load_lpips,
)
from .sampler import FolderSampler, PipelineSampler, Sampler, TensorSampler, as_pair, as_real, as_sampler, draw
from .scoring import quick_score

__all__ = [
    "DEFAULT_METRICS",
    "BadWeightsError",
    "Evaluation",
    "EvaluationConfig",
    "FeatureExtractor",
    "FolderSampler",
    "MissingWeightsError",
    "Networks",
    "PipelineSampler",
    "ProcessGroup",
    "Sampler",
    "TensorSampler",
    "alexnet_extractor",
    "as_pair",
    "as_real",
    "as_sampler",
    "clustered_lpips",
    "compare_masks",
    "draw",
    "evaluate",
    "fid",
    "format_table",
    "ic_lpips",
    "inception_extractor",
    "inception_score",
    "kid_subsets",
    "kid_unbiased",
    "load_lpips",
    "load_networks",
    "lpips_distances",
    "mean_pairwise",
    "measure_masks",
    "nearest_real",
    "precision_recall",
    "quick_score",
    "save_evaluation",
    "summarize_masks",
    "to_dict",
]
