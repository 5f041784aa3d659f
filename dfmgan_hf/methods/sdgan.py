"""SDGAN (Niu et al. 2020): cycle-consistent translation of good images into defective ones, two critics a domain."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..arguments import check_numbers
from ..files import module_sha256
from ..metrics.sampler import Samples
from ..models.cyclegan import CycleGANGenerator, PatchDiscriminator
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

LOG_FLOOR = 1e-6
"""Least argument of D2GAN's logarithms."""

SMALLEST_IMAGE = 24
"""Side of the images from which on `PatchDiscriminator`'s instance norms have more than one pixel."""


@dataclass(frozen=True)
class SDGANOptions:
    """Options of SDGAN. The defaults are guesses, most of them CycleGAN's: no source gives SDGAN's.

    Args:
        adversarial: Game of the two discriminators: D2GAN's own (d2gan) or with squared errors, which is steadier.
        alpha: Weight of the first discriminator on real images.
        beta: Weight of the second one on generated images.
        cycle_weight: Weight of the cycle consistency.
        history_size: Earlier generated images a domain that the discriminators are shown again; 0 for none.
        constant_part: Part of the run before the learning rate falls, in [0, 1).
        final_lr: Learning rate at the end, to which it falls on a line.
    """

    adversarial: Literal["d2lsgan", "d2gan"] = "d2lsgan"
    alpha: float = 1.0
    beta: float = 1.0
    cycle_weight: float = 10.0
    history_size: int = 50
    constant_part: float = 0.5
    final_lr: float = 0.0

    def __post_init__(self) -> None:
        weights = ("alpha", "beta", "cycle_weight", "history_size", "final_lr")
        check_numbers(self, **dict.fromkeys(weights, 0))
        if not 0 <= self.constant_part < 1:
            raise ValueError(f"`constant_part` must be at least 0 and below 1, but is {self.constant_part}.")


# --- The adversarial game with two discriminators, and its least-squares twin ---


@dataclass(frozen=True)
class D2GANLoss:
    """D2GAN's game of two discriminators against one generator (Nguyen et al. 2017, eq. 1), on D = softplus(output).

    With p the density of real and q of generated images, the best discriminators are D1 = alpha p / q and
    D2 = beta q / p (D2GAN, proposition 1), and the generator minimises alpha KL(p | q) + beta KL(q | p) (theorem 2).

    Args:
        alpha: weight of D1 on real images.
        beta: weight of D2 on generated images.
    """

    alpha: float = 1.0
    beta: float = 1.0

    def discriminators(self, real1: Tensor, fake1: Tensor, real2: Tensor, fake2: Tensor) -> Tensor:
        """Return -alpha log D1(x) + D1(G) + D2(x) - beta log D2(G)."""
        first = F.softplus(fake1).mean() - self.alpha * _log_softplus(real1).mean()
        second = F.softplus(real2).mean() - self.beta * _log_softplus(fake2).mean()
        return first + second

    def generator(self, fake1: Tensor, fake2: Tensor) -> Tensor:
        """Return -D1(G) + beta log D2(G)."""
        return self.beta * _log_softplus(fake2).mean() - F.softplus(fake1).mean()


class D2LSGANLoss(D2GANLoss):
    """The same game with squared errors (LSGAN, Mao et al. 2017), which cannot grow without bound.

    The best discriminators are D1 = alpha p / (alpha p + q) and D2 = beta q / (p + beta q).
    """

    def discriminators(self, real1: Tensor, fake1: Tensor, real2: Tensor, fake2: Tensor) -> Tensor:
        """Return alpha (D1(x) - 1)^2 + D1(G)^2 + D2(x)^2 + beta (D2(G) - 1)^2."""
        first = self.alpha * (real1 - 1).square().mean() + fake1.square().mean()
        second = real2.square().mean() + self.beta * (fake2 - 1).square().mean()
        return first + second

    def generator(self, fake1: Tensor, fake2: Tensor) -> Tensor:
        """Return (D1(G) - 1)^2 + beta D2(G)^2."""
        return (fake1 - 1).square().mean() + self.beta * fake2.square().mean()


def _log_softplus(x: Tensor) -> Tensor:
    return torch.log(F.softplus(x).clamp_min(LOG_FLOOR))


GAMES: dict[str, Callable[[float, float], D2GANLoss]] = {"d2gan": D2GANLoss, "d2lsgan": D2LSGANLoss}


