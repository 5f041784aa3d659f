"""What the phases of both stages look at, where no constant says it: who sees what, and what starts from what."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dfmgan_hf.augmentation import AdaController
from dfmgan_hf.methods.dfmgan import METHOD, plan_drawing
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest, load_backbone
from dfmgan_hf.models import stylegan2
from dfmgan_hf.models.dfmgan import DEFECT_PREFIXES
from dfmgan_hf.models.discriminator import StyleGAN2DiscriminatorOutput
from dfmgan_hf.training import Batch, RunningStatistics
from tests.training import tiny

STAGES = ("stage1", "stage2")


def real_batch() -> Batch:
    data = tiny.drawn_set(tiny.BATCH)
    return Batch(data.images / 127.5 - 1, data.masks / 127.5 - 1)


def run_phase(task, name: str, batch: Batch) -> None:
    """A phase's forward pass."""
    (phase,) = (p for p in task.phases if p.name == name)
    for parameter in phase.parameters:
        parameter.requires_grad_(True)
    if phase.prepare is not None:
        phase.prepare([batch])
    phase.loss(batch, RunningStatistics())
    for parameter in phase.parameters:
        parameter.requires_grad_(False)


def inputs_of(network: nn.Module) -> list[Tensor]:
    """Everything that a network is given from now on."""
    seen: list[Tensor] = []
    network.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    return seen


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("real", "expected"), [(1.0, 0.01), (-1.0, 0.0)])
def test_ada_watches_the_real_images(tmp_path, stage, real, expected):
    """Augmentation becomes stronger if the discriminator knows them by heart, whatever it says of generated ones."""

    def judge(_: nn.Module, args: tuple[Tensor], output: StyleGAN2DiscriminatorOutput) -> StyleGAN2DiscriminatorOutput:
        pixels = (args[0] + 1) * 127.5
        is_real = torch.allclose(pixels, pixels.round(), atol=1e-3)
        return StyleGAN2DiscriminatorOutput(logits=output.logits * 1e-6 + (real if is_real else -real))

    task = tiny.MAKE[stage]()
    task.ada = AdaController(tiny.BATCH, interval=2, ramp_kimg=tiny.BATCH * 2 / 1000 / 0.01)
    task.discriminator.register_forward_hook(judge)
    tiny.make_trainer(task, tmp_path, steps=2, checkpoint_steps=0).train()
    assert task.ada.r_t.item() == real
    assert task.ada.p.item() == pytest.approx(expected)


def test_every_process_resumes_with_what_all_have_seen():
    """ADA's counts are each process's own between its steps: a checkpoint holds their mean."""
    task = tiny.make_stage1()
    task.ada = AdaController(tiny.BATCH, interval=4)
    task.ada.observe(torch.tensor([1.0, 1.0, 1.0, -1.0]))
    of_the_other = torch.tensor([-4.0, 4.0])
    task.mean_over_processes = lambda sums: (sums + of_the_other) / 2
    assert task.state_dict()["ada.sums"].tolist() == [-1.0, 4.0]


@pytest.mark.parametrize("stage", STAGES)
def test_the_average_counts_images(tmp_path, monkeypatch, stage):
    """Once a step by the whole batch, however many micro-batches it has: its half-life is given in images."""
    task = tiny.MAKE[stage]()
    (average,) = task.ema
    calls: list[tuple[int, int]] = []
    monkeypatch.setattr(average, "update", lambda *counts: calls.append(counts))
    tiny.make_trainer(task, tmp_path, steps=2, checkpoint_steps=0, accumulation_steps=2).train()
    assert calls == [(tiny.BATCH, tiny.BATCH), (tiny.BATCH, 2 * tiny.BATCH)]


@pytest.mark.parametrize("stage", STAGES)
def test_w_avg_follows_the_latent_that_mixing_leaves_in_the_first_layer(stage):
    """By the generator phase alone, once a step."""
    task, batch = tiny.MAKE[stage](style_mixing=1.0), real_batch()
    mapped: list[Tensor] = []
    task.w_average.mapping.register_forward_hook(lambda *args: mapped.append(args[2].detach()))
    for phase in ("path_length", "discriminator", "r1"):
        run_phase(task, phase, batch)
    mapped.clear()
    run_phase(task, "generator", batch)
    first, mixed = mapped[0].chunk(2)
    assert len(mapped) == 1
    assert torch.equal(task.w_average.sum, first.mean(dim=0))
    assert not torch.allclose(task.w_average.sum, mixed.mean(dim=0))
    assert task.w_average.parts == 1


@pytest.mark.parametrize("stage", STAGES)
def test_the_discriminator_sees_nothing_that_is_not_augmented(monkeypatch, stage):
    """Real and generated images, in its own step, the generator's and R1; the matching one sees them as they are."""
    task, batch = tiny.MAKE[stage](), real_batch()
    monkeypatch.setattr(task, "augment", lambda images, p: images.clamp(-1, 1) + 100)
    seen, calls = inputs_of(task.discriminator), 0
    matched = inputs_of(task.match_discriminator) if stage == "stage2" else []
    for phase, times in {"generator": 1, "path_length": 0, "discriminator": 2, "r1": 1}.items():
        run_phase(task, phase, batch)
        calls += times
        assert len(seen) == calls, phase
    assert all(images.min() >= 99 for images in seen)
    assert len(matched) == (calls if stage == "stage2" else 0)
    assert all(images.max() < 50 for images in matched)


