"""Convert official snapshots to safetensors folders, without running anything inside them."""

from __future__ import annotations

import io
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..files import whole_folder
from ..models.base import SafetensorsModel, block_resolutions, listed, misfits
from ..models.dfmgan import DFMGANGenerator
from ..models.discriminator import StyleGAN2Discriminator
from ..models.stylegan2 import StyleGAN2Generator
from ..pipeline import DFMGANPipeline
from .unpickling import (
    LOAD_STORAGE,
    REBUILD_PARAMETER,
    REBUILD_TENSOR,
    ForbiddenGlobalError,
    Record,
    SnapshotError,
    TensorReader,
    read_records,
)

PERSISTENT_OBJECT = ("torch_utils.persistence", "_reconstruct_persistent_obj")
PERSISTENCE_VERSION = 6

# numpy's names are those before and after its version 2. None of what they describe (gains, paddings) is needed.
ALLOWED_GLOBALS = frozenset(
    {
        PERSISTENT_OBJECT,
        REBUILD_PARAMETER,
        REBUILD_TENSOR,
        LOAD_STORAGE,
        ("torch.nn.modules.padding", "ReplicationPad2d"),
        ("numpy", "dtype"),
        ("numpy", "ndarray"),
        *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("scalar", "_reconstruct")),
    }
)
_LEGACY_TENSORFLOW = ("dnnlib.tflib", "tflib", "tfutil", "network.Network")

# A 1024x1024 snapshot has some 0.5 GB; a network has some 150 modules in 4 levels, with some 30 entries each.
MAX_FILE_BYTES = 4 * 2**30
MAX_MODULE_DEPTH = 8
MAX_ENTRIES = 200_000
MAX_ATTRIBUTE_CHARS = 1000
MAX_KEY_CHARS = 100

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
# The averaged generator becomes the pipeline's component; the others lie beside it.
FOLDERS = {"G_ema": "generator", "G": "generator_raw", "D": "discriminator", "D_match": "match_discriminator"}


@dataclass(frozen=True)
class ConvertConfig:
    """Convert an official DFMGAN or StyleGAN2-ADA snapshot; nothing that it contains is executed.

    Args:
        snapshot: The official snapshot, network-snapshot-*.pkl.
        output_dir: Folder to write; it appears complete or not at all, and may exist if it is empty.
    """

    snapshot: Path
    output_dir: Path


def convert(config: ConvertConfig) -> None:
    """Do what `dfmgan convert` does: `convert_official_snapshot`, and say what was found and written."""
    print(convert_official_snapshot(config.snapshot, config.output_dir))


def convert_official_snapshot(snapshot: Path | str, output_dir: Path | str) -> ConvertedSnapshot:
    """Convert an official DFMGAN or unconditional StyleGAN2-ADA snapshot; nothing that it contains is executed.

    `output_dir` becomes a pipeline's folder. `generator` is the averaged G_ema; `generator_raw` (G), `discriminator`
    (D) and `match_discriminator` (D_match) lie beside it if the snapshot has them. Arguments as for `ConvertConfig`.

    Raises:
        ForbiddenGlobalError: the pickle names anything but what snapshots are made of.
        SnapshotError: the file is no complete snapshot, or holds networks that ours cannot represent.
        FileExistsError: `output_dir` is in use.
    """
    output_dir = Path(output_dir)
    with whole_folder(output_dir) as staging:  # first, so that it is refused before minutes of reading
        official = read_official_snapshot(snapshot)
        models: dict[str, Any] = {
            folder: _build(official, name) for name, folder in FOLDERS.items() if name in official.networks
        }
        DFMGANPipeline(generator=models["generator"]).save_pretrained(staging)
        for folder, model in models.items():
            if folder != "generator":
                model.save_pretrained(staging / folder)
    return ConvertedSnapshot(
        output_dir=output_dir,
        stage=2 if has_defect_branch(official.networks["G_ema"]) else 1,
        configs={
            folder: {k: v for k, v in model.config.items() if not k.startswith("_")}
            for folder, model in models.items()
        },
        parameters={folder: sum(p.numel() for p in model.parameters()) for folder, model in models.items()},
        augmentation_probability=official.augmentation_probability,
        ignored_source_chars=official.ignored_source_chars,
    )


