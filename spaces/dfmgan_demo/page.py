"""The page: what is on it and what happens on it."""

from __future__ import annotations

import html
from typing import Any

import gradio as gr
from api import add_endpoints
from card import about
from device import gpu_is_borrowed
from draw_tab import build_draw_tab
from events import QUICK_EVENT
from limits import check_choice
from paint_tab import build_paint_tab
from pictures import data_uri, webp
from studio import Studio
from take_away_tab import build_take_away_tab

TITLE = "Defects on demand"
INTRO = (
    "Parts that were never made: one **without** a defect, the same part **with** one, and the **mask** that says "
    "where. All of it is generated; nothing under “Draw” is a photograph."
)
# The name of the chosen model is this element's value; the page sends it along like any other.
CHOOSE = """
element.addEventListener("change", (event) => { props.value = event.target.value; trigger("input"); });
watch("value", () => {
  element.querySelectorAll("input").forEach((radio) => { radio.checked = radio.value === props.value; });
});
"""


def build_page(studio: Studio) -> gr.Blocks:
    """The whole page, with its named endpoints."""
    names = studio.catalog.names

    # Read once, because a card may come from the Hub.
    cards = {name: about(studio.catalog[name]) for name in names}

    def show_card(name: Any) -> str:
        return cards[check_choice(name, "Model", names)]

    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        # First of all, so that they get their names: the page's own events are named after their functions too.
        add_endpoints(studio)
        gr.Markdown(f"# {TITLE}\n\n{INTRO}", elem_id="intro")
        model = gr.HTML(names[0], html_template=_models(studio), js_on_load=CHOOSE, elem_id="models")
        with gr.Tab("Draw", id="draw"):
            settings = build_draw_tab(page, studio, model)
        with gr.Tab("Paint", id="paint", elem_id="paint-tab") as paint_tab:
            build_paint_tab(page, paint_tab, studio, model)
        with gr.Tab("Data set", id="take-away"):
            build_take_away_tab(studio, settings)
        with gr.Tab("About", id="about") as about_tab:
            card = gr.Markdown(elem_id="card")
        # Its pictures are large, so it is only sent to those who want to read it.
        for show in (about_tab.select, model.input):
            show(show_card, model, card, preprocess=False, **QUICK_EVENT)
    return page


def _models(studio: Studio) -> str:
    """HTML of the models to choose among, by a picture of what each draws, its product and its licence."""
    choices = []
    for i, name in enumerate(studio.catalog.names):
        facts = studio.facts[name]
        picture = ""
        if not gpu_is_borrowed():
            best = max(studio.opening(name).triplets, key=lambda triplet: triplet.visibility)
            picture = f'<img src="{data_uri(webp(best.image), "webp")}" alt="" width="64" height="64">'
        words = [facts.shows[:1].upper() + facts.shows[1:], f"licence {facts.license or 'not known'}"]
        choices.append(
            f'<label class="model"><input type="radio" name="model" value="{html.escape(name)}"'
            f"{' checked' if i == 0 else ''}>{picture}<span><strong>{html.escape(name)}</strong> "
            f"<small>{html.escape(' · '.join(filter(None, words)))}</small></span></label>"
        )
    return f'<div class="models" role="radiogroup" aria-label="Model">{"".join(choices)}</div>'
