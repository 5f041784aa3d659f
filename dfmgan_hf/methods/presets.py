"""Sizes and hyperparameters by name."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal

from ..losses import r1_gamma

PresetName = Literal["auto", "small", "paper256", "large512", "large1024"]


@dataclass(frozen=True)
class RecipeOverrides:
    """Network sizes and hyperparameters that both stages share; None takes the preset's value.

    Args:
        resolution: Height and width of the images, a power of two from 32 to 1024.
        image_channels: 1 (grey) or 3 (RGB).
        z_dim: Width of the latents z.
        w_dim: Width of the latents w.
        mapping_layers: Layers of the mapping networks.
        channel_base: Channels at resolution r are min(channel_base // r, channel_max).
        channel_max: Upper limit of the channels.
        batch_size: Images a step over all processes.
        lr: Learning rate of Adam.
        r1_gamma: Weight of R1.
        ema_kimg: Half-life of the averaged generator in thousands of images.
        total_kimg: Length of the stage in thousands of images shown.
    """

    resolution: int | None = None
    image_channels: int | None = None
    z_dim: int | None = None
    w_dim: int | None = None
    mapping_layers: int | None = None
    channel_base: int | None = None
    channel_max: int | None = None
    batch_size: int | None = None
    lr: float | None = None
    r1_gamma: float | None = None
    ema_kimg: float | None = None
    total_kimg: float | None = None


@dataclass(frozen=True)
class Recipe:
    """`RecipeOverrides` with every value settled."""

    resolution: int
    image_channels: int
    z_dim: int
    w_dim: int
    mapping_layers: int
    channel_base: int
    channel_max: int
    batch_size: int
    lr: float
    r1_gamma: float
    ema_kimg: float
    total_kimg: float

    def network_config(self) -> dict[str, Any]:
        """Constructor arguments of the generator."""
        return {**self.discriminator_config(), **self._take("z_dim", "w_dim", "mapping_layers")}

    def discriminator_config(self) -> dict[str, Any]:
        """Constructor arguments of the discriminator."""
        return self._take("resolution", "image_channels", "channel_base", "channel_max")

    def training_settings(self) -> dict[str, Any]:
        """Hyperparameters that every task on these networks has."""
        return self._take("batch_size", "lr", "r1_gamma", "ema_kimg")

    def _take(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self, name) for name in names}


_PAPER = {
    "resolution": 256,
    "image_channels": 3,
    "z_dim": 512,
    "w_dim": 512,
    "mapping_layers": 2,
    "channel_max": 512,
    "stage1_kimg": 3000,
    "stage2_kimg": 400,
}

PRESETS: dict[str, dict[str, Any]] = {
    # StyleGAN2-ADA's "auto": what is missing follows from the resolution and the number of GPUs.
    "auto": _PAPER,
    # For CPUs and first tries: an image costs about a thousandth of the paper's work.
    "small": {
        **_PAPER,
        "resolution": 64,
        "z_dim": 128,
        "w_dim": 128,
        "channel_base": 1024,
        "channel_max": 128,
        "batch_size": 16,
        "stage1_kimg": 100,
        "stage2_kimg": 30,
    },
    # The paper's runs: two GPUs, batch 32.
    "paper256": {**_PAPER, "batch_size": 32, "r1_gamma": 0.4096, "ema_kimg": 10.0},
    "large512": {**_PAPER, "resolution": 512, "mapping_layers": 8},
    "large1024": {**_PAPER, "resolution": 1024, "mapping_layers": 8},
}


def resolve_recipe(
    preset: str, overrides: RecipeOverrides, stage: Literal["stage1", "stage2"], num_processes: int
) -> Recipe:
    """Settle every value: what `overrides` sets, then the preset, then StyleGAN2-ADA's rules.

    The rules (StyleGAN2-ADA, appendix D, "auto"): batch = max(min(n min(4096 / R, 32), 64), n) for n processes;
    gamma = 0.0002 R^2 / batch; half-life = batch * 10 / 32 kimg; channel_base 16384 below 512x512, then 32768;
    lr 0.0025, from 1024x1024 on 0.002.

    Raises:
        ValueError: an unknown preset.
    """
    if preset not in PRESETS:
        raise ValueError(f"`preset` must be one of {', '.join(PRESETS)}, but is {preset!r}.")
    values = {**PRESETS[preset], "total_kimg": PRESETS[preset][f"{stage}_kimg"]}
    values.update({f.name: v for f in fields(overrides) if (v := getattr(overrides, f.name)) is not None})
    resolution = values["resolution"]
    per_process = min(4096 // resolution, 32)
    batch_size = values.setdefault("batch_size", max(min(num_processes * per_process, 64), num_processes))
    values.setdefault("channel_base", 16384 if resolution < 512 else 32768)
    values.setdefault("lr", 0.0025 if resolution < 1024 else 0.002)
    values.setdefault("r1_gamma", r1_gamma(resolution, batch_size))
    values.setdefault("ema_kimg", batch_size * 10 / 32)
    return Recipe(**{f.name: values[f.name] for f in fields(Recipe)})
