"""From the generator's tensors to what the pipeline returns: PIL images, numpy arrays or tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .call_arguments import OutputType


def convert_images(raw: Tensor, output_type: OutputType) -> Any:
    """Images around [-1, 1] as the caller wants them.

    Args:
        raw: (N, C, H, W), C = 1 or 3.
        output_type: "pil": list of 8-bit images, mode L or RGB; "np": float32 (N, H, W, C) in [0, 1]; "pt": float32
            (N, C, H, W) in [0, 1], on the device of `raw`.
    """
    unit = (raw.float() / 2 + 0.5).clamp(0, 1)
    if output_type == "pt":
        return unit
    if output_type == "np":
        return _channels_last(unit)
    return _to_pil((unit * 255).round().to(torch.uint8))


def convert_masks(mask_logits: Tensor, mask_threshold: float, output_type: OutputType) -> Any:
    """Binary masks, 255 where the logits are at least the threshold and 0 elsewhere.

    Args:
        mask_logits: (N, 1, H, W).
        mask_threshold: the one that gated the residuals.
        output_type: "pil": list of mode L images; "np": uint8 (N, H, W, 1); "pt": uint8 (N, 1, H, W).
    """
    masks = (mask_logits >= mask_threshold).to(torch.uint8) * 255
    if output_type == "pt":
        return masks
    return _channels_last(masks) if output_type == "np" else _to_pil(masks)


def join_batches(batches: list[Any], output_type: OutputType) -> Any:
    """One list, array or tensor from those of the batches."""
    if output_type == "pt":
        return torch.cat(batches)
    if output_type == "np":
        return np.concatenate(batches)
    return [image for batch in batches for image in batch]


def _channels_last(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x.permute(0, 2, 3, 1).cpu().numpy())


def _to_pil(x: Tensor) -> list[Image.Image]:
    arrays = _channels_last(x)
    return [Image.fromarray(a[:, :, 0] if a.shape[2] == 1 else a) for a in arrays]
