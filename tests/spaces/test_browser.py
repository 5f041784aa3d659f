"""The page in a real browser: what a person does with it, at a desk and on a phone, with a mouse and by keyboard.

DFMGAN_SCREENSHOT_DIR=FOLDER keeps what the tests saw.
"""

from __future__ import annotations

import base64
import io
import itertools
import os
import re
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image

pytest.importorskip("playwright.sync_api", reason="playwright is not installed: pip install playwright")
from playwright import sync_api

from tests.spaces.browser import (
    CHROMIUM,
    CHROMIUM_OPTIONS,
    DESKTOP,
    PHONE,
    WAIT_MILLISECONDS,
    wait_for_gallery,
    wait_until_idle,
)
from tests.spaces.server import running_server

if CHROMIUM is None:
    pytest.skip("no chromium on the path and CHROMIUM names none: apt-get install chromium", allow_module_level=True)

SCREENSHOTS = os.environ.get("DFMGAN_SCREENSHOT_DIR")


@pytest.fixture(scope="module")
def browser() -> Iterator[sync_api.Browser]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, server) -> Iterator[Callable[..., sync_api.Page]]:
    """Opens the page; afterwards no error may stand in the console, and nothing may have been asked of other hosts."""
    contexts, complaints = [], []

    def open_page(viewport=DESKTOP, color_scheme="light", expected_complaint=None, **options) -> sync_api.Page:
        def complain(text: str) -> None:
            if expected_complaint is None or expected_complaint not in text:
                complaints.append(text)

        context = browser.new_context(viewport=viewport, color_scheme=color_scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(WAIT_MILLISECONDS)
        page.on("console", lambda message: message.type == "error" and complain(message.text))
        page.on("pageerror", lambda error: complain(str(error)))
        page.on("request", lambda request: _is_outside(request.url, server.url) and complain(request.url))
        page.goto(server.url)
        wait_for_gallery(page, 6)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert complaints == []


def _is_outside(url: str, home: str) -> bool:
    return not url.startswith((home, "data:", "blob:"))


def _keep(page: sync_api.Page, name: str) -> None:
    if SCREENSHOTS:
        page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)


def _captions(page: sync_api.Page) -> list[str]:
    return page.locator("#gallery .caption").all_inner_texts()


def _origin(page: sync_api.Page) -> sync_api.Locator:
    return page.locator("#large .origin")


def _divider(page: sync_api.Page) -> float:
    cut = page.locator("#large .stage").evaluate("stage => stage.style.getPropertyValue('--cut')")
    return float(cut.removesuffix("%"))


def _seed(page: sync_api.Page) -> sync_api.Locator:
    return page.get_by_label("Seed", exact=True)


def _draw_from(page: sync_api.Page, seed: int) -> None:
    """All seeds from this one on, whether they draw a defect or not."""
    if page.locator("#only-defects input").count() == 0 or not page.locator("#only-defects input").is_visible():
        page.get_by_text("Fine tuning").click()
        _wait_for_own_values(page.locator("#only-defects"))
    page.locator("#only-defects input").uncheck()
    wait_until_idle(page)
    _seed(page).fill(str(seed))
    _seed(page).press("Enter")
    sync_api.expect(page.locator("#gallery .caption").first).to_contain_text(f"seed {seed} ·")
    wait_until_idle(page)


def _wait_for_own_values(widget: sync_api.Locator) -> None:
    """Until what was folded away keeps what is entered: gradio gives it its first value once more a frame later."""
    widget.wait_for()
    widget.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _set_slider(page: sync_api.Page, elem_id: str, value: float) -> None:
    box = page.locator(f"#{elem_id} input[type=number]")
    _wait_for_own_values(box)
    box.fill(str(value))
    box.press("Tab")


def _saved(page: sync_api.Page, click: Callable[[], None]) -> tuple[str, bytes]:
    with page.expect_download() as download:
        click()
    return download.value.suggested_filename, Path(download.value.path()).read_bytes()


