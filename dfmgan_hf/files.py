"""Write files and folders that are either whole or absent, and tell by a hash which file or weights these are.

Everything is written beside its place first, under one fixed name (".NAME.partial"), and then renamed. What a killed
program left there is written over by the next attempt, so no litter piles up among a user's data.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from torch import Tensor, nn

TRAINING_FILE = "training_config.json"
"""In a model's folder: settings and results of the training that made it."""
BEST_FOLDER = "best"
SCORE_FILE = "score.json"
"""In the folder of a run's best model: which of its checkpoints this is."""


@contextlib.contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield the path to write to; the file takes its place at the end, or disappears if an error is raised.

    Folders above it are made. An existing file is replaced.

    Example:
        >>> with whole_file("table.csv") as aside:
        ...     aside.write_text("a,b")
    """
    path = Path(path)
    make_folder(path.parent)
    aside = partial_of(path)
    mode = _mode_of_new(aside)
    try:
        yield aside
        _open_up(aside, mode)
        os.replace(aside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def write_bytes(path: Path | str, content: bytes) -> None:
    """Write a file whole."""
    with whole_file(path) as aside:
        aside.write_bytes(content)


def write_text(path: Path | str, text: str) -> None:
    """Write a UTF-8 text file whole, with the line endings of `text`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path | str, value: Any) -> None:
    """Write a value as indented JSON, whole."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"
    # File names need not be Unicode; what is not is escaped as JSON does it.
    write_bytes(path, text.encode("utf-8", "backslashreplace"))


def keep_settings(path: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Write what a folder is begun with, or compare it with what an earlier run wrote there.

    Returns:
        The settings that the folder was begun with, and the names of those that are others now, or no longer there.

    Raises:
        ValueError: the file is damaged.
    """
    if not path.is_file():
        write_json(path, settings)
        return settings, []
    try:
        begun = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is empty or damaged ({error}), so that nobody can tell what the folder was begun with: restore "
            "the file from a copy, or name a new folder."
        ) from error
    return begun, [name for name in settings | begun if begun.get(name) != settings.get(name)]


def to_json(value: Any) -> Any:
    """Return dataclasses, paths and types as what JSON can hold; numbers that are not finite become None."""
    if is_dataclass(value) and not isinstance(value, type):
        return to_json(asdict(value))
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, (int, str)) else str(value)


@contextlib.contextmanager
def whole_folder(path: Path | str, *, replace: bool = False, durable: bool = False) -> Iterator[Path]:
    """Yield an empty folder to fill; it takes its place at the end, or disappears if an error is raised.

    Args:
        path: the folder to be. Folders above it are made.
        replace: put it in the place of a folder that exists. The old one goes when the new one stands;
            `recover_folder` brings it back if the program is killed between the two.
        durable: wait until the disk has everything, so that it survives a power cut too.

    Raises:
        FileExistsError: there is a file of that name, or a folder that is not empty, and `replace` is false; or a disk
            is mounted there.
        BlockingIOError: another run is writing it.
    """
    path = Path(os.path.realpath(path))  # or a link would be replaced, and what it leads to be left for good
    aside, replaced = partial_of(path), _replaced_of(path)
    _check_place(path, replace)
    with lock_folder(aside, title=path):
        try:
            _check_place(path, replace)  # which another run may have filled meanwhile
            for litter in aside.iterdir():
                shutil.rmtree(litter) if litter.is_dir() and not litter.is_symlink() else litter.unlink()
            if replaced.exists() and not path.exists():
                os.replace(replaced, path)
            mode = _mode_of_new(aside / ".mode")
            yield aside
            for file in aside.rglob("*"):
                if file.is_file() and not file.is_symlink():
                    _open_up(file, mode)
            if durable:
                for file in aside.rglob("*"):
                    _sync(file)
                _sync(aside)
            if path.exists():
                shutil.rmtree(replaced, ignore_errors=True)
                os.replace(path, replaced)
            os.replace(aside, path)
            if durable:
                _sync(path.parent)
            shutil.rmtree(replaced, ignore_errors=True)
        except BaseException:
            recover_folder(path)
            raise


