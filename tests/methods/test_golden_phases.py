"""Whole training phases of the official code, both stages: their losses, and the gradient of every parameter.

`golden/phases.*` were computed on the golden networks (`tests/models/golden.py`) with every noise strength at 0, no
style mixing and no augmentation, on a batch of 8; the same latents serve all phases. The project's tasks and its
trainer run here, gain of the lazy terms included, and nothing of them is written again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from dfmgan_hf import StyleGAN2Generator
from dfmgan_hf.losses import PATH_LENGTH_DECAY
from dfmgan_hf.methods.dfmgan import Stage2Config, Stage2Task
from dfmgan_hf.methods.stylegan2 import Stage1Config, Stage1Task
from dfmgan_hf.models.dfmgan import DEFECT_PREFIXES
from dfmgan_hf.training import Batch
from tests.models.golden import (
    GOLDEN_DIR,
    SIZES,
    golden_discriminator,
    golden_generator,
    golden_match_discriminator,
    our_name,
)
from tests.parameters import set_noise_strength
from tests.training.tiny import make_trainer

PHASES: dict[str, dict[str, Any]] = json.loads((GOLDEN_DIR / "phases.json").read_text())
TENSORS = load_file(GOLDEN_DIR / "phases.safetensors")
with safe_open(GOLDEN_DIR / "phases.safetensors", "pt") as file:
    CONSTANTS = {name: float(value) for name, value in file.metadata().items()}
TOLERANCE = 1e-4

Gradients = dict[str, Tensor]


class Outcome:
    """What a phase reported, and the gradients that its optimiser was given, by network."""

    def __init__(self, reported: dict[str, float], gradients: dict[str, Gradients]) -> None:
        self.reported = reported
        self.gradients = gradients

    def assert_gradients(self, network: str, golden: str) -> None:
        """Norms of all parameters, and whole gradients where there are some, against the phase's largest norm."""
        ours, norms = self.gradients[network], PHASES[golden]["gradient_norm"]
        largest = max(norms.values())
        assert {our_name(name) for name in norms} == {n for n in ours if not n.endswith("noise_strength")}
        for name, norm in norms.items():
            error = abs(ours[our_name(name)].norm().item() - norm)
            assert error <= TOLERANCE * largest, f"{golden} {name}: the norm is {error / largest:.1e} off"
        whole = {k.removeprefix(f"{golden}/"): v for k, v in TENSORS.items() if k.startswith(f"{golden}/")}
        assert whole
        for name, gradient in whole.items():
            error = (ours[our_name(name)] - gradient).norm().item()
            assert error <= TOLERANCE * largest, f"{golden} {name}: the gradient is {error / largest:.1e} off"


def feed(mapping: nn.Module, z: Tensor) -> None:
    """Let a mapping network see these latents, whatever the task draws."""
    mapping.register_forward_pre_hook(lambda _, args: (z[: len(args[0])], *args[1:]))


def settings() -> dict[str, float]:
    """All that the golden run sets; weights and intervals are the tasks' own."""
    return {"batch_size": 8, "lr": 0.0025, "r1_gamma": CONSTANTS["r1_gamma"], "ema_kimg": 2.5, "style_mixing": 0.0}


def make_stage1() -> Stage1Task:
    whole = golden_generator()
    set_noise_strength(whole, 0.0)
    backbone = StyleGAN2Generator(**SIZES, z_dim=64, w_dim=64)
    backbone.load_state_dict({k: v for k, v in whole.state_dict().items() if not k.startswith(DEFECT_PREFIXES)})
    feed(backbone.mapping, TENSORS["z_object"])
    return Stage1Task(backbone, golden_discriminator(), Stage1Config(**settings()))


def make_stage2() -> Stage2Task:
    generator = golden_generator()
    set_noise_strength(generator, 0.0)
    feed(generator.mapping, TENSORS["z_object"])
    feed(generator.defect_mapping, TENSORS["z_defect"])
    return Stage2Task(generator, golden_discriminator(), golden_match_discriminator(), Stage2Config(**settings()))


