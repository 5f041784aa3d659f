"""Files that the server makes for a download."""

from __future__ import annotations

import uuid
from pathlib import Path

from gradio.components import Component


def new_download(component: Component, name: str) -> Path:
    """Path of a new file that `component` will hand out.

    It lies in the component's own cache, so that gradio serves it without a second copy and removes it with the rest
    of the cache (`delete_cache`).
    """
    folder = Path(component.GRADIO_CACHE).resolve() / uuid.uuid4().hex
    folder.mkdir(parents=True)
    return folder / name
