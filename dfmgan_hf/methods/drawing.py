"""Drawing defect images while training: from random numbers that are kept, so that a batch can be drawn again."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..models import DFMGANGenerator, NoiseInput
from ..models.generator import Trunk
from .latents import LatentDraw, draw_latents


@dataclass(frozen=True)
class Plan:
    """The random numbers that a batch of generated images follows from, so that it can be drawn again.

    Args:
        objects, defects: of the object and the defect latents.
        noise_seed: of the pixel noise.
    """

    objects: LatentDraw
    defects: LatentDraw
    noise_seed: int


@dataclass
class Drawing:
    """A batch of generated images, or of masks alone, and what they were drawn from.

    Args:
        images: (N, C, R, R), or None if masks alone were drawn.
        mask_logits: (N, 1, R, R).
        twins: the defect-free twins (N, C, R, R) without gradients, or None if they were not asked for.
        trunk: what is shared with other defects on the same objects.
        ws: per-layer object latents (N, L, w_dim).
        defect_ws: per-layer defect latents (N, L_defect, w_dim).
        defect_z: z of the first defect latent (N, z_dim).
    """

    images: Tensor | None
    mask_logits: Tensor
    twins: Tensor | None
    trunk: Trunk
    ws: Tensor
    defect_ws: Tensor
    defect_z: Tensor


def plan_drawing(generator: DFMGANGenerator, n: int, mixing_probability: float) -> Plan:
    """Draw the random numbers of `n` new samples, with style mixing in both latents, each with its own cut."""
    objects = draw_latents(generator.mapping, n, generator.num_latents, mixing_probability)
    defects = draw_latents(generator.defect_mapping, n, generator.num_defect_latents, mixing_probability)
    return Plan(objects, defects, int(torch.randint(2**31, ()).item()))


def draw(generator: DFMGANGenerator, plan: Plan, masks_only: bool = False, with_twins: bool = False) -> Drawing:
    """The images of a plan; with `masks_only` nothing above the first residual block and ToMask is run."""
    ws = plan.objects.layers(generator.mapping, generator.num_latents)
    defect_ws = plan.defects.layers(generator.defect_mapping, generator.num_defect_latents)
    noise = torch.Generator(ws.device).manual_seed(plan.noise_seed)
    trunk = generator.run_trunk(ws, NoiseInput("random", len(ws), noise))
    if masks_only:
        return Drawing(None, generator.mask_logits(trunk, defect_ws), None, trunk, ws, defect_ws, plan.defects.z)
    out = generator.synthesize_defect(trunk, ws, defect_ws, return_defect_free=with_twins)
    return Drawing(out.images, out.mask_logits, out.defect_free_images, trunk, ws, defect_ws, plan.defects.z)
