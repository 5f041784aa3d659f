"""Both stages' losses written the straightforward way: the baseline that training speed-ups are taken against.

The layers of `naive_networks`, every parameter with gradients all the time, generated images with a graph even for the
discriminator, and in stage 2 a graph through the frozen trunk, images drawn anew for each discriminator, and a whole
second pass for the mode-seeking loss. The random numbers are drawn as the package's tasks draw them, so that equal
seeds give equal losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfmgan_hf.methods.drawing import Plan, plan_drawing
from dfmgan_hf.methods.latents import LatentDraw, draw_latents
from dfmgan_hf.methods.stage1 import Stage1Task
from dfmgan_hf.methods.stage2 import Stage2Task
from dfmgan_hf.models import StyleGAN2Discriminator
from dfmgan_hf.models.mapping import MappingNetwork
from dfmgan_hf.training import Batch

from .naive_networks import RandomNoise, discriminate, make_contiguous, mapping, synthesize


@dataclass
class NaivePhase:
    """One loss, what it trains, and how often it is due.

    Args:
        name: as in the task.
        loss: of a batch.
        parameters: what it trains.
        optimizer: Adam, one tensor after the other.
        interval: iterations between two.
    """

    name: str
    loss: Callable[[Batch], Tensor]
    parameters: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    interval: int

    def run(self, batch: Batch) -> None:
        self.backward(batch)
        self.optimizer.step()

    def backward(self, batch: Batch) -> None:
        self.optimizer.zero_grad()  # what the other network's loss has left
        (self.loss(batch) * self.interval).backward()


def naive_phases(task: Stage1Task | Stage2Task) -> list[NaivePhase]:
    """The task's phases on its own networks, whose parameters all have gradients from now on."""
    losses = Stage2Losses(task) if isinstance(task, Stage2Task) else Stage1Losses(task)
    for network in task.networks.values():
        make_contiguous(network).requires_grad_(True)
    return [
        NaivePhase(
            phase.name,
            getattr(losses, phase.name),
            phase.parameters,
            torch.optim.Adam(phase.parameters, lr=0.0025, betas=(0.0, 0.99), foreach=False, fused=False),
            phase.interval,
        )
        for phase in task.phases
    ]


def latents(network: MappingNetwork, drawn: LatentDraw, num_latents: int) -> Tensor:
    ws = mapping(network, drawn.z).unsqueeze(1).repeat(1, num_latents, 1)
    if drawn.mixed_z is None:
        return ws
    other = mapping(network, drawn.mixed_z).unsqueeze(1).repeat(1, num_latents, 1)
    return torch.cat([ws[:, : drawn.cut], other[:, drawn.cut :]], dim=1)


