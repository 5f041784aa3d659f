"""Stage 2: what it trains, its losses, the mode-seeking loss in parts, and the statistics of masks."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.losses import change_outside
from dfmgan_hf.methods.dfmgan import (
    Drawing,
    Stage2Options,
    build_joint_discriminator,
    mask_difference,
    mode_seeking_distances,
    mode_seeking_loss,
    plan_drawing,
    render,
    report_masks,
)
from dfmgan_hf.models.dfmgan import DEFECT_PREFIXES
from dfmgan_hf.models.stylegan2 import NoiseInput
from dfmgan_hf.training import Batch, MetricsLog, RunningStatistics
from dfmgan_hf.training.task import TrainingWarning
from tests.models.golden import assert_close_to_golden, golden_generator, load_numbers
from tests.parameters import backbone_parameters, defect_parameters, set_noise_strength
from tests.training import tiny


def backbone_tensors(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    state = network.state_dict().items()
    return {name: value.clone() for name, value in state if not name.startswith(DEFECT_PREFIXES)}


def real_batch(n: int = tiny.BATCH) -> Batch:
    data = tiny.drawn_set(n)
    return Batch(data.images / 127.5 - 1, data.masks / 127.5 - 1)


def trainable(parameters: list[torch.nn.Parameter]) -> list[torch.nn.Parameter]:
    for parameter in parameters:
        parameter.requires_grad_(True)
    return parameters


def test_backbone_stays_bit_for_bit(tmp_path):
    task = tiny.make_stage2()
    before = backbone_tensors(task.generator)
    defect_before = {n: v.clone() for n, v in task.generator.state_dict().items() if n.startswith(DEFECT_PREFIXES)}
    trainer = tiny.make_trainer(task, tmp_path, checkpoint_steps=0)
    trainer.train()
    for network in (task.generator, task.generator_ema):
        tiny.assert_same_tensors(backbone_tensors(network), before)
    after = task.generator.state_dict()
    unchanged = [name for name, value in defect_before.items() if torch.equal(after[name], value)]
    # Stored noise is not learnt.
    assert all(name.endswith("noise_const") for name in unchanged), unchanged

    task.export(tmp_path)
    loaded = DFMGANPipeline.from_pretrained(str(tmp_path)).generator
    tiny.assert_same_tensors(backbone_tensors(loaded), before)
    tiny.assert_same_tensors(dict(loaded.state_dict()), dict(task.generator_ema.state_dict()))


def test_no_gradient_and_no_graph_for_frozen_parts():
    task = tiny.make_stage2()
    generator = task.generator
    trainable(defect_parameters(generator))
    drawing = render(generator, plan_drawing(generator, 4, 0.9))
    assert drawing.trunk.features.grad_fn is None
    assert drawing.trunk.image.grad_fn is None
    assert drawing.ws.grad_fn is None
    assert drawing.images.grad_fn is not None
    assert drawing.mask_logits.grad_fn is not None

    statistics = RunningStatistics()
    for phase in task.phases:
        trainable(phase.parameters)
        batch = real_batch()
        if phase.prepare is not None:
            phase.prepare([batch])
        phase.loss(batch, statistics).backward()
        assert all(p.grad is None for p in backbone_parameters(generator)), phase.name
        assert all(p.grad is None for p in task.generator_ema.parameters()), phase.name
        others = {id(p) for p in phase.parameters}
        for network in task.networks.values():
            assert all(p.grad is None for p in network.parameters() if id(p) not in others), phase.name
        assert any(p.grad is not None for p in phase.parameters)
        for parameter in phase.parameters:
            parameter.requires_grad_(False)
            parameter.grad = None


def count_calls(generator: torch.nn.Module) -> Counter[str]:
    calls: Counter[str] = Counter()
    for name, module in generator.named_modules():
        if name.endswith(("conv0", "conv1", "to_rgb")) or name == "to_mask":
            module.register_forward_hook(lambda *_, name=name: calls.update([name]))
    return calls


def test_mode_seeking_runs_the_first_residual_block_and_to_mask_again_and_nothing_else():
    """With residual blocks at 16 and 32, so that there is something above the first to be left out."""
    task = tiny.make_stage2(residual_resolution=8)
    calls = count_calls(task.generator)
    batch = real_batch()
    task.prepare([batch])
    task.generator_loss(batch, RunningStatistics())
    twice = {name for name, count in calls.items() if count == 2}
    assert twice == {"defect_blocks.8.conv0", "defect_blocks.8.conv1", "to_mask"}
    assert {count for name, count in calls.items() if name not in twice} == {1}
    assert {"defect_blocks.16.conv0", "defect_blocks.32.conv1", "synthesis.blocks.32.to_rgb"} <= calls.keys()


def test_accumulation_looks_ahead_with_the_mask_branch_alone():
    task = tiny.make_stage2(residual_resolution=8)
    calls = count_calls(task.generator)
    task.prepare([real_batch(2), real_batch(2)])
    assert calls["defect_blocks.8.conv0"] == calls["to_mask"] == 4
    assert calls["defect_blocks.16.conv0"] == calls["synthesis.blocks.8.conv0"] == 0


def test_the_same_plan_draws_the_same_images():
    task = tiny.make_stage2()
    set_noise_strength(task.generator, 0.5)
    with torch.no_grad():
        plan = plan_drawing(task.generator, 4, 1.0)
        first, second = render(task.generator, plan), render(task.generator, plan)
        masks = render(task.generator, plan, masks_only=True)
    assert torch.equal(first.images, second.images)
    torch.testing.assert_close(first.mask_logits, masks.mask_logits)
    assert masks.images is None


def test_averaged_generator_starts_as_the_trained_one_and_averages_the_defect_branch_only():
    task = tiny.make_stage2()
    (average,) = task.ema
    averaged = {id(a) for a, _ in average._pairs}
    for name, parameter in task.generator_ema.named_parameters():
        assert (id(parameter) in averaged) == name.startswith(DEFECT_PREFIXES)
    tiny.assert_same_tensors(dict(task.generator_ema.state_dict()), dict(task.generator.state_dict()))
    assert average.rampup is None


def test_real_photographs_need_masks():
    task = tiny.make_stage2()
    batch = Batch(real_batch().images)
    with pytest.raises(ValueError, match="needs photographs with masks"):
        task.discriminator_loss(batch, RunningStatistics())


def test_odd_micro_batches_are_refused():
    task = tiny.make_stage2()
    with pytest.raises(ValueError, match="pairs the halves of a micro-batch"):
        task.prepare([real_batch(1), real_batch(1)])


def test_measuring_leaves_the_random_state_alone():
    task = tiny.make_stage2()
    before = torch.get_rng_state()
    statistics = RunningStatistics()
    task.measure(statistics)
    assert torch.equal(torch.get_rng_state(), before)
    masks = {f"mask_{name}/fake" for name in ("area", "empty", "full", "border")}
    assert statistics.collect().keys() == {"defect_change/mask", "defect_change/image", *masks}


def test_measured_change_is_none_for_a_generator_that_ignores_the_defect_latent():
    task = tiny.make_stage2()
    with torch.no_grad():
        for parameter in task.generator_ema.defect_mapping.parameters():
            parameter.zero_()
        task.generator_ema.to_mask.bias.fill_(1.0)
    statistics = RunningStatistics()
    task.measure(statistics)
    means = statistics.collect()
    assert (means["defect_change/mask"], means["defect_change/image"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"mode_seeking_weight": 0.0},
        {"mode_seeking_weight": 1.0},
        {"mode_seeking_on": "image"},
        {"mode_seeking_latents": "z"},
        {"match": "none"},
        {"match": "joint"},
        {"match": "medium"},
        {"match": "large"},
        {"match_weight": 0.5},
        {"outside_weight": 10.0},
        {"residual_resolution": 8},
        {"residual_resolution": 32},
    ],
    ids=lambda options: "-".join(f"{k}={v}" for k, v in options.items()),
)
def test_ablations_train(tmp_path, options):
    """Each option of the paper's ablation, once through all phases."""
    task = tiny.make_stage2(**options)
    trainer = tiny.make_trainer(task, tmp_path, steps=2, log_steps=2, checkpoint_steps=0)
    trainer.train()
    row = trainer._rows[-1]
    assert ("loss/mode_seeking" in row) == (options.get("mode_seeking_weight", 1) > 0)
    assert ("loss/match" in row) == (options.get("match") not in ("none", "joint"))
    assert row["gradient_norm/generator"] > 0
    if "residual_resolution" in options:
        assert task.generator.residual_resolutions[0] == options["residual_resolution"]


