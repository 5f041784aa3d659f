"""Metrics for a handful of real images: they see samples, never networks.

What libraries do well is theirs: torch-fidelity provides Inception-v3 (2015-12-05), FID, Inception Score, precision
and recall; torchvision the networks under LPIPS, the `lpips` package its published channel weights. What no library
has is here: KID from all images with an interval, clustered LPIPS from features computed once, measures of masks and
copies. torchmetrics is not used: its metrics keep features to themselves, so that each would run the network again,
its KID knows only subsets, and its LPIPS takes pairs.
"""

from ..processes import ProcessGroup
from .clustered_lpips import ICLPIPS, ClusteredLPIPS, clustered_lpips, ic_lpips, mean_pairwise
from .config import EvaluationConfig
from .distances import lpips_distances
from .evaluate import Evaluation, evaluate
from .features import FeatureExtractor, Features, alexnet_extractor, inception_extractor
from .fidelity import InceptionScore, PrecisionRecall, fid, inception_score, precision_recall
from .inputs import Generated, Real, as_pair, as_real, as_sampler
from .kid import KIDSubsets, KIDUnbiased, kid_subsets, kid_unbiased
from .lpips import LPIPS, load_lpips
from .mask_statistics import MaskComparison, MaskStatistics, compare_masks, measure_masks, summarize_masks
from .nearest import NearestReal, nearest_real
from .nearest_sheet import nearest_sheet
from .networks import DEFAULT_METRICS, Metric, Networks, NetworksConfig, load_networks
from .quick_score import QuickScore, load_quick_networks, quick_score
from .results import format_table, save_evaluation, to_dict
from .sampler import FolderSampler, PipelineSampler, Sampler, TensorSampler, draw
from .weights import BadWeightsError, MissingWeightsError, NetworkId

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
