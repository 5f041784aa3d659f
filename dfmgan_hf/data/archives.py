"""Unpack archives that nobody vouches for: once, only images and texts, within bounds of time, memory and disk."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
import stat
import struct
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from filelock import FileLock

from ..files import whole_folder
from .layouts import category_folders, metadata_files
from .records import IMAGE_EXTENSIONS, DataError, list_entries

_TEXT_EXTENSIONS = frozenset({".txt", ".md", ".csv", ".jsonl", ".json", ".xml", ".yaml", ".yml", ".names"})
_CHUNK = 2**20
_LARGEST_HEADER = 2**18
_MOST_MEMBERS = 200_000
_DEEPEST, _LONGEST = 32, 1000  # folders in a member's name, and characters
# Images hardly compress: what unpacks to more than this is no archive of images.
_RATIO, _ALWAYS_ALLOWED = 200, 2**28
# Unpacking may take so long, and so much longer for each MiB of the archive: slow disks and compressions do with that.
_SECONDS, _SECONDS_PER_MIB = 300, 5
_DAMAGE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, EOFError, struct.error)
_MAGIC: dict[bytes, Callable[[IO[bytes]], Any]] = {
    b"\xfd7zXZ\0": lzma.LZMAFile,
    b"\x5d\0\0": lzma.LZMAFile,
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
}


def default_cache_dir() -> Path:
    """Return where archives and Hub data sets are unpacked unless told otherwise: beside the caches of `datasets`."""
    from datasets import config

    return Path(config.HF_DATASETS_CACHE) / "dfmgan_hf"


def make_once(folder: Path, fill: Callable[[Path], None]) -> Path:
    """Make a folder of a cache, whole or not at all, unless it is there; other processes that need it wait."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            with whole_folder(folder) as aside:
                fill(aside)
    return folder


def extract_archive(archive: Path, cache_dir: Path | None = None, max_bytes: int = 64 * 2**30) -> Path:
    """Extract a zip or tar archive (xz, gz, bz2 or plain) of images below `cache_dir`, and return the folder.

    That is done once, unless the archive's size or time changes. Only regular files with the ending of an image or a
    text are written. A member that points outside the folder, a link, a device or a sparse file stops the extraction,
    and so do names that are very deep or come twice, and more than `max_bytes`, or more than an archive of images of
    this size can hold; nothing half-extracted is left behind.

    Raises:
        DataError: (`archive`) that names the archive and the member.
    """
    status = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = (cache_dir or default_cache_dir()) / f"{archive_name(archive)}-{key}"
    return make_once(target, lambda folder: _extract(archive, folder, max_bytes))


def archive_name(archive: Path) -> str:
    """Return an archive's name without its ending, which may have two parts, such as .tar.gz."""
    name = archive.with_suffix("")
    return name.stem if name.suffix.lower() == ".tar" else name.name


def unpacked(path: Path, cache_dir: Path | str | None = None) -> Path:
    """Return the folder itself, or that of an archive's content, without the folder that wraps it all, if any."""
    if not path.is_file():
        return path
    folder = extract_archive(path, None if cache_dir is None else Path(cache_dir))
    entries = list_entries(folder).folders
    if len(entries) == 1 and (category_folders(entries[0]) or metadata_files(entries[0])):
        return entries[0]
    return folder


class _Clock:
    """Stops what takes longer than an archive of images can: a small one that costs hours of decompression."""

    def __init__(self, archive: Path, seconds: float) -> None:
        self.archive, self.seconds, self.end = archive, seconds, time.monotonic() + seconds

    def check(self) -> None:
        """Raise a DataError (`archive`) if the time is up."""
        if time.monotonic() > self.end:
            found, expected = (
                f"more than {self.seconds:.0f} seconds of unpacking",
                "an archive of images, plainly packed",
            )
            raise _bad_archive(self.archive, found, expected)


class _Member(NamedTuple):
    name: str
    size: int
    is_plain: bool  # a file or folder: no link, no device, nothing sparse
    is_file: bool
    open: Callable[[], IO[bytes]]


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    size = archive.stat().st_size
    limit = min(max_bytes, _ALWAYS_ALLOWED + _RATIO * size)
    clock = _Clock(archive, _SECONDS + _SECONDS_PER_MIB * size / 2**20)
    total, is_empty = 0, True
    try:
        with archive.open("rb") as stream:
            members = _zip_members if stream.read(4) in (b"PK\3\4", b"PK\5\6") else _tar_members
            stream.seek(0)
            for number, member in enumerate(members(archive, stream, limit, clock)):
                path = _checked_path(archive, member)
                total += member.size  # also of what is not written: it takes time
                if total > limit:
                    raise _too_much(archive, limit)
                if number >= _MOST_MEMBERS:
                    raise _bad_archive(archive, f"more than {_MOST_MEMBERS} members", "fewer images")
                if not member.is_file or path.suffix.lower() not in IMAGE_EXTENSIONS | _TEXT_EXTENSIONS:
                    continue
                destination = folder / path
                if destination.is_file():
                    raise _bad_archive(archive, f"the member {member.name!r} twice", "a name for each member")
                destination.parent.mkdir(parents=True, exist_ok=True)
                is_empty = False
                with member.open() as source, destination.open("xb") as file:
                    while chunk := source.read(_CHUNK):
                        clock.check()
                        file.write(chunk)
        if is_empty:
            expected = "images; an archive inside of an archive is not unpacked"
            raise _bad_archive(archive, "no image and no text in it", expected)
    except DataError:
        raise
    # Value and lookup errors: headers that tarfile trusts. Runtime errors: recursion, a password, unknown compression.
    except (*_DAMAGE, ValueError, LookupError, RuntimeError) as error:
        raise _damaged(archive, str(error)) from error
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise on damaged data
            raise _damaged(archive, str(error)) from error
        raise DataError(
            "archive",
            archive,
            found=f"a member that cannot be written ({error})",
            expected=f"names that the file system allows, and space and permission to write in {folder.parent}",
            advice="Fix that, or extract it yourself and give the folder.",
        ) from error


