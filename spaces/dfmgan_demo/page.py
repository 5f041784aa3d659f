"""The page: what is on it and what happens on it."""

from __future__ import annotations

from typing import Any

import gradio as gr
from api import add_endpoints
from card import about
from draw_tab import build_draw_tab
from events import QUICK_EVENT
from limits import check_choice
from paint_tab import build_paint_tab
from studio import Studio
from take_away_tab import build_take_away_tab

TITLE = "Defects on demand"
INTRO = (
    "A model draws parts that were never made: one **without** a defect, the same part **with** one, and the **mask** "
    "that says where."
)


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
        with gr.Row(elem_id="header"):
            with gr.Column(scale=3, min_width=320):
                gr.Markdown(f"# {TITLE}\n\n{INTRO}", elem_id="intro")
            with gr.Column(scale=1, min_width=240, visible=len(names) > 1):
                model = gr.Dropdown(names, value=names[0], label="Model", elem_id="model")
        with gr.Tab("Draw", id="draw"):
            settings = build_draw_tab(page, studio, model)
        with gr.Tab("Paint", id="paint", elem_id="paint-tab") as paint_tab:
            build_paint_tab(page, paint_tab, studio, model)
        with gr.Tab("Take away", id="take-away"):
            build_take_away_tab(studio, settings)
        with gr.Tab("About the model", id="about") as about_tab:
            card = gr.Markdown(elem_id="card")
        # Its pictures are large, so it is only sent to those who want to read it.
        for show in (about_tab.select, model.change):
            show(show_card, model, card, preprocess=False, **QUICK_EVENT)
    return page
