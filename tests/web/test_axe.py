"""Every page for everybody: axe-core, narrow windows, the keyboard, no motion, nothing foreign."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, Request
from sqlalchemy import Engine

from filter_service.accounts import Role
from filter_service.demo import POLICY
from filter_service.local import Services
from filter_service.policy import read_policy
from filter_service.web.console.model_warmup import Warm
from tests.support import console_history as life
from tests.support.accessibility import (
    COLOURS,
    FOCUS,
    MOVING,
    USABLE,
    WIDTHS,
    beyond,
    violations,
)
from tests.support.console_world import World, world_over
from tests.support.web_clients import somebody

pytest_plugins = ["tests.support.console_fixtures"]

MODERATOR, SENIOR, AUDITOR, ADMIN = Role.MODERATOR, Role.SENIOR, Role.AUDITOR, Role.ADMIN
HELD = (life.SEVERAL, life.UNFAITHFUL, life.APPEALED, life.MISSED, life.COPIED)

# Who looks at which page; a name in braces stands for the item of that sample.
PAGES: dict[str, tuple[Role | None, str]] = {
    "log-in": (None, "/login"),
    "password": (MODERATOR, "/password"),
    "queue": (MODERATOR, "/queue"),
    "queue, filtered to nothing": (MODERATOR, "/queue?class=weapons&stage=appeal"),
    "queue of an auditor": (AUDITOR, "/queue?order=age"),
    "item with two classes": (MODERATOR, f"/items/{{{life.SEVERAL}}}"),
    "item's other class": (MODERATOR, f"/items/{{{life.SEVERAL}}}?show=tobacco-and-drugs"),
    "item with an unfaithful map": (MODERATOR, f"/items/{{{life.UNFAITHFUL}}}"),
    "item with look-alikes": (MODERATOR, f"/items/{{{life.COPIED}}}"),
    "second look": (MODERATOR, f"/items/{{{life.SECOND}}}"),
    "disputed item": (SENIOR, f"/items/{{{life.DISPUTED}}}"),
    "sampled clear item": (MODERATOR, f"/items/{{{life.MISSED}}}"),
    "appeal": (MODERATOR, f"/items/{{{life.APPEALED}}}"),
    "decided item of an auditor": (AUDITOR, f"/items/{{{life.DECIDED}}}"),
    "undetermined item": (AUDITOR, f"/items/{{{life.FAILED}}}"),
    "look-alikes": (MODERATOR, f"/items/{{{life.COPIED}}}/lookalikes"),
    "search": (MODERATOR, "/search"),
    "search with results": (MODERATOR, "/search?q=a+bow+and+arrow"),
    "more like this": (MODERATOR, f"/search?like={{{life.COPIED}}}"),
    "overview": (ADMIN, "/overview"),
    "accuracy": (SENIOR, "/accuracy"),
    "labels": (AUDITOR, "/accuracy/labels"),
    "slices": (AUDITOR, "/accuracy/slices?prompts=a+drawing%0Aa+photograph"),
    "accuracy of an editor": (Role.POLICY_EDITOR, "/accuracy"),
    "shadow": (Role.POLICY_EDITOR, f"/policies/version/{life.STRICTER.digest}/shadow"),
    "undetermined": (SENIOR, "/undetermined"),
    "lists": (SENIOR, "/lists"),
    "preview of an entry": (
        SENIOR,
        f"/lists/preview?kind=allow&class_name=gambling&item={{{life.COPIED}}}&match=pdq&reason=a",
    ),
    "rules": (SENIOR, "/lists/rules"),
    "people": (ADMIN, "/people?changed=ada"),
    "keys": (ADMIN, "/keys"),
    "webhooks": (ADMIN, "/webhooks"),
    "policy editor": (
        Role.POLICY_EDITOR,
        f"/policies/editor/form?from={read_policy(POLICY).digest}",
    ),
    "exports": (AUDITOR, "/exports"),
    "figures": (AUDITOR, "/figures"),
    "deliveries": (ADMIN, "/webhooks/1"),
    "sealed": (Role.CUSTODIAN, "/sealed"),
    "error": (MODERATOR, "/nothing"),
    "refusal": (MODERATOR, "/people"),
    "interface": (None, "/docs"),
}

# A case of one's own says how many look-alikes it has once they were asked for, and the policy
# editor asks about each class when somebody comes to it.
SETTLED = """() => {
  const unasked = [...document.querySelectorAll("[data-effects]")].find(
    one => !one.querySelector(".slider, [data-none]"));
  (unasked ?? document.body).scrollIntoView();
  const alike = document.querySelector("#case[data-mine]") && document.querySelector("#alike");
  return !unasked && (!alike || /: [0-9]|No/.test(alike.textContent));
}"""
REFUSALS = """document.addEventListener("securitypolicyviolation", event =>
  console.error("refused by the policy:", event.violatedDirective, event.blockedURI));"""


@dataclass
class House:
    """One console, one browser, and a window for each role."""

    world: World
    address: str
    browser: Browser

    def __post_init__(self) -> None:
        self.windows: dict[Role | None, Page] = {}
        self.faults: list[str] = []

    def window(self, role: Role | None) -> Page:
        if role not in self.windows:
            context = self.browser.new_context(base_url=self.address, reduced_motion="reduce")
            self._watch(context)
            if role is not None:
                self.world.sign_in(context, self.address, role)
            self.windows[role] = context.new_page()
        return self.windows[role]

    def opened(self, name: str, width: str) -> Page:
        """A page by its name, in a window of some width; faults are counted from then on."""
        role, path = PAGES[name]
        page = self.window(role)
        page.goto("about:blank")
        self.faults.clear()
        page.set_viewport_size({"width": WIDTHS[width], "height": 800})
        page.goto(self._path(path))
        page.wait_for_function(SETTLED)
        return page

    def _path(self, template: str) -> str:
        """The address of a page; its case is the moderator's again, if it was."""
        before, brace, rest = template.partition("{")
        name, _, after = rest.partition("}")
        if name in HELD:
            life.hold(self.world, somebody(self.world.sessions, Role.MODERATOR), name)
        return f"{before}{self.world.item(name)}{after}" if brace else before

    def _watch(self, context: BrowserContext) -> None:
        context.add_init_script(REFUSALS)
        context.on("weberror", lambda error: self.faults.append(str(error.error)))
        context.on("console", self._heard)
        context.on("request", self._asked)

    def _heard(self, message: ConsoleMessage) -> None:
        page = message.page
        status = "the server responded with a status of" in message.text
        own = status and page is not None and message.location["url"] == page.url
        if message.type in ("error", "warning") and not own:  # own: the page of an error
            self.faults.append(message.text)

    def _asked(self, request: Request) -> None:
        asked, here = urlsplit(request.url), urlsplit(self.address)
        if asked.scheme not in ("data", "blob") and asked.netloc != here.netloc:
            self.faults.append(f"a request to {request.url}")


