"""The list of unopened files that every source of data is turned into first, and the error that all of them raise."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

GOOD = "good"
"""The name of what has no defect, as in MVTec AD."""

WHERE_GOOD = (
    "Put photographs of good parts into train/good; beside labels of a tool, or folders of your own, name their "
    "folder with --good_dir."
)
"""What to do where there are none."""

Split = Literal["train", "test"]

IMAGE_EXTENSIONS = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".ppm", ".pgm"})
"""Lower-case file name endings that are taken for images."""

_UNREAD_EXTENSIONS = frozenset(
    {".heic", ".heif", ".avif", ".jp2", ".j2k", ".jxl", ".exr", ".dcm", ".psd"}
    | {".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"}
)  # photographs too, which nobody means to leave out

_REPO_ID = re.compile(r"[\w.-]+/[\w.-]+")

# Raise it when the same files and settings would be prepared differently than before.
_PREPARATION_VERSION = 8

_LEFT_BY_PROGRAMS = frozenset(
    {"@eadir", "__macosx", "#recycle", "$recycle.bin", "lost+found", "system volume information"}
    | {"thumbs.db", "desktop.ini"}
)
_NOT_IN_A_NAME = frozenset('/\\:*?"<>|')
_LONGEST_NAME = 200  # bytes; file systems take 255, and what is exported adds numbers and endings


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
        super().__init__(printable(f"{path}: {found}. Expected {expected}. {advice}"))

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
        more_masks: Masks of further instances of the defect, to be united with the first.
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
    more_masks: tuple[Path, ...] = ()

    @property
    def masks(self) -> tuple[Path, ...]:
        """All files that together are its mask."""
        return () if self.mask_path is None else (self.mask_path, *self.more_masks)


LeftOverKind = Literal["hidden", "ignored_files", "unused", "unlabelled", "orphan_masks", "unread_format", "not_found"]
"""Why an entry of a folder is not used: a hidden one; no image by its name; images that are there for another purpose;
photographs of which the labels beside them say nothing; masks without a photograph; photographs in a format that is
not read; images where none are looked for. Nobody can have meant the last three."""


class LeftOver(NamedTuple):
    """An entry of a data folder that is not used."""

    path: Path
    kind: LeftOverKind
    images: int = 0  # how many are inside, of a folder

    @property
    def is_unresolved(self) -> bool:
        """Whether it looks like something that should have been used."""
        return self.kind in ("orphan_masks", "unread_format", "not_found")


@dataclass
class Listing:
    """The photographs found, and an account of all else that is in the folders (nothing has been decoded)."""

    root: Path  # the folder that the names refer to
    category: str  # name of the object or texture
    records: list[ImageRecord] = field(default_factory=list)  # sorted by split (train first) and name
    left_over: list[LeftOver] = field(default_factory=list)  # every other entry
    remarks: list[str] = field(default_factory=list)  # of what a label file says: what is used, and what is not

    def select(self, defect: str | None, split: Split | None = None) -> list[ImageRecord]:
        """Return the records of one kind: `defect=None` for the defect-free ones, `split=None` for both splits."""
        wanted = normalised(defect or GOOD)
        return [r for r in self.records if r.defect == wanted and (split is None or r.split == split)]

    @property
    def defects(self) -> list[str]:
        """Names of the kinds of defect, sorted, without `good`."""
        return sorted({record.defect for record in self.records} - {GOOD})

    def account(self) -> str:
        """Write one line about all entries: how many are used, ignored and unresolved."""
        parts = [f"{len(self.records)} photographs listed"]
        for title, is_unresolved in (("ignored", False), ("unresolved", True)):
            kinds = Counter(entry.kind for entry in self.left_over if entry.is_unresolved is is_unresolved)
            named = ", ".join(f"{number} {LEFT_OVER[kind][0]}" for kind, number in sorted(kinds.items()))
            parts.append(f"{title}: {named}" if named else f"nothing {title}")
        parts += self.remarks
        return printable(f"{self.category}: {'; '.join(parts)}.")


LEFT_OVER: Mapping[LeftOverKind, tuple[str, str]] = {
    "hidden": ("hidden", "Nothing: what other programs leave counts as hidden, too."),
    "ignored_files": ("not named like images", "Nothing, unless they should be images."),
    "unused": (
        "for other purposes",
        "Nothing: they are for validation, private, or masks of defect-free photographs.",
    ),
    "unlabelled": (
        "photographs without a label",
        "They are left out: label them, or say with --unlabelled good that they show no defect.",
    ),
    "orphan_masks": (
        "masks without a photograph",
        "Check the names: a mask is called like its photograph, with or without a suffix such as _mask.",
    ),
    "unread_format": ("photographs in a format that is not read", "Save them as PNG, TIFF or JPEG."),
    "not_found": (
        "images or folders of images where none are looked for",
        "Move photographs directly into train/good and test/DEFECT (or the folder given), masks into "
        "ground_truth/DEFECT; take the rest out.",
    ),
}
"""What a kind of entry that is not used is called, and what to do about it."""


class Entries(NamedTuple):
    """What is directly inside a folder, each sorted."""

    images: list[Path]  # by their ending, links that lead nowhere among them: reading them says so
    folders: list[Path]
    left_over: list[LeftOver]  # hidden entries, and other files


def list_entries(folder: Path) -> Entries:
    """Tell images, folders, and what is neither; of a folder that is not there, nothing."""
    found = Entries([], [], [])
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.name.startswith(".") or path.name.lower() in _LEFT_BY_PROGRAMS:
            found.left_over.append(LeftOver(path, "hidden"))
        elif path.is_dir():
            found.folders.append(path)
        elif path.suffix.lower() in IMAGE_EXTENSIONS:
            found.images.append(path)
        elif path.is_symlink() and not path.exists():
            # What the link stands for, a folder of photographs perhaps, nobody can tell.
            found.left_over.append(LeftOver(path, "not_found"))
        elif path.suffix.lower() in _UNREAD_EXTENSIONS:
            found.left_over.append(LeftOver(path, "unread_format"))
        else:
            found.left_over.append(LeftOver(path, "ignored_files"))
    return found


def walk_entries(root: Path) -> Iterator[tuple[Path, Entries]]:
    """Yield a folder and those below it, in order, each with its entries; what is taken out of `folders` is left out.

    Links are followed, since large sets are often linked to. Each folder comes once, even if links lead back to it.
    """
    pending, seen = [root], set()
    while pending:
        folder = pending.pop()
        place = folder.resolve()
        if place not in seen:
            seen.add(place)
            entries = list_entries(folder)
            yield folder, entries
            pending += reversed(entries.folders)


def files_below(folder: Path) -> list[Path]:
    """Return all files in a folder and those below it that are not hidden, sorted."""
    return sorted(
        path
        for _, entries in walk_entries(folder)
        for path in (*entries.images, *(entry.path for entry in entries.left_over if entry.kind != "hidden"))
    )


def left_over_folder(folder: Path, kind: LeftOverKind = "not_found") -> list[LeftOver]:
    """Account for a folder in which nothing is looked for: as one entry, and as ignored if no image is inside."""
    images = sum(len(entries.images) for _, entries in walk_entries(folder))
    return [LeftOver(folder, kind if images else "ignored_files", images)]


def read_csv(path: Path | str) -> list[dict[str, str]]:
    """Read a table in UTF-8 with a header, as rows by column; cells that a row lacks are empty.

    Columns are separated by commas, or by the semicolons or tabs of the header: spreadsheets write those too.

    Raises:
        ValueError: it is no such table.
    """
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as stream:
            header = stream.readline()
            stream.seek(0)
            table = csv.DictReader(stream, restval="", delimiter=max(",;\t", key=header.count))
            table.fieldnames = [name.strip() for name in table.fieldnames or ()]
            rows = []
            for row in table:
                if any(row.pop(None, ())):  # type: ignore[call-overload]
                    raise ValueError(f"more cells than columns in line {table.line_num}")
                if any(cell.strip() for cell in row.values()):
                    rows.append(row)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"no table in UTF-8 ({error})") from error
    return rows


def normalised(name: str) -> str:
    """Return a name in Unicode's composed form (NFC): macOS stores a, Windows and Linux another form of the same."""
    return unicodedata.normalize("NFC", name)


