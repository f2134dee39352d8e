"""The overview and the undetermined items: figures that add up, and trying again."""

import re
from datetime import UTC, date, datetime, timedelta
from xml.etree import ElementTree

import pytest
from fastapi import FastAPI
from sqlalchemy import insert, select, update

from filter_service import accounts, ledger
from filter_service.accounts import Role
from filter_service.calibration.standing_estimates import refresh
from filter_service.db.embeddings import register_encoder
from filter_service.db.session import Sessions
from filter_service.db.tables import (
    Batch,
    Item,
    QueueEntry,
    StoredScore,
    Tally,
    WebhookEndpoint,
)
from filter_service.rendering import charts
from filter_service.reviews.case_claims import claim
from filter_service.reviews.case_opening import ReviewChance
from filter_service.reviews.decisions import decide
from filter_service.reviews.settlement import Decision, settle
from filter_service.storage import Storage
from filter_service.verdicts import Verdict
from filter_service.web.app import create_app
from filter_service.web.console import overview
from tests.support.explained_items import Pictured, coloured, stored
from tests.support.review_cases import Wanted, cases_of, colleague
from tests.support.web_clients import client_of, somebody, web_service

NOW = datetime.now(UTC)


@pytest.fixture
def knocks() -> list[None]:
    return []


@pytest.fixture
def app(sessions: Sessions, storage: Storage, knocks: list[None]) -> FastAPI:
    return create_app(web_service(sessions, storage, lambda: knocks.append(None)))


def counted(sessions: Sessions, *rows: tuple[str, str, float, int]) -> None:
    """(kind, class, amount, days ago)."""
    with sessions.begin() as session:
        session.execute(
            insert(Tally),
            [
                {"kind": k, "class_name": c, "amount": a, "at": NOW - timedelta(days=d)}
                for k, c, a, d in rows
            ],
        )


def some_figures(sessions: Sessions) -> None:
    counted(
        sessions,
        ("judged", "", 1000, 1),
        ("judged", "", 1000, 2),
        ("flagged", "gun", 50, 1),
        ("flagged", "gun", 10, 2),
        ("flagged", "knife", 3, 2),
        ("confirmed", "gun", 30, 1),
        ("overturned", "gun", 10, 1),
        ("undetermined", "", 7, 1),
    )


def failed_items(sessions: Sessions, storage: Storage, number: int) -> list[int]:
    failed = Pictured(coloured(), Verdict.UNDETERMINED, reason="it is <cut> off")
    return stored(sessions, storage, *[failed] * number)


def words(page: str) -> str:
    """The text of a page."""
    return " ".join(re.sub(r"<[^>]*>", " ", page).split())


def test_the_figures_add_up(app: FastAPI, sessions: Sessions) -> None:
    some_figures(sessions)
    cases_of(sessions, [Wanted("gun"), Wanted("gun"), Wanted("knife")])
    page = words(client_of(app, sessions, Role.AUDITOR).get("/overview").text)
    assert "3 waiting for a decision" in page
    assert "2,000 judged in 30 days" in page and "7 became undetermined" in page
    assert "gun 3 %" in page  # 60 of 2000
    assert "25 % 10 of 40" in page  # overturned
    assert "50 5 %" in page and "10 1 %" in page  # the table of days


def test_charts_have_a_title_a_description_and_no_style(app: FastAPI, sessions: Sessions) -> None:
    some_figures(sessions)
    page = client_of(app, sessions, Role.AUDITOR).get("/overview").text
    drawn = re.findall(r'<svg class="columns".*?</svg>', page, re.DOTALL)
    assert len(drawn) == 2 and "style=" not in page and "<script" not in page
    for svg in drawn:
        tree = ElementTree.fromstring(svg)
        named = tree.attrib["aria-labelledby"].split()
        assert [e.attrib["id"] for e in tree[:2]] == named and all(e.text for e in tree[:2])


def test_nobody_sees_figures_of_closed_classes(app: FastAPI, sessions: Sessions) -> None:
    some_figures(sessions)
    cases_of(sessions, [Wanted("gun"), Wanted("knife")])
    closed = client_of(app, sessions, Role.MODERATOR, "knives", classes=("knife",))
    page = words(closed.get("/overview").text)
    assert "1 waiting for a decision" in page and "gun" not in page


def test_the_page_of_an_empty_house_says_so(app: FastAPI, sessions: Sessions) -> None:
    page = client_of(app, sessions, Role.MODERATOR).get("/overview")
    assert page.status_code == 200 and "Nothing was flagged" in page.text


def test_ones_own_reveals_of_today_are_shown_with_their_cap(
    app: FastAPI, sessions: Sessions, storage: Storage
) -> None:
    browser = client_of(app, sessions, Role.MODERATOR, reveal_cap=20)
    first, second = stored(sessions, storage, *[Pictured(coloured())] * 2)
    person = somebody(sessions, Role.MODERATOR)
    accounts.reveal(sessions, person, first, "gun", None)
    accounts.reveal(sessions, person, second, "knife", None)
    page = words(browser.get("/overview").text)
    assert "2 of at most 20 images" in page and "gun 1 knife 1" in page


