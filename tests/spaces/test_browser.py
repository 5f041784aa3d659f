"""The page in a real browser: what a person does with it, at a desk and on a phone, with a mouse and by keyboard.

DFMGAN_SCREENSHOT_DIR=FOLDER keeps what the tests saw.
"""

from __future__ import annotations

import io
import os
import re
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
    return page.locator("#gallery .caption-label").all_inner_texts()


def _origin(page: sync_api.Page) -> str:
    return " ".join(page.locator("#large .origin").inner_text().split())


def _divider(page: sync_api.Page) -> float:
    cut = page.locator("#large .stage").evaluate("stage => stage.style.getPropertyValue('--cut')")
    return float(cut.removesuffix("%"))


def _wait_for_own_values(widget: sync_api.Locator) -> None:
    """Until what was folded away keeps what is entered: gradio gives it its first value once more a frame later."""
    widget.wait_for()
    widget.evaluate("() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def _set_slider(page: sync_api.Page, elem_id: str, value: float) -> None:
    box = page.locator(f"#{elem_id} input[type=number]")
    _wait_for_own_values(box)
    box.fill(str(value))
    box.press("Tab")


def test_first_view_shows_defects_without_a_click(open_page):
    page = open_page()
    assert [caption.split(" · ")[0] for caption in _captions(page)] == [f"seed {i}" for i in range(6)]
    assert page.locator("#status").inner_text().startswith("6 parts drawn")
    assert re.search(r"\d+\.\d\d %\s+of the picture is defect", page.locator("#large .area").inner_text())
    assert page.locator("#gallery .thumbnail-item.selected").count() == 1
    _keep(page, "desktop_light")


def test_first_view_waits_in_no_queue_and_shows_its_choice_in_the_gallery(open_page, browser, server):
    page = browser.new_context(viewport={"width": 1280, "height": 600}).new_page()
    page.set_default_timeout(WAIT_MILLISECONDS)
    asked = []
    page.on("request", lambda request: "/queue/join" in request.url and asked.append(request.post_data))
    page.goto(server.url)
    wait_for_gallery(page, 6)
    assert asked == []
    # The list at the side scrolls, and what stands large is in its sight.
    page.wait_for_function(
        "() => { const list = document.querySelector('#gallery .grid-wrap').getBoundingClientRect();"
        " const chosen = document.querySelector('#gallery .selected').getBoundingClientRect();"
        " return chosen.top >= list.top - 1 && chosen.bottom <= list.bottom + 1; }"
    )
    page.context.close()


def test_code_on_the_page_draws_what_the_page_shows(open_page):
    page = open_page()
    page.get_by_text("Fine tuning").click()
    _set_slider(page, "truncation-psi", 0.7)
    _set_slider(page, "mask-threshold", -0.5)
    page.get_by_role("button", name="Draw defects").click()
    page.get_by_text("Code that draws exactly these").click()
    sync_api.expect(page.locator("#snippet")).to_contain_text("truncation_psi=0.7, mask_threshold=-0.5")
    page.locator("#gallery .thumbnail-item").nth(3).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("seed 3")
    page.get_by_role("button", name="Same part, many defects").click()
    sync_api.expect(page.locator("#snippet")).to_contain_text("latents_from_seeds")
    wait_for_gallery(page, 6)
    page.locator("#gallery .thumbnail-item").nth(2).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("part 3, defect 5")
    scope: dict = {}
    exec("\n".join(page.locator("#snippet .cm-line").all_inner_texts()), scope)
    for kind, drawn in (
        ("with defect", scope["out"].images),
        ("without", scope["out"].defect_free_images),
        ("mask", scope["out"].masks),
    ):
        with page.expect_download() as download:
            page.locator("#large .files").get_by_text(kind, exact=True).click()
        with Image.open(download.value.path()) as shown:
            assert shown.format == "PNG"
            assert (np.asarray(shown) == np.asarray(drawn[2])).all(), kind


def test_one_click_opens_the_large_view_and_the_divider_follows_mouse_and_keys(open_page):
    page = open_page()
    page.locator("#gallery .thumbnail-item").nth(3).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("Number 4 · seed 3")
    stage = page.locator("#large .stage").bounding_box()
    page.mouse.click(stage["x"] + stage["width"] * 0.25, stage["y"] + stage["height"] * 0.5)
    assert _divider(page) == pytest.approx(25, abs=3)
    page.locator("#large .divider-position").press("End")
    assert _divider(page) == 100
    page.locator("#large .divider-position").press("ArrowLeft")
    assert _divider(page) == 99
    clip = page.locator("#large .before").evaluate("image => getComputedStyle(image).clipPath")
    assert clip.startswith("inset(")


def test_outline_is_switched_on_and_stays_on(open_page):
    page = open_page(color_scheme="dark")
    outline = page.locator("#large .outline")
    sync_api.expect(outline).to_be_hidden()
    page.get_by_label("Outline the defect").check()
    sync_api.expect(outline).to_be_visible()
    page.locator("#gallery .thumbnail-item").nth(2).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("Number 3")
    sync_api.expect(outline).to_be_visible()
    _keep(page, "desktop_dark")


def test_same_part_many_defects_and_same_defect_many_parts(open_page):
    page = open_page()
    page.locator("#gallery .thumbnail-item").nth(2).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("seed 2")
    page.get_by_role("button", name="Same part, many defects").click()
    sync_api.expect(page.locator("#gallery .caption-label").nth(1)).to_contain_text("part 2, defect 3")
    wait_for_gallery(page, 6)
    page.locator("#gallery .thumbnail-item").nth(1).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("part 2, defect 3")
    page.get_by_role("button", name="Same defect, many parts").click()
    sync_api.expect(page.locator("#gallery .caption-label").nth(5)).to_contain_text("part 7, defect 3")


def test_settings_change_what_is_drawn(open_page):
    page = open_page()
    page.get_by_label("Seed", exact=True).fill("40")
    _set_slider(page, "num-images", 3)
    page.get_by_role("button", name="Draw defects").click()
    wait_for_gallery(page, 3)
    assert _captions(page)[0].startswith("seed 40 ·")
    page.get_by_role("button", name="Surprise me").click()
    sync_api.expect(page.locator("#gallery .caption-label").first).not_to_contain_text("seed 40 ·")
    assert page.get_by_label("Seed", exact=True).input_value() != "40"


def test_another_model_of_the_operator_is_chosen_from_the_list(open_page):
    page = open_page()
    before = page.locator("#large img").first.get_attribute("src")
    page.get_by_label("Model").click()
    page.get_by_role("option", name="Coloured blobs").click()
    sync_api.expect(page.locator("#large img").first).not_to_have_attribute("src", before)
    page.get_by_text("Code that draws exactly these").click()
    sync_api.expect(page.locator("#snippet")).to_contain_text("coloured")


def test_no_defect_at_this_threshold_is_said(open_page):
    page = open_page()
    page.get_by_text("Fine tuning").click()
    _set_slider(page, "mask-threshold", 10)
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.locator("#status")).to_contain_text("None of these seeds drew a defect at this threshold")
    sync_api.expect(page.locator("#large .none")).to_contain_text("This seed drew no defect at this threshold")
    assert all("no defect" in caption for caption in _captions(page))
    _keep(page, "empty")


