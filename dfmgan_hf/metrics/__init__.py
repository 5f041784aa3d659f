"""Metrics for a handful of real images: they see samples, never networks.

Libraries do what they do well: torch-fidelity provides Inception-v3 (2015-12-05), FID, Inception Score, precision
and recall; torchvision the networks under LPIPS, the `lpips` package its published channel weights. Here is what no
library has: KID from all images with an interval, clustered LPIPS from features computed once, measures of masks and
copies. torchmetrics is not used: its metrics keep features to themselves, so that each would run the network again,
its KID knows only subsets, and its LPIPS takes pairs.
"""

from .diversity import clustered_lpips, ic_lpips, lpips_distances, nearest_real
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
from .networks import BadWeightsError, FeatureExtractor, MissingWeightsError, inception_extractor, load_lpips
from .sampler import FolderSampler, PipelineSampler, Sampler, TensorSampler, draw
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
    "Sampler",
    "TensorSampler",
    "clustered_lpips",
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
    "nearest_real",
    "precision_recall",
    "quick_score",
    "save_evaluation",
    "to_dict",
]
