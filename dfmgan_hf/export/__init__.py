"""Bulk generation: data sets of triplets, in the forms that others read."""

from .config import ExportConfig, ExportFormat
from .errors import ExportError, OneProcessError
from .filters import MaskFilter
from .generate import generate_dataset, make_writer
from .hub import check_push, push_to_hub
from .samples import Record, Sample, read_record
from .sampling import TripletSampler
from .seeds import candidate_seed
from .summary import ExportSummary

__all__ = [
    "ExportConfig",
    "ExportError",
    "ExportFormat",
    "ExportSummary",
    "MaskFilter",
    "OneProcessError",
    "Record",
    "Sample",
    "TripletSampler",
    "candidate_seed",
    "check_push",
    "generate_dataset",
    "make_writer",
    "push_to_hub",
    "read_record",
]
