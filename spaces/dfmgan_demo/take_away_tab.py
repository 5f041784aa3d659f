"""The tab that makes ZIP files."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import gradio as gr
from cache_files import new_download
from draw_tab import DrawSettings
from events import OWN_EVENT, QUICK_EVENT
from limits import MAX_EXPORTED
from refusals import in_words, say_if_busy
from snippet import export_command
from studio import Studio
from take_away import LAYOUTS_IN_WORDS, write_archive

INTRO = (
    "A ZIP of pictures with masks and defect-free twins, drawn with the model, seed and fine tuning of the first tab. "
    "Parts that came out without a defect are left out and others drawn instead."
)


def build_take_away_tab(studio: Studio, settings: DrawSettings) -> None:
    """Build the tab; it starts from the settings of the first one."""
    with gr.Column(elem_id="take-away"):
        gr.Markdown(INTRO)
        count = gr.Slider(1, MAX_EXPORTED, value=50, step=1, label="How many", buttons=[], elem_id="export-count")
        layout = gr.Radio(
            [(f"{name}: {text}", name) for name, text in LAYOUTS_IN_WORDS.items()],
            value=next(iter(LAYOUTS_IN_WORDS)),
            label="Layout",
            elem_id="layout",
        )
        with gr.Row():
            export_button = gr.Button("Make the ZIP", variant="primary", elem_id="export-button")
            cancel_button = gr.Button("Cancel", interactive=False, elem_id="cancel-button")
        said = gr.HTML("", elem_id="zip-status")
        archive = gr.File(label="Your ZIP", interactive=False, height=120, elem_id="archive")
        command = gr.Code(
            language="shell",
            label="The same files, and as many as you like, without this page",
            interactive=False,
            visible=False,
            elem_id="command",
        )

    def export(
        name: Any,
        truncation_psi: Any,
        threshold: Any,
        seed: Any,
        count: Any,
        layout: Any,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 - how gradio knows that it is wanted
    ) -> Generator[list[Any], None, None]:
        settings = studio.settings(name, truncation_psi, threshold)
        config = studio.export(settings, count, seed, layout)
        as_command = gr.Code(export_command(studio.catalog, settings.model, config), visible=True)
        with new_download(archive, f"{config.category}_{config.num_images}.zip") as path:
            for done in write_archive(path, studio.drawer, settings.model, config):
                progress((done, config.num_images), desc="Drawing", unit="parts")
                yield [None, as_command, ""]
        yield [str(path), as_command, ""]

    def buttons_while(working: bool) -> list[gr.Button]:
        return [gr.Button(interactive=not working), gr.Button(interactive=working)]

    buttons = [export_button, cancel_button]
    started = export_button.click(lambda: [*buttons_while(True), ""], None, [*buttons, said], **QUICK_EVENT)
    exporting = started.then(
        in_words(export, said),
        [settings.model, settings.truncation_psi, settings.mask_threshold, settings.seed, count, layout],
        [archive, command, said],
        show_progress_on=archive,
        **{**OWN_EVENT, "concurrency_id": "export"},
    )
    say_if_busy(exporting, said)
    # A full queue counts as a failure that nothing comes after.
    for ended in (exporting.then, exporting.failure):
        ended(lambda: buttons_while(False), None, buttons, **QUICK_EVENT)
    cancel_button.click(
        lambda: [*buttons_while(False), None], None, [*buttons, archive], cancels=exporting, **QUICK_EVENT
    )
