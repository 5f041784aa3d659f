"""Which augmentation of the discriminator serves a product best? Trained, and measured on photographs held out.

    python -m benchmarks.augmentation_sets --data_dir my_data --category part --output_dir runs/augmentation_stage1
    python -m benchmarks.augmentation_sets --data_dir my_data --category part --pretrained_backbone runs/part \\
        --defect scratch --train_images 10 --output_dir runs/augmentation_stage2

Every set is trained for the same number of images on the same part of the photographs, several times with other seeds
and other parts; KID is measured against the others, which no training saw, and so is what leaked (leaks.py). One seed
after the other goes through all sets, and results.json grows with every run: stopped and started again, it goes on
where it was.
"""

from __future__ import annotations

import json
import re
import statistics
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
from dfmgan_hf.metrics.sampler import PipelineSampler, TensorSampler, draw
from dfmgan_hf.training import ProcessGroup
from dfmgan_hf.training.run import RunConfig, start_accelerator, train
from dfmgan_hf.training.task import Task

from . import leaks

SETS = ("none", "keep_orientation_and_color", "bgc", "diffaugment")
RESULTS_FILE = "results.json"
LEAK_P = 0.8
# What cut_patches.py appends to a photograph's name.
PATCH = re.compile(r"_x\d+_y\d+$")


