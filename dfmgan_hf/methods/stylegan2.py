"""Stage 1: the StyleGAN2 backbone learns the defect-free product (DFMGAN, section 3.1; StyleGAN2-ADA)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ..augmentation.controller import AdaController
from ..losses import (
    PATH_LENGTH_DECAY,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    path_lengths,
    r1_penalty,
)
from ..models.discriminator import StyleGAN2Discriminator
from ..models.stylegan2 import MappingNetwork, NoiseInput, StyleGAN2Generator
from ..pipeline import DFMGANPipeline
from ..sheets import sheet_of
from ..training.task import (
    Batch,
    ExponentialMovingAverage,
    Panels,
    Phase,
    Rows,
    Rule,
    RunningStatistics,
    Task,
    last,
    lazy_adam,
)
from .method import (
    ADA_KIMG,
    AugmentationConfig,
    Defaults,
    Method,
    Recipe,
    Target,
    TaskRequest,
    build_augmentation,
    open_pipeline,
    register,
    regularizer_precision,
)

# --- Drawing latents for training: standard normal z, style mixing, and the moving average of w.


@dataclass(frozen=True)
class LatentDraw:
    """Random numbers that per-layer latents follow from.

    Args:
        z: of all layers, or of those below `cut`, (N, z_dim).
        mixed_z: of the layers from `cut` on (style mixing), or None.
        cut: first layer that takes `mixed_z`.
    """

    z: Tensor
    mixed_z: Tensor | None = None
    cut: int = 0

    def layers(self, mapping: MappingNetwork, num_latents: int) -> Tensor:
        """Per-layer latents (N, num_latents, w_dim)."""
        ws = mapping(self.z).unsqueeze(1).expand(-1, num_latents, -1)
        if self.mixed_z is None:
            return ws
        other = mapping(self.mixed_z).unsqueeze(1).expand(-1, num_latents - self.cut, -1)
        return torch.cat([ws[:, : self.cut], other], dim=1)


def draw_latents(mapping: MappingNetwork, n: int, num_latents: int, mixing_probability: float) -> LatentDraw:
    """New standard normal z, with style mixing (StyleGAN, section 3.1).

    With `mixing_probability`, the layers from one random cut on take the latent of another z.
    """
    device = mapping.w_avg.device
    z = torch.randn(n, mapping.z_dim, device=device)
    # Decided on the CPU, so that the accelerator is not waited for.
    if num_latents < 2 or torch.rand(()).item() >= mixing_probability:
        return LatentDraw(z)
    cut = int(torch.randint(1, num_latents, ()).item())
    return LatentDraw(z, torch.randn(n, mapping.z_dim, device=device), cut)


def sample_latents(mapping: MappingNetwork, n: int, num_latents: int, mixing_probability: float) -> Tensor:
    """Per-layer latents (n, num_latents, w_dim) of `n` new samples, with style mixing."""
    return draw_latents(mapping, n, num_latents, mixing_probability).layers(mapping, num_latents)


class LatentAverage:
    """Gathers w over the micro-batches of a step, then moves a mapping network's w_avg.

    Args:
        mapping: whose average it is.
        mean_over_processes: averages a tensor over all processes.
    """

    def __init__(self, mapping: MappingNetwork, mean_over_processes: Callable[[Tensor], Tensor]) -> None:
        self.mapping = mapping
        self.mean_over_processes = mean_over_processes
        self._gathered: list[Tensor] = []

    def observe(self, w: Tensor) -> None:
        """Take in (n, w_dim)."""
        self._gathered.append(w.detach().mean(dim=0))

    def update(self) -> None:
        """Move w_avg by the step's mean and start anew."""
        mean = self.mean_over_processes(torch.stack(self._gathered).mean(dim=0))
        self.mapping.update_w_avg(mean.unsqueeze(0))
        self._gathered.clear()


