"""Walks through the console in a real browser, each ending with what the database holds."""

import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from playwright.sync_api import APIResponse, Browser, Page, expect
from sqlalchemy import Engine, func, select

from filter_service import accounts
from filter_service.accounts import Profile, Role
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    ApiKey,
    Appeal,
    Delivery,
    DeliveryAttempt,
    LedgerEntry,
    LoginFailure,
    OutboxEvent,
    Person,
    QueueEntry,
    Review,
    ReviewCase,
    ReviewOutcome,
    WebhookEndpoint,
)
from filter_service.demo import SAMPLES
from filter_service.ledger import Event
from filter_service.local import Services
from filter_service.reviews.hash_lists import entries
from filter_service.reviews.review_rules import active_rules
from filter_service.reviews.settlement import settle
from filter_service.webhooks.delivery import deliver_due
from tests.support.console_world import World, world_over
from tests.support.review_cases import stage_of

pytest_plugins = ["tests.support.console_fixtures"]

Enter = Callable[..., Page]

WEAPON, DRINK, DICE = "039.jpg", "003.jpg", "000.jpg"  # samples that are flagged
PASSWORD = "a long and quiet password"


@pytest.fixture
def world(admin: Engine, servers: Services, judged: Path) -> Iterator[World]:
    """Decisions take effect at once here, and webhooks may go to this machine."""
    with world_over(admin, servers, judged, undo_seconds=0, webhook_private=True) as found:
        yield found


@pytest.fixture
def address(world: World) -> Iterator[str]:
    with world.served() as found:
        yield found


@pytest.fixture
def enter(world: World, address: str, browser: Browser) -> Iterator[Enter]:
    """Opens a browser of its own for somebody, at a page; script errors fail the test."""
    contexts, faults = [], []

    def entered(role: Role | None, path: str, login: str = "") -> Page:
        context = browser.new_context(base_url=address, reduced_motion="reduce")
        context.set_default_timeout(10_000)
        context.on("weberror", lambda error: faults.append(str(error.error)))
        contexts.append(context)
        if role is not None:
            world.sign_in(context, address, role, login)
        page = context.new_page()
        page.goto(path)
        return page

    yield entered
    for context in contexts:
        context.close()
    assert not faults


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name).first.click()


def decide(world: World, page: Page, key: str) -> None:
    """Press a key, wait until another page or case is there, and let the decision take effect."""
    page.wait_for_selector("#case[data-mine]")
    page.wait_for_load_state()
    item = page.get_attribute("#case", "data-item")
    page.keyboard.press(key)
    page.wait_for_function(
        "item => document.querySelector('#case')?.dataset.item !== item"
        " && !document.querySelector('#case[aria-busy]')",
        arg=item,
    )
    settle(world.sessions)


def review(world: World, page: Page, item: int, key: str) -> None:
    """Open a case, take it, decide."""
    page.goto(f"/items/{item}")
    press(page, "Review this case")
    decide(world, page, key)


def reviews(sessions: Sessions, item: int) -> list[tuple[str, str, str]]:
    """Stage, who, and decision, in order."""
    query = (
        select(Review.stage, Person.login, Review.decision)
        .join(Person, Person.id == Review.person_id)
        .where(Review.item_id == item)
        .order_by(Review.id)
    )
    with sessions.begin() as session:
        return [(stage, login, decision) for stage, login, decision in session.execute(query)]


def outcome(sessions: Sessions, item: int) -> str | None:
    with sessions.begin() as session:
        return session.scalar(select(ReviewOutcome.decision).where(ReviewOutcome.item_id == item))


def happened(sessions: Sessions, event: Event) -> list[LedgerEntry]:
    query = select(LedgerEntry).where(LedgerEntry.event == event).order_by(LedgerEntry.id)
    with sessions.begin() as session:
        return list(session.scalars(query))


def asked_for_second_looks(enter: Enter) -> None:
    """A senior makes the rule on its page."""
    page = enter(Role.SENIOR, "/lists/rules", "rita")
    page.get_by_label("of so many per cent").fill("100")
    page.get_by_label("of the class").fill("weapons")
    press(page, "Add")
    expect(page.get_by_role("status")).to_contain_text("rule holds")