def test_first_view_says_what_it_is_and_comes_with_the_page(open_page, browser, server):
    context = browser.new_context(viewport={"width": 1280, "height": 600})
    page = context.new_page()
    page.set_default_timeout(WAIT_MILLISECONDS)
    asked = []
    page.on("request", lambda request: request.method == "POST" and asked.append(request.url))
    page.goto(server.url)
    wait_for_gallery(page, 6)
    assert asked == []
    context.close()
    page = open_page()
    assert page.locator("#status").inner_text().startswith("6 parts drawn")
    assert "no defect" not in " ".join(_captions(page))
    assert "licence apache-2.0" in page.locator("#models").inner_text()
    assert "is a photograph" in page.locator("#intro").inner_text()
    assert re.search(r"\d+\.\d\d %\s+of the picture is defect", page.locator("#large .area").inner_text())
    assert page.locator("#gallery .pick[aria-pressed=true]").count() == 1
    assert page.locator("h1").count() == 1
    _keep(page, "desktop_light")


def test_draw_draws_new_ones_surprises_and_the_box_says_what_is_shown(open_page):
    page = open_page()
    first = _captions(page)
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.locator("#gallery .caption").first).not_to_have_text(first[0])
    wait_until_idle(page)
    assert not set(first) & set(_captions(page))
    # Presses before the first is answered: whatever comes last, the box says what is shown.
    page.get_by_role("button", name="Surprise me").dblclick()
    page.get_by_role("button", name="Draw defects").click()
    wait_until_idle(page)
    page.wait_for_function(
        "(box) => document.querySelector('#gallery .caption').textContent.startsWith(`seed ${box.value} ·`)",
        arg=_seed(page).element_handle(),
    )
    wait_until_idle(page)
    _draw_from(page, 40)
    assert [caption.split(" · ")[0] for caption in _captions(page)] == [f"seed {i}" for i in range(40, 46)]
    _set_slider(page, "num-images", 3)
    page.get_by_role("button", name="Draw defects").click()
    wait_for_gallery(page, 3)
    assert _captions(page)[0].startswith("seed 46 ·")
    page.get_by_text("Only with a defect").click()
    wait_until_idle(page)
    sync_api.expect(page.locator("#gallery")).not_to_contain_text("no defect")


def test_fine_tuning_acts_at_once_and_reload_draws_the_same(open_page):
    page = open_page()
    _draw_from(page, 7)
    areas = _captions(page)
    _set_slider(page, "size", 1.5)
    sync_api.expect(page.locator("#gallery .caption").first).not_to_have_text(areas[0])
    wait_until_idle(page)
    assert _captions(page)[0].startswith("seed 7 ·")
    page.get_by_role("button", name="Same part, many defects").click()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_contain_text("defect")
    wait_until_idle(page)
    shown = _captions(page)
    page.reload()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_have_text(shown[1])
    wait_until_idle(page)
    assert _captions(page) == shown
    page.get_by_text("Fine tuning").click()
    sync_api.expect(page.locator("#size input[type=number]")).to_have_value("1.5")
    sync_api.expect(page.locator("#only-defects input")).not_to_be_checked()
    # Strength changes what is seen of the defect, not where it is; it is kept too.
    before = page.locator("#gallery img[data-kind=image]").first.get_attribute("src")
    _set_slider(page, "draw-strength", 0.4)
    sync_api.expect(page.locator("#gallery img[data-kind=image]").first).not_to_have_attribute("src", before)
    wait_until_idle(page)
    assert _captions(page) == shown
    page.wait_for_function("location.search.includes('strength=0.4') && location.search.includes('only=0')")
    _wait_for_own_values(page.locator("#only-defects"))
    page.locator("#only-defects input").check()
    page.wait_for_function("!location.search.includes('only=0')")


def test_code_on_the_page_draws_what_the_page_shows(open_page, model_folders, monkeypatch):
    page = open_page()
    _draw_from(page, 0)
    _set_slider(page, "variety", 0.7)
    wait_until_idle(page)
    page.get_by_text("Code that draws exactly these").click()
    sync_api.expect(page.locator("#snippet")).to_contain_text("truncation_psi=0.7")
    page.locator("#gallery .pick").nth(3).click()
    sync_api.expect(_origin(page)).to_contain_text("seed 3")
    page.get_by_role("button", name="Same part, many defects").click()
    sync_api.expect(page.locator("#snippet")).to_contain_text("latents_from_seeds")
    wait_for_gallery(page, 6)
    page.locator("#gallery .pick").nth(2).click()
    sync_api.expect(_origin(page)).to_contain_text("part 3, defect 5")
    code = page.locator("#snippet pre").inner_text()
    assert str(model_folders["Blobs"].parent) not in code
    monkeypatch.chdir(model_folders["Blobs"].parent)
    scope: dict = {}
    exec(code, scope)
    for kind, drawn in (("image", "images"), ("defect_free", "defect_free_images"), ("mask", "masks")):
        name, content = _saved(page, page.locator(f"#large .files a[data-kind={kind}]").click)
        assert name.startswith("blobs_part_3_defect_5")
        with Image.open(io.BytesIO(content)) as shown:
            assert (np.asarray(shown) == np.asarray(getattr(scope["out"], drawn)[2])).all(), kind
            assert shown.info["License"] == "apache-2.0"
            assert '"defect_seed": 5' in shown.info["Settings"]