class PathLengthAverage:
    """Keep the running mean of path lengths (StyleGAN2, appendix B).

    Penalties of a step use the mean before it, so that they do not depend on how the step is split over processes and
    micro-batches. The official code first moves the mean by the lengths of the same micro-batch, 1 % of the way, and
    lets the gradient go through it: its penalty and this phase's gradient are 1 to 2 % smaller, and nothing else
    differs.

    Args:
        device: where the mean lives.
        mean_over_processes: averages a tensor over all processes.
        decay: part of the way to the step's mean that the running mean goes.
    """

    def __init__(self, device: torch.device, mean_over_processes: Callable[[Tensor], Tensor], decay: float) -> None:
        self.mean = torch.zeros((), device=device)
        self.mean_over_processes = mean_over_processes
        self.decay = decay
        self._gathered: list[Tensor] = []

    def penalty(self, lengths: Tensor) -> Tensor:
        """(length - mean)^2, averaged over (N,)."""
        self._gathered.append(lengths.detach().mean())
        return (lengths - self.mean).square().mean()

    def update(self) -> None:
        """Move the mean by the step's lengths."""
        lengths = self.mean_over_processes(torch.stack(self._gathered).mean())
        self.mean = self.mean.lerp(lengths, self.decay)
        self._gathered.clear()


# --- What the GAN stages share: an augmented discriminator, its statistics, and the state of their regularisers.


def ada_at_cap(rows: Rows) -> str | None:
    """The augmentation's probability has been at its limit for whole intervals."""
    values = last(rows, "ada/at_cap", "ada/p", "ada/r_t")
    if values is None or not all(at_cap >= 0.99 for at_cap, _, _ in values):
        return None
    _, p, r_t = values[-1]
    return (
        f"ADA's probability is at its limit {p:.2f} and the discriminator still overfits (r_t {r_t:.2f}): there are "
        "too few photographs for so long a run. Keep the best checkpoint (--eval_every_kimg) or stop; add "
        "photographs, --mirror, or a larger --augmentation set if the product allows. Raising --ada_max above 0.8 "
        "makes augmentations leak into the samples."
    )


def discriminator_memorised(rows: Rows) -> str | None:
    """D tells nearly every real image from nearly every generated one, with logits far apart."""
    values = last(rows, "accuracy/real", "accuracy/fake", "logits/real", "logits/fake")
    if values is None or not all(min(a, b) >= 0.97 and real - fake >= 6 for a, b, real, fake in values):
        return None
    _, _, real, fake = values[-1]
    return (
        f"The discriminator has memorised the photographs: mean logits {real:.1f} on real and {fake:.1f} on generated "
        "images, and both are told apart nearly always. What comes now is seldom better: use the best or an earlier "
        "checkpoint. For the next run: augmentation (--augmentation, not none), more photographs, a larger "
        "--r1_gamma."
    )


class AdversarialTask(Task):
    """A task with a discriminator that sees augmented images, and a path-length regulariser.

    Args:
        discriminator: judges images.
        augment: differentiable augmentation of all that it sees: (images, p) -> images; None for none.
        ada: adapts p; None keeps p at 1, for augmentations without a probability.
        mean_over_processes: averages a tensor over all processes.
    """

    path_length: PathLengthAverage
    rules: ClassVar[Sequence[Rule]] = (ada_at_cap, discriminator_memorised)
    panels: ClassVar[Panels] = {
        "Losses": ("loss/generator", "loss/discriminator"),
        "D: mean logits": ("logits/real", "logits/fake"),
        "D: accuracy": ("accuracy/real", "accuracy/fake"),
        "ADA": ("ada/p", "ada/r_t"),
        "Regularisers": ("r1_penalty", "path_length"),
    }

    def __init__(
        self,
        discriminator: StyleGAN2Discriminator,
        augment: nn.Module | None,
        ada: AdaController | None,
        mean_over_processes: Callable[[Tensor], Tensor],
    ) -> None:
        self.discriminator = discriminator.train().requires_grad_(False)
        self.augment = augment
        self.ada = ada
        self.mean_over_processes = mean_over_processes

    def check_split(self, images: int) -> str | None:
        group, batch_size = self.discriminator.config["mbstd_group_size"], self.settings.batch_size
        if batch_size % group or images % group == 0:
            return None
        return (
            f"{images} images at a time split the groups of {group} that the discriminator compares (minibatch "
            "standard deviation), which changes what it learns. Choose `batch_size` as a multiple of "
            f"{group * batch_size // images}, or fewer --accumulation_steps or processes."
        )

    def judge(self, images: Tensor) -> Tensor:
        """Augmented images' logits (N, 1)."""
        if self.augment is not None:
            images = self.augment(images, 1.0 if self.ada is None else self.ada.p)
        return self.discriminator(images).logits

    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        if self.ada is not None:
            # r_t is a ratio of two sums, so their means over processes serve as well.
            self.ada.step(self.mean_over_processes)
            statistics.report("ada/p", self.ada.p)
            statistics.report("ada/r_t", self.ada.r_t.nan_to_num())
            if self.ada.target is not None:
                statistics.report("ada/at_cap", (self.ada.p >= self.ada.p_max).to(torch.float32))

    def state_dict(self) -> dict[str, Tensor]:
        state = {"path_length_mean": self.path_length.mean}
        if self.ada is not None:
            state.update({f"ada.{name}": value for name, value in self.ada.state_dict().items()})
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.path_length.mean = state["path_length_mean"].to(self.path_length.mean.device)
        if self.ada is not None:
            self.ada.load_state_dict({k.removeprefix("ada."): v for k, v in state.items() if k.startswith("ada.")})


