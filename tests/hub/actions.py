"""What the tests ask of the client's process: everything here runs with the local Hub as the Hub."""

from __future__ import annotations

import contextlib
import hashlib
import io
import runpy
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline, StyleGAN2Discriminator
from dfmgan_hf.publishing import (
    CardFacts,
    HubConfig,
    prepare_push,
    push_model_folder,
    push_results,
    push_space_folder,
    push_trained,
)

SIZES = {"resolution": 32, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 8, "residual_resolution": 16}


def make_pipeline(seed: int) -> DFMGANPipeline:
    torch.manual_seed(seed)
    return DFMGANPipeline(DFMGANGenerator(**SIZES))


def drawn(pipe: Any) -> str:
    """What a pipeline draws, in short."""
    pipe.set_progress_bar_config(disable=True)
    output = pipe(seeds=[1, 2], output_type="pt")
    tensors = [t for t in (output.images, output.masks, output.defect_free_images) if t is not None]
    return hashlib.sha1(b"".join(tensor.float().numpy().tobytes() for tensor in tensors)).hexdigest()


def push(repo: str, seed: int = 0, **options: Any) -> str:
    """Publishes a new model and returns what it draws."""
    pipe = make_pipeline(seed)
    if "facts" in options:
        options["facts"] = CardFacts(**options["facts"])
    address = pipe.push_to_hub(repo, **options)
    assert "/commit/" in address, address
    return drawn(pipe)


def pull(source: str, generic: bool = False, offline: bool = False, **options: Any) -> str:
    """What the model draws that `source` names, in this way of loading it."""
    loader = DiffusionPipeline if generic else DFMGANPipeline
    with mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", offline):
        return drawn(loader.from_pretrained(source, **options))


def pull_half(source: str) -> tuple[str, float]:
    """Type of the half-precision variant's weights, and how far its images are from the full ones."""
    half = DFMGANPipeline.from_pretrained(source, variant="fp16", dtype=torch.float16)
    images = [
        pipe(seeds=[1], output_type="pt").defect_free_images for pipe in (half, DFMGANPipeline.from_pretrained(source))
    ]
    return str(half.generator.dtype), float((images[0] - images[1]).abs().max())


def push_loaded(folder: str, repo: str) -> None:
    DFMGANPipeline.from_pretrained(folder).push_to_hub(repo)


def push_folder(folder: str, **hub: Any) -> str:
    return push_model_folder(folder, HubConfig(push_to_hub=True, **hub))


def push_run(folder: str, parts: tuple[str, ...] = (), **hub: Any) -> list[str]:
    """Publishes a run, or as many that lie in its folder."""
    options = HubConfig(push_to_hub=True, **hub)
    return push_trained({Path(folder, p): options.for_part(p, folder) for p in parts} or {Path(folder): options})


def prepare(folder: str, **hub: Any) -> None:
    prepare_push({Path(folder): HubConfig(push_to_hub=True, **hub)})


def push_measured(model: str, results_dir: str, **hub: Any) -> str:
    return push_results(model, results_dir, HubConfig(push_to_hub=True, **hub))


def push_space(folder: str, repo: str) -> str:
    return push_space_folder(folder, HubConfig(push_to_hub=True, hub_model_id=repo))


def run_script(name: str, *arguments: str) -> str:
    """What an example script prints; RuntimeError with its message if it gives up."""
    script = Path(__file__).parents[2] / "examples" / name
    printed, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch("sys.argv", [str(script), *arguments]),
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(errors),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as error:
            raise RuntimeError(f"{error.code}\n{errors.getvalue()}") from error
    return printed.getvalue()


def with_warnings_as_errors(action: str, *arguments: Any, **options: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        return globals()[action](*arguments, **options)


def load_generator(repo: str, cache_dir: str) -> None:
    DFMGANGenerator.from_pretrained(repo, subfolder="generator", cache_dir=cache_dir)


def load_discriminator(repo: str) -> int:
    return StyleGAN2Discriminator.from_pretrained(repo, subfolder="discriminator").config["resolution"]


def download(repo: str, kind: str, **options: Any) -> dict[str, bytes]:
    """All files of a repository."""
    folder = Path(snapshot_download(repo, repo_type=kind, **options))
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def push_dataset(folder: str, repo: str) -> None:
    from dfmgan_hf.data.mvtec_ad import load_mvtec_ad

    load_mvtec_ad(folder, cache_dir=Path(folder).parent / "cache").push_to_hub(repo)


def pull_dataset(repo: str, category: str, cache_dir: str) -> dict[str, list[str]]:
    """File names by split, in order, with the number of white mask pixels."""
    import numpy as np

    from dfmgan_hf.data.mvtec_ad import load_mvtec_ad

    def white(mask: Any) -> int:
        return 0 if mask is None else int((np.array(mask) > 0).sum())

    dataset = load_mvtec_ad(repo, category, cache_dir=cache_dir)
    return {split: [f"{row['file_name']} {white(row['mask'])}" for row in rows] for split, rows in dataset.items()}
