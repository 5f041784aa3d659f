"""The estimate of a run's memory against what was measured, and the advice that comes with it."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch.profiler import ProfilerActivity, profile

from dfmgan_hf import StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.methods.augmentations import AugmentationConfig
from dfmgan_hf.methods.build import Stage2Options, Target, build_stage1, build_stage2
from dfmgan_hf.methods.presets import RecipeOverrides, resolve_recipe
from dfmgan_hf.training import Batch, RunningStatistics
from dfmgan_hf.training.memory import GIB, MemoryNeed, estimate_memory, forecast, out_of_memory
from dfmgan_hf.training.run import RunConfig, fit_run, train

# Large enough for the activations to outweigh what is allocated beside them.
SIZES = RecipeOverrides(resolution=64, z_dim=16, w_dim=16, channel_base=512, channel_max=16, batch_size=8)
IMAGES = 8


def build(stage: str, device: str, images_dtype: torch.dtype | None = None):
    recipe = resolve_recipe("auto", SIZES, stage, 1)
    target = Target(torch.device(device), images_dtype)
    if stage == "stage1":
        return build_stage1(recipe, AugmentationConfig(), target)
    networks = StyleGAN2Generator(**recipe.network_config()), StyleGAN2Discriminator(**recipe.discriminator_config())
    return build_stage2(*networks, recipe, Stage2Options(), AugmentationConfig(), target)


def measured_peak(task) -> int:
    """Most bytes that the allocator handed out in a phase, with the augmentation always on."""
    task.ada = None
    batch = Batch(torch.rand(IMAGES, 3, 64, 64) * 2 - 1, (torch.rand(IMAGES, 1, 64, 64) > 0.9) * 2.0 - 1)
    peaks = []
    for phase in task.phases:
        for parameter in phase.parameters:
            parameter.requires_grad_(True)
        if phase.prepare is not None:
            phase.prepare([batch])
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            phase.loss(batch, RunningStatistics()).backward()
        current = peak = 0
        for event in profiler.profiler.kineto_results.events():
            if event.name() == "[memory]":
                current += event.nbytes()
                peak = max(peak, current)
        peaks.append(peak)
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None
    return max(peaks)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_estimate_is_near_what_was_measured(stage):
    need = estimate_memory(build(stage, "meta"), IMAGES, (3, 64, 64), stage == "stage2")
    # On the high side: it counts every image as augmented in every way.
    assert need.activations == pytest.approx(measured_peak(build(stage, "cpu")), rel=0.3)
    assert need.images == IMAGES


def test_fixed_part_counts_weights_averages_gradients_and_adam():
    task = build("stage1", "meta")
    need = estimate_memory(task, 2, (3, 64, 64), False)
    generator, discriminator = (sum(p.numel() for p in n.parameters()) for n in (task.generator, task.discriminator))
    parameters = 4 * (2 * generator + discriminator + max(generator, discriminator) + 2 * (generator + discriminator))
    assert parameters <= need.fixed < parameters * 1.2  # stored noise beside them


def test_activations_grow_with_the_images_and_shrink_with_the_precision():
    small, large = (estimate_memory(build("stage1", "meta"), n, (3, 64, 64), False) for n in (4, 8))
    assert large.activations == pytest.approx(2 * small.activations, rel=0.1)
    half = estimate_memory(build("stage1", "meta", torch.float16), 8, (3, 64, 64), False)
    assert half.activations < 0.85 * large.activations


def test_estimating_leaves_the_random_state_alone_and_does_not_depend_on_it():
    before = torch.get_rng_state()
    task = build("stage1", "meta")
    torch.set_rng_state(before)
    first = estimate_memory(task, 2, (3, 64, 64), False)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(5)
    assert estimate_memory(task, 2, (3, 64, 64), False) == first


NEED = MemoryNeed(fixed=1 * GIB, activations=9 * GIB, phase="generator", images=16)


def test_forecast():
    text, too_large = forecast(NEED, None, "float32")
    assert "about 10.0 GiB" in text
    assert not too_large
    assert forecast(NEED, 24 * GIB, "float32")[1] is False
    text, too_large = forecast(NEED, 11 * GIB, "float32")
    assert too_large
    assert "11.0 GiB are free" in text
    assert text.index("--low_vram") < text.index("--precision float16") < text.index("--resolution")
    assert "--low_vram" not in forecast(replace(NEED, images=4), GIB, "float16")[0]


def test_out_of_memory_says_what_helps():
    error = out_of_memory(torch.OutOfMemoryError("Tried to allocate 2.00 GiB."), 16, "float32")
    assert isinstance(error, torch.OutOfMemoryError)
    assert "Tried to allocate 2.00 GiB." in str(error)
    assert "--low_vram" in str(error)


@pytest.mark.parametrize(("batch_size", "steps"), [(4, 1), (8, 2), (12, 3), (32, 8), (10, 5), (2, 1)])
def test_low_vram_shows_at_most_a_group_of_the_minibatch_statistics_at_a_time(tmp_path, batch_size, steps):
    run = fit_run(RunConfig(output_dir=tmp_path, low_vram=True), batch_size, Accelerator(cpu=True))
    assert run.accumulation_steps == steps
    assert batch_size // run.accumulation_steps <= 4
    assert run.precision == "float32"  # float16 is for accelerators


@pytest.mark.parametrize(
    ("batch_size", "steps", "warned"), [(16, 2, False), (16, 8, True), (12, 2, True), (10, 5, False)]
)
def test_split_groups_of_the_minibatch_statistics_are_warned_of(tmp_path, batch_size, steps, warned):
    run = RunConfig(output_dir=tmp_path, accumulation_steps=steps)
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        fit_run(run, batch_size, Accelerator(cpu=True))
    messages = [str(w.message) for w in record if "minibatch standard deviation" in str(w.message)]
    assert len(messages) == warned
    assert all(f"a multiple of {4 * steps}" in message for message in messages)


def test_running_out_of_memory_while_networks_are_built_is_answered_too(tmp_path):
    recipe = resolve_recipe("auto", SIZES, "stage1", 1)

    def build(device: torch.device):
        if device.type != "meta":
            raise torch.OutOfMemoryError("Tried to allocate 2.00 GiB.")
        return build_stage1(recipe, AugmentationConfig(), Target(device))

    dataset = ImageMaskDataset(torch.zeros(4, 3, 64, 64, dtype=torch.uint8), None, list("abcd"))
    run = RunConfig(output_dir=tmp_path / "run", report_to="none")
    with pytest.raises(torch.OutOfMemoryError, match=r"2\.00 GiB\.\nWhat helps, in this order: --low_vram"):
        train(build, dataset, run, Accelerator(cpu=True), 1.0, 8, {})
    assert not (tmp_path / "run").exists()


def test_batches_that_cannot_be_shared(tmp_path):
    with pytest.raises(ValueError, match="choose a multiple of their product"):
        fit_run(RunConfig(output_dir=tmp_path, accumulation_steps=3), 16, Accelerator(cpu=True))