@dataclass
class ConvertedSnapshot:
    """What a conversion found and wrote.

    Args:
        output_dir: the folder; `DFMGANPipeline.from_pretrained` loads it.
        stage: 1 (backbone only, also a StyleGAN2-ADA network) or 2 (with the defect branch).
        configs: constructor arguments of each network by subfolder.
        parameters: trainable parameters of each network by subfolder.
        augmentation_probability: ADA's p when the snapshot was written, or None.
        ignored_source_chars: length of the Python source in the snapshot that was not executed.
    """

    output_dir: Path
    stage: int
    configs: dict[str, dict[str, Any]]
    parameters: dict[str, int]
    augmentation_probability: float | None
    ignored_source_chars: int

    def __str__(self) -> str:
        generator = self.configs["generator"]
        kind = "2 (defects and masks)" if self.stage == 2 else "1 (defect-free images only)"
        size = f"{generator['resolution']}x{generator['resolution']}, {generator['image_channels']} channel(s)"
        ignored = f"ignored {self.ignored_source_chars} characters of source text"
        lines = [f"Found a snapshot of stage {kind}, {size}; {ignored}."]
        if self.augmentation_probability is not None:
            lines.append(f"Its augmentation probability (ADA) was {self.augmentation_probability:.3f}.")
        lines.append(f"Wrote {self.output_dir}:")
        for folder, config in self.configs.items():
            sizes = ", ".join(f"{name}={value}" for name, value in config.items())
            lines.append(f"  {folder}: {self.parameters[folder]:,} parameters ({sizes})")
        lines.append(f'Load it with DFMGANPipeline.from_pretrained("{self.output_dir}").')
        return "\n".join(lines)


@dataclass
class OfficialNetwork:
    """One network of a snapshot, under its official names.

    Args:
        class_name: name of its class, e.g. "Generator".
        attributes: numbers and texts among the attributes of all its modules, by dotted name, e.g.
            "synthesis.b4.conv1.conv_clamp"; "_init_kwargs" is the dict of a module's constructor arguments.
        tensors: parameters and buffers by dotted name, float32.
    """

    class_name: str
    attributes: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)


@dataclass
class OfficialSnapshot:
    """What an official snapshot holds.

    Args:
        networks: those of G, D, G_ema and D_match that it has.
        augmentation_probability: that of the adaptive augmentation (ADA); None if it has none.
        ignored_source_chars: length of the Python source that came with it and was not executed.
    """

    path: Path
    networks: dict[str, OfficialNetwork]
    augmentation_probability: float | None
    ignored_source_chars: int


def read_official_snapshot(path: str | os.PathLike[str]) -> OfficialSnapshot:
    """Read a `network-snapshot-*.pkl` of DFMGAN or StyleGAN2-ADA for PyTorch without executing anything in it.

    Raises:
        ForbiddenGlobalError: the pickle, or one nested in it, names anything but what snapshots are made of.
        SnapshotError: not a pickle, truncated, too large, without G_ema, or made by the TensorFlow version.
        FileNotFoundError: no such file.
    """
    path = Path(path)
    if path.is_dir():
        raise SnapshotError(f"{path} is a folder; expected a file such as network-snapshot-000400.pkl.")
    if not path.exists():
        raise FileNotFoundError(
            f"There is no file {path}; expected a snapshot such as network-snapshot-000400.pkl. Check the path."
        )
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise SnapshotError(f"{path} has {size} bytes; an official snapshot has at most {MAX_FILE_BYTES}.")
    content = path.read_bytes()
    _check_looks_like_pickle(content, path)
    try:
        top = read_records(io.BytesIO(content), ALLOWED_GLOBALS, str(path))
    except ForbiddenGlobalError as error:
        if error.name.startswith(_LEGACY_TENSORFLOW):
            raise SnapshotError(
                f"{path} was written by the TensorFlow version of StyleGAN ({error.name}), which is not supported. "
                "Convert it to a PyTorch snapshot first, with the legacy.py of the stylegan2-ada-pytorch repository."
            ) from error
        raise
    if not isinstance(top, dict) or not any(name in top for name in FOLDERS):
        raise SnapshotError(
            f"{path} is a pickle, but not a snapshot: expected a dict with {', '.join(FOLDERS)}, got {_describe(top)}."
        )
    # Half-precision tensors become float32, hence twice the file.
    reader = _NetworkReader(str(path), TensorReader(str(path), max_bytes=2 * size))
    networks = {name: reader.read(top[name], name) for name in FOLDERS if top.get(name) is not None}
    if "G_ema" not in networks:
        raise SnapshotError(
            f"{path} has no averaged generator 'G_ema', only {', '.join(networks)}. Use the complete "
            "network-snapshot-*.pkl that the training wrote."
        )
    p = None
    if top.get("augment_pipe") is not None:
        p = reader.read(top["augment_pipe"], "augment_pipe").tensors.get("p")
    return OfficialSnapshot(
        path=path,
        networks=networks,
        augmentation_probability=float(p) if p is not None and p.numel() == 1 else None,
        ignored_source_chars=sum(map(len, reader.sources)),
    )


