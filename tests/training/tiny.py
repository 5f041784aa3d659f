"""Tiny real networks and drawn photographs to train on; whoever uses them trains the real tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from dfmgan_hf import DFMGANGenerator, StyleGAN2Discriminator, StyleGAN2Generator
from dfmgan_hf.augmentation import AdaController, AugmentPipe
from dfmgan_hf.data import ImageMaskDataset
from dfmgan_hf.methods import get_method
from dfmgan_hf.methods.dfmgan import Stage2Config, Stage2Task, build_joint_discriminator, build_match_discriminator
from dfmgan_hf.methods.method import AugmentationConfig, RecipeConfig, Target, TaskRequest
from dfmgan_hf.methods.stylegan2 import Stage1Config, Stage1Task
from dfmgan_hf.training import BatchStream, RunConfig, Trainer
from dfmgan_hf.training.checkpointing import ScoreConfig

SIZES = {"resolution": 32, "channel_base": 128, "channel_max": 16}
Z_DIM = 16
BATCH = 4
STEPS = 6
# Short lazy intervals, so that a handful of steps runs every phase.
FAST = {"batch_size": BATCH, "lr": 0.002, "r1_gamma": 0.05, "ema_kimg": 0.02, "sheet_samples": 2}
LAZY = {"r1_interval": 3, "path_length_interval": 2}


def drawn_set(
    n: int = 6, channels: int = 3, masks: bool = True, *, scale: int = 1, kinds: tuple[str, ...] = ()
) -> ImageMaskDataset:
    """Shaded squares with a bright disc, and the discs as masks; all enlarged by `scale`, and of `kinds` in turn."""
    y, x = torch.meshgrid(torch.arange(32.0), torch.arange(32.0), indexing="ij")
    images, discs = [], []
    for i in range(n):
        disc = (x - 8 - 2 * (i % 7)) ** 2 + (y - 20 + i % 5) ** 2 < (3 + i % 3) ** 2
        surface = 90 + 30 * torch.sin(x / (4 + i)) + 20 * torch.cos(y / 5 + i)
        images.append(torch.where(disc, 230.0, surface).round().to(torch.uint8).expand(channels, -1, -1))
        discs.append(disc[None].to(torch.uint8) * 255)
    images, discs = (
        torch.stack(maps).repeat_interleave(scale, 2).repeat_interleave(scale, 3) for maps in (images, discs)
    )
    names, labels = [f"{i:03d}.png" for i in range(n)], torch.arange(n) % len(kinds) if kinds else None
    return ImageMaskDataset(images, discs if masks else None, names, labels=labels, kinds=kinds)


def make_networks(channels: int = 3) -> tuple[StyleGAN2Generator, StyleGAN2Discriminator]:
    """In channels_last, as the training scripts place them."""
    generator = StyleGAN2Generator(**SIZES, image_channels=channels, z_dim=Z_DIM, w_dim=Z_DIM)
    discriminator = StyleGAN2Discriminator(**SIZES, image_channels=channels)
    for network in (generator, discriminator):
        network.to(memory_format=torch.channels_last)
    return generator, discriminator


def make_ada(**options) -> AdaController:
    """ADA that augments from the start and moves within a few steps."""
    controller = AdaController(BATCH, **{"ramp_kimg": 0.1, "interval": 2, **options})
    controller.p.fill_(0.3)
    return controller


def make_stage1(seed: int = 0, *, processes_mean=None, **settings) -> Stage1Task:
    set_seed(seed)
    generator, discriminator = make_networks()
    return Stage1Task(
        generator,
        discriminator,
        Stage1Config(**{**FAST, **LAZY, **settings}),
        augment=AugmentPipe.from_set("bgc"),
        ada=make_ada(),
        mean_over_processes=processes_mean or (lambda tensor: tensor),
    )


def make_stage2(
    seed: int = 0, *, processes_mean=None, match: str = "small", residual_resolution: int | None = None, **settings
) -> Stage2Task:
    set_seed(seed)
    backbone, discriminator = make_networks()
    with torch.no_grad():
        backbone.mapping.w_avg.normal_()
    generator = DFMGANGenerator.from_backbone(backbone, residual_resolution).to(memory_format=torch.channels_last)
    matching = None if match in ("none", "joint") else build_match_discriminator(backbone, match)
    if match == "joint":
        discriminator = build_joint_discriminator(discriminator).to(memory_format=torch.channels_last)
    return Stage2Task(
        generator,
        discriminator,
        matching,
        Stage2Config(**{**FAST, **LAZY, **settings}),
        augment=None if match == "joint" else AugmentPipe.from_set("bg"),
        ada=None if match == "joint" else make_ada(),
        mean_over_processes=processes_mean or (lambda tensor: tensor),
    )


QUICK_SIZES = {"channel_base": 128, "channel_max": 8, "z_dim": 8, "w_dim": 8, "batch_size": BATCH}


def make_quick(
    stage: str,
    *,
    scale: int = 1,
    kinds: tuple[str, ...] = (),
    target: Target | None = None,
    options: dict[str, Any] | None = None,
    augmentation: str | None = None,
    **recipe: Any,
) -> Any:
    """The quick preset on new networks, and on `drawn_set` of this scale and these kinds."""
    method = get_method("stage1" if stage == "stage1" else "dfmgan")
    config = RecipeConfig(**{"resolution": 32 * scale, **QUICK_SIZES, **recipe})
    settled = method.resolve("quick", config, None, 1)
    set_seed(0)
    chosen = method.options(**({"joint": True} if kinds else {}), **(options or {}))
    request = TaskRequest(
        settled,
        chosen,
        method.settle_augmentation(AugmentationConfig(augmentation), settled, chosen),
        target or Target(torch.device("cpu")),
        drawn_set(scale=scale, kinds=kinds),
    )
    assert method.build is not None
    return method.build(request)


MAKE = {"stage1": make_stage1, "stage2": make_stage2}


def make_trainer(
    task: Stage1Task,
    folder: Path,
    *,
    steps: int = STEPS,
    checkpoint_steps: float = 2,
    keep: int | None = 2,
    accelerator: Accelerator | None = None,
    accumulation_steps: int = 1,
    log_steps: float = 4,
    batch_size: int = BATCH,
    eval_steps: float = 0,
    **options,
) -> Trainer:
    accelerator = accelerator or Accelerator(cpu=True)
    stream = BatchStream(
        drawn_set(),
        batch_size=batch_size,
        seed=5,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        mirror=True,
    )
    run_config = RunConfig(
        output_dir=folder,
        accumulation_steps=accumulation_steps,
        log_every_kimg=log_steps * BATCH / 1000,
        sample_every_kimg=0,
        checkpoint_every_kimg=checkpoint_steps * BATCH / 1000,
        checkpoints_total_limit=keep,
    )
    score = ScoreConfig(eval_every_kimg=eval_steps * BATCH / 1000)
    return Trainer(
        task, stream, run_config, accelerator, steps * BATCH / 1000, score=score, show_progress=False, **options
    )


def run(stage: str, folder: Path, *, steps: int = STEPS, resume: str | None = None, **options) -> Trainer:
    """Train a stage from its seed for some steps."""
    trainer = make_trainer(MAKE[stage](), folder, steps=steps, **options)
    trainer.train(resume)
    return trainer


def assert_same_tensors(left: dict[str, Tensor], right: dict[str, Tensor], where: str = "") -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert torch.equal(value.nan_to_num(7.0), right[name].nan_to_num(7.0)), f"{where}{name} differs"
