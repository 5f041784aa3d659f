"""Stage 1: the StyleGAN2 backbone learns the defect-free product (DFMGAN, section 3.1; StyleGAN2-ADA).

`Stage1Task` has the four phases of StyleGAN2's training, one method each, in the order in which a step runs them:
generator, path length, discriminator, R1. With the quick preset, the generator imitates photographs before them.
Stage 2 (dfmgan.py) shares what stands before it in this file.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from PIL import Image
from torch import Tensor, nn

from ..augmentation.controller import AdaController
from ..losses import (
    PATH_LENGTH_DECAY,
    feature_distance,
    hinge_discriminator_loss,
    hinge_generator_loss,
    logistic_loss,
    path_lengths,
    r1_penalty,
)
from ..models.discriminator import StyleGAN2Discriminator
from ..models.projected import ProjectedDiscriminator
from ..models.stylegan2 import MappingNetwork, NoiseInput, StyleGAN2Generator
from ..pipeline import DFMGANPipeline
from ..sheets import sheet_of
from ..training.task import (
    Batch,
    ExponentialMovingAverage,
    Panels,
    Phase,
    Rule,
    RunningStatistics,
    Task,
    lazy_adam,
)
from .imitation import MEASURED, PhotographCodes, PhotographNoise, parts_of
from .method import ADA_KIMG, PUBLISHED_FIELDS, Method, TaskRequest, open_pipeline, register

EMA_RAMPUP = 0.05
"""See `ema_decay`."""


@dataclass(frozen=True, kw_only=True)
class Stage1Config:
    """Hyperparameters of stage 1: StyleGAN2-ADA's. The first four follow from the recipe.

    Args:
        batch_size: images a step over all processes; only the moving average counts by it.
        lr: Adam's learning rate before lazy regularisation.
        r1_gamma: weight of R1, 0.0002 R^2 / batch by default.
        ema_kimg: half-life of the averaged generator.
        r1_interval: steps between R1 penalties.
        path_length_weight: weight of the path-length penalty.
        path_length_interval: steps between path-length penalties.
        style_mixing: probability of style mixing.
        ema_rampup: see `ema_decay`; None for none.
        imitation_kimg: thousands of images in which the generator imitates photographs before all else.
        sheet_samples: pictures on a sample sheet.
    """

    batch_size: int
    lr: float
    r1_gamma: float
    ema_kimg: float
    r1_interval: int = 16
    path_length_weight: float = 2.0
    path_length_interval: int = 4
    style_mixing: float = 0.9
    ema_rampup: float | None = EMA_RAMPUP
    imitation_kimg: float = 0.0
    sheet_samples: int = 32


# --- Latents: standard normal z, style mixing, and the moving averages of w and of path lengths ---


@dataclass(frozen=True)
class LatentDraw:
    """Random numbers that per-layer latents follow from.

    Args:
        z: of all layers, or of those below `cut`, (N, z_dim).
        mixed_z: of the layers from `cut` on (style mixing), or None.
        cut: first layer that takes `mixed_z`, a 0-dim tensor; as large as the number of layers if none does.
    """

    z: Tensor
    mixed_z: Tensor | None = None
    cut: Tensor | int = 0

    def layers(self, mapping: MappingNetwork, num_latents: int, kinds: Tensor | None = None) -> Tensor:
        """Return per-layer latents (N, num_latents, w_dim), of these `kinds` (N,) if the network has several."""
        if self.mixed_z is None:
            return mapping(self.z, kinds=kinds).unsqueeze(1).expand(-1, num_latents, -1)
        both = None if kinds is None else kinds.repeat(2)
        below, above = mapping(torch.cat([self.z, self.mixed_z]), kinds=both).unsqueeze(1).chunk(2)
        is_below = torch.arange(num_latents, device=below.device) < self.cut
        return torch.where(is_below[:, None], below, above)


def draw_latents(mapping: MappingNetwork, n: int, num_latents: int, mixing_probability: float) -> LatentDraw:
    """Draw new standard normal z, with style mixing (StyleGAN, section 3.1).

    With `mixing_probability`, the layers from one random cut on take the latent of another z. The device decides, so
    that nobody waits for it and a CUDA graph can do it too.
    """
    device = mapping.w_avg.device
    if num_latents < 2 or mixing_probability <= 0:
        return LatentDraw(torch.randn(n, mapping.z_dim, device=device))
    z, mixed_z = torch.randn(2, n, mapping.z_dim, device=device).unbind()
    is_mixed = torch.rand((), device=device) < mixing_probability
    cut = torch.where(is_mixed, torch.randint(1, num_latents, (), device=device), num_latents)
    return LatentDraw(z, mixed_z, cut)


def sample_latents(
    mapping: MappingNetwork, n: int, num_latents: int, mixing_probability: float, kinds: Tensor | None = None
) -> Tensor:
    """Return per-layer latents (n, num_latents, w_dim) of `n` new samples, with style mixing."""
    return draw_latents(mapping, n, num_latents, mixing_probability).layers(mapping, num_latents, kinds)


class LatentAverage:
    """Gather w over the micro-batches of a step, then move a mapping network's w_avg.

    It moves once a step, by the w of the generator phase that style mixing leaves in the first layer. StyleGAN2-ADA's
    code moves it in every forward pass of the mapping network in training, so also in those of the path length and of
    the discriminator: two or three times a step. Truncation and the noise of an object use it; nothing that is trained
    depends on it.
    Of a network with several kinds, each kind's average moves by its own w.
    """

    def __init__(self, mapping: MappingNetwork, mean_over_processes: Callable[[Tensor], Tensor]) -> None:
        self.mapping = mapping
        self.mean_over_processes = mean_over_processes
        self.sum = torch.zeros_like(mapping.w_avg)
        self.parts = torch.zeros((*mapping.w_avg.shape[:-1], 1), device=mapping.w_avg.device)

    @torch.no_grad()
    def observe(self, w: Tensor, kinds: Tensor | None = None) -> None:
        """Take in (n, w_dim), of these `kinds` (n,) if the network has several."""
        if kinds is None:
            self.sum += w.mean(dim=0)
            self.parts += 1
        else:
            self.sum.index_add_(0, kinds, w.to(self.sum.dtype))
            self.parts.index_add_(0, kinds, self.parts.new_ones(len(kinds), 1))

    def update(self) -> None:
        """Move w_avg by the step's mean and start anew."""
        if self.mapping.num_kinds:
            total, count = self.mean_over_processes(self.sum), self.mean_over_processes(self.parts)
            mean = torch.where(count > 0, total / count.clamp_min(1e-8), self.mapping.w_avg)
        else:
            mean = self.mean_over_processes(self.sum / self.parts)
        self.mapping.update_w_avg(mean)
        self.sum.zero_()
        self.parts.zero_()