class ImageHistory:
    """Keep generated images, and give half of the time an earlier one for a new one (Shrivastava et al. 2017).

    Args:
        size: images to keep, in `images` (n, C, R, R), which is None before the first; 0 for none.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: Tensor | None = None

    def exchange(self, images: Tensor) -> Tensor:
        """Take in new images (N, C, R, R) and return as many.

        Until the history is full they are the new ones. Then each is, with probability 1/2, a random earlier one,
        whose place the new one takes.
        """
        shown = []
        for image in images.detach().split(1):
            kept = 0 if self.images is None else len(self.images)
            if kept < self.size:
                self.images = image.clone() if self.images is None else torch.cat([self.images, image])
                shown.append(image)
            elif self.images is not None and torch.rand(()).item() < 0.5:
                place = int(torch.randint(kept, ()))
                shown.append(self.images[place : place + 1].clone())
                self.images[place] = image[0]
            else:
                shown.append(image)
        return torch.cat(shown)


# --- Training ---


class SDGANTask(TranslationTask):
    """Translate between good and defective images without pairs.

    Each item is a photograph of the defect and a random good one. Which domain a network works in is in its name:
    `generator` makes good images defective, `restorer` makes defective ones good.

    A checkpoint keeps the image history of the main process; with several processes all resume from it.

    Args:
        generator, restorer: on their device.
        discriminators: "defect1", "defect2", "good1", "good2".
        good, config, low_precision_dtype: as in `TranslationTask`.
    """

    panels: ClassVar[Panels] = {
        "Losses": ("loss/generators", "loss/discriminators"),
        "Translation": ("cycle", "change"),
        "Discriminators of defects": ("defect1/real", "defect1/fake", "defect2/real", "defect2/fake"),
    }

    def __init__(
        self,
        generator: CycleGANGenerator,
        restorer: CycleGANGenerator,
        discriminators: dict[str, PatchDiscriminator],
        good: Photographs,
        config: TranslationConfig,
        low_precision_dtype: torch.dtype | None = None,
    ) -> None:
        named = {f"discriminator_{name}": network for name, network in discriminators.items()}
        g_parameters = [*generator.parameters(), *restorer.parameters()]
        d_parameters = [p for network in discriminators.values() for p in network.parameters()]
        super().__init__(
            {"generator": generator, "restorer": restorer, **named},
            {"generators": g_parameters, "discriminators": d_parameters},
            good,
            config,
            low_precision_dtype,
        )
        self.restorer, self.discriminators = restorer, discriminators
        options = config.options
        self.game = GAMES[options.adversarial](options.alpha, options.beta)
        self.histories = {domain: ImageHistory(options.history_size) for domain in ("defect", "good")}
        # Good photographs, and what the generators made of them and of the defective ones, for the discriminators.
        self._drawn: deque[tuple[Tensor, Tensor, Tensor]] = deque()
        self.phases = [
            Phase("generators", g_parameters, self.optimizers["generators"], self.generators_loss),
            Phase("discriminators", d_parameters, self.optimizers["discriminators"], self.discriminators_loss),
        ]

    def _judge(self, domain: str, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return what both discriminators of a domain say; the games are computed in float32."""
        first, second = (at_least_float32(self.discriminators[f"{domain}{i}"](images).logits) for i in (1, 2))
        return first, second

    def generators_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        options = self.settings.options
        good, defect = self.good.choose(len(batch)), batch.images
        with self.autocast():
            fake_defect, fake_good = self.generator(good).images, self.restorer(defect).images
            cycled_good, cycled_defect = self.restorer(fake_defect).images, self.generator(fake_good).images
            judged = [self._judge("defect", fake_defect), self._judge("good", fake_good)]
        # The discriminators are shown what was drawn here: it costs half of the step to draw.
        self._drawn.append((good, at_least_float32(fake_defect.detach()), at_least_float32(fake_good.detach())))
        cycle = F.l1_loss(cycled_good, good) + F.l1_loss(cycled_defect, defect)
        adversarial = sum((self.game.generator(*outputs) for outputs in judged), torch.zeros_like(cycle))
        statistics.report("cycle", cycle)
        statistics.report("change", (fake_defect - good).detach().abs())
        return adversarial + options.cycle_weight * cycle

    def discriminators_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        good, fake_defect, fake_good = self._drawn.popleft()
        pairs = {"defect": (batch.images, fake_defect), "good": (good, fake_good)}
        loss = batch.images.new_zeros(())
        for domain, (real, fake) in pairs.items():
            fake = self.histories[domain].exchange(fake)
            with self.autocast():
                (real1, real2), (fake1, fake2) = self._judge(domain, real), self._judge(domain, fake)
            loss = loss + self.game.discriminators(real1, fake1, real2, fake2)
            for number, real_output, fake_output in ((1, real1, fake1), (2, real2, fake2)):
                statistics.report(f"{domain}{number}/real", real_output)
                statistics.report(f"{domain}{number}/fake", fake_output)
        return loss

    def state_dict(self) -> dict[str, Tensor]:
        kept = {f"history_{domain}": history.images for domain, history in self.histories.items()}
        return {**super().state_dict(), **{name: images for name, images in kept.items() if images is not None}}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        for domain, history in self.histories.items():
            images = state.get(f"history_{domain}")
            history.images = None if images is None else images.to(self.good.device)

    @torch.no_grad()
    def sample_sheet(self) -> Image.Image:
        good = SDGANSampler(self.generator, self.good).choose(range(self.settings.sheet_samples), seed=0)
        drawn = torch.cat([self.generator(part).images for part in good.split(8)])
        return sheet_of(good, drawn, headings=("good", "defect"), columns=4)


