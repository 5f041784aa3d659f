"""Every constant that decides what is learnt, beside the value that was published.

Read the tables against the papers: *DFMGAN* (arXiv 2303.02389), *SG2* (StyleGAN2, CVPR 2020), *ADA* (StyleGAN2-ADA,
NeurIPS 2020); *run* is a setting of DFMGAN's official training runs that no paper names, and *ours* one that is not
published. Values are read from tasks that are built as training builds them: from their networks, optimisers, averages
and controllers.

How the constants act is pinned elsewhere: layers by models/test_golden_networks.py, losses and their gradients by
methods/test_golden_phases.py, transforms by augmentation/test_golden_ada.py, gradients that are not finite by
training/test_trainer.py.
"""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from dfmgan_hf import StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.augmentation import ada
from dfmgan_hf.methods import get_method
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest
from dfmgan_hf.methods.stylegan2 import PathLengthAverage
from dfmgan_hf.metrics import EvaluationConfig
from dfmgan_hf.metrics.kid import kid_subsets
from dfmgan_hf.models.dfmgan import soft_mask
from dfmgan_hf.models.layers import EqualizedConv2d
from dfmgan_hf.models.stylegan2 import MappingNetwork, ModulatedConv2d, StyledConv2d, ToChannels
from dfmgan_hf.training import Batch, RunningStatistics

STAGES = ("stage1", "stage2")
METHODS = {"stage1": get_method("stage1"), "stage2": get_method("dfmgan")}
Task = Any  # of either stage


def build(stage: str, preset: str = "auto", processes: int = 1, device: str = "meta", **overrides) -> Task:
    """A task with the defaults of the command line, but for what is overridden."""
    target, config = Target(torch.device(device)), RecipeConfig(**overrides)
    recipe = METHODS["stage1"].resolve(preset, config, None, processes)
    if stage == "stage1":
        return METHODS[stage].build(TaskRequest(recipe, None, AugmentationConfig("bgc"), target))
    with torch.device(device):
        backbone = StyleGAN2Generator(**recipe.network_config())
        discriminator = StyleGAN2Discriminator(**recipe.discriminator_config())
    method = METHODS[stage]
    recipe = method.resolve(preset, config, (backbone, discriminator), processes)
    augmentation = AugmentationConfig(augmentation=method.augmentation)
    return method.build(TaskRequest(recipe, method.options(), augmentation, target, None, (backbone, discriminator)))


@pytest.fixture(scope="module")
def tasks() -> dict[str, Task]:
    """Both stages at 256x256, on one process, with values in their networks."""
    torch.manual_seed(0)
    return {stage: build(stage, device="cpu") for stage in STAGES}


# --- how a value is read off a task ---


def count(parameters: Iterable[Tensor]) -> int:
    return sum(p.numel() for p in parameters)


def interval(phase: str) -> Callable[[Task], int]:
    return lambda task: next(p.interval for p in task.phases if p.name == phase)


def adam(phase: str, key: str) -> Callable[[Task], Any]:
    """A setting that a phase steps its parameters with; these are all that its optimiser holds."""

    def read(task: Task) -> Any:
        (found,) = (p for p in task.phases if p.name == phase)
        (group,) = found.optimizer.param_groups
        assert [id(p) for p in group["params"]] == [id(p) for p in found.parameters]
        return group[key]

    return read


def setting(*names: str) -> Callable[[Task], Any]:
    def read(task: Task) -> Any:
        values = tuple(getattr(task.settings, name) for name in names)
        return values if len(values) > 1 else values[0]

    return read


def judges(task: Task) -> list[StyleGAN2Discriminator]:
    return [network for name, network in task.networks.items() if "discriminator" in name]


def mapping(task: Task) -> MappingNetwork:
    """The mapping network that the stage trains."""
    return task.generator.mapping if not hasattr(task.generator, "defect_mapping") else task.generator.defect_mapping


def mapping_gain(task: Task) -> float:
    """How much a step of its weights and biases moves what they do."""
    (gain,) = {round(layer.bias_scale / math.sqrt(2), 9) for layer in mapping(task).layers}
    return gain


def step_of_mean(_: Task) -> float:
    average = PathLengthAverage(torch.device("cpu"), lambda mean: mean)
    average.penalty(torch.ones(1))
    average.update()
    return round(average.mean.item(), 7)


