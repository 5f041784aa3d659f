"""CDC: few-shot adaptation of a generator by cross-domain correspondence (Ojha et al. 2021, arXiv 2104.06820)."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..arguments import check_numbers
from ..losses import logistic_loss
from ..models.discriminator import PatchHeadDiscriminator
from ..models.stylegan2 import NoiseInput, StyledConv2d, StyleGAN2Generator, modulated_layers
from ..training.task import Batch, RunningStatistics
from .method import Method, RecipeConfig, TaskRequest, open_pipeline, register
from .stylegan2 import Stage1Config, Stage1Task, draw_latents

# --- Cross-domain distance consistency (section 3.1) ---


def cross_domain_consistency(source: Sequence[Tensor], target: Sequence[Tensor], layers: Sequence[int]) -> Tensor:
    """Return how differently two generators see the same latents: KL between the similarities of their features.

    For each sample a: cosine similarities of its features to those of the other B - 1 samples at layer `layers[a]`,
    as a distribution by softmax, p in the source and q in the target; p (log p - log q), averaged over all B (B - 1)
    entries. That is 1 / (B - 1) of the mean KL(p || q), as the authors' code has it; the paper writes the other
    direction, summed over layers.

    Args:
        source: features of the frozen generator by layer, (B, ...) each; they get no gradient.
        target: features of the trained generator from the same latents, of the same shapes.
        layers: the layer at which each of the B samples is compared, B numbers.

    Returns:
        A scalar of at least 0; 0 if the similarities agree, as those of two samples always do.
    """
    p, q = (
        torch.stack([_similarities(features[layer], sample) for sample, layer in enumerate(layers)])
        for features in (source, target)
    )
    return F.kl_div(q, p.detach(), reduction="none", log_target=True).mean()


def _similarities(features: Tensor, sample: int) -> Tensor:
    """Return log-probabilities (B - 1,) that follow from the similarity of one sample to the others."""
    flat = features.flatten(1).to(torch.promote_types(features.dtype, torch.float32))
    others = torch.cat([flat[:sample], flat[sample + 1 :]])
    return F.log_softmax(F.cosine_similarity(flat[sample : sample + 1], others, dim=1), dim=0)


# --- Training ---


@dataclass(frozen=True)
class CDCOptions:
    """Options of CDC.

    Args:
        consistency_weight: Weight of the distance consistency.
        num_anchors: Fixed latents near which whole images are judged. None: one for each photograph.
        anchor_std: Standard deviation of what is added to an anchor.
        anchor_interval: Every so many steps whole images near anchors are judged, in all others patches.
        num_taps: Layers of the discriminator that have a head for patches; one of them is drawn for each step.
    """

    consistency_weight: float = 1000.0
    num_anchors: int | None = None
    anchor_std: float = 0.1
    anchor_interval: int = 4
    num_taps: int = 1

    def __post_init__(self) -> None:
        check_numbers(self, consistency_weight=0, num_anchors=1, anchor_std=0, anchor_interval=1, num_taps=1)


@dataclass(frozen=True, kw_only=True)
class CDCConfig(Stage1Config, CDCOptions):
    """Hyperparameters: those of stage 1, without a ramp-up of the average, and the options of CDC, settled."""

    num_anchors: int = 10
    ema_rampup: float | None = None


class CDCTask(Stage1Task):
    """Stage 1's GAN with two routes through the discriminator and the distance consistency to a frozen source.

    Args:
        source: stage 1's generator, which stays as it is.
        generator: its copy, to be trained.
        discriminator: stage 1's, with heads for patches.
        config: hyperparameters.
        arguments: `augment`, `ada` and `mean_over_processes`, as in `Stage1Task`.

    Raises:
        ValueError: a batch too small to compare distances in.
    """

    discriminator: PatchHeadDiscriminator
    is_captured = False  # another route, and another tap, in nearly every step

    def __init__(
        self,
        source: StyleGAN2Generator,
        generator: StyleGAN2Generator,
        discriminator: PatchHeadDiscriminator,
        config: CDCConfig,
        **arguments: Any,
    ) -> None:
        if config.batch_size < 3:
            raise ValueError(
                "CDC compares the distances of each sample to at least two others, so that `batch_size` must be at "
                f"least 3, but it is {config.batch_size}."
            )
        super().__init__(generator, discriminator, config, **arguments)
        self.source = source.eval().requires_grad_(False)
        # A checkpoint without the source could be resumed with another one unnoticed.
        self.networks["source"] = self.source
        self.step = 0
        seeded = torch.Generator().manual_seed(0)
        anchors = torch.randn(config.num_anchors, generator.config["z_dim"], generator=seeded)
        self._anchors = anchors.to(generator.mapping.w_avg.device)

    # --- the two routes ---

    @property
    def judges_patches(self) -> bool:
        """Whether this step takes the patch route."""
        return self.step % self.settings.anchor_interval != 0

    @property
    def tap(self) -> int:
        """This step's tap: follows from the step alone, so that all phases, processes and micro-batches share it."""
        generator = torch.Generator().manual_seed(self.step)
        return int(torch.randint(len(self.discriminator.taps), (), generator=generator).item())

    def judge(self, images: Tensor, kinds: Tensor | None = None) -> Tensor:
        """Return augmented images' logits: (N, 1) of whole images, or (N, 1, r, r) of their patches."""
        if not self.judges_patches:
            return super().judge(images, kinds)
        return self.discriminator.judge_patches(self.augmented(images), self.tap)

    def _draw(self, n: int) -> tuple[Tensor, Tensor]:
        if self.judges_patches:
            return super()._draw(n)
        chosen = self._anchors[torch.randint(len(self._anchors), (n,))]
        z = chosen + self.settings.anchor_std * torch.randn_like(chosen)
        ws = self.generator.mapping(z).unsqueeze(1).expand(-1, self.generator.num_latents, -1)
        return self.generator.synthesize(ws, NoiseInput("random", n)), ws

    # --- losses ---

    def generator_loss(self, batch: Batch, statistics: RunningStatistics) -> Tensor:
        images, _ = self._draw(len(batch))
        # As many latents as in a whole batch, however it is split over processes and micro-batches: what a sample's
        # similarities are a distribution over decides the loss, and needs at least two others.
        consistency = self.consistency(self.settings.batch_size)
        statistics.report("loss/consistency", consistency)
        return logistic_loss(self.judge(images), 1) + self.settings.consistency_weight * consistency

    def consistency(self, n: int) -> Tensor:
        """Return the distance consistency on `n` new latents, each sample at a layer drawn for it.

        Source and copy get the same pixel noise, which is drawn apart in the authors' code.
        """
        z = draw_latents(self.generator.mapping, n, self.generator.num_latents, mixing_probability=0.0).z
        noise_seed = int(torch.randint(2**31, (2,))[0])  # of two, so that runs of a seed stay what they were
        with torch.no_grad():
            source, _ = synthesis_features(self.source, z, noise_seed)
        target, w = synthesis_features(self.generator, z, noise_seed)
        # w_avg is that of all latents, not of those near the anchors.
        self.w_average.observe(w)
        # The convolution at 4x4 is left out, as in the authors' code.
        layers = torch.randint(1, len(source), (n,)).tolist()
        return cross_domain_consistency(source, target, layers)

    # --- state ---

    def after_step(self, step: int, statistics: RunningStatistics) -> None:
        super().after_step(step, statistics)
        self.step = step

    def state_dict(self) -> dict[str, Tensor]:
        return {**super().state_dict(), "step": torch.tensor(self.step)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        super().load_state_dict(state)
        self.step = int(state["step"])


def synthesis_features(generator: StyleGAN2Generator, z: Tensor, noise_seed: int) -> tuple[list[Tensor], Tensor]:
    """Return the outputs of all 3x3 convolutions of the synthesis network after noise, bias and activation, and w.

    Args:
        generator: whose features.
        z: (N, z_dim).
        noise_seed: of the pixel noise: generators of one configuration get the same.

    Returns:
        2 log2(R) - 3 tensors (N, C, r, r) from 4x4 on, and w (N, w_dim).
    """
    w = generator.mapping(z)
    ws = w.unsqueeze(1).expand(-1, generator.num_latents, -1)
    noise = torch.Generator(z.device).manual_seed(noise_seed)
    features: list[Tensor] = []
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output: features.append(output))
        for module in generator.synthesis.modules()
        if isinstance(module, StyledConv2d)
    ]
    try:
        # Not `synthesize`, which calls no layer where it has fused operators: on a GPU, without gradients.
        blocks = generator.synthesis.resolutions
        with modulated_layers(generator.layers(blocks, ws)) as modulations:
            generator.synthesis(blocks, modulations, NoiseInput("random", len(z), noise), generator.compute_dtype)
    finally:
        for hook in hooks:
            hook.remove()
    return features, w


def build(request: TaskRequest) -> CDCTask:
    """Build source, copy and discriminator from stage 1."""
    options, target = request.options, request.target
    generator, stage1_discriminator = request.networks()
    source = copy.deepcopy(generator)
    with target.construct():
        discriminator = PatchHeadDiscriminator.from_discriminator(stage1_discriminator, options.num_taps)
    if options.num_anchors is None and request.dataset is not None:
        options = replace(options, num_anchors=len(request.dataset))
    config = CDCConfig(**request.recipe.training_config(), **asdict(options))
    return CDCTask(source, generator, target.place(discriminator), config, **request.gan_arguments())


METHOD = register(
    Method(
        name="cdc",
        title="CDC",
        citation=(
            "U. Ojha, Y. Li, J. Lu, A. A. Efros, Y. J. Lee, E. Shechtman, R. Zhang: Few-shot Image Generation via "
            "Cross-domain Correspondence. CVPR 2021."
        ),
        open_sampler=open_pipeline,
        build=build,
        generator="StyleGAN2Generator",
        options=CDCOptions,
        defaults=RecipeConfig(batch_size=4, lr=0.002, r1_gamma=10.0, ema_kimg=1.25, total_kimg=20.0),
        init="stage1",
    )
)
