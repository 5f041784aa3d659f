"""The two pictures of the page in README, of the model that ships: make screenshots

On a desktop in light with a defect outlined, and on a phone in dark. To be run again, and looked at, when the page or
the model has changed.
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import tyro
from playwright import sync_api

from tests.spaces.browser import CHROMIUM, CHROMIUM_OPTIONS, DESKTOP, PHONE, WAIT_MILLISECONDS, wait_for_gallery
from tests.spaces.server import running_server

IMAGES = Path(__file__).resolve().parents[2] / "docs" / "images" / "mvtec_ad"


@dataclass(frozen=True)
class Config:
    """What to show, and where to put it.

    Args:
        model: As for the page: FOLDER_OR_HUB_ID or NAME=FOLDER_OR_HUB_ID. None: the models that ship.
        shown: Name of the one to choose among them. None: the one that the page opens with, or of the models that ship
            a pill.
        seed: First seed of both pictures; None: what the page opens with.
        output_dir: Folder of space_desktop.png and space_phone.png.
    """

    model: str | None = None
    shown: str | None = None
    seed: int | None = None
    output_dir: Path = IMAGES


def take(browser: sync_api.Browser, url: str, shown: str | None, seed: int | None, output_dir: Path) -> None:
    """Write both pictures of the page at `url`."""
    output_dir.mkdir(parents=True, exist_ok=True)
    desktop = browser.new_page(viewport=DESKTOP, color_scheme="light")
    _open(desktop, url, shown, seed)
    desktop.get_by_role("button", name="Outline").first.click()
    # Neither a button nor a picture looks touched.
    desktop.mouse.move(0, 0)
    desktop.screenshot(path=output_dir / "space_desktop.png", full_page=True, animations="disabled")
    phone = browser.new_page(
        viewport=PHONE, color_scheme="dark", device_scale_factor=2, is_mobile=True, has_touch=True
    )
    _open(phone, url, shown, seed)
    phone.screenshot(path=output_dir / "space_phone.png", animations="disabled")
    desktop.close()
    phone.close()


def _open(page: sync_api.Page, url: str, shown: str | None, seed: int | None) -> None:
    page.set_default_timeout(WAIT_MILLISECONDS)
    page.goto(url)
    wait_for_gallery(page, 6)
    if shown is not None:
        # The files that can be saved are called after the model.
        name = re.sub(r"[^a-z0-9]+", "_", shown.lower())
        page.get_by_role("radio", name=shown).check()
        page.locator(".model:has(:checked)").evaluate("card => card.scrollIntoView({inline: 'center', block: 'end'})")
        page.locator(f'#gallery img[data-file*="{name}"]').first.wait_for()
    if seed is not None:
        page.get_by_label("Seed", exact=True).fill(str(seed))
        page.get_by_label("Seed", exact=True).press("Enter")
        sync_api.expect(page.locator("#gallery .caption").first).to_contain_text(f"seed {seed} ·")
    wait_for_gallery(page, 6)
    page.evaluate("window.scrollTo(0, 0)")


def main(config: Config) -> None:
    """Serve the page, take the pictures, and stop."""
    if CHROMIUM is None:
        sys.exit("No chromium on the path, and the variable CHROMIUM names none: apt-get install chromium")
    shown = config.shown or (None if config.model else "Pill: contamination")
    with (
        tempfile.TemporaryDirectory() as root,
        running_server([config.model] if config.model else [], Path(root)) as server,
        sync_api.sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        take(browser, server.url, shown, config.seed, config.output_dir)
        browser.close()
    print(f"Written: space_desktop.png and space_phone.png in {config.output_dir}. Look at them.")


if __name__ == "__main__":
    main(tyro.cli(Config))
