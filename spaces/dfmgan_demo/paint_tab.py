"""The tab that paints a defect into a visitor's own photograph."""

from __future__ import annotations

import io
import json
import os
import re
import zipfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from cache_files import new_download
from compare import stage, toolbar
from draw_tab import MIN_CONTROL_PIXELS, download
from drawing import Painting
from events import BROWSER_EVENT, OWN_EVENT, QUICK_EVENT
from limits import MAX_MEGAPIXELS, MAX_SEED, MAX_STRENGTH, MAX_UPLOAD_BYTES, MAX_WINDOW, MIN_STRENGTH, refusal
from photographs import Visits, at_most, brushed, canvas, open_safely, to_look_at
from pictures import scaled
from PIL import Image
from refusals import in_words, say_at_once, say_if_busy
from studio import Studio
from words import status

from dfmgan_hf.export.writers import deep_png
from dfmgan_hf.painting import bounding_box
from dfmgan_hf.photograph import Photograph

INTRO = (
    "Bring a photograph of a good part, brush over the place where the defect goes, and take the painted photograph "
    "home with its label: what is not labelled stays as it was, bit for bit. Without a stroke the model chooses."
)
EMPTY_VIEW = '<div class="compare"><p class="stage empty">The painted photograph stands here.</p></div>'
HINT = (
    f'<p class="hint">Photographs: PNG, JPEG, TIFF or WebP, up to {MAX_UPLOAD_BYTES >> 20} MB and {MAX_MEGAPIXELS} '
    "million pixels. They are removed when you leave.</p>"
)
# Longest side in pixels of what is shown; what is taken home is as large as it came.
SHOWN_WHOLE, SHOWN_ZOOMED = 1600, 1024
BRUSH_PIXELS = 16
FIRST_PART = 20  # a bright one of the model that ships
# On a phone the result stands below the canvas.
SHOW_RESULT = """() => {
  const box = document.querySelector("#paint-result").getBoundingClientRect();
  if (box.top < 0 || box.top >= window.innerHeight - 200)
    document.querySelector("#paint-result").scrollIntoView({behavior: "smooth"});
}"""