def test_webhooks_in_trouble_are_shown_to_who_can_mend_them(
    app: FastAPI, sessions: Sessions
) -> None:
    with sessions.begin() as session:
        since = NOW - timedelta(hours=3)
        endpoint = {"secret": "whsec_a", "created_by": "person a"}
        session.execute(
            insert(WebhookEndpoint),
            [
                {**endpoint, "url": "https://fails.example/in", "failing_since": since},
                {**endpoint, "url": "https://works.example/in", "failing_since": None},
            ],
        )
    page = client_of(app, sessions, Role.ADMIN).get("/overview").text
    assert "fails.example" in page and "works.example" not in page
    assert "fails.example" not in client_of(app, sessions, Role.MODERATOR).get("/overview").text


def test_undetermined_items_are_turned_over_newest_first(
    app: FastAPI, sessions: Sessions, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "ROWS", 2)
    items = failed_items(sessions, storage, 5)
    browser, address, seen = client_of(app, sessions, Role.AUDITOR), "/undetermined", []
    while address:
        page = browser.get(address).text
        seen.append([int(i) for i in re.findall(r'href="/items/(\d+)"', page)])
        more = re.search(r'rel="next" href="([^"]+)"', page)
        address = more[1] if more else ""
    assert seen == [items[:2:-1], items[2:0:-1], items[:1]]
    assert "it is &lt;cut&gt; off" in page and "Retry" not in page  # an auditor only reads


def test_one_item_or_all_that_are_shown_are_judged_again(
    app: FastAPI, sessions: Sessions, storage: Storage, knocks: list[None]
) -> None:
    items = failed_items(sessions, storage, 3)
    browser = client_of(app, sessions, Role.SENIOR)
    page = browser.post("/undetermined/retry", data={"item": [items[0]]}).text
    assert "1 item is queued again" in page and f"/items/{items[0]}" not in page
    browser.post("/undetermined/retry", data={"item": items[1:]})
    with sessions.begin() as session:
        queued = set(session.scalars(select(QueueEntry.item_id)))
        entry = ledger.of_item(session, items[0])[-1]
    assert queued == set(items) and len(knocks) == 2
    assert (entry.event, entry.actor) == ("retried", "person senior")


def test_what_cannot_be_judged_again_is_left_as_it_is(
    app: FastAPI, sessions: Sessions, storage: Storage
) -> None:
    gone, flagged = stored(
        sessions,
        storage,
        Pictured(None, Verdict.UNDETERMINED, reason="permission denied"),
        Pictured(coloured()),
    )
    (cancelled,) = failed_items(sessions, storage, 1)
    with sessions.begin() as session:
        of_item = select(Item.batch_id).where(Item.id == cancelled).scalar_subquery()
        session.execute(update(Batch).where(Batch.id == of_item).values(cancelled_at=NOW))
    browser = client_of(app, sessions, Role.SENIOR)
    page = browser.post("/undetermined/retry", data={"item": [gone, flagged, cancelled, 999]})
    assert "0 items are queued again" in page.text
    assert "no bytes: submit it again" in page.text and "batch cancelled" in page.text


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.AUDITOR])
def test_who_may_not_retry_is_refused(app: FastAPI, sessions: Sessions, role: Role) -> None:
    browser = client_of(app, sessions, role)
    assert browser.post("/undetermined/retry", data={"item": [1]}).status_code == 403


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0.01), (0.004, 0.005), (0.01, 0.01), (0.011, 0.02), (0.3, 0.5), (0.7, 1), (1, 1)],
)
def test_axes_end_at_round_numbers(value: float, expected: float) -> None:
    assert charts.nice(value) == pytest.approx(expected)


def test_a_chart_draws_its_own_days_only() -> None:
    last = date(2026, 3, 31)
    shares = {last: 0.5, last - timedelta(days=9): 0.25, last - timedelta(days=10): 1.0}
    drawn = str(charts.columns("a", "b", shares, last, 10))
    heights = [float(h) for h in re.findall(r'class="column"[^>]*height="([\d.]+)"', drawn)]
    assert heights == [64.0, 32.0]


def test_the_overview_says_how_right_each_class_is(app: FastAPI, sessions: Sessions) -> None:
    ada = colleague(sessions, "boss", Role.ADMIN)
    items = cases_of(sessions, [Wanted(chance=ReviewChance.of_flag("gun"))] * 25)
    with sessions.begin() as session:
        encoder = register_encoder(session, "ab" * 32, "simple", 4, {})
        rows = session.execute(select(Item.image_id, Item.class_id).where(Item.id.in_(items)))
        scores = [
            {"encoder_id": encoder, "image_id": i, "class_id": c, "margin": 1.0, "frame": 0}
            for i, c in rows
        ]
        session.execute(insert(StoredScore), [row | {"exact": True} for row in scores])
        session.execute(update(Item).values(encoder_id=encoder))
    for number, item in enumerate(items):
        claim(sessions, ada, item, 60)
        decision = Decision.CONFIRMED if number < 20 else Decision.OVERTURNED
        decide(sessions, ada, item, decision, undo_seconds=0)
    settle(sessions)
    refresh(sessions)
    page = client_of(app, sessions, Role.AUDITOR).get("/overview").text
    assert re.search(r"As of \d", words(page))
    row = re.search(r"How right it is.*?<tbody>(.*?)</tbody>", page, re.S)
    assert row is not None
    assert words(row[1]).startswith("gun house 80 % ")
    assert "Only flags were reviewed, which say nothing about what was missed" in words(row[1])
    hidden = client_of(app, sessions, Role.MODERATOR, classes=("knife",))
    assert "How right it is" not in hidden.get("/overview").text
