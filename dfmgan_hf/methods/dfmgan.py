"""Stage 2: defect-aware residual blocks learn one defect from a few photographs (DFMGAN, sections 3.2 and 3.3)."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from ..augmentation.controller import AdaController
from ..losses import (
    PATH_LENGTH_DECAY,
    change_outside,
    discriminator_fake_loss,
    discriminator_real_loss,
    generator_loss,
    path_lengths,
    r1_penalty,
)
from ..models.base import default_channel_base
from ..models.dfmgan import DEFECT_PREFIXES, DFMGANGenerator, Trunk, soft_mask
from ..models.discriminator import StyleGAN2Discriminator
from ..models.stylegan2 import NoiseInput, StyleGAN2Generator, to_layer_latents
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
from .stylegan2 import (
    AdversarialTask,
    LatentAverage,
    LatentDraw,
    PathLengthAverage,
    Stage1Settings,
    draw_latents,
    report_logits,
    sample_latents,
)

# --- Drawing defect images while training: from random numbers that are kept, so that a batch can be drawn again.


@dataclass(frozen=True)
class Plan:
    """The random numbers that a batch of generated images follows from, so that it can be drawn again.

    Args:
        objects, defects: of the object and the defect latents.
        noise_seed: of the pixel noise.
    """

    objects: LatentDraw
    defects: LatentDraw
    noise_seed: int


@dataclass
class Drawing:
    """A batch of generated images, or of masks alone, and what they were drawn from.

    Args:
        images: (N, C, R, R), or None if masks alone were drawn.
        mask_logits: (N, 1, R, R).
        twins: the defect-free twins (N, C, R, R) without gradients, or None if they were not asked for.
        trunk: what is shared with other defects on the same objects.
        ws: per-layer object latents (N, L, w_dim).
        defect_ws: per-layer defect latents (N, L_defect, w_dim).
        defect_z: z of the first defect latent (N, z_dim).
    """

    images: Tensor | None
    mask_logits: Tensor
    twins: Tensor | None
    trunk: Trunk
    ws: Tensor
    defect_ws: Tensor
    defect_z: Tensor


def plan_drawing(generator: DFMGANGenerator, n: int, mixing_probability: float) -> Plan:
    """Draw the random numbers of `n` new samples, with style mixing in both latents, each with its own cut."""
    objects = draw_latents(generator.mapping, n, generator.num_latents, mixing_probability)
    defects = draw_latents(generator.defect_mapping, n, generator.num_defect_latents, mixing_probability)
    return Plan(objects, defects, int(torch.randint(2**31, ()).item()))


def draw(generator: DFMGANGenerator, plan: Plan, masks_only: bool = False, with_twins: bool = False) -> Drawing:
    """The images of a plan; with `masks_only` nothing above the first residual block and ToMask is run."""
    ws = plan.objects.layers(generator.mapping, generator.num_latents)
    defect_ws = plan.defects.layers(generator.defect_mapping, generator.num_defect_latents)
    noise = torch.Generator(ws.device).manual_seed(plan.noise_seed)
    trunk = generator.run_trunk(ws, NoiseInput("random", len(ws), noise))
    if masks_only:
        return Drawing(None, generator.mask_logits(trunk, defect_ws), None, trunk, ws, defect_ws, plan.defects.z)
    out = generator.synthesize_defect(trunk, ws, defect_ws, return_defect_free=with_twins)
    return Drawing(out.images, out.mask_logits, out.defect_free_images, trunk, ws, defect_ws, plan.defects.z)


# --- Statistics of masks, real beside generated: how large, how many empty or full, at the border; and what is
# ill.

AREA_EDGES = (0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 0.9)
"""Bins of the histograms of mask areas, as shares of the image: empty, up to 0.1 %, ..., above 90 %."""

FULL_AREA = 0.9
"""A mask that covers more of the image than this counts as full."""


def report_masks(statistics: RunningStatistics, kind: Literal["real", "fake"], masks: Tensor) -> None:
    """Report the area (mean and histogram) and the rates of empty, full and border-touching masks.

    Args:
        statistics: takes mask_area/, mask_empty/, mask_full/ and mask_border/ `kind`.
        kind: whose masks they are.
        masks: (N, 1, R, R), bool.
    """
    areas = masks.to(torch.float32).mean(dim=(1, 2, 3))
    border = masks[..., [0, -1], :].flatten(1).any(dim=1) | masks[..., :, [0, -1]].flatten(1).any(dim=1)
    statistics.report(f"mask_area/{kind}", areas)
    statistics.report(f"mask_empty/{kind}", (areas == 0).to(torch.float32))
    statistics.report(f"mask_full/{kind}", (areas > FULL_AREA).to(torch.float32))
    statistics.report(f"mask_border/{kind}", border.to(torch.float32))
    statistics.report_histogram(f"mask_area/{kind}", areas, AREA_EDGES)


def mask_difference(first: Tensor, second: Tensor) -> Tensor:
    """1 - intersection / union of pairs of masks (N, 1, R, R), bool: (N,), 0 for two empty ones."""
    union = (first | second).sum(dim=(1, 2, 3))
    return (first ^ second).sum(dim=(1, 2, 3)) / union.clamp_min(1)


def masks_empty(rows: Rows) -> str | None:
    """At least 90 % of the generated masks are empty, and at most 10 % of the real ones."""
    values = last(rows, "mask_empty/fake", "mask_empty/real")
    if values is None or not all(fake >= 0.9 and real <= 0.1 for fake, real in values):
        return None
    return (
        f"{values[-1][0]:.0%} of the generated masks are empty: no defect is learnt. Check the real masks with "
        "check_dataset.py; then train on, since masks can take a while to appear, and if they don't, start again "
        "with another --seed or a larger --mode_seeking_weight."
    )


def masks_full(rows: Rows) -> str | None:
    """At least half of the generated masks cover nearly everything, and at most 10 % of the real ones."""
    values = last(rows, "mask_full/fake", "mask_full/real")
    if values is None or not all(fake >= 0.5 and real <= 0.1 for fake, real in values):
        return None
    return (
        f"{values[-1][0]:.0%} of the generated masks cover nearly the whole image. Check that white means defect in "
        "the real masks; then start again with another --seed, or a smaller --match_discriminator if D_match's "
        "accuracy is near 1."
    )


def area_far_from_real(rows: Rows) -> str | None:
    """The mean generated area is over 4 times, or under a quarter of, the mean real one, with masks neither all empty
    nor all full."""
    values = last(rows, "mask_area/fake", "mask_area/real", "mask_empty/fake", "mask_full/fake")
    if values is None:
        return None
    for fake, real, empty, full in values:
        if real <= 0 or empty >= 0.9 or full >= 0.5 or real / 4 <= fake <= real * 4:
            return None
    fake, real = values[-1][:2]
    return (
        f"Generated masks cover {fake:.2%} of the image on average, real ones {real:.2%}. Train on if the ratio still "
        "falls; if not, a larger --match_weight makes the masks follow the real ones more closely."
    )


def masks_at_border(rows: Rows) -> str | None:
    """Most generated masks touch the border, while few real ones do."""
    values = last(rows, "mask_border/fake", "mask_border/real")
    if values is None or not all(fake >= 0.75 and fake - real >= 0.5 for fake, real in values):
        return None
    fake, real = values[-1]
    return (
        f"{fake:.0%} of the generated masks touch the border, but only {real:.0%} of the real ones. Look at the "
        "sheets: if frames are drawn instead of defects, start again with another --seed, or with --augmentation "
        "none, since all others shift the images."
    )


def defects_do_not_change(rows: Rows) -> str | None:
    """Another z_defect changes neither mask nor image, although there are masks."""
    values = last(rows, "defect_change/mask", "defect_change/image", "mask_empty/fake")
    if values is None or not all(mask < 0.05 and image < 0.02 and empty < 0.5 for mask, image, empty in values):
        return None
    return (
        f"The defects hardly change with z_defect (masks differ by {values[-1][0]:.1%} of their union): the generator "
        "draws one defect. Raise --mode_seeking_weight, or use more photographs of the defect."
    )


MASK_RULES = (masks_empty, masks_full, area_far_from_real, masks_at_border, defects_do_not_change)


# --- The matching discriminator D_match, which judges whether image and mask belong together (DFMGAN, section
# 3.2).

MATCH_SIZES: dict[str, int] = {"small": 4, "medium": 2, "large": 1}
"""How many times fewer channels the matching discriminator has than the discriminator. At 256x256 these are the
paper's three sizes of 1.5 (published), 6.0 and 24 million parameters."""