class _NetworkReader:
    """Collects attributes and tensors of networks; its limits hold for all networks of a snapshot together."""

    def __init__(self, where: str, tensors: TensorReader) -> None:
        self.where = where
        self.tensors = tensors
        self.entries_left = MAX_ENTRIES
        self.sources: set[str] = set()

    def read(self, record: Any, name: str) -> OfficialNetwork:
        network = OfficialNetwork(self.open_module(record, name)[0])
        self.collect(network, record, "", name, 0)
        return network

    def collect(self, network: OfficialNetwork, record: Any, prefix: str, name: str, depth: int) -> None:
        state = self.entries(self.open_module(record, name)[1], name, depth)
        arguments, parameters, buffers, modules = (
            self.entries(state.get(kind) or {}, f"{name}{kind}", depth)
            for kind in ("_init_kwargs", "_parameters", "_buffers", "_modules")
        )
        network.attributes |= {prefix + key: value for key, value in state.items() if _is_scalar(value)}
        network.attributes[f"{prefix}_init_kwargs"] = {k: v for k, v in arguments.items() if _is_scalar(v)}
        for key, value in [*parameters.items(), *buffers.items()]:
            if value is not None:
                network.tensors[prefix + key] = self.tensors.read(value, f"{name}.{key}")
        for key, value in modules.items():
            if value is not None:
                self.collect(network, value, f"{prefix}{key}.", f"{name}.{key}", depth + 1)

    def entries(self, members: Any, name: str, depth: int) -> dict[str, Any]:
        """A dict of a module, counted: one dict may stand for those of many modules."""
        if not isinstance(members, dict):
            raise SnapshotError(f"{self.where}: {name} is no dict of names.")
        self.entries_left -= len(members) + 1
        if depth > MAX_MODULE_DEPTH or self.entries_left < 0:
            raise SnapshotError(f"{self.where}: {name} nests more modules than any official network does.")
        # Every name begins with those of the modules around it.
        if not all(isinstance(key, str) and len(key) <= MAX_KEY_CHARS and key.isprintable() for key in members):
            raise SnapshotError(f"{self.where}: {name} is no dict of names.")
        return members

    def open_module(self, record: Any, name: str) -> tuple[str, dict[Any, Any]]:
        """Class name and attributes of a module's record."""
        if not isinstance(record, Record):
            raise SnapshotError(f"{self.where}: {name} is no network but {_describe(record)}.")
        if record.name != ".".join(PERSISTENT_OBJECT):
            if not isinstance(record.state, dict):
                raise SnapshotError(f"{self.where}: {name} ({record.name}) is no module.")
            return record.name, record.state
        meta = record.arguments[0] if len(record.arguments) == 1 else None
        if not isinstance(meta, dict) or not isinstance(meta.get("state"), dict):
            raise SnapshotError(f"{self.where}: {name} is not stored as official snapshots store modules.")
        if meta.get("version") != PERSISTENCE_VERSION:
            raise SnapshotError(
                f"{self.where}: {name} is stored in version {_describe(meta.get('version'))} of the snapshot format; "
                f"only version {PERSISTENCE_VERSION} is known."
            )
        if isinstance(meta.get("module_src"), str):
            self.sources.add(meta["module_src"])
        # Of anything but a text: a container that names itself thousands of times may not be printed.
        class_name = meta.get("class_name")
        return class_name[:80] if isinstance(class_name, str) else "network", meta["state"]