def test_a_second_look_is_blind_and_a_senior_settles_it(world: World, enter: Enter) -> None:
    item = world.item(WEAPON)
    asked_for_second_looks(enter)
    with world.sessions.begin() as session:
        assert [(r.class_name, r.share) for r in active_rules(session)] == [("weapons", 1.0)]

    ada = enter(Role.MODERATOR, f"/items/{item}", "ada")
    press(ada, "Review this case")
    press(ada, "Note")
    ada.get_by_label("Note, kept").fill("the blade is sharp")
    ada.keyboard.press("Escape")
    decide(world, ada, "c")
    assert stage_of(world.sessions, item) == "second"
    assert outcome(world.sessions, item) is None

    ben = enter(Role.MODERATOR, "/queue?stage=second", "ben")
    press(ben, "Start reviewing")
    expect(ben.locator("#case")).to_have_attribute("data-item", str(item))
    expect(ben.locator("#case .stage.chip")).to_have_text("second look")
    said = ben.locator("body").inner_text()
    assert "ada" not in said and "confirmed" not in said and "sharp" not in said
    decide(world, ben, "o")
    assert stage_of(world.sessions, item) == "senior"

    sue = enter(Role.SENIOR, "/queue?stage=senior", "sue")
    press(sue, "Start reviewing")
    told = sue.get_by_role("region", name="What was decided before")
    expect(told).to_contain_text("confirmed by ada")
    expect(told).to_contain_text("overturned by ben")
    decide(world, sue, "c")
    assert reviews(world.sessions, item) == [
        ("first", "ada", "confirmed"),
        ("second", "ben", "overturned"),
        ("senior", "sue", "confirmed"),
    ]
    assert outcome(world.sessions, item) == "confirmed"
    assert stage_of(world.sessions, item) is None


def test_nobody_is_offered_the_second_look_at_their_own_decision(
    world: World, enter: Enter
) -> None:
    item = world.item(WEAPON)
    asked_for_second_looks(enter)
    ada = enter(Role.MODERATOR, "/queue", "ada")
    review(world, ada, item, "c")
    ada.goto("/queue?stage=second")
    press(ada, "Start reviewing")
    expect(ada).to_have_url(re.compile("/queue"))
    expect(ada.locator(f'.cases a[href^="/items/{item}"]')).to_have_count(0)
    ada.goto(f"/items/{item}")
    press(ada, "Review this case")
    expect(ada.locator("main")).to_contain_text("has decided item")
    assert reviews(world.sessions, item) == [("first", "ada", "confirmed")]
    assert stage_of(world.sessions, item) == "second"


def appealed(world: World, page: Page, item: int, statement: str) -> APIResponse:
    """What a platform sends for its user."""
    secret = accounts.add_key(world.sessions, "shop", "service", "default")
    return page.request.post(
        f"/v1/items/{item}/appeals",
        data={"statement": statement},
        headers={"Authorization": f"Bearer {secret}"},
    )


def test_an_appeal_is_closed_by_somebody_else_in_one_action(world: World, enter: Enter) -> None:
    item = world.item(DRINK)
    with world.sessions.begin() as session:
        hook = WebhookEndpoint(url="https://shop.example", secret="whsec_a", created_by="key shop")
        session.add(hook)
    ada = enter(Role.MODERATOR, "/queue", "ada")
    review(world, ada, item, "c")
    assert outcome(world.sessions, item) == "confirmed"
    opened = appealed(world, enter(None, "/login"), item, "This is apple juice.")
    assert opened.status == 201 and opened.json()["closed_at"] is None
    assert stage_of(world.sessions, item) == "appeal"

    ada.goto("/queue?stage=appeal")
    press(ada, "Start reviewing")
    expect(ada).to_have_url(re.compile("/queue"))
    ben = enter(Role.MODERATOR, "/queue?stage=appeal", "ben")
    press(ben, "Start reviewing")
    statement = ben.get_by_role("region", name="The user disagrees")
    expect(statement).to_contain_text("This is apple juice.")
    decide(world, ben, "o")

    assert outcome(world.sessions, item) == "overturned"
    assert stage_of(world.sessions, item) is None
    with world.sessions.begin() as session:
        (closed,) = session.scalars(select(Appeal))
        told = set(session.scalars(select(OutboxEvent.type).where(OutboxEvent.item_id == item)))
    assert closed.upheld is False and closed.closed_at is not None
    assert {"appeal.opened", "appeal.closed", "review.decided"} <= told
    assert reviews(world.sessions, item)[-1] == ("appeal", "ben", "overturned")


