"""Saves screenshots of pages for the documentation."""

import io
from pathlib import Path

import PIL.Image
from playwright.sync_api import Page, ViewportSize

VIEW: ViewportSize = {"width": 1280, "height": 880}


LARGEST = 150_000  # bytes of a picture in the documentation


def keep(page: Page, path: Path) -> None:
    """Once everything is there, the page as WebP."""
    page.wait_for_load_state("networkidle")
    page.mouse.move(0, 0)
    picture = PIL.Image.open(io.BytesIO(page.screenshot()))
    picture.save(path, "WEBP", quality=80, method=6)
    assert picture.size == (VIEW["width"], VIEW["height"])
    assert path.stat().st_size < LARGEST
