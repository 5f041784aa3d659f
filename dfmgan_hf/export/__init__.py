"""Draw data sets of triplets in the forms that others read."""

from .generate import DrawConfig, ExportSummary, GenerateConfig, draw, draw_samples, generate, generate_dataset
from .writers import ExportConfig, ExportError, ExportFormat, Sample, make_writer

__all__ = [
    "DrawConfig",
    "ExportConfig",
    "ExportError",
    "ExportFormat",
    "ExportSummary",
    "GenerateConfig",
    "Sample",
    "draw",
    "draw_samples",
    "generate",
    "generate_dataset",
    "make_writer",
]
