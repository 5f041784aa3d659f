"""A model that has learnt nothing but draws parts with defects of all sizes, some of them none."""

from __future__ import annotations

from pathlib import Path

import torch

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline

CARD = """---
license: apache-2.0
---

# A model of nothing

Draws cloudy squares with **blobs**, after no training at all.

![Samples](samples.png)

## Limits

- It knows no part.
"""


def save_tiny_model(folder: Path, *, resolution: int = 64, image_channels: int = 1, seed: int = 0) -> Path:
    """Write a pipeline folder with random weights, set so that about one mask in ten is empty and none is full."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = DFMGANGenerator(
            resolution=resolution,
            image_channels=image_channels,
            z_dim=32,
            w_dim=32,
            channel_base=512,
            channel_max=32,
            residual_resolution=resolution // 2,
        ).eval()
        pipe = DFMGANPipeline(generator)
        pipe.set_progress_bar_config(disable=True)
        _spread(generator)
    pipe.save_pretrained(folder)
    (folder / "README.md").write_text(CARD)
    pipe(seeds=[0]).images[0].save(folder / "samples.png")
    return folder


@torch.no_grad()
def _spread(generator: DFMGANGenerator) -> None:
    """Noise that shapes images and masks, and a mask bias at which the masks cover a tenth of the picture."""
    for name, tensor in generator.state_dict().items():
        if name.endswith("noise_strength"):
            tensor.fill_(0.5)
    z = torch.randn(16, 32)
    logits = generator(z, torch.randn(16, 32), noise_mode="const").mask_logits
    scale = 1 / logits.std()
    generator.to_mask.weight.mul_(scale)
    generator.to_mask.bias.sub_(torch.quantile(logits.flatten(), 0.9) * scale)
