"""What the tests ask of the client's process: everything here runs with the local Hub as the Hub."""

from __future__ import annotations

import hashlib
from typing import Any

import torch

from dfmgan_hf import DFMGANGenerator, DFMGANPipeline
from dfmgan_hf.hub import CardFacts

SIZES = {"resolution": 32, "z_dim": 16, "w_dim": 16, "channel_base": 256, "channel_max": 8, "residual_resolution": 16}


def push(repo: str, seed: int = 0, **options: Any) -> str:
    """Publishes a new model and returns what it draws."""
    torch.manual_seed(seed)
    pipe = DFMGANPipeline(DFMGANGenerator(**SIZES))
    if "facts" in options:
        options["facts"] = CardFacts(**options["facts"])
    address = pipe.push_to_hub(repo, **options)
    assert "/commit/" in address, address
    return _drawn(pipe)


def pull(source: str, **options: Any) -> str:
    """What the model draws that `source` names."""
    return _drawn(DFMGANPipeline.from_pretrained(source, **options))


def _drawn(pipe: DFMGANPipeline) -> str:
    pipe.set_progress_bar_config(disable=True)
    output = pipe(seeds=[1, 2], output_type="pt")
    tensors = (output.images, output.masks, output.defect_free_images)
    return hashlib.sha1(b"".join(tensor.float().numpy().tobytes() for tensor in tensors)).hexdigest()
