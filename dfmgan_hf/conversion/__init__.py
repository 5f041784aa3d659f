"""Convert official snapshots to safetensors, without running anything inside them."""

from .official import (
    ConvertedSnapshot,
    OfficialNetwork,
    OfficialSnapshot,
    convert_official_snapshot,
    read_official_snapshot,
)
from .unpickling import ForbiddenGlobalError, SnapshotError

__all__ = [
    "ConvertedSnapshot",
    "ForbiddenGlobalError",
    "OfficialNetwork",
    "OfficialSnapshot",
    "SnapshotError",
    "convert_official_snapshot",
    "read_official_snapshot",
]