def clamps(task: Task) -> set[float]:
    """Of all styled and all ordinary convolutions, before the gain of a residual branch."""
    styled = [m.conv_clamp for m in task.generator.modules() if isinstance(m, StyledConv2d | ToChannels)]
    convolutions = [m for d in judges(task) for m in d.modules() if isinstance(m, EqualizedConv2d) and m.activation]
    return {round(c, 9) for c in [*styled, *(m.clamp / (m.output_gain / math.sqrt(2)) for m in convolutions)]}


def spread(layers: Iterable[nn.Module]) -> float:
    return torch.cat([layer.weight.detach().flatten() for layer in layers]).std().item()


def spread_of_convolutions(task: Task) -> float:
    networks = [task.generator, *judges(task)]
    return spread(m for net in networks for m in net.modules() if isinstance(m, ModulatedConv2d | EqualizedConv2d))


def styles_at_first(task: Task) -> set[float]:
    layers = [m for m in task.generator.modules() if isinstance(m, ModulatedConv2d)]
    return set(torch.cat([layer.affine.bias.detach() for layer in layers]).tolist())


def noise_at_first(task: Task) -> set[float]:
    return {m.noise_strength.item() for m in task.generator.modules() if isinstance(m, StyledConv2d)}


def w_avg_step(task: Task) -> float:
    """Where w_avg = 0 goes for w = 1."""
    network = copy.deepcopy(mapping(task))
    network.w_avg.zero_()
    network.update_w_avg(torch.ones(len(network.w_avg)))
    return network.w_avg.mean().item()


# --- the constants at 256x256 on one process: batch 16 ---


class Row(NamedTuple):
    what: str
    source: str
    stage1: Any
    stage2: Any
    read: Callable[[Task], Any]


NONE = object()  # the stage has no such thing
ONE, HUNDRED = (pytest.approx(value, rel=0.01) for value in (1, 100))  # of what is drawn at random
G_LR, D_LR = 0.0025 * 4 / 5, 0.0025 * 16 / 17  # lr k / (k + 1) with a regulariser every k steps
G_BETAS, D_BETAS = (0.0, 0.99 ** (4 / 5)), (0.0, 0.99 ** (16 / 17))  # beta^(k / (k + 1))
PHASES = ["generator", "path_length", "discriminator", "r1"]

