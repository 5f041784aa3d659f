"""Stage 2: learn one defect from a few photographs with masks, on the frozen backbone of stage 1.

    accelerate launch examples/train_stage2.py --pretrained_backbone runs/hazelnut --data_dir mvtec_ad \\
        --category hazelnut --defect crack --output_dir runs/hazelnut_crack

The output folder loads with `DFMGANPipeline.from_pretrained` and draws defects.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
import tyro

from dfmgan_hf import DFMGANGenerator
from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods.augmentations import AugmentationConfig, build_augmentation
from dfmgan_hf.methods.backbone import load_backbone, recipe_from_backbone
from dfmgan_hf.methods.match_discriminator import build_match_discriminator
from dfmgan_hf.methods.presets import PresetName, RecipeOverrides, resolve_recipe
from dfmgan_hf.methods.stage2 import Stage2Settings, Stage2Task
from dfmgan_hf.training.run import RunConfig, mean_over_processes, start_accelerator, train


@dataclass(frozen=True)
class Config:
    """Train the defect branch of DFMGAN (stage 2) on photographs of one defect with masks.

    Args:
        pretrained_backbone: Folder that stage 1 wrote, or the Hub id of one.
        defect: Kind of defect to learn; may be left out if the data has only one.
        preset: Named hyperparameters; each can be overridden. Network sizes are the backbone's.
        residual_resolution: Resolution of the first residual block; None: 64, or half of a smaller
            backbone's.
        match_discriminator: Size of the matching discriminator; none for the ablation without it.
        match_weight: Weight of its term in the generator's loss.
        mode_seeking_weight: Weight of the mode-seeking loss; 0 for none.
        mode_seeking_on: Distances between masks (published) or images.
        mode_seeking_latents: Distances between latents w (published) or z.
    """

    run: RunConfig
    pretrained_backbone: str
    defect: str | None = None
    preset: PresetName = "auto"
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    residual_resolution: int | None = None
    match_discriminator: Literal["small", "medium", "large", "none"] = "small"
    match_weight: float = 1.0
    mode_seeking_weight: float = 0.1
    mode_seeking_on: Literal["mask", "image"] = "mask"
    mode_seeking_latents: Literal["w", "z"] = "w"


def main(config: Config) -> None:
    accelerator = start_accelerator(config.run)
    backbone, discriminator = load_backbone(config.pretrained_backbone)
    overrides = recipe_from_backbone(config.recipe, backbone)
    recipe = resolve_recipe(config.preset, overrides, "stage2", accelerator.num_processes)
    dataset = config.data.load_defects(
        config.defect, resolution=recipe.resolution, image_channels=recipe.image_channels
    )

    generator = DFMGANGenerator.from_backbone(backbone, config.residual_resolution)
    match = None
    if config.match_discriminator != "none":
        match = build_match_discriminator(discriminator, config.match_discriminator)
    for network in (generator, discriminator, match):
        if network is not None:
            network.to(accelerator.device, memory_format=torch.channels_last)
            network.set_mixed_precision(config.run.low_precision_dtype)
    augment, ada = build_augmentation(config.augmentation, recipe.batch_size, 100.0, accelerator.device)
    settings = Stage2Settings(
        batch_size=recipe.batch_size,
        lr=recipe.lr,
        r1_gamma=recipe.r1_gamma,
        ema_kimg=recipe.ema_kimg,
        match_weight=config.match_weight,
        mode_seeking_weight=config.mode_seeking_weight,
        mode_seeking_on=config.mode_seeking_on,
        mode_seeking_latents=config.mode_seeking_latents,
    )
    task = Stage2Task(
        generator,
        discriminator,
        match,
        settings,
        augment=augment,
        ada=ada,
        mean_over_processes=mean_over_processes(accelerator),
    )
    record = {"method": "stage2", "config": config, "recipe": recipe, "settings": settings}
    train(task, dataset, config.run, accelerator, recipe.total_kimg, recipe.batch_size, record)


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
