"""Stage 1: train the StyleGAN2 backbone on photographs of the defect-free product.

    accelerate launch examples/train_stage1.py --data_dir mvtec_ad --category hazelnut --output_dir runs/hazelnut

The output folder loads with `DFMGANPipeline.from_pretrained` and is what stage 2 starts from.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import tyro

from dfmgan_hf import StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods.augmentations import AugmentationConfig, build_augmentation
from dfmgan_hf.methods.presets import PresetName, RecipeOverrides, resolve_recipe
from dfmgan_hf.methods.stage1 import Stage1Settings, Stage1Task
from dfmgan_hf.training.run import RunConfig, mean_over_processes, start_accelerator, train


@dataclass(frozen=True)
class Config:
    """Train the backbone of DFMGAN (stage 1) on defect-free photographs.

    Args:
        preset: Named sizes and hyperparameters; each of them can be overridden.
    """

    run: RunConfig
    preset: PresetName = "auto"
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)


def main(config: Config) -> None:
    accelerator = start_accelerator(config.run)
    recipe = resolve_recipe(config.preset, config.recipe, "stage1", accelerator.num_processes)
    dataset = config.data.load_good(resolution=recipe.resolution, image_channels=recipe.image_channels)

    generator = StyleGAN2Generator(**recipe.network_config())
    discriminator = StyleGAN2Discriminator(**recipe.discriminator_config())
    for network in (generator, discriminator):
        network.to(accelerator.device, memory_format=torch.channels_last)
        network.set_mixed_precision(config.run.low_precision_dtype)
    augment, ada = build_augmentation(config.augmentation, recipe.batch_size, 500.0, accelerator.device)
    settings = Stage1Settings(
        batch_size=recipe.batch_size, lr=recipe.lr, r1_gamma=recipe.r1_gamma, ema_kimg=recipe.ema_kimg
    )
    task = Stage1Task(
        generator,
        discriminator,
        settings,
        augment=augment,
        ada=ada,
        mean_over_processes=mean_over_processes(accelerator),
    )
    record = {"method": "stage1", "config": config, "recipe": recipe, "settings": settings}
    train(task, dataset, config.run, accelerator, recipe.total_kimg, recipe.batch_size, record)


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
