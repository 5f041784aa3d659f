"""Finetune and DiffAug: StyleGAN2 on the photographs of one defect, without masks.

Both are stage 1 with other settings, so that there is little code here.
"""

from __future__ import annotations

from .method import Method, RecipeConfig, TaskRequest, open_pipeline, register
from .stylegan2 import Stage1Config, Stage1Task


def build(request: TaskRequest) -> Stage1Task:
    """Build stage 1's task on the photographs of the defect, with stage 1's networks or, in DiffAug, new ones."""
    config = Stage1Config(**request.recipe.training_config(), ema_rampup=None)
    return Stage1Task(*request.networks(), config, **request.gan_arguments())


# --- Finetune: stage 1 continues on the photographs of one defect (Finetune in DFMGAN's Table 1) ---

register(
    Method(
        name="finetune",
        title="Finetune",
        citation=(
            "T. Karras, M. Aittala, J. Hellsten, S. Laine, J. Lehtinen, T. Aila: Training Generative Adversarial "
            "Networks with Limited Data. NeurIPS 2020. Finetuned as in DFMGAN (AAAI 2023)."
        ),
        open_sampler=open_pipeline,
        build=build,
        generator="StyleGAN2Generator",
        init="stage1",
    )
)


# --- DiffAug: StyleGAN2 with DiffAugment on the photographs of one defect (Zhao et al. 2020, arXiv 2006.10738) ---

register(
    Method(
        name="diffaug",
        title="DiffAug",
        citation=(
            "S. Zhao, Z. Liu, J. Lin, J.-Y. Zhu, S. Han: Differentiable Augmentation for Data-Efficient GAN Training. "
            "NeurIPS 2020."
        ),
        open_sampler=open_pipeline,
        build=build,
        generator="StyleGAN2Generator",
        init="either",
        # 512 channels up to 64x64, 256 at 128, 128 at 256. DFMGAN has 16384, half as many from 64x64 on.
        defaults=RecipeConfig(
            batch_size=8, lr=0.002, r1_gamma=10.0, ema_kimg=10.0, total_kimg=300.0, channel_base=32768
        ),
        augmentation="diffaugment",
    )
)
