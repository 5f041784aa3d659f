"""The two generators as diffusers models: the StyleGAN2 backbone and DFMGAN on top of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from diffusers.configuration_utils import register_to_config
from diffusers.utils import BaseOutput
from torch import Tensor, nn

from .defect import DefectResidualBlock, gate
from .mapping import MappingNetwork
from .modulated import ToChannels
from .noise import NoiseInput, NoiseMode
from .resampling import upsample2d
from .safetensors_only import SafetensorsModel
from .sizes import channels_at, check_network_size, default_channel_base
from .synthesis import SynthesisNetwork

LatentSpace = Literal["z", "w", "w+"]
RandomSource = torch.Generator | list[torch.Generator] | None


@dataclass
class StyleGAN2GeneratorOutput(BaseOutput):
    """Output of `StyleGAN2Generator`.

    Args:
        images: (N, image_channels, R, R), around [-1, 1], not clamped.
    """

    images: Tensor


@dataclass
class DFMGANGeneratorOutput(BaseOutput):
    """Output of `DFMGANGenerator`.

    Args:
        images: images with the defect, (N, image_channels, R, R), around [-1, 1], not clamped.
        mask_logits: (N, 1, R, R); the defect is where they are at least `mask_threshold`, normally 0.
        defect_free_images: the same images without the defect, or None if they were not asked for.
    """

    images: Tensor
    mask_logits: Tensor
    defect_free_images: Tensor | None = None


@dataclass
class Trunk:
    """What a defect image and its defect-free twin share: everything below the first residual block.

    Args:
        features: (N, C, r/2, r/2), the features below the first residual block at resolution r.
        image: (N, image_channels, r/2, r/2), the skip image up to there.
        noise: the pass's noise.
    """

    features: Tensor
    image: Tensor
    noise: NoiseInput

    def samples(self, which: slice) -> Trunk:
        """The trunk of some of the samples; their noise is shared."""
        return Trunk(self.features[which], self.image[which], self.noise.samples(which))


class StyleGAN2Generator(SafetensorsModel):
    """StyleGAN2 generator of defect-free images: the backbone that stage 1 trains.

    Args:
        resolution: height and width, a power of two from 32 to 1024.
        image_channels: 1 (grey) or 3 (RGB).
        z_dim, w_dim: widths of the latents.
        mapping_layers: layers of the mapping network: 2, or 8 in the large presets.
        channel_base: channels at resolution r are min(channel_base // r, channel_max). None: 16384 below 512x512,
            32768 from there on.
        channel_max: upper limit of the channels.
        conv_clamp: clamp of the activations; None for none.
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
    ) -> None:
        super().__init__()
        channel_base = channel_base or default_channel_base(resolution)
        check_network_size(resolution, channel_base)
        if image_channels not in (1, 3):
            raise ValueError(f"`image_channels` must be 1 or 3, but is {image_channels}.")
        self.mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        self.synthesis = SynthesisNetwork(resolution, image_channels, w_dim, channel_base, channel_max, conv_clamp)
        self.low_precision_dtype: torch.dtype | None = None
        self.low_precision_resolutions: frozenset[int] = frozenset()

    @property
    def num_latents(self) -> int:
        """Number L of per-layer latents: 2 log2(R) - 2."""
        return self.synthesis.num_latents

    def set_mixed_precision(self, dtype: torch.dtype | None, num_resolutions: int = 4) -> None:
        """Run the blocks of the `num_resolutions` highest resolutions in `dtype`; parameters stay as they are.

        Mapping, styles, demodulation, images and masks stay in the parameters' type. None turns it off.
        """
        self.low_precision_dtype = dtype
        self.low_precision_resolutions = frozenset(self.synthesis.resolutions[-num_resolutions:])

    def compute_dtype(self, resolution: int) -> torch.dtype:
        """Type that the convolutions at `resolution` run in."""
        if self.low_precision_dtype is not None and resolution in self.low_precision_resolutions:
            return self.low_precision_dtype
        return self.synthesis.blocks[str(resolution)].conv1.weight.dtype  # type: ignore[union-attr, return-value]

    def forward(
        self,
        object_latents: Tensor,
        truncation_psi: float = 1.0,
        noise_mode: NoiseMode = "random",
        generator: RandomSource = None,
        latent_space: LatentSpace = "z",
        return_dict: bool = True,
    ) -> StyleGAN2GeneratorOutput | tuple[Tensor]:
        """Draw defect-free images.

        Args:
            object_latents: (N, z_dim), (N, w_dim) or (N, L, w_dim), as `latent_space` says.
            truncation_psi: truncation of w; needs `latent_space="z"` unless it is 1.
            noise_mode: "random", "const" (the stored noise) or "none".
            generator: source of random noise; N generators make every sample's noise its own.
            latent_space: "z", "w" (one for all layers) or "w+" (one for each layer).
            return_dict: False returns the tuple (images,).

        Raises:
            ValueError: latents whose shape does not fit `latent_space`, an unknown mode.
        """
        ws = to_layer_latents(
            self.mapping, object_latents, latent_space, self.num_latents, truncation_psi, "object_latents"
        )
        images = self.synthesize(ws, NoiseInput(noise_mode, len(ws), generator))
        return StyleGAN2GeneratorOutput(images=images) if return_dict else (images,)

    def synthesize(self, ws: Tensor, noise: NoiseInput) -> Tensor:
        """Images (N, image_channels, R, R) from per-layer latents (N, L, w_dim)."""
        return self.continue_synthesis(None, None, ws, noise, self.synthesis.resolutions)

    def continue_synthesis(
        self, x: Tensor | None, image: Tensor | None, ws: Tensor, noise: NoiseInput, resolutions: list[int]
    ) -> Tensor:
        """Run the backbone's blocks at `resolutions` on features `x` and skip image `image`; returns the image."""
        for r in resolutions:
            x = self.synthesis.block_features(r, x, ws, noise, self.compute_dtype(r))
            image = self.synthesis.add_rgb(r, image, x, ws)
        if image is None:
            raise ValueError("`resolutions` is empty.")
        return image


