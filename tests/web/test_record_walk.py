"""An auditor's walk in a real browser: from the start page to a proof, to paper, to a file."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pypdf
import pytest
from playwright.sync_api import Browser, Page, expect
from sqlalchemy import Engine

from filter_service.accounts import Role
from filter_service.local import Services
from tests.support import recorded_item as recorded
from tests.support.accessibility import COLOURS, MOVING, beyond, violations
from tests.support.console_world import World, world_over
from tests.support.kept_pictures import VIEW, keep

pytest_plugins = ["tests.support.console_fixtures"]

WIDTHS = {"wide": 1280, "narrow": 390}
CHAPTERS = (
    *("Submitted", "Scored", "Explained", "Seen by whom", "Decided", "Appealed"),
    *("Reasons stated", "Platform notified", "Judged anew, kept, forgotten"),
    *("Checked and read", "What the ledger proves of this"),
)


@pytest.fixture(scope="module")
def world(
    admin: Engine, servers: Services, judged: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    place = tmp_path_factory.mktemp("log")
    settings = {"ledger_key": place / "key", "ledger_url": str(place / "log")}
    with world_over(admin, servers, judged, webhook_private=True, **settings) as found:
        yield found


@pytest.fixture(scope="module")
def subject(world: World) -> int:
    return recorded.lived(world)


@pytest.fixture(scope="module")
def page(world: World, subject: int, browser: Browser) -> Iterator[Page]:
    """An auditor's window."""
    with world.served() as address:
        context = browser.new_context(base_url=address, reduced_motion="reduce")
        world.sign_in(context, address, Role.AUDITOR, "ada")
        yield context.new_page()
        context.close()


@pytest.fixture(
    scope="module",
    params=[
        (name, width) for name in ("audit", "record", "entry", "undetermined") for width in WIDTHS
    ],
    ids="-".join,
)
def opened(world: World, subject: int, page: Page, request: pytest.FixtureRequest) -> Page:
    """Each of the auditor's pages, at each width."""
    name, width = request.param
    first = recorded.life(world, subject).entries[0].id
    page.set_viewport_size({"width": WIDTHS[width], "height": 800})
    page.emulate_media(color_scheme="light")
    page.goto(
        {
            "audit": "/audit",
            "record": f"/items/{subject}/record",
            "entry": f"/audit/entries/{first}",
            "undetermined": f"/items/{world.item('half.jpg')}/record",
        }[name]
    )
    return page


def test_axe_finds_nothing(opened: Page) -> None:
    assert violations(opened) == []


def test_colours_can_be_read_at_night(opened: Page) -> None:
    opened.emulate_media(color_scheme="dark")
    assert violations(opened, COLOURS) == []
    opened.emulate_media(color_scheme="light")


def test_nothing_is_wider_than_the_window_or_moves(opened: Page) -> None:
    assert beyond(opened) <= 0
    assert opened.evaluate(MOVING) == 0


def test_an_auditor_walks_from_the_ledger_to_a_proof(
    world: World, subject: int, page: Page, tmp_path: Path
) -> None:
    page.set_viewport_size({"width": 1280, "height": 880})
    page.goto("/audit")
    page.get_by_label("Item number").fill(str(subject))
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Flagged for alcohol")
    for name in CHAPTERS:
        expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible()
    page.locator("#decided .entry").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text(
        "Ben decided: overturned, in a first look."
    )
    expect(page.get_by_text("sealed at position")).to_be_visible()
    page.screenshot(path=tmp_path / "entry.png", full_page=True)
    page.get_by_role("link", name=f"Record of item {subject}").click()
    expect(page.get_by_text("Ada read this record as a page.").first).to_be_visible()


def test_entries_can_be_looked_for(page: Page) -> None:
    page.set_viewport_size({"width": 1280, "height": 880})
    page.goto("/audit")
    page.get_by_label("What").select_option("decided")
    page.get_by_label("Who").fill("ben")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".journal tbody tr")).to_have_count(2)
    page.get_by_label("What").select_option("searched")
    page.get_by_label("Who").fill("ada")
    page.get_by_role("button", name="Show").click()
    searched = page.locator(".journal tbody tr", has_text="actor ben, event decided")
    expect(searched).to_have_count(1)  # looking is itself written down


def test_a_printed_record_has_every_chapter(page: Page, subject: int, tmp_path: Path) -> None:
    page.goto(f"/items/{subject}/record")
    page.pdf(path=tmp_path / "record.pdf", prefer_css_page_size=True)
    text = "\n".join(p.extract_text() for p in pypdf.PdfReader(tmp_path / "record.pdf").pages)
    said = re.sub(r"\s+", " ", text)
    assert all(name in said for name in CHAPTERS)
    assert recorded.STATEMENT in said and "#" in said
    assert "Sign out" not in said and "Download" not in said


def test_pictures_of_the_auditors_pages(page: Page, subject: int, tmp_path: Path) -> None:
    folder = Path(os.environ.get("SCREENSHOTS_AT", tmp_path))
    page.set_viewport_size(VIEW)
    for name, path in (("record-item", f"/items/{subject}/record"), ("record-audit", "/audit")):
        page.goto(path)
        keep(page, folder / f"{name}.webp")


def test_a_downloaded_record_asks_nobody_for_anything(
    page: Page, subject: int, browser: Browser, tmp_path: Path
) -> None:
    page.goto(f"/items/{subject}/record")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download as one file").click()
    download.value.save_as(tmp_path / "record.html")
    context = browser.new_context(reduced_motion="reduce", viewport={"width": 390, "height": 800})
    asked: list[str] = []
    context.on("request", lambda request: asked.append(request.url))
    alone = context.new_page()
    alone.goto((tmp_path / "record.html").as_uri())
    expect(alone.locator(".stage img").first).to_be_visible()
    shown = "[...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert alone.evaluate(shown)
    assert [u for u in asked if not u.startswith(("file:", "data:"))] == []
    alone.locator("#decided .entry").first.click()
    assert alone.url.split("#")[1].startswith("entry-")
    context.close()
