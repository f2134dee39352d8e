"""The console's pages without a browser: what they show, to whom, and what their forms do."""

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from filter_service import ledger
from filter_service.accounts import Role
from filter_service.db.tables import Review, ReviewCase, StoredExplanation
from filter_service.ledger import Event
from filter_service.policy import ForbiddenClass
from filter_service.rendering.class_evidence import evidence
from filter_service.rendering.formats import percent, signed, span
from filter_service.reviews.case_claims import claim_next
from filter_service.reviews.queue import Filter
from filter_service.verdicts.explanation import Explanation
from tests.support.explanation_records import record
from tests.support.web_clients import client_of, somebody

if TYPE_CHECKING:
    from tests.support.console_world import World

pytest_plugins = ["tests.support.console_fixtures"]

JSON = {"Accept": "application/json"}


@pytest.fixture
def client(world: "World") -> Iterator[TestClient]:
    """A moderator's browser without JavaScript."""
    yield client_of(world.app, world.sessions, Role.MODERATOR)


def begun(client: TestClient, queue: str = "") -> int:
    """Start reviewing; -> the item that is now this person's."""
    answer = client.post("/queue/next", data={"queue": queue}, follow_redirects=False)
    found = re.match(r"/items/(\d+)", answer.headers["location"])
    assert found, answer.headers["location"]
    return int(found[1])


def decided(client: TestClient, item_id: int, **form: object) -> str:
    """Send a decision as a plain form; -> where it leads."""
    fields = {"decision": "confirmed", **form}
    answer = client.post(f"/items/{item_id}/decision", data=fields, follow_redirects=False)
    assert answer.status_code == 303, answer.text
    return answer.headers["location"]


def reviews_of(world: "World", item_id: int) -> list[Review]:
    with world.sessions.begin() as session:
        query = select(Review).where(Review.item_id == item_id).order_by(Review.id)
        return list(session.scalars(query))


def test_the_queue_is_ordered_by_severity_and_margin(client: TestClient) -> None:
    page = client.get("/queue").text
    severities = re.findall(r'chip severity (\w+)"', page)
    assert severities == sorted(severities, key=["high", "medium", "low"].index)
    assert "<b>32</b> waiting" in page


def test_a_filter_keeps_one_class(client: TestClient) -> None:
    page = client.get("/queue", params={"class": "alcohol"}).text
    shown = set(re.findall(r'class="open" href="[^"]+">([\w-]+)<', page))
    assert shown == {"alcohol"}


@pytest.mark.parametrize("query", ["batch=x", "stage=third", "held=you", "order=random"])
def test_an_unknown_filter_is_refused_with_a_sentence(client: TestClient, query: str) -> None:
    answer = client.get(f"/queue?{query}", headers=JSON)
    assert answer.status_code == 422
    assert query.split("=")[1] in answer.json()["detail"]


def test_a_decision_claims_and_shows_the_next_case(world: "World", client: TestClient) -> None:
    first = begun(client)
    location = decided(client, first, note="a toy")
    page = client.get(location).text
    assert location != f"/items/{first}"
    assert 'name="decision" value="confirmed"' in page
    assert f'action="/items/{first}/undo"' in page
    assert [(r.decision, r.note) for r in reviews_of(world, first)] == [("confirmed", "a toy")]


def test_the_filter_goes_on_with_the_next_case(client: TestClient) -> None:
    asked = "class=gambling"
    location = decided(client, begun(client, asked), queue=asked)
    assert location.endswith(f"?{asked}")
    assert '<h1 tabindex="-1">gambling</h1>' in client.get(location).text