def test_what_is_on_the_screen_is_taken_home_and_only_what_is_ticked(open_page):
    page = open_page()
    _draw_from(page, 5)
    page.locator("#gallery .pick").nth(1).click()
    page.get_by_role("button", name="Same part, many defects").click()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_contain_text("part 6, defect 7")
    wait_until_idle(page)
    sync_api.expect(page.locator("#take-shown")).to_have_text("Take home the 6 shown")
    for ticks in ((), (1, 4)):
        for i in ticks:
            page.locator("#gallery .tick input").nth(i).check()
        if ticks:
            sync_api.expect(page.locator("#take-shown")).to_have_text("Take home the 2 ticked")
        page.get_by_label("Image folder", exact=True).check()
        name, content = _saved(page, page.locator("#take-shown").click)
        wanted = ticks or range(6)
        assert name == f"blobs_{len(wanted)}_imagefolder.zip"
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            readme = archive.read("blobs/README.md").decode()
            assert "Nothing here is a photograph" in readme
            assert "apache-2.0" in readme
            for place, i in enumerate(wanted):
                assert f"| {place:06d} | 6 | {6 + i} |" in readme
                for folder, kind in (("images", "image"), ("masks", "mask"), ("defect_free", "defect_free")):
                    source = page.locator(f"#gallery img[data-kind={kind}]").nth(i).get_attribute("src")
                    on_screen = Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))
                    taken = Image.open(io.BytesIO(archive.read(f"blobs/{folder}/{place:06d}.png")))
                    assert (np.asarray(taken) == np.asarray(on_screen)).all()
    _keep(page, "taken")


def test_large_view_turns_by_buttons_arrows_and_mouse(open_page):
    page = open_page()
    _draw_from(page, 0)
    page.locator("#gallery .pick").nth(3).click()
    sync_api.expect(_origin(page)).to_have_text("Number 4 · seed 3")
    page.get_by_role("button", name="Next part").click()
    sync_api.expect(_origin(page)).to_have_text("Number 5 · seed 4")
    page.keyboard.press("ArrowLeft")
    sync_api.expect(_origin(page)).to_have_text("Number 4 · seed 3")
    page.get_by_role("button", name="Previous part").click()
    sync_api.expect(_origin(page)).to_have_text("Number 3 · seed 2")
    stage = page.locator("#large .stage").bounding_box()
    page.mouse.click(stage["x"] + stage["width"] * 0.25, stage["y"] + stage["height"] * 0.5)
    assert _divider(page) == pytest.approx(25, abs=3)
    page.locator("#large .divider-position").press("End")
    assert _divider(page) == 100
    page.locator("#large .divider-position").press("ArrowLeft")
    assert page.locator("#large .divider-position").get_attribute("aria-valuetext").startswith("99 % shows")
    assert page.locator("#large .before").evaluate("image => getComputedStyle(image).clipPath").startswith("inset(")
    # A part without a defect is not said to have one.
    _set_slider(page, "size", -3)
    wait_until_idle(page)
    empty = next(i for i, caption in enumerate(_captions(page)) if "no defect" in caption)
    page.locator("#gallery .pick").nth(empty).click()
    sync_api.expect(page.locator("#large .tag.right")).to_have_text("no defect")


