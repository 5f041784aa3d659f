"""Diversity and copying: clustered LPIPS, IC-LPIPS, pairwise LPIPS, and the nearest training image."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from ..precision import full_precision
from ..processes import ProcessGroup
from .networks import LPIPS

# Members of a cluster that IC-LPIPS compares.
_MAX_IC_CLUSTER = 50
_LARGEST_TILE = 128
# LPIPS up to which two pictures are the same; what the matrix product leaves of equal ones is around 1e-6.
_SAME_PICTURE = 1e-5
# Numbers of an embedding that are summed in float32 before float64 takes over: sums of 640,128 terms would lose
# digits.
_FLOAT32_RUN = 8192


@dataclass(frozen=True)
class ClusteredLPIPS:
    """Clustered LPIPS; see `clustered_lpips`.

    Args:
        clustered_lpips: mean over all clusters, those of fewer than two members counting 0 (the paper's metric).
        clustered_lpips_nonempty: mean over the clusters of two or more members; nan if there are none.
        num_clusters, num_empty, num_single: all clusters, those without a member, and those of one.
        cluster_sizes: members of each cluster before any limit, in the order of the real images.
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


def clustered_lpips(
    to_real: Tensor, among_generated: Tensor, *, max_cluster_size: int | None = None
) -> ClusteredLPIPS:
    """Measure clustered LPIPS (DFMGAN, AAAI 2023): is there variety beyond copies of the training images?

    Each generated image joins the cluster of its nearest real image. The mean pairwise LPIPS is taken within each
    cluster, then over clusters.

    The official script deviates: it feeds real images to LPIPS as 0..255 instead of -1..1 when it looks for the
    nearest, takes one z for object and defect, and measures images before they are rounded to 8 bits.

    Args:
        to_real: LPIPS of each generated image to each real one, (N, M).
        among_generated: LPIPS of the generated images among themselves, (N, N).
        max_cluster_size: members of a cluster that are compared, the first by index; the paper takes 200. None: all.

    Raises:
        ValueError: if the tables don't belong together, or `max_cluster_size` is below 2.
    """
    if max_cluster_size is not None and max_cluster_size < 2:
        raise ValueError(f"`max_cluster_size` must be at least 2, but is {max_cluster_size}.")
    if among_generated.shape != (len(to_real), len(to_real)):
        raise ValueError(
            f"`among_generated` must be {(len(to_real), len(to_real))} to fit `to_real`, but is "
            f"{tuple(among_generated.shape)}."
        )
    clusters = _clusters(to_real)
    sizes = [len(members) for members in clusters]
    compared = [members[:max_cluster_size] for members in clusters]
    values = [mean_pairwise(among_generated[m][:, m]) if len(m) > 1 else 0.0 for m in compared]
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


def ic_lpips(to_real: Tensor, distances: Callable[[Tensor], Tensor], *, seed: int = 0) -> ICLPIPS:
    """Measure IC-LPIPS as AnomalyDiffusion's scripts do: clusters as above, at most 50 random members of each.

    Published numbers use VGG and the first third of the real images. SeaS's variant, also under that name, is another
    measure: members up to 140, clusters of fewer than two counted as 0, and the same range error as in the official
    clustered LPIPS. Several users could not reproduce published values; compare only what one program measured.

    Args:
        to_real: LPIPS of each generated image to each real one, (N, M).
        distances: gives the table of LPIPS distances (k, k) among the k generated images whose numbers it gets. (With
            VGG one image takes 32 MB of features, so that only the members of one cluster are compared at a time.)
        seed: of the choice of members.

    Raises:
        ValueError: if `to_real` is not a table.
    """
    generator = torch.Generator().manual_seed(seed)
    clusters = _clusters(to_real)
    values = []
    for members in clusters:
        order = torch.randperm(len(members), generator=generator)
        if len(members) > 1:
            values.append(mean_pairwise(distances(members[order[:_MAX_IC_CLUSTER]])))
    return ICLPIPS(
        ic_lpips=sum(values) / len(values) if values else math.nan,
        num_clusters=len(clusters),
        num_left_out=len(clusters) - len(values),
        cluster_sizes=[len(members) for members in clusters],
    )


def mean_pairwise(distances: Tensor) -> float:
    """Return the mean over the pairs of different images of a table of distances (n, n), n at least 2."""
    n = len(distances)
    if distances.ndim != 2 or distances.shape != (n, n) or n < 2:
        raise ValueError(
            f"Pairwise LPIPS needs the table (n, n) of at least 2 images, but got {tuple(distances.shape)}."
        )
    distances = distances.cpu().double()
    off_diagonal = distances.sum() - distances.diagonal().sum()
    return float(off_diagonal / (n * (n - 1)))


def _clusters(to_real: Tensor) -> list[Tensor]:
    """For each real image, the numbers of the generated ones that it is the nearest real image of."""
    if to_real.ndim != 2 or 0 in to_real.shape:
        raise ValueError(
            f"`to_real` must be (N, M) with at least one image of each kind, but is {tuple(to_real.shape)}."
        )
    nearest = to_real.argmin(dim=1)
    return [torch.nonzero(nearest == cluster).flatten() for cluster in range(to_real.shape[1])]


@dataclass(frozen=True)
class NearestReal:
    """Distances to the nearest real image; see `nearest_real`.

    Args:
        median: of the generated images' distances to their nearest real image.
        real_median: median distance of a real image to the nearest other real one that is not the same picture again;
            None if there is no such pair.
        ratio: median / real_median: well below 1, generated images lie closer to the training images than those do to
            each other; None without real_median.
        copy_threshold: distance below which an image counts as a copy; None if there is none.
        copy_rate: share of copies among the generated images; None without a threshold.
    """

    median: float
    real_median: float | None
    ratio: float | None
    copy_threshold: float | None
    copy_rate: float | None


def nearest_real(to_real: Tensor, among_real: Tensor) -> NearestReal:
    """Summarize the distances to the nearest real images.

    A copy is nearer than half of the real images' median distance to their nearest neighbour; without two that differ
    there is no such yardstick.

    Args:
        to_real: LPIPS of each generated image to each real one, (N, M).
        among_real: LPIPS of the real images among themselves, (M, M).

    Raises:
        ValueError: if the tables don't belong together.
    """
    if to_real.ndim != 2 or 0 in to_real.shape or among_real.shape != (to_real.shape[1], to_real.shape[1]):
        raise ValueError(
            f"`to_real` must be (N, M) and `among_real` (M, M), but they are {tuple(to_real.shape)} and "
            f"{tuple(among_real.shape)}."
        )
    to_real, among_real = to_real.cpu(), among_real.cpu()
    nearest = to_real.min(dim=1).values.double()
    median = float(nearest.quantile(0.5))
    # Photographs that are there twice would be each other's neighbours, and their distance no yardstick. That of an
    # image to itself goes with them.
    others = among_real.double().masked_fill(among_real <= _SAME_PICTURE, torch.inf).min(dim=1).values
    others = others[others.isfinite()]
    real_median = float(others.quantile(0.5)) if len(others) else None
    copy_threshold = None if real_median is None else real_median / 2
    return NearestReal(
        median=median,
        real_median=real_median,
        ratio=None if real_median is None else median / real_median,
        copy_threshold=copy_threshold,
        copy_rate=None if copy_threshold is None else float((nearest < copy_threshold).double().mean()),
    )


@full_precision()
def lpips_distances(
    lpips: LPIPS,
    images: Tensor,
    others: Tensor | None = None,
    *,
    max_memory_gib: float = 6.0,
    batch_size: int = 16,
    processes: ProcessGroup | None = None,
    progress: bool = False,
) -> Tensor:
    """Measure the LPIPS distances of all pairs.

    1,000 images of 256x256 among themselves take 2.6 GB of embeddings and about 20 s on two CPU cores (AlexNet). With
    less memory the table is the same; embeddings are then computed more than once.

    Args:
        lpips: the network, see `load_lpips`.
        images: (N, 3 or 1, H, W), uint8, or floating-point in [-1, 1].
        others: (M, 3 or 1, H, W), of the same size. None: `images` again.
        max_memory_gib: limit for the embeddings in memory; at least one image of each set is kept, whatever it takes.
        batch_size: images the network takes at once.
        processes: share of the work; every process gets the whole table.
        progress: whether to draw a progress bar.

    Returns:
        float32 (N, M) on the CPU, at least 0. Without `others` it is symmetric and exactly 0 on the diagonal. The
        matrix product leaves an absolute error around 1e-6, also where two different images are equal.

    Raises:
        ValueError: if there are no images or sizes differ.
    """
    processes = processes or ProcessGroup()
    same = others is None
    second = images if others is None else others
    for name, some in (("images", images), ("others", second)):
        if some.ndim != 4 or len(some) == 0:
            raise ValueError(f"`{name}` must be at least one image, (N, C, H, W), but is {tuple(some.shape)}.")
    if images.shape[2:] != second.shape[2:]:
        raise ValueError(
            f"LPIPS compares images of one size, but got {tuple(images.shape[2:])} and {tuple(second.shape[2:])}."
        )

    bytes_per_image = lpips.embed(images[:1]).nbytes
    fitting = max(2, int(max_memory_gib * 2**30 / bytes_per_image))
    tile = min(_LARGEST_TILE, fitting // 2)
    room = fitting // tile
    rows = _Tiles(lpips, images, tile, batch_size)
    columns = rows if same else _Tiles(lpips, second, tile, batch_size)

    pairs = []
    for i in range(len(rows.slices)):
        js = list(range(i if same else 0, len(columns.slices)))
        # To and fro: the tiles that the last row ended with are still cached when the next one begins.
        pairs += [(i, j) for j in (reversed(js) if i % 2 else js)]
    table = torch.zeros(len(images), len(second))
    hidden = not (progress and processes.is_main)
    for i, j in tqdm(processes.mine(pairs), desc="LPIPS", unit="block", disable=hidden, leave=False):
        # Rows come in order, so of another set's rows only the current tile is ever needed again.
        a, a_squared = rows.get(i, room if same else 1)
        b, b_squared = columns.get(j, room if same else room - 1)
        block = (a_squared[:, None] + b_squared - 2 * _dot(a, b)).clamp(min=0).float().cpu()
        if same and i == j:
            # Both triangles come from one product, whose rounding need not be symmetric.
            block = block.triu(1) + block.triu(1).T
        table[rows.slices[i], columns.slices[j]] = block
        if same and i != j:
            table[rows.slices[j], columns.slices[i]] = block.T
    return processes.sum(table)


class _Tiles:
    """Embeddings of images, tile by tile; the least recently used tiles make room for others."""

    def __init__(self, lpips: LPIPS, images: Tensor, size: int, batch_size: int) -> None:
        self.lpips = lpips
        self.images = images
        self.batch_size = batch_size
        self.slices = [slice(i, min(i + size, len(images))) for i in range(0, len(images), size)]
        self.cache: OrderedDict[int, tuple[Tensor, Tensor]] = OrderedDict()

    def get(self, index: int, room: int) -> tuple[Tensor, Tensor]:
        """Embeddings (n, D) and their squared lengths (n,) of tile `index`, leaving at most `room` tiles cached."""
        if index in self.cache:
            self.cache.move_to_end(index)
            return self.cache[index]
        while self.cache and len(self.cache) >= room:
            self.cache.popitem(last=False)
        images = self.images[self.slices[index]]
        embedding = torch.empty(0)
        for start in range(0, len(images), self.batch_size):
            part = self.lpips.embed(images[start : start + self.batch_size])
            if start == 0:
                embedding = part.new_empty(len(images), part.shape[1])
            embedding[start : start + len(part)] = part
        squared = torch.zeros(len(images), dtype=torch.float64, device=_float64_device(embedding))
        for run in embedding.split(_FLOAT32_RUN, dim=1):
            squared += run.square().sum(dim=1).to(squared.device)
        self.cache[index] = embedding, squared
        return self.cache[index]


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products a[i].b[j], float64 (n, m), of float32 embeddings (n, D) and (m, D)."""
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=_float64_device(a))
    for run_a, run_b in zip(a.split(_FLOAT32_RUN, dim=1), b.split(_FLOAT32_RUN, dim=1), strict=True):
        total += (run_a @ run_b.T).to(total.device)
    return total


def _float64_device(tensor: Tensor) -> torch.device:
    """Return where to sum a tensor's numbers in float64, which Apple's GPUs do not have."""
    return torch.device("cpu") if tensor.device.type == "mps" else tensor.device
