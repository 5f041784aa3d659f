"""Stage 2: defect-aware residual blocks learn one defect from a few photographs (DFMGAN, sections 3.2 and 3.3).

The residual blocks and the mask (section 3.2, equation 1) are `models/dfmgan.py`. Here is how they are trained, in the
paper's order: what can be chosen, the matching discriminator (section 3.2), the mode-seeking loss (section 3.3,
equation 2), and `Stage2Task`, whose `generator_loss` adds up the objective of section 3.3. With the quick preset,
masks are imitated instead, by neither of these two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from ..arguments import check_effect, check_number, check_numbers
from ..losses import change_outside, logistic_loss, r1_penalty, unchanged_inside
from ..models.base import default_channel_base
from ..models.dfmgan import DEFECT_PREFIXES, SHARPNESS, DFMGANGenerator, Trunk, soft_mask
from ..models.discriminator import StyleGAN2Discriminator
from ..models.projected import ProjectedDiscriminator
from ..models.stylegan2 import NoiseInput, StyleGAN2Generator
from ..sheets import sheet_of
from ..training.task import Batch, Panels, Rule, RunningStatistics
from .imitation import PhotographCodes
from .method import PUBLISHED_FIELDS, Discriminator, Method, TaskRequest, open_pipeline, register
from .stylegan2 import (
    EMA_RAMPUP,
    LatentDraw,
    Stage1Config,
    Stage1Task,
    draw_latents,
    regularizer_precision,
    report_logits,
    sample_latents,
)

MATCH_SIZES: dict[str, int] = {"small": 4, "medium": 2, "large": 1}
"""How many times fewer channels the matching discriminator has than the discriminator. At 256x256 these are the
paper's three sizes of 1.5 (published), 6.0 and 24 million parameters."""

SMALLEST_SPREAD = 1e-8
"""Masks that are exactly equal give a large, finite mode-seeking loss."""

PAIRS = 16
"""Objects on which `Stage2Task.measure` draws two defects each."""


@dataclass(frozen=True)
class Stage2Options:
    """Options of stage 2: the published method by default, and the paper's ablations.

    Args:
        residual_resolution: Resolution of the first residual block; None: 64, or a quarter of a smaller
            backbone's.
        match_discriminator: Size of the matching discriminator; none for the ablation without it; joint for the one
            with a single discriminator, which sees image and mask together, without augmentation. None: small, as
            published, and none where masks are imitated (--imitation_kimg).
        match_weight: Weight of its term in the generator's loss.
        mode_seeking_weight: Weight lambda of the mode-seeking loss; 0 for none. None: 0.1, as published, and 0 where
            masks are imitated.
        mode_seeking_on: Distances between masks (published) or images.
        mode_seeking_latents: Distances between latents w (published) or z.
        outside_weight: Weight of what the defect changes outside its mask; 0 as published. The gate acts on the mask
            of each resolution, and a spot that is gone from the final mask can still be in the image.
        given_masks: Share of the generated images whose defect goes where a real mask says, moved and turned, and not
            where the model itself puts it: what `paint` asks of a model. 0 as published.
        inside_weight: Weight of what does not change inside of these masks.
        joint: Learn all kinds of defect that --defect names in one model, which then draws any of them on demand.
        conditioning_kimg: Thousands of images over which a joint training goes from not knowing the kinds to telling
            them apart.
        soft_gate: The trained model draws defects with smooth outlines, and without the fused operators of GPUs. None:
            where masks are imitated; elsewhere not, as published.

    Raises:
        ValueError: a negative weight, a share above 1, or an option that another one leaves without effect.
    """

    residual_resolution: int | None = None
    match_discriminator: Literal["small", "medium", "large", "none", "joint"] | None = None
    match_weight: float = 1.0
    mode_seeking_weight: float | None = None
    mode_seeking_on: Literal["mask", "image"] = "mask"
    mode_seeking_latents: Literal["w", "z"] = "w"
    outside_weight: float = 0.0
    given_masks: float = 0.0
    inside_weight: float = 1.0
    joint: bool = False
    conditioning_kimg: float = 4.0
    soft_gate: bool | None = None

    def __post_init__(self) -> None:
        weights = ("match_weight", "mode_seeking_weight", "outside_weight", "inside_weight", "conditioning_kimg")
        check_numbers(self, **dict.fromkeys(weights, 0))
        check_number(self.given_masks, "given_masks", 0, 1)
        if not self.given_masks:
            check_effect(self, ["inside_weight"], "`given_masks`")
        if not self.joint:
            check_effect(self, ["conditioning_kimg"], "`joint`")
        if self.match_discriminator in ("none", "joint"):
            check_effect(self, ["match_weight"], "a `match_discriminator` of its own")
        if self.mode_seeking_weight == 0:
            check_effect(self, ["mode_seeking_on", "mode_seeking_latents"], "`mode_seeking_weight`")


