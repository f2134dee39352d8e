"""The pages for signing in, people and keys, in a real browser and with the keyboard only."""

from collections.abc import Iterator
from typing import Literal

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.db.session import Sessions
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.console_world import World
from tests.support.web_clients import somebody, web_service

pytest_plugins = ["tests.support.console_fixtures"]

PASSWORD = "correct horse battery staple"
SCREENS: tuple[tuple[int, Literal["light", "dark"]], ...] = ((1280, "light"), (390, "dark"))


@pytest.fixture
def page(browser: Browser, sessions: Sessions, storage: Storage) -> Iterator[Page]:
    """A window before a console where Ada is the admin; whatever its scripts say is an error."""
    accounts.add_person(sessions, "ada", Profile(Role.ADMIN, "Ada"), PASSWORD, "service")
    somebody(sessions, Role.MODERATOR, "a-rather-long-name.of-somebody@department.example.org")
    somebody(sessions, Role.SENIOR, "eve", classes=("gun", "knife"), reveal_cap=20)
    accounts.disable_person(sessions, "eve", "service")
    accounts.add_key(sessions, "shop", "service")
    service = web_service(sessions, storage, oidc_issuer="https://id.example", oidc_client_id="us")
    said: list[str] = []
    with World(create_app(service), service).served() as address:
        context = browser.new_context(base_url=address, reduced_motion="reduce")
        opened = context.new_page()
        opened.on("pageerror", lambda error: said.append(str(error)))
        yield opened
        context.close()
    assert not said


def check(page: Page) -> None:
    """Nobody is shut out: neither by what axe finds nor by a page wider than the window."""
    for width, scheme in SCREENS:
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [n["target"] for n in v["nodes"]]) for v in found] == []
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{page.url} is {wide} pixels wide"


def type_in(page: Page, *words: str) -> None:
    """Fill one field after the other, from where the focus is, and send the form."""
    page.locator("input:focus").wait_for()
    for n, word in enumerate(words):
        if n:
            page.keyboard.press("Tab")
        page.keyboard.type(word)
    with page.expect_navigation():
        page.keyboard.press("Enter")


def test_signing_in_with_the_keyboard_only(page: Page) -> None:
    page.goto("/people")
    assert page.url.endswith("/login?next=%2Fpeople")
    check(page)
    type_in(page, "ada", "a wrong password")
    assert "do not belong together" in page.get_by_role("alert").inner_text()
    check(page)
    type_in(page, PASSWORD)
    assert page.url.endswith("/people")
    page.get_by_role("button", name="Sign out").focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.url.endswith("/login")


def test_people_and_keys_are_managed_with_the_keyboard_only(page: Page) -> None:
    page.goto("/people")
    type_in(page, "ada", PASSWORD)
    check(page)
    page.locator("summary", has_text="Add somebody").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    check(page)
    type_in(page, "new@example.org", "Somebody new")
    password = page.get_by_label("The password of").input_value()
    assert len(password) == 20
    check(page)
    page.goto("/keys")
    page.get_by_label("Name of the new key").focus()
    type_in(page, "another")
    assert page.get_by_label("The key another").input_value().startswith("fsk_")
    check(page)
    page.get_by_role("button", name="Revoke another").focus()
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.get_by_text("revoked 20").count() == 1
    page.goto("/password")
    check(page)
