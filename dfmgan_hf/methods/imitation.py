"""Imitation: before any discriminator has its say, a generator learns to draw each photograph from its code and noise.

Not in DFMGAN; the quick preset begins with it. `PhotographCodes` are latents for photographs, in stage 1, or for
defects that were cut out of them, in stage 2. `PhotographNoise` is what stage 1's codes leave out.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..models.base import sides
from ..models.stylegan2 import MappingNetwork

CODED_COMPONENTS = 32
"""Numbers of a latent that a photograph's code fills."""

CODED_SIZE = 16
"""Pixels a side at which photographs are compared for it."""

CODED_SHARE = 0.9
"""The codes' part of the variance that a new mapping network passes on of latents."""


def parts_of(photographs: Tensor) -> Iterator[Tensor]:
    """Yield photographs (M, C, H, W), uint8, a few at a time, in [-1, 1]."""
    for part in photographs.split(64):
        yield part.to(torch.float32) / 127.5 - 1


class PhotographCodes(nn.Module):
    """Latents of photographs by which a generator learns to imitate them, before any discriminator has its say.

    The first numbers are a photograph's principal components at 16x16 pixels, each of unit variance over all
    photographs of its kind; the rest is noise. So like photographs have like latents, and those of all are distributed
    about as the standard normal ones that the generator draws from later. (As a generator that memorises a latent for
    each photograph, Bojanowski et al. 2018, with a code that needs no learning.)

    Args:
        photographs: (M, C, H, W) in [-1, 1], in parts.
        z_dim: width of the latents.
        labels: number of each photograph's kind, int64 (M,); None for one kind.
    """

    mean: Tensor
    components: Tensor
    is_coded: Tensor

    def __init__(self, photographs: Iterable[Tensor], z_dim: int, labels: Tensor | None = None) -> None:
        super().__init__()
        self.z_dim = z_dim
        small = torch.cat([self._small(part) for part in photographs])
        kinds = [small] if labels is None else [small[labels == kind] for kind in range(int(labels.max()) + 1)]
        counts = [max(min(CODED_COMPONENTS, z_dim // 2, len(kind) - 1), 0) for kind in kinds]
        components = torch.zeros(len(kinds), small.shape[1], max(counts))
        for kind, count, found in zip(kinds, counts, components, strict=True):
            if count:
                centred = kind - kind.mean(dim=0)
                with torch.random.fork_rng(devices=[]):  # where a run goes on must not depend on it
                    torch.default_generator.manual_seed(0)  # torch's own function would seed GPUs as well, for good
                    axes = torch.pca_lowrank(centred, q=count, center=False, niter=4)[2]
                found[:, :count] = axes / (centred @ axes).std(dim=0).clamp_min(1e-6)
        self.register_buffer("mean", torch.stack([kind.mean(dim=0) for kind in kinds]))
        self.register_buffer("components", components)
        self.register_buffer("is_coded", torch.arange(max(counts)) < torch.tensor(counts)[:, None])

    @torch.no_grad()
    def amplify(self, mapping: MappingNetwork) -> None:
        """Scale a new mapping network's first layer so that the codes make up `CODED_SHARE` of what it passes on.

        Of latents of 512 numbers, 32 are a sixteenth, and a network takes long to find them among the noise.
        """
        weight: Tensor = mapping.layers[0].weight  # type: ignore[assignment, union-attr]
        count = self.components.shape[-1]
        if count:  # a single photograph has no code
            weight[:, :count] *= math.sqrt(CODED_SHARE * self.z_dim / count)
            weight[:, count : self.z_dim] *= math.sqrt((1 - CODED_SHARE) * self.z_dim / (self.z_dim - count))

    @staticmethod
    def _small(images: Tensor) -> Tensor:
        return F.adaptive_avg_pool2d(images, CODED_SIZE).flatten(1)

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        """Return latents (N, z_dim) of photographs (N, C, H, W) in [-1, 1] of these kinds, int64 (N,)."""
        if labels is None:
            labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        codes = (self._small(images) - self.mean[:, None]) @ self.components  # by every kind's components
        code = codes[labels, torch.arange(len(images), device=images.device)]
        z = torch.randn(len(images), self.z_dim, device=images.device)
        coded, noise = z.split([code.shape[1], self.z_dim - code.shape[1]], dim=1)
        return torch.cat([torch.where(self.is_coded[labels], code, coded), noise], dim=1)


MEASURED = 512
"""Photographs at most by which noise is measured."""

DETAILS = (32, 64, 128)
"""Pixels a side at which details are noise; half the images' size at most."""

QUANTILES = 1024
"""Of the values of details, by which they become normal."""


class PhotographNoise(nn.Module):
    """The noise of layers that stands for what photographs' codes leave out: spots, grain, all that lies anywhere.

    With random noise, imitation would teach a generator to leave noise alone and to draw such details where they lie
    on average, in all samples. So each photograph has noise of its own, from 32x32 pixels to half its size: what that
    resolution adds to the one below it (the Laplacian pyramid), less what follows linearly from the code, in the
    colour that varies most, standardised at each pixel and made normal by its rank. To the generator, the noise that
    it draws from later looks the same. The full size is left out: there, noise becomes dots of a pixel, and
    generators that learnt from these had no use for the coarser noise.

    Args:
        photographs: (M, C, H, W) in [-1, 1], in parts; a few hundred are enough.
        codes: of the photographs.
    """

    def __init__(self, photographs: Iterable[Tensor], codes: PhotographCodes) -> None:
        super().__init__()
        first, *others = photographs
        shorter = min(first.shape[-2:])
        self.aspect = [side // shorter for side in first.shape[-2:]]
        largest = min(shorter // 2, DETAILS[-1])
        self.resolutions = [r for r in DETAILS if r <= largest]
        # What is finer than the largest is not needed.
        small = torch.cat([F.adaptive_avg_pool2d(part, sides(largest, self.aspect)) for part in (first, *others)])
        self.count = codes.components.shape[-1]
        with torch.random.fork_rng(devices=[]):  # as above
            torch.default_generator.manual_seed(0)
            for r in self.resolutions:
                self._measure(self._detail(small, r), self._with_constant(codes(small)), r)

    def _measure(self, detail: Tensor, code: Tensor, r: int) -> None:
        """Find out how the photographs' details (M, C, h, w) at resolution `r` are distributed."""
        flat = detail.flatten(1)
        fit = torch.linalg.lstsq(code, flat).solution
        rest = (flat - code @ fit).unflatten(1, detail.shape[1:])
        by_channel = rest.transpose(0, 1).flatten(1)
        colour = torch.linalg.eigh(by_channel @ by_channel.T).eigenvectors[:, -1]
        colour = torch.where(colour.sum() < 0, -colour, colour)  # either is an eigenvector
        values = torch.einsum("nchw,c->nhw", rest, colour)
        variance = values.var(dim=0, correction=0)
        self.register_buffer(f"fit_{r}", fit)
        self.register_buffer(f"colour_{r}", colour)
        # Where nothing varies, by more than 8 bits can tell, noise is noise.
        self.register_buffer(f"floor_{r}", 0.1 * variance.mean() + 1e-5)
        self.register_buffer(f"variance_{r}", variance)
        values = self._standardised(values, r).flatten()
        values = values[:: math.ceil(len(values) / 2**20)]
        self.register_buffer(f"quantiles_{r}", torch.quantile(values, torch.linspace(0, 1, QUANTILES + 1)))

    def _with_constant(self, z: Tensor) -> Tensor:
        return F.pad(z[:, : self.count], (0, 1), value=1.0)

    def _detail(self, images: Tensor, resolution: int) -> Tensor:
        coarse, fine = (F.adaptive_avg_pool2d(images, sides(r, self.aspect)) for r in (resolution // 2, resolution))
        return fine - F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)

    def _standardised(self, values: Tensor, resolution: int) -> Tensor:
        floor, variance = self.get_buffer(f"floor_{resolution}"), self.get_buffer(f"variance_{resolution}")
        return (values + floor.sqrt() * torch.randn_like(values)) / (variance + floor).sqrt()

    @torch.no_grad()
    def forward(self, images: Tensor, z: Tensor) -> dict[int, Tensor]:
        """Return noise (N, 1, h, w) by resolution of photographs (N, C, H, W) in [-1, 1] and their latents `z`."""
        noise = {}
        for r in self.resolutions:
            detail = self._detail(images, r)
            rest = detail - (self._with_constant(z) @ self.get_buffer(f"fit_{r}")).unflatten(1, detail.shape[1:])
            values = self._standardised(torch.einsum("nchw,c->nhw", rest, self.get_buffer(f"colour_{r}")), r)
            rank = torch.searchsorted(self.get_buffer(f"quantiles_{r}"), values).clamp(1, QUANTILES)
            share = (rank - torch.rand_like(values)) / QUANTILES
            noise[r] = torch.special.ndtri(share.clamp(1e-4, 1 - 1e-4)).unsqueeze(1)
        return noise
