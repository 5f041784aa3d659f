"""Finetune and DiffAug: StyleGAN2 on the photographs of one defect, without masks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..models.discriminator import StyleGAN2Discriminator
from ..models.stylegan2 import StyleGAN2Generator
from .method import ADA_KIMG, Defaults, Init, Method, TaskRequest, build_augmentation, open_pipeline, register
from .stylegan2 import Stage1Settings, Stage1Task

# --- Finetune: stage 1 goes on with the photographs of one defect (Finetune in DFMGAN's Table 1).

Part = Literal["all", "mapping", "synthesis", "first_blocks", "mapping_and_first_blocks"]

_FIRST_BLOCKS = ("synthesis.blocks.4.", "synthesis.blocks.8.")
PARTS: dict[Part, tuple[str, ...]] = {
    "all": ("",),
    "mapping": ("mapping.",),
    "synthesis": ("synthesis.",),
    "first_blocks": _FIRST_BLOCKS,
    "mapping_and_first_blocks": ("mapping.", *_FIRST_BLOCKS),
}
"""How the names of the trained parameters start."""


@dataclass(frozen=True)
class FinetuneOptions:
    """Options of Finetune.

    Args:
        part: What of the generator is trained: all (published), mapping, synthesis, its blocks at 4x4 and 8x8
            (first_blocks), or mapping_and_first_blocks. The discriminator is trained as a whole.
    """

    part: Part = "all"


def trained_names(generator: StyleGAN2Generator, part: Part) -> set[str]:
    """Names of the parameters that a part of the generator has."""
    return {name for name, _ in generator.named_parameters() if name.startswith(PARTS[part])}


def build_finetune(request: TaskRequest) -> Stage1Task:
    """Stage 1's task on stage 1's networks."""
    generator, discriminator = request.copy_backbone()
    recipe, target = request.recipe, request.target
    augment, ada = build_augmentation(request.augmentation, recipe.batch_size, ADA_KIMG["stage2"], target.device)
    return Stage1Task(
        generator,
        discriminator,
        Stage1Settings(**recipe.training_settings(), ema_rampup=None),
        augment=augment,
        ada=ada,
        mean_over_processes=target.mean_over_processes,
        trained=trained_names(generator, request.options.part),
    )


FINETUNE = Method(
    name="finetune",
    title="Finetune",
    citation=(
        "T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila: Training Generative Adversarial Networks "
        "with Limited Data. NeurIPS 2020. Finetuned as in DFMGAN (AAAI 2023)."
    ),
    open_sampler=open_pipeline,
    build=build_finetune,
    generator="StyleGAN2Generator",
    options=FinetuneOptions,
    defaults=Defaults(),
    init="stage1",
)
register(FINETUNE)


# --- DiffAug: StyleGAN2 with DiffAugment on the photographs of one defect (Zhao et al., NeurIPS 2020, arXiv
# 2006.10738).


@dataclass(frozen=True)
class DiffAugOptions:
    """Options of DiffAug.

    Args:
        init: Start from new networks (scratch) or from stage 1's, whose sizes it then has.
    """

    init: Init = "scratch"


def build_diffaug(request: TaskRequest) -> Stage1Task:
    """Stage 1's task on the photographs of the defect."""
    recipe, target = request.recipe, request.target
    if request.options.init == "stage1":
        generator, discriminator = request.copy_backbone()
    else:
        with target.construct():
            generator = StyleGAN2Generator(**recipe.network_config())
            discriminator = StyleGAN2Discriminator(**recipe.discriminator_config())
        generator, discriminator = target.place(generator), target.place(discriminator)
    augment, ada = build_augmentation(request.augmentation, recipe.batch_size, ADA_KIMG["stage2"], target.device)
    return Stage1Task(
        generator,
        discriminator,
        Stage1Settings(**recipe.training_settings(), ema_rampup=None),
        augment=augment,
        ada=ada,
        mean_over_processes=target.mean_over_processes,
    )


DIFFAUG = Method(
    name="diffaug",
    title="DiffAug",
    citation=(
        "S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han: Differentiable Augmentation for Data-Efficient GAN Training. "
        "NeurIPS 2020."
    ),
    open_sampler=open_pipeline,
    build=build_diffaug,
    generator="StyleGAN2Generator",
    options=DiffAugOptions,
    # 512 channels up to 64x64, 256 at 128, 128 at 256. DFMGAN has 16384, half as many from 64x64 on.
    defaults=Defaults(
        batch_size=8,
        lr=0.002,
        r1_gamma=10.0,
        ema_kimg=10.0,
        total_kimg=300.0,
        channel_base=32768,
        augmentation="diffaugment",
    ),
)
register(DIFFAUG)
