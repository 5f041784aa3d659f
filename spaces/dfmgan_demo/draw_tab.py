"""The tab that draws: controls, gallery, large view, variations, what is taken home, a walk, and the code."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import gradio as gr
from cache_files import address_of, new_download
from device import gpu_is_borrowed
from drawing import Recipe, Triplet
from events import BROWSER_EVENT, OWN_EVENT
from gallery import EMPTY, gallery, large_view, walk_view
from limits import (
    MAX_SEED,
    MAX_SHOWN,
    MAX_SIZE,
    MAX_STRENGTH,
    MAX_TRUNCATION_PSI,
    MIN_STRENGTH,
    MIN_VARIETY,
    seeds_from,
)
from pictures import save_animation
from refusals import in_words, say_at_once, say_if_busy
from snippet import snippet
from studio import FIRST_COUNT, FIRST_SEED, Studio
from take_away import LAYOUTS, folder_name, write_shown
from words import drawn_in_words, status

MIN_CONTROL_PIXELS = 145
DRAWING = "Drawing…"
# How far one can go back.
MAX_STEPS_BACK = 8


@dataclass(frozen=True)
class DrawSettings:
    """The widgets that say how pictures are drawn; other tabs start from them."""

    model: gr.HTML
    seed: gr.Number
    variety: gr.Slider
    size: gr.Slider
    strength: gr.Slider


def code_block(text: str) -> str:
    """HTML of code that can be copied."""
    return (
        '<div class="code"><button type="button" class="tool" data-act="copy">Copy</button>'
        f'<pre tabindex="0" aria-label="Code">{html.escape(text)}</pre></div>'
    )


def build_draw_tab(page: gr.Blocks, studio: Studio, model: gr.HTML) -> DrawSettings:
    """Build the tab; the first pictures come with the page."""
    first = None if gpu_is_borrowed() else studio.opening(studio.catalog.names[0])

    def values(recipe: Recipe, triplets: Sequence[Triplet], next_seed: int | None) -> dict[str, Any]:
        # What is opened unasked is in sight without scrolling, and a defect that is seen well.
        opened = max(range(min(3, len(triplets))), key=lambda i: triplets[i].visibility)
        license = studio.facts[recipe.model].license
        return {
            "shown": asdict(recipe),
            "said": status(drawn_in_words(triplets)),
            "gallery": gallery(recipe, triplets, opened, license, next_seed),
            "code": code_block(snippet(studio.catalog, recipe)),
        }

    at_first = values(first.recipe, first.triplets, first.next_seed) if first else {}

    # The page remembers what it shows and sends it along, so the server need not remember its visitors.
    shown = gr.JSON(at_first.get("shown"), visible="hidden", elem_id="shown")
    before = gr.JSON([], visible="hidden", elem_id="before")
    sent = gr.JSON(None, visible="hidden", elem_id="sent")
    with gr.Row():
        with gr.Column(scale=4, min_width=240, elem_id="controls"):
            # Side by side where there is room for both, which on a phone leaves some for the pictures.
            with gr.Row():
                num_images = gr.Slider(
                    1,
                    MAX_SHOWN,
                    value=FIRST_COUNT,
                    step=1,
                    label="How many",
                    info="For the next drawing.",
                    buttons=[],
                    min_width=MIN_CONTROL_PIXELS,
                    elem_id="num-images",
                )
                seed = gr.Number(
                    first.recipe.part_seeds[0] if first else FIRST_SEED,
                    precision=0,
                    minimum=0,
                    maximum=MAX_SEED,
                    label="Seed",
                    info="A seed always draws the same part; Enter draws from it.",
                    min_width=MIN_CONTROL_PIXELS,
                    elem_id="seed",
                )
            with gr.Row():
                draw_button = gr.Button(
                    "Draw defects", variant="primary", min_width=MIN_CONTROL_PIXELS, elem_id="draw-button"
                )
                surprise_button = gr.Button("Surprise me", min_width=MIN_CONTROL_PIXELS)
            with gr.Accordion("Fine tuning", open=False):
                only_defects = gr.Checkbox(
                    True, label="Only with a defect", info="Passes over seeds that draw none.", elem_id="only-defects"
                )
                size = gr.Slider(
                    -MAX_SIZE,
                    MAX_SIZE,
                    value=0.0,
                    step=0.5,
                    label="Size of the defect",
                    info="0: as the model learnt it. Redraws the parts that are shown.",
                    buttons=[],
                    elem_id="size",
                )
                strength = gr.Slider(
                    MIN_STRENGTH,
                    MAX_STRENGTH,
                    value=1.0,
                    step=0.2,
                    label="Strength",
                    info="Less: fainter. More: stands out. The mask stays. Redraws the parts that are shown.",
                    buttons=[],
                    elem_id="draw-strength",
                )
                variety = gr.Slider(
                    MIN_VARIETY,
                    MAX_TRUNCATION_PSI,
                    value=1.0,
                    step=0.1,
                    label="Variety",
                    info="Less: typical parts. More: unusual ones. Redraws the parts that are shown.",
                    buttons=[],
                    elem_id="variety",
                )
        with gr.Column(scale=6, min_width=320, elem_id="results"):
            said = gr.HTML(at_first.get("said", status(DRAWING)), elem_id="status", elem_classes="says")
            shown_gallery = gr.HTML(at_first.get("gallery", EMPTY), elem_id="gallery")
        with gr.Column(scale=7, min_width=320, elem_id="large-column", elem_classes="viewer"):
            large = gr.HTML(large_view(first.triplets[0]) if first else "", elem_id="large")
            with gr.Row():
                same_part_button = gr.Button("Same part, many defects", size="md", elem_id="same-part", min_width=140)
                same_defect_button = gr.Button(
                    "Same defect, many parts", size="md", elem_id="same-defect", min_width=140
                )
                back_button = gr.Button(
                    "Back to those before", size="md", elem_id="back", min_width=140, visible=False
                )
    with gr.Column(elem_id="take-home"):
        gr.Markdown("## Take home what you see")
        layout = gr.Radio(
            list(LAYOUTS),
            value=next(iter(LAYOUTS)),
            label="Layout of the ZIP",
            info="Tick parts to take only these. Seeds, settings and licence go along.",
        )
        take_button = gr.Button("Take home all shown", elem_id="take-shown", min_width=200)
        taken = gr.HTML("", elem_id="shown-zip", elem_classes="says")
    with gr.Accordion("Walk from one to another", open=False, elem_id="walk"):
        with gr.Row():
            gr.HTML('<div id="walk-from"></div>')
            gr.HTML('<div id="walk-to"></div>')
        varied = gr.Radio(
            [("The defect", "defect"), ("The part", "part")],
            value="defect",
            label="What changes",
            info="The other stays that of “From”.",
            elem_id="varied",
        )
        walk_button = gr.Button("Make the animation")
        walk_said = gr.HTML("", elem_id="walk-status", elem_classes="says")
        animation = gr.HTML("", elem_id="animation")
    with gr.Accordion("Code that draws exactly these", open=False, elem_id="code"):
        code = gr.HTML(at_first.get("code", ""), elem_id="snippet")

    places = {"shown": shown, "said": said, "gallery": shown_gallery, "code": code}

    def show(recipe: Recipe, triplets: Sequence[Triplet], next_seed: int | None = None) -> dict[Any, Any]:
        answer: dict[Any, Any] = {places[name]: value for name, value in values(recipe, triplets, next_seed).items()}
        # Only what differs between two ends can change on the way.
        answer[varied] = "part" if len(set(recipe.defect_seeds)) == 1 else "defect"
        if next_seed is not None:
            answer |= {seed: recipe.part_seeds[0], before: [], back_button: gr.Button(visible=False)}
        return answer

    def draw(
        name: Any, variety: Any, size: Any, strength: Any, only_defects: Any, count: Any, first_seed: Any
    ) -> dict[Any, Any]:
        recipe = studio.new_parts(studio.worded(name, variety, size, strength), count, first_seed)
        if only_defects is True:
            drawn = studio.drawer.draw_with_defects(recipe)
            return show(drawn.recipe, drawn.triplets, drawn.next_seed)
        return show(recipe, studio.drawer.draw(recipe), seeds_from(recipe.part_seeds[-1] + 1, 1)[0])

    def open_model(name: Any) -> dict[Any, Any]:
        drawn = studio.opening(name)
        answer = show(drawn.recipe, drawn.triplets, drawn.next_seed)
        return {**answer, size: 0, variety: 1, strength: 1, large: large_view(drawn.triplets[0])}

    def open_address(address: Any) -> dict[Any, Any]:
        if not isinstance(address, dict) or "parts" not in address:
            return open_model(studio.catalog.names[0])
        recipe = studio.addressed(address)
        triplets = studio.drawer.draw(recipe)
        is_varied = recipe.part_seeds != recipe.defect_seeds
        answer = show(recipe, triplets, None if is_varied else seeds_from(recipe.part_seeds[-1] + 1, 1)[0])
        how = {size: -recipe.mask_threshold, variety: recipe.truncation_psi, strength: recipe.strength}
        answer |= {seed: recipe.part_seeds[0], num_images: len(triplets), only_defects: address.get("only") != "0"}
        return {**answer, **how, model: recipe.model, large: large_view(triplets[0])}

    def redraw(shown: Any, variety: Any, size: Any, strength: Any) -> dict[Any, Any]:
        old = studio.shown(shown)
        recipe = studio.worded(old.model, variety, size, strength).recipe(old.part_seeds, old.defect_seeds)
        answer = show(recipe, studio.drawer.draw(recipe))
        del answer[varied]
        return answer

    def vary(shown: Any, i: Any, count: Any, stack: Any, *, defect: bool) -> dict[Any, Any]:
        old, chosen, count = studio.shown(shown), studio.chosen(shown, i), studio.count(count)
        part, flaw = chosen.part_seeds[0], chosen.defect_seeds[0]
        if defect:
            recipe = chosen.of((part,) * count, seeds_from(flaw, count))
        else:
            recipe = chosen.of(seeds_from(part, count), (flaw,) * count)
        stack = [*(stack if isinstance(stack, list) else []), asdict(old)][-MAX_STEPS_BACK:]
        return {**show(recipe, studio.drawer.draw(recipe)), before: stack, back_button: gr.Button(visible=True)}

    def vary_defect(shown: Any, i: Any, count: Any, stack: Any) -> dict[Any, Any]:
        return vary(shown, i, count, stack, defect=True)

    def vary_part(shown: Any, i: Any, count: Any, stack: Any) -> dict[Any, Any]:
        return vary(shown, i, count, stack, defect=False)

    def go_back(stack: Any) -> dict[Any, Any]:
        stack = stack if isinstance(stack, list) else []
        recipe = studio.shown(stack[-1] if stack else None)
        answer = show(recipe, studio.drawer.draw(recipe))
        return {**answer, before: stack[:-1], back_button: gr.Button(visible=len(stack) > 1)}

    def take(shown: Any, ticked: Any, layout: Any) -> str:
        recipe, layout = studio.ticked(shown, ticked), studio.layout(layout)
        triplets = studio.drawer.draw(recipe)
        with new_download(taken, f"{folder_name(recipe.model)}_{len(triplets)}_{LAYOUTS[layout]}.zip") as path:
            write_shown(path, studio.catalog[recipe.model], recipe, triplets, layout, studio.facts[recipe.model])
        return download(path)

    def walk(shown: Any, ends: Any, varied: Any) -> list[Any]:
        start, end = ends if isinstance(ends, list) and len(ends) == 2 else (None, None)
        first, last = studio.chosen(shown, start), studio.chosen(shown, end)
        frames = studio.walk(
            first.of(first.part_seeds + last.part_seeds, first.defect_seeds + last.defect_seeds), varied
        )
        with new_download(animation, "walk.webp") as path:
            save_animation(frames, path)
        return [walk_view(frames, address_of(path)), ""]

    results = [*places.values(), seed, varied, before, back_button, num_images, model, large]
    results += [size, variety, strength, only_defects]
    shows = {"outputs": results, "show_progress_on": shown_gallery, "trigger_mode": "always_last"}
    after = "() => { dfmgan.show('#results'); }"

    def on(trigger: Any, function: Any, inputs: list[Any], js: str | None = None) -> None:
        say_at_once(trigger, DRAWING, said)
        event = trigger(in_words(function, said), inputs, js=js, **shows, **OWN_EVENT)
        say_if_busy(event, said)

    inputs = [model, variety, size, strength, only_defects, num_images, seed]
    on(draw_button.click, draw, inputs, "(...all) => [...all.slice(0, -1), dfmgan.next(all.at(-1))]")
    on(surprise_button.click, draw, inputs, f"(...all) => [...all.slice(0, -1), dfmgan.roll({MAX_SEED})]")
    on(seed.submit, draw, inputs)
    on(only_defects.input, draw, inputs)
    on(model.input, open_model, [model])
    for slider in (size, variety, strength):
        on(slider.input, redraw, [shown, variety, size, strength])
    chosen_js = "(shown, chosen, ...more) => [shown, dfmgan.chosen(), ...more]"
    for button, function in ((same_part_button, vary_defect), (same_defect_button, vary_part)):
        on(button.click, function, [shown, sent, num_images, before], chosen_js)
    on(back_button.click, go_back, [before])
    for changes in (shown.change, only_defects.change):
        changes(None, [shown, only_defects], None, js="(...all) => dfmgan.remember(...all)", **BROWSER_EVENT)
    for button in (same_part_button, same_defect_button, back_button):
        button.click(None, None, None, js=after, **BROWSER_EVENT)

    # What the address says is drawn; without anything in it the first parts are here already.
    opener = gr.Button(visible="hidden", elem_id="open-address")
    opened = opener.click(in_words(open_address, said), sent, js="() => [dfmgan.address()]", **shows, **OWN_EVENT)
    say_if_busy(opened, said)
    is_needed = "true" if first is None else "new URLSearchParams(location.search).has('parts')"
    page.load(
        None,
        None,
        None,
        js=f"() => {{ if ({is_needed}) document.querySelector('#open-address').click(); }}",
        **BROWSER_EVENT,
    )

    say_at_once(take_button.click, "Packing…", taken)
    taking = take_button.click(
        in_words(take, taken),
        [shown, sent, layout],
        taken,
        js="(shown, _, layout) => [shown, dfmgan.ticked(), layout]",
        show_progress="hidden",
        **OWN_EVENT,
    )
    say_if_busy(taking, taken)
    taking.then(None, None, None, js="() => document.querySelector('#shown-zip a')?.click()", **BROWSER_EVENT)
    say_at_once(walk_button.click, "Drawing the way…", walk_said)
    walking = walk_button.click(
        in_words(walk, walk_said),
        [shown, sent, varied],
        [animation, walk_said],
        js="(shown, _, varied) => [shown, [dfmgan.end('from'), dfmgan.end('to')], varied]",
        show_progress="hidden",
        **OWN_EVENT,
    )
    say_if_busy(walking, walk_said)
    return DrawSettings(model, seed, variety, size, strength)


def download(path: Any) -> str:
    """HTML of a link to a file."""
    kib = max(1, path.stat().st_size >> 10)
    return f'<p>Ready: <a href="{address_of(path)}" download="{path.name}">{path.name}</a> ({kib:,} KB)</p>'