def build_paint_tab(page: gr.Blocks, tab: gr.Tab, studio: Studio, model: gr.HTML) -> None:
    """Build the tab; a part that the model draws is there to paint on at first."""
    visits = Visits()
    part_seed = gr.Number(FIRST_PART, visible="hidden", elem_id="part-seed")
    first_model = studio.catalog.names[0]
    gr.Markdown(INTRO)
    with gr.Row():
        with gr.Column(scale=6, min_width=320, elem_id="paint-controls"):
            with gr.Row(elem_id="photograph-row"):
                upload = gr.UploadButton(
                    "Your photograph…",
                    file_types=[".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp"],
                    min_width=MIN_CONTROL_PIXELS,
                    elem_id="photograph",
                )
                example_button = gr.Button("A drawn part", min_width=MIN_CONTROL_PIXELS, elem_id="example")
            facts = gr.HTML("", elem_id="photograph-facts")
            editor = gr.ImageEditor(
                show_label=False,
                sources=(),
                transforms=(),
                layers=False,
                buttons=[],
                brush=gr.Brush(default_size=BRUSH_PIXELS, colors=["#ff5a1f"], color_mode="fixed"),
                canvas_size=(480, 480),
                visible=False,  # the browser loads half a megabyte for it when the tab is opened
                elem_id="canvas",
            )
            # Strokes are sent when they are needed. What else this would take in, the server would keep in memory.
            editor.accept_blobs = None  # type: ignore[assignment, method-assign]
            with gr.Row():
                strength = gr.Slider(
                    MIN_STRENGTH,
                    MAX_STRENGTH,
                    value=1.0,
                    step=0.1,
                    label="Strength",
                    info="1: as the model learnt it.",
                    buttons=[],
                    min_width=MIN_CONTROL_PIXELS,
                    elem_id="strength",
                )
                seed = gr.Number(
                    0,
                    precision=0,
                    minimum=0,
                    maximum=MAX_SEED,
                    label="Seed of the defect",
                    info="Another one: another defect.",
                    min_width=MIN_CONTROL_PIXELS,
                )
            with gr.Row():
                paint_button = gr.Button(
                    "Paint the defect", variant="primary", min_width=MIN_CONTROL_PIXELS, elem_id="paint-button"
                )
                another_button = gr.Button("Another defect", min_width=MIN_CONTROL_PIXELS)
            with gr.Accordion("Scale and product", open=False):
                window = gr.Number(
                    studio.scale(first_model),
                    precision=0,
                    minimum=0,
                    maximum=MAX_WINDOW,
                    label="Scale",
                    info="So many pixels of the photograph are the shorter side of one image of the model. "
                    "0: all of it.",
                    elem_id="window",
                )
                any_product = gr.Checkbox(False, label="Paint unknown products too", elem_id="any-product")
        with gr.Column(scale=7, min_width=320, elem_id="paint-result", elem_classes="viewer"):
            said = gr.HTML("", elem_id="paint-status", elem_classes="says")
            whole = ("whole", "Whole photograph", "Shows all of it instead of the place of the defect")
            gr.HTML(toolbar(whole), elem_id="paint-tools")
            painted = gr.HTML(EMPTY_VIEW, elem_id="painted")
            archive = gr.HTML("", elem_id="paint-archive")

    def show(photograph: Path, name: str, session: str | None) -> list[Any]:
        opened = open_safely(photograph)
        visits.bring(session, photograph, name)
        with new_download(editor, "canvas.webp") as path:
            canvas(opened).save(path, lossless=True)
        visits.note(session, [path])
        height, width = opened.size
        depth = ", 16 bits" if opened.highest > 255 else ""
        return [
            gr.ImageEditor({"background": str(path), "layers": [], "composite": None}, visible=True),
            status(f"{name} · {width} × {height} pixels{depth}") + HINT,
            EMPTY_VIEW,
            "",
            "",
        ]

    def choose(sent: Any, request: gr.Request) -> list[Any]:
        photograph = _brought(page, sent)
        visits.note(request.session_hash, [photograph])
        return show(photograph, _own_name(sent), request.session_hash)

    def draw_part(name: Any, seed: Any, request: gr.Request) -> list[Any]:
        settings = studio.settings(name, 1.0, 0.0)
        seeds = (studio.seed(seed),)
        part = studio.drawer.draw(settings.recipe(seeds, seeds))[0].defect_free
        with new_download(editor, "part.png") as path:
            scaled(part, studio.scale(name) or min(part.size), Image.Resampling.BICUBIC).save(path)
        return show(path, f"Part {seeds[0]}", request.session_hash)

    def draw_first(name: Any, request: gr.Request) -> Any:
        try:
            visits.photograph(request.session_hash)
        except gr.Error:
            return draw_part(name, FIRST_PART, request)
        return [gr.skip()] * len(shown)

    def paint(
        name: Any, drawn: Any, strength: Any, window: Any, seed: Any, any_product: Any, request: gr.Request
    ) -> list[Any]:
        settings = studio.settings(name, 1.0, 0.0)
        config = studio.painting(strength, window, any_product)
        seed = studio.seed(seed)
        photograph, own_name = visits.photograph(request.session_hash)
        os.utime(photograph)  # it is in use, so it is not swept
        layers, others = _sent(page, drawn)
        visits.note(request.session_hash, layers + others)
        size = open_safely(photograph).size
        strokes = [mask for layer in layers if (mask := brushed(layer, size)) is not None]
        mask = np.logical_or.reduce(strokes) if strokes else None
        painting = studio.drawer.paint(settings.model, photograph, mask, seed, config)
        stem = re.sub(r"[^\w-]+", "_", Path(own_name).stem).strip("_") or "photograph"
        with new_download(archive, f"{stem}_painted.zip") as path:
            how = {"model": settings.model, "photograph": own_name, "seed": seed, **asdict(config)}
            _write_archive(path, stem, painting, how)
        visits.note(request.session_hash, [path])
        return [
            _view(painting),
            download(path),
            status(_in_words(painting, config.window or 0, is_own=mask is not None)),
        ]

    shown = [editor, facts, painted, archive, said]
    dice = f"() => Math.floor(Math.random() * {MAX_SEED})"
    arriving = [
        upload.upload(in_words(choose, said), upload, shown, show_progress_on=editor, **OWN_EVENT),
        tab.select(in_words(draw_first, said), model, shown, show_progress_on=editor, **OWN_EVENT),
    ]
    rolled = example_button.click(None, None, part_seed, js=dice, **BROWSER_EVENT)
    arriving.append(
        rolled.then(in_words(draw_part, said), [model, part_seed], shown, show_progress_on=editor, **OWN_EVENT)
    )
    for event in arriving:
        say_if_busy(event, said)
    model.input(studio.scale, model, window, preprocess=False, **QUICK_EVENT)
    again = another_button.click(None, None, seed, js=dice, **BROWSER_EVENT)
    for trigger in (paint_button.click, seed.submit, again.then):
        say_at_once(trigger, "Painting…", said)
        event = trigger(
            in_words(paint, said),
            [model, editor, strength, window, seed, any_product],
            [painted, archive, said],
            show_progress_on=painted,
            **{**OWN_EVENT, "concurrency_id": "paint"},
        )
        say_if_busy(event, said)
        event.then(None, js=SHOW_RESULT, **BROWSER_EVENT)

    def leave(request: gr.Request) -> None:
        visits.end(request.session_hash)

    page.unload(leave)