def test_an_error_is_said_in_words_and_goes_away(open_page):
    page = open_page()
    page.get_by_label("Seed", exact=True).fill("-5")
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.get_by_role("alert")).to_have_text(
        "Seed must be a whole number from 0 to 4,294,967,295, but is -5."
    )
    sync_api.expect(page.locator("#gallery .thumbnail-item img").first).to_be_visible()
    _keep(page, "error")
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.locator("#gallery .caption-label").first).to_contain_text("seed 5")
    sync_api.expect(page.locator("#status .refused")).to_have_count(0)


def test_a_full_queue_is_said_and_the_pictures_stay(open_page):
    page = open_page(expected_complaint="503")
    full = {"detail": "Queue is full. Max size is 40 and current size is 40."}
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json=full))
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.get_by_role("alert")).to_contain_text("Too many visitors are drawing")
    sync_api.expect(page.locator("#gallery > [data-testid=status-tracker]")).to_be_hidden()
    page.unroute("**/queue/join*")
    page.get_by_label("Seed", exact=True).fill("4")
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.get_by_role("alert")).to_have_count(0)
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json=full))
    page.locator("#gallery .thumbnail-item").nth(3).click()
    sync_api.expect(page.get_by_role("alert")).to_contain_text("Too many visitors are drawing")
    page.unroute("**/queue/join*")
    page.get_by_label("Seed", exact=True).fill("5")
    page.get_by_role("button", name="Draw defects").click()
    sync_api.expect(page.locator("#gallery .caption-label").first).to_contain_text("seed 5")