def test_ways_to_see_stay_on_for_the_next_part(open_page):
    page = open_page(color_scheme="dark")
    style = "(element, name) => getComputedStyle(element)[name]"
    tool = page.locator("#large .tools")
    for name in ("Outline", "Contrast"):
        tool.get_by_role("button", name=name).click()
    for _ in range(2):
        sync_api.expect(page.locator("#large .outline")).to_be_visible()
        image = page.locator("#large .after")
        assert "stretch" in image.evaluate(style, "filter")
        levels = page.locator("#stretch-large-column feFuncR")
        chosen = page.locator(".triplet:has([aria-pressed=true])")
        assert levels.get_attribute("slope") == chosen.get_attribute("data-slope")
        page.get_by_role("button", name="Next part").click()
    _keep(page, "desktop_dark")
    tool.get_by_role("button", name="Blink").click()
    assert page.locator("#large .before").evaluate(style, "animationName") == "blink"
    page.emulate_media(reduced_motion="reduce")
    assert page.locator("#large .before").evaluate(style, "animationName") == "none"
    tool.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement !== null")
    page.evaluate("document.exitFullscreen()")


def test_zoom_shows_real_pixels_at_the_defect_and_is_moved(open_page):
    page = open_page()
    _draw_from(page, 0)
    scope, sheet = page.locator("#large .scope"), page.locator("#large .sheet")
    closer = page.locator("#large").get_by_role("button", name="Zoom in")
    farther = page.locator("#large").get_by_role("button", name="Zoom out")
    fits = sheet.bounding_box()["width"]
    for scale in (16, 32):
        closer.click()
        sync_api.expect(page.locator("#large .scale")).to_have_text(f"{scale} ×")
        assert sheet.bounding_box()["width"] == pytest.approx(64 * scale)
    assert page.locator("#large .after").evaluate("image => getComputedStyle(image).imageRendering") == "pixelated"
    box, defect = (
        scope.bounding_box(),
        page.locator("#large .outline .line").evaluate(
            "path => { const box = path.getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2]; }"
        ),
    )
    assert box["x"] < defect[0] < box["x"] + box["width"]
    assert box["y"] < defect[1] < box["y"] + box["height"]
    # Moved by the mouse, the divider by its handle; by keys, which turn no page then; and kept for the next part.
    scope.evaluate("scope => scope.scrollTo(200, 200)")
    page.mouse.move(box["x"] + 60, box["y"] + 60)
    page.mouse.down()
    page.mouse.move(box["x"] + 160, box["y"] + 110, steps=5)
    page.mouse.up()
    assert scope.evaluate("scope => [scope.scrollLeft, scope.scrollTop]") == [100, 150]
    scope.press("ArrowDown")
    page.wait_for_function("document.querySelector('#large .scope').scrollTop > 150")
    sync_api.expect(_origin(page)).to_contain_text("Number 1 ·")
    page.get_by_role("button", name="Next part").click()
    assert sheet.bounding_box()["width"] == pytest.approx(64 * 32)
    for _ in range(2):
        farther.click()
    assert sheet.bounding_box()["width"] == pytest.approx(fits)
    assert scope.get_attribute("tabindex") is None


def test_same_part_same_defect_and_the_way_back(open_page):
    page = open_page()
    _draw_from(page, 0)
    before = _captions(page)
    page.locator("#gallery .pick").nth(2).click()
    page.get_by_role("button", name="Same part, many defects").click()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_contain_text("part 2, defect 3")
    wait_for_gallery(page, 6)
    page.locator("#gallery .pick").nth(1).click()
    page.get_by_role("button", name="Same defect, many parts").click()
    sync_api.expect(page.locator("#gallery .caption").nth(5)).to_contain_text("part 7, defect 3")
    wait_until_idle(page)
    page.get_by_role("button", name="Back to those before").click()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_contain_text("part 2, defect 3")
    wait_until_idle(page)
    page.get_by_role("button", name="Back to those before").click()
    sync_api.expect(page.locator("#gallery .caption").first).to_have_text(before[0])
    wait_until_idle(page)
    assert _captions(page) == before
    sync_api.expect(page.get_by_role("button", name="Back to those before")).to_be_hidden()


def test_another_model_of_the_operator_is_chosen_by_its_picture(open_page):
    page = open_page()
    before = page.locator("#large .after").get_attribute("src")
    assert page.locator("#models img").count() == 2
    page.get_by_text("Coloured blobs").click()
    sync_api.expect(page.locator("#large .after")).not_to_have_attribute("src", before)
    page.get_by_text("Code that draws exactly these").click()
    sync_api.expect(page.locator("#snippet")).to_contain_text("coloured")
    page.get_by_role("tab", name="About").click()
    sync_api.expect(page.locator("#card")).to_contain_text("A model of nothing")
    assert page.locator("#card img").evaluate("image => image.naturalWidth") == 64
    _keep(page, "about")


