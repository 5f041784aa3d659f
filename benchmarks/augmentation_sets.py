"""Which augmentation of the discriminator serves a product best? Trained, and measured on photographs held out.

    python benchmarks/augmentation_sets.py --data_dir my_data --category part --output_dir runs/augmentation_stage1
    python benchmarks/augmentation_sets.py --data_dir my_data --category part --pretrained_backbone runs/part \\
        --defect scratch --train_images 10 --output_dir runs/augmentation_stage2

Each set is trained for the same number of images on the same part of the photographs; KID is measured against the
others, which no training saw. Writes a folder for each set with its samples, and results.json. A set whose folder is
complete is measured again, but not trained again.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import tyro

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.data import DataConfig, ImageMaskDataset
from dfmgan_hf.methods.augmentations import AugmentationConfig
from dfmgan_hf.methods.backbone import load_backbone, recipe_from_backbone
from dfmgan_hf.methods.build import Stage2Options, Target, build_stage1, build_stage2
from dfmgan_hf.methods.presets import PresetName, RecipeOverrides, resolve_recipe
from dfmgan_hf.metrics import load_quick_networks, quick_score
from dfmgan_hf.metrics.networks import Networks
from dfmgan_hf.metrics.sampler import PipelineSampler
from dfmgan_hf.training import ProcessGroup
from dfmgan_hf.training.run import RunConfig, start_accelerator, train
from dfmgan_hf.training.task import Task

SETS = ("none", "keep_orientation_and_color", "keep_orientation", "bgc", "diffaugment")
RESULTS_FILE = "results.json"


@dataclass(frozen=True)
class Config:
    """Compare augmentation sets on photographs held out.

    Args:
        output_dir: Folder for the runs and results.json.
        pretrained_backbone: Folder of stage 1; None compares the sets in stage 1.
        defect: Kind of defect for stage 2.
        train_images: Photographs to train on, drawn at random; the others are measured against.
        sets: What to compare.
        ada_kimg: Thousands of images in which the probability can go from 0 to 1; short runs need few.
        eval_images: Generated images of a measurement.
        preset: Sizes and hyperparameters.
        mirror: Also show the photographs flipped left to right.
    """

    output_dir: Path
    pretrained_backbone: str | None = None
    defect: str | None = None
    train_images: int = 300
    sets: tuple[str, ...] = SETS
    ada_kimg: float = 20.0
    eval_images: int = 1000
    preset: PresetName = "small"
    mirror: bool = False
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    data: DataConfig = field(default_factory=DataConfig)


def split(dataset: ImageMaskDataset, count: int) -> tuple[ImageMaskDataset, ImageMaskDataset]:
    """`count` photographs at random, and the others.

    Raises:
        ValueError: there are not that many.
    """
    if not 0 < count < len(dataset):
        raise ValueError(f"`train_images` must be from 1 to {len(dataset) - 1}, but is {count}.")
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).tolist()
    chosen, others = (
        ImageMaskDataset(
            dataset.images[rows],
            None if dataset.masks is None else dataset.masks[rows],
            [dataset.file_names[row] for row in rows],
        )
        for rows in (sorted(order[:count]), sorted(order[count:]))
    )
    return chosen, others


def run_set(config: Config, name: str, networks_of_score: Networks) -> dict[str, Any]:
    """Train with one set and measure the result."""
    folder = config.output_dir / name
    run = RunConfig(folder, mirror=config.mirror, checkpoint_every_kimg=0, report_to="none")
    accelerator = start_accelerator(run)
    backbone = None if config.pretrained_backbone is None else load_backbone(config.pretrained_backbone)
    stage = "stage1" if backbone is None else "stage2"
    overrides = config.recipe if backbone is None else recipe_from_backbone(config.recipe, backbone[0])
    recipe = resolve_recipe(config.preset, overrides, stage, accelerator.num_processes)
    sizes = {"resolution": recipe.resolution, "image_channels": recipe.image_channels}
    photographs = (
        config.data.load_good(**sizes) if backbone is None else config.data.load_defects(config.defect, **sizes)
    )
    chosen, held_out = split(photographs, config.train_images)
    augmentation = AugmentationConfig(augmentation=name, ada_kimg=config.ada_kimg)

    def build(device: torch.device) -> Task:
        target = Target(device, None, ProcessGroup(accelerator).mean)
        if backbone is None:
            return build_stage1(recipe, augmentation, target)
        return build_stage2(*backbone, recipe, Stage2Options(), augmentation, target)

    if not (folder / "model_index.json").is_file():
        record = {"method": stage, "config": replace(config, sets=(name,)), "recipe": recipe}
        train(build, chosen, run, accelerator, recipe.total_kimg, recipe.batch_size, record)
    sampler = PipelineSampler(DFMGANPipeline.from_pretrained(folder))
    scores = {
        part: quick_score(sampler, real, networks=networks_of_score, num_images=config.eval_images).to_dict()
        for part, real in (("held_out", held_out), ("trained_on", chosen))
    }
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {"set": name, "kimg": recipe.total_kimg, "ada_p": last.get("ada/p"), **scores}


def table(results: list[dict[str, Any]]) -> str:
    """Results as Markdown."""
    rows = [
        "| set | KID x1000, held out [95 %] | KID x1000, trained on | distance to the nearest trained on | ADA p |",
        "|---|---|---|---|---|",
    ]
    for row in results:
        low, high = row["held_out"]["kid_interval"]
        p = "-" if row["ada_p"] is None else f"{row['ada_p']:.2f}"
        rows.append(
            f"| {row['set']} | {row['held_out']['kid'] * 1000:.0f} [{low * 1000:.0f}, {high * 1000:.0f}] "
            f"| {row['trained_on']['kid'] * 1000:.0f} | {row['trained_on']['nearest_ratio']:.2f} | {p} |"
        )
    return "\n".join(rows)


def main(config: Config) -> None:
    networks = load_quick_networks()
    config.output_dir.mkdir(parents=True, exist_ok=True)
    results: list[dict[str, Any]] = []
    for name in config.sets:
        results.append(run_set(config, name, networks))
        (config.output_dir / RESULTS_FILE).write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