class PathLengthAverage:
    """Keep the running mean of path lengths (StyleGAN2, appendix B).

    Penalties of a step use the mean before it, so that they do not depend on how the step is split over processes and
    micro-batches. The official code first moves the mean by the lengths of the same micro-batch, 1 % of the way, and
    lets the gradient go through it: its penalty and this phase's gradient are 1 to 2 % smaller, and nothing else
    differs.

    Args:
        device: where the mean lives.
        mean_over_processes: averages a tensor over all processes.
    """

    def __init__(self, device: torch.device, mean_over_processes: Callable[[Tensor], Tensor]) -> None:
        self.mean = torch.zeros((), device=device)
        self.mean_over_processes = mean_over_processes
        self.sum, self.parts = (torch.zeros((), device=device) for _ in range(2))

    def penalty(self, lengths: Tensor) -> Tensor:
        """Return (length - mean)^2, averaged over (N,)."""
        with torch.no_grad():
            self.sum += lengths.mean()
            self.parts += 1
        return (lengths - self.mean).square().mean()

    @torch.no_grad()
    def update(self) -> None:
        """Move the mean by the step's lengths."""
        self.mean.lerp_(self.mean_over_processes(self.sum / self.parts).to(self.mean.dtype), PATH_LENGTH_DECAY)
        self.sum.zero_()
        self.parts.zero_()


IMITATION_LR = 0.03
"""Adam's learning rate while the generator imitates."""

CLIPPED = 1 / 16
"""How far beyond white and black an imitation may be where its photograph is clipped: 8 levels of 255."""


# --- What the regularisers compute in, and what is warned of ---


