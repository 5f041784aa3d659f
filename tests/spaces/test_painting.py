"""A photograph on its way: brought, painted, taken home, refused, removed; by the page's own requests over HTTP."""

from __future__ import annotations

import io
import json
import re
import time
import uuid
import zipfile
from typing import Any
from urllib.parse import unquote

import httpx
import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms

from dfmgan_hf.export.writers import deep_png

REQUEST_SECONDS = 300
HEIGHT, WIDTH = 200, 300


class Visitor:
    """A browser's session: what the page would send."""

    def __init__(self, server) -> None:
        self.http = httpx.Client(base_url=f"{server.url}/gradio_api", timeout=REQUEST_SECONDS)
        self.session = uuid.uuid4().hex
        config = httpx.get(f"{server.url}/config", timeout=REQUEST_SECONDS).json()
        ids = {component["props"].get("elem_id"): component["id"] for component in config["components"]}
        self.functions = {
            (elem_id, trigger): dependency["id"]
            for dependency in config["dependencies"]
            for elem_id, number in ids.items()
            for target, trigger in dependency["targets"]
            if target == number and dependency["backend_fn"]
        }

    def upload(self, name: str, content: bytes) -> dict[str, Any]:
        answer = self.http.post("/upload", files={"files": (name, content)}).raise_for_status()
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def do(self, elem_id: str, trigger: str, *data: Any) -> list[Any]:
        """What an event answers; the last entry is what the page says."""
        event = {"data": data, "fn_index": self.functions[elem_id, trigger], "session_hash": self.session}
        self.http.post("/queue/join", json=event).raise_for_status()
        with self.http.stream("GET", "/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    assert message["success"], message["output"]
                    data = message["output"]["data"]
                    return [entry.get("value", entry) if isinstance(entry, dict) else entry for entry in data]
        raise AssertionError("no answer")

    def choose(self, name: str, content: bytes) -> list[Any]:
        return self.do("photograph", "upload", self.upload(name, content))

    def paint(
        self, layer: Image.Image | None = None, strength=1.0, window=80, seed=3, any_product=True, model="Blobs"
    ) -> list[Any]:
        drawn = {"background": None, "composite": None, "id": None, "layers": []}
        if layer is not None:
            drawn["layers"] = [self.upload("layer_0.png", _png(layer))]
        return self.do("paint-button", "click", model, drawn, strength, window, seed, any_product)

    def take_home(self, answer: list[Any]) -> dict[str, bytes]:
        file = self.http.get(f"/file={_link(answer)}").raise_for_status()
        with zipfile.ZipFile(io.BytesIO(file.content)) as archive:
            return {name: archive.read(name) for name in archive.namelist()}


def _link(answer: list[Any]) -> str:
    """Where the ZIP lies that an answer links to."""
    return unquote(re.search(r'href="gradio_api/file=([^"]+)"', answer[1])[1])


def _png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def _photograph(channels: int = 3, dtype: type = np.uint8) -> np.ndarray:
    noise = np.random.default_rng(0).normal(0, 3, (HEIGHT, WIDTH, channels))
    levels = (110 + 40 * np.sin(np.arange(WIDTH) / 30)[None, :, None] + noise).clip(0, 255)
    return (levels * (1 if dtype == np.uint8 else 257)).astype(dtype)


def _stroke() -> tuple[Image.Image, np.ndarray]:
    """A layer on a canvas of twice the photograph's size, and where it is on the photograph."""
    opacity = np.zeros((2 * HEIGHT, 2 * WIDTH), np.uint8)
    opacity[120:200, 300:400] = 255
    layer = np.dstack([np.full((*opacity.shape, 3), 200, np.uint8), opacity])
    return Image.fromarray(layer), opacity[::2, ::2] > 0


@pytest.fixture
def visitor(server) -> Visitor:
    return Visitor(server)


def test_defect_is_where_it_was_brushed_and_all_else_as_it_was(visitor):
    before = _photograph()
    canvas, facts, *_ = visitor.choose("my tile.png", _png(Image.fromarray(before)))
    assert "my tile.png · 300 × 200 pixels" in facts
    shown = Image.open(io.BytesIO(visitor.http.get(f"/file={canvas['background']['path']}").content))
    assert shown.size == (2 * WIDTH, 2 * HEIGHT)
    layer, where = _stroke()
    answer = visitor.paint(layer)
    assert "Painted where you brushed." in answer[-1]
    files = visitor.take_home(answer)
    assert set(files) == {"my_tile_painted.png", "my_tile_label.png", "how.json"}
    after = np.asarray(Image.open(io.BytesIO(files["my_tile_painted.png"])))
    label = np.asarray(Image.open(io.BytesIO(files["my_tile_label.png"]))) > 0
    assert label.any()
    assert not label[~where].any()
    assert (after[~label] == before[~label]).all()
    assert (after[label] != before[label]).any()
    (place,) = json.loads(files["how.json"])["places"]
    assert place["box"] == [150, 60, 200, 100]
    assert 'class="zoomed"' in answer[0]
    assert 'class="whole"' in answer[0]


def test_of_two_strokes_far_apart_both_places_are_told(visitor):
    visitor.choose("tile.png", _png(Image.fromarray(_photograph())))
    layer = Image.new("RGBA", (2 * WIDTH, 2 * HEIGHT))
    for left, top, right, bottom in ((10, 10, 40, 40), (170, 60, 280, 170)):
        layer.paste((255, 90, 31, 255), (2 * left, 2 * top, 2 * right, 2 * bottom))
    answer = visitor.paint(layer)
    # The second stroke alone is larger than what an image of the model shows.
    assert "enlarged: one image of the model shows 80 pixels only" in answer[-1]
    places = json.loads(visitor.take_home(answer)["how.json"])["places"]
    assert [place["box"] for place in places] == [[10, 10, 40, 40], [170, 60, 280, 170]]


def test_a_canvas_that_lacks_all_its_fields_is_one_without_strokes(visitor):
    """Gradio fills them in from its model of the data, and we rely on it."""
    visitor.choose("tile.png", _png(Image.fromarray(_photograph())))
    assert "where the model chose" in visitor.do("paint-button", "click", "Blobs", {}, 1.0, 80, 3, True)[-1]


def test_without_a_stroke_the_model_chooses(visitor):
    visitor.choose("tile.jpg", _png(Image.fromarray(_photograph())))
    untouched = Image.new("RGBA", (2 * WIDTH, 2 * HEIGHT))
    answers = [visitor.paint(), visitor.paint(untouched), visitor.paint(seed=4)]
    assert all("where the model chose" in answer[-1] for answer in answers)
    labels = [visitor.take_home(answer)["tile_label.png"] for answer in answers]
    assert labels[0] == labels[1] != labels[2]


def test_colour_with_16_bits_keeps_them(visitor):
    before, profile = _photograph(dtype=np.uint16), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    _, facts, *_ = visitor.choose("deep.png", deep_png(before, profile))
    assert "16 bits" in facts
    files = visitor.take_home(visitor.paint(_stroke()[0], strength=2))
    after = imagecodecs.png_decode(files["deep_painted.png"])
    assert Image.open(io.BytesIO(files["deep_painted.png"])).info["icc_profile"] == profile
    label = np.asarray(Image.open(io.BytesIO(files["deep_label.png"]))) > 0
    assert after.dtype == np.uint16
    assert label.any()
    assert (after[~label] == before[~label]).all()


def test_fine_tuning_does_not_change_which_parts_come_next(visitor):
    """The page goes on after what was drawn before, here two defects on part 2; it is told of nothing else."""
    shown = {"model": "Blobs", "part_seeds": [2, 2], "defect_seeds": [5, 6]}
    shown |= {"truncation_psi": 1.0, "mask_threshold": 0.0, "strength": 1.0}
    answer = visitor.do("size", "input", shown, 1.0, 0.5, 1.0)
    (gallery,) = (entry for entry in answer if isinstance(entry, str) and "triplets" in entry)
    assert "part 2, defect 6" in gallery
    assert "data-next" not in gallery


def test_a_drawn_part_can_be_painted_on(visitor):
    assert "Part 20 · 64 × 64 pixels" in visitor.do("paint-tab", "select", "Blobs")[1]
    assert "where the model chose" in visitor.paint(window=64, any_product=False)[-1]
    # Coming back to the tab leaves what is there.
    visitor.choose("mine.png", _png(Image.fromarray(_photograph())))
    assert "value" not in visitor.do("paint-tab", "select", "Blobs")[1]
    assert "mine" in next(iter(visitor.take_home(visitor.paint())))


def _saved(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def _bent_tiff() -> bytes:
    """Of 16 bits, with more entries in its directory than it has."""
    stream = io.BytesIO()
    tifffile.imwrite(stream, np.full((8, 9, 3), 30000, np.uint16), photometric="rgb", byteorder="<")
    content = bytearray(stream.getvalue())
    content[8] = 255
    return bytes(content)


BAD_FILES = [
    ("notes.png", lambda: b"not an image", "no whole photograph in PNG, JPEG, TIFF or WebP"),
    ("empty.png", lambda: b"", "no whole photograph"),
    ("bent.tif", _bent_tiff, "no whole photograph"),
    ("cut.png", lambda: _png(Image.fromarray(_photograph()))[:5000], "no whole photograph"),
    ("moving.gif", lambda: _saved(Image.fromarray(_photograph()), "GIF"), "no whole photograph"),
    ("renamed.png", lambda: _saved(Image.fromarray(_photograph()), "BMP"), "no whole photograph"),
    ("print.jpg", lambda: _saved(Image.new("CMYK", (99, 99)), "JPEG"), "mode is CMYK"),
    ("large.png", lambda: _png(Image.new("1", (6000, 5000))), "6000 × 5000 pixels, more than 25 million"),
    ("huge.png", lambda: _png(Image.new("1", (20000, 10000))), "more than 25 million pixels"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD_FILES, ids=[entry[0] for entry in BAD_FILES])
def test_bad_files_are_refused_in_words(visitor, name, content, words):
    said = visitor.choose(name, content())[-1]
    assert 'role="alert"' in said
    assert words in said


def test_a_file_of_more_than_10_mb_is_not_taken(server, visitor):
    before = server.files()
    answer = visitor.http.post("/upload", files={"files": ("x.png", b"0" * (10 * 2**20 + 1))})
    assert answer.status_code == 413
    assert not {file.name for file in server.files() - before} & {"x.png"}


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"strength": 3}, "Strength must be a number from 0.2 to 2, but is 3"),
        ({"strength": None}, "Strength must be a number"),
        ({"window": -1}, "Scale must be a whole number"),
        ({"window": 250}, "smaller than the 250x250 that an image of the model shows"),
        ({"seed": -1}, "Seed must be a whole number"),
        ({"model": "someone/else"}, "Model must be one of Blobs, Coloured blobs"),
    ],
)
def test_wrong_values_are_refused_in_words(visitor, wrong, words):
    visitor.choose("tile.png", _png(Image.fromarray(_photograph())))
    said = visitor.paint(**wrong)[-1]
    assert 'role="alert"' in said
    assert words in said
    assert "`" not in said