def test_options_change_the_loss():
    """The ablations are different losses of the same networks and random numbers."""
    losses = {}
    for name, options in {
        "published": {},
        "none": {"mode_seeking_weight": 0.0},
        "larger": {"mode_seeking_weight": 0.2},
        "no match": {"match": "none"},
        "joint": {"match": "joint"},
        "half match": {"match_weight": 0.5},
        "outside": {"outside_weight": 10.0},
    }.items():
        task = tiny.make_stage2(**options)
        batch = real_batch()
        torch.manual_seed(3)
        task.prepare([batch])
        losses[name] = task.generator_loss(batch, RunningStatistics()).item()
    assert len({round(loss, 6) for loss in losses.values()}) == len(losses), losses
    seeking = losses["published"] - losses["none"]
    assert losses["larger"] - losses["none"] == pytest.approx(2 * seeking, rel=1e-3)


def test_the_joint_discriminator_starts_as_stage_1s_and_learns_from_the_mask():
    _, discriminator = tiny.make_networks()
    joint = build_joint_discriminator(discriminator)
    images, masks = torch.randn(4, 3, 32, 32), torch.randn(4, 1, 32, 32)
    torch.testing.assert_close(joint(torch.cat([images, masks], dim=1)).logits, discriminator(images).logits)
    task = tiny.make_stage2(match="joint")
    batch = real_batch()
    (weight,) = (p for n, p in task.discriminator.named_parameters() if n.endswith("from_rgb.weight"))
    for phase in task.phases[2:]:
        parameters = trainable(phase.parameters)
        phase.loss(batch, RunningStatistics()).backward()
        if phase.name == "discriminator":
            assert weight.grad is not None
            assert weight.grad[:, 3].abs().sum() > 0, "the mask is not seen"
        for parameter in parameters:
            parameter.grad = None