def test_an_error_is_said_in_words_and_goes_when_the_next_request_starts(open_page):
    page = open_page(expected_complaint="503")
    _seed(page).fill("-5")
    _seed(page).press("Enter")
    refused = page.locator("#status .refused")
    sync_api.expect(refused).to_have_text("Seed must be a whole number from 0 to 4,294,967,295, but is -5.")
    sync_api.expect(page.locator("#gallery .pick").first).to_be_visible()
    _keep(page, "error")
    held = []
    page.route("**/queue/join*", lambda route: held.append(route))
    page.get_by_role("button", name="Surprise me").click()
    sync_api.expect(refused).to_have_count(0)
    sync_api.expect(page.locator("#announcer")).to_have_text("Drawing…")
    full = {"detail": "Queue is full. Max size is 40 and current size is 40."}
    deadline = time.monotonic() + WAIT_MILLISECONDS / 1000
    while not held and time.monotonic() < deadline:
        page.wait_for_timeout(50)
    held[0].fulfill(status=503, json=full)
    sync_api.expect(refused).to_contain_text("Too many visitors are drawing")
    page.unroute("**/queue/join*")
    page.get_by_role("button", name="Surprise me").click()
    sync_api.expect(page.locator("#status")).to_contain_text("6 parts drawn")
    sync_api.expect(page.locator("#announcer")).to_contain_text("6 parts drawn")


def test_place_in_the_queue_is_shown_and_passing_time_is_not(open_page, server):
    page = open_page()
    with httpx.Client(base_url=f"{server.url}/gradio_api") as http:
        for _ in range(5):
            http.post("/call/draw", json={"data": ["Blobs", 24, 0, 1.0, 0.0]}).raise_for_status()
        page.get_by_role("button", name="Draw defects").click()
        sync_api.expect(page.locator("#gallery")).to_contain_text(re.compile(r"queue: \d/\d"))
        assert page.get_by_text(re.compile("processing")).locator("visible=true").count() == 0
    wait_for_gallery(page, 6)


def test_a_walk_is_chosen_by_picture_plays_pauses_and_is_saved(open_page):
    page = open_page()
    page.get_by_role("button", name="Same defect, many parts").click()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_contain_text("defect")
    wait_until_idle(page)
    page.get_by_text("Walk from one to another").click()
    sync_api.expect(page.locator("#walk-to input")).to_have_count(6)
    sync_api.expect(page.get_by_role("radio", name="The part")).to_be_checked()
    _wait_for_own_values(page.get_by_role("radio", name="The defect"))
    page.get_by_role("radio", name="The defect").check()
    page.locator("#walk-to label").nth(4).click()
    page.get_by_role("button", name="Make the animation").click()
    sync_api.expect(page.locator("#walk-status")).to_contain_text("Both ends have the same defect")
    page.get_by_role("radio", name="The part").check()
    page.get_by_role("button", name="Make the animation").click()
    player = page.locator("#walk .player")
    sync_api.expect(player.locator(".frame.now")).to_be_visible()
    sync_api.expect(page.locator("#walk-status .refused")).to_have_count(0)
    _keep(page, "walk")
    page.wait_for_function("document.querySelector('#walk .step').value > 1")
    player.get_by_role("button", name="Pause").click()
    place = player.locator(".step").input_value()
    page.wait_for_timeout(300)
    assert player.locator(".step").input_value() == place
    name, content = _saved(page, player.get_by_text("Save as WebP").click)
    assert name == "walk.webp"
    with Image.open(io.BytesIO(content)) as animation:
        assert animation.n_frames > 20
    page.emulate_media(reduced_motion="reduce")
    page.get_by_role("button", name="Make the animation").click()
    sync_api.expect(player.get_by_role("button", name="Play")).to_be_visible()


