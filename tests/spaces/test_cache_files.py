"""Downloads go when they are old or too many, whatever the server does meanwhile."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import gradio as gr
import pytest


@pytest.fixture
def page(monkeypatch, tmp_path):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "cache"))
    with gr.Blocks() as page:
        page.file = gr.File()
    return page


def _handed_out(page, name: str, *, age_s: float = 0, num_bytes: int = 10) -> Path:
    from cache_files import new_download

    with new_download(page.file, name) as path:
        path.write_bytes(bytes(num_bytes))
    os.utime(path, (time.time() - age_s,) * 2)
    return path


def test_old_files_go_with_their_folders_and_are_forgotten(page):
    from cache_files import sweep

    old, young = _handed_out(page, "old", age_s=100), _handed_out(page, "young", age_s=20)
    page.file.temp_files.add("/removed/by/someone/else")
    sweep(page, max_age_s=50, max_bytes=1000)
    assert not old.parent.exists()
    assert young.is_file()
    assert page.file.temp_files == {str(young)}
    sweep(page, max_age_s=0, max_bytes=1000)
    assert list(Path(page.file.GRADIO_CACHE).iterdir()) == []


def test_the_oldest_of_too_many_go(page):
    from cache_files import sweep

    files = [_handed_out(page, str(age), age_s=age) for age in (30, 10, 20)]
    sweep(page, max_age_s=100, max_bytes=25)
    assert [file.exists() for file in files] == [False, True, True]


def test_files_of_the_page_itself_stay(page):
    from cache_files import sweep

    file = _handed_out(page, "logo", age_s=100)
    page.file.keep_in_cache.add(str(file))
    sweep(page, max_age_s=50, max_bytes=0)
    assert file.is_file()


def test_sweeping_goes_on_while_answers_add_files(page):
    """Where gradio's own removal ends with "Set changed size during iteration"."""
    from cache_files import sweep

    for i in range(2000):
        page.file.temp_files.add(f"/no/such/file/{i}")
    over = threading.Event()

    def answer() -> None:
        i = 0
        while not over.is_set():
            page.file.temp_files.add(f"/nor/this/{i}")
            i += 1
            time.sleep(1e-4)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        for _ in range(30):
            sweep(page, max_age_s=50, max_bytes=1000)
    finally:
        over.set()
        thread.join()
    sweep(page, max_age_s=50, max_bytes=1000)
    assert page.file.temp_files == set()


def test_a_file_that_does_not_come_about_leaves_no_folder(page):
    from cache_files import new_download

    with pytest.raises(KeyError), new_download(page.file, "walk.webp"):
        raise KeyError
    assert list(Path(page.file.GRADIO_CACHE).iterdir()) == []


def test_at_the_end_nothing_is_left(page):
    from cache_files import downloads_swept

    with downloads_swept(page):
        file = _handed_out(page, "zip")
    assert not file.parent.exists()