def test_the_joint_discriminator_moves_the_masks():
    """Once its mask channel has weights, ToMask is trained by it alone."""
    task = tiny.make_stage2(match="joint", mode_seeking_weight=0.0)
    with torch.no_grad():
        for name, parameter in task.discriminator.named_parameters():
            if name.endswith("from_rgb.weight"):
                parameter[:, 3] = 1.0
    trainable(defect_parameters(task.generator))
    batch = real_batch()
    task.prepare([batch])
    task.generator_loss(batch, RunningStatistics()).backward()
    assert task.generator.to_mask.weight.grad.abs().sum() > 0


def test_what_changes_outside_the_mask_costs_and_only_that():
    images, twins = torch.zeros(2, 3, 4, 4, requires_grad=True), torch.zeros(2, 3, 4, 4)
    with torch.no_grad():
        images[0, :, 0, 0], images[1, :, 3, 3] = 0.5, -0.25
    mask_logits = torch.full((2, 1, 4, 4), -1.0)
    mask_logits[0, 0, 0, 0] = 0.0
    loss = change_outside(images, twins, mask_logits)
    assert loss.item() == pytest.approx(0.25 / 32)
    loss.backward()
    assert images.grad is not None
    assert images.grad[0].count_nonzero() == 0
    assert images.grad[1].count_nonzero() == 3


def test_the_term_outside_the_mask_trains_the_residual_blocks_alone():
    task = tiny.make_stage2(outside_weight=10.0)
    with torch.no_grad():
        task.generator.to_mask.bias.fill_(0.05)
    parameters = dict(task.generator.named_parameters())
    for parameter in defect_parameters(task.generator):
        parameter.requires_grad_(True)
    drawing = render(task.generator, task._plan(real_batch(4)), with_twins=True)
    assert drawing.twins is not None
    assert not drawing.twins.requires_grad
    change_outside(drawing.images, drawing.twins, drawing.mask_logits).backward()
    moved = {name for name, p in parameters.items() if p.grad is not None and p.grad.abs().sum() > 0}
    assert any(name.startswith("defect_blocks.") for name in moved)
    assert not any(name.startswith(("to_mask.bias", "synthesis.", "mapping.")) for name in moved)