def test_place_in_the_queue_is_shown(open_page, server):
    page = open_page()
    with httpx.Client(base_url=f"{server.url}/gradio_api") as http:
        for _ in range(5):
            http.post("/call/draw", json={"data": ["Blobs", 24, 0, 1.0, 0.0]}).raise_for_status()
        page.get_by_role("button", name="Draw defects").click()
        sync_api.expect(page.locator("#gallery")).to_contain_text(re.compile(r"queue: \d/\d"))
        _keep(page, "queue")
    wait_for_gallery(page, 6)
    sync_api.expect(page.locator("#gallery")).not_to_contain_text("queue:")


def test_walk_plays_and_can_be_saved(open_page):
    page = open_page()
    page.get_by_text("Walk from one to another").click()
    page.get_by_role("button", name="Make the animation").click()
    image = page.locator("#animation img")
    sync_api.expect(image).to_be_visible()
    image.scroll_into_view_if_needed()
    _keep(page, "walk")
    with page.expect_download() as download:
        page.locator("#animation").get_by_role("button", name="Download").click()
    with Image.open(download.value.path()) as animation:
        assert animation.format == "WEBP"
        assert animation.n_frames > 20


def test_a_walk_lets_change_what_differs(open_page):
    page = open_page()
    page.get_by_role("button", name="Same defect, many parts").click()
    sync_api.expect(page.locator("#gallery .caption-label").nth(1)).to_contain_text("defect")
    page.get_by_text("Walk from one to another").click()
    sync_api.expect(page.get_by_role("radio", name="The part")).to_be_checked()
    _wait_for_own_values(page.get_by_role("radio", name="The defect"))
    page.get_by_role("radio", name="The defect").check()
    page.get_by_role("button", name="Make the animation").click()
    sync_api.expect(page.get_by_role("alert")).to_contain_text("Both ends have the same defect")
    _keep(page, "walk_refused")
    page.get_by_role("radio", name="The part").check()
    page.get_by_role("button", name="Make the animation").click()
    sync_api.expect(page.locator("#animation img")).to_be_visible()
    sync_api.expect(page.get_by_role("alert")).to_have_count(0)


def test_zip_is_made_with_progress_and_downloaded(open_page):
    page = open_page()
    page.get_by_role("tab", name="Take away").click()
    _set_slider(page, "export-count", 150)
    # Written down inside the page, because a quick server may be done before a slow test has looked.
    page.evaluate(
        "() => { window.archiveTexts = []; const archive = document.querySelector('#archive');"
        " new MutationObserver(() => archiveTexts.push(archive.textContent))"
        ".observe(archive, {subtree: true, childList: true, characterData: true}); }"
    )
    page.get_by_role("button", name="Make the ZIP").click()
    link = page.locator("#archive a[download]").first
    sync_api.expect(link).to_be_visible()
    assert any(re.search(r"\d+/150 parts", text) for text in page.evaluate("archiveTexts"))
    sync_api.expect(page.locator("#command")).to_contain_text("examples/generate.py")
    _keep(page, "take_away")
    with page.expect_download() as download:
        link.click()
    assert download.value.suggested_filename == "blobs_150.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        masks = [name for name in archive.namelist() if name.endswith("_mask.png")]
        assert len(masks) == 150
        assert set(np.unique(np.asarray(Image.open(io.BytesIO(archive.read(masks[0])))))) == {0, 255}