class DFMGANGenerator(StyleGAN2Generator):
    """DFMGAN generator: the backbone, a second mapping network, defect-aware residual blocks and ToMask.

    At every resolution from `residual_resolution` on, a residual block reads the manipulated features of the
    resolution below; its output is added where the mask is on (DFMGAN, section 3.2, equation 1). The mask logits are
    read off the first residual block and FIR-upsampled from there.

    Args:
        residual_resolution: resolution of the first residual block, a power of two from 8 to `resolution`.
        (others): as in `StyleGAN2Generator`.
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
    ) -> None:
        super().__init__(
            resolution=resolution,
            image_channels=image_channels,
            z_dim=z_dim,
            w_dim=w_dim,
            mapping_layers=mapping_layers,
            channel_base=channel_base,
            channel_max=channel_max,
            conv_clamp=conv_clamp,
        )
        if residual_resolution < 8 or residual_resolution not in self.synthesis.resolutions:
            raise ValueError(
                f"`residual_resolution` must be a power of two from 8 to {resolution}, but is {residual_resolution}."
            )
        channel_base = channel_base or default_channel_base(resolution)
        self.trunk_resolutions = [r for r in self.synthesis.resolutions if r < residual_resolution]
        self.residual_resolutions = [r for r in self.synthesis.resolutions if r >= residual_resolution]
        self.defect_mapping = MappingNetwork(z_dim, w_dim, mapping_layers)
        self.defect_blocks = nn.ModuleDict()
        for r in self.residual_resolutions:
            below, here = (channels_at(k, channel_base, channel_max) for k in (r // 2, r))
            self.defect_blocks[str(r)] = DefectResidualBlock(below, here, w_dim, r, conv_clamp)
        self.to_mask = ToChannels(
            channels_at(residual_resolution, channel_base, channel_max), 1, w_dim, conv_clamp=conv_clamp
        )

    @classmethod
    def from_backbone(cls, backbone: StyleGAN2Generator, residual_resolution: int | None = None) -> DFMGANGenerator:
        """A DFMGAN generator on a trained backbone; the defect branch is new.

        Args:
            backbone: the stage-1 generator; its tensors are copied bit for bit.
            residual_resolution: resolution of the first residual block; None: 64, as published for 256x256, and a
                quarter of `resolution` below that, which leaves three residual blocks.

        Raises:
            RuntimeError: the backbone's tensors are not exactly those that its configuration calls for.
        """
        config = {k: v for k, v in backbone.config.items() if not k.startswith("_")}
        if residual_resolution is None:
            residual_resolution = min(64, config["resolution"] // 4)
        model = cls(**config, residual_resolution=residual_resolution)
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
    def num_defect_latents(self) -> int:
        """Number of per-layer defect latents: two for each residual block, one for ToMask."""
        return 2 * len(self.residual_resolutions) + 1

    def backbone_parameters(self) -> list[nn.Parameter]:
        """The parameters that stage 2 leaves alone."""
        return [p for name, p in self.named_parameters() if not name.startswith(DEFECT_PREFIXES)]

    def defect_parameters(self) -> list[nn.Parameter]:
        """The parameters that stage 2 trains: defect mapping, residual blocks and ToMask."""
        return [p for name, p in self.named_parameters() if name.startswith(DEFECT_PREFIXES)]

    def forward(  # type: ignore[override]
        self,
        object_latents: Tensor,
        defect_latents: Tensor,
        truncation_psi: float = 1.0,
        noise_mode: NoiseMode = "random",
        generator: RandomSource = None,
        return_defect_free: bool = False,
        object_latent_space: LatentSpace = "z",
        defect_latent_space: LatentSpace = "z",
        mask_threshold: float = 0.0,
        return_dict: bool = True,
    ) -> DFMGANGeneratorOutput | tuple[Tensor, ...]:
        """Draw defect images and their masks.

        Args:
            object_latents: (N, z_dim), (N, w_dim) or (N, L, w_dim), as `object_latent_space` says.
            defect_latents: (N, z_dim), (N, w_dim) or (N, L_defect, w_dim), as `defect_latent_space` says.
            truncation_psi: truncation of both latents; needs "z" for at least one of them unless it is 1. Latents
                given as w or w+ are used as they are.
            noise_mode: "random", "const" (the stored noise) or "none".
            generator: source of random noise; N generators make every sample's noise its own.
            return_defect_free: also draw the defect-free twins; the layers below the first residual block are
                shared, and so is the noise.
            object_latent_space, defect_latent_space: "z", "w" (one for all layers) or "w+" (one for each layer).
            mask_threshold: the defect is put where the mask logits are at least this; 0 as trained, higher values
                shrink it, lower values spread it.
            return_dict: False returns the tuple (images, mask_logits), and defect_free_images if asked for.

        Raises:
            ValueError: latents whose shape does not fit their space, numbers of samples that differ, an unknown mode.
        """
        if truncation_psi != 1.0 and "z" not in (object_latent_space, defect_latent_space):
            raise ValueError('`truncation_psi` acts on z: give it with "z" latents, or truncate w yourself.')
        ws = to_layer_latents(
            self.mapping,
            object_latents,
            object_latent_space,
            self.num_latents,
            truncation_psi if object_latent_space == "z" else 1.0,
            "object_latents",
        )
        defect_ws = to_layer_latents(
            self.defect_mapping,
            defect_latents,
            defect_latent_space,
            self.num_defect_latents,
            truncation_psi if defect_latent_space == "z" else 1.0,
            "defect_latents",
        )
        if len(ws) != len(defect_ws):
            raise ValueError(f"`object_latents` holds {len(ws)} samples, `defect_latents` {len(defect_ws)}.")
        trunk = self.run_trunk(ws, NoiseInput(noise_mode, len(ws), generator))
        output = self.synthesize_defect(trunk, ws, defect_ws, return_defect_free, mask_threshold)
        return output if return_dict else output.to_tuple()

    def run_trunk(self, ws: Tensor, noise: NoiseInput) -> Trunk:
        """The backbone below the first residual block, on per-layer latents (N, L, w_dim)."""
        x, image = None, None
        for r in self.trunk_resolutions:
            x = self.synthesis.block_features(r, x, ws, noise, self.compute_dtype(r))
            image = self.synthesis.add_rgb(r, image, x, ws)
        assert x is not None  # residual_resolution is at least 8
        assert image is not None
        return Trunk(x, image, noise)

    def first_residual(self, trunk: Trunk, defect_ws: Tensor) -> tuple[Tensor, Tensor]:
        """The first residual block and ToMask.

        Returns:
            The residual (N, C, r, r) and the mask logits (N, 1, r, r) at the first residual resolution r.
        """
        r = self.residual_resolutions[0]
        x = trunk.features.to(self.compute_dtype(r))
        residual = self.defect_blocks[str(r)](x, defect_ws, trunk.noise)
        return residual, self.to_mask(residual, defect_ws[:, 2])

    def mask_logits(self, trunk: Trunk, defect_ws: Tensor) -> Tensor:
        """Mask logits (N, 1, R, R) alone: all that the mode-seeking loss needs of a second pass."""
        _, mask = self.first_residual(trunk, defect_ws)
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
    ) -> DFMGANGeneratorOutput:
        """Everything above the trunk, on per-layer latents (N, L, w_dim) and (N, L_defect, w_dim)."""
        residual, mask = self.first_residual(trunk, defect_ws)
        x, image, twin = trunk.features, trunk.image, None
        for i, r in enumerate(self.residual_resolutions):
            dtype = self.compute_dtype(r)
            if i > 0:
                mask = upsample2d(mask)
                residual = self.defect_blocks[str(r)](x.to(dtype), defect_ws[:, 2 * i + 1 :], trunk.noise)
            features = self.synthesis.block_features(r, x, ws, trunk.noise, dtype)
            if i == 0 and return_defect_free:
                # The twin's features at this resolution are the backbone's, which have just been computed.
                twin = self.synthesis.add_rgb(r, image, features, ws)
                twin_features = features
            x = gate(features, residual, mask, mask_threshold)
            image = self.synthesis.add_rgb(r, image, x, ws)
        if twin is not None and len(self.residual_resolutions) > 1:
            twin = self.continue_synthesis(twin_features, twin, ws, trunk.noise, self.residual_resolutions[1:])
        return DFMGANGeneratorOutput(images=image, mask_logits=mask, defect_free_images=twin)


DEFECT_PREFIXES = ("defect_mapping.", "defect_blocks.", "to_mask.")


def to_layer_latents(
    mapping: MappingNetwork, latents: Tensor, space: LatentSpace, num_latents: int, truncation_psi: float, name: str
) -> Tensor:
    """Per-layer latents (N, num_latents, w_dim) from latents in any of the three spaces.

    Raises:
        ValueError: an unknown space, or latents whose shape does not fit it; the message calls them `name`.
    """
    if space not in get_args(LatentSpace):
        raise ValueError(f"The latent space of `{name}` must be 'z', 'w' or 'w+', but is {space!r}.")
    w_dim = mapping.w_avg.shape[0]
    expected = {"z": (mapping.z_dim,), "w": (w_dim,), "w+": (num_latents, w_dim)}[space]
    if tuple(latents.shape[1:]) != expected:
        wanted = ", ".join(map(str, expected))
        raise ValueError(f"`{name}` in space {space!r} must be (N, {wanted}), but is {tuple(latents.shape)}.")
    if truncation_psi != 1.0 and space != "z":
        raise ValueError(f"`truncation_psi` acts on z, but `{name}` is given as {space}; truncate w yourself.")
    if space == "z":
        latents = mapping(latents, truncation_psi)
    if space == "w+":
        return latents
    return latents.unsqueeze(1).expand(-1, num_latents, -1)
