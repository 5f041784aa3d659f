"""Finetune: stage 1 goes on with the photographs of one defect (Finetune in DFMGAN's Table 1).

The paper names it and no more. Unknown, and chosen here: no augmentation of the discriminator (stage 1's has been
trained with ADA; `--augmentation bgc` goes on with it), the length of stage 2, new optimisers, no ramp-up of the
averaged generator. Both the trained and the averaged generator start from stage 1's averaged one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..models import StyleGAN2Generator
from .augmentations import ADA_KIMG, build_augmentation
from .method import Defaults, Method, TaskRequest, register
from .pipeline_samplers import open_pipeline
from .stage1 import Stage1Settings, Stage1Task

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


def build(request: TaskRequest) -> Stage1Task:
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


METHOD = Method(
    name="finetune",
    title="Finetune",
    citation=(
        "T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila: Training Generative Adversarial Networks "
        "with Limited Data. NeurIPS 2020. Finetuned as in DFMGAN (AAAI 2023)."
    ),
    open_sampler=open_pipeline,
    build=build,
    generator="StyleGAN2Generator",
    options=FinetuneOptions,
    defaults=Defaults(),
    init="stage1",
)
register(METHOD)
