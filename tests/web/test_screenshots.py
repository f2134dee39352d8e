"""Pictures of the pages, as the documentation has them.

They are written into the folder that SCREENSHOTS_AT names, or into a temporary one.
`python -m tests.support.screenshots` refreshes those of the documentation.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page
from sqlalchemy import Engine

from filter_service import accounts
from filter_service.accounts import Role
from filter_service.local import Services
from filter_service.web.console.model_warmup import Warm
from tests.support import console_history as life
from tests.support.console_world import World, world_over
from tests.support.kept_pictures import VIEW, keep
from tests.support.web_clients import somebody

pytest_plugins = ["tests.support.console_fixtures"]


@pytest.fixture(scope="module")
def world(admin: Engine, servers: Services, judged: Path) -> Iterator[World]:
    with world_over(admin, servers, judged) as found:
        life.furnish(found)
        life.hold(found, somebody(found.sessions, Role.MODERATOR, "ada"), "015.jpg", "075.jpg")
        maria = somebody(found.sessions, Role.MODERATOR, "maria", reveal_cap=100)
        for name, seen in (("042.jpg", "gambling"), ("060.jpg", "tobacco-and-drugs")):
            accounts.reveal(found.sessions, maria, found.item(name), seen, None)
        life.month(found)
        life.age(found)
        yield found


@pytest.fixture(scope="module")
def page(world: World, browser: Browser) -> Iterator[Page]:
    """A moderator's window, with pixels as large as those of most screens."""
    with world.served() as address:
        context = browser.new_context(
            base_url=address, viewport=VIEW, reduced_motion="reduce", color_scheme="light"
        )
        world.sign_in(context, address, Role.MODERATOR, "maria")
        yield context.new_page()
        context.close()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(os.environ.get("SCREENSHOTS_AT", tmp_path))


def test_the_queue(page: Page, folder: Path) -> None:
    page.goto("/queue")
    keep(page, folder / "console-queue.webp")


def test_an_item(world: World, page: Page, folder: Path) -> None:
    life.hold(world, somebody(world.sessions, Role.MODERATOR, "maria"), life.COPIED)
    page.goto(f"/items/{world.item(life.COPIED)}")
    page.locator("#alike", has_text="Look-alikes: 4").wait_for()
    keep(page, folder / "console-item.webp")


def test_a_search(world: World, page: Page, folder: Path) -> None:
    world.app.state.warm = Warm(world.service.seeker)
    assert world.app.state.warm.ready(60)
    page.goto("/search?q=a+bow+and+arrow")
    keep(page, folder / "console-search.webp")


def test_the_overview(page: Page, folder: Path) -> None:
    page.goto("/overview")
    keep(page, folder / "console-overview.webp")
