"""Bulk generation: data sets of triplets, in the forms that others read."""

from .config import ExportConfig, ExportFormat
from .dataset_card import push_to_hub
from .errors import ExportError
from .filters import MaskFilter
from .generate import generate_dataset
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
    "Record",
    "Sample",
    "TripletSampler",
    "candidate_seed",
    "generate_dataset",
    "push_to_hub",
    "read_record",
]
