"""The list of unopened files that every source of data is turned into first, and the error that all of them raise."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

GOOD = "good"
"""The name of what has no defect, as in MVTec AD."""

Split = Literal["train", "test"]

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
"""Lower-case file name endings that are taken for images."""

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Raise it when the same files and settings would be prepared differently than before.
_PREPARATION_VERSION = 4


class DataError(ValueError):
    """A problem with the user's files.

    The message names the file, what was found, what was expected and what to do, in this order.

    Args:
        code: Short stable name of the kind of problem (`"unreadable"`, `"no_mask"`, ...), for reports and tests.
        path: The file or folder that is at fault.
        found: What is there.
        expected: What should be there.
        advice: What to do about it.
    """

    def __init__(self, code: str, path: Path | str, found: str, expected: str, advice: str) -> None:
        self.code = code
        self.path = str(path)
        self.found = found
        self.expected = expected
        self.advice = advice
        super().__init__(f"{path}: {found}. Expected {expected}. {advice}")

    def __reduce__(self) -> tuple[Callable[..., DataError], tuple[str, ...]]:
        # Worker processes send exceptions home by their positional arguments, which are the message alone.
        return DataError, (self.code, self.path, self.found, self.expected, self.advice)


class DataWarning(UserWarning):
    """Something that works but is probably not what the user meant, such as a mask with grey values."""


@dataclass(frozen=True)
class ImageRecord:
    """One photograph and its mask.

    Attributes:
        name: Name within the data set, such as `test/crack/000.png`; what file lists hold.
        image_path: The photograph.
        mask_path: Its mask, or None where there is none.
        defect: Kind of defect, or `good`.
        split: `train` or `test`.
        error: Why it cannot be used, if the names of the files say so already. Loading raises the first, the doctor
            shows them all.
    """

    name: str
    image_path: Path
    mask_path: Path | None
    defect: str
    split: Split
    error: DataError | None = field(default=None, compare=False)


@dataclass
class Listing:
    """The photographs found, and what else is in the folders (nothing has been decoded)."""

    root: Path  # the folder that the names refer to
    category: str  # name of the object or texture
    records: list[ImageRecord] = field(default_factory=list)  # sorted by name
    orphan_masks: list[Path] = field(default_factory=list)  # those that belong to no photograph
    ignored_files: list[Path] = field(default_factory=list)  # neither photographs nor masks

    def select(self, defect: str | None, split: Split | None = None) -> list[ImageRecord]:
        """Return the records of one kind: `defect=None` for the defect-free ones, `split=None` for both splits."""
        wanted = defect or GOOD
        return [r for r in self.records if r.defect == wanted and (split is None or r.split == split)]

    @property
    def defects(self) -> list[str]:
        """Names of the kinds of defect, sorted, without `good`."""
        return sorted({record.defect for record in self.records} - {GOOD})


def image_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """List the files directly inside a folder, sorted: images by their ending, and the others. Skip hidden ones."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    images = [path for path in files if path.suffix.lower() in IMAGE_EXTENSIONS]
    return images, [path for path in files if path.suffix.lower() not in IMAGE_EXTENSIONS]


def is_hub_id(source: Path | str) -> bool:
    """Tell whether `source` is no path here and has the form `user/name` of a repository on the Hub."""
    return not Path(source).exists() and _REPO_ID.fullmatch(Path(source).as_posix()) is not None


def fingerprint(records: Iterable[ImageRecord], settings: Mapping[str, Any]) -> str:
    """Return a hexadecimal digest of the files' names, sizes and times (of modification, of change), and of settings.

    A photograph or mask that is added, removed, renamed, exchanged or written again changes it, even where its
    modification time is kept, as copying and unpacking may do.

    Args:
        records: The files, in the order in which they are used.
        settings: Values that JSON can hold.
    """
    digest = hashlib.sha256()
    digest.update(json.dumps([_PREPARATION_VERSION, dict(settings)], sort_keys=True).encode())
    for record in records:
        row: list[Any] = [record.name, record.defect, record.split]
        for path in (record.image_path, record.mask_path):
            if path is not None and path.exists():
                status = path.stat()
                row += [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            else:
                row.append(None)
        digest.update(json.dumps(row).encode())
    return digest.hexdigest()


def shorten(names: Iterable[str], limit: int = 12) -> str:
    """Write `a, b, c and 5 more`, for error messages."""
    names = list(names)
    shown = ", ".join(names[:limit])
    return f"{shown} and {len(names) - limit} more" if len(names) > limit else shown or "nothing"
