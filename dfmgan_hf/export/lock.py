"""Keeps a second start of the same export out of its folder while the first is running."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import Accelerator
from filelock import FileLock, Timeout

from .config import RECORD_DIR
from .errors import ExportError

LOCK_FILE = f"{RECORD_DIR}/.lock"


@contextmanager
def only_run(output_dir: Path, accelerator: Accelerator) -> Iterator[None]:
    """Holds the export's folder, in all processes of this run.

    Two runs write a file under the same name aside: one would truncate what the other is about to put in place. The
    lock goes with the process that holds it, so a killed run leaves none.

    Args:
        output_dir: Folder of an export that was begun.
        accelerator: Every process of the run calls this.

    Raises:
        ExportError: another run holds it.
    """
    lock = FileLock(output_dir / LOCK_FILE)
    is_taken = torch.zeros(1, dtype=torch.int64, device=accelerator.device)
    if accelerator.is_main_process:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            is_taken += 1
        except NotImplementedError:  # a file system without locks: nothing tells of a second run there
            pass
    # All processes have to know, or the others would begin to draw.
    if int(accelerator.reduce(is_taken, reduction="sum")):  # type: ignore[arg-type]
        raise ExportError(
            output_dir,
            found="another run that writes to it",
            expected="one run at a time",
            advice="Wait until it has ended, or end it; then the same command goes on where it stopped.",
        )
    try:
        yield
    finally:
        if lock.is_locked:
            (output_dir / LOCK_FILE).unlink(missing_ok=True)
            lock.release()