@dataclass(frozen=True, kw_only=True)
class Stage2Config(Stage1Config, Stage2Options):
    """Hyperparameters of stage 2: stage 1's, without a ramp-up of the average, and the method's options."""

    match_discriminator: Literal["small", "medium", "large", "none", "joint"] = "small"
    mode_seeking_weight: float = 0.1
    soft_gate: bool = False
    ema_rampup: float | None = None
    sheet_samples: int = 24


# --- Section 3.2: the matching discriminator D_match judges whether image and mask belong together ---


def build_match_discriminator(backbone: StyleGAN2Generator, size: str, num_kinds: int = 0) -> StyleGAN2Discriminator:
    """Build a new matching discriminator of a size of `MATCH_SIZES`, which sees one channel more: the mask."""
    config, divisor = backbone.config, MATCH_SIZES[size]
    channel_base = config["channel_base"] or default_channel_base(config["resolution"])
    return StyleGAN2Discriminator(
        resolution=config["resolution"],
        aspect=config["aspect"],
        image_channels=config["image_channels"] + 1,
        channel_base=max(channel_base // divisor, config["resolution"]),
        channel_max=max(config["channel_max"] // divisor, 1),
        conv_clamp=config["conv_clamp"],
        num_kinds=num_kinds,
    )


def with_kinds(discriminator: Discriminator, num_kinds: int) -> Discriminator:
    """Return a copy of stage 1's discriminator that learns kinds; it starts as stage 1's, whatever the kind."""
    model = type(discriminator)(**{**discriminator.config, "num_kinds": num_kinds})
    model.load_state_dict(model.state_dict() | discriminator.state_dict())
    return model


@torch.no_grad()
def build_joint_discriminator(discriminator: StyleGAN2Discriminator) -> StyleGAN2Discriminator:
    """Build one discriminator for image and match, instead of two: stage 1's, with the mask as one more channel.

    It starts as stage 1's, which stays as it is, whatever the mask: the new channel's weights are 0.
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


# --- Masks that are given, so that the model learns to follow them ---

MOVES = {"turn": 30.0, "scale": 1.4, "shift": 0.125}
"""How far real masks are turned (degrees), enlarged or reduced, and moved (share of the image): defects of a kind have
their directions and places on the product."""


def move_masks(masks: Tensor) -> Tensor:
    """Return masks (N, 1, H, W), bool, turned and scaled about their middle and moved, each in its own random way."""
    n, (height, width), device = len(masks), masks.shape[-2:], masks.device
    angle, size, x, y = torch.rand(4, n, device=device) * 2 - 1
    angle, size = angle * math.radians(MOVES["turn"]), MOVES["scale"] ** size
    sin, cos = angle.sin() * size, angle.cos() * size
    # Places are in units of half the image's width and height, from its middle; turns are those of pixels.
    places_x, places_y = (torch.linspace(1 / s - 1, 1 - 1 / s, s, device=device) for s in (width, height))
    x_by_y, y_by_x = -sin * (height / width), sin * (width / height)
    weights = masks[:, 0].to(torch.float32)
    weights = weights / weights.sum(dim=(1, 2), keepdim=True).clamp_min(1)
    middle_x, middle_y = (weights * places_x).sum(dim=(1, 2)), (weights * places_y[:, None]).sum(dim=(1, 2))
    to_x, to_y = middle_x + 2 * MOVES["shift"] * x, middle_y + 2 * MOVES["shift"] * y
    # Where each pixel comes from: the middle goes to (to_x, to_y).
    from_x, from_y = middle_x - cos * to_x - x_by_y * to_y, middle_y - y_by_x * to_x - cos * to_y
    theta = torch.stack([torch.stack([cos, x_by_y, from_x], dim=1), torch.stack([y_by_x, cos, from_y], dim=1)], dim=1)
    grid = F.affine_grid(theta, list(masks.shape), align_corners=False)
    return F.grid_sample(masks.to(torch.float32), grid, align_corners=False) >= 0.5


@dataclass(frozen=True)
class Given:
    """What is asked of a batch of generated images.

    Args:
        kinds: numbers of their kinds of defect (N,), or None if there is one kind.
        masks: bool (N, 1, H, W), or None if no masks are given.
        follows: bool (N,): whose defects go where `masks` say.
    """

    kinds: Tensor | None = None
    masks: Tensor | None = None
    follows: Tensor | None = None

    def used_masks(self, mask_logits: Tensor) -> Tensor:
        """Return the masks that defects were put by as the matching discriminator sees them, (N, 1, R, R)."""
        own = soft_mask(mask_logits)
        if self.masks is None or self.follows is None:
            return own
        return torch.where(self.follows[:, None, None, None], self.masks.to(own.dtype) * 2 - 1, own)


# --- Imitation: defects and their masks are learnt from the photographs' codes, instead of against D_match ---

IMAGE_WEIGHT = 1.6
"""Of the imitation of defects, while the discriminator judges them: left to it alone, they crackle like foil.

It is a weight of the distance's logarithm. Defects that cover little of an image are never far off, and those of
which a code says little, as on textures, always are: what would be right for these would be nothing for those.
"""

MASK_WEIGHT = 10.0
"""Of the imitation of masks, and of their areas, meanwhile."""


def cut_out(images: Tensor, masks: Tensor) -> Tensor:
    """Return the defects alone: images in [-1, 1], 0 outside of `masks` (N, 1, H, W), bool, and these beside them."""
    return torch.cat([images * masks, masks * 2.0 - 1], dim=1)


SEAM = 1 / 32
"""How far along a mask's border a defect is fitted to another product, as a part of the shorter side."""


def transplant(photographs: Tensor, masks: Tensor, products: Tensor) -> Tensor:
    """Return products (N, C, H, W) with the defects of photographs inside of `masks` (N, 1, H, W), bool.

    Photographs are brightened or darkened to match the products: by the mean difference outside of the mask, and along
    its border by the difference beside it. Else there would be an edge along the mask's outline, which the generator
    would learn to draw.
    """
    radius = max(round(SEAM * min(masks.shape[-2:])), 1)

    def around(x: Tensor) -> Tensor:
        return F.avg_pool2d(x, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)

    outside = (~masks).to(products.dtype)
    differences, share = (products - photographs) * outside, around(outside)
    mean = differences.sum(dim=(2, 3), keepdim=True) / outside.sum(dim=(2, 3), keepdim=True).clamp_min(1)
    beside = around(differences) / share.clamp_min(1e-6)
    # Half of what is around the border is outside.
    shift = torch.lerp(mean, beside, (2 * share).clamp(max=1))
    return torch.where(masks, photographs + shift, products)


def mask_distance(mask_logits: Tensor, masks: Tensor) -> Tensor:
    """Return cross entropy plus Dice loss of mask logits (N, 1, H, W) against `masks`, bool."""
    logits, wanted = 2 * SHARPNESS * mask_logits, masks.to(mask_logits.dtype)  # sigmoid(20 M) is tanh(10 M) in [0, 1]
    p = torch.sigmoid(logits)
    both, all_of = (p * wanted).sum(dim=(1, 2, 3)), (p + wanted).sum(dim=(1, 2, 3))
    dice = 1 - (2 * both + 1) / (all_of + 1)
    return F.binary_cross_entropy_with_logits(logits, wanted) + dice.mean()


def area_distance(mask_logits: Tensor, masks: Tensor, kinds: Tensor | None = None) -> Tensor:
    """Return how far areas of masks are from those of real ones (N, 1, H, W): the mean |log ratio| of both in order.

    That is the Wasserstein distance between the logarithms of the two batches' areas. Between the photographs' codes,
    masks that lie apart average out to small or empty ones, which real ones never are. An area next to nothing has no
    gradient, so the highest logit of an empty mask counts as well, as far as it is below 0.

    Args:
        kinds: int64 (N,), kinds of defect of the images and as well of the real ones; each is compared by itself.
    """
    generated = (soft_mask(mask_logits).mean(dim=(1, 2, 3)) + 1) / 2
    real, pixel = masks.to(generated.dtype).mean(dim=(1, 2, 3)), 1 / masks[0].numel()
    logs = [(areas + pixel).log() for areas in (generated, real)]
    # Far more than any two logarithms differ by, so that the order is by kind first.
    keys = logs if kinds is None else [log + 1000 * kinds for log in logs]
    ours, theirs = (log[key.argsort()] for log, key in zip(logs, keys, strict=True))
    empty = F.relu(-mask_logits.amax(dim=(1, 2, 3))).mean()
    return (ours - theirs).abs().mean() + empty


# --- Images that can be drawn again from the same random numbers ---


@dataclass(frozen=True)
class Plan:
    """The random numbers that a batch of generated images follows from.

    Args:
        objects, defects: of the object and the defect latents.
        noise: keeps the pixel noise that layers have drawn.
        given: what is asked of them.
    """

    objects: LatentDraw
    defects: LatentDraw
    noise: NoiseInput
    given: Given = Given()

    def latents(self, generator: DFMGANGenerator) -> tuple[Tensor, Tensor]:
        """Return per-layer latents (N, L, w_dim) of the objects and (N, L_defect, w_dim) of the defects."""
        ws = self.objects.layers(generator.mapping, generator.num_latents)
        return ws, self.defects.layers(generator.defect_mapping, generator.num_defect_latents, self.given.kinds)


@dataclass
class Drawing:
    """A batch of generated images, or of masks alone, and what they were drawn from.

    Args:
        images: (N, C, H, W), or None if masks alone were drawn.
        mask_logits: (N, 1, H, W).
        twins: the defect-free twins (N, C, H, W) without gradients, or None if they were not asked for.
        trunk: what is shared with other defects on the same objects.
        ws: per-layer object latents (N, L, w_dim).
        defect_ws: per-layer defect latents (N, L_defect, w_dim).
        defect_z: z of the first defect latent (N, z_dim).
        given: what was asked of them.
    """

    images: Tensor | None
    mask_logits: Tensor
    twins: Tensor | None
    trunk: Trunk
    ws: Tensor
    defect_ws: Tensor
    defect_z: Tensor
    given: Given = Given()


def plan_drawing(generator: DFMGANGenerator, n: int, mixing_probability: float, given: Given = Given()) -> Plan:
    """Draw the random numbers of `n` new samples, with style mixing in both latents, each with its own cut."""
    objects = draw_latents(generator.mapping, n, generator.num_latents, mixing_probability)
    defects = draw_latents(generator.defect_mapping, n, generator.num_defect_latents, mixing_probability)
    return Plan(objects, defects, NoiseInput("random", n), given)


def render(generator: DFMGANGenerator, plan: Plan, masks_only: bool = False, with_twins: bool = False) -> Drawing:
    """Draw a plan's images; with `masks_only` nothing above the first residual block and ToMask is run."""
    given, (ws, defect_ws) = plan.given, plan.latents(generator)
    trunk = generator.run_trunk(ws, plan.noise)
    if masks_only:
        logits = generator.mask_logits(trunk, defect_ws)
        return Drawing(None, logits, None, trunk, ws, defect_ws, plan.defects.z, given)
    out = generator.synthesize_defect(
        trunk, ws, defect_ws, return_defect_free=with_twins, masks=given.masks, follows=given.follows
    )
    return Drawing(out.images, out.mask_logits, out.defect_free_images, trunk, ws, defect_ws, plan.defects.z, given)


# --- Section 3.3: the mode-seeking loss (equation 2) ---


def mode_seeking_loss(part: Tensor, means: Tensor) -> Tensor:
    """Return a part's share of mean|w1 - w2| / mean|m1 - m2| over the whole batch (DFMGAN, equation 2).

    A batch may be spread over processes and micro-batches, and the mean of the parts' own ratios would be another
    loss. This is the ratio of the whole batch's means, with the gradient that reaches them through this part: its mean
    over the parts is the ratio's gradient.

    Args:
        part: distances of this part by `mode_seeking_distances`, (2,), with gradients.
        means: their means over all parts of the batch, (2,), without; with one part, its own.

    Returns:
        A scalar.
    """
    latents, outputs = (means + (part - part.detach())).unbind()
    return latents / outputs.clamp_min(SMALLEST_SPREAD)


def mode_seeking_distances(
    generator: DFMGANGenerator, drawing: Drawing, on: Literal["mask", "image"], latents: Literal["w", "z"]
) -> Tensor:
    """Draw the first half's objects again with the second half's defects, and return both distances of equation 2.

    On masks, only the first residual block and ToMask run again. They are the generator's own, also where another mask
    was given: that one does not follow from the latents. Both halves are of the same kinds of defect, or the distance
    between kinds would do.

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
        masks, follows = (None if t is None else t[:half] for t in (drawing.given.masks, drawing.given.follows))
        second = generator.synthesize_defect(trunk, drawing.ws[:half], other_ws, masks=masks, follows=follows).images
    codes = drawing.defect_ws if latents == "w" else drawing.defect_z
    return torch.stack([(codes[:half] - codes[half:]).abs().mean(), (first - second).abs().mean()])


# --- Statistics of real and generated masks, and warnings about them ---

FULL_AREA = 0.9
"""A mask that covers more of the image than this counts as full."""


def report_masks(statistics: RunningStatistics, kind: Literal["real", "fake"], masks: Tensor) -> None:
    """Report the mean area and the rates of empty, full and border-touching masks.

    Args:
        statistics: takes mask_area/, mask_empty/, mask_full/ and mask_border/ `kind`.
        kind: whose masks they are.
        masks: (N, 1, H, W), bool.
    """
    areas = masks.to(torch.float32).mean(dim=(1, 2, 3))
    last_row, last_column = (side - 1 for side in masks.shape[-2:])  # the first and the last, by their step
    border = masks[..., ::last_row, :].flatten(1).any(dim=1) | masks[..., ::last_column].flatten(1).any(dim=1)
    statistics.report(f"mask_area/{kind}", areas)
    statistics.report(f"mask_empty/{kind}", (areas == 0).to(torch.float32))
    statistics.report(f"mask_full/{kind}", (areas > FULL_AREA).to(torch.float32))
    statistics.report(f"mask_border/{kind}", border.to(torch.float32))


def mask_difference(first: Tensor, second: Tensor) -> Tensor:
    """Return 1 - intersection / union of pairs of masks (N, 1, H, W), bool: (N,), 0 for two empty ones."""
    union = (first | second).sum(dim=(1, 2, 3))
    return (first ^ second).sum(dim=(1, 2, 3)) / union.clamp_min(1)


MASK_RULES = (
    Rule(
        "masks_empty",
        ("mask_empty/fake", "mask_empty/real"),
        lambda fake, real: fake >= 0.9 and real <= 0.1,
        "{0:.0%} of the generated masks are empty: no defect is learnt. Check the real masks with `dfmgan check`; "
        "then train on, since masks can take a while to appear, and if they don't, start again with another "
        "--seed.",
    ),
    Rule(
        "masks_full",
        ("mask_full/fake", "mask_full/real"),
        lambda fake, real: fake >= 0.5 and real <= 0.1,
        "{0:.0%} of the generated masks cover nearly the whole image. Check that white means defect in the real "
        "masks; then start again with another --seed.",
    ),
    Rule(
        "area_far_from_real",
        ("mask_area/fake", "mask_area/real", "mask_empty/fake", "mask_full/fake"),
        lambda fake, real, empty, full: real > 0 and empty < 0.9 and full < 0.5 and not real / 4 <= fake <= real * 4,
        "Generated masks cover {0:.2%} of the image on average, real ones {1:.2%}. Train on if the ratio still falls; "
        "if not, a matching discriminator makes the masks follow the real ones more closely: --match_discriminator "
        "small if the run has none (as with --preset quick), otherwise a larger --match_weight.",
    ),
    Rule(
        "masks_at_border",
        ("mask_border/fake", "mask_border/real"),
        lambda fake, real: fake >= 0.75 and fake - real >= 0.5,
        "{0:.0%} of the generated masks touch the border, but only {1:.0%} of the real ones. Look at the sheets: if "
        "frames are drawn instead of defects, start again with another --seed, or with --augmentation none, since all "
        "others shift the images.",
    ),
    Rule(
        "defects_do_not_change",
        ("defect_change/mask", "defect_change/image", "mask_empty/fake"),
        lambda mask, image, empty: mask < 0.05 and image < 0.02 and empty < 0.5,
        "The defects hardly change with z_defect (masks differ by {0:.1%} of their union): the generator draws one "
        "defect. Use a larger --mode_seeking_weight (0.1 if it is 0, as with --preset quick), or more photographs of "
        "the defect.",
    ),
)


# --- Stage 2 ---


class Stage2Task(Stage1Task):
    """Train the defect branch on a frozen backbone against D and D_match: stage 1's phases with section 3.3's losses.

    No gradient is computed for the backbone's parameters and no graph is kept below the first residual block. One set
    of generated images serves both discriminators; the mode-seeking loss on masks runs the first residual block and
    ToMask again and nothing else.

    Args:
        generator: from `DFMGANGenerator.from_backbone` with stage 1's averaged backbone, on its device.
        discriminator: stage 1's, on the generator's device. With one channel more than the images it judges them
            together with their masks (`build_joint_discriminator`), for the ablation with a single discriminator.
        match_discriminator: new, one channel more; None for the ablation without it. It sees no augmentation.
        config: hyperparameters.
        arguments: `augment`, `ada` and `mean_over_processes`, as in `Stage1Task`.
    """

    balances_kinds: ClassVar[bool] = True
    rules: ClassVar[Sequence[Rule]] = (*Stage1Task.rules, *MASK_RULES)
    panels: ClassVar[Panels] = {
        "Mask area (share of the image; fake: of what is saved)": ("mask_area/real", "mask_area/fake"),
        "Masks: rates": ("mask_empty/fake", "mask_full/fake", "mask_border/real", "mask_border/fake"),
        "Change with z_defect": ("defect_change/mask", "defect_change/image"),
        **Stage1Task.panels,
        "Losses": (*Stage1Task.panels["Losses"], "loss/match", "loss/mode_seeking", "loss/outside", "loss/inside"),
        "D_match: accuracy": ("match/accuracy/real", "match/accuracy/fake"),
    }

    def __init__(
        self,
        generator: DFMGANGenerator,
        discriminator: StyleGAN2Discriminator | ProjectedDiscriminator,
        match_discriminator: StyleGAN2Discriminator | None,
        config: Stage2Config,
        **arguments: Any,
    ) -> None:
        super().__init__(
            generator,
            discriminator,
            config,
            trained={name for name, _ in generator.named_parameters() if name.startswith(DEFECT_PREFIXES)},
            mapping=generator.defect_mapping,
            critics={} if match_discriminator is None else {"match_discriminator": match_discriminator},
            **arguments,
        )
        if self.codes is not None:
            more = {
                "Defects of the photographs' codes": ("loss/defect_imitation",),
                "Their masks, areas of all masks": ("loss/mask_imitation", "loss/mask_area"),
            }
            self.panels = {**self.panels, **more}  # type: ignore[misc]
        self.match_discriminator = match_discriminator
        self.judges_masks = discriminator.config["image_channels"] > generator.config["image_channels"]
        self._plans: list[Plan] = []
        self._mean_distances: Tensor | None = None
        self.num_kinds = generator.defect_mapping.num_kinds
        discriminators = [n for name, n in self.networks.items() if name.endswith("discriminator")]
        first_game = next(phase.begins for phase in self.phases if phase.name == "discriminator")
        # The average needs none: it copies the generator's.
        self._conditioning = [
            (begins, buffer)
            for begins, network in ((0, generator), *((first_game, n) for n in discriminators))
            for name, buffer in network.named_buffers()
            if name.endswith("conditioning")
        ]
        self._condition(0)

    def _condition(self, step: int) -> None:
        """Let kinds count for as much as they do in a step: more and more, from where a network's training begins."""
        ramp = 1000 * self.settings.conditioning_kimg
        for begins, buffer in self._conditioning:
            images = max(step - begins, 0) * self.settings.batch_size
            buffer.fill_(min(images / ramp, 1.0) if ramp else 1.0)

    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        super().after_step(step, statistics)
        self._condition(step)

    # --- the objective ---

    def check_split(self, images: int) -> str | None:
        if self.settings.mode_seeking_weight and images % 2:
            raise ValueError(
                f"{images} images at a time cannot be paired for the mode-seeking loss. Choose `batch_size`, "
                "--accumulation_steps and processes such that an even number is left."
            )
        return super().check_split(images)

    def generator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return softplus(-D(G)) + softplus(-D_match(G, tanh(10 M))) + lambda L_ms, the terms with their weights.

        Where a mask is given, D_match sees that one, and what it asks for is to change and nothing else.
        """
        config = self.settings
        if not self._plans:
            raise RuntimeError("Call `prepare` with all micro-batches of the step before the first `generator_loss`.")
        plan = self._plans.pop(0)
        given, kinds = plan.given, plan.given.kinds
        is_given = given.masks is not None
        drawing = render(self.generator, plan, with_twins=config.outside_weight > 0 or is_given)
        images, masks = drawing.images, given.used_masks(drawing.mask_logits)
        assert images is not None
        self.w_average.observe(drawing.defect_ws[:, 0], kinds)
        loss = self.deception_loss(self._judge(images, masks, kinds))
        if self.match_discriminator is not None:
            match_loss = logistic_loss(self._match(images, masks, kinds), 1)
            statistics.report("loss/match", match_loss)
            loss = loss + config.match_weight * match_loss
        if config.mode_seeking_weight:
            distances = self._distances(drawing)
            means = self._mean_distances
            if means is None:
                means = self.mean_over_processes(distances.detach())
            seeking = mode_seeking_loss(distances, means)
            statistics.report("loss/mode_seeking", seeking)
            loss = loss + config.mode_seeking_weight * seeking
        if drawing.twins is not None and config.outside_weight:
            outside = change_outside(images, drawing.twins, masks)
            statistics.report("loss/outside", outside)
            loss = loss + config.outside_weight * outside
        if drawing.twins is not None and given.masks is not None and given.follows is not None:
            missing = unchanged_inside(images, drawing.twins, given.masks & given.follows[:, None, None, None])
            # By as many as follow a mask on average: those of a micro-batch depend on how the batch is split.
            inside = missing.mean() / config.given_masks
            statistics.report("loss/inside", inside)
            loss = loss + config.inside_weight * inside
        if self.codes is not None:
            distance, off = self._imitate(batch, statistics)
            masks = _real_masks(batch) > 0
            # Real masks of the kinds that were drawn.
            real, drawn = self._as_drawn(masks, len(masks)), self._fake_kinds(batch, len(masks))
            areas = area_distance(drawing.mask_logits, real, drawn)
            statistics.report("loss/mask_area", areas)
            # A batch whose masks are all empty is no distance away.
            loss = loss + IMAGE_WEIGHT * distance.clamp_min(1e-4).log() + MASK_WEIGHT * (off + areas)
        return loss

    def imitation_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return how far defects and masks that are drawn from their codes are from the photographed ones."""
        self.observe_latents(len(batch), batch.labels)
        distance, off = self._imitate(batch, statistics)
        return distance + off

    def _imitate(self, batch: Batch, statistics: RunningStatistics) -> tuple[Tensor, Tensor]:
        """Draw a batch's defects from their codes, on random products: return how far they, and their masks, are off.

        Wanted are the photographs' defects on the twins. The real masks say where they go, while the network learns to
        draw them.
        """
        batch = batch.as_photographed()
        g, n, masks = self.generator, len(batch), _real_masks(batch) > 0
        ws = sample_latents(g.mapping, n, g.num_latents, self.settings.style_mixing)
        defect_ws, noise = self._coded(batch), NoiseInput("random", n)
        out = g.synthesize_defect(g.run_trunk(ws, noise), ws, defect_ws, return_defect_free=True, masks=masks)
        products = out.defect_free_images.clamp(-1, 1)  # as files show them: photographs are matched to their light
        distance = self.imitation_distance(out.images, transplant(batch.images, masks, products))
        off = mask_distance(out.mask_logits, masks)
        statistics.report("loss/defect_imitation", distance)
        statistics.report("loss/mask_imitation", off)
        return distance, off

    def _coded(self, batch: Batch) -> Tensor:
        """Return the per-layer defect latents (N, L_defect, w_dim) that stand for a batch's defects."""
        assert self.codes is not None
        z = self.codes(cut_out(batch.images, _real_masks(batch) > 0), batch.labels)
        ws = self.generator.defect_mapping(z, kinds=batch.labels)
        return ws.unsqueeze(1).expand(-1, self.generator.num_defect_latents, -1)

    def prepare(self, parts: list[Batch]) -> None:
        """Draw what the step's images follow from, and find out how far apart the masks of the whole batch are.

        The mode-seeking loss is a ratio of means over the batch. With several micro-batches its terms are needed
        before the first gradient, so the trunk and the first residual block run once more, without a graph.
        """
        self._plans = [self._plan(part) for part in parts]
        self._mean_distances = None
        if self.settings.mode_seeking_weight and len(parts) > 1:
            masks_only = self.settings.mode_seeking_on == "mask"
            with torch.no_grad():
                distances = [self._distances(render(self.generator, plan, masks_only)) for plan in self._plans]
            self._mean_distances = self.mean_over_processes(torch.stack(distances).mean(dim=0))

    def path_length_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return the weighted (length - mean)^2 of half the batch, with respect to the object latents alone."""
        g, n = self.generator, max(len(batch) // 2, 1)
        with torch.no_grad():
            ws = self._latents(n)
        ws = ws.detach().clone().requires_grad_()
        kinds = self._fake_kinds(batch, n)
        defect_ws = sample_latents(g.defect_mapping, n, g.num_defect_latents, self.settings.style_mixing, kinds)
        with regularizer_precision(g):
            trunk = g.run_trunk(ws, NoiseInput("random", n))
            images = g.synthesize_defect(trunk, ws, defect_ws).images
        return self.path_length_penalty(images, ws, statistics)

    def discriminator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return softplus(D(G)) + softplus(-D(x)), and the same pair of D_match on images with their masks."""
        masks = _real_masks(batch)
        report_masks(statistics, "real", masks > 0)
        plan = self._plan(batch)
        given, fake_kinds = plan.given, plan.given.kinds
        with torch.no_grad():
            drawn = self.generator.draw(
                *plan.latents(self.generator), plan.noise, masks=given.masks, follows=given.follows
            )
        fakes, fake_masks = drawn.images, given.used_masks(drawn.mask_logits)
        fake_logits = self._judge(fakes, fake_masks, fake_kinds)
        loss = self.distinction_loss(fake_logits, self._judge(batch.images, masks, batch.labels), statistics)
        if self.match_discriminator is not None:
            fake_match = self._match(fakes, fake_masks, fake_kinds)
            real_match = self._match(batch.images, masks, batch.labels)
            report_logits(statistics, "match/", real_match, fake_match)
            loss = loss + logistic_loss(fake_match, -1) + logistic_loss(real_match, 1)
        return loss

    def r1_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        """Return gamma / 2 (|grad D(x)|^2 + |grad D_match(x, m)|^2)."""
        pair = _with_mask(batch.images, _real_masks(batch))
        loss = pair.new_zeros(())
        if not self.is_projected:
            loss = self.r1(pair if self.judges_masks else batch.images, statistics, batch.labels).mean()
        if self.match_discriminator is not None:
            pair.requires_grad_()
            with regularizer_precision(self.match_discriminator):
                match_penalty = r1_penalty(self.match_discriminator(pair, kinds=batch.labels).logits, pair)
            statistics.report("match/r1_penalty", match_penalty)
            loss = loss + match_penalty.mean()
        return self.settings.r1_gamma / 2 * loss

    def _judge(self, images: Tensor, masks: Tensor, kinds: Tensor | None) -> Tensor:
        """Return the discriminator's logits (N, 1); `masks` count only if it is the only one."""
        return self.judge(_with_mask(images, masks) if self.judges_masks else images, kinds)

    def _match(self, images: Tensor, masks: Tensor, kinds: Tensor | None) -> Tensor:
        """Return the matching discriminator's logits (N, 1)."""
        assert self.match_discriminator is not None
        return self.match_discriminator(_with_mask(images, masks), kinds=kinds).logits

    def _plan(self, batch: Batch) -> Plan:
        given = Given(kinds=self._fake_kinds(batch, len(batch)))
        if self.settings.given_masks:
            masks = _real_masks(batch) > 0
            masks = move_masks(
                self._as_drawn(masks, len(masks)) if self.num_kinds else masks
            )  # of the kinds asked for
            chosen = torch.rand(len(batch), device=masks.device) < self.settings.given_masks
            # One that was moved out of the image asks for nothing.
            given = replace(given, masks=masks, follows=chosen & masks.flatten(1).any(dim=1))
        return plan_drawing(self.generator, len(batch), self.settings.style_mixing, given)

    def _fake_kinds(self, batch: Batch, n: int) -> Tensor | None:
        """Return the kinds of `n` generated images, which are those of the batch."""
        if not self.num_kinds:
            return None
        if batch.labels is None:
            raise ValueError("A model of several kinds needs photographs of several kinds, with their labels.")
        return self._as_drawn(batch.labels, n)

    def _as_drawn(self, of_batch: Tensor, n: int) -> Tensor:
        """Return the first `n` rows of a batch; where mode seeking pairs images of one kind, half as many, twice."""
        if not self.settings.mode_seeking_weight:
            return of_batch[:n]
        return torch.cat(2 * [of_batch[: (n + 1) // 2]])[:n]

    def _distances(self, drawing: Drawing) -> Tensor:
        on, latents = self.settings.mode_seeking_on, self.settings.mode_seeking_latents
        return mode_seeking_distances(self.generator, drawing, on, latents)

    # --- what the trainer asks besides ---

    @torch.no_grad()
    def measure(self, statistics: RunningStatistics) -> None:
        """Report the averaged generator's masks, and how another z_defect changes mask and image on the same object.

        The average is what is saved; the masks of the generator in training can be far from its.
        """
        g = self.generator_ema
        objects, defects = (latents[:PAIRS] for latents in self.sheet_latents)
        kinds = self._sheet_kinds(len(objects))
        outputs = [g(objects, z, kinds, noise_mode="const") for z in (defects, defects.roll(1, dims=0))]
        first, second = (out.mask_logits >= 0 for out in outputs)
        report_masks(statistics, "fake", torch.cat([first, second]))
        statistics.report("defect_change/mask", mask_difference(first, second))
        change = (outputs[0].images - outputs[1].images).abs().mean(dim=1, keepdim=True)
        inside = first | second
        share = (change * inside).sum(dim=(1, 2, 3)) / inside.sum(dim=(1, 2, 3)).clamp_min(1)
        statistics.report("defect_change/image", share)

    @torch.no_grad()
    def sample_sheet(self) -> Image.Image:
        objects, defects = self.sheet_latents
        kinds = self._sheet_kinds(len(objects))
        parts = [
            self.generator_ema(
                objects[i],
                defects[i],
                None if kinds is None else kinds[i],
                noise_mode="const",
                return_defect_free=True,
            )
            for i in torch.arange(len(objects)).split(8)
        ]
        twins = torch.cat([part.defect_free_images for part in parts])
        masks = torch.cat([(part.mask_logits >= 0).to(torch.float32) * 2 - 1 for part in parts])
        images = torch.cat([part.images for part in parts])
        return sheet_of(twins, masks, images, headings=("defect-free", "mask", "defect"), columns=3)

    def _sheet_kinds(self, n: int) -> Tensor | None:
        """Return kinds in turn, (n,)."""
        return torch.arange(n, device=self.generator.device) % self.num_kinds if self.num_kinds else None


def _with_mask(images: Tensor, masks: Tensor) -> Tensor:
    return torch.cat([images, masks.to(images.dtype)], dim=1)


def _real_masks(batch: Batch) -> Tensor:
    if batch.masks is None:
        raise ValueError("Stage 2 needs photographs with masks, but the training set has none.")
    return batch.masks


def build(request: TaskRequest) -> Stage2Task:
    """Build stage 2's task on copies of stage 1's networks; new weights are drawn from the global random generator."""
    options, target, imitates = request.options, request.target, request.recipe.imitation_kimg > 0
    if options.match_discriminator is None:
        options = replace(options, match_discriminator="none" if imitates else Stage2Config.match_discriminator)
    if options.mode_seeking_weight is None:
        options = replace(options, mode_seeking_weight=0.0 if imitates else Stage2Config.mode_seeking_weight)
    if options.soft_gate is None:
        options = replace(options, soft_gate=imitates)
    backbone, discriminator = request.networks()
    match = codes = None
    names = request.dataset.kinds if options.joint and request.dataset is not None else None
    num_kinds = len(names or ())
    with target.construct():
        generator = DFMGANGenerator.from_backbone(
            backbone, options.residual_resolution, names, bool(options.soft_gate)
        )
        if options.match_discriminator == "joint":
            if not isinstance(discriminator, StyleGAN2Discriminator):
                raise ValueError("`match_discriminator` joint needs --discriminator stylegan2: features have no mask.")
            discriminator = build_joint_discriminator(discriminator)
        elif options.match_discriminator != "none":
            assert options.match_discriminator is not None
            match = target.place(build_match_discriminator(backbone, options.match_discriminator, num_kinds))
        if num_kinds:
            discriminator = with_kinds(discriminator, num_kinds)
    if imitates and request.dataset is not None:
        photographs, masks, labels = request.dataset.images, request.dataset.masks, request.dataset.labels
        assert masks is not None
        codes = PhotographCodes([cut_out(photographs / 127.5 - 1, masks > 127)], request.recipe.z_dim, labels)
        codes.amplify(generator.defect_mapping)
    config = Stage2Config(
        **request.recipe.training_config(),
        **asdict(options),
        imitation_kimg=request.recipe.imitation_kimg,
        ema_rampup=EMA_RAMPUP if imitates else None,
    )
    return Stage2Task(
        target.place(generator),
        target.place(discriminator),
        match,
        config,
        codes=codes,
        **request.gan_arguments(),
    )


METHOD = register(
    Method(
        name="dfmgan",
        title="DFMGAN",
        citation=(
            "Y. Duan, Y. Hong, L. Niu, L. Zhang: Few-Shot Defect Image Generation via Defect-Aware Feature "
            "Manipulation. AAAI 2023."
        ),
        open_sampler=open_pipeline,
        build=build,
        generator="DFMGANGenerator",
        options=Stage2Options,
        augmentation="bgc",
        recipe_fields=(*PUBLISHED_FIELDS, "imitation_kimg", "discriminator"),
        init="stage1",
        # Augmentations of the image alone would tear image and mask apart.
        augments=lambda options: options.match_discriminator != "joint",
        is_joint=lambda options: options.joint,
        has_masks=True,
    )
)