def test_a_data_set_is_made_cancelled_and_refused_in_words(open_page, server):
    page = open_page(expected_complaint="503")
    page.get_by_role("tab", name="Data set").click()
    sync_api.expect(page.get_by_role("button", name="Cancel")).to_be_hidden()
    _set_slider(page, "export-count", 40)
    # Written down inside the page, because a quick server may be done before a slow test has looked.
    page.evaluate(
        "() => { window.archiveTexts = []; new MutationObserver(() =>"
        " archiveTexts.push(document.querySelector('#archive').textContent))"
        ".observe(document.querySelector('#archive'), {subtree: true, childList: true, characterData: true}); }"
    )
    page.get_by_role("button", name="Make the ZIP").click()
    link = page.locator("#archive a[download]")
    sync_api.expect(link).to_be_visible()
    assert any(re.search(r"\d+ of 40 parts", text) for text in page.evaluate("archiveTexts"))
    sync_api.expect(page.locator("#command")).to_contain_text("examples/generate.py")
    sync_api.expect(page.locator("#command")).not_to_contain_text("/tmp")
    _keep(page, "data_set")
    name, content = _saved(page, link.click)
    assert name == "blobs_40_mvtec.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert "blobs/README.md" in archive.namelist()
        assert sum(name.endswith("_mask.png") for name in archive.namelist()) == 40
    _set_slider(page, "export-count", 200)
    # Clicked inside the page at the first sign of progress, because a slow test may come when all is done.
    page.evaluate(
        "() => { const archive = document.querySelector('#archive');"
        " new MutationObserver((_, observer) => {"
        "   if (!/of 200 parts/.test(archive.textContent)) return;"
        "   observer.disconnect(); document.querySelector('#cancel-button').click();"
        " }).observe(archive, {subtree: true, childList: true, characterData: true}); }"
    )
    page.get_by_role("button", name="Make the ZIP").click()
    sync_api.expect(page.locator("#zip-status")).to_contain_text("Cancelled: no ZIP was made.")
    sync_api.expect(page.get_by_role("button", name="Make the ZIP")).to_be_enabled()
    page.wait_for_timeout(1000)
    assert "Cancelled" in page.locator("#zip-status").inner_text()
    assert page.locator("#archive a[download]").count() == 0
    # ZIP files are made one after the other: when the next one is there, this one has come to its end.
    with httpx.Client(base_url=f"{server.url}/gradio_api/call/export", timeout=WAIT_MILLISECONDS / 1000) as http:
        event_id = http.post("", json={"data": ["Blobs", 1, 0, "MVTec AD", 1.0, 0.0]}).json()["event_id"]
        assert "event: complete" in http.get(f"/{event_id}").text
    assert "blobs_200_mvtec.zip" not in {file.name for file in server.files()}
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    page.get_by_role("button", name="Make the ZIP").click()
    sync_api.expect(page.locator("#zip-status")).to_contain_text("Too many visitors are drawing")
    sync_api.expect(page.get_by_role("button", name="Make the ZIP")).to_be_enabled()


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_a_defect_is_painted_into_a_photograph_and_taken_home(open_page, tmp_path, viewport):
    is_phone = viewport == PHONE
    page = open_page(viewport, has_touch=is_phone, is_mobile=is_phone)
    rng = np.random.default_rng(0)
    before = (120 + 40 * np.sin(np.arange(480) / 40) + rng.normal(0, 3, (360, 480))).clip(0, 255).astype(np.uint8)
    Image.fromarray(before).save(tmp_path / "good.png")
    page.get_by_role("tab", name="Paint").click()
    sync_api.expect(page.locator("#photograph-facts")).to_contain_text("Part 20")
    page.locator("#photograph-row input[type=file]").set_input_files(tmp_path / "good.png")
    sync_api.expect(page.locator("#photograph-facts")).to_contain_text("good.png · 480 × 360 pixels")
    wait_until_idle(page)
    canvas = page.locator("#canvas canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x - 30, y)
    page.mouse.down()
    page.mouse.move(x + 30, y, steps=8)
    page.mouse.up()
    page.get_by_text("Scale and product").click()
    _wait_for_own_values(page.locator("#any-product"))
    page.get_by_label("Paint unknown products too").check()
    page.get_by_role("button", name="Paint the defect").click()
    sync_api.expect(page.locator("#paint-status")).to_contain_text("Painted where you brushed")
    sync_api.expect(page.locator("#painted .zoomed .stage")).to_be_in_viewport()
    sync_api.expect(page.locator("#painted .whole")).to_be_hidden()
    page.locator("#paint-result").get_by_role("button", name="Outline").click()
    sync_api.expect(page.locator("#painted .zoomed .outline")).to_be_visible()
    _keep(page, f"painted_{page.viewport_size['width']}")
    page.get_by_role("button", name="Whole photograph").click()
    sync_api.expect(page.locator("#painted .whole .stage")).to_be_visible()
    sync_api.expect(page.locator("#painted .zoomed")).to_be_hidden()
    _keep(page, f"painted_whole_{page.viewport_size['width']}")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    name, content = _saved(page, page.locator("#paint-archive a[download]").click)
    assert name == "good_painted.zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        after, label = (
            np.asarray(Image.open(io.BytesIO(archive.read(f"good_{kind}.png")))) for kind in ("painted", "label")
        )
    assert (after[label == 0] == before[label == 0]).all()
    ys, xs = np.nonzero(label)
    # Where the brush was, as far as this model of nothing changes anything there.
    assert (xs.mean(), ys.mean()) == pytest.approx((240, 180), abs=50)


