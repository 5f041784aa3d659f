"""What is measured from image features: KID, FID, Inception Score, precision and recall.

KID (Bińkowski et al., "Demystifying MMD GANs", ICLR 2018) is computed here, for tiny real sets too; the others as
torch-fidelity computes them. The paper's KID@5k is `kid_subsets` of 5,000 generated images on Inception features.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ..arguments import require
from ..data.reading import Array

# Share of the bootstrap estimates inside the interval.
_CONFIDENCE = 0.95
# Rows of the kernel matrix that are in memory at once.
_BLOCK_SIZE = 1024
# An image's neighbourhood, for precision and recall, reaches to its third nearest.
_NEIGHBOURHOOD = 3


@dataclass(frozen=True)
class KIDSubsets:
    """Mean and standard deviation over random subsets (papers report them times 1000); see `kid_subsets`."""

    kid: float
    std: float
    num_subsets: int
    subset_size: int


@dataclass(frozen=True)
class KIDUnbiased:
    """Estimate from all images; see `kid_unbiased`.

    Args:
        kid: the estimate (papers report it times 1000).
        interval: bootstrap interval when both sets are resampled: how far another handful of real images might move
            it.
        confidence: share of bootstrap estimates inside the interval.
        num_bootstrap: bootstrap estimates.
        num_generated, num_real: images in the sets.
    """

    kid: float
    interval: tuple[float, float]
    confidence: float
    num_bootstrap: int
    num_generated: int
    num_real: int


def kid_subsets(
    generated: Tensor, real: Tensor, *, num_subsets: int = 100, max_subset_size: int = 1000, seed: int = 0
) -> KIDSubsets:
    """Measure KID as the mean over random subsets of m = min(n_generated, n_real, max_subset_size) images of each set.

    The official script does the same in float32, adds the within-set terms before it removes the diagonal, and leaves
    NumPy's random stream unseeded, so that it repeats itself only where a subset is the whole set.

    Args:
        generated, real: features (n_generated, d) and (n_real, d).
        num_subsets, max_subset_size, seed: how many subsets, their largest m, and their seed.

    Raises:
        ValueError: on fewer than two images in a set or features of different widths.
    """
    x, y = (features.numpy() for features in _check_features("KID", generated, real))
    size = min(len(x), len(y), max_subset_size)
    if size < 2:
        raise ValueError(f"`max_subset_size` must be at least 2, but is {max_subset_size}.")
    choose = np.random.default_rng(seed).choice
    estimates = [
        _mmd2(x[choose(len(x), size, replace=False)], y[choose(len(y), size, replace=False)])
        for _ in range(num_subsets)
    ]
    return KIDSubsets(float(np.mean(estimates)), float(np.std(estimates)), num_subsets, size)


def kid_unbiased(
    generated: Tensor,
    real: Tensor,
    *,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> KIDUnbiased:
    """Measure KID from all images at once, with a bootstrap interval.

    The estimate is the U-statistic: the mean of k over pairs of different generated images, plus the same of real
    images, minus twice the mean over mixed pairs. A bootstrap draw weights image i by how often it was drawn, and
    still leaves the pairs (i, i) out, so that an image drawn twice is not taken for two equal images. Memory is
    O(n_generated + n_real).

    Args:
        generated, real: features (n_generated, d) and (n_real, d).
        num_bootstrap, seed: bootstrap draws, and their seed.

    Raises:
        ValueError: on fewer than two images in a set or features of different widths.
    """
    x, y = (features.numpy() for features in _check_features("KID", generated, real))
    rng = np.random.default_rng(seed)
    # Row 0 has weight one everywhere: the estimate itself.
    weights_x = np.concatenate([np.ones((1, len(x))), _bootstrap_weights(rng, num_bootstrap, len(x))])
    weights_y = np.concatenate([np.ones((1, len(y))), _bootstrap_weights(rng, num_bootstrap, len(y))])

    within_x = _weighted_mean(x, x, weights_x, weights_x, exclude_diagonal=True)
    within_y = _weighted_mean(y, y, weights_y, weights_y, exclude_diagonal=True)
    both = within_x + within_y - 2 * _weighted_mean(x, y, weights_x, weights_y)
    tails = ((1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2)
    low, high = np.quantile(both[1:], tails) if num_bootstrap else (np.nan, np.nan)
    return KIDUnbiased(
        kid=float(both[0]),
        interval=(float(low), float(high)),
        confidence=_CONFIDENCE,
        num_bootstrap=num_bootstrap,
        num_generated=len(x),
        num_real=len(y),
    )


@dataclass(frozen=True)
class InceptionScore:
    """Inception Score (Salimans et al., NeurIPS 2016): mean, from 1 up, and standard deviation over the splits."""

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

    statistics = [fid_features_to_statistics(features) for features in _check_features("FID", generated, real)]
    return float(fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID])


def inception_score(logits: Tensor, splits: int = 10) -> InceptionScore:
    """Measure the Inception Score of class logits (n, classes).

    Splits and seed are torch-fidelity's, which the AnomalyDiffusion family uses.

    Raises:
        ValueError: on fewer images than splits.
    """
    require("torch_fidelity", purpose="Inception Score")
    from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric

    if len(logits) < splits:
        raise ValueError(f"Inception Score in {splits} splits needs at least {splits} images, not {len(logits)}.")
    score = isc_features_to_metric(logits.cpu(), splits=splits, shuffle=True, rng_seed=2020)
    return InceptionScore(score[KEY_METRIC_ISC_MEAN], score[KEY_METRIC_ISC_STD], splits)


def precision_recall(generated: Tensor, real: Tensor) -> PrecisionRecall:
    """Measure precision and recall of two sets of features, (n, d) each.

    The neighbourhood is cut to the smaller set's size less one, and the result says which one was used.

    Raises:
        ValueError: on fewer than two images in a set.
    """
    require("torch_fidelity", purpose="Precision and recall")
    from torch_fidelity.metric_prc import KEY_METRIC_PRECISION, KEY_METRIC_RECALL, prc_features_to_metric

    # float64: the distance of an image to itself must not come out above its neighbourhood's radius.
    generated, real = _check_features("Precision and recall", generated, real)
    neighbourhood = min(_NEIGHBOURHOOD, len(generated) - 1, len(real) - 1)
    score = prc_features_to_metric(
        generated, real, prc_neighborhood=neighbourhood, prc_batch_size=1000, save_cpu_ram=True, verbose=False
    )
    return PrecisionRecall(score[KEY_METRIC_PRECISION], score[KEY_METRIC_RECALL], neighbourhood)


def _kernel(x: Array, y: Array) -> Array:
    """k(x, y) = (x . y / d + 1)^3 of all pairs of rows."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def _mmd2(x: Array, y: Array) -> float:
    """The U-statistic sum_{i != j} (k(x_i, x_j) + k(y_i, y_j)) / (m (m - 1)) - 2 sum_{i, j} k(x_i, y_j) / m^2."""
    m = len(x)
    within = _kernel(x, x) + _kernel(y, y)
    return float((within.sum() - np.diag(within).sum()) / (m - 1) / m - _kernel(x, y).sum() * 2 / m / m)