def test_search_by_words_by_a_file_and_by_an_item(world: World, enter: Enter) -> None:
    world.service.seeker.text("a picture")  # loaded before somebody waits for it
    page = enter(Role.MODERATOR, "/search", "ada")
    page.get_by_role("searchbox").fill("a bow and arrow")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nearest to “a bow and arrow”")).to_be_visible()
    expect(page.locator("#found-1")).to_contain_text("weapons")

    page.get_by_label("By an image").set_input_files(SAMPLES / DICE)
    page.get_by_role("button", name="Search").last.click()
    item = world.item(DICE)
    expect(page.get_by_role("heading", name="Like the image you sent")).to_be_visible()
    expect(page.locator("#found-1")).to_contain_text("similarity 1.00")
    expect(page.locator("#found-1")).to_contain_text(f"Item {item}")

    page.locator("#found-1").get_by_role("link", name="More like this").click()
    expect(page.get_by_role("heading", name=f"More like item {item}")).to_be_visible()
    expect(page.locator("#found-1")).to_contain_text("000-copy-")
    searches = happened(world.sessions, Event.SEARCHED)
    assert [next(k for k in e.details if k != "limit") for e in searches] == [
        "words",
        "image",
        "like",
    ]
    assert {e.actor for e in searches} == {"person ada"}
    assert not happened(world.sessions, Event.REVEALED)
    assert not [path for path, _ in world.sent if path.endswith("/original")]


def test_an_image_on_the_allow_list_clears_its_copies_that_wait(world: World, enter: Enter) -> None:
    item = world.item(DICE)
    page = enter(Role.SENIOR, f"/lists?item={item}", "sue")
    if not page.get_by_label("Why").is_visible():
        page.get_by_text("Add an image").click()
    expect(page.get_by_label("Class")).to_have_value("gambling")
    page.get_by_label("Why").fill("our own advertisement")
    press(page, "See what it would decide")
    expect(page.get_by_role("heading", name="5 waiting cases match")).to_be_visible()
    page.get_by_label("Clear these 5 now, too").check()
    press(page, "Put on the allow list")
    expect(page.get_by_role("status")).to_contain_text("It decided 5 that waited")

    (entry,) = entries(world.sessions)
    assert (entry.class_name, entry.reason) == ("gambling", "our own advertisement")
    with world.sessions.begin() as session:
        cleared = session.execute(
            select(ReviewOutcome.decision, func.count()).group_by(ReviewOutcome.decision)
        ).all()
    assert cleared == [("overturned", 5)]
    assert stage_of(world.sessions, item) is None
    press(page, "Remove")
    expect(page.get_by_role("status")).to_contain_text("is removed")
    assert entries(world.sessions) == []
    assert len(happened(world.sessions, Event.UNLISTED)) == 1


def test_an_undetermined_item_is_judged_again_on_demand(world: World, enter: Enter) -> None:
    item = world.item("half.jpg")
    moderator = enter(Role.MODERATOR, "/undetermined")
    expect(moderator.get_by_text("image file is truncated")).to_be_visible()
    expect(moderator.get_by_role("button", name="Retry")).to_have_count(0)
    senior = enter(Role.SENIOR, "/undetermined")
    press(senior, f"Retry item {item}")
    expect(senior.get_by_role("status")).to_contain_text("1 item is queued again")
    with world.sessions.begin() as session:
        assert list(session.scalars(select(QueueEntry.item_id))) == [item]
    (entry,) = happened(world.sessions, Event.RETRIED)
    assert (entry.actor, entry.item_id) == ("person senior", item)