def report_logits(statistics: RunningStatistics, prefix: str, real_logits: Tensor, fake_logits: Tensor) -> None:
    """Mean logits and accuracy of a discriminator on real and generated images."""
    statistics.report(f"{prefix}logits/real", real_logits)
    statistics.report(f"{prefix}logits/fake", fake_logits)
    statistics.report(f"{prefix}accuracy/real", (real_logits > 0).to(torch.float32))
    statistics.report(f"{prefix}accuracy/fake", (fake_logits < 0).to(torch.float32))


# --- Stage 1: the StyleGAN2 backbone learns the defect-free product (DFMGAN, section 3.1; StyleGAN2-ADA).


@dataclass(frozen=True, kw_only=True)
class Stage1Settings:
    """Hyperparameters of stage 1; the defaults are StyleGAN2-ADA's at 256x256 on one GPU.

    Args:
        batch_size: images a step over all processes; only the moving average counts by it.
        lr: Adam's learning rate before lazy regularisation.
        r1_gamma: weight of R1, 0.0002 R^2 / batch by default.
        r1_interval: steps between R1 penalties.
        path_length_weight: weight of the path-length penalty.
        path_length_interval: steps between path-length penalties.
        style_mixing: probability of style mixing.
        ema_kimg: half-life of the averaged generator.
        ema_rampup: see `ema_decay`; None for none.
        sheet_samples: pictures on a sample sheet.
        sheet_seed: seed of their latents.
    """

    batch_size: int
    lr: float
    r1_gamma: float
    ema_kimg: float
    r1_interval: int = 16
    path_length_weight: float = 2.0
    path_length_interval: int = 4
    style_mixing: float = 0.9
    ema_rampup: float | None = 0.05
    sheet_samples: int = 32
    sheet_seed: int = 0


