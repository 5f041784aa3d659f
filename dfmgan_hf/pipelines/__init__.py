"""The pipeline that users call."""

from .pipeline_dfmgan import DFMGANPipeline, DFMGANPipelineOutput

__all__ = ["DFMGANPipeline", "DFMGANPipelineOutput"]
