"""The console in a real browser: reveal, overlay, words, keys, undo, look-alikes."""

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, ViewportSize, expect
from sqlalchemy import func, select

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.db.tables import LedgerEntry, Review, ReviewCase
from filter_service.ledger import Event

if TYPE_CHECKING:
    from tests.support.console_world import World

pytest_plugins = ["tests.support.console_fixtures"]

WIDE: ViewportSize = {"width": 1280, "height": 800}
NARROW: ViewportSize = {"width": 390, "height": 844}
PASSWORD = "a long and quiet password"


@pytest.fixture
def address(world: "World") -> Iterator[str]:
    with world.served() as found:
        yield found


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A fresh browser profile in which every script error and refusal fails the test."""
    found = browser.new_context(viewport=WIDE, reduced_motion="reduce")
    faults: list[str] = []
    found.on("weberror", lambda error: faults.append(str(error.error)))
    found.on("console", lambda m: faults.append(m.text) if "Security Policy" in m.text else None)
    yield found
    found.close()
    assert not faults


@pytest.fixture
def page(world: "World", address: str, context: BrowserContext) -> Page:
    """The queue, as a moderator sees it."""
    world.sign_in(context, address, Role.MODERATOR)
    found = context.new_page()
    found.goto(f"{address}/queue")
    return found


def begin(page: Page) -> str:
    """Start reviewing by the key; -> the item."""
    page.keyboard.press("s")
    page.wait_for_selector("#case[data-mine]")
    page.wait_for_load_state()  # keys act from then on
    return shown(page)


def shown(page: Page) -> str:
    return page.get_attribute("#case", "data-item") or ""


def decide(page: Page, key: str) -> None:
    """Press a key and wait for the next case, as somebody would who looks at the page."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "before => document.querySelector('#case').dataset.item !== before"
        " && !document.querySelector('#case[aria-busy]')",
        arg=before,
    )


def decisions(world: "World") -> dict[str, int]:
    with world.sessions.begin() as session:
        query = select(Review.decision, func.count()).where(Review.undone_at.is_(None))
        return {decision: n for decision, n in session.execute(query.group_by(Review.decision))}