class Stage1Task(AdversarialTask):
    """Non-saturating logistic GAN with R1, path-length penalty and adaptive augmentation.

    Args:
        generator: on its device.
        discriminator: likewise.
        settings: hyperparameters.
        augment: differentiable augmentation of all that the discriminator sees: (images, p) -> images; None for none.
        ada: adapts p; None keeps p at 1, for augmentations without a probability.
        mean_over_processes: averages a tensor over all processes.
        trained: names of the generator's parameters to train; None for all.
    """

    settings: Stage1Settings

    def __init__(
        self,
        generator: StyleGAN2Generator,
        discriminator: StyleGAN2Discriminator,
        settings: Stage1Settings,
        *,
        augment: nn.Module | None = None,
        ada: AdaController | None = None,
        mean_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor,
        trained: set[str] | None = None,
    ) -> None:
        super().__init__(discriminator, augment, ada, mean_over_processes)
        self.generator = generator.train().requires_grad_(False)
        self.settings = settings
        average = ExponentialMovingAverage(
            generator, trained=trained, half_life_kimg=settings.ema_kimg, rampup=settings.ema_rampup
        )
        self.generator_ema = average.averaged
        self.ema = [average]
        self.networks = {
            "generator": generator,
            "generator_ema": self.generator_ema,
            "discriminator": discriminator,
        }
        device = generator.mapping.w_avg.device
        self.w_average = LatentAverage(generator.mapping, mean_over_processes)
        self.path_length = PathLengthAverage(device, mean_over_processes, PATH_LENGTH_DECAY)

        g_parameters = [p for name, p in generator.named_parameters() if trained is None or name in trained]
        d_parameters = list(discriminator.parameters())
        g_optimizer = lazy_adam(g_parameters, lr=settings.lr, interval=settings.path_length_interval)
        d_optimizer = lazy_adam(d_parameters, lr=settings.lr, interval=settings.r1_interval)
        self.optimizers = {"generator": g_optimizer, "discriminator": d_optimizer}
        self.phases = [
            Phase("generator", g_parameters, g_optimizer, self.generator_loss, finish=self.w_average.update),
            Phase(
                "path_length",
                g_parameters,
                g_optimizer,
                self.path_length_loss,
                interval=settings.path_length_interval,
                finish=self.path_length.update,
            ),
            Phase("discriminator", d_parameters, d_optimizer, self.discriminator_loss),
            Phase("r1", d_parameters, d_optimizer, self.r1_loss, interval=settings.r1_interval),
        ]
        latents = torch.Generator().manual_seed(settings.sheet_seed)
        z_dim = generator.config["z_dim"]
        self._sheet_latents = torch.randn(settings.sheet_samples, z_dim, generator=latents).to(device)

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        """New images (n, C, R, R) and their per-layer latents."""
        ws = self._latents(n)
        return self.generator.synthesize(ws, NoiseInput("random", n)), ws

    def _latents(self, n: int) -> Tensor:
        return sample_latents(self.generator.mapping, n, self.generator.num_latents, self.settings.style_mixing)

    def generator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        images, ws = self._draw(len(batch))
        self.w_average.observe(ws[:, 0])
        return generator_loss(self.judge(images))

    def path_length_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        ws = self._latents(max(len(batch) // 2, 1))
        if not ws.requires_grad:  # with a frozen mapping
            ws.requires_grad_()
        with regularizer_precision(self.generator):
            images = self.generator.synthesize(ws, NoiseInput("random", len(ws)))
        lengths = path_lengths(images, ws, torch.randn_like(images))
        statistics.report("path_length", lengths)
        return self.settings.path_length_weight * self.path_length.penalty(lengths)

    def discriminator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        with torch.no_grad():
            fakes, _ = self._draw(len(batch))
        fake_logits, real_logits = self.judge(fakes), self.judge(batch.images)
        report_logits(statistics, "", real_logits, fake_logits)
        if self.ada is not None:
            self.ada.observe(real_logits)
        return discriminator_fake_loss(fake_logits) + discriminator_real_loss(real_logits)

    def r1_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        images = batch.images.detach().requires_grad_()
        with regularizer_precision(self.discriminator):
            penalty = r1_penalty(self.judge(images), images)
        statistics.report("r1_penalty", penalty)
        return self.settings.r1_gamma / 2 * penalty.mean()

    @torch.no_grad()
    def sample_sheet(self) -> Image.Image:
        images = [self.generator_ema(z, noise_mode="const").images for z in self._sheet_latents.split(8)]
        return sheet_of(torch.cat(images), columns=8)

    def export(self, folder: Path) -> None:
        DFMGANPipeline(generator=self.generator_ema).save_pretrained(str(folder))
        self.discriminator.save_pretrained(folder / "discriminator")


def build_stage1(recipe: Recipe, augmentation: AugmentationConfig, target: Target) -> Stage1Task:
    """A new stage-1 task; its weights are drawn from the global random generator."""
    with target.construct():
        generator = StyleGAN2Generator(**recipe.network_config())
        discriminator = StyleGAN2Discriminator(**recipe.discriminator_config())
    augment, ada = build_augmentation(augmentation, recipe.batch_size, ADA_KIMG["stage1"], target.device)
    return Stage1Task(
        target.place(generator),
        target.place(discriminator),
        Stage1Settings(**recipe.training_settings()),
        augment=augment,
        ada=ada,
        mean_over_processes=target.mean_over_processes,
    )


def build(request: TaskRequest) -> Stage1Task:
    """New networks."""
    return build_stage1(request.recipe, request.augmentation, request.target)


METHOD = Method(
    name="stage1",
    title="Stage 1",
    citation=(
        "T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila: Training Generative Adversarial "
        "Networks with Limited Data. NeurIPS 2020."
    ),
    open_sampler=open_pipeline,
    build=build,
    generator="StyleGAN2Generator",
    defaults=Defaults(augmentation="bgc"),
    learns="good",
)
register(METHOD)
