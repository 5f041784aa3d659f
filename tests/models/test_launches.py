"""A GPU's time goes by launches and bytes: neither of a training phase nor of drawing may grow back.

The default networks at 256x256 in float16, on meta tensors, which count as a GPU where the layers choose by device.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.speed.training import Stage, backward, make_batch, make_task
from dfmgan_hf import DFMGANGenerator
from dfmgan_hf.methods.method import RecipeConfig, Target
from dfmgan_hf.methods.stylegan2 import Stage1Task
from dfmgan_hf.models import operators
from dfmgan_hf.models.stylegan2 import hold_weights
from dfmgan_hf.training import Batch, RunningStatistics
from tests.launches import Launches
from tests.meta import META
from tests.training import tiny

pytestmark = pytest.mark.usefixtures("meta_stands_for_gpu")

# Launches and GB moved, without the optimiser, at batch 16.
MOST: dict[Stage, dict[str, tuple[int, float]]] = {
    "stage1": {"generator": (1120, 45), "path_length": (1710, 36), "discriminator": (1020, 48), "r1": (650, 42)},
    "stage2": {"generator": (1490, 63), "path_length": (2030, 55), "discriminator": (1800, 65), "r1": (1200, 51)},
}

MOST_WITH_KERNELS: dict[Stage, dict[str, tuple[int, float]]] = {
    "stage1": {"generator": (850, 23), "path_length": (1360, 21), "discriminator": (710, 24.5), "r1": (480, 24)},
    "stage2": {"generator": (1130, 32), "path_length": (1560, 30), "discriminator": (1230, 31), "r1": (860, 29)},
}


# The quick preset, at 64x64, without kernels. Almost half of a discriminator's is spectral norm of its 18 layers.
MOST_OF_QUICK: dict[Stage, dict[str, int]] = {
    "stage1": {"imitation": 1190, "generator": 1380, "path_length": 1270, "discriminator": 1810},
    "stage2": {"imitation": 1360, "generator": 2840, "path_length": 1660, "discriminator": 2010},
}
A_KINDS_SHARE = 120
"""Of launches that a joint training has on top, however many kinds it learns."""


def launches_of(task: Stage1Task, batch: Batch) -> Iterator[tuple[str, Launches]]:
    statistics = RunningStatistics()
    for phase in task.phases:
        # Once before, which makes the constants that are kept.
        backward(phase, batch, statistics)
        phase.optimizer.zero_grad()
        with Launches() as launches:
            backward(phase, batch, statistics)
        yield phase.name, launches


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "fused"])
@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_phases(stage: Stage, kernels: bool, monkeypatch):
    if not kernels:
        monkeypatch.setattr(operators, "serve", lambda x: False)
    task = make_task(stage, RecipeConfig(batch_size=16), "auto", Target(META, torch.float16))
    assert [phase.name for phase in task.phases] == list(MOST[stage])
    for name, launches in launches_of(task, make_batch(task, 16, META)):
        most, most_moved = (MOST_WITH_KERNELS if kernels else MOST)[stage][name]
        assert launches.total <= most, f"{name}: {launches.counts.most_common(12)}"
        assert launches.moved <= most_moved * 1e9, name
        assert launches.counts["grouped_convolution"] == 0, name


@pytest.mark.parametrize(("stage", "kinds"), [("stage1", 0), ("stage2", 0), ("stage2", 2), ("stage2", 6)])
def test_phases_of_the_quick_preset(stage: Stage, kinds: int, monkeypatch):
    monkeypatch.setattr(operators, "serve", lambda x: False)
    names = tuple(f"kind {i}" for i in range(kinds))
    sizes = {"batch_size": 16, "z_dim": 512, "w_dim": 512, "channel_base": 1024, "channel_max": 128}
    task = tiny.make_quick(stage, scale=2, kinds=names, target=Target(META, torch.float16), **sizes)
    made = make_batch(task, 16, META)
    batch = Batch(made.images, made.masks, torch.empty(16, dtype=torch.int64, device=META) if kinds else None)
    assert [phase.name for phase in task.phases] == list(MOST_OF_QUICK[stage])
    for name, launches in launches_of(task, batch):
        most = MOST_OF_QUICK[stage][name] + (A_KINDS_SHARE if kinds else 0)
        assert launches.total <= most, f"{name}: {launches.counts.most_common(12)}"


@pytest.mark.parametrize("kernels", [False, True], ids=["plain", "fused"])
def test_triplet(kernels: bool, monkeypatch):
    if not kernels:
        monkeypatch.setattr(operators, "serve", lambda x: False)
    with META:
        generator = DFMGANGenerator()
    generator.set_mixed_precision(torch.float16, len(generator.synthesis.resolutions))
    latents = torch.empty(2, 64, 512, device=META)
    with torch.no_grad(), hold_weights(generator):
        generator(*latents, noise_mode="const", return_defect_free=True)
        with Launches() as launches:
            output = generator(*latents, noise_mode="const", return_defect_free=True)
    assert [t.shape for t in output.to_tuple()] == [(64, channels, 256, 256) for channels in (3, 1, 3)]
    assert launches.counts["grouped_convolution"] == 0
    if not kernels:
        assert launches.total <= 330, launches.counts.most_common(12)
        assert launches.moved <= 70e9
        # The constant input is spread over the samples; after that no map changes its layout.
        assert launches.counts["clone"] <= 1
        return
    assert launches.total <= 90, launches.counts.most_common(12)
    # Convolutions read and write every map once, and so does what is between two of them: 9.8 GB each.
    assert launches.moved <= 20e9
    # Six blocks above 4x4 have two convolutions, and so have three residual blocks; twins are in the same maps.
    operator_counts = {"convolution": 1 + 6 * 2 + 3 * 2, "filtered_epilogue": 6 + 3, "pointwise_epilogue": 7}
    assert {name: launches.counts[name] for name in operator_counts} == operator_counts
