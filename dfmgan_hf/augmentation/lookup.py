"""Bilinear lookup that can be differentiated twice."""

from __future__ import annotations

from typing import Any

import torch

_MODE = (0, 0, True)  # bilinear, zero outside, align_corners: -1 and 1 are the centres of the outermost pixels


def lookup_bilinear(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """Interpolates between the four nearest pixels; differentiable in the images any number of times.

    torch's own grid_sample has no second derivative in every supported release, nor a first one on every device.

    Args:
        images: (N, C, H, W), sides of at least 2.
        grid: (N, h, w, 2), the (x, y) to look at in [-1, 1], where -1 and 1 are the centres of the outermost pixels;
            it gets no gradient.

    Returns:
        (N, C, h, w).
    """
    if images.device.type == "mps":
        return lookup_by_gathering(images, grid)
    return _GridSample.apply(images, grid)


class _GridSample(torch.autograd.Function):
    # The lookup is linear in the image: its derivative is its adjoint, whose derivative is the lookup again.

    @staticmethod
    def forward(ctx: Any, images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(grid)
        ctx.images_shape = images.shape
        return torch.ops.aten.grid_sampler_2d(images, grid, *_MODE)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None]:
        (grid,) = ctx.saved_tensors
        return _GridSampleAdjoint.apply(grad_outputs[0], grid, ctx.images_shape), None


class _GridSampleAdjoint(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: torch.Tensor, grid: torch.Tensor, images_shape: torch.Size) -> torch.Tensor:
        ctx.save_for_backward(grid)
        # The pixels matter to the grid's gradient only, which is not asked for: they need no values.
        pixels, wanted = grad.new_empty(images_shape), (True, False)
        return torch.ops.aten.grid_sampler_2d_backward(grad, pixels, grid, *_MODE, wanted)[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grid,) = ctx.saved_tensors
        return _GridSample.apply(grad_outputs[0], grid), None, None


def lookup_by_gathering(images: torch.Tensor, grid: torch.Tensor) -> torch.Tensor:
    """`lookup_bilinear` made of operations that every device can differentiate; slower on a CPU."""
    channels, height, width = images.shape[1:]
    x, y = ((grid[..., axis] + 1) * ((size - 1) / 2) for axis, size in enumerate((width, height)))
    left, top = x.floor().clamp(0, width - 2), y.floor().clamp(0, height - 2)
    right_share, bottom_share = (x - left)[:, None], (y - top)[:, None]
    corner = (top * width + left).long().flatten(1)[:, None].expand(-1, channels, -1)
    pixels = images.flatten(2)
    top_left, top_right, bottom_left, bottom_right = (
        pixels.gather(2, corner + offset).unflatten(2, x.shape[1:]) for offset in (0, 1, width, width + 1)
    )
    upper = torch.lerp(top_left, top_right, right_share)
    return torch.lerp(upper, torch.lerp(bottom_left, bottom_right, right_share), bottom_share)
