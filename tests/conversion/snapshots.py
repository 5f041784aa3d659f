"""Snapshots in the official pickle layout, written here to be read there."""

from __future__ import annotations

import io
import pickle
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from torch import nn

from dfmgan_hf.conversion import OfficialNetwork

GOLDEN_SNAPSHOT = Path(__file__).parents[1] / "golden" / "official_snapshot.pkl"
FIR = torch.outer(torch.tensor([1.0, 3.0, 3.0, 1.0]), torch.tensor([1.0, 3.0, 3.0, 1.0])) / 64
BUFFERS = ("resample_filter", "noise_const", "w_avg", "p")


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> None:
    raise AssertionError("Only its name is pickled.")


class EasyDict(dict):
    """Stands for the official dict class of that name."""


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
EasyDict.__module__ = "dnnlib.util"


class Persistent:
    """Pickled as the official code pickles a module: a call of one function with a dict."""

    def __init__(self, class_name: str, state: dict[str, Any], module_src: str = "", version: int = 6) -> None:
        self.meta = {
            "type": "class",
            "version": version,
            "module_src": module_src,
            "class_name": class_name,
            "state": state,
        }

    def __reduce__(self) -> tuple[Any, ...]:
        return _reconstruct_persistent_obj, (self.meta,)


def dump(content: Any, protocol: int = 4) -> bytes:
    """The pickle of anything made of the classes above."""
    persistence, util = ModuleType("torch_utils.persistence"), ModuleType("dnnlib.util")
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj  # type: ignore[attr-defined]
    util.EasyDict = EasyDict  # type: ignore[attr-defined]
    parents = {"torch_utils": ModuleType("torch_utils"), "dnnlib": ModuleType("dnnlib")}
    file = io.BytesIO()
    with mock.patch.dict(sys.modules, {**parents, "torch_utils.persistence": persistence, "dnnlib.util": util}):
        pickle.dump(content, file, protocol=protocol)
    return file.getvalue()


def as_module(network: OfficialNetwork, module_src: str = "") -> Persistent:
    """The nested modules of a network given by dotted names."""
    root: dict[str, Any] = {}

    def state_at(path: list[str]) -> dict[str, Any]:
        state = root
        for part in path:
            state = state.setdefault("_modules", {}).setdefault(part, {})
        return state

    for name, value in network.attributes.items():
        *path, last = name.split(".")
        state_at(path)[last] = value
    for name, tensor in network.tensors.items():
        *path, last = name.split(".")
        if last in BUFFERS:
            state_at(path).setdefault("_buffers", {})[last] = tensor
        else:
            state_at(path).setdefault("_parameters", {})[last] = nn.Parameter(tensor, requires_grad=False)

    def persistent(state: dict[str, Any], class_name: str) -> Persistent:
        children = {key: persistent(child, "Module") for key, child in state.get("_modules", {}).items()}
        return Persistent(class_name, {"_parameters": {}, "_buffers": {}, **state, "_modules": children}, module_src)

    return persistent(root, network.class_name)


def write_snapshot(
    path: Path,
    networks: dict[str, OfficialNetwork],
    *,
    module_src: str = "",
    protocol: int = 4,
    **entries: Any,
) -> Path:
    """Write networks and other entries as an official snapshot."""
    modules = {name: as_module(network, module_src) for name, network in networks.items()}
    path.write_bytes(dump({"training_set_kwargs": {}, "augment_pipe": None, **modules, **entries}, protocol))
    return path


def official_network(model: nn.Module, conv_clamp: float | None = 256) -> OfficialNetwork:
    """One of our generators or discriminators under the official names."""
    is_generator = hasattr(model, "synthesis")
    network = OfficialNetwork("Generator" if is_generator else "Discriminator")
    first_residual = min(map(int, model.defect_blocks), default=0) if hasattr(model, "defect_blocks") else 0
    for name, tensor in model.state_dict().items():
        name = re.sub(r"mapping\.layers\.(\d+)", r"mapping.fc\1", name)
        name = re.sub(r"^synthesis\.blocks\.", "synthesis.b", name)
        name = re.sub(r"^defect_blocks\.", "synthesis.res_b", name)
        name = re.sub(r"^to_mask\.", f"synthesis.res_b{first_residual}.torgb.", name)
        name = re.sub(r"^blocks\.", "b", name).replace("to_rgb", "torgb").replace("from_rgb", "fromrgb")
        network.tensors[re.sub(r"^head\.", "b4.", name)] = tensor.clone()
    layer = "synthesis.b4.conv1" if is_generator else "b4.conv"
    network.tensors[f"{layer}.resample_filter"] = FIR.clone()
    network.attributes[f"{layer}.conv_clamp"] = conv_clamp
    if not is_generator:
        network.attributes["b4.mbstd.group_size"] = 4
    return network
