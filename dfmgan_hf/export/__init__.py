"""Draw data sets of triplets in the forms that others read."""

from .config import ExportConfig, ExportError, ExportFormat
from .generate import DrawConfig, ExportSummary, GenerateConfig, draw, generate, generate_dataset, make_writer
from .hub import check_push, push_to_hub
from .samples import Record, Sample, read_record
from .sampling import candidate_seed, draw_samples

__all__ = [
    "DrawConfig",
    "ExportConfig",
    "ExportError",
    "ExportFormat",
    "ExportSummary",
    "GenerateConfig",
    "Record",
    "Sample",
    "candidate_seed",
    "check_push",
    "draw",
    "draw_samples",
    "generate",
    "generate_dataset",
    "make_writer",
    "push_to_hub",
    "read_record",
]
