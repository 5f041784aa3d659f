"""Diversity of generated images around the few real ones: clustered LPIPS, IC-LPIPS and plain pairwise LPIPS.

All of them are functions of tables of LPIPS distances (`lpips_distances`), so each image goes through the network
once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ClusteredLPIPS:
    """Clustered LPIPS; see `clustered_lpips`.

    Args:
        clustered_lpips: mean over all clusters, those of fewer than two members counting 0 (the paper's metric).
        clustered_lpips_nonempty: mean over the clusters of two or more members; nan if there are none.
        num_clusters: one for each real image.
        num_empty: clusters without a member.
        num_single: clusters of one member.
        cluster_sizes: members of each cluster, in the order of the real images.
        cluster_values: mean pairwise LPIPS within each cluster, 0 below two members.
    """

    clustered_lpips: float
    clustered_lpips_nonempty: float
    num_clusters: int
    num_empty: int
    num_single: int
    cluster_sizes: list[int]
    cluster_values: list[float]


@dataclass(frozen=True)
class ICLPIPS:
    """IC-LPIPS; see `ic_lpips`.

    Args:
        ic_lpips: mean over the clusters of two or more members; nan if there are none.
        num_clusters: one for each real image.
        num_left_out: clusters of fewer than two members.
        cluster_sizes: members of each cluster before the limit, in the order of the real images.
    """

    ic_lpips: float
    num_clusters: int
    num_left_out: int
    cluster_sizes: list[int]


def clustered_lpips(to_real: Tensor, among_generated: Tensor) -> ClusteredLPIPS:
    """Measure clustered LPIPS (DFMGAN, AAAI 2023): is there variety beyond copies of the training images?

    Each generated image joins the cluster of its nearest real image. The mean pairwise LPIPS is taken within each
    cluster, then over clusters.

    The official script deviates: it feeds real images to LPIPS as 0..255 instead of -1..1 when it looks for the
    nearest, takes one z for object and defect, measures images before they are rounded to 8 bits, and drops an image
    whose cluster has 200 members already.

    Args:
        to_real: LPIPS of each generated image to each real one, (N, M).
        among_generated: LPIPS of the generated images among themselves, (N, N).

    Raises:
        ValueError: if the tables don't belong together.
    """
    assignment = _assign(to_real, among_generated)
    sizes, values = [], []
    for cluster in range(to_real.shape[1]):
        members = torch.nonzero(assignment == cluster).flatten()
        sizes.append(len(members))
        values.append(mean_pairwise(among_generated[members][:, members]) if len(members) > 1 else 0.0)
    valid = [value for value, size in zip(values, sizes, strict=True) if size > 1]
    return ClusteredLPIPS(
        clustered_lpips=sum(values) / len(values),
        clustered_lpips_nonempty=sum(valid) / len(valid) if valid else math.nan,
        num_clusters=len(sizes),
        num_empty=sizes.count(0),
        num_single=sizes.count(1),
        cluster_sizes=sizes,
        cluster_values=values,
    )


def ic_lpips(
    to_real: Tensor,
    distances: Callable[[Tensor], Tensor],
    *,
    max_cluster_size: int = 50,
    seed: int = 0,
) -> ICLPIPS:
    """Measure IC-LPIPS as AnomalyDiffusion's scripts do: clusters as above, at most 50 random members of each.

    Published numbers use VGG and the first third of the real images. SeaS's variant, also under that name, is another
    measure: members up to 140, clusters of fewer than two counted as 0, and the same range error as in the official
    clustered LPIPS. Several users could not reproduce published values; compare only what one program measured.

    Args:
        to_real: LPIPS of each generated image to each real one, (N, M).
        distances: gives the table of LPIPS distances (k, k) among the k generated images whose numbers it gets. (With
            VGG one image takes 32 MB of features, so that only the members of one cluster are compared at a time.)
        max_cluster_size: members that are compared.
        seed: of the choice of members.

    Raises:
        ValueError: if `to_real` is not a table.
    """
    assignment = _assign(to_real)
    generator = torch.Generator().manual_seed(seed)
    sizes, values = [], []
    for cluster in range(to_real.shape[1]):
        members = torch.nonzero(assignment == cluster).flatten()
        sizes.append(len(members))
        order = torch.randperm(len(members), generator=generator)
        if len(members) > 1:
            values.append(mean_pairwise(distances(members[order[:max_cluster_size]])))
    return ICLPIPS(
        ic_lpips=sum(values) / len(values) if values else math.nan,
        num_clusters=len(sizes),
        num_left_out=len(sizes) - len(values),
        cluster_sizes=sizes,
    )


def mean_pairwise(distances: Tensor) -> float:
    """Return the mean over the pairs of different images of a table of distances (n, n), n at least 2."""
    n = len(distances)
    if distances.ndim != 2 or distances.shape != (n, n) or n < 2:
        raise ValueError(
            f"Pairwise LPIPS needs the table (n, n) of at least 2 images, but got {tuple(distances.shape)}."
        )
    off_diagonal = distances.double().sum() - distances.double().diagonal().sum()
    return float(off_diagonal / (n * (n - 1)))


def _assign(to_real: Tensor, among_generated: Tensor | None = None) -> Tensor:
    """Nearest real image of each generated one, (N,)."""
    if to_real.ndim != 2 or 0 in to_real.shape:
        raise ValueError(
            f"`to_real` must be (N, M) with at least one image of each kind, but is {tuple(to_real.shape)}."
        )
    if among_generated is not None and among_generated.shape != (len(to_real), len(to_real)):
        raise ValueError(
            f"`among_generated` must be {(len(to_real), len(to_real))} to fit `to_real`, but is "
            f"{tuple(among_generated.shape)}."
        )
    return to_real.argmin(dim=1)