def equation2(latents1, latents2, outputs1, outputs2) -> torch.Tensor:
    """Equation 2 of DFMGAN, word by word."""
    return (latents1 - latents2).abs().mean() / (outputs1 - outputs2).abs().mean()


@torch.no_grad()
def test_golden():
    numbers, generator = load_numbers(), golden_generator()
    ws = generator.mapping(numbers["z_object"]).unsqueeze(1).expand(-1, generator.num_latents, -1)
    defect_ws = generator.defect_mapping(numbers["z_defect"]).unsqueeze(1)
    defect_ws = defect_ws.expand(-1, generator.num_defect_latents, -1)
    trunk = generator.run_trunk(ws, NoiseInput("const", len(ws)))
    masks = generator.mask_logits(trunk, defect_ws)
    drawing = Drawing(None, masks, None, trunk, ws, defect_ws, numbers["z_defect"])
    distances = mode_seeking_distances(generator, drawing, "mask", "w")
    assert_close_to_golden(mode_seeking_loss(distances, distances), numbers["mode_seeking_loss"])


@pytest.mark.parametrize("on", ["mask", "image"])
@pytest.mark.parametrize("latents", ["w", "z"])
def test_mode_seeking_is_equation_2_of_whole_images(on, latents):
    """Value and gradients against whole passes of the generator, without noise, which at first has no strength."""
    task = tiny.make_stage2(mode_seeking_on=on, mode_seeking_latents=latents, style_mixing=1.0)
    parameters = trainable([p for p in defect_parameters(task.generator) if p.ndim])  # not the noise strengths
    drawing = render(task.generator, task._plan(real_batch(4)))
    part = task._distances(drawing)
    loss = mode_seeking_loss(part, part.detach())

    defects, objects = drawing.defect_ws, drawing.ws[:2]
    first, second = (
        task.generator(objects, ws, noise_mode="none", object_latent_space="w+", defect_latent_space="w+")
        for ws in (defects[:2], defects[2:])
    )
    codes = defects if latents == "w" else drawing.defect_z
    outputs = [torch.tanh(10 * out.mask_logits) if on == "mask" else out.images for out in (first, second)]
    expected = equation2(codes[:2], codes[2:], *outputs)
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=0.0)
    options = {"retain_graph": True, "allow_unused": True, "materialize_grads": True}
    ours, theirs = (
        torch.cat([gradient.flatten() for gradient in torch.autograd.grad(value, parameters, **options)])
        for value in (loss, expected)
    )
    assert theirs.norm() > 0
    assert (ours - theirs).norm() < 1e-3 * theirs.norm()


@pytest.mark.parametrize("on", ["mask", "image"])
def test_both_halves_of_mode_seeking_have_the_same_noise(on):
    """The same defects on the same objects are the same pictures: noise alone would keep them apart."""
    task = tiny.make_stage2(mode_seeking_on=on)
    set_noise_strength(task.generator, 0.5)
    with torch.no_grad():
        drawing = render(task.generator, task._plan(real_batch(4)))
        assert task._distances(drawing)[1] > 1e-3
        same = drawing.defect_ws[:2].repeat(2, 1, 1)
        out = task.generator.synthesize_defect(drawing.trunk, drawing.ws, same)
        repeated = replace(drawing, images=out.images, mask_logits=out.mask_logits, defect_ws=same)
        spread = task._distances(repeated)[1]
    assert spread < 1e-5  # not 0: convolutions round batches of two and of four differently


def test_a_loss_without_its_preparation_says_so():
    with pytest.raises(RuntimeError, match="Call `prepare` with all micro-batches"):
        tiny.make_stage2().generator_loss(real_batch(), RunningStatistics())


@pytest.mark.parametrize("name", ["match_weight", "mode_seeking_weight", "outside_weight"])
def test_weights_are_not_negative(name):
    with pytest.raises(ValueError, match=f"`{name}` must be finite and at least 0, but is -1"):
        Stage2Options(**{name: -1.0})


def distances(codes: torch.Tensor, outputs: torch.Tensor) -> torch.Tensor:
    half = len(codes) // 2
    return torch.stack([(codes[:half] - codes[half:]).abs().mean(), (outputs[:half] - outputs[half:]).abs().mean()])


