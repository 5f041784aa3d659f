"""What came of an export."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .config import RECORD_DIR
from .filters import REASONS
from .samples import Record

CONTACT_SHEET_FILE = f"{RECORD_DIR}/contact_sheet.png"


class Statistics:
    """Counts and mask areas of records that pass by."""

    def __init__(self) -> None:
        self.count = 0
        self.dropped: Counter[str] = Counter(dict.fromkeys(REASONS, 0))
        self._sum, self._min, self._max = 0.0, math.inf, 0.0

    def watch(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield the records, counting them."""
        for record in records:
            self.count += 1
            for reason in REASONS:
                self.dropped[reason] += getattr(record, f"dropped_{reason}")
            self._sum += record.mask_area
            self._min = min(self._min, record.mask_area)
            self._max = max(self._max, record.mask_area)
            yield record

    @property
    def mask_area(self) -> dict[str, float]:
        """Smallest, mean and largest share of the image that a mask covers."""
        return {"min": self._min, "mean": self._sum / self.count, "max": self._max}


@dataclass(frozen=True)
class ExportSummary:
    """What came of an export.

    Args:
        output_dir: the folder.
        num_images: triplets in it.
        num_drawn: triplets that this run drew, in all processes; the others were there before.
        num_processes: processes that drew.
        dropped: draws that the filter dropped since the export was begun, by reason.
        mask_area: min, mean and max of the share of the image that masks cover.
        seconds: time that this run took.
    """

    output_dir: Path
    num_images: int
    num_drawn: int
    num_processes: int
    dropped: dict[str, int]
    mask_area: dict[str, float]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """What does not depend on how the work was done, for summary.json and the card."""
        return {"num_images": self.num_images, "dropped": self.dropped, "mask_area": self.mask_area}

    def __str__(self) -> str:
        area = {name: f"{share:.2%}" for name, share in self.mask_area.items()}
        dropped = ", ".join(f"{count:,} {reason.replace('_', ' ')}" for reason, count in self.dropped.items())
        processes = "1 process" if self.num_processes == 1 else f"{self.num_processes} processes"
        return (
            f"{self.num_images:,} triplets in {self.output_dir}\n"
            f"  drew    {self.num_drawn:,} in {self.seconds:.1f} s with {processes}, "
            f"{self.num_drawn / self.seconds:.1f} a second; {self.num_images - self.num_drawn:,} were there before\n"
            f"  dropped {sum(self.dropped.values()):,} draws by their masks: {dropped}\n"
            f"  masks   cover {area['min']} to {area['max']} of the image, {area['mean']} on average\n"
            f"  sheet   {self.output_dir / CONTACT_SHEET_FILE}"
        )