# fmt: off
TABLE = [
    # Networks
    Row("width of z", "SG2", 512, 512, lambda t: t.generator.mapping.z_dim),
    Row("width of w", "SG2", 512, 512, lambda t: len(mapping(t).w_avg)),
    Row("layers of the mapping", "ADA", 2, 2, lambda t: len(mapping(t).layers)),
    Row("latents of the backbone", "SG2", 14, 14, lambda t: t.generator.num_latents),
    Row("latents of the defect", "DFMGAN 3.2", NONE, 7, lambda t: t.generator.num_defect_latents),
    Row("residual blocks", "DFMGAN 3.2", NONE, [64, 128, 256], lambda t: t.generator.residual_resolutions),
    Row("parameters trained in G", "run", 23_191_522, 3_669_703, lambda t: count(t.phases[0].parameters)),
    Row("parameters of D", "run", 24_001_089, 24_001_089, lambda t: count(t.discriminator.parameters())),
    Row("parameters of D_match", "run", NONE, 1_502_113, lambda t: count(t.match_discriminator.parameters())),
    Row("channels that D_match sees", "DFMGAN 3.2", NONE, 4, lambda t: t.match_discriminator.config["image_channels"]),
    Row("clamp of the convolutions", "ADA", {256.0}, {256.0}, clamps),
    Row("minibatch deviation", "SG2", {4}, {4}, lambda t: {d.head.mbstd_group_size for d in judges(t)}),
    Row("convolutions start N(0, 1)", "SG2", ONE, ONE, spread_of_convolutions),
    Row("styles start at", "SG2", {1.0}, {1.0}, styles_at_first),
    Row("noise starts at", "SG2", {0.0}, {0.0}, noise_at_first),
    Row("lr of the mapping, relative", "SG2", 0.01, 0.01, mapping_gain),
    Row("it starts N(0, 1) / 0.01", "SG2", HUNDRED, HUNDRED, lambda t: spread(mapping(t).layers)),
    Row("step of w_avg, 1 - 0.995", "ADA", 0.005, 0.005, w_avg_step),
    # Losses
    Row("phases of a step", "SG2", PHASES, PHASES, lambda t: [p.name for p in t.phases]),
    Row("R1: 0.0002 R^2 / batch", "ADA D", 0.8192, 0.8192, setting("r1_gamma")),
    Row("R1: every", "SG2", 16, 16, interval("r1")),
    Row("path length: weight", "ADA", 2.0, 2.0, setting("path_length_weight")),
    Row("path length: every", "SG2", 4, 4, interval("path_length")),
    Row("path length: step of its mean", "SG2 B", 0.01, 0.01, step_of_mean),
    Row("path length: mean at first", "SG2 B", 0.0, 0.0, lambda t: t.path_length.mean.item()),
    Row("style mixing", "SG2", 0.9, 0.9, setting("style_mixing")),
    Row("weight of D_match for G", "DFMGAN 3.3", NONE, 1.0, setting("match_weight")),
    Row("mode seeking: lambda", "DFMGAN 3.3", NONE, 0.1, setting("mode_seeking_weight")),
    Row("mode seeking: on", "DFMGAN 3.3", NONE, ("mask", "w"), setting("mode_seeking_on", "mode_seeking_latents")),
    Row("change outside the mask", "ours", NONE, 0.0, setting("outside_weight")),
    # Adam
    Row("lr, before the correction", "ADA D", 0.0025, 0.0025, setting("lr")),
    Row("lr of G, path length every 4", "SG2 B", G_LR, G_LR, adam("generator", "lr")),
    Row("lr of the path length", "SG2 B", G_LR, G_LR, adam("path_length", "lr")),
    Row("lr of D, R1 every 16", "SG2 B", D_LR, D_LR, adam("discriminator", "lr")),
    Row("lr of R1", "SG2 B", D_LR, D_LR, adam("r1", "lr")),
    Row("betas (0, 0.99) of G", "SG2 B", G_BETAS, G_BETAS, adam("generator", "betas")),
    Row("betas (0, 0.99) of D", "SG2 B", D_BETAS, D_BETAS, adam("discriminator", "betas")),
    Row("eps of G", "SG2 B", 1e-8, 1e-8, adam("generator", "eps")),
    Row("eps of D", "SG2 B", 1e-8, 1e-8, adam("discriminator", "eps")),
    Row("weight decay of G", "SG2", 0, 0, adam("generator", "weight_decay")),
    Row("weight decay of D", "SG2", 0, 0, adam("discriminator", "weight_decay")),
    # Moving average of G
    Row("half-life in kimg: batch 10 / 32", "ADA D", 5.0, 5.0, lambda t: t.ema[0].half_life_kimg),
    Row("ramp-up", "ADA; run", 0.05, None, lambda t: t.ema[0].rampup),
    # Adaptive augmentation
    Row("target of E[sign D(real)]", "ADA 3", 0.6, 0.6, lambda t: t.ada.target),
    Row("p moves every", "ADA 3", 4, 4, lambda t: t.ada.interval),
    Row("by batch 4 / 500k, / 100k", "ADA 3; run", 16 * 4 / 500e3, 16 * 4 / 100e3, lambda t: t.ada.p_step),
    Row("p at first", "ADA 3", 0.0, 0.0, lambda t: t.ada.p.item()),
    Row("highest p", "ours", 0.8, 0.8, lambda t: t.ada.p_max),
]
# fmt: on


@pytest.mark.parametrize(
    ("stage", "row"),
    [pytest.param(s, row, id=f"{s}-{row.what}") for row in TABLE for s in STAGES if getattr(row, s) is not NONE],
)
def test_constant(tasks, stage, row):
    published = getattr(row, stage)
    assert row.read(tasks[stage]) == (pytest.approx(published) if isinstance(published, float) else published)


def test_masks_are_tanh_of_ten_times_their_logits():
    """As in the official run; no paper says it."""
    logits = torch.linspace(-0.3, 0.3, 7)
    assert torch.equal(soft_mask(logits), torch.tanh(10 * logits))


@pytest.mark.parametrize("stage", STAGES)
def test_path_lengths_are_of_half_the_batch(stage):
    task = build(stage, resolution=64)
    drawn: list[int] = []
    task.generator.block(4).conv1.register_forward_pre_hook(lambda _, args: drawn.append(len(args[0])))
    task.path_length_loss(Batch(torch.empty(8, 3, 64, 64, device="meta")), RunningStatistics())
    assert set(drawn) == {4}


# --- the transforms of the augmentation set bgc (ADA, appendix B) ---

