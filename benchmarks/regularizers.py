"""How far bf16 moves the gradients of the penalties, beside how far another batch moves them.

    python -m benchmarks.regularizers --stage1 runs/backbone

R1 and the path-length penalty of stage 1, with their gradients in float32 and with the highest four resolutions in
bf16: the same latents, noise and images each time. R1 sees the generator's own images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.losses import path_lengths, r1_penalty
from dfmgan_hf.models import NoiseInput, StyleGAN2Discriminator, StyleGAN2Generator

from .timing import write_json


@dataclass
class Arguments:
    """What to compare.

    Args:
        stage1: Output folder of a finished stage 1.
        batch_size: Images of R1; the path-length penalty takes half of them, as in training.
        batches: How many.
    """

    stage1: Path
    batch_size: int = 16
    batches: int = 8


def path_length(generator: StyleGAN2Generator, n: int, mean: float) -> tuple[Tensor, Tensor]:
    """The penalty around `mean`, and the lengths (n,)."""
    ws = generator.mapping(torch.randn(n, generator.config["z_dim"]))
    ws = ws.unsqueeze(1).repeat(1, generator.num_latents, 1)
    images = generator.synthesize(ws, NoiseInput("random", n))
    lengths = path_lengths(images, ws, torch.randn_like(images))
    return (lengths - mean).square().mean(), lengths.detach()


def compare(gradients: list[Tensor], low: list[Tensor]) -> dict[str, float]:
    """Distances of gradients, as shares of what they are distant from.

    Args:
        gradients: of each batch in float32.
        low: the same in bf16.

    Returns:
        bf16: of one in bf16 from the same in float32, on average; bf16_mean: of the mean of all in bf16 from that in
        float32; batch: of one in float32 from the mean of all, on average.
    """
    pairs = list(zip(gradients, low, strict=True))
    mean, low_mean = torch.stack(gradients).mean(dim=0), torch.stack(low).mean(dim=0)
    return {
        "bf16": float(torch.stack([(b - a).norm() / a.norm() for a, b in pairs]).mean()),
        "bf16_mean": float((low_mean - mean).norm() / mean.norm()),
        "batch": float(torch.stack([(a - mean).norm() / mean.norm() for a in gradients]).mean()),
    }


def main(arguments: Arguments) -> list[dict[str, Any]]:
    torch.manual_seed(0)
    generator = DFMGANPipeline.from_pretrained(arguments.stage1).generator
    discriminator = StyleGAN2Discriminator.from_pretrained(arguments.stage1 / "discriminator")
    half = max(arguments.batch_size // 2, 1)
    mean = float(path_length(generator, 4 * half, 0.0)[1].mean())
    with torch.no_grad():
        latents = torch.randn(arguments.batches, arguments.batch_size, generator.config["z_dim"])
        reals = [generator(z).images for z in latents]
    gradients: dict[tuple[str, torch.dtype | None], list[Tensor]] = {}
    for dtype in (None, torch.bfloat16):
        for network in (generator, discriminator):
            network.requires_grad_(True).set_mixed_precision(dtype)
        for batch, images in enumerate(reals):
            torch.manual_seed(batch)
            penalty = path_length(generator, half, mean)[0]
            images = images.clone().requires_grad_()
            r1 = r1_penalty(discriminator(images).logits, images).mean()
            for name, loss, network in (("path length", penalty, generator), ("R1", r1, discriminator)):
                parameters = list(network.parameters())
                parts = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
                gradients.setdefault((name, dtype), []).append(torch.cat([part.flatten() for part in parts]).double())
    return [
        {
            "resolution": generator.config["resolution"],
            "penalty": name,
            "batches": arguments.batches,
            **compare(gradients[name, None], gradients[name, torch.bfloat16]),
        }
        for name in ("path length", "R1")
    ]


if __name__ == "__main__":
    write_json("regularizers", main(tyro.cli(Arguments, description=__doc__)))