@pytest.mark.parametrize("phase", ["generator", "discriminator"])
def test_the_matching_discriminator_sees_the_soft_masks_of_what_is_generated(monkeypatch, phase):
    """tanh(10 M), also in its own step: on logits it would tell them from real masks by their range."""
    task, batch = tiny.make_stage2(mode_seeking_weight=0.0), real_batch()
    drawn = []
    synthesize = task.generator.synthesize_defect

    def keep(*args, **options):
        drawn.append(synthesize(*args, **options))
        return drawn[-1]

    monkeypatch.setattr(task.generator, "synthesize_defect", keep)
    seen = inputs_of(task.match_discriminator)
    run_phase(task, phase, batch)
    (out,) = drawn
    assert 0.01 < out.mask_logits.abs().mean() < 10
    assert torch.equal(seen[0], torch.cat([out.images, torch.tanh(10 * out.mask_logits)], dim=1))
    real = [torch.cat([batch.images, batch.masks], dim=1)] if phase == "discriminator" else []
    assert len(seen) == 1 + len(real)
    assert all(torch.equal(a, b) for a, b in zip(seen[1:], real, strict=True))
    assert set(batch.masks.unique().tolist()) == {-1.0, 1.0}


def styles_of(monkeypatch: pytest.MonkeyPatch, generator: nn.Module) -> dict[str, Tensor]:
    """The latent that each layer is given first from now on."""
    seen: dict[str, Tensor] = {}
    names = {module: f"{name}." for name, module in generator.named_modules()}

    def note(requests: list[Any], *options: Any) -> Any:
        for layer, _, w in requests:
            seen.setdefault(names[layer], w.detach())
        return modulate(requests, *options)

    modulate = stylegan2.modulate
    monkeypatch.setattr(stylegan2, "modulate", note)
    return seen


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("phase", ["generator", "path_length", "discriminator"])
@pytest.mark.parametrize(("chance", "latents"), [(0.89, 2), (0.91, 1)])
def test_styles_are_mixed_with_a_chance_of_nine_in_ten(monkeypatch, stage, phase, chance, latents):
    """In every phase that draws, in the object's latents and, by itself, in the defect's."""
    task = tiny.MAKE[stage]()
    task.augment = None
    styles = styles_of(monkeypatch, task.generator)
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.full((), chance))
    run_phase(task, phase, real_batch())
    branches = {"object": [w for name, w in styles.items() if not name.startswith(DEFECT_PREFIXES)]}
    if stage == "stage2":
        branches["defect"] = [w for name, w in styles.items() if name.startswith(DEFECT_PREFIXES)]
    for branch, ws in branches.items():
        assert len(ws) >= 7, branch
        assert len({tuple(w[0].tolist()) for w in ws}) == latents, branch


def test_object_and_defect_are_mixed_each_for_itself():
    generator = tiny.make_stage2().generator
    plans = [plan_drawing(generator, 1, 0.5) for _ in range(400)]
    layers = generator.num_latents, generator.num_defect_latents
    cuts = {(int(plan.objects.cut), int(plan.defects.cut)) for plan in plans}
    mixed = {(a < layers[0], b < layers[1]) for a, b in cuts}
    assert len(mixed) == 4
    for branch, count in enumerate(layers):
        assert {pair[branch] for pair in cuts} == set(range(1, count + 1))
    assert len(cuts) > 2 * max(layers)


def copied(network: nn.Module, keep: Callable[[str], bool] = lambda name: True) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in network.state_dict().items() if keep(name)}


def is_backbone(name: str) -> bool:
    return not name.startswith(DEFECT_PREFIXES)


def test_stage2_starts_from_what_stage1_wrote(tmp_path):
    """From its averaged generator and its discriminator; both generators keep that backbone bit for bit."""
    first = tiny.run("stage1", tmp_path / "stage1", checkpoint_steps=0).task
    first.export(tmp_path / "stage1")
    averaged, discriminator = copied(first.generator_ema), copied(first.discriminator)
    assert not torch.equal(
        averaged["synthesis.blocks.4.const"], first.generator.state_dict()["synthesis.blocks.4.const"]
    )
    assert averaged["mapping.w_avg"].abs().sum() > 0

    networks = load_backbone(str(tmp_path / "stage1"))
    recipe = METHOD.resolve("auto", RecipeConfig(batch_size=tiny.BATCH, ema_kimg=0.001), networks, 1)
    target = Target(torch.device("cpu"))
    task = METHOD.build(TaskRequest(recipe, METHOD.options(), AugmentationConfig("bgc"), target, None, networks))
    tiny.assert_same_tensors(copied(task.discriminator), discriminator)
    for generator in (task.generator, task.generator_ema):
        tiny.assert_same_tensors(copied(generator, is_backbone), averaged)
    matching = copied(task.match_discriminator)

    tiny.make_trainer(task, tmp_path / "stage2", steps=2, checkpoint_steps=0).train()
    for generator in (task.generator, task.generator_ema):
        tiny.assert_same_tensors(copied(generator, is_backbone), averaged)
        assert generator.defect_mapping.w_avg.abs().sum() > 0
    for network, before in ((task.discriminator, discriminator), (task.match_discriminator, matching)):
        assert not any(torch.equal(p, before[name]) for name, p in network.named_parameters())
    tiny.assert_same_tensors(copied(networks[1]), discriminator, "stage 1's ")
