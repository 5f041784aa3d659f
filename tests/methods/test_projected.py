"""Training with the discriminator on frozen features, and a generator that imitates first."""

from __future__ import annotations

import json
import math
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.losses import feature_distance, hinge_discriminator_loss, hinge_generator_loss
from dfmgan_hf.methods import METHODS, dfmgan, get_method
from dfmgan_hf.methods.dfmgan import Stage2Task, area_distance, mask_distance, transplant
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest, load_backbone
from dfmgan_hf.methods.stylegan2 import PROJECTED_RULES
from dfmgan_hf.methods.train import TrainingConfig, train
from dfmgan_hf.models.dfmgan import DEFECT_PREFIXES
from dfmgan_hf.models.discriminator import StyleGAN2Discriminator
from dfmgan_hf.models.projected import FEATURE_NETWORK, WEIGHTS_VARIABLE, ProjectedDiscriminator
from dfmgan_hf.models.stylegan2 import NoiseInput, StyleGAN2Generator
from dfmgan_hf.training.run import check_r1
from dfmgan_hf.training.task import Batch, RunningStatistics, examine
from dfmgan_hf.training.trainer import RunConfig
from tests.training import tiny

KINDS = ("chip", "crack")
SIZES = {"channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8}
pytestmark = pytest.mark.usefixtures("no_report", "feature_weights")


@pytest.fixture(scope="module")
def weights_file(tmp_path_factory) -> Path:
    """Weights that were never trained, in a file like timm's."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("timm") / "model.safetensors"
    save_file(timm.create_model(FEATURE_NETWORK).state_dict(), path)
    return path


@pytest.fixture
def feature_weights(weights_file, monkeypatch) -> None:
    monkeypatch.setenv(WEIGHTS_VARIABLE, str(weights_file))


def arguments(stage: str, category: Path, folder: Path, *more: str) -> list[str]:
    sizes = [f"--{name}={value}" for name, value in {**SIZES, "batch_size": 4, "resolution": 32}.items()]
    common = ["--log_every_kimg=0.004", "--checkpoint_every_kimg=0", "--sample_every_kimg=0", "--report_to=none"]
    return [
        *(stage, "--preset=quick", f"--data_dir={category}", f"--output_dir={folder}"),
        *(sizes if stage == "stage1" else ["--defect=dot", "--batch_size=4"]),
        *(*common, *more),
    ]


def test_hinge_losses_add_up_the_heads_means():
    # Two images, two heads of two patches.
    logits = torch.tensor([[[2.0, 0.5], [-3.0, 0.0]], [[1.0, -1.0], [0.0, 0.0]]])
    assert hinge_generator_loss(logits).item() == pytest.approx(-(2.5 / 4 - 3 / 4))
    assert hinge_discriminator_loss(logits, 1).item() == pytest.approx((0 + 0.5 + 0 + 2) / 4 + (4 + 1 + 1 + 1) / 4)
    assert hinge_discriminator_loss(logits, -1).item() == pytest.approx((3 + 1.5 + 2 + 0) / 4 + (0 + 1 + 1 + 1) / 4)


def test_phases_have_the_hinge_and_no_r1():
    task = tiny.make_quick("stage1", imitation_kimg=0)
    assert [phase.name for phase in task.phases] == ["generator", "path_length", "discriminator"]
    assert task.augment.policy == ("shift", "cutout")
    assert task.ada is None
    # Without R1 the discriminator's Adam is not corrected for it; the generator's is, for the path length.
    assert task.optimizers["discriminator"].defaults["lr"] == 0.000625
    assert task.optimizers["generator"].defaults["lr"] == pytest.approx(0.000625 * 4 / 5)

    task.discriminator.heads[0].out.bias.data += 100  # all real to the first head
    batch = tiny.make_trainer(task, Path("unused")).stream.at(0)
    # -1 for each of the fakes' patches; the rest are untrained, a few units.
    assert task.generator_loss(batch, RunningStatistics()).item() == pytest.approx(-100, abs=20)
    assert task.discriminator_loss(batch, RunningStatistics()).item() == pytest.approx(101, abs=20)


def test_scales_of_the_mixed_maps_are_measured_on_the_photographs():
    task = tiny.make_quick("stage1")
    photographs = tiny.drawn_set().images.to(torch.float32) / 127.5 - 1
    scales = task.discriminator.mixing.scales.clone()
    assert not torch.equal(scales, torch.ones(4))
    task.discriminator.measure_scales(photographs)
    torch.testing.assert_close(task.discriminator.mixing.scales, scales)


def test_imitation_comes_first_and_alone():
    task = tiny.make_quick("stage1", imitation_kimg=0.006)  # of batches of 4: two steps
    due = [[phase.name for phase in task.phases if phase.is_due(step)] for step in range(5)]
    later = ["generator", "discriminator"]
    assert due == [["imitation"], ["imitation"], later, later, ["generator", "path_length", "discriminator"]]
    assert not any(phase.name == "imitation" for phase in tiny.make_quick("stage1", imitation_kimg=0).phases)


@pytest.mark.parametrize(("stage", "kinds"), [("stage1", ()), ("stage2", ()), ("stage2", KINDS)])
def test_the_average_latent_moves_while_the_generator_imitates(stage, kinds):
    task, data = tiny.make_quick(stage, kinds=kinds, imitation_kimg=1.0), tiny.drawn_set(4)
    labels = torch.tensor([0, 1, 1, 1]) if kinds else None
    mapping, phase = task.w_average.mapping, task.phases[0]
    with torch.no_grad():
        for _ in range(1500):
            task.observe_latents(4, labels)
            phase.finish()
        z = torch.randn(2000, mapping.z_dim)
        for kind in range(max(len(kinds), 1)):
            wanted = mapping(z, kinds=torch.full((2000,), kind) if kinds else None).mean(dim=0)
            assert (mapping.w_avg.reshape(-1, mapping.w_dim)[kind] - wanted).norm() < 0.3 * wanted.norm()
    before = mapping.w_avg.clone()
    masks = data.masks / 127.5 - 1 if stage == "stage2" else None
    task.imitation_loss(Batch(data.images / 127.5 - 1, masks, labels), RunningStatistics())
    phase.finish()
    assert (mapping.w_avg != before).any()


def test_discriminators_tell_kinds_apart_from_where_they_begin():
    task = tiny.make_quick("stage2", kinds=KINDS, imitation_kimg=0.008, options={"conditioning_kimg": 0.008})
    found = []
    for step in range(5):
        task.after_step(step, RunningStatistics())
        networks = task.generator.defect_mapping, task.discriminator.kinds
        found.append(tuple(network.conditioning.item() for network in networks))
    # Two steps of 4 images are imitation.
    assert found == [(0, 0), (0.5, 0), (1, 0), (1, 0.5), (1, 1)]


def test_imitation_learns_the_photographs():
    task = tiny.make_quick("stage1", imitation_kimg=1.0)
    trainer = tiny.make_trainer(task, Path("unused"))
    phase, losses = task.phases[0], []
    for step in range(60):
        batch = trainer.stream.at(4 * step)
        losses.append(task.imitation_loss(batch, RunningStatistics()).item())
        trainer.run_phase(phase, batch)
    assert sum(losses[-10:]) < 0.8 * sum(losses[:10])
    assert all(not p.grad_fn and p.grad is None for p in task.discriminator.parameters())


def test_what_is_white_or_black_in_a_photograph_may_be_more_so_in_a_drawing():
    task = tiny.make_quick("stage1", imitation_kimg=1.0)
    wanted = torch.full((2, 3, 32, 32), 0.5)
    wanted[..., :8], wanted[..., 8:16] = 1.0, -1.0
    beyond = wanted.clone()
    beyond[..., :8], beyond[..., 8:16] = 1.05, -1.06
    assert task.imitation_distance(beyond, wanted).item() == 0
    drawn, photographed = (task.discriminator._as_input(images) for images in (beyond, wanted))
    assert torch.equal(drawn, photographed)
    # Short of it, and elsewhere beyond it, is off.
    for columns, value in ((slice(8), 0.9), (slice(8), 1.2), (slice(8, 16), -0.9), (slice(16, 32), 1.5)):
        off = wanted.clone()
        off[..., columns] = value
        off.requires_grad_()
        task.imitation_distance(off, wanted).backward()
        assert (off.grad[..., columns].sign() == (off - wanted)[..., columns].sign()).float().mean() > 0.9


def test_imitation_gives_the_layers_the_photographs_noise(monkeypatch):
    task = tiny.make_quick("stage1", scale=2, imitation_kimg=1.0)
    batch = Batch(torch.rand(4, 3, 64, 64) * 2 - 1)
    seen = []
    synthesize = StyleGAN2Generator.synthesize
    monkeypatch.setattr(
        StyleGAN2Generator, "synthesize", lambda g, ws, noise: seen.append(noise) or synthesize(g, ws, noise)
    )
    monkeypatch.setattr(task, "observe_latents", lambda *_: None)  # takes random numbers, too
    torch.manual_seed(3)
    task.imitation_loss(batch, RunningStatistics())
    torch.manual_seed(3)
    wanted = task.details(batch.images, task.codes(batch.images))
    assert list(wanted) == [32]  # half the size
    layer = task.generator.block(32).conv1
    assert torch.equal(seen[0](layer, torch.float32), wanted[32])
    assert not torch.equal(seen[0](task.generator.block(32).conv0, torch.float32), wanted[32])


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_what_is_shown_mirrored_is_imitated_as_it_was_photographed(stage):
    """The codes are those of photographs as they are."""
    task, data = tiny.make_quick(stage, imitation_kimg=1.0), tiny.drawn_set(4)
    masks = data.masks / 127.5 - 1 if stage == "stage2" else None
    plain = Batch(data.images / 127.5 - 1, masks)
    flips = torch.tensor([False, True, True, False])[:, None, None, None]
    images, masks = (None if t is None else torch.where(flips, t.flip(3), t) for t in (plain.images, masks))
    losses = []
    for batch in (plain, Batch(images, masks, flips=flips), Batch(images, masks)):
        torch.manual_seed(0)
        losses.append(task.imitation_loss(batch, RunningStatistics()).item())
    assert losses[0] == losses[1] != losses[2]


def photographs_of(task: Stage2Task) -> Batch:
    data, labels = tiny.drawn_set(), None
    if task.num_kinds:
        labels = torch.arange(len(data)) % task.num_kinds
    return Batch(data.images / 127.5 - 1, data.masks / 127.5 - 1, labels)


def test_masks_are_imitated_or_learnt_as_published():
    task = tiny.make_quick("stage2")
    assert [phase.name for phase in task.phases] == ["imitation", "generator", "path_length", "discriminator"]
    assert task.match_discriminator is None
    assert (task.settings.mode_seeking_weight, task.settings.ema_rampup) == (0, 0.05)
    assert task.generator_ema.config["soft_gate"]
    task = tiny.make_quick("stage2", imitation_kimg=0)
    assert task.codes is None
    assert task.match_discriminator is not None
    assert (task.settings.mode_seeking_weight, task.settings.ema_rampup) == (0.1, None)
    assert not task.generator_ema.config["soft_gate"]
    assert tiny.make_quick("stage2", imitation_kimg=0, options={"soft_gate": True}).generator.config["soft_gate"]
    assert not tiny.make_quick("stage2", options={"soft_gate": False}).generator.config["soft_gate"]


def test_defects_are_put_on_products_as_files_show_them(monkeypatch):
    task, seen = tiny.make_quick("stage2"), []
    for name, parameter in task.generator.named_parameters():
        if name.endswith("to_rgb.bias"):
            parameter.data += 2
    monkeypatch.setattr("dfmgan_hf.methods.dfmgan.transplant", lambda *given: seen.append(given[2]) or given[2])
    task.imitation_loss(photographs_of(task), RunningStatistics())
    assert seen[0].max() == 1


@pytest.mark.parametrize("kinds", [(), ("dot", "spot")])
def test_stage2_imitates_defects_and_their_masks(kinds, monkeypatch):
    task = tiny.make_quick("stage2", kinds=kinds, augmentation="none")
    batch, before = photographs_of(task), {n: p.clone() for n, p in task.generator.named_parameters()}

    def overlap() -> float:
        out = task.generator.draw(task._latents(6), task._coded(batch), NoiseInput("random", 6))
        drawn, real = out.mask_logits >= 0, batch.masks > 0
        return ((drawn & real).sum() / (drawn | real).sum()).item()

    assert overlap() < 0.1
    for _ in range(160):
        for parameter in task.phases[0].parameters:
            parameter.requires_grad_(True)
        task.imitation_loss(batch, RunningStatistics()).backward()
        for parameter in task.phases[0].parameters:
            parameter.requires_grad_(False)
        task.optimizers["imitation"].step()
        task.optimizers["imitation"].zero_grad()
    assert overlap() > 0.3
    changed = {name for name, p in task.generator.named_parameters() if not torch.equal(p, before[name])}
    assert changed
    assert all(name.startswith(DEFECT_PREFIXES) for name in changed)
    # From then on, defects and masks are held where they are.
    found = []
    for weight in (0.0, dfmgan.IMAGE_WEIGHT):
        monkeypatch.setattr(dfmgan, "IMAGE_WEIGHT", weight)
        torch.manual_seed(0)
        statistics = RunningStatistics()
        task.prepare([batch])
        found.append(task.generator_loss(batch, statistics))
    means = statistics.collect()
    # Not exactly, since each look of the discriminator moves its spectral norms.
    wanted = weight * math.log(means["loss/defect_imitation"])
    assert (found[1] - found[0]).item() == pytest.approx(wanted, rel=0.01)
    logged = {name for names in task.panels.values() for name in names}
    assert logged >= {"loss/defect_imitation", "loss/mask_imitation", "loss/mask_area"}
    assert means["loss/mask_imitation"] < 1
    assert means["loss/mask_area"] < 1


def test_a_defect_on_another_product_shows_no_edge_along_its_mask():
    """A dark spot in a wide mask, on a product that is brighter, and much brighter on its right side."""
    photographs, masks = torch.zeros(1, 3, 128, 128), torch.zeros(1, 1, 128, 128, dtype=torch.bool)
    masks[:, :, 32:96, 32:96] = True
    photographs[:, :, 60:68, 60:68] = -0.5
    products = torch.full_like(photographs, 0.1)
    products[..., 90:] = 0.4
    made = transplant(photographs, masks, products)
    assert torch.equal(made[:, :, ~masks[0, 0]], products[:, :, ~masks[0, 0]])
    middle = products[:, :, ~masks[0, 0]].mean()
    assert made[0, 0, 50, 50] == pytest.approx(middle.item(), abs=1e-4)  # the mean shift, far from the border
    assert made[0, 0, 64, 64] - made[0, 0, 50, 50] == pytest.approx(-0.5, abs=0.01)
    for inside, beside in ((32, 31), (95, 96)):  # columns on both sides of the border, left and right
        step = (made[0, 0, 64, inside] - made[0, 0, 64, beside]).abs()
        assert step < 0.2 * (middle - products[0, 0, 64, beside]).abs()
    everywhere = torch.ones_like(masks)
    assert torch.equal(transplant(photographs, everywhere, products), photographs)
    small = [F.avg_pool2d(x.float(), 4) for x in (photographs, masks, products)]
    assert transplant(small[0], small[1] > 0.5, small[2]).shape == (1, 3, 32, 32)
    strip = transplant(photographs[:, :, :64, :], masks[:, :, :64, :], products[:, :, :64, :])
    assert strip.shape == (1, 3, 64, 128)


def test_masks_are_compared_with_real_ones():
    real = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    real[0, :, 2:4, 2:4] = real[1, :, :4] = True
    right = torch.where(real, 1.0, -1.0)
    assert mask_distance(right, real) < 1e-3
    assert mask_distance(-right, real) > 10
    # In any order, the areas are 4 and 32 pixels of 64.
    assert area_distance(right.flip(0), real) == pytest.approx(0, abs=1e-4)
    twice = right.clone()
    twice[0, :, 4:6, 2:4] = 1.0
    assert area_distance(twice, real) == pytest.approx(math.log(9 / 5) / 2, abs=1e-4)
    # Of two kinds, each has its own area.
    kinds = torch.tensor([1, 0])
    assert area_distance(right, real, kinds) == pytest.approx(0, abs=1e-4)
    assert area_distance(right.flip(0), real, kinds) == pytest.approx(math.log(33 / 5), abs=1e-4)
    for level in (-0.2, -9.0):  # so low a logit has no area that could grow
        empty = torch.full_like(right, level)
        empty[:, :, 5, 5] += 0.1
        empty.requires_grad_()
        area_distance(empty, real).backward()
        assert (empty.grad[:, :, 5, 5] < 0).all()


def test_imitation_needs_features():
    for method in ("stage1", "dfmgan"):
        resolve = get_method(method).resolve
        assert resolve("quick", RecipeConfig(discriminator="stylegan2"), None, 1).imitation_kimg == 0
        with pytest.raises(ValueError, match=r"`imitation_kimg` 2 needs --discriminator projected"):
            resolve("auto", RecipeConfig(imitation_kimg=2.0), None, 1)


def test_large_products_are_imitated_longer_defects_are_not():
    def kimg(stage, resolution, **chosen):
        config = RecipeConfig(resolution=resolution, **chosen)
        return get_method(stage).resolve("quick", config, None, 1).imitation_kimg

    assert [kimg("stage1", resolution) for resolution in (64, 128, 256)] == [8, 16, 32]
    assert kimg("stage1", 128, imitation_kimg=4.0) == 4
    assert kimg("dfmgan", 128) == 8


def test_feature_distance_is_of_unit_vectors():
    a = torch.tensor([[3.0, 0.0], [0.0, 2.0]]).t().reshape(1, 2, 1, 2)  # (3, 0) and (0, 2)
    b = torch.tensor([[5.0, 0.0], [1.0, 0.0]]).t().reshape(1, 2, 1, 2)
    assert feature_distance([a, a], [b, a]).item() == pytest.approx((0 + 2) / 2)


@pytest.mark.parametrize("stage", ["stage1", "stage2"])
def test_an_imitating_run_that_is_stopped_goes_on_as_if_it_had_not_been(stage, category, tmp_path):
    options = ["--imitation_kimg=0.008"]
    if stage == "stage2":
        train(arguments("stage1", category, tmp_path / "backbone", "--total_kimg=0.004"))
        options.append(f"--pretrained_backbone={tmp_path / 'backbone'}")
    train(arguments(stage, category, tmp_path / "whole", *options, "--total_kimg=0.016"))
    for total in ("0.004", "0.012"):
        more = ["--resume_from_checkpoint=latest", f"--total_kimg={total}"]
        train(arguments(stage, category, tmp_path / "stopped", *options, *more))
    more = [*options, "--total_kimg=0.016", "--resume_from_checkpoint=latest"]
    train(arguments(stage, category, tmp_path / "stopped", *more))
    weights = sorted(path.relative_to(tmp_path / "whole") for path in (tmp_path / "whole").glob("*/diffusion*"))
    assert [path.parts[0] for path in weights] == ["discriminator", "generator"]
    for path in weights:
        assert (tmp_path / "whole" / path).read_bytes() == (tmp_path / "stopped" / path).read_bytes(), path


def test_stage2_goes_on_with_stage1s_heads_or_with_new_ones(category, tmp_path):
    train(arguments("stage1", category, tmp_path / "stage1", "--total_kimg=0.004", "--imitation_kimg=0"))
    backbone = load_backbone(str(tmp_path / "stage1"))
    assert isinstance(backbone[1], ProjectedDiscriminator)
    start = f"--pretrained_backbone={tmp_path / 'stage1'}"
    train(arguments("stage2", category, tmp_path / "stage2", start, "--total_kimg=0.008"))
    record = json.loads((tmp_path / "stage2" / "training_config.json").read_text())
    assert record["recipe"]["discriminator"] == "projected"
    assert record["config"]["augmentation"]["augmentation"] == "shift_cutout"
    assert DFMGANPipeline.from_pretrained(str(tmp_path / "stage2"))(2).images[0].size == (32, 32)

    method = METHODS["dfmgan"]
    for name, cls in (("projected", ProjectedDiscriminator), ("stylegan2", StyleGAN2Discriminator)):
        recipe = method.resolve("auto", RecipeConfig(batch_size=4, discriminator=name), backbone, 1)
        task = method.build(
            TaskRequest(
                recipe, method.options(), AugmentationConfig("none"), Target(torch.device("cpu")), None, backbone
            )
        )
        assert isinstance(task.discriminator, cls)
        # R1 stays D_match's.
        assert [phase.name for phase in task.phases] == ["generator", "path_length", "discriminator", "r1"]
        batch = tiny.make_trainer(task, tmp_path / name).stream.at(0)
        assert task.r1_loss(batch, RunningStatistics()) > 0
    assert method.resolve("auto", RecipeConfig(), backbone, 1).discriminator == "projected"


def test_what_needs_the_published_discriminator_says_so(category, tmp_path):
    train(arguments("stage1", category, tmp_path, "--total_kimg=0.004"))
    backbone = load_backbone(str(tmp_path))
    with pytest.raises(ValueError, match=r"CDC goes on with the StyleGAN2 discriminator .* --discriminator stylegan2"):
        METHODS["cdc"].resolve("auto", RecipeConfig(), backbone, 1)
    with pytest.raises(ValueError, match=r"`discriminator` has no meaning for CDC"):
        METHODS["cdc"].resolve("auto", RecipeConfig(discriminator="projected"), None, 1)
    options = (f"--pretrained_backbone={tmp_path}", "--match_discriminator=joint")
    with pytest.raises(ValueError, match=r"joint needs --discriminator stylegan2"):
        train(arguments("stage2", category, tmp_path / "joint", *options))


def test_a_discriminator_that_does_not_exist_is_refused():
    with pytest.raises(ValueError, match=r"`discriminator` must be one of stylegan2, projected, but is 'frozen'"):
        RecipeConfig(discriminator="frozen")  # type: ignore[arg-type]


def test_presets_channels_follow_the_resolution():
    method = get_method("stage1")
    for resolution, channels in ((64, 1024), (128, 2048)):
        recipe = method.resolve("quick", RecipeConfig(resolution=resolution), None, 1)
        assert (recipe.channel_base, recipe.discriminator) == (channels, "projected")
    assert METHODS["diffaug"].resolve("quick", RecipeConfig(), None, 1).discriminator == "stylegan2"


def test_a_discriminator_far_ahead_is_warned_of():
    ahead = {"loss/discriminator": 0.1, "accuracy/real": 1.0, "accuracy/fake": 1.0}
    assert set(examine(PROJECTED_RULES, [ahead] * 5)) == {"discriminator_ahead"}
    assert not examine(PROJECTED_RULES, [ahead] * 4 + [{**ahead, "loss/discriminator": 2.0}])
    assert {rule.name for rule in tiny.make_quick("stage1").rules} == {"discriminator_ahead"}


@pytest.mark.parametrize(
    ("stage", "match", "refused"),
    [("stage1", None, True), ("stage2", None, True), ("stage2", "none", True), ("stage2", "small", False)],
)
def test_r1_is_not_set_for_discriminators_without(tmp_path, stage, match, refused):
    options = {} if match is None else {"match_discriminator": match}
    task = tiny.make_quick(stage, options=options, r1_gamma=1.0)
    config = TrainingConfig(RunConfig(output_dir=tmp_path), None, AugmentationConfig(), preset="quick")
    check_r1(task, {"config": config})
    chosen = {"config": replace(config, recipe=RecipeConfig(r1_gamma=1.0))}
    with pytest.raises(ValueError, match="`r1_gamma` has no effect without") if refused else nullcontext():
        check_r1(task, chosen)
