"""Draws numbered triplets such that number i depends on the settings and i alone, bit for bit.

Three things could make an image depend on more, in the last bit of its activations and so in a few of its pixels:

* The number of threads of an operation: sums are split differently. On the CPU every operation gets one thread, and
  images are drawn side by side instead, which is also faster.
* The number of images drawn at once, since other kernels are chosen. On the CPU the pipeline draws one at a time.
  Other devices always draw whole blocks of the same size, and cuDNN chooses by rule, not by stopwatch.
* The neighbours in a block. A block always holds the same candidates: images number 0 to B - 1 are drawn together,
  B to 2 B - 1, and so on, and which candidates fill the places of those that the filter dropped follows from the
  block alone. Where the export stops or was stopped does not change that.
"""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import groupby
from types import TracebackType
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..pipelines import DFMGANPipeline
from .config import ExportConfig
from .errors import ExportError, OneProcessError
from .filters import MaskFilter, Reason
from .samples import Record, Sample, encode_sample
from .seeds import candidate_seed

# About what fits a small GPU: 32 images of 256 x 256, 2 of 1024 x 1024.
_BLOCK_PIXELS = 2**21
_MAX_BLOCK_SIZE = 32


def block_size_for(pipe: DFMGANPipeline) -> int:
    """Images that are drawn in one pass through the network, which depends on the device and the resolution alone."""
    if pipe.device.type == "cpu":
        return 1
    return max(1, min(_MAX_BLOCK_SIZE, _BLOCK_PIXELS // pipe.unwrapped_generator.config["resolution"] ** 2))


class TripletSampler:
    """Draws the triplets of an export by number, in several threads.

    A context manager: torch's number of threads and its cuDNN settings are set on entering and restored on leaving.

    Args:
        pipe: with defects, in evaluation mode, on the device that draws.
        config: what to draw and what the filter keeps.
        block_size: B; None for `block_size_for`.

    Raises:
        ExportError: the pipeline has a backbone only.
    """

    def __init__(self, pipe: DFMGANPipeline, config: ExportConfig, *, block_size: int | None = None) -> None:
        if not pipe.has_defects:
            raise ExportError(
                "--model",
                found="a backbone of stage 1, which draws no defects",
                expected="a model of stage 2 (DFMGANGenerator)",
                advice="Train stage 2 on it (examples/train_stage2.py) and give its output folder.",
            )
        self.block_size = block_size or block_size_for(pipe)
        self.config = config
        self.filter = MaskFilter(config.min_mask_area, config.max_mask_area)
        # A pipeline of its own: silencing its progress bar does not silence the caller's.
        self._pipe = DFMGANPipeline(pipe.generator)
        self._pipe.set_progress_bar_config(disable=True)
        self._on_cpu = pipe.device.type == "cpu"
        self._restore = contextlib.ExitStack()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> TripletSampler:
        workers = torch.get_num_threads() if self._on_cpu else os.cpu_count() or 1
        if self._on_cpu:
            self._restore.callback(torch.set_num_threads, workers)
            torch.set_num_threads(1)
        self._restore.enter_context(
            torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
        )
        self._pool = ThreadPoolExecutor(min(workers, self.config.batch_size))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        assert self._pool is not None
        self._pool.shutdown(cancel_futures=True)
        self._restore.close()

    def draw(self, indices: Iterable[int]) -> Iterator[Sample]:
        """Yield the triplets of these numbers, in this order.

        Args:
            indices: rising numbers; taken as needed, at most `batch_size` and a block ahead.

        Raises:
            OneProcessError: an image has used up its attempts.
        """
        assert self._pool is not None, "TripletSampler draws inside its with statement only."
        waiting: deque[Future[Sample]] = deque()
        for _, wanted in groupby(indices, key=lambda index: index // self.block_size):
            waiting += self._submit(list(wanted))
            while len(waiting) >= self.config.batch_size:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def _submit(self, wanted: list[int]) -> list[Future[Sample]]:
        """Have some triplets of one block drawn and encoded."""
        assert self._pool is not None
        if self._on_cpu and self.block_size == 1:
            return [self._pool.submit(lambda: encode_sample(*self._draw_block(wanted)[0]))]
        # The device draws one block, while the threads encode the one before.
        return [self._pool.submit(encode_sample, *drawn) for drawn in self._draw_block(wanted)]

    def _draw_block(self, wanted: list[int]) -> list[tuple[Record, Image.Image, Image.Image, Image.Image]]:
        """Record, image, mask and twin of some numbers of one block."""
        first = wanted[0] // self.block_size * self.block_size
        block = range(first, first + self.block_size)
        attempts: Counter[int] = Counter()
        dropped: dict[int, Counter[Reason]] = {index: Counter() for index in block}
        kept: dict[int, tuple[Record, Image.Image, Image.Image, Image.Image]] = {}
        while not kept.keys() >= set(wanted):
            missing = [index for index in block if index not in kept]
            # As many candidates as a block has places: each missing image gets one or more.
            candidates = []
            for place in range(self.block_size):
                index = missing[place % len(missing)]
                candidates.append((index, candidate_seed(self.config.seed, index, attempts[index])))
                attempts[index] += 1
            drawn = self._call([seed for _, seed in candidates])
            for (index, seed), pictures in zip(candidates, drawn, strict=True):
                if index in kept:
                    continue
                area = _white_share(pictures[1])
                reason = self.filter.why_dropped(area)
                if reason is None:
                    counts: Any = {f"dropped_{name}": count for name, count in dropped[index].items()}
                    kept[index] = (Record(index, seed, area, **counts), *pictures)
                    continue
                dropped[index][reason] += 1
                if index in wanted and dropped[index].total() >= self.config.max_attempts:
                    raise self._exhausted(index, dropped[index])
        return [kept[index] for index in wanted]

    def _call(self, seeds: list[int]) -> list[tuple[Image.Image, Image.Image, Image.Image]]:
        """Image, mask and twin of each seed."""
        output: Any = self._pipe(
            seeds=seeds,
            truncation_psi=self.config.truncation_psi,
            noise_mode=self.config.noise_mode,
            mask_threshold=self.config.mask_threshold,
            batch_size=self.block_size,
        )
        return list(zip(output.images, output.masks, output.defect_free_images, strict=True))

    def _exhausted(self, index: int, dropped: Counter[Reason]) -> OneProcessError:
        reasons = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in dropped.items())
        return OneProcessError(
            f"Image {index}",
            found=f"none of its first {dropped.total()} draws passed the filter ({reasons})",
            expected=str(self.filter),
            advice="Widen --min_mask_area and --max_mask_area in a new folder, raise --max_attempts to go on in this "
            "one, or train the model longer.",
        )


def _white_share(mask: Image.Image) -> float:
    return float(np.asarray(mask).astype(bool).mean())