def build(request: TaskRequest) -> SDGANTask:
    """Build new networks, their weights drawn from the global random generator.

    Raises:
        ValueError: the images are too small for the discriminators.
    """
    recipe, target = request.recipe, request.target
    if recipe.resolution < SMALLEST_IMAGE:
        raise ValueError(f"`resolution` must be at least {SMALLEST_IMAGE} for SDGAN, but is {recipe.resolution}.")
    shape: dict[str, Any] = {"image_channels": recipe.image_channels, "base_channels": base_channels(request)}
    blocks = 9 if recipe.resolution >= 256 else 6
    with target.construct():
        generator, restorer = (
            CycleGANGenerator(resolution=recipe.resolution, residual_blocks=blocks, **shape) for _ in range(2)
        )
        discriminators = {f"{domain}{i}": PatchDiscriminator(**shape) for domain in ("defect", "good") for i in (1, 2)}
    for network in (generator, restorer, *discriminators.values()):
        target.place(network)
    return SDGANTask(generator, restorer, discriminators, *task_arguments(request))


# --- Drawing ---


class SDGANSampler:
    """Draw defects on good photographs; which images the published numbers are of is not known.

    There is no randomness but the order of the photographs, each of which gives one image.

    Args:
        generator: good images to defective ones.
        good: the photographs.
    """

    def __init__(self, generator: CycleGANGenerator, good: Photographs) -> None:
        self.generator = generator
        self.good = good

    @property
    def settings(self) -> dict[str, Any]:
        return {
            "weights_sha256": module_sha256(self.generator),
            "good_images": "photographs",
            "num_distinct": len(self.good),
        }

    def choose(self, indices: Sequence[int], seed: int) -> Tensor:
        """Return the photographs of these numbers, (n, C, R, R) in [-1, 1], in the order that `seed` decides.

        All of them come before any comes again.
        """
        order = torch.randperm(len(self.good), generator=torch.Generator().manual_seed(seed))
        return self.good.at([int(order[i % len(order)]) for i in indices])

    @torch.no_grad()
    def sample_at(self, indices: Sequence[int], seed: int) -> Samples:
        """Draw on the photographs of these numbers; see `choose`."""
        device = self.generator.device
        # One at a time on the CPU, where batches of different sizes round differently.
        good = self.choose(indices, seed).to(device)
        parts = good.split(1 if device.type == "cpu" else len(good))
        images = torch.cat([self.generator(part).images for part in parts])
        return to_pixels(images)[:, : good.shape[1]], None


def open_sampler(request: SamplerRequest) -> SDGANSampler:
    """Draw with a trained folder on photographs."""
    generator = CycleGANGenerator.from_pretrained(
        str(request.source), subfolder="generator", revision=request.revision
    ).to(request.device)
    size = {name: generator.config[name] for name in ("resolution", "image_channels")}
    good = Photographs(request.photographs.load_good(**size).images, request.device)
    return SDGANSampler(generator, good)


def sample_task(task: SDGANTask) -> SDGANSampler:
    """Draw with a task's generator on its good photographs."""
    return SDGANSampler(task.generator, task.good)


METHOD = register(
    Method(
        name="sdgan",
        title="SDGAN",
        citation=(
            "S. Niu, B. Li, X. Wang, H. Lin: Defect Image Sample Generation With GAN for Improving Defect "
            "Recognition. IEEE Transactions on Automation Science and Engineering 17(3), 2020."
        ),
        open_sampler=open_sampler,
        build=build,
        generator="CycleGANGenerator",
        sample_task=sample_task,
        options=SDGANOptions,
        # 200 passes over the 391 good photographs of MVTec AD's hazelnuts.
        defaults=RecipeConfig(batch_size=4, lr=2e-4, total_kimg=78.2),
        recipe_fields=RECIPE_FIELDS,
        augments=lambda options: False,
        is_reconstruction=True,
    )
)