@pytest.fixture
def run_phase(tmp_path, monkeypatch) -> Callable[[str], Outcome]:
    """Runs one phase of a task in the trainer, up to the optimiser's step."""

    def run(task: Stage1Task, name: str) -> Outcome:
        (phase,) = (p for p in task.phases if p.name == name)
        networks = {n: net for n, net in task.networks.items() if n != "generator_ema"}
        gradients: dict[str, Gradients] = {}

        def step() -> None:
            trained = {id(p) for p in phase.parameters}
            for network, module in networks.items():
                gradients[network] = {
                    n: torch.zeros_like(p) if p.grad is None else p.grad.clone()
                    for n, p in module.named_parameters()
                    if id(p) in trained
                }

        monkeypatch.setattr(phase.optimizer, "step", step)
        monkeypatch.setattr(torch, "randn_like", lambda images: TENSORS["pl_noise"])
        task.path_length.mean = TENSORS["pl_mean"].clone()
        trainer = make_trainer(task, tmp_path, batch_size=8)
        masks = TENSORS["real_mask"] if isinstance(task, Stage2Task) else None
        trainer.run_phase(phase, Batch(TENSORS["real_image"], masks))
        return Outcome(trainer.statistics.collect(), gradients)

    return run


def reported(golden: str, name: str) -> Any:
    return pytest.approx(PHASES[golden]["reported"][name], rel=TOLERANCE)


def test_the_golden_run_is_the_published_one():
    """The numbers would pin nothing if they had been computed with other weights."""
    defaults = Stage2Config(batch_size=8, lr=0.0025, r1_gamma=CONSTANTS["r1_gamma"], ema_kimg=2.5)
    assert defaults.match_weight == CONSTANTS["lambda_match"]
    assert defaults.mode_seeking_weight == CONSTANTS["lambda_mode_seeking"]
    gains = {name.split("/")[1]: phase["gain"] for name, phase in PHASES.items() if phase["gain"] > 1}
    assert gains == {"Greg": 4, "Dreg": 16, "D_matchreg": 16}


def test_stage1_generator(run_phase):
    outcome = run_phase(make_stage1(), "generator")
    assert outcome.reported["loss/generator"] == reported("stage1/Gmain", "Loss/G/loss")
    outcome.assert_gradients("generator", "stage1/Gmain")


def test_stage1_discriminator(run_phase):
    outcome = run_phase(make_stage1(), "discriminator")
    assert outcome.reported["loss/discriminator"] == reported("stage1/Dmain", "Loss/D/loss")
    assert outcome.reported["logits/fake"] == reported("stage1/Dmain", "Loss/scores/fake")
    assert outcome.reported["logits/real"] == reported("stage1/Dmain", "Loss/scores/real")
    assert (outcome.reported["accuracy/real"], outcome.reported["accuracy/fake"]) == (0.0, 1.0)
    outcome.assert_gradients("discriminator", "stage1/Dmain")


def test_stage1_r1(run_phase):
    outcome = run_phase(make_stage1(), "r1")
    assert outcome.reported["r1_penalty"] == reported("stage1/Dreg", "Loss/r1_penalty")
    assert outcome.reported["loss/r1"] == reported("stage1/Dreg", "Loss/D/reg")
    outcome.assert_gradients("discriminator", "stage1/Dreg")


def test_stage2_generator(run_phase):
    outcome = run_phase(make_stage2(), "generator")
    seeking, both = (PHASES["stage2/Gmain"]["reported"][name] for name in ("Loss/mode_seek", "Loss/G/loss"))
    assert outcome.reported["loss/mode_seeking"] == reported("stage2/Gmain", "Loss/mode_seek")
    expected = both + CONSTANTS["lambda_mode_seeking"] * seeking
    assert outcome.reported["loss/generator"] == pytest.approx(expected, rel=TOLERANCE)
    outcome.assert_gradients("generator", "stage2/Gmain")


