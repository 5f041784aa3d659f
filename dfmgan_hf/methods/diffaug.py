"""DiffAug: StyleGAN2 with DiffAugment on the photographs of one defect (Zhao et al., NeurIPS 2020, arXiv 2006.10738).

The discriminator sees nothing but augmented images, real and generated, also under R1. Hyperparameters are those of
the authors' low-shot StyleGAN2: no ADA, no ramp-up of the averaged generator. DFMGAN's paper does not say what it
starts from; here from scratch, and from stage 1 with `init`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..models import StyleGAN2Discriminator, StyleGAN2Generator
from .augmentations import ADA_KIMG, build_augmentation
from .method import Defaults, Init, Method, TaskRequest, register
from .pipeline_samplers import open_pipeline
from .stage1 import Stage1Settings, Stage1Task


@dataclass(frozen=True)
class DiffAugOptions:
    """Options of DiffAug.

    Args:
        init: Start from new networks (scratch) or from stage 1's, whose sizes it then has.
    """

    init: Init = "scratch"


def build(request: TaskRequest) -> Stage1Task:
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


METHOD = Method(
    name="diffaug",
    title="DiffAug",
    citation=(
        "S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han: Differentiable Augmentation for Data-Efficient GAN Training. "
        "NeurIPS 2020."
    ),
    open_sampler=open_pipeline,
    build=build,
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
register(METHOD)