@contextmanager
def regularizer_precision(network: StyleGAN2Generator | StyleGAN2Discriminator) -> Iterator[None]:
    """Run a network whose gradient is differentiated once more: in bfloat16 if it is set to half precision.

    The penalties' gradients are small, and float16 has no room for small numbers; bfloat16 has float32's. Rounding to
    its 8 bits moves a gradient by 3 to 5 %, a twentieth or less of what another batch does (benchmarks/README.md).
    A network in float16 runs in float32 on a device that is slow in bfloat16.
    """
    dtype = network.low_precision_dtype
    if dtype is torch.float16:
        network.low_precision_dtype = torch.bfloat16 if _is_fast_in_bfloat16(network.device) else None
    try:
        yield
    finally:
        network.low_precision_dtype = dtype


def _is_fast_in_bfloat16(device: torch.device) -> bool:
    """Say so of GPUs of compute capability 8.0 or more, which meta tensors stand for."""
    return device.type == "meta" or (device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0))


RULES = (
    Rule(
        "ada_at_cap",
        ("ada/p", "ada/r_t", "ada/at_cap"),
        lambda p, r_t, at_cap: at_cap >= 0.99,
        "ADA's probability is at its limit {0:.2f} and the discriminator still overfits (r_t {1:.2f}): there are too "
        "few photographs for so long a run. Keep the best checkpoint (--eval_every_kimg) or stop; add photographs, "
        "--mirror, or a larger --augmentation set if the product allows. Raising --ada_max above 0.8 makes "
        "augmentations leak into the samples.",
    ),
    # D tells nearly every real image from nearly every generated one, with logits far apart.
    Rule(
        "discriminator_memorised",
        ("logits/real", "logits/fake", "accuracy/real", "accuracy/fake"),
        lambda real, fake, on_real, on_fake: min(on_real, on_fake) >= 0.97 and real - fake >= 6,
        "The discriminator has memorised the photographs: mean logits {0:.1f} on real and {1:.1f} on generated "
        "images, and both are told apart nearly always. What comes now is seldom better: use the best or an earlier "
        "checkpoint. For the next run: augmentation (--augmentation, not none), more photographs, a larger "
        "--r1_gamma.",
    ),
)


PROJECTED_RULES = (
    Rule(
        "discriminator_ahead",
        ("loss/discriminator", "accuracy/real", "accuracy/fake"),
        lambda loss, on_real, on_fake: min(on_real, on_fake) >= 0.99 and loss < 0.4,
        "The discriminator is far ahead (hinge loss {0:.2f}, nearly all images told apart): the generator learns "
        "little. At the start of a run, train on; if it lasts, start again with a larger --imitation_kimg or a "
        "smaller --resolution; late in a run, use the best checkpoint (--eval_every_kimg).",
    ),
)
"""Instead of `RULES` with the projected discriminator, which has no ADA and no R1."""


def report_logits(statistics: RunningStatistics, prefix: str, real_logits: Tensor, fake_logits: Tensor) -> None:
    """Report mean logits and accuracy of a discriminator on real and generated images."""
    statistics.report(f"{prefix}logits/real", real_logits)
    statistics.report(f"{prefix}logits/fake", fake_logits)
    statistics.report(f"{prefix}accuracy/real", (real_logits > 0).to(torch.float32))
    statistics.report(f"{prefix}accuracy/fake", (fake_logits < 0).to(torch.float32))


# --- Stage 1 ---


