"""Pixel noise of the styled convolutions."""

from __future__ import annotations

from typing import Literal, Protocol

import torch
from torch import Tensor

NoiseMode = Literal["random", "const", "none"]
NOISE_MODES: tuple[NoiseMode, ...] = ("random", "const", "none")


class NoisyLayer(Protocol):
    """A layer that noise is added in.

    Args:
        noise_const: the stored noise, (r, r), r being the resolution of the layer's output.
    """

    noise_const: Tensor


class NoiseInput:
    """Where the layers of one forward pass get their noise.

    Noise is one standard normal value per pixel, shared by all channels (StyleGAN, section 3.2). What was drawn for a
    layer is kept, so that a defect image and its defect-free twin, or two halves of the mode-seeking loss, see the
    same noise.

    Args:
        mode: "random" draws it, "const" takes the layer's stored buffer, "none" leaves it out.
        batch_size: number of samples N of the pass.
        generator: source of random noise: None, one generator, or N of them, in which case the noise of a sample
            depends on its own generator only. Drawn on the generator's device, then moved.

    Raises:
        ValueError: an unknown mode, or a list of generators whose length is not the batch size.
    """

    def __init__(
        self,
        mode: NoiseMode,
        batch_size: int,
        generator: torch.Generator | list[torch.Generator] | None = None,
    ) -> None:
        if mode not in NOISE_MODES:
            raise ValueError(f"`noise_mode` must be one of {', '.join(NOISE_MODES)}, but is {mode!r}.")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"`generator` lists {len(generator)} generators for a batch of {batch_size}.")
        self.mode = mode
        self.batch_size = batch_size
        self.generator = generator
        self._drawn: dict[NoisyLayer, Tensor] = {}

    def __call__(self, layer: NoisyLayer, dtype: torch.dtype) -> Tensor | None:
        """The noise of `layer`: (N, 1, r, r), (r, r), or None."""
        if self.mode == "none":
            return None
        if self.mode == "const":
            return layer.noise_const.to(dtype)
        if layer not in self._drawn:
            size = layer.noise_const.shape
            device = layer.noise_const.device
            if isinstance(self.generator, list):
                parts = [torch.randn(1, 1, *size, generator=g, device=g.device).to(device) for g in self.generator]
                noise = torch.cat(parts)
            else:
                source = device if self.generator is None else self.generator.device
                shape = (self.batch_size, 1, *size)
                noise = torch.randn(shape, generator=self.generator, device=source).to(device)
            self._drawn[layer] = noise
        return self._drawn[layer].to(dtype)

    def samples(self, which: slice) -> NoiseInput:
        """The noise of some of the samples; what either draws is the other's too."""
        return _NoiseOfSamples(self, which)


class _NoiseOfSamples(NoiseInput):
    """The noise of some of the samples of another pass."""

    def __init__(self, whole: NoiseInput, which: slice) -> None:
        self._whole = whole
        self._which = which

    def __call__(self, layer: NoisyLayer, dtype: torch.dtype) -> Tensor | None:
        noise = self._whole(layer, dtype)
        return noise if noise is None or noise.ndim == 2 else noise[self._which]
