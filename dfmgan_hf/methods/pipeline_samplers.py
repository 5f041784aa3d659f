"""Drawing from the methods whose result is a `DFMGANPipeline`."""

from __future__ import annotations

from ..metrics import PipelineSampler
from ..pipelines import DFMGANPipeline
from ..training import Task
from .method import SamplerRequest


def open_pipeline(request: SamplerRequest) -> PipelineSampler:
    """Draws with `DFMGANPipeline.from_pretrained(source)`: image i is that of `seeds=[seed + i]`."""
    return PipelineSampler(DFMGANPipeline.from_pretrained(str(request.source)).to(request.device))


def sample_generator(task: Task) -> PipelineSampler:
    """Draws from the averaged generator of a task."""
    return PipelineSampler(DFMGANPipeline(generator=task.generator_ema))