def test_one_part_is_the_published_loss():
    codes, outputs = torch.randn(4, 3, 5, requires_grad=True), torch.randn(4, 1, 6, 6, requires_grad=True)
    expected = equation2(codes[:2], codes[2:], outputs[:2], outputs[2:])
    part = distances(codes, outputs)
    loss = mode_seeking_loss(part, part.detach())
    assert torch.allclose(loss, expected)
    for ours, theirs in zip(
        torch.autograd.grad(loss, [codes, outputs]), torch.autograd.grad(expected, [codes, outputs]), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-7)


def test_parts_together_are_the_whole_batch():
    """Not the mean of the parts' ratios, which differs."""
    codes = torch.randn(4, 2, 5, dtype=torch.float64, requires_grad=True)
    outputs = torch.randn(4, 2, 7, dtype=torch.float64, requires_grad=True)
    # The second part's outputs are ten times as far apart.
    masks = outputs * torch.tensor([1.0, 10.0], dtype=torch.float64)[:, None]
    whole = equation2(codes[:2], codes[2:], masks[:2], masks[2:])
    parts = [distances(codes[:, i], masks[:, i]) for i in range(2)]
    means = torch.stack(parts).mean(dim=0).detach()
    loss = sum(mode_seeking_loss(part, means) for part in parts) / 2
    assert torch.allclose(loss, whole)
    assert not torch.allclose(sum(mode_seeking_loss(part, part.detach()) for part in parts) / 2, whole)
    gradients = torch.autograd.grad(loss, [codes, outputs], retain_graph=True)
    for ours, theirs in zip(gradients, torch.autograd.grad(whole, [codes, outputs]), strict=True):
        assert torch.allclose(ours, theirs)


def test_equal_masks_give_a_finite_loss_and_gradient():
    codes, outputs = torch.randn(2, 3, requires_grad=True), torch.zeros(2, 4, requires_grad=True)
    part = distances(codes, outputs)
    loss = mode_seeking_loss(part, part.detach())
    loss.backward()
    assert loss.isfinite()
    assert loss > 1e6
    assert outputs.grad.abs().sum() == 0


def test_rates_of_drawn_masks():
    masks = torch.zeros(5, 1, 10, 10, dtype=torch.bool)
    masks[1] = True
    masks[2, 0, 4:6, 4:6] = True
    masks[3, 0, 3, 9] = True
    masks[4, 0, 1:9, 1:9] = True
    statistics = RunningStatistics()
    report_masks(statistics, "fake", masks)
    means = statistics.collect()
    assert abs(means["mask_area/fake"] - (0 + 1 + 0.04 + 0.01 + 0.64) / 5) < 1e-6
    assert abs(means["mask_empty/fake"] - 1 / 5) < 1e-9
    assert abs(means["mask_full/fake"] - 1 / 5) < 1e-9
    assert abs(means["mask_border/fake"] - 2 / 5) < 1e-9


def test_masks_are_reported_and_warned_of_as_they_will_be_saved(tmp_path):
    """The generator in training draws no defects here, its average full masks, or the other way round."""
    for average, warning in ((100.0, "masks_full"), (-100.0, "masks_empty")):
        task = tiny.make_stage2(ema_kimg=1000.0, ema_rampup=None)
        with torch.no_grad():
            task.generator.to_mask.bias.fill_(-average)
            task.generator_ema.to_mask.bias.fill_(average)
        folder = tmp_path / warning
        trainer = tiny.make_trainer(task, folder, steps=5, log_steps=1, checkpoint_steps=0)
        with pytest.warns(TrainingWarning, match="of the generated masks"):
            trainer.train()
        row = MetricsLog(folder / "metrics.jsonl").rows()[-1]
        assert {"masks_full", "masks_empty"} & row["warnings"].keys() == {warning}
        task.export(folder)
        saved = DFMGANPipeline.from_pretrained(str(folder)).generator
        masks = saved(*task.sheet_latents, noise_mode="const").mask_logits >= 0
        assert row["mask_area/fake"] == masks.float().mean() == (average > 0)


def test_mask_difference():
    first = torch.zeros(3, 1, 4, 4, dtype=torch.bool)
    second = first.clone()
    first[1, 0, 0, :2] = second[1, 0, 0, 1:3] = True
    first[2] = second[2] = True
    assert torch.allclose(mask_difference(first, second), torch.tensor([0.0, 2 / 3, 0.0]))
