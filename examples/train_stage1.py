"""Stage 1: train the StyleGAN2 backbone on photographs of the defect-free product.

    accelerate launch examples/train_stage1.py --data_dir mvtec_ad --category hazelnut --output_dir runs/hazelnut

The output folder loads with `DFMGANPipeline.from_pretrained` and is what stage 2 starts from. docs/training.md says
what to look at while it trains. --push_to_hub --hub_model_id org/name publishes the model at the end; whether that is
possible is found out at the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
import tyro

from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods.augmentations import AugmentationConfig
from dfmgan_hf.methods.build import Target, build_stage1
from dfmgan_hf.methods.presets import PresetName, RecipeOverrides, resolve_recipe
from dfmgan_hf.methods.stage1 import Stage1Task
from dfmgan_hf.metrics.while_training import prepare_scorer
from dfmgan_hf.publishing import HubConfig, prepare_push, push_trained
from dfmgan_hf.training import ProcessGroup
from dfmgan_hf.training.best import ScoreConfig
from dfmgan_hf.training.refusals import end_in_words
from dfmgan_hf.training.run import RunConfig, fit_run, start_accelerator, train


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
    score: ScoreConfig = field(default_factory=ScoreConfig)
    hub: HubConfig = field(default_factory=HubConfig)


def main(config: Config) -> None:
    accelerator = start_accelerator(config.run)
    recipe = resolve_recipe(config.preset, config.recipe, "stage1", accelerator.num_processes)
    run = fit_run(config.run, recipe.batch_size, accelerator)
    dataset = config.data.load_good(resolution=recipe.resolution, image_channels=recipe.image_channels)

    def build(device: torch.device) -> Stage1Task:
        target = Target(device, run.low_precision_dtype, ProcessGroup(accelerator).mean)
        return build_stage1(recipe, config.augmentation, target)

    pushes = {run.output_dir: config.hub} if accelerator.is_main_process else {}
    prepare_push(pushes)
    make_scorer = prepare_scorer(config.score, dataset, accelerator)
    record = {"method": "stage1", "config": config, "recipe": recipe}
    train(
        build,
        dataset,
        run,
        accelerator,
        recipe.total_kimg,
        recipe.batch_size,
        record,
        score=config.score,
        make_scorer=make_scorer,
    )
    accelerator.end_training()
    for address in push_trained(pushes):
        print(f"Published: {address}")


if __name__ == "__main__":
    with end_in_words():
        main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
