"""Tables of LPIPS distances in bounded memory, by one process or many.

Images are cut into tiles. A tile is embedded once and kept while there is room; a block of the table is one matrix
product of two tiles. The tiles depend on image size and memory limit only, never on the number of processes.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import Tensor
from tqdm import tqdm

from ..processes import ProcessGroup
from .lpips import LPIPS
from .precision import full_precision

_LARGEST_TILE = 128
# Numbers of an embedding that are summed in float32 before float64 takes over: sums of 640,128 terms would lose
# digits.
_FLOAT32_RUN = 8192


class _Tiles:
    """Embeddings of the tiles of some images; the least recently used ones make room for others."""

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
        embedding: Tensor | None = None
        for start in range(0, len(images), self.batch_size):
            part = self.lpips.embed(images[start : start + self.batch_size])
            if embedding is None:
                embedding = part.new_empty(len(images), part.shape[1])
            embedding[start : start + len(part)] = part
        assert embedding is not None  # no tile is empty
        self.cache[index] = (embedding, _squared_norms(embedding))
        return self.cache[index]


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
    description: str = "LPIPS",
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
        description: its text.

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
    for i, j in tqdm(
        processes.mine(pairs),
        desc=description,
        unit="block",
        disable=not (progress and processes.is_main),
        leave=False,
    ):
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


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Scalar products a[i].b[j], float64 (n, m), of float32 embeddings (n, D) and (m, D)."""
    runs = zip(a.split(_FLOAT32_RUN, dim=1), b.split(_FLOAT32_RUN, dim=1), strict=True)
    total = torch.zeros(len(a), len(b), dtype=torch.float64, device=a.device)
    for run_a, run_b in runs:
        total += run_a @ run_b.T
    return total


def _squared_norms(a: Tensor) -> Tensor:
    """Scalar products a[i].a[i], float64 (n,), of float32 embeddings (n, D)."""
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for run in a.split(_FLOAT32_RUN, dim=1):
        total += run.square().sum(dim=1)
    return total
