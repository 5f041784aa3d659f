"""Statistics of a training run, gathered on the device and read once an interval."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import write_text


class RunningStatistics:
    """Means and histograms of named quantities over an interval, without a host synchronisation until they are read.

    Args:
        sum_over_processes: sums a tensor over all processes.

    Attributes:
        edges: of each histogram, by name.
    """

    def __init__(self, sum_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self.edges: dict[str, Sequence[float]] = {}
        self._moments: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._sum = sum_over_processes

    def report(self, name: str, values: Tensor | float) -> None:
        """Add values of any shape to the quantity `name`. Every process must report the same names."""
        values = torch.as_tensor(values).detach().to(torch.float64 if not _is_mps(values) else torch.float32)
        moments = torch.stack([values.new_tensor(float(values.numel())), values.sum()])
        self._moments[name] = self._moments[name] + moments if name in self._moments else moments

    def report_histogram(self, name: str, values: Tensor, edges: Sequence[float]) -> None:
        """Count values of any shape in len(edges) + 1 bins: up to and with edges[0], ..., above edges[-1].

        Every process must report the same names, with the same edges.
        """
        self.edges[name] = edges
        limits = torch.tensor(edges, device=values.device, dtype=values.dtype)
        bins = torch.bucketize(values.detach().reshape(-1, 1), limits)
        counts = (bins == torch.arange(len(edges) + 1, device=values.device)).sum(dim=0)
        self._counts[name] = self._counts[name] + counts if name in self._counts else counts

    def collect(self) -> dict[str, float]:
        """Means since the last call, over all processes; starts a new interval."""
        if not self._moments:
            return {}
        names = sorted(self._moments)
        table = self._sum(torch.stack([self._moments[name].cpu() for name in names]))
        self._moments.clear()
        return {name: (total / count).item() for name, (count, total) in zip(names, table, strict=True) if count > 0}

    def collect_histograms(self) -> dict[str, list[float]]:
        """Share of the values in each bin since the last call, over all processes; starts a new interval."""
        shares = {}
        for name in sorted(self._counts):
            counts = self._sum(self._counts[name].to(torch.float32)).tolist()
            shares[name] = [count / max(sum(counts), 1.0) for count in counts]
        self._counts.clear()
        return shares


def _is_mps(values: Tensor | float) -> bool:
    return isinstance(values, Tensor) and values.device.type == "mps"


class NonFiniteLossError(RuntimeError):
    """Training has diverged; the last good checkpoint is kept."""


class LossGuard:
    """Counts losses that are NaN or infinite on the device, and is asked only where the host waits anyway.

    Args:
        sum_over_processes: sums a tensor over all processes.
    """

    def __init__(self, sum_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> None:
        self._counts: dict[str, Tensor] = {}
        self._sum = sum_over_processes

    def watch(self, name: str, loss: Tensor) -> None:
        """Look at a loss, 0-dim. Every process must watch the same names."""
        bad = (~loss.detach().isfinite()).to(torch.float32)
        self._counts[name] = self._counts[name] + bad if name in self._counts else bad

    def bad_names(self) -> list[str]:
        """Names of the losses that have not been finite at least once, in any process."""
        if not self._counts:
            return []
        names = sorted(self._counts)
        totals = self._sum(torch.stack([self._counts[name] for name in names])).tolist()
        return [name for name, total in zip(names, totals, strict=True) if total > 0]


class MetricsLog:
    """Appends one JSON object a line to a file.

    A run that goes on from a checkpoint first drops the lines after it, so that the file tells one story.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def rewind(self, images_seen: int) -> list[dict[str, Any]]:
        """Drop lines of more than `images_seen` images and a line cut short; returns the rows that stay."""
        if not self.path.exists():
            return []
        kept, rows = [], []
        for line in self.path.read_text().splitlines():
            try:
                row = json.loads(line)
            except json.JSONDecodeError:
                continue
            if row["images_seen"] <= images_seen:
                kept.append(line)
                rows.append(row)
        write_text(self.path, "".join(f"{line}\n" for line in kept))
        return rows

    def write(self, row: dict[str, Any]) -> None:
        """Append a row, whole or not at all; numbers that JSON cannot hold become null."""
        clean = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
        size = self.path.stat().st_size if self.path.exists() else 0
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(clean) + "\n")
        except OSError:
            # The next row must not go on where this one broke off.
            if self.path.exists():
                os.truncate(self.path, size)
            raise
