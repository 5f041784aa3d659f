"""DFMGAN as one of the methods to compare: stage 2 on stage 1's backbone (stage2.py)."""

from __future__ import annotations

from .method import Defaults, Method, TaskRequest, register
from .pipeline_samplers import open_pipeline
from .stage2 import Stage2Options, Stage2Task, build_stage2


def build(request: TaskRequest) -> Stage2Task:
    """Stage 2 as examples/train_stage2.py trains it."""
    return build_stage2(*request.networks, request.recipe, request.options, request.augmentation, request.target)


METHOD = Method(
    name="dfmgan",
    title="DFMGAN",
    citation=(
        "Y. Duan, Y. Hong, L. Niu, L. Zhang: Few-Shot Defect Image Generation via Defect-Aware Feature Manipulation. "
        "AAAI 2023."
    ),
    open_sampler=open_pipeline,
    build=build,
    generator="DFMGANGenerator",
    options=Stage2Options,
    defaults=Defaults(augmentation="bgc"),
    init="stage1",
    has_masks=True,
    needs_masks=True,
)
register(METHOD)
