"""Stage 2: learn defects from a few photographs with masks, on the frozen backbone of stage 1.

    accelerate launch examples/train_stage2.py --pretrained_backbone runs/hazelnut --data_dir mvtec_ad \\
        --category hazelnut --defect crack --output_dir runs/hazelnut_crack

The output folder loads with `DFMGANPipeline.from_pretrained` and draws defects. With several kinds, `--defect crack
cut hole`, each is trained by itself and gets a folder in the output folder. One
that diverges does not keep the others from being trained.
docs/training.md says what to look at while it trains. --push_to_hub --hub_model_id org/name publishes the model at the
end, several ones as org/name-crack, org/name-cut, ...; whether that is possible is found out at the start.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import tyro
from accelerate import Accelerator, PartialState

from dfmgan_hf import StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods.augmentations import AugmentationConfig
from dfmgan_hf.methods.backbone import load_backbone, recipe_from_backbone
from dfmgan_hf.methods.build import Stage2Options, Target, build_stage2
from dfmgan_hf.methods.presets import PresetName, RecipeOverrides, resolve_recipe
from dfmgan_hf.methods.stage2 import Stage2Task
from dfmgan_hf.metrics.while_training import prepare_scorer
from dfmgan_hf.publishing import HubConfig, origin, prepare_push, push_trained
from dfmgan_hf.training import NonFiniteLossError, ProcessGroup
from dfmgan_hf.training.best import ScoreConfig
from dfmgan_hf.training.refusals import end_in_words
from dfmgan_hf.training.run import RunConfig, fit_run, start_accelerator, train


@dataclass(frozen=True)
class Config:
    """Train the defect branch of DFMGAN (stage 2) on photographs of defects with masks.

    Args:
        pretrained_backbone: Folder that stage 1 wrote, or the Hub id of one.
        defect: Kinds of defect to learn, one after the other; may be left out if the data has only one.
        preset: Named hyperparameters; each can be overridden. Network sizes are the backbone's.
    """

    run: RunConfig
    pretrained_backbone: str
    defect: tuple[str, ...] = ()
    preset: PresetName = "auto"
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    options: Stage2Options = field(default_factory=Stage2Options)
    data: DataConfig = field(default_factory=DataConfig)
    augmentation: AugmentationConfig = field(default_factory=AugmentationConfig)
    score: ScoreConfig = field(default_factory=ScoreConfig)
    hub: HubConfig = field(default_factory=HubConfig)


def train_defect(
    config: Config, defect: str | None, run: RunConfig, networks: tuple[StyleGAN2Generator, StyleGAN2Discriminator]
) -> Accelerator:
    accelerator = start_accelerator(run)
    overrides = recipe_from_backbone(config.recipe, networks[0])
    recipe = resolve_recipe(config.preset, overrides, "stage2", accelerator.num_processes)
    run = fit_run(run, recipe.batch_size, accelerator)
    dataset = config.data.load_defects(defect, resolution=recipe.resolution, image_channels=recipe.image_channels)

    def build(device: torch.device) -> Stage2Task:
        target = Target(device, run.low_precision_dtype, ProcessGroup(accelerator).mean)
        return build_stage2(*networks, recipe, config.options, config.augmentation, target)

    make_scorer = prepare_scorer(config.score, dataset, accelerator)
    record = {
        "method": "stage2",
        "defect": defect,
        "config": config,
        "recipe": recipe,
        **origin(config.pretrained_backbone),
    }
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
    return accelerator


def main(config: Config) -> None:
    networks = load_backbone(config.pretrained_backbone)
    output_dir, several = config.run.output_dir, len(config.defect) > 1
    defects = {output_dir / d if several else output_dir: d for d in config.defect} or {output_dir: None}
    hubs = {f: config.hub.for_part(d, output_dir) if several else config.hub for f, d in defects.items()}
    pushes = hubs if PartialState().is_main_process else {}
    prepare_push(pushes)
    diverged: dict[Path, NonFiniteLossError] = {}
    for folder, defect in defects.items():
        try:
            train_defect(config, defect, replace(config.run, output_dir=folder), networks)
        except NonFiniteLossError as error:
            if not several:
                raise
            # Nobody may be there to start the others.
            diverged[folder] = error
            print(f"{defect} was given up. {error}", flush=True)
            continue
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()
    for address in push_trained({folder: hub for folder, hub in pushes.items() if folder not in diverged}):
        print(f"Published: {address}")
    if diverged:
        raise SystemExit("\n".join(f"{defects[folder]}: {error}" for folder, error in diverged.items()))


if __name__ == "__main__":
    with end_in_words():
        main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
