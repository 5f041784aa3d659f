"""The DFMGAN generator (AAAI 2023, section 3.2): defect-aware residual blocks on a StyleGAN2 backbone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from . import fused
from .base import RandomSource, channels_at, default_channel_base, image_size, sides
from .layers import upsample2d
from .stylegan2 import (
    LatentSpace,
    MappingNetwork,
    ModulatedConv2d,
    Modulations,
    NoiseInput,
    NoiseMode,
    StyledConv2d,
    StyleGAN2Generator,
    ToChannels,
    modulated_layers,
    to_layer_latents,
)

DEFECT_PREFIXES = ("defect_mapping.", "defect_blocks.", "to_mask.")
"""How the names of the tensors that stage 2 adds to the backbone begin."""


class DefectResidualBlock(nn.Module):
    """Residual features at one resolution, modulated by the defect latent (DFMGAN, section 3.2).

    The same two convolutions as a synthesis block; the input is the manipulated feature map of the resolution below.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        size: tuple[int, int],
        latent: int,
        conv_clamp: float | None,
    ) -> None:
        super().__init__()
        self.latent = latent  # of conv1; conv0 has the one before it, and ToMask, on the first block, the one after
        self.conv0 = StyledConv2d(in_channels, out_channels, w_dim, size, up=True, conv_clamp=conv_clamp)
        self.conv1 = StyledConv2d(out_channels, out_channels, w_dim, size, conv_clamp=conv_clamp)

    def layers(
        self, defect_ws: Sequence[Tensor], dtype: torch.dtype
    ) -> list[tuple[ModulatedConv2d, torch.dtype, Tensor]]:
        """Return the layers, each with `dtype` and its own of all defect latents, for `modulated_layers`."""
        return [(self.conv0, dtype, defect_ws[self.latent - 1]), (self.conv1, dtype, defect_ws[self.latent])]

    def forward(self, x: Tensor, modulations: Modulations, noise: NoiseInput) -> Tensor:
        """(N, in_channels, h/2, w/2), modulations of all layers -> residual (N, out_channels, h, w)."""
        return self.conv1(self.conv0(x, modulations[self.conv0], noise), modulations[self.conv1], noise)


def gate(features: Tensor, residual: Tensor, mask_logits: Tensor, soft: bool = False) -> Tensor:
    """Add the residual where the mask is on: F + [M >= 0] * residual (equation 1).

    The weight has no gradient: the image teaches the mask nothing, the matching discriminator and the mode-seeking
    loss do.

    Args:
        features, residual: (N, C, h, w).
        mask_logits: (N, 1, h, w); less the threshold, if it is not 0.
        soft: let the weight rise from 0 to 1 over the first pixel inside of the border, by the distance to it. Not in
            the paper, whose defects begin at full strength: at few pixels a side, their outlines are stairs.
    """
    weight = border_distance(mask_logits).clamp(0, 1) if soft else mask_logits >= 0
    return torch.addcmul(features, residual, weight.detach().to(residual.dtype))


def border_distance(mask_logits: Tensor) -> Tensor:
    """Return about how many pixels each pixel lies inside of a mask, M / |grad M|; outside, it is negative.

    To the first order, where the logits (N, 1, h, w) are smooth: exact for a straight border where they rise evenly.
    """
    padded = F.pad(mask_logits, (1, 1, 1, 1), mode="replicate")
    x = (padded[..., 1:-1, 2:] - padded[..., 1:-1, :-2]) / 2
    y = (padded[..., 2:, 1:-1] - padded[..., :-2, 1:-1]) / 2
    return mask_logits / torch.hypot(x, y).clamp_min(1e-6)


def check_names(names: Sequence[str] | None) -> None:
    """Raise ValueError unless `names` are None or different names of at least two kinds of defect."""
    if names is not None and (len(names) < 2 or len(set(names)) < len(names) or not all(names)):
        raise ValueError(f"`defect_names` must be different names of at least two kinds of defect, but is {names}.")