def test_stage2_both_discriminators(run_phase):
    outcome = run_phase(make_stage2(), "discriminator")
    pairs = {"": ("stage2/Dmain", ""), "match/": ("stage2/D_matchmain", "_match")}
    for ours, (golden, suffix) in pairs.items():
        assert outcome.reported[f"{ours}logits/fake"] == reported(golden, f"Loss/scores/fake{suffix}")
        assert outcome.reported[f"{ours}logits/real"] == reported(golden, f"Loss/scores/real{suffix}")
        assert (outcome.reported[f"{ours}accuracy/real"], outcome.reported[f"{ours}accuracy/fake"]) == (0.0, 1.0)
    total = PHASES["stage2/Dmain"]["reported"]["Loss/D/loss"]
    total += PHASES["stage2/D_matchmain"]["reported"]["Loss/D_match/loss"]
    assert outcome.reported["loss/discriminator"] == pytest.approx(total, rel=TOLERANCE)
    outcome.assert_gradients("discriminator", "stage2/Dmain")
    outcome.assert_gradients("match_discriminator", "stage2/D_matchmain")


def test_stage2_r1_of_both_discriminators(run_phase):
    outcome = run_phase(make_stage2(), "r1")
    assert outcome.reported["r1_penalty"] == reported("stage2/Dreg", "Loss/r1_penalty")
    assert outcome.reported["match/r1_penalty"] == reported("stage2/D_matchreg", "Loss/r1_penalty_match")
    total = PHASES["stage2/Dreg"]["reported"]["Loss/D/reg"]
    total += PHASES["stage2/D_matchreg"]["reported"]["Loss/D_match/reg"]
    assert outcome.reported["loss/r1"] == pytest.approx(total, rel=TOLERANCE)
    outcome.assert_gradients("discriminator", "stage2/Dreg")
    outcome.assert_gradients("match_discriminator", "stage2/D_matchreg")


@pytest.mark.parametrize(("stage", "make"), [("stage1", make_stage1), ("stage2", make_stage2)])
class TestPathLength:
    def test_with_the_official_mean_it_is_the_official_phase(self, run_phase, monkeypatch, stage, make):
        """There, the mean is moved by the step's own lengths first, and the gradient goes through it."""
        task, golden = make(), f"{stage}/Greg"
        average, penalty = task.path_length, task.path_length.penalty

        def official_penalty(lengths: Tensor) -> Tensor:
            penalty(lengths)  # for the update after the step
            return (lengths - average.mean.lerp(lengths.mean(), PATH_LENGTH_DECAY)).square().mean()

        monkeypatch.setattr(average, "penalty", official_penalty)
        outcome = run_phase(task, "path_length")
        assert outcome.reported["loss/path_length"] == reported(golden, "Loss/G/reg")
        outcome.assert_gradients("generator", golden)
        assert average.mean.item() == pytest.approx(PHASES[golden]["pl_mean_after"], rel=TOLERANCE)

    def test_with_the_mean_before_the_step_it_is_a_little_stronger(self, run_phase, stage, make):
        """The deviation that `PathLengthAverage` states: 1 to 2 % of the phase's gradient, and nothing else."""
        task, golden = make(), f"{stage}/Greg"
        outcome = run_phase(task, "path_length")
        norms = PHASES[golden]["gradient_norm"]
        ours = torch.stack([outcome.gradients["generator"][our_name(name)].norm() for name in norms])
        official = torch.tensor(list(norms.values()))
        assert 1.01 < (ours.norm() / official.norm()).item() < 1.02
        loss = outcome.reported["loss/path_length"] / PHASES[golden]["reported"]["Loss/G/reg"]
        assert 1.01 < loss < 1.02
        assert task.path_length.mean.item() == pytest.approx(PHASES[golden]["pl_mean_after"], rel=TOLERANCE)