def _zip_members(archive: Path, stream: IO[bytes], limit: int, clock: _Clock) -> Iterator[_Member]:
    with zipfile.ZipFile(stream) as file:
        for info in file.infolist():
            kind = stat.S_IFMT(info.external_attr >> 16)
            yield _Member(
                info.orig_filename.rstrip("/") if info.is_dir() else info.orig_filename,
                info.file_size,
                is_plain=kind in (0, stat.S_IFREG, stat.S_IFDIR),
                is_file=not info.is_dir(),
                open=lambda info=info: file.open(info),  # type: ignore[misc]
            )


class _Tape(io.RawIOBase):
    """What tarfile reads from: forwards alone, in pieces of bounded size, up to a limit.

    tarfile believes what headers say: it would read one of gigabytes at once, go back for ever where a size is
    negative, and collect lists of holes for as long as there are blocks.
    """

    def __init__(self, archive: Path, stream: IO[bytes], limit: int, clock: _Clock) -> None:
        magic = stream.read(6)
        stream.seek(0)
        opener = next((opener for start, opener in _MAGIC.items() if magic.startswith(start)), lambda plain: plain)
        self.archive, self.stream, self.limit, self.clock = archive, opener(stream), limit, clock
        self.position = 0
        self.header_left: int | None = None  # bytes that tarfile may still read to find the next member

    def tell(self) -> int:
        return self.position

    def read(self, size: int = -1) -> bytes:
        if not 0 <= size <= _CHUNK or (self.header_left is not None and size > self.header_left):
            raise _damaged(self.archive, f"a header of more than {_LARGEST_HEADER} bytes, or of a negative size")
        self._check(self.position + size)
        data: bytes = self.stream.read(size)
        self.position += len(data)
        if self.header_left is not None:
            self.header_left -= len(data)
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        if whence or position < self.position:
            raise _damaged(self.archive, "a member of a negative size")
        self._check(position)
        while self.position < position:
            self.clock.check()
            skipped = len(self.stream.read(min(_CHUNK, position - self.position)))
            if not skipped:
                break
            self.position += skipped
        return self.position

    def _check(self, position: int) -> None:
        self.clock.check()
        # Headers and padding come on top of what is counted as content.
        if position > 2 * self.limit + _ALWAYS_ALLOWED:
            raise _too_much(self.archive, self.limit)


def _tar_members(archive: Path, stream: IO[bytes], limit: int, clock: _Clock) -> Iterator[_Member]:
    tape = _Tape(archive, stream, limit, clock)
    tape.header_left = _LARGEST_HEADER
    try:
        tar = tarfile.open(fileobj=tape, mode="r:")  # noqa: SIM115 (it holds nothing but the stream)
    except tarfile.ReadError as error:
        raise _damaged(archive, "no tar or zip archive, such as 7z or rar, or damaged at its beginning") from error
    while (member := tar.next()) is not None:
        tar.members = []  # type: ignore[attr-defined]  # or else it keeps them all
        if member.size < 0 or len(tar.pax_headers) > _DEEPEST:
            raise _damaged(archive, "a member of a negative size, or headers without end")
        tape.header_left = None
        yield _Member(
            member.name,
            member.size,
            is_plain=(member.isfile() or member.isdir()) and not member.issparse(),
            is_file=member.isfile(),
            open=lambda member=member: tar.extractfile(member),  # type: ignore
        )
        tape.seek(max(tape.position, tar.offset))  # type: ignore[attr-defined]
        tape.header_left = _LARGEST_HEADER
    # Nothing but zeros, and at least a block of them, may be left where tarfile saw the end: it takes a damaged header
    # for the end as well. Reading on also checks the sums that compression adds at the end.
    tape.header_left = None
    num_left = 0
    while rest := tape.read(_CHUNK):
        num_left += len(rest)
        if any(rest):
            raise _damaged(archive, "a header amid the files is not one")
    if num_left < tarfile.BLOCKSIZE:
        raise _damaged(archive, "it breaks off without an end")


def _checked_path(archive: Path, member: _Member) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or any(character in member.name for character in "\\:\0"):
        raise _bad_archive(archive, f"the member {member.name!r}, which points outside", "paths inside the archive")
    if len(path.parts) > _DEEPEST or len(member.name) > _LONGEST:
        expected = f"at most {_DEEPEST} folders and {_LONGEST} characters"
        raise _bad_archive(archive, f"a member {len(path.parts)} folders deep, {member.name[:60]!r}...", expected)
    if not member.is_plain:
        found = f"the member {member.name!r}, a link or device, or sparse"
        raise _bad_archive(archive, found, "files and folders only")
    return path


def _too_much(archive: Path, limit: int) -> DataError:
    return _bad_archive(archive, f"more than {limit} bytes when unpacked", f"at most {limit} bytes of images")


def _damaged(archive: Path, reason: str) -> DataError:
    expected = "a whole zip, tar.xz, tar.gz or tar file"
    return _bad_archive(archive, f"an archive that does not unpack ({reason})", expected)


def _bad_archive(archive: Path, found: str, expected: str) -> DataError:
    return DataError(
        "archive",
        archive,
        found=found,
        expected=expected,
        advice="Download it again from a source you trust, or extract it yourself and give the folder.",
    )