def check_masks(masks: Tensor, count: int, size: tuple[int, int]) -> None:
    """Raise ValueError unless `masks` are `count` masks (N, 1, *size) of 0 and 1, or bool."""
    if not isinstance(masks, Tensor) or tuple(masks.shape) != (count, 1, *size):
        found = tuple(masks.shape) if isinstance(masks, Tensor) else type(masks).__name__
        raise ValueError(f"`masks` must be a tensor {(count, 1, *size)}, one for each sample, but is {found}.")
    if not ((masks == 0) | (masks == 1)).all():
        raise ValueError("`masks` must hold 0 and 1 (or False and True) alone, but holds other numbers.")


SHARPNESS = 10.0
"""Factor of the mask logits M in tanh(10 M), as published."""


def soft_mask(mask_logits: Tensor) -> Tensor:
    """Return what the matching discriminator and the mode-seeking loss see of a mask: tanh(10 M), in [-1, 1]."""
    return torch.tanh(SHARPNESS * mask_logits)


@dataclass
class Trunk:
    """What a defect image and its defect-free twin share: everything below the first residual block.

    Args:
        features: (N, C, h/2, w/2), (h, w) being the size of the first residual block.
        image: (N, image_channels, h/2, w/2), the skip image up to there.
        noise: the pass's noise.
    """

    features: Tensor
    image: Tensor
    noise: NoiseInput

    def samples(self, which: slice) -> Trunk:
        """Return the trunk of some of the samples; their noise is shared."""
        return Trunk(self.features[which], self.image[which], self.noise.samples(which))


@dataclass
class DFMGANGeneratorOutput(BaseOutput):
    """Output of `DFMGANGenerator`.

    Args:
        images: images with the defect, (N, image_channels, H, W), around [-1, 1], not clamped.
        mask_logits: (N, 1, H, W); the defect is where they are at least `mask_threshold`, normally 0.
        defect_free_images: the same images without the defect, or None if they were not asked for.
    """

    images: Tensor
    mask_logits: Tensor
    defect_free_images: Tensor | None = None


