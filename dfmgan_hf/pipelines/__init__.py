"""The pipeline that users call, and a page to look at what it draws."""

from .contact_sheet import contact_sheet
from .pipeline_dfmgan import DFMGANPipeline, DFMGANPipelineOutput

__all__ = ["DFMGANPipeline", "DFMGANPipelineOutput", "contact_sheet"]