def r1(logits: Tensor, inputs: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(logits.sum(), inputs, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()


def path_length_penalty(images: Tensor, ws: Tensor, mean: Tensor) -> Tensor:
    # In the memory order of the package's images, so that both draw the same noise.
    noise = torch.randn_like(images, memory_format=torch.channels_last) / math.sqrt(images.shape[2] * images.shape[3])
    (gradient,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
    return (gradient.square().sum(dim=2).mean(dim=1).sqrt() - mean).square().mean()


class Stage1Losses:
    def __init__(self, task: Stage1Task) -> None:
        self.task, self.settings = task, task.settings

    def judge(self, images: Tensor) -> Tensor:
        if self.task.augment is not None:
            images = self.task.augment(images, 1.0 if self.task.ada is None else self.task.ada.p)
        return discriminate(self.task.discriminator, images)

    def draw(self, n: int) -> tuple[Tensor, Tensor]:
        g = self.task.generator
        ws = latents(g.mapping, draw_latents(g.mapping, n, g.num_latents, self.settings.style_mixing), g.num_latents)
        return synthesize(g, ws, RandomNoise())[0], ws

    def generator(self, batch: Batch) -> Tensor:
        images, _ = self.draw(len(batch))
        return F.softplus(-self.judge(images)).mean()

    def path_length(self, batch: Batch) -> Tensor:
        images, ws = self.draw(max(len(batch) // 2, 1))
        return self.settings.path_length_weight * path_length_penalty(images, ws, self.task.path_length.mean)

    def discriminator(self, batch: Batch) -> Tensor:
        images, _ = self.draw(len(batch))
        fake, real = self.judge(images.detach()), self.judge(batch.images)
        return F.softplus(fake).mean() + F.softplus(-real).mean()

    def r1(self, batch: Batch) -> Tensor:
        images = batch.images.detach().requires_grad_()
        return self.settings.r1_gamma / 2 * r1(self.judge(images), images)


class Stage2Losses(Stage1Losses):
    task: Stage2Task  # type: ignore[assignment]

    def __init__(self, task: Stage2Task) -> None:
        self.task, self.settings = task, task.settings  # type: ignore[assignment]

    @property
    def match(self) -> StyleGAN2Discriminator:
        assert self.task.match_discriminator is not None
        return self.task.match_discriminator

    def plan(self, batch: Batch) -> Plan:
        return plan_drawing(self.task.generator, len(batch), self.settings.style_mixing)

    def draw_plan(self, plan: Plan) -> tuple[Tensor, Tensor, Tensor, Tensor, RandomNoise]:
        """Images, soft masks, both latents, and the noise that was drawn."""
        g = self.task.generator
        ws = latents(g.mapping, plan.objects, g.num_latents)
        defect_ws = latents(g.defect_mapping, plan.defects, g.num_defect_latents)
        noise = RandomNoise(torch.Generator().manual_seed(plan.noise_seed))
        images, mask = synthesize(g, ws, noise, defect_ws)
        assert mask is not None
        return images, torch.tanh(10 * mask), ws, defect_ws, noise

    def generator(self, batch: Batch) -> Tensor:
        plan = self.plan(batch)
        images, masks, ws, defect_ws, noise = self.draw_plan(plan)
        loss = F.softplus(-self.judge(images)).mean()
        pair = torch.cat(self.draw_plan(plan)[:2], dim=1)
        loss = loss + self.task.settings.match_weight * F.softplus(-discriminate(self.match, pair)).mean()
        half = len(batch) // 2
        _, other = synthesize(self.task.generator, ws[:half], noise, defect_ws[half:])
        assert other is not None
        spread = (masks[:half] - torch.tanh(10 * other)).abs().mean()
        seeking = (defect_ws[:half] - defect_ws[half:]).abs().mean() / spread.clamp_min(1e-8)
        return loss + self.task.settings.mode_seeking_weight * seeking

    def path_length(self, batch: Batch) -> Tensor:
        g, n, mixing = self.task.generator, max(len(batch) // 2, 1), self.settings.style_mixing
        ws = latents(g.mapping, draw_latents(g.mapping, n, g.num_latents, mixing), g.num_latents)
        defects = draw_latents(g.defect_mapping, n, g.num_defect_latents, mixing)
        defect_ws = latents(g.defect_mapping, defects, g.num_defect_latents)
        images, _ = synthesize(g, ws, RandomNoise(), defect_ws)
        return self.settings.path_length_weight * path_length_penalty(images, ws, self.task.path_length.mean)

    def discriminator(self, batch: Batch) -> Tensor:
        assert batch.masks is not None
        plan = self.plan(batch)
        fake, real = self.judge(self.draw_plan(plan)[0].detach()), self.judge(batch.images)
        loss = F.softplus(fake).mean() + F.softplus(-real).mean()
        pair = torch.cat(self.draw_plan(plan)[:2], dim=1).detach()
        fake = discriminate(self.match, pair)
        real = discriminate(self.match, torch.cat([batch.images, batch.masks], dim=1))
        return loss + F.softplus(fake).mean() + F.softplus(-real).mean()

    def r1(self, batch: Batch) -> Tensor:
        assert batch.masks is not None
        images = batch.images.detach().requires_grad_()
        pair = torch.cat([batch.images, batch.masks], dim=1).requires_grad_()
        penalty = r1(self.judge(images), images) + r1(discriminate(self.match, pair), pair)
        return self.settings.r1_gamma / 2 * penalty
