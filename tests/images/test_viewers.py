"""What is judged is what a real browser paints, on a light page and on a dark one."""

import base64
import io

import numpy as np
import numpy.typing as npt
import PIL.Image
import pytest
from playwright.sync_api import Browser

from filter_service.images import Image, decode
from tests.support.painted_files import painted_files

pytest_plugins = ["tests.support.console_fixtures"]

Painted = dict[tuple[str, str], npt.NDArray[np.uint8]]  # by name and page: (h, w, 3)
PAGES = {"light": "#ffffff", "dark": "#121212"}
CELL, ACROSS = 64, 16  # pixels, and files in a row of the page
NEAR = 2  # levels of 255, mean
FILES = painted_files()
SIGNATURES = {b"\x89P": "png", b"\xff\xd8": "jpeg", b"RI": "webp", b"GI": "gif", b"BM": "bmp"}
EXCEPTIONS = {
    "PNG cICP matrix 1": "Chromium shows nothing; the format forbids it, others show plain colours",
    "PNG cICP PQ": "each browser maps what is brighter than the screen in a way of its own",
    "PNG cICP HLG": "likewise",
    "AVIF nclx PQ": "likewise",
}


@pytest.fixture(scope="module")
def painted(browser: Browser) -> Painted:
    """Every file as Chromium paints it, all of them on one page."""
    found = {}
    for page, colour in PAGES.items():
        shot, sizes = _shot(browser, colour)
        for i, (name, (width, height)) in enumerate(zip(FILES, sizes, strict=True)):
            y, x = i // ACROSS * CELL, i % ACROSS * CELL
            found[name, page] = shot[y : y + height, x : x + width]
    return found


def _shot(browser: Browser, colour: str) -> tuple[npt.NDArray[np.uint8], list[tuple[int, int]]]:
    """The whole page (h, w, 3), and each picture's width and height there."""
    rows = -(-len(FILES) // ACROSS)
    size = {"width": ACROSS * CELL, "height": rows * CELL}
    page = browser.new_page(viewport=size)  # type: ignore[arg-type]
    drawn = "".join(map(_drawn, range(len(FILES))))
    page.set_content(f"<body style='background: {colour}'>{drawn}")
    page.evaluate("Promise.all([...document.images].map(i => i.decode().catch(() => 0)))")
    sizes = page.evaluate("[...document.images].map(i => [i.naturalWidth, i.naturalHeight])")
    picture = PIL.Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    page.close()
    return np.asarray(picture), sizes


def _drawn(i: int) -> str:
    data = [*FILES.values()][i]
    kind = SIGNATURES.get(data[:2], "avif")
    place = f"position: absolute; left: {i % ACROSS * CELL}px; top: {i // ACROSS * CELL}px"
    source = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    return f"<img alt='' style='{place}' src='{source}'>"


def _apart(image: Image, shown: npt.NDArray[np.uint8]) -> float:
    """The mean difference to the reading that is nearest to what was painted, in levels."""
    judged = [np.asarray(f.picture, float) for f in image.frames if f.picture.size == _size(shown)]
    return min((float(np.abs(j - shown).mean()) for j in judged), default=255.0)


def _size(shown: npt.NDArray[np.uint8]) -> tuple[int, int]:
    return shown.shape[1], shown.shape[0]


@pytest.mark.parametrize("name", [name for name in FILES if name not in EXCEPTIONS])
def test_what_is_painted_is_among_what_is_judged(painted: Painted, name: str) -> None:
    apart = {page: _apart(decode(FILES[name]), painted[name, page]) for page in PAGES}
    assert max(apart.values()) <= NEAR, apart


@pytest.mark.parametrize("name", EXCEPTIONS)
def test_an_exception_is_still_one(painted: Painted, name: str) -> None:
    assert _apart(decode(FILES[name]), painted[name, "light"]) > NEAR


def test_most_files_have_no_exception() -> None:
    assert len(FILES) - len(EXCEPTIONS) >= 130


def test_nothing_that_shows_alike_everywhere_is_judged_twice(painted: Painted) -> None:
    for name, data in FILES.items():
        light, dark = (painted[name, page] for page in PAGES)
        readings = [f.reading for f in decode(data).frames]
        alike = np.abs(light.astype(float) - dark).mean() <= NEAR if light.size else True
        assert ("over dark" in " ".join(readings)) is not alike, name
