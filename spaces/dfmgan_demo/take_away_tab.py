"""The tab that draws whole data sets into ZIP files."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import gradio as gr
from cache_files import new_download
from draw_tab import DrawSettings, code_block, download
from events import BROWSER_EVENT, OWN_EVENT, QUICK_EVENT
from limits import MAX_EXPORTED
from refusals import in_words, say_at_once, say_if_busy
from snippet import export_command
from studio import Studio
from take_away import LAYOUTS_IN_WORDS, write_archive
from words import CANCELLED

INTRO = (
    "## A data set of new parts\n\n"
    "Up to 200 parts that are not on the page yet, each with a defect, its mask and its twin, drawn with the model, "
    "seed and fine tuning of the first tab. What you see there you take home there."
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
            export_button = gr.Button("Make the ZIP", variant="primary")
            cancel_button = gr.Button("Cancel", visible=False, elem_id="cancel-button")
        said = gr.HTML("", elem_id="zip-status", elem_classes="says")
        archive = gr.HTML("", elem_id="archive")
        command = gr.HTML("", elem_id="command")

    def export(
        name: Any, variety: Any, size: Any, strength: Any, seed: Any, count: Any, layout: Any
    ) -> Generator[list[Any]]:
        drawn_as = studio.worded(name, variety, size, strength)
        config = studio.export(drawn_as, count, seed, layout)
        which = "files" if drawn_as.strength == 1 else "parts, with defects of strength 1"
        as_command = f"<p>The same {which}, and as many as you like, without this page:</p>"
        as_command += code_block(export_command(studio.catalog, drawn_as.model, config))
        with new_download(archive, f"{config.category}_{config.num_images}_{config.format}.zip") as path:
            facts = studio.facts[drawn_as.model]
            writing = write_archive(path, studio.drawer, drawn_as.model, config, facts, drawn_as.strength)
            for done in writing:
                yield [_progress(done, config.num_images), as_command, ""]
        yield [download(path), as_command, ""]

    def buttons_while(working: bool) -> list[gr.Button]:
        return [gr.Button(interactive=not working), gr.Button(visible=working)]

    buttons = [export_button, cancel_button]
    say_at_once(export_button.click, "Waiting for a place…", said)
    started = export_button.click(
        lambda: [*buttons_while(True), ""],
        None,
        [*buttons, archive],
        js="() => { window.dfmgan.cancelled = false; return []; }",
        **QUICK_EVENT,
    )
    exporting = started.then(
        in_words(export, said),
        [settings.model, settings.variety, settings.size, settings.strength, settings.seed, count, layout],
        [archive, command, said],
        show_progress="hidden",
        **{**OWN_EVENT, "concurrency_id": "export"},
    )
    say_if_busy(exporting, said)
    # A full queue counts as a failure that nothing comes after.
    for ended in (exporting.then, exporting.failure):
        ended(lambda: buttons_while(False), None, buttons, **QUICK_EVENT)
    cancel_button.click(
        lambda: [*buttons_while(False), ""],
        None,
        [*buttons, archive],
        js="() => { window.dfmgan.cancelled = true; return []; }",
        cancels=exporting,
        **QUICK_EVENT,
    )
    say_at_once(cancel_button.click, CANCELLED, said)
    export_button.click(None, None, None, js="() => dfmgan.show('#zip-status')", **BROWSER_EVENT)


def _progress(done: int, count: int) -> str:
    return f'<p>{done} of {count} parts</p><progress max="{count}" value="{done}" aria-label="Parts drawn"></progress>'