def test_somebody_logs_in_and_starts_reviewing(
    world: "World", address: str, context: BrowserContext
) -> None:
    accounts.add_person(world.sessions, "ada", Profile(Role.MODERATOR), PASSWORD, "service")
    page = context.new_page()
    page.goto(f"{address}/queue")
    page.fill("[name=login]", "ada")
    page.fill("[name=password]", PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Queue")).to_be_visible()
    page.wait_for_load_state()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Confirm")).to_be_visible()


def test_no_byte_of_the_original_comes_before_the_reveal(world: "World", page: Page) -> None:
    """Neither the file nor a piece of it, while pages, maps and words are looked at."""
    begin(page)
    page.locator(".word[data-regions]").last.hover()
    page.wait_for_load_state("networkidle")
    decide(page, "o")
    page.wait_for_load_state("networkidle")
    images = Path(world.service.settings.images_at)
    files = [f.read_bytes() for f in images.rglob("*") if f.is_file()]
    pieces = {data[-66:-2] for data in files if len(data) > 1_000}  # behind headers and tables
    assert len(pieces) > 30
    assert len([path for path, _ in world.sent if path.startswith("/pictures/")]) > 4
    assert not [path for path, _ in world.sent if path.endswith("/original")]
    assert not [path for path, body in world.sent if any(p in body for p in pieces)]


def test_the_picture_is_shown_while_the_key_is_held(world: "World", page: Page) -> None:
    item = begin(page)
    page.keyboard.down("r")
    canvas = page.get_by_role("img", name="The submitted picture", exact=True)
    expect(canvas).to_be_visible()
    page.keyboard.up("r")
    expect(canvas).to_be_hidden()
    expect(page.locator("#revealed-today")).to_have_text("1")
    with world.sessions.begin() as session:
        entry = select(LedgerEntry).where(LedgerEntry.event == Event.REVEALED)
        assert [e.item_id for e in session.scalars(entry)] == [int(item)]


def test_the_picture_can_be_kept_shown_without_holding(page: Page) -> None:
    begin(page)
    page.keyboard.press("Shift+R")
    canvas = page.get_by_role("img", name="The submitted picture", exact=True)
    expect(canvas).to_be_visible()
    expect(page.locator("#keep")).to_have_attribute("aria-pressed", "true")
    decide(page, "c")
    expect(canvas).to_have_count(0)


def test_the_map_can_be_faded_and_put_away(page: Page) -> None:
    begin(page)
    found = page.locator("#stage .map")
    expect(found).to_have_css("opacity", "0.75")
    page.keyboard.press(",")
    expect(found).to_have_css("opacity", "0.65")
    page.keyboard.press("m")
    expect(found).to_be_hidden()


def test_a_word_lights_up_its_regions(page: Page) -> None:
    begin(page)
    page.locator(".word[data-regions]").last.focus()
    expect(page.locator("#stage .word-light")).to_be_visible()
    page.locator("h1").focus()
    expect(page.locator("#stage .word-light")).to_be_hidden()


def test_twenty_decisions_by_keyboard_take_few_seconds(world: "World", page: Page) -> None:
    begin(page)
    started = time.monotonic()
    for i in range(20):
        decide(page, "co"[i % 2])
    assert time.monotonic() - started < 20
    assert decisions(world) == {"confirmed": 10, "overturned": 10}


def test_each_kind_of_decision_has_its_key(world: "World", page: Page) -> None:
    begin(page)
    page.keyboard.press("n")
    page.keyboard.type("a toy, cannot be bought")
    page.keyboard.press("Escape")
    decide(page, "c")
    decide(page, "e")
    page.keyboard.press("k")
    decide(page, "3")
    assert decisions(world) == {"confirmed": 1, "escalated": 1, "skipped": 1}
    with world.sessions.begin() as session:
        notes = session.execute(select(Review.note, Review.reason).order_by(Review.id)).all()
    assert notes[0][0] == "a toy, cannot be bought"
    assert notes[2][1] == "I cannot tell what it shows"


def test_a_decision_is_undone_by_its_key(world: "World", page: Page) -> None:
    item = begin(page)
    decide(page, "o")
    expect(page.locator("#said")).to_contain_text("overturned")
    decide(page, "z")
    assert shown(page) == item
    assert decisions(world) == {}
    decide(page, "c")
    assert decisions(world) == {"confirmed": 1}


def test_look_alikes_are_decided_together(world: "World", address: str, page: Page) -> None:
    page.goto(f"{address}/items/{world.item('000.jpg')}")
    begin(page)
    expect(page.locator("#alike")).to_contain_text("Look-alikes: 4")
    page.keyboard.press("g")
    page.locator("#group [name=also]").first.press("Space")
    expect(page.locator("#group").get_by_role("button", name="Confirm all")).to_contain_text("4")
    decide(page, "c")
    expect(page.locator("#said")).to_contain_text("4 cases")
    with world.sessions.begin() as session:
        groups = session.execute(
            select(Review.group_id, func.count()).group_by(Review.group_id)
        ).all()
    assert [n for _, n in groups] == [4]


def test_the_claim_outlives_a_reload_and_not_a_closed_page(world: "World", page: Page) -> None:
    item = int(begin(page))
    page.reload()
    expect(page.get_by_role("button", name="Confirm")).to_be_visible()
    page.wait_for_load_state("networkidle")
    assert _lease(world, item) > 60
    page.close(run_before_unload=True)
    deadline = time.monotonic() + 5
    while _lease(world, item) > 30 and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _lease(world, item) < 30


def _lease(world: "World", item: int) -> float:
    """Seconds that a claim has left."""
    left = func.extract("epoch", ReviewCase.leased_until - func.now())
    with world.sessions.begin() as session:
        query = select(left).where(ReviewCase.item_id == item)
        return float(session.scalars(query).one())


def test_single_keys_can_be_switched_off(page: Page) -> None:
    page.keyboard.press("?")
    page.get_by_label("Single keys act").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.wait_for_timeout(300)
    assert page.url.endswith("/queue")


@pytest.mark.parametrize("width", [WIDE, NARROW], ids=["wide", "narrow"])
def test_nothing_is_wider_than_the_page(page: Page, width: ViewportSize) -> None:
    page.set_viewport_size(width)
    for _ in range(2):
        wider = page.evaluate("document.documentElement.scrollWidth - innerWidth")
        assert wider <= 0
        if re.search("/queue$", page.url):
            begin(page)


def test_the_console_works_without_javascript(
    world: "World", address: str, browser: Browser
) -> None:
    plain = browser.new_context(java_script_enabled=False)
    world.sign_in(plain, address, Role.MODERATOR)
    page = plain.new_page()
    page.goto(f"{address}/queue")
    page.get_by_role("button", name="Start reviewing").click()
    page.get_by_role("button", name="Reveal").click()
    expect(page.get_by_alt_text("The submitted picture", exact=True)).to_be_visible()
    page.get_by_role("button", name="Confirm").click()
    page.get_by_role("button", name="Undo").click()
    page.get_by_role("button", name="Overturn").click()
    assert decisions(world) == {"overturned": 1}
    plain.close()