def _weighted_mean(x: Array, y: Array, weights_x: Array, weights_y: Array, exclude_diagonal: bool = False) -> Array:
    """Means of k(x_i, y_j) with weights w_i v_j, one for each row of the weights; by blocks of rows of the kernel."""
    total = np.zeros(len(weights_x))
    for start in range(0, len(x), _BLOCK_SIZE):
        rows = slice(start, start + _BLOCK_SIZE)
        kernel = _kernel(x[rows], y)
        if exclude_diagonal:
            kernel[np.arange(len(kernel)), np.arange(start, start + len(kernel))] = 0
        total += np.einsum("bi,bi->b", weights_x[:, rows], weights_y @ kernel.T)
    mass = weights_x.sum(axis=1) * weights_y.sum(axis=1)
    if exclude_diagonal:
        mass = mass - (weights_x * weights_y).sum(axis=1)
    return total / mass


def _bootstrap_weights(rng: np.random.Generator, draws: int, size: int) -> Array:
    """How often each of `size` images is drawn, (draws, size); draws of one image only have no pairs: redrawn."""
    weights = rng.multinomial(size, np.full(size, 1 / size), size=draws).astype(np.float64)
    while (single := weights.max(axis=1, initial=0) == size).any():
        weights[single] = rng.multinomial(size, np.full(size, 1 / size), size=int(single.sum()))
    return weights


def _check_features(what: str, generated: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return both sets in float64 on the CPU, (n, d) of at least two images each, from the same network."""
    for name, features in (("generated", generated), ("real", real)):
        if features.ndim != 2 or len(features) < 2:
            raise ValueError(f"{what} needs features of at least 2 {name} images, but got {tuple(features.shape)}.")
    if generated.shape[1] != real.shape[1]:
        raise ValueError(
            f"Generated and real features must come from the same network, but have {generated.shape[1]} and "
            f"{real.shape[1]} numbers an image."
        )
    return generated.cpu().double(), real.cpu().double()