def _sent(page: gr.Blocks, drawn: Any) -> tuple[list[Path], list[Path]]:
    """What the browser sent of the canvas: the layers that were painted on, and the pictures below and of it all."""
    if drawn is None:
        return [], []
    others = [drawn[name]["path"] for name in ("background", "composite") if drawn[name]]
    return [_brought(page, file) for file in drawn["layers"]], [Path(p) for p in others if p in page.upload_file_set]


def _brought(page: gr.Blocks, sent: Any) -> Path:
    """A file that a browser has uploaded, and none else of the machine."""
    path = sent.get("path") if isinstance(sent, dict) else None
    if not isinstance(path, str) or path not in page.upload_file_set or not Path(path).is_file():
        raise refusal("The file did not arrive, or it is no longer here: choose it again.")
    return Path(path)


def _own_name(sent: dict[str, Any]) -> str:
    name = sent.get("orig_name")
    return Path(name).name[:80] if isinstance(name, str) and name.strip() else "Photograph"


def _write_archive(path: Path, stem: str, painting: Painting, how: dict[str, Any]) -> None:
    how["places"] = [asdict(place) for place in painting.places]
    label = io.BytesIO()
    painting.label.save(label, "PNG")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{stem}_painted.png", _as_png(painting))
        archive.writestr(f"{stem}_label.png", label.getvalue())
        archive.writestr("how.json", json.dumps(how, indent=2, ensure_ascii=False))


def _as_png(painting: Painting) -> bytes:
    """A painted photograph with all its bits, its colour profile and its EXIF entries."""
    image = painting.image
    if isinstance(image, np.ndarray):  # Pillow has no images in colour with 16 bits
        return deep_png(image, (painting.before.info or {}).get("icc_profile"))
    stream = io.BytesIO()
    # A quarter of the default level's time for a few more bytes.
    image.save(stream, "PNG", compress_level=1, exif=image.info.get("exif", b""))
    return stream.getvalue()


def _view(painting: Painting) -> str:
    """HTML of the photograph before and after: zoomed on the defect, and whole."""
    before, label = painting.before, np.asarray(painting.label)
    after = Photograph.open(painting.image)
    left, top, right, bottom = _zoomed(painting)
    pictures = [to_look_at(before, photograph.pixels) for photograph in (before, after)]
    pictures.append(painting.label)
    details = [picture.crop((left, top, right, bottom)) for picture in pictures]
    views = []
    for kind, shown, pixels in (("zoomed", details, SHOWN_ZOOMED), ("whole", pictures, SHOWN_WHOLE)):
        before_shown, after_shown = (at_most(picture, pixels, Image.Resampling.BICUBIC) for picture in shown[:2])
        label_shown = at_most(shown[2], pixels, Image.Resampling.NEAREST)
        format = "png" if kind == "zoomed" else "webp"
        html = stage(before_shown, after_shown, label_shown, "photograph", ("before", "after"), format)
        views.append(f'<div class="{kind}">{html}</div>')
    percent = 100 * np.count_nonzero(label) / label.size
    share = f"{percent:.2f} %" if percent >= 0.01 else "Less than 0.01 %"
    return f"""
<div class="compare">
  {"".join(views)}
  <div class="facts">
    <p class="area"><strong>{share}</strong> of the photograph has changed
    ({np.count_nonzero(label):,} of {label.size:,} pixels)</p>
  </div>
</div>
"""


def _zoomed(painting: Painting) -> tuple[int, int, int, int]:
    """A square around the defect with as much of the photograph beside it, or as near to one as the photograph is."""
    label = np.asarray(painting.label) > 0
    left, top, right, bottom = bounding_box(label) if label.any() else painting.places[0].box
    window = painting.places[0].window
    side = max(2 * max(right - left, bottom - top), min(window[2] - window[0], window[3] - window[1]) // 2)
    height, width = label.shape
    x = int(np.clip((left + right - side) // 2, 0, max(width - side, 0)))
    y = int(np.clip((top + bottom - side) // 2, 0, max(height - side, 0)))
    return x, y, min(x + side, width), min(y + side, height)


def _in_words(painting: Painting, window: int, *, is_own: bool) -> str:
    if not np.asarray(painting.label).any():
        return "Nothing has visibly changed: raise the strength, or take another seed."
    if not is_own:
        return "Painted where the model chose; brush to say where."
    windows = (place.window for place in painting.places)
    if any(0 < window < min(right - left, bottom - top) for left, top, right, bottom in windows):
        return f"Painted where you brushed, and enlarged: one image of the model shows {window} pixels only."
    return "Painted where you brushed."
