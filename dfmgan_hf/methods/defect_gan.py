"""Defect-GAN (Zhang et al. 2021): one network defaces good images and restores defective ones, in layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..arguments import check_numbers
from ..files import module_sha256
from ..metrics.sampler import Samples
from ..models.defect_gan import DefectGANDiscriminator, DefectGANGenerator, DefectGANGeneratorOutput, control_map
from ..sheets import sheet_of, to_pixels
from ..training.task import Batch, Panels, Phase, RunningStatistics
from .method import Method, RecipeConfig, SamplerRequest, TaskRequest, register
from .translation import (
    RECIPE_FIELDS,
    Photographs,
    TranslationConfig,
    TranslationTask,
    at_least_float32,
    base_channels,
    task_arguments,
)

NORMAL, DEFECT = 0, 1
"""Classes of the control map; with several kinds of defect, 1 is the first of them."""


@dataclass(frozen=True)
class DefectGANOptions:
    """Options of Defect-GAN. Weights and steps are published; the rest is a reconstruction.

    Args:
        joint: Learn all kinds of defect that --defect names in one model, which then draws any of them, instead of a
            model for each. DFMGAN's paper does not say which its numbers are of; one for each is a guess.
        gradient_penalty_weight: Weight of WGAN-GP's penalty.
        real_class_weight: Weight of classifying real images, in the discriminator's loss.
        fake_class_weight: Weight of being classified as wanted, in the generator's loss.
        reconstruction_weight: Weight of getting back the image after defacement and restoration, or the reverse.
        distribution_cycle_weight: Weight of both changing the image in the same place.
        distribution_weight: Weight of changing little of the image. That it is of the ways back, too, is a guess.
        discriminator_steps: Steps of the discriminator for each one of the generator.
        final_lr: Learning rate at the end, to which it falls on a line. Published are its ends alone: the line is a
            guess.
    """

    joint: bool = False
    gradient_penalty_weight: float = 10.0
    real_class_weight: float = 2.0
    fake_class_weight: float = 5.0
    reconstruction_weight: float = 5.0
    distribution_cycle_weight: float = 5.0
    distribution_weight: float = 1.0
    discriminator_steps: int = 5
    final_lr: float = 1e-6

    def __post_init__(self) -> None:
        weights = [field.name for field in fields(self) if field.name.endswith("_weight")]
        check_numbers(self, final_lr=0, discriminator_steps=1, **dict.fromkeys(weights, 0))


# --- Training ---


def critic_loss(real_scores: Tensor, fake_scores: Tensor) -> Tensor:
    """Return E D(G) - E D(x) for scores of any shape (WGAN-GP, Gulrajani et al. 2017, equation 3)."""
    return fake_scores.mean() - real_scores.mean()


def gradient_penalty(critic: Callable[[Tensor], Tensor], real: Tensor, fake: Tensor) -> Tensor:
    """Return (|gradient of D| - 1)^2 at random points between real and generated images (WGAN-GP, equation 3).

    The critic of an image is the mean over its patches, as in the loss that it belongs to.

    Args:
        critic: images (N, C, H, W) -> scores (N, ...).
        real, fake: (N, C, H, W).

    Returns:
        (N,), differentiable.
    """
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real, fake, share).detach().requires_grad_()
    scores = critic(between).flatten(1).mean(dim=1)
    (gradient,) = torch.autograd.grad(scores.sum(), between, create_graph=True)
    return (gradient.flatten(1).norm(dim=1) - 1).square()


class DefectGANTask(TranslationTask):
    """Deface and restore by one generator, against a critic that also classifies.

    Each item is a photograph of the defect and a random good one, which is to get the same kind of defect. A training
    step is one of the discriminator.

    Args:
        generator, discriminator: on their device.
        good, config, low_precision_dtype: as in `TranslationTask`. The gradient penalty is always float32.
        classes: those of the defect photographs, for samples: with several kinds one for each photograph.
    """

    panels: ClassVar[Panels] = {
        "Losses": ("loss/generator", "loss/discriminator"),
        "Scores": ("scores/real", "scores/fake"),
        "Class accuracy": ("class_accuracy/real", "class_accuracy/fake"),
        "Translation": ("reconstruction", "distribution", "distribution_cycle"),
    }

    def __init__(
        self,
        generator: DefectGANGenerator,
        discriminator: DefectGANDiscriminator,
        good: Photographs,
        config: TranslationConfig,
        low_precision_dtype: torch.dtype | None = None,
        *,
        classes: Sequence[int] = (DEFECT,),
    ) -> None:
        g_parameters, d_parameters = list(generator.parameters()), list(discriminator.parameters())
        super().__init__(
            {"generator": generator, "discriminator": discriminator},
            {"generator": g_parameters, "discriminator": d_parameters},
            good,
            config,
            low_precision_dtype,
        )
        self.discriminator = discriminator
        self.classes = tuple(classes)
        self.num_classes: int = generator.config["num_classes"]
        every = config.options.discriminator_steps
        self.phases = [
            Phase("discriminator", d_parameters, self.optimizers["discriminator"], self.discriminator_loss),
            # The trainer multiplies the loss by the interval; Adam's steps do not depend on its scale.
            Phase("generator", g_parameters, self.optimizers["generator"], self.generator_loss, interval=every),
        ]

    def _domains(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return good images, then defective ones: (2 N, C, R, R), and their classes (2 N,)."""
        images = torch.cat([self.good.choose(len(batch)), batch.images])
        labels = torch.full((2 * len(batch),), NORMAL, device=images.device)
        labels[len(batch) :] = DEFECT if batch.labels is None else DEFECT + batch.labels
        return images, labels

    def _translate(self, images: Tensor, labels: Tensor) -> DefectGANGeneratorOutput:
        with self.autocast():
            return self.generator(images, control_map(labels, self.num_classes))

    def _judge(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return scores and class logits, in float32, in which the losses are computed."""
        with self.autocast():
            output = self.discriminator(images)
        return at_least_float32(output.scores), at_least_float32(output.class_logits)

    def discriminator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        options = self.settings.options
        images, labels = self._domains(batch)
        with torch.no_grad():
            fakes = self._translate(images, _exchange(labels)).images
        (real_scores, class_logits), (fake_scores, _) = self._judge(images), self._judge(fakes)
        # Between images of the same class.
        of_fakes_class = _exchange(images)
        penalty = gradient_penalty(lambda between: self.discriminator(between).scores, of_fakes_class, fakes)
        statistics.report("scores/real", real_scores)
        statistics.report("scores/fake", fake_scores)
        statistics.report("gradient_penalty", penalty)
        statistics.report("class_accuracy/real", (class_logits.argmax(dim=1) == labels).to(torch.float32))
        return (
            critic_loss(real_scores, fake_scores)
            + options.gradient_penalty_weight * penalty.mean()
            + options.real_class_weight * F.cross_entropy(class_logits, labels)
        )

    def generator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        options = self.settings.options
        images, labels = self._domains(batch)
        wanted = _exchange(labels)
        there = self._translate(images, wanted)
        back = self._translate(there.images, labels)
        scores, class_logits = self._judge(there.images)
        # The paper adds up what means over both domains halve.
        reconstruction = 2 * F.l1_loss(back.images, images)
        distribution_cycle = 2 * F.l1_loss(there.distribution, back.distribution)
        distribution = 2 * (there.distribution.mean() + back.distribution.mean())
        statistics.report("reconstruction", reconstruction)
        statistics.report("distribution", distribution / 4)
        statistics.report("distribution_cycle", distribution_cycle)
        statistics.report("class_accuracy/fake", (class_logits.argmax(dim=1) == wanted).to(torch.float32))
        return (
            -scores.mean()
            + options.fake_class_weight * F.cross_entropy(class_logits, wanted)
            + options.reconstruction_weight * reconstruction
            + options.distribution_cycle_weight * distribution_cycle
            + options.distribution_weight * distribution
        )

    def sample_sheet(self) -> Image.Image:
        sampler = DefectGANSampler(self.generator, self.good, classes=self.classes)
        good, output = sampler.translate(range(self.settings.sheet_samples))
        headings = ("good", "where it changes", "defect")
        return sheet_of(good, output.distribution * 2 - 1, output.images, headings=headings, columns=4)


def _exchange(halves: Tensor) -> Tensor:
    """Return, of (2 N, ...), the second N, then the first."""
    return halves.roll(len(halves) // 2, dims=0)


def build(request: TaskRequest) -> DefectGANTask:
    """Build new networks, their weights drawn from the global random generator."""
    recipe, target, dataset = request.recipe, request.target, request.dataset
    labels, kinds = (None, ()) if dataset is None else (dataset.labels, dataset.kinds)
    width = base_channels(request)
    shape: dict[str, Any] = {
        "resolution": recipe.resolution,
        "image_channels": recipe.image_channels,
        "num_classes": 1 + max(len(kinds), 1),
        "base_channels": width,
    }
    with target.construct():
        generator = DefectGANGenerator(spade_channels=2 * width, defect_names=kinds or None, **shape)
        discriminator = DefectGANDiscriminator(**shape)
    classes = (DEFECT,) if labels is None else (DEFECT + labels).tolist()
    return DefectGANTask(
        target.place(generator), target.place(discriminator), *task_arguments(request), classes=classes
    )


# --- Drawing: defects of a chosen kind on random good photographs ---


class DefectGANSampler:
    """Draw defects on random good photographs.

    Args:
        generator: trained.
        good: defect-free photographs.
        classes: what is drawn; with several, each image is of one that its seed picks. A class that occurs twice
            comes twice as often.
        defect: name of the kind that is drawn, for results; None where it has none.
    """

    def __init__(
        self,
        generator: DefectGANGenerator,
        good: Photographs,
        *,
        classes: Sequence[int] = (DEFECT,),
        defect: str | None = None,
    ) -> None:
        self.generator = generator
        self.good = good
        self.classes = tuple(classes)
        self.defect = defect

    @property
    def settings(self) -> dict[str, Any]:
        named = {} if self.defect is None else {"defect": self.defect}
        return {"weights_sha256": module_sha256(self.generator), "num_good": len(self.good), **named}

    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draw the images with seeds `seed + i`: each picks the photograph, the class, then the noise."""
        good, output = self.translate([seed + i for i in indices])
        return to_pixels(output.images)[:, : good.shape[1]], None

    @torch.no_grad()
    def translate(self, seeds: Sequence[int]) -> tuple[Tensor, DefectGANGeneratorOutput]:
        """Return good photographs (n, C, R, R) and what is drawn on them, all of it following from each seed alone."""
        generators = [torch.Generator().manual_seed(seed) for seed in seeds]
        good = self.good.at([_pick(len(self.good), g) for g in generators])
        # A single class takes no random number, so that images of such models stay what they are.
        picks = [_pick(len(self.classes), g) if len(self.classes) > 1 else 0 for g in generators]
        wanted = torch.tensor([self.classes[pick] for pick in picks], device=good.device, dtype=torch.int64)
        # One at a time on the CPU, where batches of different sizes round differently.
        step = 1 if good.device.type == "cpu" else max(len(good), 1)
        outputs = []
        for start in range(0, len(good), step):
            part = slice(start, start + step)
            control = control_map(wanted[part], self.generator.config["num_classes"])
            outputs.append(self.generator(good[part], control, generators[part]))
        return good, DefectGANGeneratorOutput(
            **{key: torch.cat([output[key] for output in outputs]) for key in outputs[0]}
        )


def _pick(count: int, generator: torch.Generator) -> int:
    return int(torch.randint(count, (), generator=generator))


def open_sampler(request: SamplerRequest) -> DefectGANSampler:
    """Draw with a trained folder on photographs; a model of several kinds draws the request's.

    Raises:
        ValueError: the model knows several kinds, and the request names none or another one.
    """
    generator = DefectGANGenerator.from_pretrained(
        str(request.source), subfolder="generator", revision=request.revision
    ).to(request.device)
    names, defect = generator.config["defect_names"], request.defect
    if names is not None and defect not in names:
        raise ValueError(
            f"{request.source} draws the defects {', '.join(names)}"
            + (": choose one with --defect." if defect is None else f", but not {defect!r}; choose one of them.")
        )
    size = {name: generator.config[name] for name in ("resolution", "image_channels")}
    return DefectGANSampler(
        generator,
        Photographs(request.photographs.load_good(**size).images, request.device),
        classes=(DEFECT if names is None else DEFECT + list(names).index(defect),),
        defect=None if names is None else defect,
    )


def sample_task(task: DefectGANTask) -> DefectGANSampler:
    """Draw with a task's generator on its good photographs, of several kinds in the photographs' proportion."""
    return DefectGANSampler(task.generator, task.good, classes=task.classes)


METHOD = register(
    Method(
        name="defect_gan",
        title="Defect-GAN",
        citation=(
            "G. Zhang, K. Cui, T.-Y. Hung, S. Lu: Defect-GAN: High-Fidelity Defect Synthesis for Automated Defect "
            "Inspection. WACV 2021."
        ),
        open_sampler=open_sampler,
        build=build,
        generator="DefectGANGenerator",
        sample_task=sample_task,
        options=DefectGANOptions,
        # 100 thousand steps; published are 500 thousand, on 50 thousand photographs.
        defaults=RecipeConfig(batch_size=4, lr=2e-4, total_kimg=400),
        recipe_fields=RECIPE_FIELDS,
        augments=lambda options: False,
        is_joint=lambda options: options.joint,
        is_reconstruction=True,
    )
)
