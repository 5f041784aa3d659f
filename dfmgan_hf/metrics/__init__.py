"""Metrics for a handful of real images: they see samples, never networks.

What libraries do well is theirs: torch-fidelity provides Inception-v3 (2015-12-05), FID, Inception Score, precision
and recall; torchvision the networks under LPIPS, the `lpips` package its published channel weights. What no library
has is here: KID from all images with an interval, clustered LPIPS from features computed once, measures of masks and
copies. torchmetrics is not used: its metrics keep features to themselves, so that each would run the network again,
its KID knows only subsets, and its LPIPS takes pairs.
"""

from ..processes import ProcessGroup
from .diversity import (
    ICLPIPS,
    ClusteredLPIPS,
    NearestReal,
    clustered_lpips,
    ic_lpips,
    lpips_distances,
    mean_pairwise,
    nearest_real,
)
from .evaluate import Evaluation, EvaluationConfig, evaluate, format_table, save_evaluation, to_dict
from .kid import (
    InceptionScore,
    KIDSubsets,
    KIDUnbiased,
    PrecisionRecall,
    fid,
    inception_score,
    kid_subsets,
    kid_unbiased,
    precision_recall,
)
from .masks import MaskComparison, MaskStatistics, compare_masks, measure_masks, summarize_masks
from .nearest_sheet import nearest_sheet
from .networks import (
    DEFAULT_METRICS,
    LPIPS,
    BadWeightsError,
    FeatureExtractor,
    Features,
    Metric,
    MissingWeightsError,
    NetworkId,
    Networks,
    NetworksConfig,
    alexnet_extractor,
    inception_extractor,
    load_lpips,
    load_networks,
)
from .sampler import (
    FolderSampler,
    Generated,
    PipelineSampler,
    Real,
    Sampler,
    TensorSampler,
    as_pair,
    as_real,
    as_sampler,
    draw,
)
from .scoring import QuickScore, load_quick_networks, quick_score

__all__ = [
    "DEFAULT_METRICS",
    "ICLPIPS",
    "LPIPS",
    "BadWeightsError",
    "ClusteredLPIPS",
    "Evaluation",
    "EvaluationConfig",
    "FeatureExtractor",
    "Features",
    "FolderSampler",
    "Generated",
    "InceptionScore",
    "KIDSubsets",
    "KIDUnbiased",
    "MaskComparison",
    "MaskStatistics",
    "Metric",
    "MissingWeightsError",
    "NearestReal",
    "NetworkId",
    "Networks",
    "NetworksConfig",
    "PipelineSampler",
    "PrecisionRecall",
    "ProcessGroup",
    "QuickScore",
    "Real",
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
    "load_quick_networks",
    "lpips_distances",
    "mean_pairwise",
    "measure_masks",
    "nearest_real",
    "nearest_sheet",
    "precision_recall",
    "quick_score",
    "save_evaluation",
    "summarize_masks",
    "to_dict",
]
