"""The tab that draws: controls, gallery, large view, variations, a walk, and the code for it all."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from cache_files import new_download
from compare import EMPTY_VIEW, MOVE_DIVIDER, large_view
from device import gpu_is_borrowed
from drawing import Recipe, Triplet
from events import BROWSER_EVENT, OWN_EVENT, QUICK_EVENT
from limits import MAX_MASK_THRESHOLD, MAX_SEED, MAX_SHOWN, MAX_TRUNCATION_PSI, seeds_from
from pictures import save_animation, strip
from refusals import in_words, say_if_busy
from snippet import snippet
from studio import Studio
from words import area_in_words, drawn_in_words, seeds_in_words, status

MIN_CONTROL_PIXELS = 145
FIRST_COUNT, FIRST_SEED = 6, 0
LEGEND = '<div class="legend"><span>without</span><span>mask</span><span>with defect</span></div>'
# On a phone the gallery and the large view stand below each other, and what has changed may be out of sight.
SHOW_LARGE_VIEW, SHOW_GALLERY = (
    f"""() => {{
  const box = document.querySelector("{place}").getBoundingClientRect();
  if (box.top < 0 || box.top >= window.innerHeight)
    document.querySelector("{place}").scrollIntoView({{behavior: "smooth"}});
}}"""
    for place in ("#large", "#results")
)
# At a desk the gallery scrolls by itself, and what stands large at its side may be out of sight in it.
SHOW_CHOSEN = """() => requestAnimationFrame(() => requestAnimationFrame(() => {
  const list = document.querySelector("#gallery .grid-wrap");
  const chosen = list?.querySelector(".thumbnail-lg.selected");
  if (!chosen || list.scrollHeight <= list.clientHeight) return;
  const [inner, outer] = [chosen.getBoundingClientRect(), list.getBoundingClientRect()];
  list.scrollTop += Math.max(0, inner.bottom - outer.bottom + 8) + Math.min(0, inner.top - outer.top - 8);
}))"""


@dataclass(frozen=True)
class DrawSettings:
    """The widgets that say how pictures are drawn; other tabs start from them."""

    model: gr.Dropdown
    seed: gr.Number
    truncation_psi: gr.Slider
    mask_threshold: gr.Slider


def build_draw_tab(page: gr.Blocks, studio: Studio, model: gr.Dropdown) -> DrawSettings:
    """Build the tab; the first pictures are drawn when the page is opened."""
    # The page remembers what it shows and sends it along, so the server need not remember its visitors.
    shown = gr.JSON(None, visible="hidden", elem_id="shown")
    selected = gr.Number(0, visible="hidden", elem_id="selected")
    with gr.Row(elem_id="draw-row"):
        with gr.Column(scale=4, min_width=240, elem_id="controls"):
            # Side by side where there is room for both, which on a phone leaves some for the pictures.
            with gr.Row():
                num_images = gr.Slider(
                    1,
                    MAX_SHOWN,
                    value=FIRST_COUNT,
                    step=1,
                    label="How many",
                    buttons=[],
                    min_width=MIN_CONTROL_PIXELS,
                    elem_id="num-images",
                )
                seed = gr.Number(
                    FIRST_SEED,
                    precision=0,
                    minimum=0,
                    maximum=MAX_SEED,
                    label="Seed",
                    min_width=MIN_CONTROL_PIXELS,
                    elem_id="seed",
                )
            with gr.Row():
                draw_button = gr.Button(
                    "Draw defects", variant="primary", min_width=MIN_CONTROL_PIXELS, elem_id="draw-button"
                )
                surprise_button = gr.Button("Surprise me", min_width=MIN_CONTROL_PIXELS, elem_id="surprise-button")
            with gr.Accordion("Fine tuning", open=False, elem_id="fine-tuning"):
                truncation_psi = gr.Slider(
                    0,
                    MAX_TRUNCATION_PSI,
                    value=1.0,
                    step=0.05,
                    label="Variety (truncation)",
                    info="Lower: more typical parts. Higher: more unusual ones.",
                    buttons=[],
                    elem_id="truncation-psi",
                )
                mask_threshold = gr.Slider(
                    -MAX_MASK_THRESHOLD,
                    MAX_MASK_THRESHOLD,
                    value=0.0,
                    step=0.1,
                    label="Mask threshold",
                    info="Higher: smaller defects. Lower: larger ones.",
                    buttons=[],
                    elem_id="mask-threshold",
                )
        with gr.Column(scale=6, min_width=320, elem_id="results"):
            said = gr.HTML(status("Drawing the first parts…"), elem_id="status")
            gr.HTML(LEGEND, elem_id="legend")
            gallery = gr.Gallery(
                show_label=False,
                format="png",
                columns=1,
                height="auto",
                object_fit="contain",
                allow_preview=False,
                buttons=[],
                elem_id="gallery",
            )
        with gr.Column(scale=7, min_width=320, elem_id="large-column"):
            large = gr.HTML(EMPTY_VIEW, js_on_load=MOVE_DIVIDER, elem_id="large")
            gr.Checkbox(False, label="Outline the defect", elem_id="outline")
            with gr.Row():
                same_part_button = gr.Button("Same part, many defects", size="md", elem_id="same-part", min_width=200)
                same_defect_button = gr.Button(
                    "Same defect, many parts", size="md", elem_id="same-defect", min_width=200
                )
    with gr.Accordion("Walk from one to another", open=False, elem_id="walk"):
        with gr.Row():
            start = gr.Dropdown([], label="From", elem_id="walk-from")
            end = gr.Dropdown([], label="To", elem_id="walk-to")
            what = [("The defect", "defect"), ("The part", "part")]
            varied = gr.Radio(
                what, value="defect", label="What changes", info="The other stays that of “From”.", elem_id="varied"
            )
        walk_button = gr.Button("Make the animation", elem_id="walk-button")
        walk_said = gr.HTML("", elem_id="walk-status")
        animation = gr.Image(
            label="Part and mask", format="webp", type="filepath", buttons=["download"], elem_id="animation"
        )
    with gr.Accordion("Code that draws exactly these", open=False, elem_id="code"):
        code = gr.Code(language="python", interactive=False, show_label=False, elem_id="snippet")

    def show(recipe: Recipe, triplets: list[Triplet]) -> list[Any]:
        # What is opened unasked, and where a walk goes, is where the defects are seen best.
        best_seen = sorted(range(len(triplets)), key=lambda i: triplets[i].visibility, reverse=True)
        opened, next_best = best_seen[0], best_seen[:2][-1]
        choices = [(f"{i} · {seeds_in_words(triplet)}", i - 1) for i, triplet in enumerate(triplets, start=1)]
        captions = [f"{seeds_in_words(triplet)} · {area_in_words(triplet)}" for triplet in triplets]
        return [
            asdict(recipe),
            opened,
            status(drawn_in_words(triplets)),
            gr.Gallery(list(zip(map(strip, triplets), captions, strict=True)), selected_index=opened),
            large_view(triplets[opened], opened + 1),
            gr.Dropdown(choices, value=opened),
            gr.Dropdown(choices, value=next_best),
            # Only what differs between two ends can change on the way.
            "part" if len(set(recipe.defect_seeds)) == 1 else "defect",
            snippet(studio.catalog, recipe),
        ]

    def drawn(recipe: Recipe) -> list[Any]:
        return show(recipe, studio.drawer.draw(recipe))

    first_recipe = studio.new_parts(studio.settings(studio.catalog.names[0], 1.0, 0.0), FIRST_COUNT, FIRST_SEED)
    if not gpu_is_borrowed():
        studio.drawer.draw_once(first_recipe)

    def show_first() -> list[Any]:
        return show(first_recipe, studio.drawer.draw_once(first_recipe))

    def draw(name: Any, truncation_psi: Any, threshold: Any, count: Any, first_seed: Any) -> list[Any]:
        return drawn(studio.new_parts(studio.settings(name, truncation_psi, threshold), count, first_seed))

    def vary_defect(shown: Any, i: Any, count: Any) -> list[Any]:
        chosen, count = studio.chosen(shown, i), studio.count(count)
        return drawn(chosen.of(chosen.part_seeds * count, seeds_from(chosen.defect_seeds[0], count)))

    def vary_part(shown: Any, i: Any, count: Any) -> list[Any]:
        chosen, count = studio.chosen(shown, i), studio.count(count)
        return drawn(chosen.of(seeds_from(chosen.part_seeds[0], count), chosen.defect_seeds * count))

    def open_large(shown: Any, event: gr.SelectData) -> tuple[int, str]:
        chosen = studio.chosen(shown, event.index)
        return event.index, large_view(studio.drawer.draw(chosen)[0], event.index + 1)

    def walk(shown: Any, start: Any, end: Any, varied: Any) -> list[Any]:
        first, last = studio.chosen(shown, start), studio.chosen(shown, end)
        ends = first.of(first.part_seeds + last.part_seeds, first.defect_seeds + last.defect_seeds)
        with new_download(animation, "walk.webp") as path:
            save_animation(studio.walk(ends, varied), path)
        return [str(path), ""]

    results = [shown, selected, said, gallery, large, start, end, varied, code]
    inputs = [model, truncation_psi, mask_threshold, num_images, seed]
    drawing: dict[str, Any] = {
        "fn": in_words(draw, said),
        "inputs": inputs,
        "outputs": results,
        "show_progress_on": gallery,
    }
    page.load(show_first, None, results, **QUICK_EVENT).then(None, js=SHOW_CHOSEN, **BROWSER_EVENT)
    dice = f"() => Math.floor(Math.random() * {MAX_SEED})"
    rolled = surprise_button.click(None, None, seed, js=dice, **BROWSER_EVENT)
    for trigger in (draw_button.click, seed.submit, model.change, rolled.then):
        drawn_event = trigger(**drawing, **OWN_EVENT)
        say_if_busy(drawn_event, said)
        drawn_event.then(None, js=SHOW_CHOSEN, **BROWSER_EVENT)
    for button, function in ((same_part_button, vary_defect), (same_defect_button, vary_part)):
        variation = button.click(
            in_words(function, said), [shown, selected, num_images], results, show_progress_on=gallery, **OWN_EVENT
        )
        say_if_busy(variation, said)
        variation.then(None, js=SHOW_GALLERY, **BROWSER_EVENT).then(None, js=SHOW_CHOSEN, **BROWSER_EVENT)
    opened = gallery.select(open_large, [shown], [selected, large], show_progress_on=large, **OWN_EVENT)
    say_if_busy(opened, said)
    opened.then(None, js=SHOW_LARGE_VIEW, **BROWSER_EVENT)
    walking = walk_button.click(
        in_words(walk, walk_said),
        [shown, start, end, varied],
        [animation, walk_said],
        show_progress_on=animation,
        **OWN_EVENT,
    )
    say_if_busy(walking, walk_said)
    return DrawSettings(model, seed, truncation_psi, mask_threshold)
