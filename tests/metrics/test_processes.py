from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dfmgan_hf.metrics.sampler import batches
from dfmgan_hf.processes import ProcessGroup

ROOT = Path(__file__).parents[2]


def run(folder: Path, num_processes: int) -> list[str]:
    """What each process measured, as JSON."""
    folder.mkdir()
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(num_processes)]
    script = [str(Path(__file__).with_name("measure_in_process.py")), str(folder), str(num_processes)]
    result = subprocess.run(
        [sys.executable, *(launcher if num_processes > 1 else []), *script],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return [(folder / f"{rank}.json").read_text() for rank in range(num_processes)]


@pytest.mark.slow
def test_two_processes_give_the_numbers_of_one(tmp_path: Path):
    (alone,) = run(tmp_path / "one", 1)
    first, second = run(tmp_path / "two", 2)
    assert json.loads(first) == json.loads(second) == json.loads(alone)


def test_every_piece_is_done_once():
    def part(rank: int) -> ProcessGroup:
        group = ProcessGroup()
        group.rank, group.count = rank, 3
        return group

    pieces = batches(40, 8)
    assert [len(piece) for piece in pieces] == [8] * 5
    assert sorted(piece.start for rank in range(3) for piece in part(rank).mine(pieces)) == [0, 8, 16, 24, 32]
    assert [len(piece) for piece in batches(10, 8)] == [8, 2]
    assert batches(0, 8) == []


def test_one_process_is_its_own_sum():
    tensor = torch.arange(3)
    assert ProcessGroup().sum(tensor) is tensor
    assert ProcessGroup().is_main
