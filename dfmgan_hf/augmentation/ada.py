"""The augmentation pipeline of StyleGAN2-ADA.

Source: "Training generative adversarial networks with limited data", NeurIPS 2020, arXiv 2006.06676, appendix B.
"""

from __future__ import annotations

import torch
from torch import nn

from .color import apply_color_map, draw_color_map
from .corruptions import add_noise, cut_out, draw_band_gains, filter_bands
from .draws import Draws
from .geometry import draw_inverse_maps, warp
from .inputs import check_images, full_precision
from .settings import BLITTING, COLOR, GEOMETRY, TRANSFORMS, AugmentSettings


class AugmentPipe(nn.Module):
    """Augments what a discriminator sees, each transform of each image with probability strength * p.

    Differentiable any number of times in the images, so that gradients reach the generator and R1 can run through it.
    It has no parameters and no state.

    Args:
        settings: which transforms, and how strong.

    Example:
        >>> augment = AugmentPipe.from_set("keep_orientation")
        >>> logits = discriminator(augment(images, p=controller.p))
    """

    def __init__(self, settings: AugmentSettings) -> None:
        super().__init__()
        self.settings = settings

    @classmethod
    def from_set(cls, name: str) -> AugmentPipe:
        """The pipeline of a set of `AUGMENTATION_SETS`.

        Raises:
            ValueError: no set has this name; the message lists the names.
        """
        return cls(AugmentSettings.from_set(name))

    def extra_repr(self) -> str:
        return ", ".join(name for name in TRANSFORMS if getattr(self.settings, name))

    def forward(
        self,
        images: torch.Tensor,
        p: float | torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Augments a batch.

        The parameters of the transforms are computed where `p` is. A float, or a tensor on the CPU, lets the pipeline
        skip what an image was not chosen for, and return at once the images themselves for p = 0; a tensor on an
        accelerator is never read back, so that the host does not wait for it.

        Args:
            images: (N, C, H, W), C = 1 or 3, floating point, mid grey at 0 (range -1..1). Half precision is computed
                in float32. Mixed precision (autocast) is switched off inside.
            p: probability, a float or a 0-dim tensor in [0, 1]. The range of a tensor is not checked.
            generator: source of randomness, on the CPU or on the images' device; the same state gives the same
                augmentations. None takes the default generator of the device that `p` is on (a float: of the CPU).

        Returns:
            (N, C, H, W), dtype of `images`; may exceed -1..1.

        Raises:
            ValueError: wrong shape or dtype of `images`; a float `p` out of range.
        """
        check_images(images)
        if isinstance(p, torch.Tensor):
            if p.ndim != 0:
                raise ValueError(f"`p` must be a number or a 0-dim tensor, not a tensor of shape {tuple(p.shape)}.")
            p = p.detach()
        elif not 0 <= p <= 1:
            raise ValueError(f"`p` must be a probability in [0, 1], not {p}.")

        known_to_host = not isinstance(p, torch.Tensor) or p.device.type == "cpu"
        if not self.settings.any_of(TRANSFORMS) or (known_to_host and float(p) == 0):
            return images
        device = torch.device("cpu")
        if isinstance(p, torch.Tensor) and not known_to_host:
            device = p.device
        elif generator is not None:
            device = generator.device
        draws = Draws(len(images), p, device, generator)

        with full_precision(images) as augmented:
            return self._augment(augmented, draws).to(images.dtype)

    def _augment(self, images: torch.Tensor, draws: Draws) -> torch.Tensor:
        settings = self.settings
        if settings.any_of(BLITTING + GEOMETRY):
            images = warp(images, draw_inverse_maps(settings, draws, *images.shape[-2:]))
        if settings.any_of(COLOR):
            images = apply_color_map(images, draw_color_map(settings, draws))
        if settings.imgfilter:
            images = filter_bands(images, draw_band_gains(settings, draws))
        if settings.noise:
            images = add_noise(images, settings, draws)
        if settings.cutout:
            images = cut_out(images, settings, draws)
        return images