def _check_looks_like_pickle(content: bytes, path: Path) -> None:
    if not content:
        raise SnapshotError(f"{path} is empty.")
    if content.startswith(b"PK\x03\x04"):
        raise SnapshotError(
            f"{path} is a zip archive, probably a PyTorch .pt or .ckpt file; expected an official snapshot, "
            "network-snapshot-*.pkl."
        )
    if content.startswith(b"version https://git-lfs"):
        raise SnapshotError(f"{path} is a Git LFS pointer, not the file itself: run `git lfs pull`.")


def _is_scalar(value: Any) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_ATTRIBUTE_CHARS
    return value is None or isinstance(value, (bool, int, float))


def _describe(value: Any) -> str:
    """A value for a message: never its whole content, which the file's author chose."""
    if isinstance(value, Record):
        return f"a call of {value.name}"
    if isinstance(value, (bool, int, float)):
        return str(value)[:40]
    return "nothing" if value is None else f"a {type(value).__name__}"


def has_defect_branch(generator: OfficialNetwork) -> bool:
    """Return whether a generator comes from stage 2."""
    return any(name.startswith(("synthesis.res_b", "defect_mapping.")) for name in generator.tensors)


def generator_config(network: OfficialNetwork) -> dict[str, Any]:
    """Return the configuration of our generator for an official one; with a defect branch, `DFMGANGenerator`'s.

    `SnapshotError` if our networks cannot represent it; the message says what is in the way.
    """
    _check_kind(network)
    _check_mapping(network, "mapping")
    widths = _widths(network, r"^synthesis\.b(\d+)\.conv1\.weight$")
    resolution = _resolution(widths)
    channel_base, channel_max = infer_channels(widths)
    config: dict[str, Any] = {
        "resolution": resolution,
        "image_channels": _shape(network, f"synthesis.b{resolution}.torgb.weight")[0],
        "z_dim": _shape(network, "mapping.fc0.weight")[1],
        "w_dim": _shape(network, "synthesis.b4.conv1.affine.weight")[1],
        "mapping_layers": sum(re.fullmatch(r"mapping\.fc\d+\.weight", name) is not None for name in network.tensors),
        "channel_base": channel_base,
        "channel_max": channel_max,
        "conv_clamp": _conv_clamp(network),
    }
    if has_defect_branch(network):
        _check_mapping(network, "defect_mapping")
        threshold = network.attributes.get("mask_threshold", 0.0)
        if threshold != 0:
            raise SnapshotError(f"mask threshold {threshold}; our residual blocks are gated by mask logits >= 0.")
        if network.attributes.get("synthesis._init_kwargs", {}).get("no_round"):
            raise SnapshotError("a soft mask (no_round); our residual blocks are gated by the hard mask.")
        config["residual_resolution"] = min(_widths(network, r"^synthesis\.res_b(\d+)\.conv1\.weight$"))
    return config


def discriminator_config(network: OfficialNetwork) -> dict[str, Any]:
    """Return the configuration of our discriminator for D or D_match; `SnapshotError` as for the generator."""
    _check_kind(network)
    widths = _widths(network, r"^b(\d+)\.conv0\.weight$")
    widths[4] = _shape(network, "b4.out.weight")[1]
    resolution = _resolution(widths)
    channel_base, channel_max = infer_channels(widths)
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


def _rename(tensors: dict[str, Tensor], rules: tuple[tuple[str, str], ...]) -> dict[str, Tensor]:
    """Tensors under our names, without the fixed FIR filters; the first rule that fits a name is applied."""
    renamed: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.rpartition(".")[2] == FIR_NAME:
            continue
        new_name = next((re.sub(old, new, name) for old, new in rules if re.match(old, name)), name)
        if new_name in renamed:
            raise SnapshotError(f"two tensors would both become {new_name!r}; one of them is {name!r}.")
        renamed[new_name] = tensor
    return renamed


