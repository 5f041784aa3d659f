"""FID, Inception Score, precision and recall from features, as torch-fidelity computes them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .weights import require


@dataclass(frozen=True)
class InceptionScore:
    """Inception Score (Salimans et al., NeurIPS 2016) of the generated images alone.

    Args:
        mean: mean over the splits, from 1 up.
        std: standard deviation over the splits.
        splits: parts that the images were divided into.
    """

    mean: float
    std: float
    splits: int


@dataclass(frozen=True)
class PrecisionRecall:
    """Improved precision and recall (Kynkäänniemi et al., NeurIPS 2019).

    Args:
        precision: share of generated images within a real image's neighbourhood, in [0, 1].
        recall: share of real images within a generated image's neighbourhood, in [0, 1].
        neighbourhood: k; an image's neighbourhood reaches to its k-th nearest of its own set.
    """

    precision: float
    recall: float
    neighbourhood: int


def fid(generated: Tensor, real: Tensor) -> float:
    """Measure the Fréchet Inception Distance (Heusel et al., NeurIPS 2017) of two sets of features, (n, d) each.

    With fewer images than d (2048 for Inception) it is strongly biased upwards and depends on the counts: compare only
    numbers with the same counts. For tiny sets KID is the measure to trust.

    Raises:
        ValueError: on fewer than two images in a set.
    """
    require("torch_fidelity", purpose="FID")
    from torch_fidelity.metric_fid import KEY_METRIC_FID, fid_features_to_statistics, fid_statistics_to_metric

    _need(generated, 2, "FID", "generated")
    _need(real, 2, "FID", "real")
    statistics = [fid_features_to_statistics(features.double().cpu()) for features in (generated, real)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def inception_score(logits: Tensor, splits: int = 10, seed: int = 2020) -> InceptionScore:
    """Measure the Inception Score of class logits (n, classes).

    Defaults are torch-fidelity's, which the AnomalyDiffusion family uses.

    Raises:
        ValueError: on fewer images than splits.
    """
    require("torch_fidelity", purpose="Inception Score")
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    _need(logits, splits, f"Inception Score in {splits} splits", "generated")
    score = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=seed)
    return InceptionScore(score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD], splits)


def precision_recall(generated: Tensor, real: Tensor, neighbourhood: int = 3) -> PrecisionRecall:
    """Measure precision and recall of two sets of features, (n, d) each.

    The neighbourhood is cut to the smaller set's size less one, and the result says which one was used.

    Raises:
        ValueError: on fewer than two images in a set.
    """
    require("torch_fidelity", purpose="Precision and recall")
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    _need(generated, 2, "Precision and recall", "generated")
    _need(real, 2, "Precision and recall", "real")
    neighbourhood = min(neighbourhood, len(generated) - 1, len(real) - 1)
    score = prc_features_to_metric(
        # float64: the distance of an image to itself must not come out above its neighbourhood's radius.
        generated.double().cpu(),
        real.double().cpu(),
        prc_neighborhood=neighbourhood,
        prc_batch_size=1000,
        save_cpu_ram=True,
        verbose=False,
    )
    return PrecisionRecall(score[KEY_METRIC_PRECISION], score[KEY_METRIC_RECALL], neighbourhood)


def _need(features: Tensor, count: int, what: str, which: str) -> None:
    if features.ndim != 2 or len(features) < count:
        raise ValueError(f"{what} needs features of at least {count} {which} images, but got {tuple(features.shape)}.")
