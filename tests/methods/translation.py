"""Tiny tasks of the methods that translate good photographs into defective ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import set_seed

from dfmgan_hf.data import DataConfig
from dfmgan_hf.methods.method import AugmentationConfig, Method, RecipeConfig, Target, TaskRequest
from dfmgan_hf.training import Batch, RunningStatistics

BATCH = 4


def make_task(
    method: Method,
    category: Path,
    *,
    channels: int = 1,
    total_kimg: float = 0.1,
    device: str = "cpu",
    channel_base: int = 128,
    low_precision_dtype: torch.dtype | None = None,
    **options: Any,
) -> Any:
    """A task at 32x32 with four channels unless told otherwise, on the drawn photographs of `save_drawn_category`."""
    set_seed(0)
    data = DataConfig(data_dir=category)
    sizes = {"resolution": 32, "image_channels": channels}
    overrides = RecipeConfig(**sizes, channel_base=channel_base, batch_size=BATCH, total_kimg=total_kimg)
    assert method.build is not None
    joint = method.is_joint(method.options(**options))
    return method.build(
        TaskRequest(
            recipe=method.resolve("small", overrides, None, 1),
            options=method.options(**options),
            augmentation=AugmentationConfig("none"),
            target=Target(torch.device(device), low_precision_dtype),
            dataset=data.load_kinds(("dot", "spot"), **sizes) if joint else data.load_defects("dot", **sizes),
            data=data,
        )
    )


def batch_of(category: Path, channels: int = 1) -> Batch:
    """Photographs of the defect."""
    data = DataConfig(data_dir=category).load_defects("dot", resolution=32, image_channels=channels)
    return Batch(data.images[:BATCH] / 127.5 - 1)


def learning_rates(task: Any) -> list[float]:
    """Of all parameters."""
    return [group["lr"] for optimizer in task.optimizers.values() for group in optimizer.param_groups]


def run_phase(task: Any, name: str, batch: Batch) -> float:
    """Compute a phase's loss and gradients as the trainer does, without its step; checks who gets gradients."""
    (phase,) = [phase for phase in task.phases if phase.name == name]
    for parameter in phase.parameters:
        parameter.requires_grad_(True)
    loss = phase.loss(batch, RunningStatistics())
    loss.backward()
    trained = {id(p) for p in phase.parameters}
    for network in task.networks.values():
        for parameter_name, parameter in network.named_parameters():
            has_gradient = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert has_gradient == (id(parameter) in trained), f"{name}: {parameter_name}"
            parameter.requires_grad_(False)
            parameter.grad = None
    return loss.item()
