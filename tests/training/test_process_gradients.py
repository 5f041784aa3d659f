"""Several processes and micro-batches have the gradients of one process with the whole batch, in every loss."""

from __future__ import annotations

import os
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods import cdc, get_method
from dfmgan_hf.methods import dfmgan as drawing
from dfmgan_hf.methods import dfmgan as stage2
from dfmgan_hf.methods import stylegan2 as latents
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest
from dfmgan_hf.methods.stylegan2 import LatentDraw
from dfmgan_hf.methods.translation import Photographs
from dfmgan_hf.models import defect_gan as defect_gan_networks
from dfmgan_hf.models.stylegan2 import NoiseInput
from dfmgan_hf.training import Batch, ProcessGroup, Task
from tests.parameters import set_noise_strength
from tests.training import launch, tiny
from tests.training.test_scripts import save_drawn_category

WHOLE = 8


def parts_of_the_batch(count: int) -> list[list[int]]:
    """Samples of each part, so that groups of the minibatch standard deviation (of 2) and pairs of the mode-seeking
    loss are the same as in the whole: i and i + WHOLE / 2 stay together."""
    size = WHOLE // 2 // count
    first_halves = [list(range(i * size, (i + 1) * size)) for i in range(count)]
    return [[*half, *(i + WHOLE // 2 for i in half)] for half in first_halves]


def table(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(WHOLE, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class FixedDraws:
    """Gives sample i of the whole batch the same random numbers, whichever process and micro-batch draws it."""

    def __init__(self, parts: list[list[int]]) -> None:
        self.parts = parts
        self.reset()

    def reset(self) -> None:
        self._turns: dict[str, cycle] = {}

    def _rows(self, what: str, n: int) -> list[int]:
        """The samples that this kind of draw is for now: it comes once for each micro-batch, in order."""
        part = next(self._turns.setdefault(what, cycle(self.parts)))
        return part[:n]

    def install(self) -> None:
        draws = self

        def draw_latents(mapping, n, num_latents, mixing_probability):
            rows = draws._rows(f"latents {num_latents}", n)
            z, mixed = (table(mapping.z_dim, seed=seed + num_latents)[rows] for seed in (0, 100))
            return LatentDraw(z, mixed, cut=2)

        def noise_init(self, mode, batch_size, generator=None, given=None):
            # CDC compares a whole batch of latents in every part.
            self.rows = list(range(WHOLE)) if batch_size == WHOLE else draws._rows("noise", batch_size)

        def noise_call(self, layer, dtype):
            return table(1, *layer.noise_const.shape, seed=layer.noise_const.shape[0])[self.rows].to(dtype)

        def noise_samples(self, which):
            part = object.__new__(NoiseInput)
            part.rows = self.rows[which]
            return part

        def randn_like(images):
            return table(*images.shape[1:], seed=7)[draws._rows("image noise", len(images))]

        latents.draw_latents = drawing.draw_latents = draw_latents
        NoiseInput.__init__, NoiseInput.__call__, NoiseInput.samples = noise_init, noise_call, noise_samples
        NoiseInput.mode = "random"
        torch.randn_like = randn_like
        self._install_for_baselines()

    def _install_for_baselines(self) -> None:
        draws = self
        randint, rand = torch.randint, torch.rand

        def whole_latents(mapping, n, num_latents, mixing_probability):
            return LatentDraw(table(mapping.z_dim, seed=300)[:n])

        def draw_photographs(self, n):
            rows = draws._rows("photographs", n)
            # Good photographs come before those of the defect, in the same order.
            draws.pairs = [*rows, *(WHOLE + row for row in rows)]
            return self.at([row % len(self) for row in rows]).double()

        def pixel_noise(shape, **options):
            seeded = torch.Generator().manual_seed(shape[2])
            return torch.randn(2 * WHOLE, *shape[1:], generator=seeded, dtype=torch.float64)[draws.pairs]

        def shares(*shape, **options):
            if not shape or shape[1:] != (1, 1, 1):
                return rand(*shape, **options)
            seeded = torch.Generator().manual_seed(3)
            return rand(2 * WHOLE, 1, 1, 1, generator=seeded, dtype=torch.float64)[draws.pairs]

        def whole_numbers(*arguments, **options):
            if options or len(arguments[-1]) == 0:
                return randint(*arguments, **options)
            limit, (n,) = arguments[-2], arguments[-1]
            if limit == 2**31:  # CDC's noise seeds
                return torch.tensor([5, 6])
            # Layers of the whole batch in CDC, or anchors of a part.
            rows = range(n) if len(arguments) == 3 else draws._rows("anchors", n)
            first = arguments[0] if len(arguments) == 3 else 0
            return torch.tensor([first + row % (limit - first) for row in rows])

        cdc.draw_latents = whole_latents
        Photographs.choose = draw_photographs
        defect_gan_networks.randn_tensor = pixel_noise
        torch.rand, torch.randint = shares, whole_numbers


def make_baseline(variant: str, folder: Path, mean) -> Task:
    """A method of the registry on tiny networks, as its build puts it together."""
    name, options, step = BASELINES[variant]
    method = get_method(name)
    tiny.set_seed(0)
    category = save_drawn_category(folder / f"plate{os.environ['RANK']}")
    data = DataConfig(data_dir=category)
    chosen = method.options(**options)
    defects = data.load_kinds(resolution=32) if method.is_joint(chosen) else data.load_defects("dot", resolution=32)
    backbone = tiny.make_networks() if method.init == "stage1" else None
    sizes = {} if backbone else {"resolution": 32, "image_channels": 3, "channel_base": 128}
    overrides = RecipeConfig(**sizes, batch_size=WHOLE)
    recipe = method.resolve("small", overrides, backbone, 1)
    target = Target(torch.device("cpu"), None, mean)
    assert method.build is not None
    task = method.build(TaskRequest(recipe, chosen, AugmentationConfig("none"), target, defects, backbone, data))
    task.step = step  # of CDC, which takes another route every few steps
    return task


BASELINES: dict[str, tuple[str, dict[str, Any], int]] = {
    "cdc near anchors": ("cdc", {"num_anchors": 5}, 0),
    "cdc in patches": ("cdc", {}, 1),
    "sdgan": ("sdgan", {"adversarial": "d2gan"}, 0),
    "sdgan least squares": ("sdgan", {}, 0),
    "defect_gan": ("defect_gan", {}, 0),
    "defect_gan joint": ("defect_gan", {"joint": True}, 0),
}

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "stage1": ("stage1", {}),
    "stage2": ("stage2", {}),
    "stage2 on images": ("stage2", {"mode_seeking_on": "image", "mode_seeking_latents": "z"}),
    "stage2 joint": ("stage2", {"match": "joint"}),
    "stage2 outside": ("stage2", {"outside_weight": 10.0, "match": "none", "mode_seeking_weight": 0.0}),
}
"""Every loss of both stages."""


def save_gradients(variant: str, accumulation_steps: int, folder: Path) -> None:
    """Every phase's gradients as its optimiser gets them, and the averages that follow from the step."""
    accelerator = Accelerator(cpu=True)
    count = accelerator.num_processes
    parts = parts_of_the_batch(count * accumulation_steps)
    mine = parts[accelerator.process_index * accumulation_steps :][:accumulation_steps]
    draws = FixedDraws(mine)
    draws.install()
    stage2.PAIRS = 1

    mean = ProcessGroup(accelerator).mean
    if variant in BASELINES:
        task = make_baseline(variant, folder, mean)
    else:
        stage, options = VARIANTS[variant]
        task = tiny.MAKE[stage](processes_mean=mean, **options)
    task.augment = task.ada = None
    for key, network in task.networks.items():
        network.double()
        for module in network.modules():
            if hasattr(module, "mbstd_group_size"):
                module.mbstd_group_size = 2
        # A source like its copy would leave CDC nothing to make consistent.
        set_noise_strength(network, 0.5 if key == "source" else 0.3)
    if hasattr(task, "path_length"):
        task.path_length.mean = torch.tensor(0.1, dtype=torch.float64)
        for average in (task.path_length, task.w_average):
            average.sum = average.sum.double()
    if hasattr(task, "_anchors"):
        task._anchors = task._anchors.double()

    data = tiny.drawn_set(WHOLE)
    rows = [i for part in mine for i in part]
    pictures = (pixels[rows].double() / 127.5 - 1 for pixels in (data.images, data.masks))
    batch = Batch(*pictures, labels=torch.tensor(rows) % 2 if "joint" in variant and variant in BASELINES else None)
    run = tiny.make_trainer(
        task, folder, accelerator=accelerator, accumulation_steps=accumulation_steps, batch_size=WHOLE
    )
    result: dict[str, torch.Tensor] = {}
    for phase in task.phases:
        names = {id(p): f"{n}.{k}" for n, network in task.networks.items() for k, p in network.named_parameters()}

        def keep(phase=phase, names=names):
            for parameter in phase.parameters:
                if parameter.grad is not None:
                    result[f"{phase.name}: {names[id(parameter)]}"] = parameter.grad.contiguous().clone()

        phase.optimizer.step = keep
        draws.reset()
        run.run_phase(phase, batch)
    if hasattr(task, "path_length"):
        result["path length mean"] = task.path_length.mean
        result["w_avg"] = task.w_average.mapping.w_avg
    save_file(result, folder / f"gradients{accelerator.process_index}.safetensors")


@pytest.fixture(scope="module", params=[*VARIANTS, *BASELINES])
def whole_batch(request, tmp_path_factory) -> tuple[str, dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("whole")
    launch.launch(save_gradients, request.param, 1, folder, processes=1)
    return request.param, load_file(folder / "gradients0.safetensors")


@pytest.mark.parametrize(("processes", "accumulation_steps"), [(2, 1), (1, 2), (2, 2)])
def test_gradients_are_those_of_the_whole_batch(whole_batch, tmp_path, processes, accumulation_steps):
    """Every loss of both stages and of the baselines that have their own, in double precision: k processes with m
    micro-batches each against one batch."""
    variant, expected = whole_batch
    launch.launch(save_gradients, variant, accumulation_steps, tmp_path, processes=processes)
    for rank in range(processes):
        actual = load_file(tmp_path / f"gradients{rank}.safetensors")
        assert actual.keys() == expected.keys()
        for name, value in expected.items():
            assert torch.allclose(actual[name], value, rtol=1e-7, atol=1e-12), f"{name} on rank {rank}"
    phases = {name.split(":")[0] for name in expected}
    if variant.startswith("sdgan"):
        assert phases == {"generators", "discriminators"}
    elif variant.startswith("defect_gan"):
        assert phases == {"discriminator", "generator"}
    else:
        assert phases >= {"generator", "path_length", "discriminator", "r1"}
    assert all(
        value.abs().max() > 0 for name, value in expected.items() if name.startswith("generator") and "conv" in name
    )
