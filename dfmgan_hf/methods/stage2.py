"""Stage 2: defect-aware residual blocks learn one defect from a few photographs (DFMGAN, sections 3.2 and 3.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ..augmentation import AdaController
from ..losses import (
    PATH_LENGTH_DECAY,
    change_outside,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    path_lengths,
    r1_penalty,
)
from ..models import DFMGANGenerator, NoiseInput, StyleGAN2Discriminator, soft_mask
from ..models.generator import DEFECT_PREFIXES, to_layer_latents
from ..pipelines import DFMGANPipeline
from ..training import Batch, ExponentialMovingAverage, Phase, RunningStatistics, lazy_adam
from ..training.sheets import tile, to_pixels
from .adversarial_task import AdversarialTask, report_logits
from .drawing import Drawing, Plan, draw, plan_drawing
from .latents import LatentAverage, PathLengthAverage, sample_latents
from .mask_monitor import mask_difference, report_masks
from .mode_seeking import ratio_of_means, seeking_distances
from .precision import regularizer_precision

PAIRS = 16
"""Objects on which `Stage2Task.measure` compares two defects each."""


@dataclass(frozen=True)
class Stage2Settings:
    """Hyperparameters of stage 2. The defaults are the published method; the options are the paper's ablations.

    Args:
        batch_size: images a step over all processes.
        lr: Adam's learning rate before lazy regularisation.
        r1_gamma: weight of R1 of both discriminators.
        ema_kimg: half-life of the averaged generator.
        match_weight: weight of the matching discriminator's term in the generator's loss.
        mode_seeking_weight: lambda of the mode-seeking loss; 0 for none.
        mode_seeking_on: distances between masks (published) or images.
        mode_seeking_latents: distances between w (published) or z.
        outside_weight: weight of what changes outside the mask; 0 as published.
        r1_interval, path_length_weight, path_length_interval, style_mixing, sheet_samples, sheet_seed: as in stage 1.
    """

    batch_size: int
    lr: float
    r1_gamma: float
    ema_kimg: float
    match_weight: float = 1.0
    mode_seeking_weight: float = 0.1
    mode_seeking_on: Literal["mask", "image"] = "mask"
    mode_seeking_latents: Literal["w", "z"] = "w"
    outside_weight: float = 0.0
    r1_interval: int = 16
    path_length_weight: float = 2.0
    path_length_interval: int = 4
    style_mixing: float = 0.9
    sheet_samples: int = 24
    sheet_seed: int = 0


class Stage2Task(AdversarialTask):
    """Trains the defect branch on a frozen backbone against one or two discriminators.

    No gradient is computed for the backbone's parameters and no graph is kept below the first residual block. One set
    of generated images serves both discriminators; the mode-seeking loss on masks runs the first residual block and
    ToMask again and nothing else.

    Args:
        generator: from `DFMGANGenerator.from_backbone` with stage 1's averaged backbone, on its device.
        discriminator: stage 1's, on the generator's device. With one channel more than the images it judges them
            together with their masks (`build_joint_discriminator`), for the ablation with a single discriminator.
        match_discriminator: new, one channel more; None for the ablation without it.
        settings: hyperparameters.
        augment: differentiable augmentation of what the discriminator (not the matching one) sees; None for none.
        ada: adapts its probability; None keeps it at 1.
        mean_over_processes: averages a tensor over all processes.

    Raises:
        ValueError: `batch_size` is odd, but the mode-seeking loss pairs its halves.
    """

    def __init__(
        self,
        generator: DFMGANGenerator,
        discriminator: StyleGAN2Discriminator,
        match_discriminator: StyleGAN2Discriminator | None,
        settings: Stage2Settings,
        *,
        augment: nn.Module | None = None,
        ada: AdaController | None = None,
        mean_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        super().__init__(discriminator, augment, ada, mean_over_processes)
        if settings.mode_seeking_weight and settings.batch_size % 2:
            raise ValueError(f"`batch_size` must be even for the mode-seeking loss, but is {settings.batch_size}.")
        self.generator = generator.train().requires_grad_(False)
        self.match_discriminator = match_discriminator
        self.judges_masks = discriminator.config["image_channels"] > generator.config["image_channels"]
        self.settings = settings
        trained = {name for name, _ in generator.named_parameters() if name.startswith(DEFECT_PREFIXES)}
        average = ExponentialMovingAverage(generator, trained=trained, half_life_kimg=settings.ema_kimg)
        self.generator_ema = average.averaged
        self.ema = [average]
        self.networks = {
            "generator": generator,
            "generator_ema": self.generator_ema,
            "discriminator": discriminator,
        }
        d_parameters = list(discriminator.parameters())
        if match_discriminator is not None:
            self.networks["match_discriminator"] = match_discriminator.train().requires_grad_(False)
            d_parameters += list(match_discriminator.parameters())
        self._plans: list[Plan] = []
        self._mean_distances: Tensor | None = None
        device = generator.mapping.w_avg.device
        self.w_average = LatentAverage(generator.defect_mapping, mean_over_processes)
        self.path_length = PathLengthAverage(device, mean_over_processes, PATH_LENGTH_DECAY)

        g_parameters = generator.defect_parameters()
        g_optimizer = lazy_adam(g_parameters, lr=settings.lr, interval=settings.path_length_interval)
        d_optimizer = lazy_adam(d_parameters, lr=settings.lr, interval=settings.r1_interval)
        self.optimizers = {"generator": g_optimizer, "discriminator": d_optimizer}
        self.phases = [
            Phase(
                "generator",
                g_parameters,
                g_optimizer,
                self.generator_loss,
                prepare=self.prepare_generator,
                finish=self.w_average.update,
            ),
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
        source = torch.Generator().manual_seed(settings.sheet_seed)
        shape = (settings.sheet_samples, generator.config["z_dim"])
        self._sheet_latents = [torch.randn(shape, generator=source).to(device) for _ in range(2)]

    def _plan(self, n: int) -> Plan:
        return plan_drawing(self.generator, n, self.settings.style_mixing)

    def _judge(self, images: Tensor, masks: Tensor) -> Tensor:
        """The discriminator's logits (N, 1); `masks` count only if it is the only one."""
        return self.judge(self._with_mask(images, masks) if self.judges_masks else images)

    @staticmethod
    def _with_mask(images: Tensor, masks: Tensor) -> Tensor:
        return torch.cat([images, masks.to(images.dtype)], dim=1)

    def prepare_generator(self, parts: list[Batch]) -> None:
        """Draw what the step's images follow from, and find out how far apart the masks of the whole batch are.

        The mode-seeking loss is a ratio of means over the batch. With several micro-batches its terms are needed
        before the first gradient, so the trunk and the first residual block run once more, without a graph.
        """
        self._plans = [self._plan(len(part)) for part in parts]
        self._mean_distances = None
        if self.settings.mode_seeking_weight and len(parts) > 1:
            with torch.no_grad():
                masks_only = self.settings.mode_seeking_on == "mask"
                distances = [self._seeking_distances(draw(self.generator, plan, masks_only)) for plan in self._plans]
            self._mean_distances = self.mean_over_processes(torch.stack(distances).mean(dim=0))

    def generator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        drawing = draw(self.generator, self._plans.pop(0), with_twins=self.settings.outside_weight > 0)
        images, mask_logits = drawing.images, drawing.mask_logits
        assert images is not None
        self.w_average.observe(drawing.defect_ws[:, 0])
        report_masks(statistics, "fake", mask_logits >= 0)
        loss = generator_loss(self._judge(images, soft_mask(mask_logits)))
        if self.match_discriminator is not None:
            match_logits = self.match_discriminator(self._with_mask(images, soft_mask(mask_logits))).logits
            match_loss = generator_loss(match_logits)
            statistics.report("loss/match", match_loss)
            loss = loss + self.settings.match_weight * match_loss
        if self.settings.mode_seeking_weight:
            seeking = self.mode_seeking(drawing)
            statistics.report("loss/mode_seeking", seeking)
            loss = loss + self.settings.mode_seeking_weight * seeking
        if drawing.twins is not None:
            outside = change_outside(images, drawing.twins, mask_logits)
            statistics.report("loss/outside", outside)
            loss = loss + self.settings.outside_weight * outside
        return loss

    def mode_seeking(self, drawing: Drawing) -> Tensor:
        """This part's share of the batch's mode-seeking loss (equation 2)."""
        distances = self._seeking_distances(drawing)
        means = self._mean_distances
        if means is None:
            means = self.mean_over_processes(distances.detach())
        return ratio_of_means(distances, means)

    def _seeking_distances(self, drawing: Drawing) -> Tensor:
        settings = self.settings
        return seeking_distances(self.generator, drawing, settings.mode_seeking_on, settings.mode_seeking_latents)

    def path_length_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        g, n = self.generator, max(len(batch) // 2, 1)
        with torch.no_grad():
            ws = sample_latents(g.mapping, n, g.num_latents, self.settings.style_mixing)
        ws = ws.detach().clone().requires_grad_()
        defect_ws = sample_latents(g.defect_mapping, n, g.num_defect_latents, self.settings.style_mixing)
        with regularizer_precision(g):
            trunk = g.run_trunk(ws, NoiseInput("random", n))
            images = g.synthesize_defect(trunk, ws, defect_ws).images
        lengths = path_lengths(images, ws, torch.randn_like(images))
        statistics.report("path_length", lengths)
        return self.settings.path_length_weight * self.path_length.penalty(lengths)

    def discriminator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        masks = real_masks(batch)
        report_masks(statistics, "real", masks > 0)
        with torch.no_grad():
            drawing = draw(self.generator, self._plan(len(batch)))
        fakes = drawing.images
        assert fakes is not None
        fake_logits = self._judge(fakes, soft_mask(drawing.mask_logits))
        real_logits = self._judge(batch.images, masks)
        report_logits(statistics, "", real_logits, fake_logits)
        if self.ada is not None:
            self.ada.observe(real_logits)
        loss = discriminator_fake_loss(fake_logits) + discriminator_real_loss(real_logits)
        if self.match_discriminator is not None:
            fake_match = self.match_discriminator(self._with_mask(fakes, soft_mask(drawing.mask_logits))).logits
            real_match = self.match_discriminator(self._with_mask(batch.images, masks)).logits
            report_logits(statistics, "match/", real_match, fake_match)
            loss = loss + discriminator_fake_loss(fake_match) + discriminator_real_loss(real_match)
        return loss

    def r1_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        seen = self._with_mask(batch.images, real_masks(batch)) if self.judges_masks else batch.images
        images = seen.detach().requires_grad_()
        with regularizer_precision(self.discriminator):
            penalty = r1_penalty(self.judge(images), images)
        statistics.report("r1_penalty", penalty)
        loss = penalty.mean()
        if self.match_discriminator is not None:
            pair = self._with_mask(batch.images, real_masks(batch)).requires_grad_()
            with regularizer_precision(self.match_discriminator):
                match_penalty = r1_penalty(self.match_discriminator(pair).logits, pair)
            statistics.report("match/r1_penalty", match_penalty)
            loss = loss + match_penalty.mean()
        return self.settings.r1_gamma / 2 * loss

    @torch.no_grad()
    def measure(self, statistics: RunningStatistics) -> None:
        """How much another z_defect changes on the same object: mask and image, of the averaged generator."""
        g = self.generator_ema
        objects, defects = (latents[:PAIRS] for latents in self._sheet_latents)
        ws = to_layer_latents(g.mapping, objects, "z", g.num_latents, 1.0, "object_latents")
        trunk = g.run_trunk(ws, NoiseInput("const", len(ws)))
        outputs = [
            g.synthesize_defect(
                trunk, ws, to_layer_latents(g.defect_mapping, z, "z", g.num_defect_latents, 1.0, "defect_latents")
            )
            for z in (defects, defects.roll(1, dims=0))
        ]
        first, second = (out.mask_logits >= 0 for out in outputs)
        statistics.report("defect_change/mask", mask_difference(first, second))
        change = (outputs[0].images - outputs[1].images).abs().mean(dim=1, keepdim=True)
        inside = first | second
        share = (change * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp_min(1)
        statistics.report("defect_change/image", share)

    @torch.no_grad()
    def sample_sheet(self) -> Image.Image:
        parts = [
            self.generator_ema(z, defect_z, noise_mode="const", return_defect_free=True)
            for z, defect_z in zip(*(latents.split(8) for latents in self._sheet_latents), strict=True)
        ]
        twins = torch.cat([part.defect_free_images for part in parts])
        masks = torch.cat([(part.mask_logits >= 0).to(torch.float32) * 2 - 1 for part in parts])
        images = torch.cat([part.images for part in parts])
        return tile([to_pixels(twins), to_pixels(masks), to_pixels(images)], columns=3)

    def export(self, folder: Path) -> None:
        DFMGANPipeline(generator=self.generator_ema).save_pretrained(str(folder))
        self.discriminator.save_pretrained(folder / "discriminator")
        if self.match_discriminator is not None:
            self.match_discriminator.save_pretrained(folder / "match_discriminator")


def real_masks(batch: Batch) -> Tensor:
    """The masks of a batch.

    Raises:
        ValueError: the data has none.
    """
    if batch.masks is None:
        raise ValueError("Stage 2 needs photographs with masks, but the training set has none.")
    return batch.masks
