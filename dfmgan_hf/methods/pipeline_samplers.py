"""Drawing from the methods whose result is a `DFMGANPipeline`."""

from __future__ import annotations

from ..metrics import PipelineSampler
from ..pipelines import DFMGANPipeline
from .method import SamplerRequest


def open_pipeline(request: SamplerRequest) -> PipelineSampler:
    """Draws with `DFMGANPipeline.from_pretrained(source)`: image i is that of `seeds=[seed + i]`."""
    pipe = DFMGANPipeline.from_pretrained(str(request.source), revision=request.revision)
    return PipelineSampler(pipe.to(request.device))