class Stage1Task(Task):
    """Train a StyleGAN2 with the non-saturating logistic loss, R1, path-length penalty and adaptive augmentation.

    With a `ProjectedDiscriminator`: the hinge loss, and no R1, since spectral norm bounds the heads.

    Args:
        generator, discriminator: on their device.
        config: hyperparameters.
        trained: names of the generator's parameters to train and to average; None for all.
        mapping: the mapping network whose w_avg follows; None for the generator's first.
        critics: discriminators besides the first, trained with it, by name.
        codes: of the photographs, to imitate them for `config.imitation_kimg` first; needs a `ProjectedDiscriminator`.
        details: what the photographs' codes leave out, as noise; None leaves the noise random.
        augment: differentiable augmentation of all that the discriminator sees: (images, p) -> images; None for none.
        ada: adapts p; None keeps p at 1, for augmentations without a probability.
        mean_over_processes: averages a tensor over all processes.

    Example:
        >>> config = Stage1Config(batch_size=16, lr=0.0025, r1_gamma=0.82, ema_kimg=5.0)
        >>> task = Stage1Task(generator, discriminator, config)
        >>> [phase.name for phase in task.phases]
        ['generator', 'path_length', 'discriminator', 'r1']
    """

    is_captured: ClassVar[bool] = True
    rules: ClassVar[Sequence[Rule]] = RULES
    panels: ClassVar[Panels] = {
        "Losses": ("loss/generator", "loss/discriminator"),
        "D: mean logits": ("logits/real", "logits/fake"),
        "D: accuracy": ("accuracy/real", "accuracy/fake"),
        "ADA": ("ada/p", "ada/r_t"),
        "Regularisers": ("r1_penalty", "path_length"),
    }

    def __init__(
        self,
        generator: StyleGAN2Generator,
        discriminator: StyleGAN2Discriminator | ProjectedDiscriminator,
        config: Stage1Config,
        *,
        trained: set[str] | None = None,
        mapping: MappingNetwork | None = None,
        critics: dict[str, StyleGAN2Discriminator] | None = None,
        codes: PhotographCodes | None = None,
        details: PhotographNoise | None = None,
        augment: nn.Module | None = None,
        ada: AdaController | None = None,
        mean_over_processes: Callable[[Tensor], Tensor] = lambda tensor: tensor,
    ) -> None:
        self.generator: Any = generator
        self.discriminator: Any = discriminator
        self.is_projected = isinstance(discriminator, ProjectedDiscriminator)
        if self.is_projected:
            self.rules = tuple(rule for rule in self.rules if rule not in RULES) + PROJECTED_RULES  # type: ignore[misc]
        self.settings: Any = config
        self.augment = augment
        self.ada = ada
        self.mean_over_processes = mean_over_processes
        judges: dict[str, Any] = {"discriminator": discriminator, **(critics or {})}
        for network in (generator, *judges.values()):
            network.train().requires_grad_(False)
        average = ExponentialMovingAverage(
            generator, trained=trained, half_life_kimg=config.ema_kimg, rampup=config.ema_rampup
        )
        self.generator_ema = average.averaged
        self.ema = [average]
        self.networks = {"generator": generator, "generator_ema": self.generator_ema, **judges}
        device = generator.mapping.w_avg.device
        self.w_average = LatentAverage(mapping or generator.mapping, mean_over_processes)
        self.path_length = PathLengthAverage(device, mean_over_processes)
        # Always the same ones on sample sheets: of objects and, in stage 2, of defects.
        seeded = torch.Generator().manual_seed(0)
        shape = (config.sheet_samples, generator.config["z_dim"])
        self.sheet_latents = [torch.randn(shape, generator=seeded).to(device) for _ in range(2)]

        g_parameters = [p for name, p in generator.named_parameters() if trained is None or name in trained]
        d_parameters = [p for critic in judges.values() for p in critic.parameters()]
        # R1 is StyleGAN2's; of stage 2's discriminators, the matching one always is.
        has_r1 = any(isinstance(critic, StyleGAN2Discriminator) for critic in judges.values())
        g_every, d_every = config.path_length_interval, config.r1_interval if has_r1 else None
        g_adam = lazy_adam(g_parameters, lr=config.lr, interval=g_every)
        d_adam = lazy_adam(d_parameters, lr=config.lr, interval=d_every)
        self.optimizers = {"generator": g_adam, "discriminator": d_adam}
        w_update, length_update = self.w_average.update, self.path_length.update
        self.codes = None if codes is None else codes.to(device)
        self.details = None if details is None else details.to(device)
        begins = 0 if codes is None else math.ceil(1000 * config.imitation_kimg / config.batch_size)
        self.phases = [
            Phase("generator", g_parameters, g_adam, self.generator_loss, prepare=self.prepare, finish=w_update),
            Phase("path_length", g_parameters, g_adam, self.path_length_loss, interval=g_every, finish=length_update),
            Phase("discriminator", d_parameters, d_adam, self.discriminator_loss),
        ]
        if d_every is not None:
            self.phases.append(Phase("r1", d_parameters, d_adam, self.r1_loss, interval=d_every))
        for phase in self.phases:
            phase.begins = begins
        if codes is not None:
            # Nobody plays against it here, so it can go fast, with momentum.
            adam = lazy_adam(g_parameters, lr=IMITATION_LR, betas=(0.9, 0.99))
            self.optimizers["imitation"] = adam
            self.phases.insert(
                0, Phase("imitation", g_parameters, adam, self.imitation_loss, finish=w_update, ends=begins)
            )
            self.panels = {"Imitation": ("loss/imitation",), **self.panels}  # type: ignore[misc]

    # --- the losses ---

    def prepare(self, parts: list[Batch]) -> None:
        """Do what a generator's step needs to know of all its micro-batches: here nothing."""

    def imitation_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return how much G(code of x) differs from the photograph x."""
        assert self.codes is not None
        self.observe_latents(len(batch))
        batch = batch.as_photographed()
        g, z = self.generator, self.codes(batch.images)
        maps = {} if self.details is None else self.details(batch.images, z)
        noise = NoiseInput("random", len(z), given={g.block(r).conv1: noise for r, noise in maps.items()})
        images = g.synthesize(g.mapping(z).unsqueeze(1).expand(-1, g.num_latents, -1), noise)
        return self.imitation_distance(images, batch.images)

    @torch.no_grad()
    def observe_latents(self, n: int, kinds: Tensor | None = None) -> None:
        """Let w_avg follow `n` latents such as will be drawn; an imitation draws none itself."""
        mapping = self.w_average.mapping
        z = torch.randn(n, mapping.z_dim, device=mapping.w_avg.device)
        self.w_average.observe(mapping(z, kinds=kinds), kinds)

    def imitation_distance(self, images: Tensor, wanted: Tensor) -> Tensor:
        """Return how much images (N, C, H, W) differ from those wanted: in frozen features, and |x - y|.

        Where a photograph is white or black, its file has clipped what was brighter or darker, and images may be so,
        too, by `CLIPPED`. If they had to meet the end of the range, half of a white background would fall short of it.
        """
        with torch.no_grad():
            wanted = wanted.clamp(-1, 1)
            features = self.discriminator.features_of(wanted)
            least, most = wanted - CLIPPED * (wanted <= -1), wanted + CLIPPED * (wanted >= 1)
        off = images - images.clamp(least, most)
        return feature_distance(self.discriminator.features_of(images), features) + off.abs().mean()

    def generator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return softplus(-D(G(z)))."""
        images, ws = self._draw(len(batch))
        self.w_average.observe(ws[:, 0])
        return self.deception_loss(self.judge(images))

    def deception_loss(self, fake_logits: Tensor) -> Tensor:
        """Return what the generator minimises of the discriminator's logits."""
        return hinge_generator_loss(fake_logits) if self.is_projected else logistic_loss(fake_logits, 1)

    def path_length_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return the weighted (length - mean)^2 of half the batch (StyleGAN2, equation 4)."""
        ws = self._latents(max(len(batch) // 2, 1))
        if not ws.requires_grad:  # with a frozen mapping
            ws.requires_grad_()
        with regularizer_precision(self.generator):
            images = self.generator.synthesize(ws, NoiseInput("random", len(ws)))
        return self.path_length_penalty(images, ws, statistics)

    def path_length_penalty(self, images: Tensor, ws: Tensor, statistics: RunningStatistics) -> Tensor:
        """Return the weighted penalty of images (N, C, H, W) that were drawn from `ws` (N, L, w_dim)."""
        lengths = path_lengths(images, ws, torch.randn_like(images))
        statistics.report("path_length", lengths)
        return self.settings.path_length_weight * self.path_length.penalty(lengths)

    def discriminator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return softplus(D(G(z))) + softplus(-D(x))."""
        with torch.no_grad():
            fakes, _ = self._draw(len(batch))
        return self.distinction_loss(self.judge(fakes), self.judge(batch.images), statistics)

    def distinction_loss(self, fake_logits: Tensor, real_logits: Tensor, statistics: RunningStatistics) -> Tensor:
        """Return the discriminator's loss of its logits, which its statistics and ADA take in."""
        report_logits(statistics, "", real_logits, fake_logits)
        if self.ada is not None:
            self.ada.observe(real_logits)
        if self.is_projected:
            return hinge_discriminator_loss(fake_logits, -1) + hinge_discriminator_loss(real_logits, 1)
        return logistic_loss(fake_logits, -1) + logistic_loss(real_logits, 1)

    def r1_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return gamma / 2 |grad D(x)|^2 (Mescheder et al. 2018, equation 9)."""
        return self.settings.r1_gamma / 2 * self.r1(batch.images, statistics).mean()

    def r1(self, inputs: Tensor, statistics: RunningStatistics, kinds: Tensor | None = None) -> Tensor:
        """Return the discriminator's squared gradients (N,) at real inputs (N, C, H, W) of these `kinds`."""
        inputs = inputs.detach().requires_grad_()
        with regularizer_precision(self.discriminator):
            # One logit an image: a method whose discriminator judges patches averages them first.
            penalty = r1_penalty(self.judge(inputs, kinds).flatten(1).mean(dim=1, keepdim=True), inputs)
        statistics.report("r1_penalty", penalty)
        return penalty

    def judge(self, images: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Return augmented images' logits (N, 1); `kinds` (N,) are theirs if the discriminator knows several."""
        return self.discriminator(self.augmented(images), kinds=kinds).logits

    def augmented(self, images: Tensor) -> Tensor:
        """Return images as the discriminator sees them."""
        return images if self.augment is None else self.augment(images, 1.0 if self.ada is None else self.ada.p)

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        """Return new images (n, C, R, R) and their per-layer latents."""
        ws = self._latents(n)
        return self.generator.synthesize(ws, NoiseInput("random", n)), ws

    def _latents(self, n: int) -> Tensor:
        return sample_latents(self.generator.mapping, n, self.generator.num_latents, self.settings.style_mixing)

    # --- what the trainer asks besides ---

    def check_split(self, images: int) -> str | None:
        group, batch_size = self.discriminator.config["mbstd_group_size"], self.settings.batch_size
        if batch_size % group or images % group == 0:
            return None
        return (
            f"{images} images at a time split the groups of {group} that the discriminator compares (minibatch "
            "standard deviation), which changes what it learns. Choose `batch_size` as a multiple of "
            f"{group * batch_size // images}, or fewer --accumulation_steps or processes."
        )

    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        if self.ada is not None:
            # r_t is a ratio of two sums, so their means over processes serve as well.
            self.ada.step(self.mean_over_processes)
            statistics.report("ada/p", self.ada.p)
            statistics.report("ada/r_t", self.ada.r_t.nan_to_num())
            statistics.report("ada/at_cap", (self.ada.p >= self.ada.p_max).to(torch.float32))

    def state_dict(self) -> dict[str, Tensor]:
        state = {"path_length_mean": self.path_length.mean}
        if self.ada is not None:
            ada = self.ada.state_dict()
            # Every process resumes with these: with means of what each has counted, the next r_t is the same.
            ada["sums"] = self.mean_over_processes(ada["sums"])
            state |= {f"ada.{name}": value for name, value in ada.items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.path_length.mean.copy_(state["path_length_mean"])
        if self.ada is not None:
            self.ada.load_state_dict({k.removeprefix("ada."): v for k, v in state.items() if k.startswith("ada.")})

    @torch.no_grad()
    def sample_sheet(self) -> Image.Image:
        images = [self.generator_ema(z, noise_mode="const").images for z in self.sheet_latents[0].split(8)]
        return sheet_of(torch.cat(images), columns=8)

    def export(self, folder: Path) -> None:
        DFMGANPipeline(generator=self.generator_ema).save_pretrained(str(folder))
        for name, network in self.networks.items():
            if name.endswith("discriminator"):
                network.save_pretrained(folder / name)  # type: ignore[operator]


def build(request: TaskRequest) -> Stage1Task:
    """Build stage 1's task on new networks, drawn from the global random generator, or on those of another product."""
    config = Stage1Config(**request.recipe.training_config(), imitation_kimg=request.recipe.imitation_kimg)
    generator, discriminator = request.networks()
    codes: PhotographCodes | None = None
    details: PhotographNoise | None = None
    if config.imitation_kimg and request.dataset is not None:
        photographs = request.dataset.images
        codes = PhotographCodes(parts_of(photographs), request.recipe.z_dim)
        details = PhotographNoise(parts_of(photographs[:: math.ceil(len(photographs) / MEASURED)]), codes)
        generator.register_to_config(object_noise=bool(details.resolutions))
    if codes is not None and request.backbone is None:
        codes.amplify(generator.mapping)
    if request.data is not None:  # of another product's scale, the network knows nothing here
        generator.register_to_config(window=request.data.patch_size())
    return Stage1Task(
        generator, discriminator, config, codes=codes, details=details, **request.gan_arguments(ADA_KIMG["stage1"])
    )


METHOD = register(
    Method(
        name="stage1",
        title="Stage 1",
        citation=(
            "T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila: Training Generative Adversarial "
            "Networks with Limited Data. NeurIPS 2020."
        ),
        open_sampler=open_pipeline,
        build=build,
        generator="StyleGAN2Generator",
        augmentation="bgc",
        recipe_fields=(*PUBLISHED_FIELDS, "imitation_kimg", "discriminator"),
        learns="good",
        init="either",
    )
)