@dataclass(frozen=True)
class Config:
    """Compare augmentation sets on photographs held out.

    Args:
        output_dir: Folder for the runs and results.json.
        pretrained_backbone: Folder of stage 1; None compares the sets in stage 1.
        defect: Kind of defect for stage 2.
        train_images: Photographs to train on, drawn at random; the others are measured against.
        sets: What to compare.
        seeds: Of the draw of photographs and of the training.
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
    seeds: tuple[int, ...] = (0, 1, 2)
    ada_kimg: float = 20.0
    eval_images: int = 500
    preset: PresetName = "small"
    mirror: bool = False
    recipe: RecipeOverrides = field(default_factory=RecipeOverrides)
    data: DataConfig = field(default_factory=DataConfig)


def split(dataset: ImageMaskDataset, count: int, seed: int) -> tuple[ImageMaskDataset, ImageMaskDataset]:
    """About `count` photographs at random, and the others; patches of one photograph stay together.

    Raises:
        ValueError: there are not that many.
    """
    if not 0 < count < len(dataset):
        raise ValueError(f"`train_images` must be from 1 to {len(dataset) - 1}, but is {count}.")
    photographs: dict[str, list[int]] = {}
    for row, name in enumerate(dataset.file_names):
        photographs.setdefault(PATCH.sub("", Path(name).stem), []).append(row)
    groups = list(photographs.values())
    order = torch.randperm(len(groups), generator=torch.Generator().manual_seed(seed)).tolist()
    rows = [row for group in order for row in groups[group]]
    chosen, others = (
        ImageMaskDataset(
            dataset.images[part],
            None if dataset.masks is None else dataset.masks[part],
            [dataset.file_names[row] for row in part],
        )
        for part in (sorted(rows[:count]), sorted(rows[count:]))
    )
    return chosen, others


def run_set(config: Config, name: str, seed: int, networks_of_score: Networks) -> dict[str, Any]:
    """Train with one set and one seed, and measure the result."""
    folder = config.output_dir / name / f"seed{seed}"
    run = RunConfig(folder, seed=seed, mirror=config.mirror, checkpoint_every_kimg=0, report_to="none")
    run = replace(run, resume_from_checkpoint="latest")
    accelerator = start_accelerator(run)
    backbone = None if config.pretrained_backbone is None else load_backbone(config.pretrained_backbone)
    stage = "stage1" if backbone is None else "stage2"
    overrides = config.recipe if backbone is None else recipe_from_backbone(config.recipe, backbone[0])
    recipe = resolve_recipe(config.preset, overrides, stage, accelerator.num_processes)
    sizes = {"resolution": recipe.resolution, "image_channels": recipe.image_channels}
    photographs = (
        config.data.load_good(**sizes) if backbone is None else config.data.load_defects(config.defect, **sizes)
    )
    chosen, held_out = split(photographs, config.train_images, seed)
    augmentation = AugmentationConfig(augmentation=name, ada_kimg=config.ada_kimg)

    def build(device: torch.device) -> Task:
        target = Target(device, None, ProcessGroup(accelerator).mean)
        if backbone is None:
            return build_stage1(recipe, augmentation, target)
        return build_stage2(*backbone, recipe, Stage2Options(), augmentation, target)

    if not (folder / "model_index.json").is_file():
        record = {"method": stage, "config": replace(config, sets=(name,), seeds=(seed,)), "recipe": recipe}
        train(build, chosen, run, accelerator, recipe.total_kimg, recipe.batch_size, record)
    sampler = PipelineSampler(DFMGANPipeline.from_pretrained(folder))
    parts = [draw(sampler, range(i, min(i + 50, config.eval_images)), 0) for i in range(0, config.eval_images, 50)]
    images = torch.cat([part[0] for part in parts])
    masks = None if photographs.masks is None else torch.cat([part[1] for part in parts if part[1] is not None])
    scores = {
        part: quick_score(
            TensorSampler(images, masks), real, networks=networks_of_score, num_images=config.eval_images
        ).to_dict()
        for part, real in (("held_out", held_out), ("trained_on", chosen))
    }
    last = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    return {
        "set": name,
        "seed": seed,
        "kimg": recipe.total_kimg,
        "photographs": len(chosen),
        "held_out_photographs": len(held_out),
        "ada_p": last.get("ada/p"),
        "leaks": leaks.distances(images, held_out.images),
        "photographs_trained_on": leaks.distances(chosen.images, held_out.images),
        "photographs_augmented": {
            s: leaks.distances(leaks.augmented(photographs.images, s, LEAK_P), photographs.images)
            for s in config.sets
            if s not in ("none", "diffaugment")
        },
        **scores,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Results as Markdown: the mean over the seeds, and of KID every seed's number too."""
    rows = [
        "| set | KID x1000, held out | each seed | distance to the nearest trained on | ADA p | "
        + " | ".join(leaks.STATISTICS)
        + " |",
        "|" + "---|" * (5 + len(leaks.STATISTICS)),
    ]
    for name in dict.fromkeys(row["set"] for row in results):
        runs = [row for row in results if row["set"] == name]
        kids = [row["held_out"]["kid"] * 1000 for row in runs]
        ps = [row["ada_p"] for row in runs if row["ada_p"] is not None]
        p = f"{statistics.mean(ps):.2f}" if ps else "-"
        nearest = statistics.mean(row["trained_on"]["nearest_ratio"] for row in runs)
        moved = " | ".join(f"{statistics.mean(row['leaks'][s] for row in runs):.2f}" for s in leaks.STATISTICS)
        each = ", ".join(f"{kid:.0f}" for kid in kids)
        rows.append(f"| `{name}` | {statistics.mean(kids):.0f} | {each} | {nearest:.2f} | {p} | {moved} |")
    for name, moved in results[-1]["photographs_augmented"].items() if results else ():
        values = " | ".join(f"{moved[s]:.2f}" for s in leaks.STATISTICS)
        rows.append(f"| photographs augmented by `{name}`, p {LEAK_P} | | | | {LEAK_P} | {values} |")
    if results:
        same = [row["photographs_trained_on"] for row in results if row["set"] == results[0]["set"]]
        values = " | ".join(f"{statistics.mean(row[s] for row in same):.2f}" for s in leaks.STATISTICS)
        rows.append(f"| the photographs trained on | | | | | {values} |")
    return "\n".join(rows)


def main(config: Config) -> None:
    config.output_dir.mkdir(parents=True, exist_ok=True)
    file = config.output_dir / RESULTS_FILE
    results: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    done = {(row["set"], row["seed"]) for row in results}
    networks = load_quick_networks()
    for seed in config.seeds:
        for name in config.sets:
            if (name, seed) not in done:
                results.append(run_set(config, name, seed, networks))
                file.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main(tyro.cli(Config, config=(tyro.conf.OmitArgPrefixes,)))