def test_a_zip_can_be_cancelled(open_page, server):
    page = open_page()
    page.get_by_role("tab", name="Take away").click()
    _set_slider(page, "export-count", 200)
    # Clicked inside the page at the first sign of progress, because a slow test may come when all is done.
    page.evaluate(
        "() => { const archive = document.querySelector('#archive');"
        " new MutationObserver((_, observer) => {"
        "   if (!/\\d+.200 parts/.test(archive.textContent)) return;"
        "   observer.disconnect(); window.cancelled = true; document.querySelector('#cancel-button').click();"
        " }).observe(archive, {subtree: true, childList: true, characterData: true}); }"
    )
    page.get_by_role("button", name="Make the ZIP").click()
    page.wait_for_function("window.cancelled")
    sync_api.expect(page.get_by_role("button", name="Cancel")).to_be_disabled()
    sync_api.expect(page.get_by_role("button", name="Make the ZIP")).to_be_enabled()
    assert page.locator("#archive a[download]").count() == 0
    # ZIP files are made one after the other: when the next one is there, this one has come to its end.
    with httpx.Client(base_url=f"{server.url}/gradio_api/call/export", timeout=WAIT_MILLISECONDS / 1000) as http:
        event_id = http.post("", json={"data": ["Blobs", 1, 0, "MVTec AD", 1.0, 0.0]}).json()["event_id"]
        assert "event: complete" in http.get(f"/{event_id}").text
    assert "blobs_200.zip" not in {file.name for file in server.files()}


def test_a_refused_zip_is_said_in_words(open_page):
    page = open_page(expected_complaint="503")
    page.get_by_text("Fine tuning").click()
    _set_slider(page, "mask-threshold", 10)
    page.get_by_role("tab", name="Take away").click()
    make = page.get_by_role("button", name="Make the ZIP")
    make.click()
    sync_api.expect(page.get_by_role("alert")).to_contain_text("drew no defect at this threshold")
    sync_api.expect(page.locator("#archive > [data-testid=status-tracker] .error")).to_be_hidden()
    sync_api.expect(make).to_be_enabled()
    _keep(page, "take_away_refused")
    page.route("**/queue/join*", lambda route: route.fulfill(status=503, json={"detail": "Queue is full."}))
    make.click()
    sync_api.expect(page.get_by_role("alert")).to_contain_text("Too many visitors are drawing")
    sync_api.expect(make).to_be_enabled()


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
    page.get_by_label("Outline what changed").check()
    sync_api.expect(page.locator("#painted .zoomed .outline")).to_be_visible()
    _keep(page, f"painted_{page.viewport_size['width']}")
    page.get_by_label("Whole photograph").check()
    sync_api.expect(page.locator("#painted .whole .stage")).to_be_visible()
    sync_api.expect(page.locator("#painted .zoomed")).to_be_hidden()
    _keep(page, f"painted_whole_{page.viewport_size['width']}")
    assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
    with page.expect_download() as download:
        page.locator("#paint-archive a[download]").first.click()
    assert download.value.suggested_filename == "good_painted.zip"
    with zipfile.ZipFile(download.value.path()) as archive:
        after, label = (
            np.asarray(Image.open(io.BytesIO(archive.read(f"good_{kind}.png")))) for kind in ("painted", "label")
        )
    assert (after[label == 0] == before[label == 0]).all()
    ys, xs = np.nonzero(label)
    # Where the brush was, as far as this model of nothing changes anything there.
    assert (xs.mean(), ys.mean()) == pytest.approx((240, 180), abs=30)


def test_a_refused_photograph_is_said_in_words(open_page, tmp_path):
    page = open_page()
    page.get_by_role("tab", name="Paint").click()
    sync_api.expect(page.locator("#photograph-facts")).to_contain_text("Part 20")
    (tmp_path / "notes.png").write_text("not a photograph")
    page.locator("#photograph-row input[type=file]").set_input_files(tmp_path / "notes.png")
    sync_api.expect(page.get_by_role("alert")).to_contain_text("no whole photograph in PNG, JPEG, TIFF or WebP")
    _keep(page, "paint_refused")
    # What was there can still be painted on.
    page.get_by_role("button", name="Paint the defect").click()
    sync_api.expect(page.locator("#paint-status")).to_contain_text("Painted where the model chose")


