"""Lists and rules by hand: see first what an entry decides, then add it, and take it back."""

import re

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from filter_service.accounts import Role
from filter_service.db.session import Sessions
from filter_service.reviews import hash_lists, review_rules
from filter_service.reviews.hash_matching import ListKind, Match
from filter_service.storage import Storage
from filter_service.web.app import create_app
from filter_service.web.console import list_entries as page_of_rules
from tests.support.review_cases import Wanted, cases_of, one_case, stage_of
from tests.support.web_clients import client_of, web_service

ENTRY = {"kind": "allow", "class_name": "gun", "match": "digest", "reason": "our own poster"}


@pytest.fixture
def app(sessions: Sessions, storage: Storage) -> FastAPI:
    return create_app(web_service(sessions, storage))


@pytest.fixture
def browser(app: FastAPI, sessions: Sessions) -> TestClient:
    return client_of(app, sessions, Role.POLICY_EDITOR)


def test_a_preview_shows_what_would_be_decided_and_changes_nothing(
    browser: TestClient, sessions: Sessions
) -> None:
    item = one_case(sessions)
    page = browser.get("/lists/preview", params={**ENTRY, "item": item}).text
    assert "1 waiting case matches" in page and f"/pictures/{item}/thumbnail" in page
    assert hash_lists.entries(sessions) == [] and stage_of(sessions, item) == "first"


def test_an_entry_decides_what_waits_if_that_is_asked_for(
    browser: TestClient, sessions: Sessions
) -> None:
    kept, decided = cases_of(sessions, [Wanted(), Wanted()])
    browser.post("/lists", data={**ENTRY, "item": kept})
    page = browser.post("/lists", data={**ENTRY, "item": decided, "decide_waiting": "true"}).text
    assert "It decided 1 that waited" in page
    assert (stage_of(sessions, kept), stage_of(sessions, decided)) == ("first", None)
    entries = hash_lists.entries(sessions)
    assert [(e.kind, e.match, e.created_by) for e in entries] == [
        (ListKind.ALLOW, Match.DIGEST, "person policy_editor")
    ] * 2


def test_a_listed_image_is_shown_with_what_it_matches_and_can_be_removed(
    browser: TestClient, sessions: Sessions
) -> None:
    item = one_case(sessions)
    page = browser.post("/lists", data={**ENTRY, "item": item}).text
    assert f"/pictures/{item}/thumbnail" in page and "our own poster" in page
    matches = re.search(r'href="(/lists/preview\?[^"]+)"', page)
    assert matches and "1 waiting case" in browser.get(matches[1].replace("&amp;", "&")).text
    (entry,) = hash_lists.entries(sessions)
    assert "is removed" in browser.post("/lists/remove", data={"entry": entry.id}).text
    assert hash_lists.entries(sessions) == []
    assert browser.post("/lists/remove", data={"entry": entry.id}).status_code == 404


def test_the_form_is_filled_in_from_an_item(browser: TestClient, sessions: Sessions) -> None:
    item = one_case(sessions, "knife")
    page = browser.get("/lists", params={"item": item}).text
    assert f'name="item" value="{item}"' in page
    assert re.search(r'name="class_name"[^>]*value="knife"', page)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"reason": " "}, "needs a reason"),
        ({"item": ""}, "one image"),
        ({"item": "x1"}, "item=&#39;x1&#39; is no number"),
        ({"item": "", "digest": "abc"}, "is no digest"),
        ({"class_name": "No Such"}, "names no class"),
        ({"match": "pdq", "within": "many"}, "distance=&#39;many&#39; is no number"),
        ({"match": "pdq"}, "no perceptual hash"),
        ({"kind": "ban"}, "kind=&#39;ban&#39;"),
    ],
    ids=str,
)
def test_a_wrong_entry_is_refused_with_a_sentence_and_kept_in_the_form(
    browser: TestClient, sessions: Sessions, changes: dict[str, str], said: str
) -> None:
    form = {**ENTRY, "item": str(one_case(sessions)), **changes}
    for answer in (browser.get("/lists/preview", params=form), browser.post("/lists", data=form)):
        assert answer.status_code == 422 and said in answer.text
        assert f'name="class_name" list="classes" value="{form["class_name"]}"' in answer.text
    assert hash_lists.entries(sessions) == []


def test_entries_of_closed_classes_are_not_shown(app: FastAPI, sessions: Sessions) -> None:
    editor = client_of(app, sessions, Role.POLICY_EDITOR)
    editor.post("/lists", data={**ENTRY, "item": one_case(sessions)})
    closed = client_of(app, sessions, Role.SENIOR, "knives", classes=("knife",))
    assert "our own poster" not in closed.get("/lists").text
    form = {**ENTRY, "item": one_case(sessions)}
    assert closed.post("/lists", data=form).status_code == 403


def test_entries_are_turned_over(
    browser: TestClient, sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(page_of_rules, "ROWS", 2)
    for number in range(3):
        digest = f"{number}" * 64
        browser.post("/lists", data={**ENTRY, "digest": digest, "reason": f"reason {number}"})
    first = browser.get("/lists").text
    more = re.search(r'rel="next" href="([^"]+)"', first)
    assert more and "reason 2" in first and "reason 0" not in first
    last = browser.get(more[1]).text
    assert "reason 0" in last and "reason 1" not in last and 'rel="next"' not in last


def test_rules_are_added_and_removed(browser: TestClient, sessions: Sessions) -> None:
    form = {"kind": "second_look", "share": "12.5", "class_name": "gun", "margin_below": "1,5"}
    page = browser.post("/lists/rules", data=form).text
    assert "12.5 %" in page and "within 1.5 logits" in page
    browser.post("/lists/rules", data={"kind": "clear_sample", "share": "1"})
    with sessions.begin() as session:
        second, sample = review_rules.active_rules(session)
    assert (second.class_name, second.margin_below, second.share) == ("gun", 1.5, 0.125)
    assert (sample.class_name, sample.margin_below, sample.share) == (None, None, 0.01)
    assert "is removed" in browser.post("/lists/rules/remove", data={"rule": second.id}).text
    with sessions.begin() as session:
        assert review_rules.active_rules(session) == [sample]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"share": "0"}, "share is 0"),
        ({"share": "a lot"}, "is no number"),
        ({"kind": "third_look"}, "is no rule"),
        ({"class_name": "No Such"}, "names no class"),
        ({"margin_below": "0"}, "margin is 0"),
    ],
    ids=str,
)
def test_a_wrong_rule_is_refused_with_a_sentence(
    browser: TestClient, sessions: Sessions, changes: dict[str, str], said: str
) -> None:
    answer = browser.post("/lists/rules", data={"kind": "second_look", "share": "10", **changes})
    assert answer.status_code == 422 and said in answer.text
    with sessions.begin() as session:
        assert review_rules.active_rules(session) == []


@pytest.mark.parametrize("role", [Role.MODERATOR, Role.AUDITOR])
def test_who_may_not_change_rules_is_refused(app: FastAPI, sessions: Sessions, role: Role) -> None:
    browser = client_of(app, sessions, role)
    for address in ("/lists", "/lists/preview", "/lists/rules"):
        assert browser.get(address).status_code == 403
    for address in ("/lists", "/lists/remove", "/lists/rules", "/lists/rules/remove"):
        assert browser.post(address, data={}).status_code == 403
