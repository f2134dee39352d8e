"""The page of a statement in a real browser: axe-core, narrow windows, day and night, on paper."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import insert

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.db.tables import StoredStatement
from filter_service.statements import wording
from filter_service.statements.payload import document
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.accessibility import COLOURS, MOVING, beyond, violations
from tests.support.console_world import World
from tests.support.statements import items_of, reasons
from tests.support.web_clients import web_service

pytest_plugins = ["tests.support.console_fixtures"]


def stated(sessions: Sessions) -> int:
    (item,) = items_of(sessions, "gun")
    made = reasons()
    with sessions.begin() as session:
        row = {
            "puid": made.puid,
            "item_id": item,
            "language": "en,de",
            "document": document(made, wording.facts(made, "en")),
            "notice": wording.notice(made),
        }
        session.execute(insert(StoredStatement), [row])
    return item


@pytest.fixture
def page(sessions: Sessions, storage: Storage, browser: Browser) -> Iterator[Page]:
    service = web_service(sessions, storage)
    world = World(create_app(service), service)
    item = stated(sessions)
    with world.served() as address:
        context = browser.new_context(base_url=address, reduced_motion="reduce")
        world.sign_in(context, address, Role.AUDITOR)
        page = context.new_page()
        page.goto(f"/items/{item}/statement")
        yield page
        context.close()


def test_a_statement_can_be_read_by_everybody(page: Page) -> None:
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 800})
        assert violations(page) == []
        assert beyond(page) <= 0
        page.emulate_media(color_scheme="dark")
        assert violations(page, COLOURS) == []
        page.emulate_media(color_scheme="light")
        assert page.evaluate(MOVING) == 0


def test_on_paper_only_the_statement_is_left(page: Page) -> None:
    page.emulate_media(media="print")
    assert not page.locator(".top").is_visible()
    assert not page.get_by_role("link", name="For the database").is_visible()
    assert page.locator("article[lang=de]").is_visible()


def test_downloads_are_reached_by_keyboard(page: Page) -> None:
    link = page.get_by_role("link", name="For the database")
    link.focus()
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert download.value.suggested_filename.endswith(".json")
