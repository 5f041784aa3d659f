"""What every source of data is first turned into: a list of files, not yet opened."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .errors import DataError
from .reading import IMAGE_EXTENSIONS

GOOD = "good"
"""The name of what has no defect, as in MVTec AD."""

Split = Literal["train", "test"]


@dataclass(frozen=True)
class ImageRecord:
    """One photograph and its mask.

    Attributes:
        name: Name within the data set, such as `test/crack/000.png`; what file lists hold.
        image_path: The photograph.
        mask_path: Its mask, or None where there is none.
        defect: Kind of defect, or `good`.
        split: `train` or `test`.
    """

    name: str
    image_path: Path
    mask_path: Path | None
    defect: str
    split: Split


@dataclass
class Listing:
    """The photographs found, and what is wrong with the folders so far (nothing has been decoded).

    Attributes:
        root: The folder that the names refer to.
        category: Name of the object or texture.
        records: Sorted by name.
        errors: By name of the record that cannot be used; loading raises the first, the doctor shows them all.
        orphan_masks: Masks that belong to no photograph.
        ignored_files: Files that are neither photographs nor masks.
    """

    root: Path
    category: str
    records: list[ImageRecord] = field(default_factory=list)
    errors: dict[str, DataError] = field(default_factory=dict)
    orphan_masks: list[Path] = field(default_factory=list)
    ignored_files: list[Path] = field(default_factory=list)

    def select(self, defect: str | None, split: Split | None = None) -> list[ImageRecord]:
        """Records of one kind: `defect=None` for the defect-free ones, `split=None` for both splits."""
        wanted = defect or GOOD
        return [r for r in self.records if r.defect == wanted and (split is None or r.split == split)]

    @property
    def defects(self) -> list[str]:
        """Names of the kinds of defect, sorted, without `good`."""
        return sorted({record.defect for record in self.records} - {GOOD})


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Files directly inside `folder`, sorted: images by their ending, and the others. Hidden ones are skipped."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    return images, [path for path in files if path.suffix.lower() not in IMAGE_EXTENSIONS]


def shorten(names: Iterable[str], limit: int = 12) -> str:
    """`a, b, c and 5 more`, for error messages."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "nothing"