class DFMGANGenerator(StyleGAN2Generator):
    """DFMGAN generator: the backbone, a second mapping network, defect-aware residual blocks and ToMask.

    At every resolution from `residual_resolution` on, a residual block reads the manipulated features of the
    resolution below; its output is added where the mask is on (DFMGAN, section 3.2, equation 1). The mask logits are
    read off the first residual block and FIR-upsampled from there.

    Args:
        residual_resolution: resolution of the first residual block, a power of two from 8 to `resolution`.
        defect_names: of the kinds of defect that it draws on demand; they enter the defect mapping and nothing else.
            None for a single kind, as published.
        soft_gate: in evaluation mode, defects have smooth outlines, see `gate`; training always goes by the published
            gate, since it would make up for a soft one. False, as published.

    All other arguments are those of `StyleGAN2Generator`.

    Example:
        >>> generator = DFMGANGenerator.from_backbone(backbone)
        >>> output = generator(torch.randn(4, 512), torch.randn(4, 512), return_defect_free=True)
        >>> masks = output.mask_logits >= 0
    """

    @register_to_config
    def __init__(
        self,
        resolution: int = 256,
        image_channels: int = 3,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 2,
        channel_base: int | None = None,
        channel_max: int = 512,
        conv_clamp: float | None = 256.0,
        residual_resolution: int = 64,
        window: int | None = None,
        defect_names: Sequence[str] | None = None,
        aspect: Sequence[int] = (1, 1),
        object_noise: bool = False,
        soft_gate: bool = False,
    ) -> None:
        check_names(defect_names)
        # By name: of positional arguments the configuration would forget those that are not defaults.
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=mapping_layers,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
            window=window,
            aspect=aspect,
            object_noise=object_noise,
        )
        if residual_resolution < 8 or residual_resolution not in self.synthesis.resolutions:
            raise ValueError(
                f"`residual_resolution` must be a power of two from 8 to {resolution}, but is {residual_resolution}."
            )
        channel_base = channel_base or default_channel_base(resolution)
        self.trunk_resolutions = [r for r in self.synthesis.resolutions if r < residual_resolution]
        self.residual_resolutions = [r for r in self.synthesis.resolutions if r >= residual_resolution]
        self.defect_mapping = MappingNetwork(z_dim, w_dim, mapping_layers, len(defect_names or ()))
        self.defect_blocks = nn.ModuleDict()
        for i, r in enumerate(self.residual_resolutions):
            below, here = (channels_at(k, channel_base, channel_max) for k in (r // 2, r))
            latent = 2 * i + 2 if i else 1  # ToMask's comes after those of the first block
            self.defect_blocks[str(r)] = DefectResidualBlock(below, here, w_dim, sides(r, aspect), latent, conv_clamp)
        self.to_mask = ToChannels(
            channels_at(residual_resolution, channel_base, channel_max), 1, w_dim, conv_clamp=conv_clamp
        )

    @classmethod
    def from_backbone(
        cls,
        backbone: StyleGAN2Generator,
        residual_resolution: int | None = None,
        defect_names: Sequence[str] | None = None,
        soft_gate: bool = False,
    ) -> DFMGANGenerator:
        """Make a DFMGAN generator on a trained backbone; the defect branch is new.

        Args:
            backbone: the stage-1 generator; its tensors are copied bit for bit.
            residual_resolution: resolution of the first residual block; None: 64, as published for 256x256, and a
                quarter of `resolution` below that, which leaves three residual blocks.
            defect_names, soft_gate: see `DFMGANGenerator`.

        Raises:
            RuntimeError: the backbone's tensors are not exactly those that its configuration calls for.
        """
        config = {k: v for k, v in backbone.config.items() if not k.startswith("_")}
        if residual_resolution is None:
            residual_resolution = min(64, config["resolution"] // 4)
        names = None if defect_names is None else list(defect_names)
        model = cls(**config, residual_resolution=residual_resolution, defect_names=names, soft_gate=soft_gate)
        state = backbone.state_dict()
        missing, unexpected = model.load_state_dict(state, strict=False)
        forgotten = [name for name in missing if not name.startswith(DEFECT_PREFIXES)]
        if forgotten or unexpected:
            raise RuntimeError(
                f"The backbone does not fit its configuration: missing {forgotten or 'nothing'}, "
                f"unexpected {unexpected or 'nothing'}."
            )
        return model.to(device=backbone.device)

    @property
    def is_gate_soft(self) -> bool:
        """Return whether defects are drawn with smooth outlines now."""
        return self.config["soft_gate"] and not self.training

    @property
    def num_defect_latents(self) -> int:
        """Return the number of per-layer defect latents: two for each residual block, one for ToMask."""
        return 2 * len(self.residual_resolutions) + 1

    def numbers_of(self, names: Sequence[str]) -> Tensor:
        """Return the numbers of kinds of defect, int64 (N,), as `forward` takes them.

        Raises:
            ValueError: the network draws no such kind.
        """
        known = list(self.config["defect_names"] or ())
        for name in names:
            if name not in known:
                raise ValueError(
                    f"This model draws no {name!r}; it knows {', '.join(known) or 'a single kind of defect'}."
                )
        return torch.tensor([known.index(name) for name in names], dtype=torch.int64, device=self.device)

    def forward(  # type: ignore[override]
        self,
        object_latents: Tensor,
        defect_latents: Tensor,
        kinds: Tensor | None = None,
        truncation_psi: float = 1.0,
        noise_mode: NoiseMode = "random",
        generator: RandomSource = None,
        return_defect_free: bool = False,
        object_latent_space: LatentSpace = "z",
        defect_latent_space: LatentSpace = "z",
        mask_threshold: float = 0.0,
        masks: Tensor | None = None,
        return_dict: bool = True,
    ) -> DFMGANGeneratorOutput | tuple[Tensor, ...]:
        """Draw defect images and their masks.

        Args:
            object_latents: (N, z_dim), (N, w_dim) or (N, L, w_dim), as `object_latent_space` says.
            defect_latents: (N, z_dim), (N, w_dim) or (N, L_defect, w_dim), as `defect_latent_space` says.
            kinds: number of each sample's kind of defect, int64 (N,), of a model with `defect_names` (see
                `numbers_of`); not looked at for defect latents that are w.
            truncation_psi: truncation of both latents; needs "z" for at least one of them unless it is 1. Latents
                given as w or w+ are used as they are.
            noise_mode, generator: as in `StyleGAN2Generator.forward`.
            return_defect_free: also draw the defect-free twins; the layers below the first residual block are
                shared, and so is the noise.
            object_latent_space, defect_latent_space: "z", "w" (one for all layers) or "w+" (one for each layer).
            mask_threshold: the defect is put where the mask logits are at least this; 0 as trained, higher values
                shrink it, lower values spread it.
            masks: where to put the defect instead, (N, 1, H, W), of 0 and 1 or bool. Smaller maps follow
                where a mask covers at least half of their pixels. The twins and `mask_logits` do not depend on them.
            return_dict: False returns the tuple (images, mask_logits), and defect_free_images if asked for.
        Raises:
            ValueError: latents whose shape does not fit their space, numbers of samples that differ, an unknown mode.
        """
        if truncation_psi != 1.0 and "z" not in (object_latent_space, defect_latent_space):
            raise ValueError('`truncation_psi` acts on z: give it with "z" latents, or truncate w yourself.')
        ws = to_layer_latents(
            self.mapping, object_latents, object_latent_space, self.num_latents, truncation_psi, "object_latents"
        )
        count = self.num_defect_latents
        defect_ws = to_layer_latents(
            self.defect_mapping, defect_latents, defect_latent_space, count, truncation_psi, "defect_latents", kinds
        )
        if len(ws) != len(defect_ws):
            raise ValueError(f"`object_latents` holds {len(ws)} samples, `defect_latents` {len(defect_ws)}.")
        if masks is not None:
            check_masks(masks, len(ws), image_size(self.config))
        noise = self.noise(noise_mode, ws, generator)
        output = self.draw(ws, defect_ws, noise, return_defect_free, mask_threshold, masks)
        return output if return_dict else output.to_tuple()

    def draw(
        self,
        ws: Tensor,
        defect_ws: Tensor,
        noise: NoiseInput,
        return_defect_free: bool = False,
        mask_threshold: float = 0.0,
        masks: Tensor | None = None,
        follows: Tensor | None = None,
    ) -> DFMGANGeneratorOutput:
        """Draw from per-layer latents (N, L, w_dim) and (N, L_defect, w_dim), with fused operators if they apply."""
        is_fused = masks is None and not self.is_gate_soft and type(self.to_mask) is ToChannels
        if not (is_fused and fused.applies(self, ws)):
            trunk = self.run_trunk(ws, noise)
            return self.synthesize_defect(trunk, ws, defect_ws, return_defect_free, mask_threshold, masks, follows)
        layers = [*self.layers(self.synthesis.resolutions, ws), *self._defect_layers(defect_ws)]
        with modulated_layers(layers, wide=True) as modulations:
            images, mask = fused.synthesize(
                self, modulations, noise, twins=return_defect_free, mask_threshold=mask_threshold
            )
        assert mask is not None
        twins = images[len(ws) :] if return_defect_free else None
        return DFMGANGeneratorOutput(images[: len(ws)], mask, twins)

    def run_trunk(self, ws: Tensor, noise: NoiseInput) -> Trunk:
        """Run the backbone below the first residual block, on per-layer latents (N, L, w_dim)."""
        with modulated_layers(self.layers(self.trunk_resolutions, ws)) as modulations:
            features, image = self.synthesis(self.trunk_resolutions, modulations, noise, self.compute_dtype)
        return Trunk(features, image, noise)

    def _first_layers(self, defect_ws: Sequence[Tensor]) -> list[tuple[ModulatedConv2d, torch.dtype, Tensor]]:
        """Return the layers of the first residual block and ToMask, for `modulated_layers`."""
        r = self.residual_resolutions[0]
        block: DefectResidualBlock = self.defect_blocks[str(r)]  # type: ignore[assignment]
        dtype = self.compute_dtype(r)
        return [*block.layers(defect_ws, dtype), (self.to_mask, dtype, defect_ws[block.latent + 1])]

    def _defect_layers(self, defect_ws: Tensor) -> list[tuple[ModulatedConv2d, torch.dtype, Tensor]]:
        """Return the layers of all residual blocks and ToMask, for `modulated_layers`."""
        latents = defect_ws.unbind(dim=1)
        layers = self._first_layers(latents)
        for r in self.residual_resolutions[1:]:
            block: DefectResidualBlock = self.defect_blocks[str(r)]  # type: ignore[assignment]
            layers += block.layers(latents, self.compute_dtype(r))
        return layers

    def _first_residual(self, trunk: Trunk, modulations: Modulations) -> tuple[Tensor, Tensor]:
        """Run the first residual block and ToMask.

        Returns:
            The residual (N, C, h, w) and the mask logits (N, 1, h, w) at the first residual resolution.
        """
        r = self.residual_resolutions[0]
        residual = self.defect_blocks[str(r)](trunk.features.to(self.compute_dtype(r)), modulations, trunk.noise)
        return residual, self.to_mask(residual, modulations[self.to_mask])

    def mask_logits(self, trunk: Trunk, defect_ws: Tensor) -> Tensor:
        """Return the mask logits (N, 1, H, W) alone: all that the mode-seeking loss needs of a second pass."""
        with modulated_layers(self._first_layers(defect_ws.unbind(dim=1))) as modulations:
            _, mask = self._first_residual(trunk, modulations)
        for _ in self.residual_resolutions[1:]:
            mask = upsample2d(mask)
        return mask

    def synthesize_defect(
        self,
        trunk: Trunk,
        ws: Tensor,
        defect_ws: Tensor,
        return_defect_free: bool = False,
        mask_threshold: float = 0.0,
        masks: Tensor | None = None,
        follows: Tensor | None = None,
    ) -> DFMGANGeneratorOutput:
        """Run everything above the trunk, on per-layer latents (N, L, w_dim) and (N, L_defect, w_dim).

        `masks` are given to all samples, or to those that `follows` (bool (N,)) picks.
        """
        layers, defect_layers = self.layers(self.residual_resolutions, ws), self._defect_layers(defect_ws)
        # Apart, so that nothing of a frozen backbone gets gradients because the defects' styles do.
        with modulated_layers(layers) as modulations, modulated_layers(defect_layers) as defect_modulations:
            modulations |= defect_modulations
            x, image, twin = trunk.features, trunk.image, None
            for i, r in enumerate(self.residual_resolutions):
                if i == 0:
                    residual, mask = self._first_residual(trunk, modulations)
                else:
                    residual = self.defect_blocks[str(r)](x.to(self.compute_dtype(r)), modulations, trunk.noise)
                    mask = upsample2d(mask)
                features = self.block(r).features(x, modulations, trunk.noise, self.compute_dtype(r))
                if i == 0 and return_defect_free:
                    # The twin's features here are the backbone's, which have just been computed.
                    twin_features, twin = features, self.block(r).add_rgb(image, features, modulations)
                used = mask - mask_threshold
                if masks is not None:
                    # The share of each pixel that they cover has its border at a half.
                    given = F.avg_pool2d(masks.to(torch.float32), masks.shape[-1] // mask.shape[-1]) - 0.5
                    used = given if follows is None else torch.where(follows[:, None, None, None], given, used)
                x = gate(features, residual, used, self.is_gate_soft)
                image = self.block(r).add_rgb(image, x, modulations)
            if return_defect_free:
                for r in self.residual_resolutions[1:]:
                    twin_features = self.block(r).features(
                        twin_features, modulations, trunk.noise, self.compute_dtype(r)
                    )
                    twin = self.block(r).add_rgb(twin, twin_features, modulations)
        return DFMGANGeneratorOutput(images=image, mask_logits=mask, defect_free_images=twin)