def test_a_refused_photograph_is_said_in_words(open_page, tmp_path):
    page = open_page()
    page.get_by_role("tab", name="Paint").click()
    sync_api.expect(page.locator("#photograph-facts")).to_contain_text("Part 20")
    (tmp_path / "notes.png").write_text("not a photograph")
    page.locator("#photograph-row input[type=file]").set_input_files(tmp_path / "notes.png")
    sync_api.expect(page.locator("#paint-status .refused")).to_contain_text(
        "no whole photograph in PNG, JPEG, TIFF or WebP"
    )
    _keep(page, "paint_refused")
    # What was there can still be painted on.
    page.get_by_role("button", name="Paint the defect").click()
    sync_api.expect(page.locator("#paint-status")).to_contain_text("Painted where the model chose")


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_phone(open_page, browser, server, color_scheme):
    page = open_page(PHONE, color_scheme, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Defects are seen without scrolling.
    assert page.locator("#gallery .pick").first.bounding_box()["y"] < PHONE["height"] - 120
    _keep(page, f"phone_{color_scheme}")
    page.locator("#gallery .pick").nth(1).tap()
    sync_api.expect(_origin(page)).to_contain_text("Number 2")
    sync_api.expect(page.locator("#large .stage")).to_be_in_viewport()
    page.get_by_role("button", name="Back to all parts").tap()
    sync_api.expect(page.locator("#gallery .pick").nth(1)).to_be_in_viewport()
    assert page.locator("#gallery .pick").nth(1).evaluate("button => button === document.activeElement")
    page.get_by_role("button", name="Same part, many defects").tap()
    sync_api.expect(page.locator("#gallery .caption").nth(1)).to_contain_text("part")
    sync_api.expect(page.locator("#status")).to_be_in_viewport()
    # Gradio hides its link to the API here; the dot beside it has to go too.
    assert page.locator("footer .divider:visible").count() == 0
    for tab in ("Paint", "Data set", "About"):
        page.get_by_role("tab", name=tab).tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab


def test_the_page_of_the_models_that_ship_is_light_and_stands_still_while_it_comes(browser, tmp_path):
    with running_server([], tmp_path) as server:
        for _ in range(2):
            _is_light_and_stands_still(browser, server)


def _is_light_and_stands_still(browser, server):
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)
    page = context.new_page()
    page.set_default_timeout(WAIT_MILLISECONDS)
    page.add_init_script(
        "window.shift = 0; window.moved = []; new PerformanceObserver((list) => list.getEntries().forEach((entry) => {"
        " if (entry.hadRecentInput) return; shift += entry.value; moved.push([entry.value, ...entry.sources.map((s) =>"
        " [s.node?.id || s.node?.className || '', s.previousRect.top, s.currentRect.top].join(' '))]);"
        " })).observe({type: 'layout-shift', buffered: true});"
    )
    loaded = []
    page.on("requestfinished", lambda request: loaded.append((request.url, request.sizes()["responseBodySize"])))
    page.goto(server.url)
    wait_for_gallery(page, 6)
    page.wait_for_timeout(1500)
    assert page.evaluate("shift") < 0.1, page.evaluate("moved")
    assert len(loaded) < 90
    assert sum(size for _, size in loaded) < 450 * 2**10
    assert not [url for url, _ in loaded if re.search("hls|Video|ImageEditor|Canvas", url)]
    context.close()