def test_a_product_that_the_model_does_not_know_is_refused_unless_asked_for(visitor):
    stripes = np.repeat((np.arange(WIDTH) // 40 % 2 * 255).astype(np.uint8)[None], HEIGHT, 0)
    visitor.choose("stripes.png", _png(Image.fromarray(stripes)))
    layer = _stroke()[0]
    said = visitor.paint(layer, any_product=False)[-1]
    assert "the model does not know this product" in said
    assert "the box under “Scale and product” ticked" in said
    assert "Painted" in visitor.paint(layer)[-1]


def test_what_is_one_visitors_is_no_others(server, visitor):
    stranger = Visitor(server)
    canvas, *_ = visitor.choose("mine.png", _png(Image.fromarray(_photograph())))
    home = visitor.paint()
    assert "There is no photograph yet" in stranger.paint()[-1]
    # What the server made is taken from nobody, not even from one who knows where it lies.
    for path in (canvas["background"]["path"], _link(home)):
        known = {"path": path, "orig_name": "x.png", "meta": {"_type": "gradio.FileData"}}
        assert "did not arrive" in stranger.do("photograph", "upload", known)[-1]


def test_nothing_is_left_of_a_visitor_who_leaves(server, visitor):
    before = server.files()
    with visitor.http.stream("GET", f"/heartbeat/{visitor.session}") as heartbeat:
        lines = heartbeat.iter_lines()  # kept: when it goes, so does the connection
        next(lines)
        visitor.choose("mine.png", _png(Image.fromarray(_photograph() // 2)))
        visitor.paint(_stroke()[0].transpose(Image.Transpose.FLIP_TOP_BOTTOM))
        brought = server.files() - before
        assert {"mine.png", "canvas.webp", "layer_0.png", "mine_painted.zip"} <= {file.name for file in brought}
    deadline = time.monotonic() + REQUEST_SECONDS
    while server.files() & brought:
        assert time.monotonic() < deadline, server.files() & brought
        time.sleep(0.2)


def test_the_server_keeps_nothing_that_the_page_does_not_send(server, visitor):
    config = httpx.get(f"{server.url}/config", timeout=REQUEST_SECONDS).json()
    editor = next(c["id"] for c in config["components"] if c["props"].get("elem_id") == "canvas")
    form = {"component_id": str(editor), "session_hash": visitor.session, "fn_name": "accept_blobs"}
    form |= {"type": "layer", "index": "0", "id": "abc"}
    answer = visitor.http.post("/component_server", data=form, files={"file": ("x.png", b"12345")})
    assert answer.status_code == 404


def test_canvas_is_of_a_size_that_a_brush_serves():
    from photographs import canvas

    from dfmgan_hf.photograph import Photograph

    sizes = {(64, 64): (512, 512), (300, 200): (600, 400), (1500, 1000): (1024, 683), (480, 20): (480, 20)}
    for size, shown in sizes.items():
        assert canvas(Photograph.open(Image.new("L", size))).size == shown


def test_a_thin_stroke_on_a_small_photograph_is_not_lost(tmp_path):
    from photographs import brushed

    layer = Image.new("RGBA", (512, 512))
    layer.paste((255, 90, 31, 255), (100, 250, 400, 251))
    layer.save(tmp_path / "layer.png")
    mask = brushed(tmp_path / "layer.png", (64, 64))
    assert mask.any()
    assert not mask[:29].any()
    assert not mask[34:].any()
