"""Files that the server makes for a download, and their removal."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import gradio as gr
from gradio.components import Component

SWEEP_SECONDS = 60
MAX_AGE_SECONDS = 1800
# Two hundred triplets of 1024 x 1024 pixels are half of it.
MAX_BYTES = 2 * 2**30
# Photographs and brush strokes; a visit has about ten.
MAX_UPLOADS = 1000


@contextmanager
def new_download(component: Component, name: str) -> Iterator[Path]:
    """Path of a new file that `component` will hand out, to be written inside the `with` block.

    It lies in the component's own cache, so that gradio serves it without a second copy. If the block is left without
    the file, nothing of it stays.
    """
    folder = Path(component.GRADIO_CACHE).resolve() / uuid.uuid4().hex
    folder.mkdir(parents=True)
    try:
        yield folder / name
    finally:
        if (folder / name).is_file():
            # Gradio does so when it hands the file out, which a visitor who has left meanwhile prevents.
            component.temp_files.add(str(folder / name))
        else:
            shutil.rmtree(folder, ignore_errors=True)


def address_of(path: Path) -> str:
    """Where the page gets such a file."""
    return f"gradio_api/file={quote(str(path))}"


@contextmanager
def downloads_swept(page: gr.Blocks) -> Iterator[None]:
    """While in this block, remove the page's old downloads once a minute, and all of them at its end.

    Gradio's own `delete_cache` walks a set of names while answers add to it. On a busy server that raises, its task
    ends, and from then on nothing is removed any more; it also leaves every folder behind.
    """
    over = threading.Event()

    def keep_sweeping() -> None:
        while not over.wait(SWEEP_SECONDS):
            sweep(page, MAX_AGE_SECONDS, MAX_BYTES)

    sweeper = threading.Thread(target=keep_sweeping, name="sweeper", daemon=True)
    sweeper.start()
    try:
        yield
    finally:
        over.set()
        sweeper.join()
        sweep(page, max_age_s=0, max_bytes=0)


def sweep(page: gr.Blocks, max_age_s: float, max_bytes: int) -> None:
    """Remove the files that the page has handed out or taken in and that are too old, and the oldest of too many.

    Args:
        page: knows the files.
        max_age_s: older files go, in seconds.
        max_bytes: of the others, the oldest go until so many bytes are left.
    """
    kept = {file for block in page.blocks.values() for file in getattr(block, "keep_in_cache", ())}
    # Each set is copied in one step, because answers add to it in other threads.
    names = {name for files in page.temp_file_sets for name in files.copy()} - kept
    youngest_first, gone = [], set()
    for name in names:
        try:
            facts = os.stat(name)
        except FileNotFoundError:
            gone.add(name)
        else:
            youngest_first.append((facts.st_mtime, facts.st_size, name))
    now, num_bytes = time.time(), 0
    for modified, size, name in sorted(youngest_first, reverse=True):
        num_bytes += size
        if now - modified >= max_age_s or num_bytes > max_bytes:
            remove(Path(name))
            gone.add(name)
    for files in page.temp_file_sets:
        files.difference_update(gone)


def sweep_uploads(page: gr.Blocks) -> None:
    """Remove the oldest uploads, so that half of those that are allowed are left."""
    by_age = []
    for name in page.upload_file_set.copy():
        with suppress(FileNotFoundError):
            by_age.append((os.stat(name).st_mtime, name))
    gone = [name for _, name in sorted(by_age)[: max(len(by_age) - MAX_UPLOADS // 2, 0)]]
    for name in gone:
        remove(Path(name))
    page.upload_file_set.difference_update(gone)


def remove(file: Path) -> None:
    """Remove a file of the cache, and its folder if that is empty then."""
    file.unlink(missing_ok=True)
    with suppress(OSError):
        # Each file has a folder of its own, but for the same picture under another name.
        file.parent.rmdir()
