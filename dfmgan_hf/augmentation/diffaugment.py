"""DiffAugment (Zhao et al., NeurIPS 2020, arXiv 2006.10738): always applied, mild, without a probability to adapt."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..precision import without_autocast
from .draws import Draws, check_images

POLICIES = ("color", "translation", "shift", "cutout")


class DiffAugment(nn.Module):
    """Augments every image that a discriminator sees, with fresh random parameters per image and call.

    In this order: `color`, brightness + U(-0.5, 0.5), saturation x U(0, 2), contrast x U(0.5, 1.5); `translation` by
    whole pixels, up to an eighth of the image's size, filled with 0; `cutout` of half the size, set to 0.
    Differentiable any number of times in the images.

    `shift` is not in the paper: a translation that repeats the pixels at the edge. The edges that a fill makes hide
    lines that a generator draws along the border of a product on a plain background.

    Args:
        policy: what to apply, comma-separated, out of "color", "translation", "shift" and "cutout", in this order.

    Raises:
        ValueError: the policy is empty or names something else.
    """

    def __init__(self, policy: str = "color,translation,cutout") -> None:
        super().__init__()
        names = [name.strip() for name in policy.split(",")]
        unknown = [name for name in names if name not in POLICIES]
        if unknown:
            raise ValueError(f"Unknown policy {', '.join(map(repr, unknown))}; choose of: {', '.join(POLICIES)}.")
        self.policy = tuple(name for name in POLICIES if name in names)

    def forward(
        self, images: Tensor, p: float | Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Augment a batch.

        Args:
            images: (N, C, H, W), C = 1 or 3, floating point, mid grey at 0 (range -1..1). Saturation leaves a grey
                image as it is.
            p: ignored, since DiffAugment always applies; there so that it can stand in for `AugmentPipe`.
            generator: source of randomness, on any device; None takes the default generator of the images' device.

        Returns:
            (N, C, H, W), dtype of `images`; may exceed -1..1.

        Raises:
            ValueError: wrong shape or dtype of `images`.
        """
        check_images(images)
        device = images.device if generator is None else generator.device
        draws = Draws(len(images), 1.0, device, generator)
        with without_autocast(images) as augmented:
            if "color" in self.policy:
                augmented = _jitter_color(augmented, draws)
            if "translation" in self.policy:
                augmented = _translate(augmented, draws, repeat_edge=False)
            if "shift" in self.policy:
                augmented = _translate(augmented, draws, repeat_edge=True)
            if "cutout" in self.policy:
                augmented = _cut_out(augmented, draws)
        return augmented.to(images.dtype)


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    return values.to(images.device, images.dtype, non_blocking=True)[:, None, None, None]


def _jitter_color(images: Tensor, draws: Draws) -> Tensor:
    brightness = _per_image(draws.unit() - 0.5, images)
    saturation = _per_image(draws.unit() * 2, images)
    contrast = _per_image(draws.unit() + 0.5, images)
    images = images + brightness
    images = torch.lerp(images.mean(1, keepdim=True), images, saturation)
    return torch.lerp(images.mean((1, 2, 3), keepdim=True), images, contrast)


def _translate(images: Tensor, draws: Draws, repeat_edge: bool) -> Tensor:
    # Output pixel i takes input pixel i + shift. As a matrix product: outside the image its rows are 0, like the fill.
    select_rows, select_columns = (_selection(size, draws, images, repeat_edge) for size in images.shape[-2:])
    return select_rows @ (images @ select_columns.mT)


def _selection(size: int, draws: Draws, images: Tensor, repeat_edge: bool) -> Tensor:
    limit = int(size / 8 + 0.5)
    shift = _per_image(draws.integer(2 * limit + 1) - limit, images)[:, 0]
    index = torch.arange(size, device=images.device)
    taken = index[:, None] + shift
    return ((taken.clamp(0, size - 1) if repeat_edge else taken) == index).to(images.dtype)[:, None]


def _cut_out(images: Tensor, draws: Draws) -> Tensor:
    inside_rows, inside_columns = (_inside_square(size, draws, images) for size in images.shape[-2:])
    return images.masked_fill(inside_rows[:, None, :, None] & inside_columns[:, None, None, :], 0.0)


def _inside_square(size: int, draws: Draws, images: Tensor) -> Tensor:
    side = int(size / 2 + 0.5)
    # An even side has its centre between two pixels, and one place more to be.
    centre = _per_image(draws.integer(size + 1 - side % 2), images)[:, 0, 0]
    offset = torch.arange(size, device=images.device) - (centre - side // 2)
    return (offset >= 0) & (offset < side)