def test_gallery_is_one_stop_with_arrows_and_all_is_reached_by_keyboard(open_page):
    page = open_page()
    _draw_from(page, 9)
    buttons = page.locator("#gallery .pick")
    assert re.fullmatch(
        r"Number 1, seed 9, (defect on .+ % of the picture|no defect)", buttons.first.get_attribute("aria-label")
    )
    assert page.locator("#gallery .pick[tabindex='0']").count() == 1
    reached = []
    _seed(page).focus()
    for _ in range(40):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "[document.activeElement.textContent.trim(), document.activeElement.getAttribute('aria-label'),"
            " document.activeElement.id, document.activeElement.type].join('|')"
        )
        reached.append(focused)
        if "Number" in focused and "tick" not in focused.lower():
            page.keyboard.press("End")
            sync_api.expect(_origin(page)).to_contain_text("Number 6")
            page.keyboard.press("ArrowUp")
            sync_api.expect(_origin(page)).to_contain_text("Number 5")
            sync_api.expect(buttons.nth(4)).to_be_focused()
            sync_api.expect(buttons.nth(4)).to_have_attribute("aria-pressed", "true")
        if "Divider" in focused:
            page.keyboard.press("Home")
            assert _divider(page) == 0
        if focused.startswith("Outline"):
            page.keyboard.press("Space")
            sync_api.expect(page.locator("#large .outline")).to_be_visible()
    everything = " ".join(reached)
    for name in (
        "Draw",
        "Surprise",
        "Fine",
        "Divider",
        "Same part",
        "Same defect",
        "Take home",
        "Walk",
        "Code",
        "Next",
    ):
        assert name in everything, reached
    assert sum("Number" in focused and "Tick" not in focused for focused in reached) == 1


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_no_barrier_is_found_on_any_tab(open_page, color_scheme):
    axe = pytest.importorskip("axe_playwright_python", reason="pip install axe-playwright-python")
    page = open_page(color_scheme=color_scheme)
    page.evaluate((Path(axe.__file__).parent / "axe.min.js").read_text(encoding="utf-8"))
    page.get_by_text("Fine tuning").click()
    page.get_by_text("Walk from one to another").click()
    page.get_by_role("button", name="Make the animation").click()
    page.get_by_text("Code that draws exactly these").click()
    sync_api.expect(page.locator("#walk .player")).to_be_visible()
    page.locator("#walk .player").get_by_role("button", name="Pause").click()
    found = {}
    for tab, viewport in itertools.product(("Draw", "Paint", "Data set", "About"), (DESKTOP, PHONE)):
        page.set_viewport_size(viewport)
        page.get_by_role("tab", name=tab).click()
        if tab == "Paint" and viewport == DESKTOP:
            sync_api.expect(page.locator("#photograph-facts")).to_contain_text("Part 20")
            page.get_by_role("button", name="Paint the defect").click()
            sync_api.expect(page.locator("#paint-status")).to_contain_text("Painted")
        if tab == "About":
            sync_api.expect(page.locator("#card")).to_contain_text("A model of nothing")
        wait_until_idle(page)
        for _ in range(3):  # a frame without its picture, which has a label that no role allows, can be there a moment
            report = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
            if not report["violations"]:
                break
            page.wait_for_timeout(1000)
        for rule in report["violations"]:
            found[f"{tab} {viewport['width']}: {rule['id']}"] = [node["html"][:160] for node in rule["nodes"][:4]]
    assert found == {}


def test_pictures_of_the_documentation_are_taken_by_one_command(browser, server, tmp_path):
    from tests.spaces.screenshots import take

    take(browser, server.url, "Coloured blobs", 3, tmp_path)
    with Image.open(tmp_path / "space_desktop.png") as desktop, Image.open(tmp_path / "space_phone.png") as phone:
        assert desktop.width == DESKTOP["width"]
        assert phone.size == (2 * PHONE["width"], 2 * PHONE["height"])
        # Light and dark.
        assert np.asarray(desktop.convert("L")).mean() > 128 > np.asarray(phone.convert("L")).mean()