def test_about_page_is_the_models_card(open_page):
    page = open_page()
    page.get_by_role("tab", name="About the model").click()
    card = page.locator("#card")
    sync_api.expect(card).to_contain_text("A model of nothing")
    sync_api.expect(card).to_contain_text("It knows no part.")
    assert card.locator("img").evaluate("image => image.naturalWidth") == 64
    _keep(page, "about")


def test_files_of_the_large_view_are_the_pipelines_own_pixels(open_page, model_folders):
    from dfmgan_hf import DFMGANPipeline

    page = open_page()
    page.locator("#gallery .thumbnail-item").nth(4).click()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("seed 4")
    with page.expect_download() as download:
        page.locator("#large .files").get_by_text("mask").click()
    assert download.value.suggested_filename == "part_4_defect_4_mask.png"
    expected = DFMGANPipeline.from_pretrained(model_folders["Blobs"])(seeds=[4]).masks[0]
    assert (np.asarray(Image.open(download.value.path())) == np.asarray(expected)).all()


@pytest.mark.parametrize("color_scheme", ["light", "dark"])
def test_phone(open_page, color_scheme):
    page = open_page(PHONE, color_scheme, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    # Defects are seen without scrolling.
    assert page.locator("#gallery .thumbnail-item").first.bounding_box()["y"] < PHONE["height"] - 120
    _keep(page, f"phone_{color_scheme}")
    page.locator("#gallery .thumbnail-item").nth(1).tap()
    sync_api.expect(page.locator("#large .origin")).to_contain_text("Number 2")
    sync_api.expect(page.locator("#large .stage")).to_be_in_viewport()
    page.get_by_role("button", name="Same part, many defects").tap()
    sync_api.expect(page.locator("#gallery .caption-label").nth(1)).to_contain_text("part 1, defect 2")
    sync_api.expect(page.locator("#status")).to_be_in_viewport()
    # Gradio hides its link to the API here; the dot beside it has to go too.
    assert page.locator("footer .divider:visible").count() == 0
    for tab in ("Paint", "Take away", "About the model"):
        page.get_by_role("tab", name=tab).tap()
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"], tab


def test_everything_is_reached_and_done_by_keyboard(open_page):
    page = open_page()
    page.get_by_label("Seed", exact=True).focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    sync_api.expect(page.locator("#gallery .caption-label").first).to_contain_text("seed 9")
    wait_for_gallery(page, 6)
    reached = []
    for _ in range(30):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            "[document.activeElement.textContent.trim(), document.activeElement.getAttribute('aria-label'),"
            " document.activeElement.id, document.activeElement.type].join('|')"
        )
        reached.append(focused)
        if focused.startswith("seed 10"):
            page.keyboard.press("Enter")
            sync_api.expect(page.locator("#large .origin")).to_contain_text("seed 10")
        if "Divider" in focused:
            page.keyboard.press("Home")
            assert _divider(page) == 0
        if "checkbox" in focused:
            page.keyboard.press("Space")
            sync_api.expect(page.locator("#large .outline")).to_be_visible()
    everything = " ".join(reached)
    for name in ("Draw defects", "Surprise me", "Fine tuning", "Divider", "Same part", "Same defect", "Walk", "Code"):
        assert name in everything, reached


def test_pictures_of_the_documentation_are_taken_by_one_command(browser, server, tmp_path):
    from tests.spaces.screenshots import take

    take(browser, server.url, 3, tmp_path)
    with Image.open(tmp_path / "space_desktop.png") as desktop, Image.open(tmp_path / "space_phone.png") as phone:
        assert desktop.width == DESKTOP["width"]
        assert phone.size == (2 * PHONE["width"], 2 * PHONE["height"])
        # Light and dark.
        assert np.asarray(desktop.convert("L")).mean() > 128 > np.asarray(phone.convert("L")).mean()