def build_match_discriminator(discriminator: StyleGAN2Discriminator, size: str) -> StyleGAN2Discriminator:
    """A new matching discriminator, which sees one channel more than `discriminator`: the mask.

    Args:
        discriminator: stage 1's.
        size: a name of `MATCH_SIZES`.
    """
    config, divisor = discriminator.config, MATCH_SIZES[size]
    channel_base = config["channel_base"] or default_channel_base(config["resolution"])
    return StyleGAN2Discriminator(
        resolution=config["resolution"],
        image_channels=config["image_channels"] + 1,
        channel_base=max(channel_base // divisor, config["resolution"]),
        channel_max=max(config["channel_max"] // divisor, 1),
        conv_clamp=config["conv_clamp"],
        mbstd_group_size=config["mbstd_group_size"],
    )


@torch.no_grad()
def build_joint_discriminator(discriminator: StyleGAN2Discriminator) -> StyleGAN2Discriminator:
    """One discriminator for image and match, instead of two: stage 1's, which sees the mask as one more channel.

    It starts as stage 1's, whatever the mask: the new channel's weights are 0.

    Args:
        discriminator: stage 1's; it stays as it is.
    """
    channels = discriminator.config["image_channels"]
    joint = StyleGAN2Discriminator(**{**discriminator.config, "image_channels": channels + 1})
    state = dict(discriminator.state_dict())
    (name,) = (name for name in state if name.endswith("from_rgb.weight"))
    # Weights are scaled by 1 / sqrt(channels) in the forward pass.
    weight = torch.zeros_like(joint.state_dict()[name])
    weight[:, :channels] = state[name] * ((channels + 1) / channels) ** 0.5
    joint.load_state_dict({**state, name: weight})
    return joint


# --- The mode-seeking loss of a batch that is spread over processes and micro-batches (DFMGAN, section 3.3).

SMALLEST_SPREAD = 1e-8
"""Masks that are exactly equal give a large, finite value."""


def seeking_distances(
    generator: DFMGANGenerator, drawing: Drawing, on: Literal["mask", "image"], latents: Literal["w", "z"]
) -> Tensor:
    """The first half's objects once more, with the second half's defects: how far latents and outputs are apart.

    On masks, only the first residual block and ToMask run again.

    Args:
        generator: of the drawing.
        drawing: an even number of samples.
        on: distances between masks tanh(10 M) (published) or images.
        latents: distances between w (published) or z.

    Returns:
        mean|w1 - w2| and mean|m1 - m2|, (2,).

    Raises:
        ValueError: an odd number of samples.
    """
    if len(drawing.ws) % 2:
        raise ValueError(
            f"The mode-seeking loss pairs the halves of a micro-batch, but this one has {len(drawing.ws)} samples: "
            "choose `batch_size` and `accumulation_steps` so that it is even."
        )
    half = len(drawing.ws) // 2
    trunk, other_ws = drawing.trunk.samples(slice(half)), drawing.defect_ws[half:]
    if on == "mask":
        first = soft_mask(drawing.mask_logits[:half])
        second = soft_mask(generator.mask_logits(trunk, other_ws))
    else:
        assert drawing.images is not None
        first = drawing.images[:half]
        second = generator.synthesize_defect(trunk, drawing.ws[:half], other_ws).images
    codes = drawing.defect_ws if latents == "w" else drawing.defect_z
    return torch.stack([(codes[:half] - codes[half:]).abs().mean(), (first - second).abs().mean()])


def ratio_of_means(part: Tensor, means: Tensor) -> Tensor:
    """A part's share of the mode-seeking loss of the whole batch (DFMGAN, equation 2).

    The loss is a ratio of two means over the batch, so that the mean of the parts' own ratios would be another loss.
    This has the value of the whole batch's ratio, and gradients whose mean over the parts is that ratio's gradient.

    Args:
        part: distances of this part, (2,), with gradients.
        means: their means over all parts of the batch, (2,), without.

    Returns:
        A scalar.
    """
    latents, outputs = means.unbind()
    spread = outputs.clamp_min(SMALLEST_SPREAD)
    ratio = latents / spread
    # Where the spread is clamped it has no gradient.
    slope = torch.stack([1 / spread, torch.where(outputs > SMALLEST_SPREAD, -ratio / spread, 0.0)])
    return ratio + (slope * (part - part.detach())).sum()


# --- Stage 2: defect-aware residual blocks learn one defect from a few photographs (DFMGAN, sections 3.2 and 3.3).

PAIRS = 16
"""Objects on which `Stage2Task.measure` compares two defects each."""


@dataclass(frozen=True)
class Stage2Options:
    """What stage 2 lets choose: the published method by default, and the paper's ablations.

    Args:
        residual_resolution: Resolution of the first residual block; None: 64, or a quarter of a smaller
            backbone's.
        match_discriminator: Size of the matching discriminator; none for the ablation without it; joint for the one
            with a single discriminator, which sees image and mask together, without augmentation.
        match_weight: Weight of its term in the generator's loss.
        mode_seeking_weight: Weight lambda of the mode-seeking loss; 0 for none.
        mode_seeking_on: Distances between masks (published) or images.
        mode_seeking_latents: Distances between latents w (published) or z.
        outside_weight: Weight of what the defect changes outside its mask; 0 as published. The gate acts on the mask
            of each resolution, and a spot that is gone from the final mask can still be in the image.
    """

    residual_resolution: int | None = None
    match_discriminator: Literal["small", "medium", "large", "none", "joint"] = "small"
    match_weight: float = 1.0
    mode_seeking_weight: float = 0.1
    mode_seeking_on: Literal["mask", "image"] = "mask"
    mode_seeking_latents: Literal["w", "z"] = "w"
    outside_weight: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Stage2Settings(Stage1Settings, Stage2Options):
    """Hyperparameters of stage 2: those of stage 1, without a ramp-up of the average, and the method's options.

    Args:
        ema_rampup, sheet_samples: as in stage 1.
    """

    ema_rampup: float | None = None
    sheet_samples: int = 24


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

    settings: Stage2Settings
    rules: ClassVar[Sequence[Rule]] = (*AdversarialTask.rules, *MASK_RULES)
    panels: ClassVar[Panels] = {
        "Mask area (share of the image)": ("mask_area/real", "mask_area/fake"),
        "Masks: rates": ("mask_empty/fake", "mask_full/fake", "mask_border/real", "mask_border/fake"),
        "Change with z_defect": ("defect_change/mask", "defect_change/image"),
        **AdversarialTask.panels,
        "Losses": (*AdversarialTask.panels["Losses"], "loss/match", "loss/mode_seeking"),
        "D_match: accuracy": ("match/accuracy/real", "match/accuracy/fake"),
    }

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
        return sheet_of(twins, masks, images, headings=("defect-free", "mask", "defect"), columns=3)

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


def build_stage2(
    backbone: StyleGAN2Generator,
    discriminator: StyleGAN2Discriminator,
    recipe: Recipe,
    options: Stage2Options,
    augmentation: AugmentationConfig,
    target: Target,
) -> Stage2Task:
    """A stage-2 task on copies of stage 1's networks; the new weights are drawn from the global random generator.

    Args:
        backbone: stage 1's averaged generator, on the CPU; it stays as it is.
        discriminator: stage 1's, on the CPU; it stays as it is.
        recipe: sizes are the backbone's.
        options: of the method.
        augmentation: what the discriminator sees.
        target: where it computes.
    """
    discriminator = copy.deepcopy(discriminator)
    if target.is_meta:
        backbone = copy.deepcopy(backbone).to(device="meta")  # type: ignore[call-arg]
        discriminator = discriminator.to(device="meta")  # type: ignore[call-arg]
    match = None
    with target.construct():
        generator = DFMGANGenerator.from_backbone(backbone, options.residual_resolution)
        if options.match_discriminator == "joint":
            discriminator = build_joint_discriminator(discriminator)
            # Augmentations of the image alone would tear image and mask apart.
            augmentation = replace(augmentation, augmentation="none")
        elif options.match_discriminator != "none":
            match = build_match_discriminator(discriminator, options.match_discriminator)
    augment, ada = build_augmentation(augmentation, recipe.batch_size, ADA_KIMG["stage2"], target.device)
    return Stage2Task(
        target.place(generator),
        target.place(discriminator),
        None if match is None else target.place(match),
        Stage2Settings(
            **recipe.training_settings(),
            **asdict(options),
        ),
        augment=augment,
        ada=ada,
        mean_over_processes=target.mean_over_processes,
    )


# --- DFMGAN as one of the methods to compare: stage 2 on stage 1's backbone (stage2.py).


def build(request: TaskRequest) -> Stage2Task:
    """Stage 2 as examples/train_stage2.py trains it."""
    return build_stage2(*request.networks, request.recipe, request.options, request.augmentation, request.target)


METHOD = Method(
    name="dfmgan",
    title="DFMGAN",
    citation=(
        "Y. Duan, Y. Hong, L. Niu, L. Zhang: Few-Shot Defect Image Generation via Defect-Aware Feature Manipulation. "
        "AAAI 2023."
    ),
    open_sampler=open_pipeline,
    build=build,
    generator="DFMGANGenerator",
    options=Stage2Options,
    defaults=Defaults(augmentation="bgc"),
    init="stage1",
    has_masks=True,
    needs_masks=True,
)
register(METHOD)