def test_an_auditor_reads_everything_and_decides_nothing(world: World, enter: Enter) -> None:
    item = world.item(WEAPON)
    page = enter(Role.AUDITOR, "/queue")
    expect(page.get_by_role("button", name="Start reviewing")).to_have_count(0)
    page.goto(f"/items/{item}")
    expect(page.get_by_text("Everything that happened to this item")).to_be_visible()
    for name in ("Review this case", "Confirm", "Overturn", "Escalate", "Skip"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
    page.keyboard.press("s")
    page.keyboard.press("c")
    token = page.locator("[name=csrf_token]").first.input_value()
    for path in ("claim", "decision", "beat", "release"):
        refused = page.request.post(
            f"/items/{item}/{path}", form={"csrf_token": token, "decision": "confirmed"}
        )
        assert refused.status == 403 and "auditor" in refused.text()
    assert page.request.post("/queue/next", form={"csrf_token": token}).status == 403
    with world.sessions.begin() as session:
        assert session.scalars(select(Review.id)).all() == []
        held = select(ReviewCase.item_id).where(ReviewCase.holder.is_not(None))
        assert session.scalars(held).all() == []


def test_wrong_passwords_are_refused_and_then_slowed_down(world: World, enter: Enter) -> None:
    accounts.add_person(world.sessions, "ada", Profile(Role.MODERATOR), PASSWORD, "service")
    page = enter(None, "/queue")
    for n in range(11):
        page.get_by_label("Log-in name").fill("ada")
        page.get_by_label("Password").fill(PASSWORD if n == 10 else "a guess")
        with page.expect_response(re.compile("/login$")) as answer:
            page.keyboard.press("Enter")
        assert answer.value.status == (429 if n == 10 else 401)
        expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_role("alert")).to_contain_text("Too many log-ins failed: try again in")
    expect(page.get_by_label("Password")).to_have_value("")
    with world.sessions.begin() as session:
        failures = select(func.count()).where(LoginFailure.key == "name ada")
        assert session.scalar(failures) == 10
        assert session.scalar(select(func.count()).select_from(Person)) == 1


def test_an_api_key_is_shown_once_and_works_until_revoked(world: World, enter: Enter) -> None:
    page = enter(Role.ADMIN, "/keys")
    page.get_by_label("Name of the new key").fill("shop")
    page.get_by_label("Client it belongs to").fill("default")
    press(page, "Add")
    secret = page.get_by_label("The key shop").input_value()
    platform = {"Authorization": f"Bearer {secret}"}
    item = world.item(DICE)
    assert page.request.get(f"/v1/items/{item}", headers=platform).status == 200
    page.goto("/keys")
    expect(page.locator("li", has_text="shop")).to_contain_text("by person admin")
    assert secret not in page.content()
    with world.sessions.begin() as session:
        (key,) = session.scalars(select(ApiKey))
        kept = [str(getattr(key, column.name)) for column in ApiKey.__table__.columns]
    assert not [value for value in kept if secret in value] and key.created_by == "person admin"
    press(page, "Revoke shop")
    expect(page.get_by_text("revoked")).to_be_visible()
    assert page.request.get(f"/v1/items/{item}", headers=platform).status == 401


@pytest.fixture
def receiver() -> Iterator[HTTPServer]:
    """A platform that takes whatever it is sent."""

    class Taking(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Taking) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.02])
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_a_webhook_is_tried_and_its_deliveries_are_read(
    world: World, enter: Enter, receiver: HTTPServer
) -> None:
    url = f"http://127.0.0.1:{receiver.server_address[1]}/hook"
    page = enter(Role.ADMIN, "/webhooks")
    page.get_by_label("Address of the new webhook").fill(url)
    press(page, "Add")
    secret = page.get_by_label(f"The secret of {url}").input_value()
    assert secret.startswith("whsec_")
    page.goto("/webhooks")
    assert secret not in page.content()
    page.get_by_role("link", name=url).click()
    press(page, "Send a test")
    log = page.get_by_role("region", name="Deliveries")
    expect(log).to_contain_text("none yet")
    deliver_due(world.sessions, world.service.settings)
    page.reload()
    expect(log).to_contain_text("delivered")
    expect(log).to_contain_text("204 after")
    press(page, "Send again")
    deliver_due(world.sessions, world.service.settings)
    page.reload()
    expect(log.get_by_text("204 after")).to_have_count(2)
    with world.sessions.begin() as session:
        (delivery,) = session.scalars(select(Delivery))
        statuses = session.scalars(select(DeliveryAttempt.status)).all()
    assert delivery.delivered_at is not None and statuses == [204, 204]
