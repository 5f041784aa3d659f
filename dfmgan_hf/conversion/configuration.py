"""Our configurations and tensor names from the official networks' attributes and tensors."""

from __future__ import annotations

import math
import re
from typing import Any

import torch
from torch import Tensor

from ..models.sizes import block_resolutions, channels_at
from .official import OfficialNetwork
from .unpickling import SnapshotError

FIR_NAME = "resample_filter"
FIR_TAPS = (1.0, 3.0, 3.0, 1.0)
MAPPING_LR_MULTIPLIER = 0.01

GENERATOR_RENAMES = (
    (r"^(mapping|defect_mapping)\.fc(\d+)\.", r"\1.layers.\2."),
    (r"^synthesis\.res_b\d+\.torgb\.", r"to_mask."),
    (r"^synthesis\.res_b(\d+)\.", r"defect_blocks.\1."),
    (r"^synthesis\.b(\d+)\.torgb\.", r"synthesis.blocks.\1.to_rgb."),
    (r"^synthesis\.b(\d+)\.", r"synthesis.blocks.\1."),
)
DISCRIMINATOR_RENAMES = (
    (r"^b4\.", r"head."),
    (r"^b(\d+)\.fromrgb\.", r"blocks.\1.from_rgb."),
    (r"^b(\d+)\.", r"blocks.\1."),
)


def has_defect_branch(generator: OfficialNetwork) -> bool:
    """Whether a generator comes from stage 2."""
    return any(name.startswith(("synthesis.res_b", "defect_mapping.")) for name in generator.tensors)


def generator_config(network: OfficialNetwork) -> dict[str, Any]:
    """Constructor arguments of `StyleGAN2Generator`, or of `DFMGANGenerator` for a generator with a defect branch.

    Raises:
        SnapshotError: a generator that our networks cannot represent; the message says what is in the way.
    """
    _check_unconditional(network)
    _check_filters(network)
    _check_mapping(network, "mapping")
    widths = _widths(network, r"^synthesis\.b(\d+)\.conv1\.weight$")
    resolution = _resolution(widths)
    channel_base, channel_max = _channels(widths, _constructor_arguments(network, "synthesis."))
    config: dict[str, Any] = {
        "resolution": resolution,
        "image_channels": _shape(network, f"synthesis.b{resolution}.torgb.weight")[0],
        "z_dim": _shape(network, "mapping.fc0.weight")[1],
        "w_dim": _shape(network, "synthesis.b4.conv1.affine.weight")[1],
        "mapping_layers": _count_layers(network, "mapping"),
        "channel_base": channel_base,
        "channel_max": channel_max,
        "conv_clamp": _conv_clamp(network),
    }
    if has_defect_branch(network):
        _check_mapping(network, "defect_mapping")
        _check_gate(network)
        config["residual_resolution"] = min(_widths(network, r"^synthesis\.res_b(\d+)\.conv1\.weight$"))
    return config


def discriminator_config(network: OfficialNetwork) -> dict[str, Any]:
    """Constructor arguments of `StyleGAN2Discriminator`, for D or D_match.

    Raises:
        SnapshotError: a discriminator that ours cannot represent; the message says what is in the way.
    """
    _check_unconditional(network)
    _check_filters(network)
    widths = _widths(network, r"^b(\d+)\.conv0\.weight$")
    widths[4] = _shape(network, "b4.out.weight")[1]
    resolution = _resolution(widths)
    channel_base, channel_max = _channels(widths, _constructor_arguments(network))
    num_channels = network.attributes.get("b4.mbstd.num_channels", 1)
    group_size = network.attributes.get("b4.mbstd.group_size")
    if num_channels != 1 or not isinstance(group_size, int) or group_size < 1:
        raise SnapshotError(
            f"minibatch standard deviation with group size {group_size} and {num_channels} channels; "
            "ours has a given group size and 1 channel."
        )
    return {
        "resolution": resolution,
        "image_channels": _shape(network, f"b{resolution}.fromrgb.weight")[1],
        "channel_base": channel_base,
        "channel_max": channel_max,
        "conv_clamp": _conv_clamp(network),
        "mbstd_group_size": group_size,
    }


