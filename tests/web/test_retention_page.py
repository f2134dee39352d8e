"""The pages of retention: rules, holds, erasures and receipts; and the commands for the same."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page
from typer.testing import CliRunner

from filter_service import retention
from filter_service.accounts import Role
from filter_service.cli import app as commands
from filter_service.db.session import Sessions
from filter_service.retention import ItemOutcome, RetainedPart, RetentionTerms
from filter_service.storage import Storage
from filter_service.web.app import create_app
from tests.support.accessibility import COLOURS, FOCUS, MOVING, USABLE, WIDTHS, beyond, violations
from tests.support.console_world import World
from tests.support.review_cases import Wanted, cases_of
from tests.support.web_clients import client_of, web_service

pytest_plugins = ["tests.support.console_fixtures"]

PAGES = ("/retention", "/retention/holds", "/retention/erasures", "receipt", "warning")


@pytest.fixture
def world(sessions: Sessions, storage: Storage) -> World:
    service = web_service(sessions, storage)
    return World(create_app(service), service)


@pytest.fixture
def items(sessions: Sessions) -> list[int]:
    return cases_of(sessions, [Wanted(), Wanted("knife"), Wanted()], review=False)


@pytest.fixture
def window(world: World, items: list[int], browser: Browser) -> Iterator[Page]:
    sessions, storage = world.sessions, world.service.storage
    retention.add_rule(
        sessions, RetentionTerms(30, tuple(RetainedPart), outcome=ItemOutcome.CLEAR), "person ada"
    )
    retention.add_rule(sessions, RetentionTerms(90, (RetainedPart.BYTES,), "gun"), "person ada")
    retention.hold(sessions, items[0], "File 3 Js 114/26 of the public prosecutor", "person ada")
    retention.erase(sessions, storage, items[1], "Its user closed the account", "key shop")
    with world.served() as address:
        context = browser.new_context(base_url=address, reduced_motion="reduce")
        world.sign_in(context, address, Role.ADMIN)
        page = context.new_page()
        yield page
        context.close()


def open_(page: Page, name: str) -> None:
    if name.startswith("/"):
        page.goto(name)
        return
    page.goto("/retention/erasures" if name == "receipt" else "/retention")
    if name == "receipt":
        page.get_by_role("link", name="Receipt").first.click()
    else:
        page.get_by_label("after so many days").fill("20")
        page.get_by_role("button", name="Add").click()
        page.get_by_text("six months (183 days; DSA").wait_for()


@pytest.mark.parametrize("width", WIDTHS)
def test_the_pages_are_for_everybody(window: Page, width: str) -> None:
    window.set_viewport_size({"width": WIDTHS[width], "height": 800})
    for name in PAGES:
        open_(window, name)
        assert violations(window) == [], name
        assert beyond(window) <= 0, name
        assert window.evaluate(MOVING) == 0, name
        window.emulate_media(color_scheme="dark")
        assert violations(window, COLOURS) == [], name
        window.emulate_media(color_scheme="light")


def test_the_keyboard_reaches_everything(window: Page) -> None:
    for name in PAGES:
        open_(window, name)
        usable = window.evaluate(USABLE)
        reached = set()
        for _ in range(len(usable) + 2):
            window.keyboard.press("Tab")
            at = window.evaluate(FOCUS)
            if at is not None:
                reached.add(at["number"])
                assert at["ring"] and at["seen"], at["said"]
        assert len(reached) >= len(usable), name


def test_somebody_keeps_holds_and_erases(window: Page, world: World, items: list[int]) -> None:
    open_(window, "warning")
    window.get_by_label("Delete it all the same").check()
    window.get_by_role("button", name="Add the rule").click()
    window.get_by_text("The rule holds from now on.").wait_for()
    assert len(retention.rules(world.sessions)) == 3
    window.get_by_role("button", name="Remove rule 1").click()
    window.get_by_text("The rule is removed.").wait_for()
    window.goto("/retention/erasures")
    window.get_by_label("Item").first.fill(str(items[0]))
    window.get_by_label("Why").fill("asked for")
    window.get_by_label("for good").check()
    window.get_by_role("button", name="Erase").click()
    window.get_by_text("is under a legal hold since").wait_for()
    window.goto("/retention/holds")
    window.get_by_label("Why it ends").fill("closed")
    window.get_by_role("button", name="Release").click()
    window.get_by_text("is no longer held").wait_for()
    window.goto(f"/retention/erasures?item={items[0]}")
    window.get_by_label("Why").fill("asked for")
    window.get_by_label("for good").check()
    window.get_by_role("button", name="Erase").click()
    window.get_by_role("heading", name=f"Item {items[0]} was erased").wait_for()


@pytest.mark.parametrize(
    ("path", "form", "said"),
    [
        ("", {"days": "many"}, "is no number"),
        ("", {"days": "3", "parts": "dreams"}, "choose of"),
        ("/holds", {"item": "999", "reason": "a"}, "There is no item 999"),
        ("/holds/release", {"item": "1", "reason": "a"}, "under no legal hold"),
        ("/erasures", {"item": "x", "reason": "a"}, "is no number"),
        ("/erasures", {"item": "1", "reason": " "}, "say why"),
    ],
)
def test_a_form_that_cannot_be_followed_says_why(
    world: World, path: str, form: dict[str, str], said: str
) -> None:
    admin = client_of(world.app, world.sessions, Role.ADMIN)
    answer = admin.post(f"/retention{path}", data=form)
    assert answer.status_code in (404, 409, 422)
    assert said in answer.text


def test_only_who_retains_sees_the_pages(world: World) -> None:
    senior = client_of(world.app, world.sessions, Role.SENIOR)
    for page in PAGES[:3]:
        assert senior.get(page).status_code == 403


def test_erasures_are_read_page_by_page(
    world: World, items: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for item in items:
        retention.erase(world.sessions, world.service.storage, item, "asked for", "service")
    first = retention.erasures(world.sessions, None, 2)
    last = first[-1]
    rest = retention.erasures(world.sessions, (last.requested_at, last.id), 2)
    assert [e.item_id for e in (*first, *rest)] == items[::-1]
    admin = client_of(world.app, world.sessions, Role.ADMIN)
    monkeypatch.setattr("filter_service.web.console.retention.ROWS", 2)
    page = admin.get("/retention/erasures").text
    following = page.split('rel="next" href="')[1].split('"')[0]
    assert f"of item {items[0]}<" in admin.get(following).text
    text = admin.get(f"/retention/erasures/{last.id}/text")
    assert text.text.startswith(f"Receipt {last.id}")
    assert admin.get("/retention/erasures?after=nonsense").status_code == 422


def test_the_commands_keep_hold_and_erase(
    database_url: str, items: list[int], storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FILTER_SERVICE_DATABASE_URL", database_url)
    monkeypatch.setenv("FILTER_SERVICE_BROKER_URL", "redis://127.0.0.1:9")
    monkeypatch.setenv("FILTER_SERVICE_STORAGE_URL", storage.url)

    def run(*words: str) -> str:
        done = CliRunner().invoke(commands, list(words))
        assert done.exit_code == 0, done.output
        return done.output

    item = str(items[0])
    assert "six months" in run(
        "retention", "add", "--days", "30", "--part", "bytes", "--class", "gun", "--yes"
    )
    assert '"days": 30' in run("retention", "list", "--json")
    assert "is removed" in run("retention", "remove", "1")
    assert "is held" in run("hold", "add", item, "--reason", "a court")
    assert "a court" in run("hold", "list", "--json")
    assert "no longer" in run("hold", "release", item, "--reason", "over")
    receipt = run("erase", item, "--reason", "asked for", "--yes").split("Receipt ")[1].split()[0]
    assert "entries without their payloads" in run("receipt", receipt)
    assert '"mentions"' in run("receipt", receipt, "--json")
