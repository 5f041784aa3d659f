"""Stage 1: the StyleGAN2 backbone learns the defect-free product (DFMGAN, section 3.1; StyleGAN2-ADA)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from ..augmentation import AdaController
from ..losses import (
    PATH_LENGTH_DECAY,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    path_lengths,
    r1_penalty,
)
from ..models import NoiseInput, StyleGAN2Discriminator, StyleGAN2Generator
from ..pipelines import DFMGANPipeline
from ..training import Batch, ExponentialMovingAverage, Phase, RunningStatistics, lazy_adam
from ..training.sheets import tile, to_pixels
from .adversarial_task import AdversarialTask, report_logits
from .augmentations import ADA_KIMG, AugmentationConfig, build_augmentation
from .latents import LatentAverage, PathLengthAverage, sample_latents
from .method import Defaults, Method, Target, TaskRequest, register
from .pipeline_samplers import open_pipeline
from .precision import regularizer_precision
from .presets import Recipe


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
        return tile([to_pixels(torch.cat(images))], columns=8)

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