RANGES = {
    "XINT_MAX": 0.125,
    "SCALE_STD": 0.2,
    "ROTATE_MAX": math.pi,
    "ANISO_STD": 0.2,
    "XFRAC_STD": 0.125,
    "BRIGHTNESS_STD": 0.2,
    "CONTRAST_STD": 0.5,
    "HUE_MAX": math.pi,
    "SATURATION_STD": 1.0,
    # Not in bgc, but known: 4 bands, noise and cutout.
    "IMGFILTER_STD": 1.0,
    "NOISE_STD": 0.1,
    "CUTOUT_SIZE": 0.5,
}
BGC = {
    *("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac"),
    *("brightness", "contrast", "lumaflip", "hue", "saturation"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_augmentation(tasks, stage):
    assert tasks[stage].augment.transforms == BGC
    assert {name: getattr(ada, name) for name in RANGES} == RANGES


# --- what "auto" gives (ADA, appendix D) ---

AUTO = {
    # resolution, processes: batch, channel_base, learning rate, gamma of R1, half-life of the average in kimg
    (64, 1): (32, 16384, 0.0025, 0.0256, 10.0),
    (64, 2): (64, 16384, 0.0025, 0.0128, 20.0),
    (64, 8): (64, 16384, 0.0025, 0.0128, 20.0),
    (256, 1): (16, 16384, 0.0025, 0.8192, 5.0),
    (256, 2): (32, 16384, 0.0025, 0.4096, 10.0),
    (256, 8): (64, 16384, 0.0025, 0.2048, 20.0),
    (512, 1): (8, 32768, 0.0025, 6.5536, 2.5),
    (512, 2): (16, 32768, 0.0025, 3.2768, 5.0),
    (512, 8): (64, 32768, 0.0025, 0.8192, 20.0),
    (1024, 1): (4, 32768, 0.002, 52.4288, 1.25),
    (1024, 2): (8, 32768, 0.002, 26.2144, 2.5),
    (1024, 8): (32, 32768, 0.002, 6.5536, 10.0),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("resolution", "processes"), AUTO)
def test_auto(stage, resolution, processes):
    task = build(stage, "auto", processes, resolution=resolution)
    batch, channel_base, lr, gamma, half_life = AUTO[resolution, processes]
    assert task.settings.batch_size == batch
    assert task.generator.config["channel_base"] == task.discriminator.config["channel_base"] == channel_base
    assert task.generator.config["channel_max"] == task.discriminator.config["channel_max"] == 512
    assert adam("generator", "lr")(task) == pytest.approx(lr * 4 / 5)
    assert adam("discriminator", "lr")(task) == pytest.approx(lr * 16 / 17)
    assert task.settings.r1_gamma == pytest.approx(gamma)
    assert task.ema[0].half_life_kimg == pytest.approx(half_life)


# --- presets ---

PRESETS = {
    # name: resolution, layers of the mapping, batch, gamma, half-life in kimg on one process
    "auto": (256, 2, 16, 0.8192, 5.0),
    "paper256": (256, 2, 32, 0.4096, 10.0),
    "large512": (512, 8, 8, 6.5536, 2.5),
    "large1024": (1024, 8, 4, 52.4288, 1.25),
}


@pytest.mark.parametrize("preset", PRESETS)
def test_preset(preset):
    for stage, kimg in (("stage1", 3000), ("stage2", 400)):
        recipe = METHODS[stage].resolve(preset, RecipeConfig(), None, 1)
        found = (recipe.resolution, recipe.mapping_layers, recipe.batch_size, recipe.r1_gamma, recipe.ema_kimg)
        assert found == pytest.approx(PRESETS[preset])
        assert recipe.total_kimg == kimg


@pytest.mark.parametrize("stage", STAGES)
def test_default_augmentation(stage):
    method = METHODS[stage]
    recipe = method.resolve("auto", RecipeConfig(), None, 1)
    assert method.settle_augmentation(AugmentationConfig(), recipe, method.options()).augmentation == "bgc"
    assert (recipe.discriminator, recipe.imitation_kimg) == ("stylegan2", 0)


# --- how the paper measures (DFMGAN 4.1): KID@5k as the mean over subsets, clustered LPIPS@1k ---


def test_evaluation():
    config = EvaluationConfig()
    assert (config.num_images, config.num_lpips_images) == (5000, 1000)
    largest_subset = inspect.signature(kid_subsets).parameters["max_subset_size"].default
    assert (config.kid_num_subsets, largest_subset) == (100, 1000)
    assert {"kid", "clustered_lpips"} <= set(config.metrics)