def _mode_of_new(path: Path) -> int:
    """The permissions that the umask gives a new file: safetensors and tempfile make theirs for their owner alone."""
    path.unlink(missing_ok=True)
    path.touch()
    mode = path.stat().st_mode
    path.unlink()
    return mode


def _open_up(file: Path, mode: int) -> None:
    present = file.stat().st_mode
    if present | mode != present:
        with contextlib.suppress(OSError):  # some disks have no permissions to set
            file.chmod(present | mode)


def _check_place(path: Path, replace: bool) -> None:
    if path.exists() and (not path.is_dir() or (not replace and any(path.iterdir()))):
        raise FileExistsError(f"{path} exists already; name a new folder.")
    if os.path.ismount(path):
        raise FileExistsError(f"{path} is a mounted disk, which nothing can take the place of; name a folder in it.")


@contextlib.contextmanager
def lock_folder(path: Path | str, *, title: Path | str | None = None) -> Iterator[None]:
    """Keep every other run that asks for it out of a folder, which is made if missing, until the block ends.

    The system takes the lock from a run that ends, also from one that is killed. It lies on the folder itself, and no
    file is left in it; where that cannot be (Windows, some network disks), on an empty file beside it.

    Args:
        path: the folder.
        title: what the error calls it.

    Raises:
        BlockingIOError: another run has it.

    Example:
        >>> with lock_folder("runs/part"):
        ...     write_text("runs/part/log.txt", "mine alone")
    """
    path = Path(os.path.abspath(path))
    make_folder(path)
    busy = f"Another run is writing to {title or path}. Wait until it has ended, or name another folder."
    with contextlib.ExitStack() as stack:
        try:
            import fcntl

            descriptor = os.open(path, os.O_RDONLY)
            stack.callback(os.close, descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Between the two lines, the folder may have been renamed and its lock let go.
            if not path.exists() or not os.path.samestat(os.fstat(descriptor), path.stat()):
                raise BlockingIOError(busy)
        except BlockingIOError:
            raise BlockingIOError(busy) from None
        except (ImportError, OSError):
            try:
                stack.enter_context(FileLock(path.with_name(f".{path.name}.lock"), timeout=0))
            except Timeout:
                raise BlockingIOError(busy) from None
        yield


def check_folder(path: Path) -> None:
    """Raise NotADirectoryError if a file is in the way of a folder."""
    for folder in (path, *path.parents):
        if folder.exists() and not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file, but a folder is needed. Name another one.")


def make_folder(path: Path) -> None:
    """Make a folder and those above it; errors as `check_folder`."""
    check_folder(path)
    path.mkdir(parents=True, exist_ok=True)


def recover_folder(path: Path) -> None:
    """Undo what a killed `whole_folder` left: bring back what it was about to replace, remove what is half-written."""
    path = Path(os.path.realpath(path))
    aside, replaced = partial_of(path), _replaced_of(path)
    if replaced.exists() and not path.exists():
        os.replace(replaced, path)
    for folder in (aside, replaced):
        shutil.rmtree(folder, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Remove a folder such that a removal cut short leaves no damaged one under its name."""
    replaced = _replaced_of(path)
    shutil.rmtree(replaced, ignore_errors=True)
    os.replace(path, replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def partial_of(path: Path) -> Path:
    """Return where a file or folder is written before it takes its place."""
    return path.with_name(f".{path.name}.partial")


def _replaced_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def file_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a file's content, in hex."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def module_sha256(module: nn.Module) -> str:
    """Return the SHA-256 over names, types, shapes and bytes of a module's parameters and buffers, in hex."""
    return tensors_sha256(module.state_dict())


def tensors_sha256(tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the names, types, shapes and bytes of tensors, whatever their order, in hex."""
    import torch

    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those of the packages that are installed, for records."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _sync(path: Path) -> None:
    """Wait until the disk has a file's content or a folder's entries, where the system opens folders at all."""
    try:
        # Windows syncs only what may be written.
        descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    except PermissionError:
        if path.is_dir():
            return
        raise
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
