"""Extract a downloaded archive once, and only what belongs to a data set."""

from __future__ import annotations

import hashlib
import lzma
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from filelock import FileLock

from ..files import whole_folder
from .errors import DataError
from .mvtec_layout import category_folders
from .records import IMAGE_EXTENSIONS

_TEXT_EXTENSIONS = frozenset({".txt", ".md", ".csv", ".jsonl"})


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
    """Extract a tar archive (xz, gz, bz2 or plain) of images, unless that has been done before.

    Only regular files with the ending of an image or a text are written. A member that points outside the folder, a
    link or a device stops the extraction; nothing half-extracted is left behind.

    Args:
        archive: The archive; a change of its size or time makes a new extraction.
        cache_dir: Folder under which it is extracted; None for `default_cache_dir`.
        max_bytes: Limit of the extracted size.

    Returns:
        The folder that holds the archive's content.

    Raises:
        DataError: (`archive`) that names the archive and the member.
    """
    status = archive.stat()
    key = hashlib.sha256(f"{archive.resolve()} {status.st_size} {status.st_mtime_ns}".encode()).hexdigest()[:16]
    target = (cache_dir or default_cache_dir()) / f"{archive.name.split('.')[0]}-{key}"
    return make_once(target, lambda folder: _extract(archive, folder, max_bytes))


def unpacked(path: Path, cache_dir: Path | str | None = None) -> Path:
    """Return the folder itself, or that of an archive's content, without the folder that wraps it all, if any."""
    if not path.is_file():
        return path
    folder = extract_archive(path, None if cache_dir is None else Path(cache_dir))
    entries = [entry for entry in folder.iterdir() if entry.is_dir()]
    if len(entries) == 1 and category_folders(entries[0]):
        return entries[0]
    return folder


def _extract(archive: Path, folder: Path, max_bytes: int) -> None:
    extracted_bytes = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for member in tar:
                path = _checked_path(archive, member)
                if not member.isfile() or path.suffix.lower() not in IMAGE_EXTENSIONS | _TEXT_EXTENSIONS:
                    continue
                extracted_bytes += member.size
                if extracted_bytes > max_bytes:
                    raise _bad_archive(archive, f"more than {max_bytes} bytes", f"at most {max_bytes} bytes of images")
                source = tar.extractfile(member)
                assert source is not None  # only for members that are no regular files
                destination = folder / path
                destination.parent.mkdir(parents=True, exist_ok=True)
                with source, destination.open("wb") as stream:
                    shutil.copyfileobj(source, stream, 2**20)
            _check_end(archive, tar)
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        # tarfile lists on several lines how each compression it knows did not fit.
        reason = "no tar archive, or damaged at its beginning" if "\n" in str(error) else str(error)
        raise _damaged(archive, reason) from error
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise on damaged data
            raise _damaged(archive, str(error)) from error
        raise DataError(
            "archive",
            archive,
            found=f"a member that cannot be written ({error})",
            expected=f"names that a file system takes, and room and the right to write in {folder.parent}",
            advice="Mend that, or extract it yourself and give the folder.",
        ) from error


def _check_end(archive: Path, tar: tarfile.TarFile) -> None:
    """Check that nothing but zeros, and at least a block of them, is left where tarfile saw the end.

    It takes a damaged header for the end as well. Reading on also checks the sums that compression adds at the end.
    """
    assert tar.fileobj is not None  # only once closed
    num_left = 0
    while rest := tar.fileobj.read(2**20):
        num_left += len(rest)
        if any(rest):
            raise _damaged(archive, "a header amid the files is not one")
    if num_left < tarfile.BLOCKSIZE:
        raise _damaged(archive, "it breaks off without an end")


def _damaged(archive: Path, reason: str) -> DataError:
    return _bad_archive(archive, f"an archive that does not unpack ({reason})", "a whole tar.xz, tar.gz or tar file")


def _checked_path(archive: Path, member: tarfile.TarInfo) -> PurePosixPath:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or any(character in member.name for character in "\\:\0"):
        raise _bad_archive(archive, f"the member {member.name!r}, which points outside", "paths inside the archive")
    if not (member.isfile() or member.isdir()):
        raise _bad_archive(archive, f"the member {member.name!r}, a link or device", "files and folders only")
    return path


def _bad_archive(archive: Path, found: str, expected: str) -> DataError:
    return DataError(
        "archive",
        archive,
        found=found,
        expected=expected,
        advice="Download it again from where you trust it, or extract it yourself and give the folder.",
    )
