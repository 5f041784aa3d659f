"""Draw data sets of triplets in the forms that others read."""

from .generate import (
    DrawConfig,
    ExportSummary,
    GenerateConfig,
    candidate_seed,
    check_push,
    draw,
    draw_samples,
    generate,
    generate_dataset,
    make_writer,
    push_to_hub,
)
from .writers import ExportConfig, ExportError, ExportFormat, Record, Sample, read_record

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