def rename(tensors: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Tensors under our names, without the fixed FIR filters; the first rule that fits a name is applied."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] == FIR_NAME:
            continue
        new_name = name
        for pattern, replacement in rules:
            new_name, found = re.subn(pattern, replacement, name)
            if found:
                break
        if new_name in renamed:
            raise SnapshotError(f"two tensors would both become {new_name!r}; one of them is {name!r}.")
        renamed[new_name] = tensor
    return renamed


def infer_channels(widths: dict[int, int]) -> tuple[int, int] | None:
    """The smallest (channel_base, channel_max) with min(channel_base // r, channel_max) = widths[r] for all r.

    Returns:
        None if there is none.
    """
    channel_max = max(widths.values())
    lowest = max(width * r for r, width in widths.items())
    below = min(((width + 1) * r for r, width in widths.items() if width < channel_max), default=math.inf)
    return (lowest, channel_max) if lowest < below else None


def _constructor_arguments(network: OfficialNetwork, prefix: str = "") -> dict[str, Any]:
    arguments = network.attributes.get(f"{prefix}_init_kwargs")
    return arguments if isinstance(arguments, dict) else {}


def _channels(widths: dict[int, int], arguments: dict[str, Any]) -> tuple[int, int]:
    """(channel_base, channel_max): those the network was built with if they fit the widths, else inferred ones."""
    base, maximum = arguments.get("channel_base"), arguments.get("channel_max")
    if (
        isinstance(base, int)
        and isinstance(maximum, int)
        and all(channels_at(r, base, maximum) == width for r, width in widths.items())
    ):
        return base, maximum
    inferred = infer_channels(widths)
    if inferred is None:
        table = ", ".join(f"{r}: {widths[r]}" for r in sorted(widths))
        raise SnapshotError(
            f"channel widths ({table}) that no channel_base and channel_max give: ours are "
            "min(channel_base // resolution, channel_max) at each resolution."
        )
    return inferred


def _widths(network: OfficialNetwork, pattern: str) -> dict[int, int]:
    """Output channels by resolution, from the weights whose name fits the pattern."""
    widths = {}
    for name, tensor in network.tensors.items():
        found = re.match(pattern, name)
        if found and tensor.ndim == 4:
            widths[int(found[1])] = tensor.shape[0]
    if not widths:
        raise SnapshotError(f"a {network.class_name} without convolutions that StyleGAN2 has; is it another network?")
    return widths


def _resolution(widths: dict[int, int]) -> int:
    """The highest resolution; there must be a block at each one from 4 on."""
    resolution = max(widths)
    if sorted(widths) != block_resolutions(resolution):
        raise SnapshotError(f"blocks at the resolutions {sorted(widths)}; expected 4, 8, 16 and so on.")
    return resolution


def _shape(network: OfficialNetwork, name: str) -> tuple[int, ...]:
    tensor = network.tensors.get(name)
    if tensor is None or tensor.ndim < 2:
        raise SnapshotError(f"no {name!r}, which every supported StyleGAN2 network has.")
    return tuple(tensor.shape)


def _count_layers(network: OfficialNetwork, mapping: str) -> int:
    return sum(re.match(rf"^{mapping}\.fc\d+\.weight$", name) is not None for name in network.tensors)


def _conv_clamp(network: OfficialNetwork) -> float | None:
    """The clamp that all activations share; a discriminator's skips have no activation and no clamp."""
    clamps = {
        value
        for name, value in network.attributes.items()
        if name.endswith("conv_clamp") and ".skip." not in name and (value is None or isinstance(value, (int, float)))
    }
    if len(clamps) != 1:
        found = ", ".join(sorted(map(str, clamps))) or "none"
        raise SnapshotError(f"conv_clamp must be the same for all convolutions; found {found}.")
    clamp = clamps.pop()
    return None if clamp is None else float(clamp)


def _check_unconditional(network: OfficialNetwork) -> None:
    c_dim = network.attributes.get("c_dim", 0)
    cmap_dim = network.attributes.get("b4.cmap_dim", 0)
    embedded = any(".embed." in name for name in network.tensors)
    if c_dim or cmap_dim or embedded:
        raise SnapshotError(
            f"class-conditional (c_dim {c_dim}): only networks trained without labels (c_dim 0) can be converted."
        )


def _check_filters(network: OfficialNetwork) -> None:
    taps = torch.tensor(FIR_TAPS)
    fir = torch.outer(taps, taps) / taps.sum().square()
    for name, tensor in network.tensors.items():
        if name.rpartition(".")[2] == FIR_NAME and (tensor.shape != fir.shape or not torch.allclose(tensor, fir)):
            raise SnapshotError(f"{name!r} is not the filter [1, 3, 3, 1], the only one that our networks have.")


def _check_mapping(network: OfficialNetwork, mapping: str) -> None:
    # A linear layer's bias gain is its learning-rate multiplier; weights mean nothing without it.
    multiplier = network.attributes.get(f"{mapping}.fc0.bias_gain", MAPPING_LR_MULTIPLIER)
    if multiplier != MAPPING_LR_MULTIPLIER:
        raise SnapshotError(
            f"{mapping} network with the lr multiplier {multiplier}; ours has {MAPPING_LR_MULTIPLIER}."
        )
    activation = network.attributes.get(f"{mapping}.fc0.activation", "lrelu")
    if activation != "lrelu":
        raise SnapshotError(f"{mapping} network with the activation {activation!r}; ours has 'lrelu'.")


def _check_gate(network: OfficialNetwork) -> None:
    threshold = network.attributes.get("mask_threshold", 0.0)
    if threshold != 0:
        raise SnapshotError(f"mask threshold {threshold}; our residual blocks are gated by mask logits >= 0.")
    if _constructor_arguments(network, "synthesis.").get("no_round"):
        raise SnapshotError("a soft mask (no_round); our residual blocks are gated by the hard mask.")
