"""What bf16 changes: pixels of the mask that agree with float32, and how far the images are apart.

    python -m benchmarks.precision

Convolutions run in bf16 at all resolutions, at the highest four (the default of `set_mixed_precision`), and at the
highest two, below which a network of 256x256 has its mask. Images are compared as they are shown, clamped to [-1, 1],
in steps of 1/255 of their range. The random network's masks are made to cover a twentieth of the pictures, by a shift
of ToMask's bias; those of the shipped model are as trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from dfmgan_hf import DFMGANPipeline
from dfmgan_hf.models import DFMGANGenerator

from .throughput import MODEL
from .timing import write_json


@dataclass
class Arguments:
    """What to compare.

    Args:
        model: Folder of the shipped pipeline.
        resolution: Of the random network.
        channel_base: Of the random network; None for the default.
        images: Of the shipped model; the random network draws a sixteenth of them.
    """

    model: Path = MODEL
    resolution: int = 256
    channel_base: int | None = None
    images: int = 128


def steps(images: Tensor) -> Tensor:
    """0 to 255."""
    return (images.clamp(-1, 1) + 1) * 127.5


@torch.no_grad()
def compare(generator: DFMGANGenerator, images: int, resolutions: int) -> dict[str, Any]:
    """Agreement of masks, and mean and largest distance of images in steps of 1/255.

    Args:
        generator: to draw with.
        images: how many.
        resolutions: number of the highest ones that run in bf16.
    """
    source = torch.Generator().manual_seed(0)
    agree, share, apart, largest = [], [], [], 0.0
    for _ in range(images):
        latents = torch.randn(2, 1, generator.config["z_dim"], generator=source)
        outputs = []
        for dtype in (None, torch.bfloat16):
            generator.set_mixed_precision(dtype, resolutions)
            outputs.append(generator(*latents, noise_mode="const", return_defect_free=True))
        exact, low = outputs
        agree.append(((exact.mask_logits >= 0) == (low.mask_logits >= 0)).double().mean())
        share.append((exact.mask_logits >= 0).double().mean())
        for a, b in ((exact.images, low.images), (exact.defect_free_images, low.defect_free_images)):
            difference = (steps(a) - steps(b)).abs().double()
            apart.append(difference.mean())
            largest = max(largest, float(difference.max()))
    generator.set_mixed_precision(None)
    return {
        "images": images,
        "bf16_resolutions": generator.synthesis.resolutions[-resolutions:],
        "mask_share": float(torch.stack(share).mean()),
        "mask_agreement": float(torch.stack(agree).mean()),
        "mean_difference_255": float(torch.stack(apart).mean()),
        "largest_difference_255": largest,
    }


def random_generator(resolution: int, channel_base: int | None) -> DFMGANGenerator:
    """New weights whose masks cover a twentieth of the pictures and whose images use the range."""
    torch.manual_seed(0)
    generator = DFMGANGenerator(resolution=resolution, channel_base=channel_base).eval().requires_grad_(False)
    with torch.no_grad():
        for name, parameter in generator.named_parameters():
            if name.endswith("noise_strength"):
                parameter.fill_(0.1)
            if "to_rgb.weight" in name:
                # A new network's images leave [-1, 1] by far.
                parameter.mul_(0.1)
        latents = torch.randn(2, 4, generator.config["z_dim"])
        logits = generator(*latents, noise_mode="const").mask_logits
        generator.to_mask.bias.sub_(
            logits.quantile(0.95) if logits.numel() < 2**24 else logits.flatten()[::64].quantile(0.95)
        )
    return generator


def main(arguments: Arguments) -> dict[str, Any]:
    generators = {
        "shipped": (DFMGANPipeline.from_pretrained(arguments.model).generator, arguments.images),
        "random": (random_generator(arguments.resolution, arguments.channel_base), max(arguments.images // 16, 1)),
    }
    return {
        name: [compare(generator, images, k) for k in (len(generator.synthesis.resolutions), 4, 2)]
        for name, (generator, images) in generators.items()
    }


if __name__ == "__main__":
    write_json("precision", main(tyro.cli(Arguments, description=__doc__)))
