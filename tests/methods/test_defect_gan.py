"""Defect-GAN: its losses on networks whose answer is known, and what it draws."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmgan_hf.methods.defect_gan import DEFECT, METHOD, NORMAL, DefectGANOptions
from dfmgan_hf.methods.method import RecipeConfig
from dfmgan_hf.models.defect_gan import DefectGANDiscriminatorOutput, DefectGANGeneratorOutput
from dfmgan_hf.training import RunningStatistics
from tests.methods.translation import BATCH, batch_of, learning_rates, make_task
from tests.parameters import set_noise_strength


class Fixed(nn.Module):
    """A generator with the same foreground and spatial distribution everywhere."""

    def __init__(self, foreground: float, distribution: float) -> None:
        super().__init__()
        self.values = foreground, distribution
        self.controls: list[Tensor] = []

    def forward(self, images: Tensor, control: Tensor, generator: object = None) -> DefectGANGeneratorOutput:
        self.controls.append(control)
        foreground = torch.full_like(images, self.values[0])
        distribution = torch.full_like(images[:, :1], self.values[1])
        return DefectGANGeneratorOutput(torch.lerp(images, foreground, distribution), foreground, distribution)


class Judge(nn.Module):
    """Scores by the mean and is quite sure of one class."""

    def forward(self, images: Tensor) -> DefectGANDiscriminatorOutput:
        scores = images.mean(dim=(1, 2, 3), keepdim=True)
        return DefectGANDiscriminatorOutput(scores, torch.tensor([[-20.0, 20.0]]).expand(len(images), -1))


def test_weights_and_schedule_are_the_published_ones(category):
    options = DefectGANOptions()
    weights = (
        options.real_class_weight,
        options.fake_class_weight,
        options.reconstruction_weight,
        options.distribution_cycle_weight,
        options.distribution_weight,
    )
    assert weights == (2, 5, 5, 5, 1)
    task = make_task(METHOD, category, total_kimg=10 * BATCH / 1000)
    assert {phase.name: phase.interval for phase in task.phases} == {"discriminator": 1, "generator": 5}
    for step, lr in ((5, 1.005e-4), (10, 1e-6)):
        task.after_step(step, RunningStatistics())
        assert learning_rates(task) == pytest.approx([lr, lr])
    resumed = make_task(METHOD, category, total_kimg=10 * BATCH / 1000)
    resumed.load_state_dict(task.state_dict())
    assert learning_rates(resumed) == pytest.approx([1e-6, 1e-6])


def test_generator_that_changes_nothing_pays_for_its_classes_alone(category):
    """With m = 0 everywhere reconstruction, both distribution terms and the change of the image are zero."""
    task = make_task(METHOD, category)
    task.generator, task.discriminator = Fixed(1.0, 0.0), Judge()
    torch.manual_seed(0)
    loss = task.generator_loss(batch_of(category), RunningStatistics())
    torch.manual_seed(0)
    images, _ = task._domains(batch_of(category))
    # The judge takes all for defects: right for half of what is wanted, and wrong by 40 for the other half.
    torch.testing.assert_close(loss, -images.mean() + 5 * 40 / 2)
    wanted, back = (control.argmax(dim=1).flatten().tolist() for control in task.generator.controls)
    assert wanted == [DEFECT] * BATCH + [NORMAL] * BATCH
    assert back == [NORMAL] * BATCH + [DEFECT] * BATCH


def test_generator_loss_adds_up_both_directions(category):
    """A constant generator, for which every term is known."""
    foreground, m = 0.5, 0.25
    weights = {"fake_class_weight": 0.0, "reconstruction_weight": 3.0, "distribution_weight": 7.0}
    task = make_task(METHOD, category, **weights)
    task.generator, task.discriminator = Fixed(foreground, m), Judge()
    torch.manual_seed(0)
    loss = task.generator_loss(batch_of(category), RunningStatistics())
    torch.manual_seed(0)
    images, _ = task._domains(batch_of(category))
    there = images * (1 - m) + foreground * m
    back = there * (1 - m) + foreground * m
    reconstruction = F.l1_loss(back[:BATCH], images[:BATCH]) + F.l1_loss(back[BATCH:], images[BATCH:])
    torch.testing.assert_close(loss, -there.mean() + 3 * reconstruction + 7 * 4 * m)


def test_discriminator_cannot_tell_equal_images_apart(category):
    """With m = 0 fakes are the real images: all that is left are the penalty and the classes."""
    task = make_task(METHOD, category, gradient_penalty_weight=0.0)
    task.generator = Fixed(0.0, 0.0)
    statistics = RunningStatistics()
    torch.manual_seed(0)
    loss = task.discriminator_loss(batch_of(category), statistics)
    torch.manual_seed(0)
    images, labels = task._domains(batch_of(category))
    torch.testing.assert_close(loss, 2 * F.cross_entropy(task.discriminator(images).class_logits, labels))


@pytest.mark.parametrize(
    "option",
    ["gradient_penalty_weight", "real_class_weight", "fake_class_weight", "reconstruction_weight",
     "distribution_cycle_weight", "distribution_weight"],
)  # fmt: skip
def test_every_weight_has_its_term(category, option):
    losses = []
    for weight in (0.0, 1.0, 2.0):
        task = make_task(METHOD, category, **{option: weight})
        torch.manual_seed(1)
        batch = batch_of(category)
        loss = task.discriminator_loss(batch, RunningStatistics())
        torch.manual_seed(2)
        losses.append((loss + task.generator_loss(batch, RunningStatistics())).item())
    first, second = losses[1] - losses[0], losses[2] - losses[1]
    assert first > 1e-4
    assert second == pytest.approx(first, rel=0.01)


def test_published_sizes(category):
    paper = METHOD.resolve("auto", RecipeConfig(), None, 1)
    assert (paper.resolution, paper.batch_size, paper.lr, paper.total_kimg) == (256, 4, 2e-4, 400)
    assert paper.channel_base // paper.resolution == 64
    task = make_task(METHOD, category, device="meta", channel_base=64 * 32)
    assert (task.generator.config["base_channels"], task.generator.config["spade_channels"]) == (64, 128)


# --- drawing ---


def test_image_depends_on_its_seed_alone(category):
    task = make_task(METHOD, category)
    set_noise_strength(task.generator, 0.5)
    sampler = METHOD.sample_task(task)
    images, masks = sampler.sample_at(range(20), seed=3)
    assert masks is None
    assert images.shape == (20, 1, 32, 32)
    torch.manual_seed(9)
    assert torch.equal(sampler.sample_at([12, 4], seed=3)[0], images[[12, 4]])
    assert torch.equal(sampler.sample_at([10], seed=5)[0], images[12:13])
    # Six photographs, and noise that makes every image another one.
    assert len(images.flatten(1).unique(dim=0)) == 20