def infer_channels(widths: dict[int, int]) -> tuple[int, int]:
    """Return the smallest (channel_base, channel_max) that give these widths by resolution."""
    channel_max = max(widths.values())
    lowest = max(width * r for r, width in widths.items())
    if any(width < channel_max and lowest >= (width + 1) * r for r, width in widths.items()):
        table = ", ".join(f"{r}: {widths[r]}" for r in sorted(widths))
        raise SnapshotError(
            f"channel widths ({table}) that no channel_base and channel_max give: ours are "
            "min(channel_base // resolution, channel_max) at each resolution."
        )
    return lowest, channel_max


def _widths(network: OfficialNetwork, pattern: str) -> dict[int, int]:
    """Output channels by resolution, from the weights whose name fits the pattern."""
    found = ((re.match(pattern, name), tensor) for name, tensor in network.tensors.items() if tensor.ndim == 4)
    widths = {int(match[1]): tensor.shape[0] for match, tensor in found if match}
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


def _check_kind(network: OfficialNetwork) -> None:
    c_dim, cmap_dim = network.attributes.get("c_dim", 0), network.attributes.get("b4.cmap_dim", 0)
    if c_dim or cmap_dim or any(".embed." in name for name in network.tensors):
        raise SnapshotError(
            f"class-conditional (c_dim {c_dim}): only networks trained without labels (c_dim 0) can be converted."
        )
    taps = torch.tensor(FIR_TAPS)
    fir = torch.outer(taps, taps) / taps.sum().square()
    for name, tensor in network.tensors.items():
        if name.rpartition(".")[2] == FIR_NAME and (tensor.shape != fir.shape or not torch.allclose(tensor, fir)):
            raise SnapshotError(f"{name!r} is not the filter [1, 3, 3, 1], the only one that our networks have.")


def _check_mapping(network: OfficialNetwork, mapping: str) -> None:
    # A linear layer's bias gain is its learning-rate multiplier; weights mean nothing without it.
    multiplier, ours = network.attributes.get(f"{mapping}.fc0.bias_gain", MAPPING_LR_MULTIPLIER), MAPPING_LR_MULTIPLIER
    if multiplier != ours:
        raise SnapshotError(f"{mapping} network with the lr multiplier {multiplier}; ours has {ours}.")
    activation = network.attributes.get(f"{mapping}.fc0.activation", "lrelu")
    if activation != "lrelu":
        raise SnapshotError(f"{mapping} network with the activation {activation!r}; ours has 'lrelu'.")


def _build(snapshot: OfficialSnapshot, name: str) -> SafetensorsModel:
    """One of our networks with the tensors of an official one; errors say which file and network they are about."""
    network = snapshot.networks[name]
    model: SafetensorsModel
    rules: tuple[tuple[str, str], ...]
    try:
        # Without memory: the sizes are those that a few tensors claim, until all have been compared.
        if name in ("G", "G_ema"):
            model_class = DFMGANGenerator if has_defect_branch(network) else StyleGAN2Generator
            config, rules = generator_config(network), GENERATOR_RENAMES
        else:
            model_class, config, rules = StyleGAN2Discriminator, discriminator_config(network), DISCRIMINATOR_RENAMES
        with torch.device("meta"):
            model = model_class(**config)
        _fill(model, network, rules)
    except ValueError as error:
        raise SnapshotError(f"{snapshot.path}: {name} cannot be converted: {error}") from error
    return model


def _fill(model: SafetensorsModel, network: OfficialNetwork, rules: tuple[tuple[str, str], ...]) -> None:
    """Load the network's tensors; nothing may be missing, unknown or of another shape."""
    if broken := [name for name, tensor in network.tensors.items() if not torch.isfinite(tensor).all()]:
        raise SnapshotError(f"NaN or infinity in {listed(broken)}: the training had diverged; use an earlier one.")
    tensors = _rename(network.tensors, rules)
    if told := misfits(model, {name: ("F32", tuple(tensor.shape)) for name, tensor in tensors.items()}):
        raise SnapshotError(
            f"a {network.class_name} of another architecture than DFMGAN's or StyleGAN2's defaults "
            f"(skip generator, residual discriminator). Tensors {told}."
        )
    model.load_state_dict(tensors, strict=True, assign=True)