def test_undoing_leads_back_to_the_case(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    decided(client, item_id)
    (review,) = reviews_of(world, item_id)
    form = {"review": review.id}
    answer = client.post(f"/items/{item_id}/undo", data=form, follow_redirects=False)
    assert answer.headers["location"] == f"/items/{item_id}"
    assert 'name="decision"' in client.get(f"/items/{item_id}").text


def test_skipping_needs_a_reason_and_keeps_it(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    bare = client.post(f"/items/{item_id}/decision", data={"decision": "skipped"}, headers=JSON)
    assert bare.status_code == 422
    decided(client, item_id, skip="I cannot tell what it shows")
    (review,) = reviews_of(world, item_id)
    assert (review.decision, review.reason) == ("skipped", "I cannot tell what it shows")


def test_a_script_is_told_what_comes_next(client: TestClient) -> None:
    item_id = begun(client)
    form = {"decision": "overturned"}
    told = client.post(f"/items/{item_id}/decision", data=form, headers=JSON).json()
    assert told["next"].startswith("/items/")
    assert told["next"] not in told["ahead"]
    assert len(told["ahead"]) == 2
    assert "<b>overturned</b>" in told["said"]


def test_a_page_fetched_ahead_claims_nothing(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    told = client.post(
        f"/items/{item_id}/decision", data={"decision": "confirmed"}, headers=JSON
    ).json()
    soon = told["ahead"][0]
    assert 'id="decision"' in client.get(f"{soon}?soon=1").text
    assert 'id="decision"' not in client.get(soon).text


def test_look_alikes_are_decided_together(world: "World", client: TestClient) -> None:
    first = world.item("000.jpg")
    client.post(f"/items/{first}/claim")
    page = client.get(f"/items/{first}/lookalikes").text
    others = [int(i) for i in re.findall(r'name="also" value="(\d+)"', page)]
    assert len(others) == 4
    decided(client, first, also=others[:3])
    with world.sessions.begin() as session:
        entries = [ledger.of_item(session, i)[-1].event for i in (first, *others)]
    assert entries == [Event.DECIDED] * 4 + [entries[-1]]
    assert not reviews_of(world, others[3])


def test_a_colleague_sees_who_holds_a_case(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    other = client_of(world.app, world.sessions, Role.MODERATOR, "second")
    assert "moderator has this case" in other.get(f"/items/{item_id}").text
    form = {"decision": "confirmed"}
    answer = other.post(f"/items/{item_id}/decision", data=form, headers=JSON)
    assert answer.status_code == 409


def test_a_case_is_handed_over(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    other = client_of(world.app, world.sessions, Role.MODERATOR, "second")
    client.post(f"/items/{item_id}/handover", data={"to_login": "second"})
    assert 'id="decision"' in other.get(f"/items/{item_id}").text


def test_leaving_lets_the_claim_end_soon(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    client.post(f"/items/{item_id}/beat", data={"leaving": "1"})
    with world.sessions.begin() as session:
        case = session.get_one(ReviewCase, item_id)
        assert case.claimed_at is not None
        assert (case.leased_until - case.claimed_at).total_seconds() < 30


def test_the_original_comes_only_after_a_reveal(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    assert client.get(f"/pictures/{item_id}/original").status_code == 403
    answer = client.post(f"/items/{item_id}/reveal", headers=JSON)
    assert answer.json() == {"today": 1}
    assert client.get(f"/pictures/{item_id}/original").status_code == 200


def test_a_map_that_failed_its_test_is_not_shown(world: "World", client: TestClient) -> None:
    with world.sessions.begin() as session:
        failed = select(StoredExplanation.item_id).where(StoredExplanation.faithful.is_(False))
        item_id = session.scalars(failed.limit(1)).one()
    page = client.get(f"/items/{item_id}").text
    assert f"/pictures/{item_id}/map" not in page
    assert "The map failed the faithfulness test and is not shown" in page


def test_an_auditor_reads_and_cannot_decide(world: "World") -> None:
    item_id = world.item("000.jpg")
    auditor = client_of(world.app, world.sessions, Role.AUDITOR)
    page = auditor.get(f"/items/{item_id}").text
    assert "Everything that happened to this item" in page
    assert 'id="decision"' not in page
    answer = auditor.post(f"/items/{item_id}/claim", headers=JSON)
    assert answer.status_code == 403


def test_closed_classes_are_neither_listed_nor_opened(world: "World") -> None:
    profile = {"classes": ("alcohol",)}
    limited = client_of(world.app, world.sessions, Role.MODERATOR, "limited", **profile)
    page = limited.get("/queue").text
    assert set(re.findall(r'class="open" href="[^"]+">([\w-]+)<', page)) == {"alcohol"}
    assert "gambling" not in page
    closed = world.item("000.jpg")  # gambling
    assert limited.get(f"/items/{closed}").status_code == 403


def test_a_second_look_does_not_show_the_first_decision(world: "World", client: TestClient) -> None:
    item_id = begun(client)
    decided(client, item_id, note="clearly a toy")
    with world.sessions.begin() as session:
        changed = update(ReviewCase).where(ReviewCase.item_id == item_id)
        session.execute(changed.values(stage="second", review_id=None, holder=None))
    other = client_of(world.app, world.sessions, Role.MODERATOR, "second")
    page = other.get(f"/items/{item_id}").text
    assert "second look" in page
    assert "clearly a toy" not in page
    assert "What was decided before" not in page


def test_every_form_carries_the_token(world: "World", client: TestClient) -> None:
    page = client.get(f"/items/{begun(client)}").text
    forms = re.findall(r'<form method="post".*?</form>', page, re.S)
    assert len(forms) >= 4
    assert all('name="csrf_token" value="' in form for form in forms)


def test_no_page_holds_inline_script_or_style(client: TestClient) -> None:
    for address in ("/queue", f"/items/{begun(client)}"):
        page = client.get(address).text
        assert not re.findall(r"<script(?![^>]*src=)|<style|\sstyle=|\son\w+=", page)


def test_nobody_is_given_the_same_case(world: "World") -> None:
    people = [somebody(world.sessions, Role.MODERATOR, f"m{i}") for i in range(3)]
    found = [claim_next(world.sessions, p, Filter(), 60.0) for p in people]
    assert len({c.item_id for c in found if c}) == 3


def _forbidden(explained: Explanation) -> ForbiddenClass:
    return ForbiddenClass(
        name=explained.class_name, prompts=("a gun",), threshold=explained.threshold
    )


def test_words_have_the_same_colour_on_every_page() -> None:
    explained = record()
    found = evidence(7, _forbidden(explained), 0.0, explained)
    for prompt, stored in zip(found.prompts, explained.words, strict=True):
        for word, kept in zip(prompt.words, stored.words, strict=True):
            side = "for" if kept.shapley > 0 else "against"
            assert word.colour == "neither" or word.colour.startswith(side)


def test_numbers_are_written_for_people() -> None:
    assert [percent(p) for p in (0.5, 0.9984, 1 - 1e-9, 0.0004)] == [
        "50 %",
        "99.8 %",
        "over 99.999 %",
        "0.04 %",
    ]
    assert signed(-0.01) == "+0.0"
    assert [span(s) for s in (9, 600, 7260, 400_000)] == ["9 s", "10 min", "2 h 01 min", "4 days"]
