"""Drawing from the methods whose result is a `DFMGANPipeline`."""

from __future__ import annotations

from ..metrics import PipelineSampler
from ..pipelines import DFMGANPipeline
from .method import SamplerRequest


def open_pipeline(request: SamplerRequest) -> PipelineSampler:
    """Draws with `DFMGANPipeline.from_pretrained(source)`: image i is that of `seeds=[seed + i]`."""
    return PipelineSampler(DFMGANPipeline.from_pretrained(str(request.source)).to(request.device))
