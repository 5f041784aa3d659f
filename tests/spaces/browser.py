"""Chromium, and what the tests and the pictures of the documentation wait for in it."""

from __future__ import annotations

import os
import shutil

from playwright import sync_api

CHROMIUM = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, ("chromium", "chromium-browser"))), None)
CHROMIUM_OPTIONS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DESKTOP = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}
# Conditions, not times, are waited for: this is how long a machine busy with other work may take.
WAIT_MILLISECONDS = 180_000
sync_api.expect.set_options(timeout=WAIT_MILLISECONDS)


def wait_for_gallery(page: sync_api.Page, count: int) -> None:
    """Until the gallery shows `count` parts and nothing is being drawn."""
    sync_api.expect(page.locator("#gallery .triplet")).to_have_count(count)
    wait_until_idle(page)


def wait_until_idle(page: sync_api.Page) -> None:
    """Until nothing is being drawn and every picture is loaded."""
    page.wait_for_function(
        "![...document.querySelectorAll('.says')].some((said) => /…/.test(said.textContent))"
        " && document.querySelector('[data-testid=status-tracker].generating, .progress-text') === null"
    )
    page.wait_for_function("[...document.images].every((image) => image.complete || image.loading === 'lazy')")