def is_folder_name(name: str) -> bool:
    """Tell whether a category or a kind of defect may be called so: in any script, as a folder on any system."""
    return (
        is_one_line(name)
        and 0 < len(name.encode()) <= _LONGEST_NAME
        and not name.startswith((".", " "))
        and not name.endswith((".", " "))
        and not _NOT_IN_A_NAME.intersection(name)
    )


def is_one_line(name: str) -> bool:
    """Tell whether a list of names, one a line, can hold a name: no control characters, nothing that is no Unicode."""
    return not any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in name)


def printable(text: str) -> str:
    """Escape what would steer a terminal or cannot be encoded: control characters, ends of lines, broken Unicode."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape", "surrogatepass").decode("ascii")
        for character in text
    )


def is_hub_id(source: Path | str) -> bool:
    """Tell whether `source` is no path here and has the form `user/name` of a repository on the Hub."""
    return not Path(source).exists() and _REPO_ID.fullmatch(Path(source).as_posix()) is not None


def content_of(image: Mapping[str, Any], row: str) -> bytes:
    """Return an image's bytes as a row of a set on the Hub holds them, undecoded.

    Raises:
        DataError: (`hub`) if it holds a path instead: whoever wrote the row would choose a file of this machine.
    """
    content = image["bytes"]
    if not isinstance(content, bytes):
        raise DataError(
            "hub",
            row,
            found=f"a row whose image is the path {image['path']!r}, without its content",
            expected="images as bytes, as push_to_hub writes them",
            advice="Do not use this data set, or ask its authors to embed the images.",
        )
    return content


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
        for path in (record.image_path, *record.masks):
            if path.exists():
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