@pytest.fixture(scope="module")
def house(admin: Engine, servers: Services, judged: Path, browser: Browser) -> Iterator[House]:
    with (
        world_over(admin, servers, judged, undo_seconds=0, webhook_private=True) as world,
        world.served() as address,
    ):
        life.furnish(world)
        life.listen(world)
        world.app.state.warm = Warm(world.service.seeker)
        world.app.state.warm.ready(60)
        life.look_on(world)
        yield House(world, address, browser)


@pytest.fixture(
    scope="module",
    params=[(name, width) for name in PAGES for width in WIDTHS],
    ids="-".join,
)
def page(house: House, request: pytest.FixtureRequest) -> Page:
    """Every page at every width, loaded once for all the tests that want it."""
    return house.opened(*request.param)


def test_axe_finds_nothing(page: Page) -> None:
    assert violations(page) == []


def test_colours_can_be_read_at_night(page: Page) -> None:
    page.emulate_media(color_scheme="dark")
    try:
        assert violations(page, COLOURS) == []
    finally:
        page.emulate_media(color_scheme="light")


def test_nothing_is_wider_than_the_window(page: Page) -> None:
    assert beyond(page) <= 0


def test_nothing_moves_for_those_who_want_no_motion(page: Page) -> None:
    assert page.evaluate(MOVING) == 0


def test_the_keyboard_reaches_everything_and_shows_where_it_is(page: Page) -> None:
    usable = page.evaluate(USABLE)
    reached, unseen = set(), []
    # Wherever it begins, and once out of the page and in again; a date has four stops of its own.
    for _ in range(len(usable) + 3 * page.locator("input[type=date]").count() + 2):
        page.keyboard.press("Tab")
        at = page.evaluate(FOCUS)
        if at is None or at["number"] in reached:
            continue
        reached.add(at["number"])
        unseen += [] if at["ring"] and at["seen"] else [at]
    assert [u for n, u in enumerate(usable) if str(n) not in reached] == []
    assert unseen == []


def test_nothing_is_asked_elsewhere_refused_or_complained_of(house: House, page: Page) -> None:
    assert house.faults == []


@pytest.mark.parametrize("width", WIDTHS)
def test_what_opens_on_the_page_of_a_case_is_for_everybody_too(house: House, width: str) -> None:
    page = house.opened("item with look-alikes", width)
    page.locator("#alike:not([data-none])", has_text="Look-alikes: 4").wait_for()
    for key, opens in (("g", "#group"), ("k", "#skipping"), ("n", "#noting"), ("?", "#keys")):
        page.keyboard.press(key)
        page.locator(opens).wait_for()
        assert violations(page) == []
        assert beyond(page) <= 0
        page.keyboard.press("Escape")
        page.locator(opens).wait_for(state="hidden")
    assert house.faults == []
