"""Draw defects in a browser: `python app.py --model FOLDER_OR_HUB_ID`, or as a Space on the Hub."""

from __future__ import annotations

import contextlib
import os

with contextlib.suppress(ImportError):
    import spaces  # noqa: F401 - ZeroGPU replaces parts of torch, so it comes before it

import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

import gradio as gr
import torch
import tyro
from cache_files import downloads_swept
from catalog import CatalogError, configured_sources, load_catalog
from gate import Gate, be_impatient
from limits import MAX_UPLOAD_BYTES
from page import build_page
from starlette.middleware import Middleware
from studio import Studio

HERE = Path(__file__).resolve().parent
MAX_WAITING = 40
# Gradio keeps 160 KiB of widgets for every session, and every request of an API client is one. Nothing is lost with
# a session: the page itself remembers what it shows.
MAX_SESSIONS = 100
# The visitor's own: nothing is fetched, and bold text has a bold face.
SYSTEM_FONTS = ("-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO_FONTS = ("ui-monospace", "Menlo", "Consolas", "monospace")


@dataclass
class Config:
    """What the page serves, and where."""

    model: list[str] = field(default_factory=list)
    """Models to choose among: FOLDER_OR_HUB_ID or NAME=FOLDER_OR_HUB_ID, as many as wanted. Without any: the list in
    the variable DFMGAN_MODELS (separated by commas), else the models in a folder `models` beside this file or at the
    top of the checkout."""
    host: str | None = None
    """Address to listen on; 127.0.0.1 unless gradio's own variable GRADIO_SERVER_NAME says otherwise."""
    port: int | None = None
    """Port; the first free one from 7860 on unless given here or as GRADIO_SERVER_PORT."""


def main(config: Config) -> None:
    """Load the models, build the page and serve it until interrupted."""
    # One core is left to the server: torch's threads spin while they wait for a core that something else has taken.
    torch.set_num_threads(max(1, (os.cpu_count() or 1) - 1))
    try:
        catalog = load_catalog(configured_sources(config.model))
    except CatalogError as error:
        sys.exit(f"error: {error}")
    studio = Studio(catalog)
    page = build_page(studio)
    studio.drawer.prepare_to_paint()
    page.queue(max_size=MAX_WAITING, api_open=False)
    be_impatient()
    # Whoever ends a container or a service sends this; gradio then closes as it does on Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with downloads_swept(page):
        page.launch(
            server_name=config.host,
            server_port=config.port,
            app_kwargs={"middleware": [Middleware(Gate, page=page)]},
            max_file_size=MAX_UPLOAD_BYTES,
            footer_links=["api", "settings"],
            run_history=False,
            enable_monitoring=False,
            state_session_capacity=MAX_SESSIONS,
            ssr_mode=False,
            theme=gr.themes.Default(primary_hue="blue", neutral_hue="slate", font=SYSTEM_FONTS, font_mono=MONO_FONTS),
            css_paths=HERE / "style.css",
            head=f"<script>{(HERE / 'page.js').read_text(encoding='utf-8')}</script>",
        )


if __name__ == "__main__":
    main(tyro.cli(Config))
